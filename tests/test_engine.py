"""Local workers: how they are started."""

from __future__ import annotations

import os

import dask
import pytest

from converters.engine import WORKER_ENVIRONMENT, Engine

NAMES = ("OMP_NUM_THREADS", *WORKER_ENVIRONMENT)


def _environment(_: int) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in NAMES}


def _of_workers() -> list[object]:
    with Engine(workers=2) as engine:
        return [found for _, found in engine.run([1, 2], _environment)]


def test_local_workers_keep_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    expected = WORKER_ENVIRONMENT | {"OMP_NUM_THREADS": "1"}  # what Dask sets besides stays
    assert _of_workers() == [expected, expected]
    assert _environment(0) == {}  # nothing of it is left in this process


def test_what_another_cluster_left_behind_is_no_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed  # noqa: F401 - its settings

    usual = dask.config.get("distributed.nanny.pre-spawn-environ")
    left = {name: str(value) for name, value in usual.items() if name in NAMES}
    assert left.keys() & WORKER_ENVIRONMENT.keys()
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    for environment in _of_workers():
        assert isinstance(environment, dict)
        assert environment.items() >= WORKER_ENVIRONMENT.items()
    assert _environment(0).items() >= left.items()


def test_a_wish_of_the_user_s_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    for environment in _of_workers():
        assert isinstance(environment, dict)
        assert environment["MALLOC_TRIM_THRESHOLD_"] == "1000000"
