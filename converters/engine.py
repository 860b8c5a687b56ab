"""Many independent jobs on one process, on local processes, or on a Dask cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from flairhub.errors import ConversionError, FlairHubError
from flairhub.store.access import Location
from flairhub.store.local import local_path

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger(__name__)

Job = TypeVar("Job")
Result = TypeVar("Result")

RETRIES = 2
"""How often a job is done again after an error that is not the data's."""

WORKERS_WITHIN_S = 30.0
"""How long a cluster that has no worker is waited for."""

AHEAD = 2
"""Jobs a worker that are sent at a time: it is never idle, and the scheduler's memory is flat."""


WORKER_ENVIRONMENT = {"MALLOC_TRIM_THRESHOLD_": str(2**28), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
"""How local workers keep memory (glibc's malloc): Dask has them give all of it back at once, and
asking for it again with every raster doubles the time that a ROI takes."""


_SPAWN_ENVIRONMENT = {"PYTHONHASHSEED", "__DASK_PARENT_PID", "DASK_SCHEDULER_ADDRESS"}
"""What Dask sets besides in the process that starts its workers."""


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

    def __exit__(self, kind: object, *_: object) -> None:
        """Send the processes home."""
        self._client = None
        if kind is not None:  # an interrupted job is no news; what matters is being raised
            logging.getLogger("distributed").setLevel(logging.CRITICAL)
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
            If the cluster cannot be reached, or a job fails for another reason than its data.
        """
        if self.scheduler is None and (self.workers == 1 or len(jobs) == 1):
            for job in jobs:
                yield job, _attempt(function, job)
        elif jobs:
            yield from self._distribute(jobs, function)

    def _distribute(
        self, jobs: Sequence[Job], function: Callable[[Job], Result]
    ) -> Iterator[tuple[Job, Result | FlairHubError]]:
        from distributed import as_completed

        client = self._client or self._connect()
        threads = self._threads(client) if self.scheduler else self.workers
        waiting = iter(jobs)
        running = {}

        def send(number: int) -> list[Future[Any]]:
            sent = []
            for job in islice(waiting, number):
                future = client.submit(_attempt, function, job, pure=False, retries=RETRIES)
                running[future] = job
                sent.append(future)
            return sent

        finished = as_completed(send(AHEAD * max(threads, 1)))
        for future in finished:
            job = running.pop(future)
            if future.status != "finished":
                failure = future.exception()
                if isinstance(failure, FlairHubError):
                    raise failure
                msg = f"A worker failed, {RETRIES + 1} times: {failure}"
                raise ConversionError(msg) from failure
            result = future.result()
            future.release()  # the scheduler forgets it
            for more in send(1):
                finished.add(more)
            yield job, result

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
        return sum(client.nthreads().values())

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
        except (OSError, ValueError, RuntimeError) as error:
            self._stack.close()
            place = self.scheduler or "of this machine"
            msg = f"The Dask scheduler {place} cannot be reached: {error}"
            raise ConversionError(msg) from error
        return self._client


@contextmanager
def _hushed() -> Iterator[None]:
    """Have Dask tell of errors alone, not of every connection and worker that is sent home."""
    log = logging.getLogger("distributed")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


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


def _attempt(function: Callable[[Job], Result], job: Job) -> Result | FlairHubError:
    """Return the error where the data are at fault: doing it again would not help."""
    try:
        return function(job)
    except ConversionError:
        raise
    except FlairHubError as error:
        return error


def reachable(root: str | Location) -> str | Location:
    """Return a place as processes find it that work in another folder than this one."""
    local = None if isinstance(root, Location) else local_path(root)
    return root if local is None else os.path.abspath(local)


def engine_for(root: str | Location, workers: int | None, scheduler: str | None) -> Engine:
    """Return the engine that works on the stores below `root`, parameters as of `Engine`.

    A store in this process's memory is out of reach of others: this one does the work.
    """
    here = isinstance(root, Location) or root.startswith("memory:")
    return Engine(1 if here else workers, scheduler)
