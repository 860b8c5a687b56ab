"""A patch of a drawn raster into its own GeoTIFF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt
import rasterio
from affine import Affine

from converters.miniature.terroirs import SampleRoi
from flairhub.grids import CRS
from flairhub.ids import PatchId
from flairhub.modalities import Modality


def write_tiff(
    path: Path, roi: SampleRoi, patch: PatchId, modality: Modality, pixels: npt.NDArray[Any]
) -> None:
    """Write one patch of ``pixels (bands, y, x)``, which cover the whole ROI."""
    window = roi.grid.patch_window(patch.row, patch.column, modality.resolution_m)
    grid = roi.grid.grid(modality.resolution_m).crop(window)
    path.parent.mkdir(parents=True, exist_ok=True)
    values = pixels[(..., *window.slices)]
    profile = {
        "driver": "GTiff", "count": len(values), "height": grid.height, "width": grid.width,
        "dtype": modality.dtype, "crs": CRS, "transform": Affine(*grid.transform),
        "interleave": "pixel", "compress": "lzw",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        target.write(values)
