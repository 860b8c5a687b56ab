from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flairhub.errors import GridError
from flairhub.grids import PATCH_SIDE_M, Extent, Grid, RoiGrid, Window
from flairhub.modalities import dataset_modalities

RESOLUTIONS = sorted({m.resolution_m for m in dataset_modalities()})

# Lambert-93 covers x 0..1.3e6, y 6.0e6..7.2e6; ROIs lie on multiples of the patch's side.
roi_grids = st.builds(
    lambda x, y, rows, columns, row, column: RoiGrid(
        round(x * PATCH_SIDE_M, 6), round(y * PATCH_SIDE_M, 6), rows, columns, row, column
    ),
    st.integers(0, 13000),
    st.integers(58000, 70000),
    st.integers(1, 25),
    st.integers(1, 25),
    st.integers(1, 10),
    st.integers(1, 10),
)
resolutions = st.sampled_from(RESOLUTIONS)


def test_there_are_four_resolutions() -> None:
    assert RESOLUTIONS == [0.2, 0.4, 1.6, 10.24]


@given(roi_grids, resolutions)
def test_patches_tile_their_roi_without_gap_or_overlap(roi: RoiGrid, resolution: float) -> None:
    grid = roi.grid(resolution)
    side = round(PATCH_SIDE_M / resolution)
    assert (grid.height, grid.width) == (roi.rows * side, roi.columns * side)
    windows = [
        roi.patch_window(row, column, resolution)
        for row in range(roi.first_row, roi.first_row + roi.rows)
        for column in range(roi.first_column, roi.first_column + roi.columns)
    ]
    corners = [(r * side, c * side) for r in range(roi.rows) for c in range(roi.columns)]
    assert [(w.row, w.column) for w in windows] == corners
    assert {(w.height, w.width) for w in windows} == {(side, side)}


@given(roi_grids, st.data())
def test_a_patch_is_the_same_rectangle_at_every_resolution(
    roi: RoiGrid, data: st.DataObject
) -> None:
    row = data.draw(st.integers(roi.first_row, roi.first_row + roi.rows - 1))
    column = data.draw(st.integers(roi.first_column, roi.first_column + roi.columns - 1))
    extent = roi.patch_extent(row, column)
    for resolution in RESOLUTIONS:
        grid = roi.grid(resolution)
        assert grid.extent == roi.extent
        assert grid.crop(roi.patch_window(row, column, resolution)).extent == extent


@given(roi_grids, resolutions, st.data())
def test_window_and_extent_are_inverse(
    roi: RoiGrid, resolution: float, data: st.DataObject
) -> None:
    grid = roi.grid(resolution)
    row = data.draw(st.integers(0, grid.height - 1))
    column = data.draw(st.integers(0, grid.width - 1))
    height = data.draw(st.integers(1, grid.height - row))
    width = data.draw(st.integers(1, grid.width - column))
    window = Window(row, column, height, width)
    assert grid.window(grid.crop(window).extent) == window


@given(roi_grids, resolutions, st.data())
def test_transforms_are_exact_to_the_last_bit(
    roi: RoiGrid, resolution: float, data: st.DataObject
) -> None:
    grid = roi.grid(resolution)
    row = data.draw(st.integers(0, grid.height - 1))
    column = data.draw(st.integers(0, grid.width - 1))
    cropped = grid.crop(Window(row, column, 1, 1))
    # what a GeoTIFF of that pixel would carry: the decimal numbers, not sums of binary ones
    centimetres = round(resolution * 100)
    assert cropped.transform == (
        resolution,
        0.0,
        (round(grid.left * 100) + column * centimetres) / 100,
        0.0,
        -resolution,
        (round(grid.top * 100) - row * centimetres) / 100,
    )
    assert Grid.from_transform(cropped.transform, 1, 1) == cropped


@given(roi_grids, resolutions)
def test_coordinates_are_pixel_centres_north_to_south(roi: RoiGrid, resolution: float) -> None:
    grid = roi.grid(resolution)
    assert (grid.y.shape, grid.x.shape) == ((grid.height,), (grid.width,))
    np.testing.assert_allclose(np.diff(grid.x), resolution, rtol=0, atol=2e-6)
    np.testing.assert_allclose(np.diff(grid.y), -resolution, rtol=0, atol=2e-6)
    extent = grid.extent
    half = resolution / 2
    edges = [grid.x[0] - half, grid.y[-1] - half, grid.x[-1] + half, grid.y[0] + half]
    np.testing.assert_allclose(edges, extent.bbox, rtol=0, atol=2e-6)


def test_slices_are_y_before_x() -> None:
    pixels = np.arange(12).reshape(3, 4)
    assert pixels[Window(1, 2, 2, 1).slices].tolist() == [[6], [10]]


GRID = Grid(700044.8, 6300057.6, 0.2, 512, 512)


@pytest.mark.parametrize(
    "window",
    [
        Window(-1, 0, 1, 1),
        Window(0, -1, 1, 1),
        Window(0, 0, 513, 1),
        Window(0, 512, 1, 1),
        Window(4, 4, -1, 1),
    ],
)
def test_a_window_outside_its_grid_is_refused(window: Window) -> None:
    with pytest.raises(GridError, match="leaves the grid of 512 x 512 pixels"):
        GRID.crop(window)


def test_an_extent_between_pixels_is_refused() -> None:
    shifted = Extent(GRID.left + 0.1, GRID.top - 0.2, GRID.left + 0.3, GRID.top)
    with pytest.raises(GridError, match=r"Left edge at 0\.2 m is 0\.5"):
        GRID.window(shifted)


def test_a_resolution_that_does_not_nest_is_refused() -> None:
    with pytest.raises(GridError, match=r"at 10\.0 m is 10\.24"):
        GRID.at(10.0)


@pytest.mark.parametrize(
    "transform",
    [
        (0.2, 0.0, 7e5, 0.0, 0.2, 6.3e6),  # south-up
        (0.2, 0.01, 7e5, 0.0, -0.2, 6.3e6),  # sheared
        (0.2, 0.0, 7e5, 0.01, -0.2, 6.3e6),
        (0.2, 0.0, 7e5, 0.0, -0.4, 6.3e6),  # oblong pixels
        (-0.2, 0.0, 7e5, 0.0, 0.2, 6.3e6),
    ],
)
def test_a_transform_that_is_not_north_up_is_refused(transform: tuple[float, ...]) -> None:
    with pytest.raises(GridError, match="not north-up with square pixels"):
        Grid.from_transform(transform, 512, 512)


def test_a_patch_outside_its_roi_is_refused() -> None:
    roi = RoiGrid(700006.4, 6300057.6, rows=2, columns=3, first_row=4, first_column=6)
    assert roi.patch_window(5, 8, 10.24) == Window(10, 20, 10, 10)
    for row, column in ((3, 6), (6, 6), (4, 5), (4, 9)):
        with pytest.raises(GridError):
            roi.patch_extent(row, column)
