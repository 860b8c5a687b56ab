"""`flairhub.stream`: how a plan is read. Order, ranks and resuming; the work is the pipeline's."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from flairhub.batches.arguments import seconds
from flairhub.batches.batch import MultimodalBatch
from flairhub.batches.order import Shuffle, batch_ends, order, share
from flairhub.batches.pipeline import Pipeline, Readers
from flairhub.batches.plan import PatchPlan
from flairhub.batches.processes import group, group_to_spawn, refuse_fork
from flairhub.batches.settings import torch_device, whole
from flairhub.errors import PlanError
from flairhub.store.cache import RangeCache
from flairhub.store.ranges import RangeReader, Traffic

_STATE_VERSION = 1


@dataclass
class _Place:
    """Where an iteration is: so many batches of an epoch were given."""

    epoch: int
    given: int
    alive: bool = False


class PatchStream(IterableDataset[MultimodalBatch]):
    """Batches of a plan; every iteration is an epoch.

    Pixels come in the store's dtype; `flairhub.preparation` makes them float32 on the device.
    The stream reads ahead in threads of its own and needs no `torch.utils.data.DataLoader`; where
    worker processes are wanted, `flairhub.StreamLoader` gives each its part of the batches.

    Parameters
    ----------
    plan
        What to read.
    batch_size
        Windows in a batch; the last one may be smaller.
    shuffle
        True: any window may follow any other. ``"block"``: neighbours are read together, which
        needs a fraction of the requests, for batches that are less random. False: in the order of
        the plan.
    seed, epoch
        The order is a function of these alone; `set_epoch` changes the second.
    prefetch
        Windows read ahead. Each takes its pixels' memory, 4.6 MB with all modalities.
    threads
        Threads that decode.
    drop_last
        Leave out a last batch that is not full.
    rank, world_size
        Which part of the epoch is read, of how many; of the running `torch.distributed` when
        absent. Over all ranks, every window comes once.
    device
        Where batches are put; pinned on the way to a GPU. On the CPU when absent.
    retry_s
        Seconds for which object storage that fails is asked again.
    cache, cache_bytes
        Folder on a local disk that keeps parts of remote objects, and what it may take; or a
        `flairhub.store.cache.RangeCache`.

    Raises
    ------
    PlanError
        If a setting makes no sense.

    Examples
    --------
    ::

        plan = flairhub.PatchPlan.build("store", modalities=["aerial_rgbi"], split="train")
        for batch in flairhub.stream(plan, batch_size=8, shuffle=True, seed=1):
            batch.inputs["aerial_rgbi"]  # (8, 4, 512, 512) uint8
    """

    def __init__(
        self,
        plan: PatchPlan,
        *,
        batch_size: int = 4,
        shuffle: Shuffle = False,
        seed: int = 0,
        epoch: int = 0,
        prefetch: int = 16,
        threads: int = 4,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        device: torch.device | str | None = None,
        retry_s: float = 60.0,
        cache: str | PathLike[str] | RangeCache | None = None,
        cache_bytes: int = 50 * 10**9,
    ) -> None:
        if (rank is None) != (world_size is None):
            msg = "rank and world_size are given together, or neither."
            raise PlanError(msg)
        self.plan = plan
        self.batch_size = whole("batch_size", batch_size, least=1)
        self.shuffle = shuffle
        self.seed = whole("seed", seed, least=0)
        self.epoch = whole("epoch", epoch, least=0)
        self.prefetch = whole("prefetch", prefetch, least=0)
        self.threads = whole("threads", threads, least=1)
        self.drop_last = drop_last
        self.device = torch_device(device)
        self._ranks = None if rank is None or world_size is None else (rank, world_size)
        self.cache = (
            cache if cache is None or isinstance(cache, RangeCache)
            else RangeCache(cache, whole("cache_bytes", cache_bytes, least=0))
        )  # fmt: skip
        self._source = RangeReader(retry_s=seconds("retry_s", retry_s), cache=self.cache)
        self._readers = Readers(plan)
        self._start = 0
        self._place = _Place(self.epoch, 0)
        self._ahead = 0
        self.has_loader = self._read_here = False
        # said now, not when training has begun
        share(0, order(plan.roi_index[:0], plan.top[:0], **self._how)[0], **self.ranks)

    def __getstate__(self) -> dict[str, Any]:
        """Leave opened ROIs behind; a worker that is started reads for the rank that starts it."""
        state = dict(self.__dict__)
        state["_source"] = RangeReader(retry_s=self._source.retry_s, cache=self.cache)
        state["_readers"] = Readers(self.plan)
        state["_read_here"] = False
        state["_ranks"] = self._ranks or group_to_spawn()
        return state

    @property
    def traffic(self) -> Traffic:
        """What was asked of the storage so far."""
        return self._source.traffic

    @property
    def ranks(self) -> dict[str, int]:
        """Rank and world size."""
        rank, world_size = self._ranks or group() or (0, 1)
        return {"rank": rank, "world_size": world_size}

    @property
    def sampler(self) -> _Epochs:
        """Where Lightning looks for ``set_epoch``."""
        return _Epochs(self)

    @property
    def batch_sampler(self) -> None:
        """None: Lightning asks for one wherever it finds a sampler."""
        return

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration; one that is resumed keeps its place."""
        if epoch != self.epoch:
            self._start = 0
            self._place = _Place(epoch, 0)
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream is: how many batches of which epoch were given out.

        Of several iterations under way, it is the place of the one that gave the last batch;
        one that was left early (``next(iter(stream))``) does not count beside another that
        is further.
        """
        return {
            "version": _STATE_VERSION,
            "plan": self.plan.fingerprint,
            "seed": self.seed,
            "epoch": self._place.epoch,
            "ahead": self._ahead,
            "shuffle": self.shuffle,
            "batch_size": self.batch_size,
            "drop_last": self.drop_last,
            "world_size": self.ranks["world_size"],
            "batches": self._place.given,
            "of": len(self),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another stream of the same plan was.

        The next iteration gives exactly the batches that were still to come: none, where the epoch
        was complete. The number of ranks and the size of a batch may be others where no batch of
        the epoch was given yet, or all were; prefetch and threads may always be.

        Raises
        ------
        PlanError
            If the state is of another plan or another order.
        """
        found = self.state_dict()
        differ = [k for k in ("version", "plan", "seed", "shuffle") if state.get(k) != found[k]]
        start = int(state.get("batches", 0))
        complete = start >= int(state.get("of", 0))
        if start and not complete:
            several = ("batch_size", "drop_last", "world_size")
            differ += [key for key in several if state.get(key) != found[key]]
        if differ:
            listed = ", ".join(f"{k} was {state.get(k)!r} and is {found[k]!r}" for k in differ)
            msg = f"The stream cannot go on where another one was: {listed}."
            raise PlanError(msg)
        self.epoch = int(state["epoch"])
        self._ahead = int(state.get("ahead", 0))
        self._start = len(self) if start and complete else start
        self._place = _Place(self.epoch, self._start)

    def __len__(self) -> int:
        """Return the number of batches of an epoch, on this rank."""
        size = len(self.plan)
        ranks = self.ranks
        mine = len(range(ranks["rank"], size, ranks["world_size"]))
        if self.shuffle == "block":
            mine = len(self._share(order(self.plan.roi_index, self.plan.top, **self._how)[1]))
        return len(self._ends(mine))

    def __iter__(self) -> Iterator[MultimodalBatch]:
        """Read one epoch, or what is left of it; threads end with the iteration.

        Raises
        ------
        PlanError
            In a process that cannot read the store, or a worker that cannot know the epoch.
        ReadError
            If storage fails for longer than `retry_s`, or what it holds is damaged.
        """
        worker = get_worker_info()
        self._check_process(None if worker is None else worker.id)
        numbers, units = order(self.plan.roi_index, self.plan.top, **self._how)
        mine = self._share(units)
        numbers, units = numbers[mine], units[mine]
        ends = self._ends(len(numbers))
        start = self.begin()
        sizes = np.diff(ends, prepend=0)
        first, step = (start, 1) if worker is None else (start + worker.id, worker.num_workers)
        of = np.repeat(np.arange(len(ends)), sizes) - first
        take = np.flatnonzero((of >= 0) & (of % step == 0))
        pipeline = Pipeline(
            self._readers,
            self._source,
            numbers[take],
            units[take],
            sizes[first::step].cumsum(),
            prefetch=self.prefetch,
            threads=self.threads,
        )
        yield from self.counted(map(self._placed, pipeline), start)

    def begin(self) -> int:
        """Return the first batch of an iteration; the next one begins an epoch."""
        start, self._start = self._start, 0
        return start

    def counted(self, batches: Iterable[MultimodalBatch], start: int) -> Iterator[MultimodalBatch]:
        """Yield the batches of an iteration from one on, and have `state_dict` tell how many."""
        before, mine = self._place, _Place(self.epoch, start, alive=True)
        self._place = mine
        try:
            for batch in batches:
                mine.given += 1
                self._place = mine
                yield batch
        finally:
            mine.alive = False
            if self._place is mine and before.alive and before.given > mine.given:
                self._place = before

    def _check_process(self, worker: int | None) -> None:
        """Refuse what would hang or read the wrong epoch in a process beside the first."""
        refuse_fork(self.plan)
        if worker is None:
            return
        if self._read_here and self.shuffle:
            msg = (
                "A worker that is kept never hears of the next epoch, and would repeat the order "
                "of this one: leave out persistent_workers=True, or shuffle=False."
            )
            raise PlanError(msg)
        if not worker and not self.has_loader and not self._read_here:
            warnings.warn(
                "torch's DataLoader neither saves the place of a stream nor, under Lightning, "
                "tells it the epoch: use flairhub.StreamLoader, or the stream itself.",
                stacklevel=2,
            )
        self._read_here = True

    @property
    def _how(self) -> dict[str, Any]:
        return {"shuffle": self.shuffle, "seed": self.seed, "epoch": self.epoch}

    def _share(self, units: Any) -> Any:  # noqa: ANN401 - arrays of numbers
        return share(len(self.plan), units, **self.ranks)

    def _ends(self, size: int) -> Any:  # noqa: ANN401 - an array of numbers
        return batch_ends(
            size,
            batch_size=self.batch_size,
            world_size=self.ranks["world_size"],
            total=len(self.plan),
            drop_last=self.drop_last,
        )

    def _placed(self, batch: MultimodalBatch) -> MultimodalBatch:
        if self.device is None or self.device.type == "cpu":
            return batch
        pinned = batch.pin_memory() if self.device.type == "cuda" else batch
        return pinned.to(self.device)


class _Epochs:
    """Tells a stream Lightning's epochs, which are not always its own.

    Where ``max_steps`` ends a run within an epoch, Lightning counts that epoch as complete, and yet
    reads its rest when it goes on: one epoch ahead of the stream from there.
    """

    def __init__(self, stream: PatchStream) -> None:
        self._stream = stream

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration."""
        stream = self._stream
        epoch -= stream._ahead
        if epoch == stream.epoch + 1 and 0 < stream._start < len(stream):
            warnings.warn(
                f"The checkpoint was written after {stream._start} of {len(stream)} batches of "
                f"epoch {stream.epoch}, which Lightning takes for complete: its rest comes first, "
                "and the order of every epoch from here is that of Lightning's epoch before.",
                stacklevel=2,
            )
            stream._ahead += 1
            epoch -= 1
        stream.set_epoch(epoch)


stream = PatchStream
"""What users call: ``flairhub.stream(plan, batch_size=8)``."""
