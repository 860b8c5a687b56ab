"""Where a ROI is predicted: overlapping windows, and how much each of their pixels counts.

Pure arithmetic. Windows lie on the common lattice of the modalities that the model reads (51.2 m
when 20 cm and 10.24 m rasters meet), so that each cuts whole pixels out of every one of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

import numpy as np
import numpy.typing as npt

from flairhub.errors import PlanError
from flairhub.grids import PATCH_SIDE_M, Extent, RoiGrid, Window, common_step

_TOLERANCE = 1e-6

EDGE_WEIGHT = 0.01
"""Weight of a window's outermost pixels against its centre: small, yet never nothing, since the
edge of a ROI is seen by the edges of windows only."""


def starts(length: int, size: int, every: int) -> tuple[int, ...]:
    """Return where windows begin along one axis; the last one is moved back to end at the edge.

    Parameters
    ----------
    length, size, every
        Of the axis, of a window, and from one window to the next, in one unit; ``size <= length``.
    """
    last = length - size
    found = list(range(0, last + 1, every))
    return tuple(found if found[-1] == last else [*found, last])


def stride(size: int, overlap: float) -> int:
    """Return the step between windows: the nearest whole number to the wanted overlap, at least 1.

    Parameters
    ----------
    size
        Side of a window, in steps of the lattice.
    overlap
        Share of that side that the next window covers again, ``0 <= overlap < 1``.

    Raises
    ------
    PlanError
        If `overlap` is outside its range.
    """
    if not 0 <= overlap < 1:
        msg = f"The overlap of windows must be at least 0 and less than 1; got {overlap}."
        raise PlanError(msg)
    return max(1, round(size * (1 - overlap)))


def true_overlap(window_m: float, overlap: float, resolutions_m: Iterable[float]) -> float:
    """Return the share of a window's side that `cover` has the next one cover again.

    Parameters are those of `cover`. The lattice may leave no room for the wanted share: windows of
    one lattice step cannot overlap at all.
    """
    size = round(window_m / common_step(resolutions_m))
    return 1 - stride(size, overlap) / size


def cover(
    roi: RoiGrid, *, window_m: float, overlap: float, resolutions_m: Iterable[float]
) -> tuple[Extent, ...]:
    """Return the windows that together cover a ROI, row by row from the north-west.

    Parameters
    ----------
    roi
        What to cover.
    window_m
        Side of a window, metres; a multiple of the lattice step of `resolutions_m`.
    overlap
        Wanted share of a window's side that its neighbour covers again.
    resolutions_m
        Pixel sides of the rasters to be read, metres.

    Raises
    ------
    PlanError
        If the ROI is smaller than a window.
    """
    step = common_step(resolutions_m)
    lattice = roi.grid(step)
    size = round(window_m / step)
    every = stride(size, overlap)
    if min(lattice.height, lattice.width) < size:
        area = f"{lattice.height * step:g} x {lattice.width * step:g} m"
        msg = (
            f"The ROI covers {area}, which is less than the model's window of {window_m:g} m. "
            "Predict a larger ROI, or train with a smaller window_m."
        )
        raise PlanError(msg)
    return tuple(
        lattice.crop(Window(row, column, size, size)).extent
        for row in starts(lattice.height, size, every)
        for column in starts(lattice.width, size, every)
    )


def is_filled(window: Extent, roi: RoiGrid, there: npt.NDArray[np.bool_]) -> bool:
    """Tell whether all patches that a window touches are present.

    Parameters
    ----------
    window
        Inside the ROI.
    roi
        The lattice of patches.
    there
        Shape ``(roi.rows, roi.columns)``: which patches are present.
    """
    rows = _patches(roi.top - window.top, roi.top - window.bottom)
    columns = _patches(window.left - roi.left, window.right - roi.left)
    return bool(there[rows, columns].all())


def _patches(start_m: float, stop_m: float) -> slice:
    """Return the patches that a stretch of an axis touches; a shared edge is no touch."""
    first, last = start_m / PATCH_SIDE_M + _TOLERANCE, stop_m / PATCH_SIDE_M - _TOLERANCE
    return slice(int(first), ceil(last))


def raised_cosine(size: int) -> npt.NDArray[np.float32]:
    """Return the weights of a window's pixels, shape ``(size, size)``, in (0, 1].

    The product of two squared sines, lifted to `EDGE_WEIGHT` at the edge: a window counts most
    where it sees most around a pixel, and half-overlapping windows add up to a constant.
    """
    wave = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
    side = EDGE_WEIGHT + (1 - EDGE_WEIGHT) * wave
    return np.outer(side, side).astype(np.float32)
