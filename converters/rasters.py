"""One raw GeoTIFF into a checked array. Headers are read, never assumed.

Files that are what the registry expects are decoded by libtiff, in one call; GDAL's cost a band
is most of the time of a series with hundreds of them. Whatever is unusual goes to GDAL, which also
knows best what is wrong with it. Both give the same pixels, which is tested.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import imagecodecs
import numpy as np
import numpy.typing as npt
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader, MemoryFile

from converters.files import SourceFile
from converters.geotiff import Header, read_header
from flairhub.errors import GridError, SourceDataError
from flairhub.grids import CRS, Grid
from flairhub.modalities import Modality

Pixels = npt.NDArray[np.generic]

_HEADER_BYTES = 16384
"""In which writers put the header, when they put it first."""

_UNCODED = re.compile(r'(?:LOCAL_CS|ENGCRS)\["[^"]*Lambert[- _]?93', re.IGNORECASE)
"""The CRS that masks of FLAIR#1 and FLAIR#2 have: EPSG:2154 by its name, without its code."""

_IN_MEMORY = re.compile(r"(/vsimem/)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}[\w./-]*")
"""A name that rasterio gives a file in memory."""

_EPSG = int(CRS.removeprefix("EPSG:"))


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

    pixels: Pixels
    grid: Grid
    sha256: str
    size: int


def read_grid(file: SourceFile, modality: Modality) -> Grid:
    """Return the georeference of a file, from its header where that is usual.

    Raises
    ------
    SourceDataError
        As `read_raster`.
    """
    start = file.read_start(_HEADER_BYTES)
    with suppress(Exception):  # a header that is not usual, or not at the start
        usual = _usual_header(start, modality)
        if usual is not None:
            return usual[1]
    return read_raster(file, modality).grid


def read_raster(file: SourceFile, modality: Modality) -> Raster:
    """Read a file once, check it against the registry, and decode it.

    Raises
    ------
    SourceDataError
        If the file is unreadable, or its CRS, pixel size, shape, dtype or number of bands is not
        the registry's. The message names the file, what was found and what was expected.
    """
    data = file.read()
    pixels, grid = _decode_usual(data, modality) or _decode_any(data, file, modality)
    side, bands = modality.patch_px, len(modality.bands)
    shaped = pixels.reshape(-1, bands, side, side)
    return Raster(shaped, grid, hashlib.sha256(data).hexdigest(), len(data))


def _decode_usual(data: bytes, modality: Modality) -> tuple[Pixels, Grid] | None:
    """Decode a file whose header says exactly what the registry expects; None for any other."""
    side = modality.patch_px
    try:
        usual = _usual_header(data, modality)
        if usual is None:
            return None
        header, grid = usual
        count = header.samples
        pixels = imagecodecs.tiff_decode(data, index=0)
    except Exception:  # of whatever kind: GDAL decides what it is
        return None
    if count > 1 and not header.separate:
        pixels = np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels
    if pixels.size != count * side * side or pixels.dtype != modality.numpy_dtype:
        return None
    return np.ascontiguousarray(pixels).reshape(count, side, side), grid


def _usual_header(data: bytes, modality: Modality) -> tuple[Header, Grid] | None:
    """Return a header that says exactly what the registry expects, and its grid; else None."""
    side, bands = modality.patch_px, len(modality.bands)
    header = read_header(data)
    if header is None or (header.width, header.height) != (side, side):
        return None
    count = header.samples
    right = count % bands == 0 if modality.temporal else count == bands
    grid = _known_grid(header.transform, modality)
    if not right or header.dtype != modality.dtype or header.epsg != _EPSG or grid is None:
        return None
    return header, grid


def _known_grid(transform: tuple[float, ...], modality: Modality) -> Grid | None:
    """Return the grid of an affine transform, None where its pixels have another size."""
    side = modality.patch_px
    try:
        grid = Grid.from_transform(transform, side, side)
    except GridError:
        return None
    if abs(grid.resolution - modality.resolution_m) * side > 1e-6 * modality.resolution_m:
        return None
    # the pixel size of the registry, so that grids compare equal whatever the last bit in a header
    return Grid(grid.left, grid.top, modality.resolution_m, side, side)


def _decode_any(data: bytes, file: SourceFile, modality: Modality) -> tuple[Pixels, Grid]:
    try:
        with _quiet(), MemoryFile(data) as memory, memory.open(driver="GTiff") as dataset:
            grid = _checked_grid(dataset, file, modality)
            return dataset.read(), grid
    except SourceDataError:
        raise
    except Exception as error:  # rasterio passes on what its parts raise at headers out of range
        # GDAL names its in-memory copy of the file, by chance; only the user's path means anything
        reason = _IN_MEMORY.sub(file.name, str(error.__cause__ or error))
        msg = (
            f"{file} cannot be read as GeoTIFF ({reason}): it is damaged or cut short. "
            "Fetch it again, or remove it to record this modality of the patch as absent."
        )
        raise SourceDataError(msg) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence rasterio on missing georeferences, which are refused here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _checked_grid(dataset: DatasetReader, file: SourceFile, modality: Modality) -> Grid:
    def check(good: bool, what: str, found: object, expected: object) -> None:
        if not good:
            msg = f"{file}: the {what} is {found}, but {modality.source_name} has {expected}."
            raise SourceDataError(msg)

    crs = dataset.crs
    code = f"EPSG:{crs.to_epsg()}" if crs and crs.to_epsg() else crs.to_wkt() if crs else "missing"
    check(code == CRS or bool(_UNCODED.match(code)), "CRS", code, CRS)
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
    transform = tuple(dataset.transform)
    try:
        found = Grid.from_transform(transform, side, side)
    except GridError as error:
        msg = f"{file}: {error}"
        raise SourceDataError(msg) from error
    grid = _known_grid(transform, modality)
    check(grid is not None, "pixel size", f"{found.resolution} m", f"{modality.resolution_m} m")
    assert grid is not None
    return grid
