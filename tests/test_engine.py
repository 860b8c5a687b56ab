"""Local workers: how they are started."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dask
import psutil
import pytest

from converters import engine as engine_module
from converters.checksums import verify_checksums
from converters.convert import convert
from converters.engine import WORKER_ENVIRONMENT, Engine
from converters.flairhub_tree import FlairHubTree
from converters.selection import Selection
from converters.verify import verify
from flairhub.errors import ConversionError

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


def test_this_process_is_left_as_it_was() -> None:
    import distributed  # noqa: F401 - sets up its log

    log = logging.getLogger("distributed")
    before, level = dict(os.environ), log.level
    assert len(_of_workers()) == 2
    assert dict(os.environ) == before
    assert log.level == level


def test_a_cluster_without_workers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "WORKERS_WITHIN_S", 0.3)
    with (
        _cluster(0) as address,
        Engine(scheduler=address) as engine,
        pytest.raises(ConversionError, match="has no workers"),
    ):
        list(engine.run([1, 2], _environment))


def test_workers_in_another_folder_find_source_and_target(
    domain_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with _cluster(1) as address:
        monkeypatch.chdir(domain_tree.parent)
        root = os.path.relpath(tmp_path / "store")
        choice = Selection(modalities=["spot_rgbi"])
        report = convert(FlairHubTree(domain_tree.name), root, choice, scheduler=address)
        assert report.rois == 2
        assert verify(FlairHubTree(domain_tree.name), root, scheduler=address).findings == []
        assert verify_checksums(root, scheduler=address).findings == []
    assert not list((tmp_path / "elsewhere").iterdir())


def test_what_is_no_scheduler_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def answer() -> None:
            with server.accept()[0] as connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.recv(1000)

        thread = threading.Thread(target=answer)
        thread.start()
        with (
            Engine(scheduler=address) as engine,
            pytest.raises(ConversionError, match=f"{address} cannot be reached: what answers"),
        ):
            list(engine.run([1, 2], _environment))
        thread.join()


@contextmanager
def _worker(scheduler: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that no nanny starts again."""
    command = [sys.executable, "-m", "distributed.cli.dask_worker", scheduler]
    settings = ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--worker-port", "0"]
    with subprocess.Popen([*command, *settings], stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def _sleep(scheduler: str, jobs: Sequence[float], after_first: Callable[[], object]) -> list[float]:
    done = []
    with Engine(scheduler=scheduler) as engine:
        for job, _ in engine.run(jobs, time.sleep):
            done.append(job)
            if len(done) == 1:
                after_first()
    return done


def _threads() -> set[threading.Thread]:
    """Return the threads of this process, but for the one that Dask keeps for all clusters."""
    return {one for one in threading.enumerate() if not one.name.startswith("Dask-Offload")}


def test_a_cluster_that_loses_all_its_workers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with _cluster(0) as address, _worker(address) as worker:
        before = _threads()

        def lose() -> None:
            monkeypatch.setattr(engine_module, "WORKERS_WITHIN_S", 0.5)
            worker.kill()

        with pytest.raises(ConversionError) as caught:
            _sleep(address, [0.0, 600.0, 600.0], lose)
        for part in (f"{address} has lost all its workers", "in 0.5 s", "1 ROI(s) are done"):
            assert part in str(caught.value)
        assert _threads() <= before


def test_workers_that_come_back_go_on() -> None:
    with _cluster(0) as address, ExitStack() as workers:
        first = workers.enter_context(_worker(address))

        def replace() -> None:
            first.kill()
            workers.enter_context(_worker(address))

        assert sorted(_sleep(address, [0.0, 1.0, 0.0], replace)) == [0.0, 0.0, 1.0]


def test_a_scheduler_that_is_lost_is_told() -> None:
    with ExitStack() as stack:
        address = stack.enter_context(_cluster(0))
        stack.enter_context(_worker(address))
        with pytest.raises(ConversionError, match=rf"{address} was lost .* 1 ROI\(s\) are done"):
            _sleep(address, [0.0, 600.0], stack.close)


@contextmanager
def _cluster(workers: int) -> Iterator[str]:
    from distributed import LocalCluster

    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=workers,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
        worker_dashboard_address=None,
    ) as found:
        yield found.scheduler_address


def test_a_wish_of_the_user_s_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    for environment in _of_workers():
        assert isinstance(environment, dict)
        assert environment["MALLOC_TRIM_THRESHOLD_"] == "1000000"


_WORK = """
import signal, time
from converters.engine import Engine
from flairhub import cli
signal.signal(signal.SIGTERM, cli._terminate)
if __name__ == "__main__":
    with Engine(workers=2) as engine:
        for job, _ in engine.run([0.0, 0.0, 60.0, 60.0], time.sleep):
            print(job, flush=True)
"""


def test_a_command_that_is_ended_sends_its_workers_home_without_a_word(tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(_WORK, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(2):
        assert process.stdout.readline() == "0.0\n"
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert told == ""
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
