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
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
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
    """Windows that are read together, their bytes, and how many have not asked for them yet."""

    bytes: Future[dict[int, Fetched]]
    waiting: int


@dataclass
class _Batch:
    """A batch in the making: its buffers, and its windows, which are there or to come."""

    buffers: BatchBuffers
    windows: list[Future[None]]


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
        self._ends = ends
        used = slice(0, int(ends[-1]) if len(ends) else 0)
        self._numbers, self._unit_of = numbers[used], units[used]
        # by unit, so that the windows of one lie side by side; a run may have millions, so that
        # nothing is made of any before its turn
        self._by_unit = np.argsort(self._unit_of, kind="stable")
        self._sorted = self._unit_of[self._by_unit]
        self._alone = bool((np.diff(self._sorted) > 0).all())
        self._units: dict[int, _Unit] = {}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="flairhub-decode")
        remote = any(isinstance(roi.store.store, ObjectStore) for roi in readers.plan.rois)
        self._loop = _Loop() if remote else None
        self._closed = False

    def __iter__(self) -> Iterator[MultimodalBatch]:
        """Yield the batches; threads end with the iteration, also when it is left early."""
        bounds = pairwise([0, *self._ends.tolist()])
        begun: deque[_Batch] = deque()
        ahead = 0  # windows of all but the first of these
        try:
            while True:
                while not begun or ahead < self.prefetch:
                    place = next(bounds, None)
                    if place is None:
                        break
                    if begun:
                        ahead += place[1] - place[0]
                    begun.append(self._begin(*place))
                if not begun:
                    return
                for window in begun[0].windows:
                    window.result()
                buffers = begun.popleft().buffers
                if begun:
                    ahead -= len(begun[0].windows)
                yield buffers.batch()
                del buffers
        finally:
            self.close()

    def close(self) -> None:
        """End all threads; what they were at is given up."""
        self._closed = True
        if self._loop is not None:
            self._loop.close()
        self._pool.shutdown(cancel_futures=True)

    def _begin(self, first: int, last: int) -> _Batch:
        """Have the windows of a batch fetched and decoded."""
        plan = self.readers.plan
        numbers = self._numbers[first:last].tolist()
        buffers = BatchBuffers(plan, [plan.windows[n] for n in numbers], self.readers.pool)
        units = self._unit_of[first:last].tolist()
        places = enumerate(zip(numbers, units, strict=True))
        return _Batch(buffers, [self._window(n, unit, buffers, row) for row, (n, unit) in places])

    def _window(self, number: int, unit: int, buffers: BatchBuffers, row: int) -> Future[None]:
        if self._alone and self._loop is None:
            return self._pool.submit(self._read_and_decode, number, buffers, row)
        fetched = self._bytes_of(number, unit)
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

        fetched.add_done_callback(hand_over)
        return done

    def _bytes_of(self, number: int, unit: int) -> Future[dict[int, Fetched]]:
        """Return the bytes of the windows of a unit; to be called once for each of them."""
        if unit not in self._units:
            numbers = [number]
            if not self._alone:
                first, last = (np.searchsorted(self._sorted, unit, to) for to in ("left", "right"))
                numbers = self._numbers[self._by_unit[first:last]].tolist()
            self._units[unit] = _Unit(self._fetch(numbers), len(numbers))
        found = self._units[unit]
        found.waiting -= 1
        if not found.waiting:  # a future keeps its callbacks, and these the batch
            del self._units[unit]
        return found.bytes

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
