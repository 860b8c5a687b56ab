"""What people write first: a torch Dataset whose samples open the GeoTIFFs of a patch.

After rasterio's documentation of ``rasterio.open`` and torch's of ``torch.utils.data.Dataset``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
import torch
from torch.utils.data import Dataset

from benchmarks.peers.content import Content, Sample
from flairhub.modalities import MODALITIES, get_label
from flairhub.nomenclatures import get_nomenclature


class TiffDataset(Dataset[Sample]):
    """Patches as float32 tensors, normalised where statistics are published, labels one-hot.

    Parameters
    ----------
    patches
        By patch: the file of each modality.
    content
        What to read of them.
    """

    def __init__(self, patches: Sequence[Mapping[str, Path]], content: Content) -> None:
        self.patches = [patch for patch in patches if set(content.rasters) <= set(patch)]
        self.content = content

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self.patches)

    def __getitem__(self, index: int) -> Sample:
        """Read every raster of one patch; series as ``(time, band, y, x)``."""
        files = self.patches[index]
        sample = {
            key: torch.from_numpy(_read_input(key, files[key])) for key in self.content.inputs
        }
        rasters: dict[str, npt.NDArray[np.uint8]] = {}
        for key in self.content.labels:
            raster, level = get_label(key)
            if raster.key not in rasters:
                with rasterio.open(files[raster.key]) as dataset:
                    rasters[raster.key] = dataset.read()
            classes = np.arange(len(get_nomenclature(key)), dtype=np.uint8)[:, None, None]
            planes = rasters[raster.key][level - 1] == classes
            sample[key] = torch.from_numpy(planes.astype(np.float32))
        return sample


def _read_input(key: str, path: Path) -> npt.NDArray[np.float32]:
    modality = MODALITIES[key]
    with rasterio.open(path) as dataset:
        pixels = dataset.read().astype(np.float32)
    if modality.temporal:
        pixels = pixels.reshape(-1, len(modality.bands), *pixels.shape[1:])
    if modality.statistics is not None:
        shape = (-1, 1, 1)
        pixels -= np.array(modality.statistics.mean, np.float32).reshape(shape)
        pixels /= np.array(modality.statistics.std, np.float32).reshape(shape)
    return np.ascontiguousarray(pixels)
