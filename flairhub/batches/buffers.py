"""The arrays of a batch, allocated once and filled sample by sample, in any order.

What has one size lies in the batch from the start, so that chunks are decoded to where they stay.
Series differ in length: they are kept apart and padded when the batch is complete.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class BatchBuffers:
    """Room for the samples of one batch.

    Parameters
    ----------
    plan
        Says which modalities, bands and labels.
    windows
        Of the samples.

    Attributes
    ----------
    inputs, labels
        Arrays ``(B, C, H, W)`` and ``(B, H, W)``, not initialised.
    series, days
        By sample and series: ``(T, C, H, W)`` and ``(T,)``; to be set.
    present
        By sample: modality to whether the window has it; to be set.
    """

    def __init__(self, plan: PatchPlan, windows: Sequence[PatchWindow]) -> None:
        self.windows = tuple(windows)
        size = len(self.windows)
        self.inputs: dict[str, Pixels] = {}
        for key in plan.modalities:
            modality = get_modality(key)
            if not modality.temporal:
                shape = (size, len(plan.bands[key]), *plan.pixels(modality))
                self.inputs[key] = np.empty(shape, modality.numpy_dtype)
        self.labels: dict[str, Pixels] = {}
        for key in plan.labels:
            raster = get_label(key)[0]
            self.labels[key] = np.empty((size, *plan.pixels(raster)), raster.numpy_dtype)
        self.series: list[dict[str, Pixels]] = [{} for _ in self.windows]
        self.days: list[dict[str, Days]] = [{} for _ in self.windows]
        self.present: list[dict[str, bool]] = [{} for _ in self.windows]
        self._modalities = plan.modalities

    def batch(self) -> MultimodalBatch:
        """Return the batch; series are padded with zeros to the longest of them."""
        inputs: dict[str, Tensor] = {}
        for key in self._modalities:
            if key in self.inputs:
                inputs[key] = torch.from_numpy(self.inputs[key])
            else:
                inputs[key] = _pad([sample[key] for sample in self.series])
        first = self.days[0]
        return MultimodalBatch(
            inputs,
            {key: torch.from_numpy(pixels) for key, pixels in self.labels.items()},
            {key: _pad([days[key] for days in self.days]) for key in first},
            {key: torch.tensor([len(days[key]) for days in self.days]) for key in first},
            {key: torch.tensor([has[key] for has in self.present]) for key in self.present[0]},
            self.windows,
        )


def _pad(arrays: Sequence[Pixels]) -> Tensor:
    longest = max(1, *map(len, arrays))
    padded = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(padded)
