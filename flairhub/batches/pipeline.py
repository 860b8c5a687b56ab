"""From an order of windows to batches: bytes are fetched ahead, decoded in threads, in order.

::

    windows in order -> fetch (many at a time) -> decode (threads) -> batch -> consumer

Files are read by the threads that decode them. Object storage is asked by one thread with an event
loop, as many requests at a time as the windows ahead need. A window's bytes are let go as soon as
it is decoded, so that what lies in memory is bounded by the windows ahead.

One process: worker processes make reading slower here, and neither GDAL nor object-store clients
survive a fork.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from zarr.storage import ObjectStore

from flairhub.batches.batch import MultimodalBatch
from flairhub.batches.buffers import ArrayPool, BatchBuffers
from flairhub.batches.plan import PatchPlan
from flairhub.batches.reader import DamagedError, Fetched, RoiReader, place_name
from flairhub.errors import FlairHubError, ReadError
from flairhub.store.ranges import RangeReader, Reads, describe
from flairhub.store.shards import ATTEMPTS, MissingChunkError

Numbers = npt.NDArray[np.int64]


class Readers:
    """The ROIs of a plan, each opened when its first window is read, and kept; and memory to use.

    Some 20 kB each and the indexes of its shards: all of FLAIR-HUB takes about 100 MB.
    """

    def __init__(self, plan: PatchPlan) -> None:
        self.plan = plan
        self.pool = ArrayPool()
        self._open: dict[int, RoiReader] = {}
        self._kept: dict[int, RoiReader] = {}

    def epoch(self) -> Readers:
        """Return the readers of one epoch, which never sees two versions of a ROI.

        What it opens is kept for the epochs that follow, until one of them fails (`forget`).
        """
        one = copy(self)
        one._open = {}
        return one

    def forget(self) -> None:
        """Have epochs that begin from now on open all ROIs anew: they may have been replaced."""
        self._kept.clear()

    def fetch(self, numbers: Sequence[int], attempt: int = 0) -> Reads[list[Fetched]]:
        """Return what windows of one ROI need, by number."""
        index = int(self.plan.roi_index[numbers[0]])
        roi = self._open.get(index)
        if roi is None:
            roi = self._kept.get(index)
            if roi is None:
                roi = yield from RoiReader.open(self.plan, self.plan.rois[index])
                # the first of several that open it at a time serves all
                roi = self._kept.setdefault(index, roi)
            roi = self._open.setdefault(index, roi)
        windows = [self.plan.windows[number] for number in numbers]
        return (yield from roi.fetch(windows, attempt=attempt))

    def of(self, number: int) -> RoiReader:
        """Return the opened ROI of a window that was fetched."""
        return self._open[int(self.plan.roi_index[number])]


@dataclass
class _Unit:
    """Windows that are read together, their bytes, and how many wait for them."""

    numbers: list[int]
    bytes: Future[dict[int, Fetched]] | None = None
    waiting: int = 0


@dataclass
class _Batch:
    """A batch in the making: its windows, their buffers, and what is not there yet."""

    numbers: list[int]
    buffers: BatchBuffers | None = None
    done: list[Future[None]] = field(default_factory=list)


class Pipeline:
    """One pass over windows.

    Parameters
    ----------
    readers
        The opened ROIs; shared by the passes of a stream.
    source
        Answers requests.
    numbers, units
        Windows in order, and for each the unit that it is read in.
    ends
        Where batches end.
    prefetch
        Windows that are read ahead of the batch that is waited for.
    threads
        Threads that decode.
    """

    def __init__(
        self,
        readers: Readers,
        source: RangeReader,
        numbers: Numbers,
        units: Numbers,
        ends: Numbers,
        *,
        prefetch: int,
        threads: int,
    ) -> None:
        self.readers = readers.epoch()
        self.source = source
        self.prefetch = prefetch
        plan = readers.plan
        self._remote = any(isinstance(roi.store.store, ObjectStore) for roi in plan.rois)
        bounds = np.concatenate([[0], ends])
        self._batches = [_Batch(numbers[first:last].tolist()) for first, last in pairwise(bounds)]
        used = slice(0, int(ends[-1]) if len(ends) else 0)
        self._units: dict[int, _Unit] = {}
        for number, unit in zip(numbers[used].tolist(), units[used].tolist(), strict=True):
            self._units.setdefault(unit, _Unit([])).numbers.append(number)
        self._unit_of = dict(zip(numbers[used].tolist(), units[used].tolist(), strict=True))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="flairhub-decode")
        self._loop = _Loop() if self._remote else None
        self._closed = False

    def __iter__(self) -> Iterator[MultimodalBatch]:
        """Yield the batches; threads end with the iteration, also when it is left early."""
        begun = 0
        ahead = 0
        try:
            for current, batch in enumerate(self._batches):
                while begun < len(self._batches) and (begun <= current or ahead < self.prefetch):
                    self._begin(self._batches[begun])
                    ahead += len(self._batches[begun].numbers) if begun > current else 0
                    begun += 1
                for done in batch.done:
                    done.result()
                made = batch.buffers
                batch.buffers, batch.done = None, []
                if current + 1 < begun:
                    ahead -= len(self._batches[current + 1].numbers)
                if made is not None:
                    yield made.batch()
                    del made
        finally:
            self.close()

    def close(self) -> None:
        """End all threads; what they were at is given up."""
        self._closed = True
        if self._loop is not None:
            self._loop.close()
        self._pool.shutdown(cancel_futures=True)

    def _begin(self, batch: _Batch) -> None:
        """Have the windows of a batch fetched and decoded."""
        plan = self.readers.plan
        windows = [plan.windows[number] for number in batch.numbers]
        batch.buffers = BatchBuffers(plan, windows, self.readers.pool)
        for row, number in enumerate(batch.numbers):
            batch.done.append(self._window(number, batch.buffers, row))

    def _window(self, number: int, buffers: BatchBuffers, row: int) -> Future[None]:
        unit = self._units[self._unit_of[number]]
        if self._loop is None and len(unit.numbers) == 1:
            return self._pool.submit(self._read_and_decode, number, buffers, row)
        if unit.bytes is None:
            unit.bytes = self._fetch(unit.numbers)
            unit.waiting = len(unit.numbers)
        done: Future[None] = Future()

        def decode(fetched: Future[dict[int, Fetched]]) -> None:
            if (error := fetched.exception()) is not None:
                done.set_exception(error)
                return
            try:
                self._decode(fetched.result().pop(number), number, buffers, row)
                done.set_result(None)
            except BaseException as error:
                done.set_exception(error)

        def hand_over(fetched: Future[dict[int, Fetched]]) -> None:
            if fetched.cancelled() or self._closed:
                done.cancel()
                return
            try:
                self._pool.submit(decode, fetched)
            except RuntimeError:  # closed in between
                done.cancel()

        unit.bytes.add_done_callback(hand_over)
        unit.waiting -= 1
        if not unit.waiting:
            unit.bytes = None  # a future keeps its callbacks, and these the batch
        return done

    def _fetch(self, numbers: list[int]) -> Future[dict[int, Fetched]]:
        if self._loop is not None:
            return self._loop.submit(self._fetch_async(numbers))
        return self._pool.submit(self._fetch_here, numbers)

    def _fetch_here(self, numbers: list[int], attempt: int = 0) -> dict[int, Fetched]:
        with _at(self.readers, numbers):
            found = self.source.run(self.readers.fetch(numbers, attempt))
        return dict(zip(numbers, found, strict=True))

    async def _fetch_async(self, numbers: list[int], attempt: int = 0) -> dict[int, Fetched]:
        with _at(self.readers, numbers):
            found = await self.source.run_async(self.readers.fetch(numbers, attempt))
        return dict(zip(numbers, found, strict=True))

    def _read_and_decode(self, number: int, buffers: BatchBuffers, row: int) -> None:
        self._decode(self._fetch_here([number])[number], number, buffers, row)

    def _decode(self, fetched: Fetched, number: int, buffers: BatchBuffers, row: int) -> None:
        """Decode a window; where its bytes are wrong, ask for them again before giving up."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self.readers.of(number).fill(fetched, buffers, row)
            except DamagedError:
                if attempt == ATTEMPTS or self._loop is None:
                    self.readers.forget()
                    raise
                self.source.traffic.retries += 1
                again = self._loop.submit(self._fetch_async([number], attempt))
                fetched = again.result()[number]
            else:
                return


class _at:
    """Adds to an error of reading where it happened."""

    def __init__(self, readers: Readers, numbers: Sequence[int]) -> None:
        self.readers = readers
        self.number = numbers[0]

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise a `ReadError` that names the patch, in place of what was raised."""
        if error is None or isinstance(error, asyncio.CancelledError):
            return
        self.readers.forget()
        if isinstance(error, MissingChunkError):  # names its window itself
            return
        plan = self.readers.plan
        where = place_name(plan.rois[plan.roi_index[self.number]], plan.windows[self.number])
        if isinstance(error, ReadError):
            msg = f"{where}: {error}"
            raise type(error)(msg) from error.__cause__
        if isinstance(error, FlairHubError):
            return
        if isinstance(error, Exception):
            msg = f"{where} cannot be read: {describe(error)}"
            raise ReadError(msg) from error


class _Loop:
    """A thread with an event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="flairhub-fetch", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[None, None, dict[int, Fetched]]) -> Future[dict[int, Fetched]]:
        """Run a coroutine there; its result or error comes with the future."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """Cancel what runs, and end the thread."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            pending = asyncio.all_tasks(self._loop)
            for task in pending:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()
