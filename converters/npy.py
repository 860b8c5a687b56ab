"""NumPy's ``.npy`` files: never unpickled, and checked before and after they are read."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod

import numpy as np

from converters.files import SourceFile
from converters.rasters import Raster
from flairhub.errors import SourceDataError
from flairhub.grids import Grid
from flairhub.modalities import Modality

_HEADER_BYTES = 16384
"""In which NumPy puts the header, which it limits to less."""

_MOST_PX = 10_000
"""Along a side: 100 km, a hundred times those that IGN publishes."""


def read_shape(file: SourceFile, modality: Modality) -> tuple[int, ...]:
    """Return the shape ``(dates, bands, y, x)`` that the header of a series tells.

    Raises
    ------
    SourceDataError
        If it is no ``.npy`` file, of another dtype, number of axes or bands, or of pickled objects.
    """
    start = file.read_start(_HEADER_BYTES)
    shape, _ = _checked(start, file, modality)
    return shape


def read_area(file: SourceFile, modality: Modality, dates: int, grid: Grid) -> Raster:
    """Read the series of a whole ROI.

    Parameters
    ----------
    file, modality
        What to read, and what it should be. Integers that are narrower than the registry's are
        widened, which keeps their values.
    dates, grid
        The shape that it must have.

    Raises
    ------
    SourceDataError
        As `read_shape`, or if the shape is another or the file not as long as its header says;
        says what was found and what was expected.
    """
    data = file.read()
    shape, size = _checked(data, file, modality)
    if size != len(data):
        msg = (
            f"{file} has {len(data):,} bytes, but {size:,} are expected from its header: it is "
            "damaged or cut short. Fetch it again."
        )
        raise SourceDataError(msg)
    check_shape(file, shape, (dates, len(modality.bands), grid.height, grid.width))
    with _quiet():
        pixels = np.load(io.BytesIO(data), allow_pickle=False).astype(modality.numpy_dtype)
    return Raster(pixels, grid, hashlib.sha256(data).hexdigest(), len(data))


def check_shape(file: SourceFile, found: Sequence[int], expected: Sequence[int]) -> None:
    """Refuse another shape ``(dates, bands, y, x)``; raises `SourceDataError` with both."""
    if tuple(found) != tuple(expected):
        msg = (
            f"{file}: the shape is {_by(found)}, but {_by(expected)} (dates, bands, y, x) is "
            "expected from the list of products and the rest of the super-area."
        )
        raise SourceDataError(msg)


def _checked(data: bytes, file: SourceFile, modality: Modality) -> tuple[tuple[int, ...], int]:
    """Return the shape in a header, and how long the file must be; `data` may be its start."""
    handle = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(handle)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        with _quiet():
            shape, _, dtype = read(handle)
    except Exception as error:  # the header is a Python literal, which has many ways to be wrong
        msg = f"{file} is no .npy file that can be read ({error}); fetch it again."
        raise SourceDataError(msg) from error
    if dtype.hasobject:
        msg = f"{file} holds pickled objects, which are never loaded; expected {modality.dtype}."
        raise SourceDataError(msg)
    if dtype.kind != "u" or not np.can_cast(dtype, modality.numpy_dtype):
        msg = f"{file}: the dtype is {dtype}, but {modality.source_name} has {modality.dtype}."
        raise SourceDataError(msg)
    bands = len(modality.bands)
    if len(shape) != 4 or shape[1] != bands or min(shape) < 1 or max(shape[2:]) > _MOST_PX:
        msg = f"{file}: the shape is {_by(shape)}, but (dates, {bands}, y, x) is expected."
        raise SourceDataError(msg)
    return tuple(shape), handle.tell() + prod(shape) * dtype.itemsize


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence NumPy on headers of Python 2, which it reads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "that of a single number"
