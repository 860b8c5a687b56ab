"""Read a plan's windows from the store, in threads, a bounded number ahead, in order.

One process: worker processes make reading slower here, and neither GDAL nor object-store clients
survive a fork. Pixels travel in the store's dtype; :mod:`flairhub.batches.prepare` makes them
float32 on the device.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flairhub.batches.batch import MultimodalBatch
from flairhub.batches.plan import PatchPlan
from flairhub.batches.reader import RoiReader, Sample
from flairhub.errors import PlanError

_OPEN_ROIS = 256
"""Opened ROIs that a stream keeps; metadata only, some 200 kB each."""


class PatchStream:
    """Batches of a plan; every iteration is an epoch.

    Parameters
    ----------
    plan
        What to read.
    batch_size
        Windows in a batch; the last one may be smaller.
    shuffle, seed, epoch
        The order is a function of these three alone; `set_epoch` changes the last.
    prefetch
        Batches read ahead.
    threads
        Threads that read and decode.
    drop_last
        Leave out a last batch that is not full.
    """

    def __init__(
        self,
        plan: PatchPlan,
        *,
        batch_size: int = 4,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        prefetch: int = 2,
        threads: int = 4,
        drop_last: bool = False,
    ) -> None:
        if batch_size < 1 or threads < 1 or prefetch < 0:
            msg = (
                "batch_size and threads must be at least 1 and prefetch at least 0; got "
                f"{batch_size}, {threads}, {prefetch}."
            )
            raise PlanError(msg)
        self.plan = plan
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = epoch
        self.prefetch = prefetch
        self.threads = threads
        self.drop_last = drop_last
        self._open = lru_cache(_OPEN_ROIS)(self._reader)

    @property
    def sampler(self) -> PatchStream:
        """Itself: where Lightning looks for ``set_epoch``."""
        return self

    @property
    def batch_sampler(self) -> None:
        """None: Lightning asks for one wherever it finds a sampler."""
        return

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        full, rest = divmod(len(self.plan), self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    def __iter__(self) -> Iterator[MultimodalBatch]:
        """Read one epoch; threads end with the iteration, also when it is left early."""
        order = self.plan.order(shuffle=self.shuffle, seed=self.seed, epoch=self.epoch)
        parts = iter(np.array_split(order, range(self.batch_size, len(order), self.batch_size)))
        if self.drop_last:
            parts = (part for part in parts if len(part) == self.batch_size)
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="flairhub-read")
        waiting: deque[list[Future[Sample]]] = deque()

        def submit(count: int) -> None:
            for part in islice(parts, count):
                waiting.append([pool.submit(self._read, int(number)) for number in part])

        try:
            submit(self.prefetch + 1)
            while waiting:
                samples = [future.result() for future in waiting.popleft()]
                submit(1)
                yield collate(samples)
        finally:
            pool.shutdown(cancel_futures=True)

    def _reader(self, index: int) -> RoiReader:
        return RoiReader(self.plan, self.plan.rois[index])

    def _read(self, number: int) -> Sample:
        reader = self._open(int(self.plan.roi_index[number]))
        return reader.read(self.plan.windows[number])


def collate(samples: Sequence[Sample]) -> MultimodalBatch:
    """Stack the samples of a batch; series are padded with zeros to the longest of them."""
    first = samples[0]
    days = {key: _pad([s.days[key] for s in samples]) for key in first.days}
    lengths = {key: torch.tensor([len(s.days[key]) for s in samples]) for key in first.days}
    inputs = {
        key: (_pad if key in days else _stack)([s.inputs[key] for s in samples])
        for key in first.inputs
    }
    labels = {key: _stack([s.labels[key] for s in samples]) for key in first.labels}
    present = {key: torch.tensor([s.present[key] for s in samples]) for key in first.present}
    return MultimodalBatch(inputs, labels, days, lengths, present, tuple(s.window for s in samples))


def _stack(arrays: Sequence[npt.NDArray[Any]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def _pad(arrays: Sequence[npt.NDArray[Any]]) -> Tensor:
    longest = max(1, *map(len, arrays))
    padded = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(padded)


def stream(
    plan: PatchPlan,
    *,
    batch_size: int = 4,
    shuffle: bool = False,
    seed: int = 0,
    epoch: int = 0,
    prefetch: int = 2,
    threads: int = 4,
    drop_last: bool = False,
) -> PatchStream:
    """Return the batches of a plan, to be iterated over as often as wanted.

    Parameters are those of `PatchStream`.

    Examples
    --------
    ::

        plan = flairhub.PatchPlan.build("store", modalities=["aerial_rgbi"], split="train")
        for batch in flairhub.stream(plan, batch_size=8, shuffle=True, seed=1):
            batch.inputs["aerial_rgbi"]  # (8, 4, 512, 512) uint8
    """
    return PatchStream(
        plan,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        epoch=epoch,
        prefetch=prefetch,
        threads=threads,
        drop_last=drop_last,
    )
