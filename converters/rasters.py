"""One raw GeoTIFF into a checked array. Headers are read, never assumed."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.io import DatasetReader, MemoryFile

from flairhub.errors import GridError, SourceDataError
from flairhub.grids import CRS, Grid
from flairhub.modalities import Modality


@dataclass(frozen=True)
class Raster:
    """A decoded file.

    Parameters
    ----------
    pixels
        ``(dates, bands, y, x)``; one date for rasters that are no series. Native dtype.
    grid
        As the file's header has it.
    sha256
        Checksum of the file, hex.
    size
        Bytes of the file.
    """

    pixels: npt.NDArray[np.generic]
    grid: Grid
    sha256: str
    size: int


def read_grid(path: Path, modality: Modality) -> Grid:
    """Return the georeference of a file from its header alone; raises `SourceDataError`."""
    try:
        with _quiet(), rasterio.open(path, driver="GTiff") as dataset:
            return _checked_grid(dataset, path, modality)
    except RasterioIOError as error:
        raise _unreadable(path, error) from error


def read_raster(path: Path, modality: Modality) -> Raster:
    """Read a file once, check it against the registry, and decode it.

    Raises
    ------
    SourceDataError
        If the file is unreadable, or its CRS, pixel size, shape, dtype or number of bands is not
        the registry's. The message names the file, what was found and what was expected.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        with _quiet(), MemoryFile(data) as memory, memory.open(driver="GTiff") as dataset:
            grid = _checked_grid(dataset, path, modality)
            pixels = dataset.read()
    except (RasterioError, RasterioIOError) as error:
        raise _unreadable(path, error) from error
    side, bands = modality.patch_px, len(modality.bands)
    shaped = pixels.reshape(-1, bands, side, side)
    return Raster(shaped, grid, hashlib.sha256(data).hexdigest(), len(data))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence rasterio on missing georeferences, which are refused here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _unreadable(path: Path, error: Exception) -> SourceDataError:
    # GDAL names its in-memory copy of the file; only the user's path means anything
    reason = str(error.__cause__ or error).split("/vsimem/")[-1]
    msg = (
        f"{path} cannot be read as GeoTIFF ({reason}): it is damaged or cut short. "
        "Fetch it again, or remove it to record this modality of the patch as absent."
    )
    return SourceDataError(msg)


def _checked_grid(dataset: DatasetReader, path: Path, modality: Modality) -> Grid:
    def check(good: bool, what: str, found: object, expected: object) -> None:
        if not good:
            msg = f"{path}: the {what} is {found}, but {modality.source_name} has {expected}."
            raise SourceDataError(msg)

    crs = dataset.crs
    code = f"EPSG:{crs.to_epsg()}" if crs else "missing"
    check(code == CRS, "CRS", code if not crs or crs.to_epsg() else crs.to_string(), CRS)
    dtypes = sorted(set(dataset.dtypes))
    check(dtypes == [modality.dtype], "dtype", "/".join(dtypes), modality.dtype)
    side = modality.patch_px
    size = "x".join(map(str, dataset.shape))
    check(dataset.shape == (side, side), "size", size, f"{side}x{side} pixels")
    bands, count = len(modality.bands), dataset.count
    if modality.temporal:
        check(count % bands == 0, "number of bands", count, f"{bands} a date")
    else:
        check(count == bands, "number of bands", count, bands)
    try:
        grid = Grid.from_transform(tuple(dataset.transform), side, side)
    except GridError as error:
        msg = f"{path}: {error}"
        raise SourceDataError(msg) from error
    same = abs(grid.resolution - modality.resolution_m) * side <= 1e-6 * modality.resolution_m
    check(same, "pixel size", f"{grid.resolution} m", f"{modality.resolution_m} m")
    # the pixel size of the registry, so that grids compare equal whatever the last bit in a header
    return Grid(grid.left, grid.top, modality.resolution_m, side, side)
