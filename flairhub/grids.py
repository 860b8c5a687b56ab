"""Where pixels lie: north-up grids in Lambert-93 and the 102.4 m lattice that all of them share.

``y`` comes before ``x`` everywhere. Coordinates are metres in EPSG:2154. Products of a pixel count
and a resolution are rounded to the micrometre, which returns the decimal number that a GeoTIFF of
this family carries, so that a transform taken apart and put together again is the same double.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from flairhub.errors import GridError

CRS = "EPSG:2154"
"""Lambert-93, the projection of every raster of the family."""

PATCH_SIDE_M = 102.4
"""Side of a patch: 512 x 0.2 m = 256 x 0.4 m = 64 x 1.6 m = 10 x 10.24 m."""

_TOLERANCE_PX = 1e-6


def _metres(value: float) -> float:
    """Round to the micrometre, which undoes binary noise in multiples of decimal pixel sizes."""
    return round(value, 6)


def _whole(value: float, what: str) -> int:
    nearest = round(value)
    if abs(value - nearest) > _TOLERANCE_PX:
        msg = f"{what} is {value:.6f} pixels, not a whole number of them."
        raise GridError(msg)
    return nearest


def common_step(resolutions: Iterable[float]) -> float:
    """Return the smallest length, metres, that is a whole number of pixels at all `resolutions`.

    For 0.2, 0.4, 1.6 and 10.24 m together it is half a patch, 51.2 m.
    """
    return math.lcm(*(round(r * 1_000_000) for r in resolutions)) / 1_000_000


@dataclass(frozen=True, slots=True)
class Extent:
    """A rectangle in EPSG:2154 metres, in the order of a ``bbox``."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        """``(xmin, ymin, xmax, ymax)``, as GeoZarr and STAC want it."""
        return (self.left, self.bottom, self.right, self.top)


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels: first row and column (0-based), height and width."""

    row: int
    column: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The ``(y, x)`` slices that cut this window out of an array."""
        y = slice(self.row, self.row + self.height)
        return y, slice(self.column, self.column + self.width)


@dataclass(frozen=True, slots=True)
class Grid:
    """A north-up raster grid with square pixels.

    Parameters
    ----------
    left, top
        Outer corner of the north-west pixel, metres.
    resolution
        Pixel side, metres.
    height, width
        Pixels along y and x.
    """

    left: float
    top: float
    resolution: float
    height: int
    width: int

    @classmethod
    def from_transform(cls, transform: tuple[float, ...], height: int, width: int) -> Self:
        """Build from an affine ``(a, b, c, d, e, f)``; refuses rotated or south-up rasters.

        Raises
        ------
        GridError
            If pixels are not square, or rows do not run north to south.
        """
        a, b, c, d, e, f = transform[:6]
        if b or d or a <= 0 or abs(a + e) > _TOLERANCE_PX * a:
            msg = f"Transform {transform[:6]} is not north-up with square pixels."
            raise GridError(msg)
        return cls(c, f, a, height, width)

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine ``(a, b, c, d, e, f)``, pixel corner to metres, as in rasterio and GeoZarr."""
        return (self.resolution, 0.0, self.left, 0.0, -self.resolution, self.top)

    @property
    def extent(self) -> Extent:
        """The rectangle that the grid covers."""
        right = _metres(self.left + self.width * self.resolution)
        return Extent(self.left, _metres(self.top - self.height * self.resolution), right, self.top)

    @property
    def x(self) -> npt.NDArray[np.float64]:
        """Pixel-centre eastings, shape ``(width,)``."""
        return np.round(self.left + (np.arange(self.width) + 0.5) * self.resolution, 6)

    @property
    def y(self) -> npt.NDArray[np.float64]:
        """Pixel-centre northings, shape ``(height,)``, decreasing."""
        return np.round(self.top - (np.arange(self.height) + 0.5) * self.resolution, 6)

    def crop(self, window: Window) -> Grid:
        """Return the grid of one window; raises `GridError` when it leaves this grid."""
        if not (
            0 <= window.row <= window.row + window.height <= self.height
            and 0 <= window.column <= window.column + window.width <= self.width
        ):
            msg = f"{window} leaves the grid of {self.height} x {self.width} pixels."
            raise GridError(msg)
        left = _metres(self.left + window.column * self.resolution)
        top = _metres(self.top - window.row * self.resolution)
        return Grid(left, top, self.resolution, window.height, window.width)

    def window(self, extent: Extent) -> Window:
        """Return the pixels that exactly cover `extent`.

        Raises
        ------
        GridError
            If the rectangle's edges are not pixel edges of this grid, or leave it.
        """
        where = f"at {self.resolution} m"
        window = Window(
            _whole((self.top - extent.top) / self.resolution, f"Top edge {where}"),
            _whole((extent.left - self.left) / self.resolution, f"Left edge {where}"),
            _whole((extent.top - extent.bottom) / self.resolution, f"Height {where}"),
            _whole((extent.right - extent.left) / self.resolution, f"Width {where}"),
        )
        self.crop(window)
        return window

    def around(self, extent: Extent, side: int) -> Window:
        """Return the square of pixels around a rectangle's middle; it may leave the grid.

        Parameters
        ----------
        extent
            Its edges need not be pixel edges.
        side
            Pixels, even. The pixel with the middle in it comes first of the second half, along
            both axes, as where IGN's code cuts a super-area (IGNF/FLAIR-2, ``src/dataset.py``).
        """
        down = (self.top - (extent.top + extent.bottom) / 2) / self.resolution
        right = ((extent.left + extent.right) / 2 - self.left) / self.resolution
        row, column = (math.floor(place + _TOLERANCE_PX) for place in (down, right))
        return Window(row - side // 2, column - side // 2, side, side)

    def at(self, resolution: float) -> Grid:
        """Return the grid of the same rectangle with another pixel size; raises `GridError`."""
        height = _whole(self.height * self.resolution / resolution, f"Height at {resolution} m")
        width = _whole(self.width * self.resolution / resolution, f"Width at {resolution} m")
        return Grid(self.left, self.top, resolution, height, width)


@dataclass(frozen=True, slots=True)
class RoiGrid:
    """The lattice of 102.4 m patches that a ROI covers, from which every modality's grid follows.

    Parameters
    ----------
    left, top
        North-west corner of the lattice, metres.
    rows, columns
        Patches along y and x (the bounding rectangle; single patches may be absent).
    first_row, first_column
        The 1-based position, in IGN's numbering, of the north-west patch.
    """

    left: float
    top: float
    rows: int
    columns: int
    first_row: int = 1
    first_column: int = 1

    def grid(self, resolution: float) -> Grid:
        """Return the pixel grid of the whole ROI at `resolution` metres; raises `GridError`."""
        return Grid(self.left, self.top, PATCH_SIDE_M, self.rows, self.columns).at(resolution)

    @property
    def extent(self) -> Extent:
        """The rectangle that the ROI covers."""
        return Grid(self.left, self.top, PATCH_SIDE_M, self.rows, self.columns).extent

    def patch_extent(self, row: int, column: int) -> Extent:
        """Return the rectangle of a patch named by IGN's 1-based `row` and `column`."""
        lattice = Grid(self.left, self.top, PATCH_SIDE_M, self.rows, self.columns)
        return lattice.crop(Window(row - self.first_row, column - self.first_column, 1, 1)).extent

    def patch_at(self, left: float, top: float) -> tuple[int, int]:
        """Return IGN's 1-based row and column of the patch that lies south-east of a point."""
        row = math.floor((self.top - top) / PATCH_SIDE_M + _TOLERANCE_PX)
        column = math.floor((left - self.left) / PATCH_SIDE_M + _TOLERANCE_PX)
        return row + self.first_row, column + self.first_column

    def patch_window(self, row: int, column: int, resolution: float) -> Window:
        """Return the pixels of a patch (IGN's 1-based position) at `resolution` metres."""
        return self.grid(resolution).window(self.patch_extent(row, column))
