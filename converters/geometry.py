"""The lattice of a ROI, taken from georeferences; the numbering of its patches is only checked."""

from __future__ import annotations

from collections.abc import Mapping

from flairhub.errors import SourceDataError
from flairhub.grids import PATCH_SIDE_M, Extent, Grid, RoiGrid
from flairhub.ids import PatchId

_TOLERANCE_M = 1e-6 * PATCH_SIDE_M


def roi_grid(grids: Mapping[PatchId, Grid]) -> RoiGrid:
    """Return the lattice of 102.4 m patches that a ROI covers.

    Parameters
    ----------
    grids
        Georeference of every patch, from one of its files.

    Raises
    ------
    SourceDataError
        If patches do not lie on one lattice, overlap, or are numbered in another order than rows
        southward and columns eastward. The message shows both positions.
    """
    left = min(grid.left for grid in grids.values())
    top = max(grid.top for grid in grids.values())
    places: dict[tuple[int, int], PatchId] = {}
    for patch, grid in grids.items():
        place = (
            _steps(top - grid.top, patch, "south of the northernmost"),
            _steps(grid.left - left, patch, "east of the westernmost"),
        )
        other = places.setdefault(place, patch)
        if other != patch:
            msg = (
                f"{patch} and {other} cover the same ground: both begin at {grid.left}, {grid.top}."
            )
            raise SourceDataError(msg)
    (row, column), first = next(iter(places.items()))
    first_row, first_column = first.row - row, first.column - column
    for (row, column), patch in places.items():
        if (patch.row, patch.column) != (first_row + row, first_column + column):
            msg = (
                f"{patch} lies {row} patches south and {column} east of its ROI's corner, which "
                f"its number contradicts: {first} puts {first_row}-{first_column} there, so this "
                f"patch should be {first_row + row}-{first_column + column}. Georeferences and "
                "numbers disagree; one of them is wrong."
            )
            raise SourceDataError(msg)
    rows = 1 + max(row for row, _ in places)
    columns = 1 + max(column for _, column in places)
    return RoiGrid(left, top, rows, columns, first_row, first_column)


def check_extent(patch: PatchId, found: Grid, expected: Extent, name: object) -> None:
    """Refuse a file that does not lie where its patch lies; raises `SourceDataError`."""
    shift = max(abs(found.left - expected.left), abs(found.top - expected.top))
    if shift > _TOLERANCE_M:
        msg = (
            f"{name}: begins at {found.left}, {found.top}, but {patch} begins at "
            f"{expected.left}, {expected.top}."
        )
        raise SourceDataError(msg)


def _steps(distance: float, patch: PatchId, direction: str) -> int:
    steps = distance / PATCH_SIDE_M
    if abs(steps - round(steps)) > _TOLERANCE_M:
        msg = (
            f"{patch} lies {distance} m {direction} patch of its ROI, which is not a multiple of "
            f"{PATCH_SIDE_M} m: its patches are not on one lattice."
        )
        raise SourceDataError(msg)
    return round(steps)
