"""What every peer puts into a batch: the same modalities and class sets of the same patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from flairhub.batches.plan import PatchPlan
from flairhub.modalities import MODALITIES, dataset_modalities, get_label
from flairhub.store.access import Source

Sample = dict[str, Tensor]
"""Inputs by modality and labels by class set, of one patch."""

WORKERS = (0, 2)
"""Worker processes that a peer is measured with; the better counts."""


@dataclass(frozen=True, slots=True)
class Content:
    """Keys of inputs and of class sets."""

    inputs: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def rasters(self) -> tuple[str, ...]:
        """Modalities that are read: the inputs, and the label rasters."""
        labels = dict.fromkeys(get_label(key)[0].key for key in self.labels)
        return (*self.inputs, *labels)

    def plan(self, url: Source, storage_options: Mapping[str, Any] | None = None) -> PatchPlan:
        """Return the plan of all patches that have everything."""
        return PatchPlan.build(
            url, modalities=self.inputs, labels=self.labels, storage_options=storage_options
        )


ALL = Content(tuple(m.key for m in dataset_modalities() if not m.is_label), ("cosia", "lpis_1"))
AERIAL = Content(("aerial_rgbi",), ("cosia",))


def collate(samples: Sequence[Sample]) -> Sample:
    """Stack, with series padded to the longest."""
    return {
        key: pad_sequence([s[key] for s in samples], batch_first=True)
        if key in MODALITIES and MODALITIES[key].temporal
        else torch.stack([s[key] for s in samples])
        for key in samples[0]
    }


def loader(dataset: Dataset[Sample], batch_size: int, workers: int) -> DataLoader[Sample]:
    """Return a shuffling DataLoader; its processes start afresh, since GDAL survives no fork."""
    options: dict[str, Any] = {}
    if workers:
        options = {"multiprocessing_context": "spawn", "persistent_workers": True}
    return DataLoader(
        dataset, batch_size, shuffle=True, collate_fn=collate, num_workers=workers, **options
    )
