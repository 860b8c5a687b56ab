"""What a store looks like: names, dimensions, chunks, shards. Pure arithmetic, no I/O.

::

    <root>/D012-2019.zarr/AF-S1-27/<group>/<variable>     one store a domain, one group a ROI
    <root>/D012-2019.{patches,rois,shards}.parquet        the domain's tables
    <root>/D012-2019.sha256                               and their checksums

An inner chunk is one patch with all its bands and dates (of a raster that is not cut in patches,
`AREA_CHUNK_PX` squared pixels). A shard is the whole ROI, or equal blocks
of patches where the ROI is too large for one. A ROI's own ``zarr.json`` is written last: without
it the ROI does not exist for any reader.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

import numpy as np

from flairhub.grids import Grid, RoiGrid
from flairhub.ids import DomainId
from flairhub.modalities import MODALITIES, Kind, Modality

FORMAT_VERSION = "0.1"
"""Version of this layout; readers refuse a store with another major number."""

MAX_SHARD_BYTES = 320 * 2**20
"""Raw bytes of a shard at most: about half of it once compressed. Keeps the largest ROI of
FLAIR-HUB (20 x 20 patches) at three shards for its largest raster."""

AREA_CHUNK_PX = 40
"""Side of an inner chunk of a raster that is not cut in patches: the crop that IGN's FLAIR#2
baseline takes around each patch."""

PRESENT_ATTRIBUTE = "flairhub:present"
"""Group attribute: one string a row of patches, ``1`` present and ``0`` absent."""

DATES_ATTRIBUTE = "flairhub:dates"
"""Group attribute of a series: its dates, so that opening a ROI needs no further request."""

TABLES = ("patches", "rois", "shards", "statistics")


def store_name(domain: DomainId) -> str:
    """Return the name of a domain's store, such as ``D012-2019.zarr``."""
    return f"{domain}.zarr"


def table_name(domain: DomainId, table: str) -> str:
    """Return the name of a domain's table, such as ``D012-2019.patches.parquet``."""
    return f"{domain}.{table}.parquet"


def sums_name(domain: DomainId) -> str:
    """Return the name of the SHA-256 sums of a domain's tables, for ``sha256sum --check``."""
    return f"{domain}.sha256"


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array of a ROI.

    Parameters
    ----------
    path
        Inside the ROI group: ``<group>/<variable>``.
    modality
        Whose pixels it holds.
    bands
        0-based bands of the raw file (of each date) that it holds, in order.
    dims, shape, chunks, shards
        Zarr's own terms; `chunks` are the inner chunks.
    fill_value
        What absent patches read as.
    """

    path: str
    modality: Modality
    bands: tuple[int, ...]
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...]
    fill_value: float

    @property
    def name(self) -> str:
        """Name of the variable."""
        return self.path.rpartition("/")[2]


def fill_value(modality: Modality) -> float:
    """Return what an absent pixel reads as: NaN, 255 for classes and percentages, else 0."""
    if modality.numpy_dtype.kind == "f":
        return float("nan")
    return 255 if modality.kind in (Kind.LABEL, Kind.MASK) else 0


def leading_dims(modality: Modality) -> tuple[str, ...]:
    """Return the dimensions before ``y, x`` of a modality's variable."""
    if modality.kind is Kind.MASK:
        return ("time",)
    if modality.is_label:
        return ("level",) if len(modality.bands) > 1 else ()
    return ("time", "band") if modality.temporal else ("band",)


def shard_patches(roi: RoiGrid, patch_bytes: int) -> tuple[int, int]:
    """Return rows and columns of patches in a shard: as few, as square blocks as fit the limit."""
    best: tuple[int, int, int] | None = None
    for down in range(1, roi.rows + 1):
        for across in range(1, roi.columns + 1):
            rows, columns = ceil(roi.rows / down), ceil(roi.columns / across)
            if rows * columns * patch_bytes > MAX_SHARD_BYTES and rows * columns > 1:
                continue
            score = (down * across, abs(rows - columns), down)
            if best is None or score < best:
                best, shape = score, (rows, columns)
            break
    return shape


def array_names(modality: Modality) -> tuple[str, ...]:
    """Return the names of the arrays that hold a modality: one, or one a band for masks."""
    return modality.band_names if modality.kind is Kind.MASK else (modality.key,)


def array_specs(
    modality: Modality, roi: RoiGrid, dates: int = 0, area: Grid | None = None
) -> tuple[ArraySpec, ...]:
    """Return the arrays that hold a modality of a ROI: one, or one a band for masks.

    Parameters
    ----------
    modality
        From the registry.
    roi
        The ROI's lattice.
    dates
        Length of the time axis; unused for single-date modalities.
    area
        The grid of a modality that is not cut in patches; unused for others.
    """
    side = modality.patch_px
    if modality.is_area:
        if area is None:
            msg = f"{modality.key} needs a grid of its own."
            raise ValueError(msg)
        grid, side = area, AREA_CHUNK_PX
        roi = RoiGrid(0.0, 0.0, ceil(grid.height / side), ceil(grid.width / side))
    else:
        grid = roi.grid(modality.resolution_m)
    leading = leading_dims(modality)
    sizes = {"time": dates, "band": len(modality.bands), "level": len(modality.bands)}
    lead = tuple(sizes[d] for d in leading)
    patch_bytes = int(np.prod(lead, dtype=np.int64)) * side * side * modality.numpy_dtype.itemsize
    rows, columns = shard_patches(roi, patch_bytes)
    every = tuple(range(len(modality.bands)))
    variables = (
        {b.name: (i,) for i, b in enumerate(modality.bands)}
        if modality.kind is Kind.MASK
        else {modality.key: every}
    )
    return tuple(
        ArraySpec(
            path=f"{modality.group}/{name}",
            modality=modality,
            bands=bands,
            dims=(*leading, "y", "x"),
            shape=(*lead, grid.height, grid.width),
            chunks=(*lead, side, side),
            shards=(*lead, rows * side, columns * side),
            fill_value=fill_value(modality),
        )
        for name, bands in variables.items()
    )


def groups(modalities: Iterable[Modality] | None = None) -> dict[str, tuple[Modality, ...]]:
    """Return the modalities of each store group; of all that there are, in registry order."""
    found: dict[str, tuple[Modality, ...]] = {}
    for modality in MODALITIES.values() if modalities is None else modalities:
        found[modality.group] = (*found.get(modality.group, ()), modality)
    return found
