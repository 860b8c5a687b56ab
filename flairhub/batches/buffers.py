"""The arrays of a batch, allocated once and filled sample by sample, in any order.

What has one size lies in the batch from the start, so that chunks are decoded to where they stay.
Series differ in length: they are kept apart and padded when the batch is complete.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flairhub.batches.batch import MultimodalBatch
from flairhub.batches.plan import PatchPlan, PatchWindow
from flairhub.modalities import get_label, get_modality

Pixels = npt.NDArray[Any]
Days = npt.NDArray[np.int64]

_SPARE = 4
"""Pieces of memory of one size that are kept for later use: an epoch begins with several."""


class ArrayPool:
    """Arrays that are used again once nobody holds them: fresh memory costs a fault a page.

    A tensor keeps the array alive that it was made of; when the last tensor on it is gone, its
    memory comes back here. Sizes are rounded up by an eighth at most, so that series of all lengths
    share a few.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[Pixels]] = {}

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Pixels:
        """Return an array that is not initialised."""
        size = prod(shape) * np.dtype(dtype).itemsize
        step = 1 << max(0, size.bit_length() - 4)
        room = -(-size // step) * step
        free = self._free.setdefault(room, [])
        try:
            memory = free.pop()
        except IndexError:
            memory = np.empty(room, np.uint8)
        lent = memory[:size].view(dtype).reshape(shape)
        # watch what is handed out: views of views hold on to `memory` alone; not needed at exit
        weakref.finalize(lent, _give_back, free, memory).atexit = False
        return lent


def _give_back(free: list[Pixels], memory: Pixels) -> None:
    if len(free) < _SPARE:
        free.append(memory)


class BatchBuffers:
    """Room for the samples of one batch.

    Parameters
    ----------
    plan
        Says which modalities, bands and labels.
    windows
        Of the samples.
    pool
        Where the arrays come from.

    Attributes
    ----------
    inputs, labels
        Arrays ``(B, C, H, W)`` and ``(B, H, W)``, not initialised.
    series, days
        By sample and series: ``(T, C, H, W)`` and ``(T,)``; to be set.
    present
        By sample: modality to whether the window has it; to be set.
    """

    def __init__(self, plan: PatchPlan, windows: Sequence[PatchWindow], pool: ArrayPool) -> None:
        self.windows = tuple(windows)
        size = len(self.windows)
        self.inputs: dict[str, Pixels] = {}
        for key in plan.modalities:
            modality = get_modality(key)
            if not modality.temporal:
                shape = (size, len(plan.bands[key]), *plan.pixels(modality))
                self.inputs[key] = pool.empty(shape, modality.numpy_dtype)
        self.labels: dict[str, Pixels] = {}
        for key in plan.labels:
            raster = get_label(key)[0]
            self.labels[key] = pool.empty((size, *plan.pixels(raster)), raster.numpy_dtype)
        self.series: list[dict[str, Pixels]] = [{} for _ in self.windows]
        self.days: list[dict[str, Days]] = [{} for _ in self.windows]
        self.present: list[dict[str, bool]] = [{} for _ in self.windows]
        self._modalities = plan.modalities
        self._pool = pool

    def batch(self) -> MultimodalBatch:
        """Return the batch; series are padded with zeros to the longest of them."""
        inputs: dict[str, Tensor] = {}
        for key in self._modalities:
            if key in self.inputs:
                inputs[key] = torch.from_numpy(self.inputs[key])
            else:
                inputs[key] = self._pad([sample[key] for sample in self.series])
        first = self.days[0]
        return MultimodalBatch(
            inputs,
            {key: torch.from_numpy(pixels) for key, pixels in self.labels.items()},
            {key: self._pad([days[key] for days in self.days]) for key in first},
            {key: torch.tensor([len(days[key]) for days in self.days]) for key in first},
            {key: torch.tensor([has[key] for has in self.present]) for key in self.present[0]},
            self.windows,
        )

    def _pad(self, arrays: Sequence[Pixels]) -> Tensor:
        longest = max(1, *map(len, arrays))
        shape = (len(arrays), longest, *arrays[0].shape[1:])
        padded = self._pool.empty(shape, arrays[0].dtype)
        for row, array in zip(padded, arrays, strict=True):
            row[: len(array)] = array
            row[len(array) :] = 0
        return torch.from_numpy(padded)
