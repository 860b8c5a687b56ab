"""The map as a Zarr v3 store: classes and confidence, with CF and GeoZarr georeference."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from flairhub.grids import Grid
from flairhub.inference.atomic import replacing
from flairhub.inference.blending import NODATA
from flairhub.modalities import get_modality
from flairhub.nomenclatures import Nomenclature
from flairhub.store.codecs import codecs
from flairhub.store.conventions import (
    CF_VERSION,
    GRID_MAPPING,
    LICENCE,
    coordinate_attributes,
    flag_attributes,
    geozarr_attributes,
    grid_mapping_attributes,
)

CHUNK_PX = 512
_SHARD_CHUNKS = 32  # along each side: 268 MB of single bytes, more than any ROI of FLAIR-HUB has


def write_map(
    path: Path,
    classes: npt.NDArray[np.uint8],
    confidence: npt.NDArray[np.uint8],
    grid: Grid,
    nomenclature: Nomenclature,
    *,
    attributes: dict[str, Any],
) -> Path:
    """Write a map that ``xarray.open_zarr`` and rioxarray open; replaces what stood there.

    Parameters
    ----------
    path
        Of the store, a folder.
    classes
        Shape ``(y, x)``, row 0 north; 255 where there is no prediction.
    confidence
        Shape ``(y, x)``, blended probability of that class in percent; 255 likewise.
    grid
        Where the pixels lie.
    nomenclature
        What the codes mean.
    attributes
        Of the store: title, source, and what else tells where the map comes from.
    """
    dataset = _dataset(classes, confidence, grid, nomenclature, attributes)
    encoding: dict[str, Any] = dict.fromkeys(("classes", "confidence"), _encoding(grid))
    encoding |= {axis: {"_FillValue": None} for axis in ("y", "x")}
    with replacing(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        dataset.to_zarr(partial, mode="w", zarr_format=3, consolidated=True, encoding=encoding)
    return path


def _dataset(
    classes: npt.NDArray[np.uint8],
    confidence: npt.NDArray[np.uint8],
    grid: Grid,
    nomenclature: Nomenclature,
    attributes: dict[str, Any],
) -> xr.Dataset:
    mapped = {"grid_mapping": GRID_MAPPING, "nodata": NODATA}
    class_attributes = {"long_name": nomenclature.title, **flag_attributes(nomenclature)}
    confidence_attributes = {
        "long_name": "blended probability of the class",
        "units": "percent",
        "valid_range": [0, 100],
    }
    return xr.Dataset(
        {
            "classes": (("y", "x"), classes, class_attributes | mapped),
            "confidence": (("y", "x"), confidence, confidence_attributes | mapped),
        },
        coords={
            "y": ("y", grid.y, coordinate_attributes("y")),
            "x": ("x", grid.x, coordinate_attributes("x")),
            GRID_MAPPING: ((), np.int64(0), grid_mapping_attributes(grid)),
        },
        attrs={"Conventions": CF_VERSION, **attributes, **LICENCE, **geozarr_attributes(grid)},
    )


def _encoding(grid: Grid) -> dict[str, Any]:
    shards = tuple(_shard_side(n) for n in (grid.height, grid.width))
    label_codecs = codecs(get_modality("aerial_label_cosia"))
    return {"chunks": (CHUNK_PX, CHUNK_PX), "shards": shards, "fill_value": NODATA, **label_codecs}


def _shard_side(length: int) -> int:
    return min(-(-length // CHUNK_PX), _SHARD_CHUNKS) * CHUNK_PX
