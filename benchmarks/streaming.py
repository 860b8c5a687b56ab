"""Patches a second that reach a training loop, all modalities together."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import rasterio
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from benchmarks.harness import Row, Workspace, benchmark, interleaved
from flairhub.batches.plan import PatchPlan
from flairhub.batches.streaming import stream
from flairhub.modalities import MODALITIES, dataset_modalities

BATCH = 4
WORKERS = 2


class TiffDataset(Dataset[dict[str, Tensor]]):
    """What people write first: a sample opens the files of its patch."""

    def __init__(self, patches: Sequence[Mapping[str, Path]]) -> None:
        self.patches = patches

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self.patches)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Read every raster of one patch; series as ``(time, band, y, x)``."""
        sample = {}
        for key, path in self.patches[index].items():
            modality = MODALITIES[key]
            with rasterio.open(path) as dataset:
                pixels = dataset.read()
            if modality.temporal:
                pixels = pixels.reshape(-1, len(modality.bands), *pixels.shape[1:])
            sample[key] = torch.from_numpy(np.ascontiguousarray(pixels))
        return sample


def collate(samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Stack, with series padded to the longest."""
    return {
        key: pad_sequence([s[key] for s in samples], batch_first=True)
        if MODALITIES[key].temporal
        else torch.stack([s[key] for s in samples])
        for key in samples[0]
    }


@benchmark
def streaming(workspace: Workspace) -> Iterator[Row]:
    """One shuffled epoch of `flairhub.stream` against a DataLoader over the raw files."""
    inputs = [m.key for m in dataset_modalities() if not m.is_label]
    labels = [n for m in dataset_modalities() for n in m.nomenclatures]
    plan = PatchPlan.build(workspace.root, modalities=inputs, labels=labels, complete=False)
    epochs = iter(range(1_000_000))

    def ours() -> float:
        batches = stream(plan, batch_size=BATCH, shuffle=True, seed=0, epoch=next(epochs))
        started = time.perf_counter()
        count = sum(len(batch) for batch in batches)
        return count / (time.perf_counter() - started)

    files = [paths for roi in workspace.rois() for paths in roi.files.values()]
    dataset = TiffDataset([{key: Path(f.url) for key, f in by.items()} for by in files])
    # workers are started afresh, not forked: GDAL and the threads of Zarr do not survive a fork
    alone = DataLoader(dataset, BATCH, shuffle=True, collate_fn=collate)
    shared = DataLoader(
        dataset, BATCH, shuffle=True, collate_fn=collate, num_workers=WORKERS,
        multiprocessing_context="spawn", persistent_workers=True,
    )  # fmt: skip

    def peer(loader: DataLoader[dict[str, Tensor]]) -> float:
        started = time.perf_counter()
        count = sum(len(next(iter(batch.values()))) for batch in loader)
        return count / (time.perf_counter() - started)

    peer(shared)  # starts the workers
    found = interleaved({"ours": ours, "0": lambda: peer(alone), "2": lambda: peer(shared)})
    best = max("0", "2", key=lambda workers: found[workers])
    yield Row(
        "stream", "patches/s", found["ours"], found[best], 5.0, "higher",
        "all modalities and labels, local disk, warm; peer: torch DataLoader over the GeoTIFFs, "
        f"{best} workers ({found['0']:.0f} with 0, {found['2']:.0f} with {WORKERS})",
    )  # fmt: skip
