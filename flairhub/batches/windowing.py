"""Where windows lie in a ROI: pure arithmetic on the lattice that the chosen modalities share.

xbatcher says where windows begin along an axis; those of a ROI are the product of its two axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import xarray as xr
from xbatcher.generators import BatchSchema

from flairhub.errors import PlanError
from flairhub.grids import PATCH_SIDE_M, RoiGrid, common_step
from flairhub.modalities import Modality

TOLERANCE = 1e-6


def lattice_step(modalities: Sequence[Modality], **lengths: float) -> float:
    """Return the smallest length, metres, that is whole pixels of all `modalities`.

    Parameters
    ----------
    modalities
        At least one.
    lengths
        By the name that a message calls them, metres; each must be a multiple of the step.

    Raises
    ------
    PlanError
        If one is not; the message names a modality and the nearest lengths that fit.
    """
    if not modalities:
        msg = "A plan needs at least one modality or label that is cut in patches."
        raise PlanError(msg)
    step = common_step(m.resolution_m for m in modalities)
    for name, length in lengths.items():
        steps = length / step
        if round(steps) >= 1 and abs(steps - round(steps)) < TOLERANCE:
            continue
        worst = max(modalities, key=lambda m: _off(length / m.resolution_m))
        low = max(1, int(steps)) * step
        msg = (
            f"{name}={length:g} is not a whole number of pixels of every modality "
            f"({length / worst.resolution_m:g} pixels of {worst.key}, {worst.resolution_m} m). "
            f"Together they need multiples of {step:g} m, such as {low:g} or {low + step:g}."
        )
        raise PlanError(msg)
    return step


def _off(pixels: float) -> float:
    """How far a number of pixels is from a whole one."""
    return abs(pixels - round(pixels))


def corners(
    roi: RoiGrid, usable: npt.NDArray[np.bool_], *, step: float, window_m: float, stride_m: float
) -> npt.NDArray[np.float64]:
    """Return the north-west corners of the windows that touch usable patches only, row by row.

    Parameters
    ----------
    roi
        The ROI's patches.
    usable
        Which of them may be read, shape ``(rows, columns)``; or on which dates, shape ``(rows,
        columns, dates)``: then a window needs a date on which all of its patches may be.
    step
        Lattice step, metres; the other two are multiples of it.
    window_m, stride_m
        Side of a window, and from one window to the next, metres.

    Returns
    -------
    ndarray
        ``(top, left)``, metres, shape ``(windows, 2)``.
    """
    lattice = roi.grid(step)
    size, stride = round(window_m / step), round(stride_m / step)
    if min(lattice.height, lattice.width) < size:
        return np.empty((0, 2))
    rows, columns = (starts(n, size, stride) for n in (lattice.height, lattice.width))
    found = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    first = np.floor(found * step / PATCH_SIDE_M + TOLERANCE).astype(int)
    last = np.ceil((found + size) * step / PATCH_SIDE_M - TOLERANCE).astype(int)
    # sums over any rectangle of patches from one cumulative table
    layers = usable.reshape(*usable.shape[:2], -1)
    table = np.pad(layers.cumsum(0, np.int32).cumsum(1), ((1, 0), (1, 0), (0, 0)))
    (y0, x0), (y1, x1) = first.T, last.T
    count = table[y1, x1] - table[y0, x1] - table[y1, x0] + table[y0, x0]
    kept = found[(count == ((y1 - y0) * (x1 - x0))[:, None]).any(axis=1)]
    metres: npt.NDArray[np.float64] = np.array([roi.top, roi.left]) + kept * [-step, step]
    return np.round(metres, 6)


@cache
def starts(length: int, size: int, stride: int) -> npt.NDArray[np.int64]:
    """Return where xbatcher's windows of `size` begin on an axis of `length`, every `stride`."""
    # xbatcher's windows touch or overlap: of a wider stride they are every n-th
    dense = max(d for d in range(1, min(stride, size) + 1) if stride % d == 0)
    axis = xr.DataArray(np.broadcast_to(np.uint8(0), length), dims="axis")
    schema = BatchSchema(
        axis,
        input_dims={"axis": size},
        input_overlap={"axis": size - dense},
        concat_input_bins=False,
    )
    found = [window["axis"].start for several in schema.selectors.values() for window in several]
    return np.array([start for start in found if start % stride == 0], np.int64)
