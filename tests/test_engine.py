"""Local workers: how they are started."""

from __future__ import annotations

import os

from converters.engine import WORKER_ENVIRONMENT, Engine


def _environment(_: int) -> dict[str, str]:
    return dict(os.environ)


def test_local_workers_keep_freed_memory() -> None:
    with Engine(workers=2) as engine:
        found = [result for _, result in engine.run([1, 2], _environment)]
    assert len(found) == 2
    for environment in found:
        assert isinstance(environment, dict)
        assert environment.items() >= WORKER_ENVIRONMENT.items()
        assert environment["OMP_NUM_THREADS"] == "1"  # what Dask sets besides stays
