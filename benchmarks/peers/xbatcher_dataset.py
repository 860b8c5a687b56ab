"""xbatcher's generators over the same store: windows that xarray loads when they are asked for.

After xbatcher's documentation of ``BatchGenerator`` (dimensions that are not cut are given whole,
so that it has nothing to stack) and of its loaders for torch, which take one input and one label.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch.utils.data import Dataset
from xbatcher import BatchGenerator

from benchmarks.peers.content import Content, Sample
from flairhub.batches.plan import PatchPlan
from flairhub.grids import PATCH_SIDE_M
from flairhub.modalities import MODALITIES, Kind, Modality, get_label


class XbatcherDataset(Dataset[Sample]):
    """The windows of a plan of patches, read by one generator for each ROI and modality.

    Parameters
    ----------
    root
        Local folder of the stores.
    plan
        Which windows; one patch each.
    content
        What to read of them.
    """

    def __init__(self, root: Path, plan: PatchPlan, content: Content) -> None:
        self.content = content
        self.generators = [
            _generators(root / f"{roi.domain}.zarr" / roi.roi, content) for roi in plan.rois
        ]
        self.items: list[tuple[int, int]] = []
        for index, window in zip(plan.roi_index, plan.windows, strict=True):
            grid = plan.rois[index].grid
            row = round((grid.top - window.extent.top) / PATCH_SIDE_M)
            column = round((window.extent.left - grid.left) / PATCH_SIDE_M)
            self.items.append((int(index), row * grid.columns + column))

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        """Load one window of every modality."""
        roi, number = self.items[index]
        loaded = {key: one[number].load() for key, one in self.generators[roi].items()}
        sample = {key: _tensor(MODALITIES[key], loaded[key]) for key in self.content.inputs}
        for key in self.content.labels:
            raster, level = get_label(key)
            classes = _tensor(raster, loaded[raster.key])
            sample[key] = classes[level - 1] if classes.ndim > 2 else classes
        return sample


def _generators(place: Path, content: Content) -> dict[str, BatchGenerator]:
    tree = xr.open_datatree(place, engine="zarr")
    found = {}
    for key in content.rasters:
        modality = MODALITIES[key]
        dataset = tree[modality.group].to_dataset()[_names(modality)]
        sizes = {str(name): size for name, size in dataset.sizes.items()}
        found[key] = BatchGenerator(
            dataset, sizes | {"y": modality.patch_px, "x": modality.patch_px}
        )
    return found


def _names(modality: Modality) -> list[str]:
    return list(modality.band_names) if modality.kind is Kind.MASK else [modality.key]


def _tensor(modality: Modality, window: xr.Dataset) -> torch.Tensor:
    bands = [window[name].to_numpy() for name in _names(modality)]
    return torch.from_numpy(np.stack(bands, axis=1) if len(bands) > 1 else bands[0])
