"""Many independent jobs on one process, on local processes, or on a Dask cluster."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from flairhub.errors import ConversionError, FlairHubError
from flairhub.store.access import Location
from flairhub.store.asking import storage_reason

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger(__name__)

Job = TypeVar("Job")
Result = TypeVar("Result")

RETRIES = 2
"""How often a job is done again after an error that is not the data's."""

WORKERS_WITHIN_S = 60.0
"""How long a cluster that has no worker, or has lost all, is waited for."""

_LOOKED_AT_EVERY_S = 1.0
"""How often it is asked for its workers while no job ends."""

AHEAD = 2
"""Jobs a worker that are sent at a time: it is never idle, and the scheduler's memory is flat."""


WORKER_ENVIRONMENT = {"MALLOC_TRIM_THRESHOLD_": str(2**28), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
"""How local workers keep memory (glibc's malloc): Dask has them give all of it back at once, and
asking for it again with every raster doubles the time that a ROI takes."""


_SPAWN_ENVIRONMENT = {"PYTHONHASHSEED", "__DASK_PARENT_PID", "DASK_SCHEDULER_ADDRESS"}
"""What Dask sets besides in the process that starts its workers."""


_LOGS = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
"""Those of Dask's logs that have a level of their own."""


class Engine(AbstractContextManager["Engine"]):
    """Does jobs; the processes that it starts serve until it is closed.

    Parameters
    ----------
    workers
        Local processes; one a core when absent. One means this process.
    scheduler
        Address of a Dask scheduler, such as ``tcp://10.0.0.1:8786``; takes the place of `workers`.
    """

    def __init__(self, workers: int | None = None, scheduler: str | None = None) -> None:
        self.workers = workers or os.cpu_count() or 1
        self.scheduler = scheduler
        self._stack = ExitStack()
        self._client: Client | None = None
        self._done = 0  # jobs on other processes

    def __exit__(self, kind: object, *_: object) -> None:
        """Send the processes home."""
        self._client = None
        if kind is not None:  # an interrupted job is no news; what matters is being raised
            for log in _LOGS:
                log.setLevel(logging.CRITICAL)
        self._stack.close()

    def run(
        self, jobs: Sequence[Job], function: Callable[[Job], Result]
    ) -> Iterator[tuple[Job, Result | FlairHubError]]:
        """Do jobs in any order; yield each with its result, or the error that its data raised.

        Parameters
        ----------
        jobs
            Independent of each other and safe to do twice: a worker that is lost takes nothing with
            it, its jobs go to others.
        function
            Importable, so that worker processes find it.

        Raises
        ------
        ConversionError
            If the cluster cannot be reached, is lost, or has no workers for `WORKERS_WITHIN_S`; or
            a job fails for another reason than its data.
        """
        if self.scheduler is None and (self.workers == 1 or len(jobs) == 1):
            for job in jobs:
                yield job, _attempt(function, job)
        elif jobs:
            yield from self._distribute(jobs, function)

    def _distribute(
        self, jobs: Sequence[Job], function: Callable[[Job], Result]
    ) -> Iterator[tuple[Job, Result | FlairHubError]]:
        client = self._client or self._connect()
        waiting = iter(jobs)
        running: dict[Future[Any], Job] = {}

        def send(number: int) -> None:
            for job in islice(waiting, number):
                future = client.submit(_attempt, function, job, pure=False, retries=RETRIES)
                running[future] = job

        try:
            send(AHEAD * (self._threads(client) if self.scheduler else self.workers))
            while running:
                for future in self._finished(client, running):
                    try:
                        result = _result(future)
                    except TimeoutError:  # lost with its worker, and being made again
                        continue
                    job = running.pop(future)
                    future.release()  # the scheduler forgets it
                    send(1)
                    self._done += 1
                    yield job, result
        except (OSError, CancelledError) as error:
            reason = storage_reason(error)
            msg = f"The Dask scheduler {self._place} was lost ({reason}). {self._where_it_stands}"
            raise ConversionError(msg) from error

    def _finished(self, client: Client, running: Iterable[Future[Any]]) -> set[Future[Any]]:
        """Return the futures that are done, one at least; workers that are lost may come back."""
        from distributed import wait

        lost_at: float | None = None
        while True:
            with suppress(TimeoutError):
                every_s = min(_LOOKED_AT_EVERY_S, WORKERS_WITHIN_S)
                found = wait(list(running), timeout=every_s, return_when="FIRST_COMPLETED")
                return set(found.done)
            if client.nthreads():
                lost_at = None
            elif lost_at is None:
                lost_at = time.monotonic()
                logger.warning("%s has lost all its workers; waiting for others", self._place)
            elif time.monotonic() - lost_at > WORKERS_WITHIN_S:
                msg = (
                    f"The Dask scheduler {self._place} has lost all its workers, and none came "
                    f"back in {WORKERS_WITHIN_S:g} s. {self._where_it_stands}"
                )
                raise ConversionError(msg)

    @property
    def _where_it_stands(self) -> str:
        return (
            f"{self._done} ROI(s) are done; with a scheduler that has workers, the same command "
            "goes on with the rest."
        )

    @property
    def _place(self) -> str:
        """The scheduler, for messages."""
        return self.scheduler or "of this machine"

    def _threads(self, client: Client) -> int:
        """Return what a cluster can do at a time; a new one may still be starting its workers."""
        if not client.nthreads():
            logger.warning("%s has no workers yet; waiting for one", self.scheduler)
        try:
            client.wait_for_workers(1, timeout=WORKERS_WITHIN_S)
        except TimeoutError as error:
            msg = (
                f"The Dask scheduler {self.scheduler} has no workers, nor did one come in "
                f"{WORKERS_WITHIN_S:g} s. Start some, such as: dask worker {self.scheduler}"
            )
            raise ConversionError(msg) from error
        return max(sum(map(int, client.nthreads().values())), 1)

    def _connect(self) -> Client:
        import dask
        from distributed import Client, LocalCluster

        self._stack.enter_context(_hushed())
        environment = "distributed.nanny.pre-spawn-environ"
        # what local workers meet comes back with the jobs
        quiet = {"DASK_LOGGING__DISTRIBUTED": "critical"}
        usual: dict[str, object] = dask.config.get(environment) | quiet
        settings = {
            environment: usual | WORKER_ENVIRONMENT,
            # GDAL and Zarr hold threads and handles that do not survive a fork
            "distributed.worker.multiprocessing-method": "spawn",
            "distributed.comm.timeouts.connect": "10s",
            "distributed.scheduler.allowed-failures": RETRIES,
        }
        self._stack.enter_context(dask.config.set(settings))
        self._stack.enter_context(_without_leaks(usual))
        try:
            cluster = self.scheduler or self._stack.enter_context(
                LocalCluster(
                    n_workers=self.workers,
                    threads_per_worker=1,
                    processes=True,
                    memory_limit=0,  # a ROI needs what it needs
                    dashboard_address="127.0.0.1:0",
                    host="127.0.0.1",
                )
            )
            self._client = self._stack.enter_context(Client(cluster))
        # what is no scheduler may answer anything; read as Dask's, it is of any length
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            self._stack.close()
            why = "what answers there is none" if isinstance(error, MemoryError) else error
            msg = f"The Dask scheduler {self._place} cannot be reached: {why}"
            raise ConversionError(msg) from error
        return self._client


@contextmanager
def _hushed() -> Iterator[None]:
    """Have Dask tell of errors alone, not of every connection and worker that is sent home."""
    before = [log.level for log in _LOGS]
    for log in _LOGS:
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for log, level in zip(_LOGS, before, strict=True):
            log.setLevel(level)


@contextmanager
def _without_leaks(usual: Mapping[str, object]) -> Iterator[None]:
    """Leave the environment of this process as it was: Dask sets in it what its workers get.

    Parameters
    ----------
    usual
        What Dask gives workers. Where the environment holds just that, a cluster before has left it
        there; it is not the user's wish.
    """
    names = usual.keys() | WORKER_ENVIRONMENT.keys() | _SPAWN_ENVIRONMENT
    before = {name: os.environ[name] for name in names if name in os.environ}
    for name in WORKER_ENVIRONMENT:
        if name in before and before[name] == str(usual.get(name)):
            del os.environ[name]
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


def _result(future: Future[Any]) -> Any:  # noqa: ANN401 - what the job returned
    """Return what a future holds; raises `TimeoutError` where that is lost since it was done."""
    if future.status != "error":
        return future.result(timeout=WORKERS_WITHIN_S)
    failure = future.exception()
    if isinstance(failure, FlairHubError):
        raise failure
    msg = f"A worker failed, {RETRIES + 1} times: {failure}"
    raise ConversionError(msg) from failure


def _attempt(function: Callable[[Job], Result], job: Job) -> Result | FlairHubError:
    """Return the error where the data are at fault: doing it again would not help."""
    try:
        return function(job)
    except ConversionError:
        raise
    except FlairHubError as error:
        return error


def engine_for(root: str | Location, workers: int | None, scheduler: str | None) -> Engine:
    """Return the engine that works on the stores below `root`, parameters as of `Engine`.

    A store in this process's memory is out of reach of others: this one does the work.
    """
    here = isinstance(root, Location) or root.startswith("memory:")
    return Engine(1 if here else workers, scheduler)
