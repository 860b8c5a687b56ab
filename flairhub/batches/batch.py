"""What a model is fed: tensors of several modalities for the same windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from flairhub.batches.plan import PatchWindow

IGNORE_INDEX = 255
"""Label of pixels that have none; the fill value of the store's class rasters."""


@dataclass(frozen=True)
class MultimodalBatch:
    """Several modalities and labels of the same windows, each at its own resolution.

    Parameters
    ----------
    inputs
        By modality: ``(B, C, H, W)``, or ``(B, T, C, H, W)`` for series. In the store's dtype as
        streamed, float32 once prepared.
    labels
        By class set: ``(B, H, W)`` uint8 class indexes, `IGNORE_INDEX` where there is none.
    days
        By series: ``(B, T)`` int64, days since 1970-01-01; 0 where padded.
    lengths
        By series: ``(B,)`` int64, the number of true dates; padding is at the end of ``T``.
    present
        By modality: ``(B,)`` bool. Where False, the input is zeros and means nothing.
    windows
        Where each sample comes from.
    """

    inputs: Mapping[str, Tensor]
    labels: Mapping[str, Tensor]
    days: Mapping[str, Tensor]
    lengths: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    windows: tuple[PatchWindow, ...]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.windows)

    def map(self, function: Callable[[Tensor], Tensor]) -> MultimodalBatch:
        """Return a batch with `function` applied to every tensor."""
        changed: dict[str, Any] = {"windows": self.windows}
        for part in fields(self)[:-1]:
            tensors = getattr(self, part.name)
            changed[part.name] = {key: function(value) for key, value in tensors.items()}
        return MultimodalBatch(**changed)

    def to(self, device: torch.device | str, *, non_blocking: bool = True) -> MultimodalBatch:
        """Return the batch on another device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> MultimodalBatch:
        """Return the batch in page-locked memory, from which copies to a GPU are asynchronous."""
        return self.map(torch.Tensor.pin_memory)
