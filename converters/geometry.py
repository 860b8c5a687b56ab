"""The lattice of a ROI, taken from georeferences; the numbering of its patches is only checked."""

from __future__ import annotations

from collections.abc import Collection, Sequence

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


def lattice_positions(places: Sequence[tuple[object, Grid]]) -> list[tuple[int, int]]:
    """Return the 1-based row and column of patches on the lattice that their places share.

    Parameters
    ----------
    places
        The name of each patch's file, for messages, and its georeference.

    Raises
    ------
    SourceDataError
        With both positions, if two patches are not a whole number of patches apart, or lie on
        the same place.
    """
    (reference, first), *_ = places
    steps = []
    taken: dict[tuple[int, int], object] = {}
    for file, grid in places:
        east, south = grid.left - first.left, first.top - grid.top
        row, column = round(south / PATCH_SIDE_M), round(east / PATCH_SIDE_M)
        both = (
            f"{file} begins at {grid.left}, {grid.top}, and {reference} at {first.left}, "
            f"{first.top}"
        )
        off = max(abs(east - column * PATCH_SIDE_M), abs(south - row * PATCH_SIDE_M))
        if off > _TOLERANCE_M:
            msg = (
                f"{both}: {south / PATCH_SIDE_M:.3f} patches southward and "
                f"{east / PATCH_SIDE_M:.3f} eastward, no whole numbers, so that they lie on no "
                f"common lattice of {PATCH_SIDE_M} m and cannot be one ROI."
            )
            raise SourceDataError(msg)
        if (row, column) in taken:
            msg = f"{file} and {taken[row, column]} both begin at {grid.left}, {grid.top}."
            raise SourceDataError(msg)
        taken[row, column] = file
        steps.append((row, column))
    top, left = min(row for row, _ in steps), min(column for _, column in steps)
    return [(row - top + 1, column - left + 1) for row, column in steps]


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
