"""The lattice of a ROI, taken from georeferences; the numbering of its patches is only checked."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from flairhub.errors import SourceDataError
from flairhub.grids import PATCH_SIDE_M, Grid, RoiGrid
from flairhub.ids import PatchId

_TOLERANCE_M = 1e-6 * PATCH_SIDE_M


def roi_grid(patches: Collection[PatchId], one: PatchId, grid: Grid) -> RoiGrid:
    """Return the lattice of 102.4 m patches that a ROI covers.

    Parameters
    ----------
    patches
        All patches of the ROI.
    one
        Any of them.
    grid
        Its georeference. Every other file is held against the lattice by `check_place`.
    """
    first_row, last_row = min(p.row for p in patches), max(p.row for p in patches)
    first_column, last_column = min(p.column for p in patches), max(p.column for p in patches)
    return RoiGrid(
        round(grid.left - (one.column - first_column) * PATCH_SIDE_M, 6),
        round(grid.top + (one.row - first_row) * PATCH_SIDE_M, 6),
        last_row - first_row + 1,
        last_column - first_column + 1,
        first_row,
        first_column,
    )


def lattices(grids: Sequence[Grid]) -> list[list[int]]:
    """Return which patches lie on one lattice: a whole number of patches from each other.

    Parameters
    ----------
    grids
        The georeference of each patch.

    Returns
    -------
    list of list of int
        Positions in `grids`, rising; lattices in the order of their first patch.
    """
    found: list[list[int]] = []
    for number, grid in enumerate(grids):
        for members in found:
            east, south = _apart(grid, grids[members[0]])
            if (
                max(abs(east - round(east)), abs(south - round(south))) * PATCH_SIDE_M
                < _TOLERANCE_M
            ):
                members.append(number)
                break
        else:
            found.append([number])
    return found


def overlapping(grids: Sequence[Grid]) -> list[tuple[int, int]]:
    """Return the pairs of patches that share ground, as positions in `grids`."""
    left, top = (np.array([getattr(grid, name) for grid in grids]) for name in ("left", "top"))
    free = PATCH_SIDE_M - _TOLERANCE_M
    near = np.abs(left[:, None] - left) < free
    near &= np.abs(top[:, None] - top) < free
    return [(int(i), int(j)) for i, j in np.argwhere(np.triu(near, 1))]


def lattice_positions(places: Sequence[tuple[object, Grid]]) -> list[tuple[int, int]]:
    """Return the 1-based row and column of patches on the lattice that they share.

    Parameters
    ----------
    places
        The name of each patch's file, for messages, and its georeference.

    Raises
    ------
    SourceDataError
        If two patches lie on the same place.
    """
    taken: dict[tuple[int, int], object] = {}
    for file, grid in places:
        east, south = _apart(grid, places[0][1])
        step = round(south), round(east)
        if step in taken:
            msg = f"{file} and {taken[step]} both begin at {grid.left}, {grid.top}."
            raise SourceDataError(msg)
        taken[step] = file
    top, left = min(row for row, _ in taken), min(column for _, column in taken)
    return [(row - top + 1, column - left + 1) for row, column in taken]


def _apart(grid: Grid, other: Grid) -> tuple[float, float]:
    """Return how many patches `grid` begins east and south of `other`."""
    return (grid.left - other.left) / PATCH_SIDE_M, (other.top - grid.top) / PATCH_SIDE_M


def check_place(patch: PatchId, found: Grid, roi: RoiGrid, file: object, reference: object) -> None:
    """Refuse a file that does not lie where its number says, rows southward, columns eastward.

    Parameters
    ----------
    patch, found, file
        A patch's file, and its georeference.
    roi, reference
        The lattice, and the file that it was taken from.

    Raises
    ------
    SourceDataError
        With both positions, and the number that would fit the georeference if there is one.
    """
    expected = roi.patch_extent(patch.row, patch.column)
    east, south = found.left - expected.left, expected.top - found.top
    if max(abs(east), abs(south)) <= _TOLERANCE_M:
        return
    columns, rows = east / PATCH_SIDE_M, south / PATCH_SIDE_M
    whole = all(abs(steps - round(steps)) < _TOLERANCE_M for steps in (columns, rows))
    row, column = patch.row + round(rows), patch.column + round(columns)
    hint = (
        f"there lies patch {row}-{column}, so numbers and georeferences disagree"
        if whole
        else f"that is no multiple of {PATCH_SIDE_M} m away, so it is not on the ROI's lattice"
    )
    msg = (
        f"{file}: begins at {found.left}, {found.top}, but {patch} begins at {expected.left}, "
        f"{expected.top}, as {reference} has it: {hint}. One of the two files is wrong."
    )
    raise SourceDataError(msg)
