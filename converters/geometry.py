"""The lattice of a ROI, taken from georeferences; the numbering of its patches is only checked."""

from __future__ import annotations

from collections.abc import Collection

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
