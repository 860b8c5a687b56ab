"""Windows, blending weights and the map of a ROI."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flairhub.errors import PlanError
from flairhub.grids import PATCH_SIDE_M, RoiGrid
from flairhub.inference.blending import NODATA, Blender
from flairhub.inference.windows import cover, raised_cosine, starts, stride, true_overlap
from flairhub.modalities import dataset_modalities

ALL_RESOLUTIONS = {m.resolution_m for m in dataset_modalities()}


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
def test_starts_cover_the_axis_and_end_at_its_edge(size: int, more: int, every: int) -> None:
    length = size + more
    found = starts(length, size, min(every, size))
    covered = np.zeros(length, np.int64)
    for start in found:
        covered[start : start + size] += 1
    assert covered.min() >= 1
    assert found[-1] + size == length
    assert list(found) == sorted(set(found))


@pytest.mark.parametrize(
    ("size", "overlap", "expected"), [(2, 0.5, 1), (2, 0.0, 2), (4, 0.3, 3), (1, 0.9, 1)]
)
def test_stride_is_whole_and_near_the_overlap(size: int, overlap: float, expected: int) -> None:
    assert stride(size, overlap) == expected


@pytest.mark.parametrize("overlap", [-0.1, 1.0])
def test_overlap_out_of_range_is_refused(overlap: float) -> None:
    with pytest.raises(PlanError, match="less than 1"):
        stride(2, overlap)


@given(
    rows=st.integers(2, 6),
    columns=st.integers(2, 6),
    side=st.integers(1, 4),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.75]),
)
def test_windows_are_whole_pixels_of_every_modality(
    rows: int, columns: int, side: int, overlap: float
) -> None:
    roi = RoiGrid(PATCH_SIDE_M * 6500, PATCH_SIDE_M * 61000, rows, columns)
    window_m = round(side * 51.2, 6)
    windows = cover(roi, window_m=window_m, overlap=overlap, resolutions_m=ALL_RESOLUTIONS)
    seen = np.zeros((roi.grid(0.2).height, roi.grid(0.2).width), bool)
    for extent in windows:
        for resolution in ALL_RESOLUTIONS:
            window = roi.grid(resolution).window(extent)  # refuses parts of pixels
            assert window.height == window.width == round(window_m / resolution)
        seen[roi.grid(0.2).window(extent).slices] = True
    assert seen.all()
    tops = [extent.top for extent in windows]
    assert tops == sorted(tops, reverse=True)


def test_the_lattice_limits_the_overlap() -> None:
    assert true_overlap(102.4, 0.4, ALL_RESOLUTIONS) == 0.5
    assert true_overlap(51.2, 0.5, ALL_RESOLUTIONS) == 0
    assert true_overlap(51.2, 0.5, [0.2]) == 0.5


def test_a_roi_smaller_than_a_window_is_refused() -> None:
    roi = RoiGrid(0.0, PATCH_SIDE_M, 1, 3)
    with pytest.raises(PlanError, match=r"102\.4 x 307\.2 m.*window of 204\.8 m"):
        cover(roi, window_m=204.8, overlap=0.5, resolutions_m=[0.2])


def test_weights_are_positive_symmetric_and_highest_in_the_centre() -> None:
    weights = raised_cosine(64)
    assert weights.min() > 0
    np.testing.assert_array_equal(weights, weights.T)
    np.testing.assert_allclose(weights, weights[::-1], rtol=1e-5)
    assert weights.argmax() in {31 * 64 + 31, 31 * 64 + 32, 32 * 64 + 31, 32 * 64 + 32}


def test_half_overlapping_weights_add_up_to_a_constant() -> None:
    side = raised_cosine(64)[32]
    both = side[32:] + side[:32]
    np.testing.assert_allclose(both, both[0], rtol=1e-6)


def _blend(
    windows: list[tuple[int, int]],
    probabilities: npt.NDArray[np.float32],
    size: int,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Cut windows out of one big field of probabilities and put them together again."""
    classes, height, width = probabilities.shape
    blender = Blender(height, width, classes=classes, size=size)
    for row, column in windows:
        blender.add(row, column, probabilities[:, row : row + size, column : column + size])
    return blender.finish()


def _field(classes: int, height: int, width: int) -> npt.NDArray[np.float32]:
    values = np.random.default_rng(0).random((classes, height, width), np.float32)
    return np.asarray(values / values.sum(axis=0))


@given(st.integers(1, 3), st.integers(0, 3), st.integers(0, 9))
def test_windows_that_agree_give_their_own_field_back(every: int, more: int, extra: int) -> None:
    size, height, width = 4, 4 + more, 4 + extra
    field = _field(5, height, width)
    windows = [(r, c) for r in starts(height, size, every) for c in starts(width, size, every)]
    classes, confidence = _blend(windows, field, size)
    np.testing.assert_array_equal(classes, field.argmax(axis=0))
    np.testing.assert_allclose(confidence, 100 * field.max(axis=0), atol=0.51)


def test_strips_give_the_same_as_the_whole_at_once() -> None:
    """The reference keeps all probabilities; random windows do not agree with each other."""
    rng = np.random.default_rng(1)
    size, height, width = 8, 24, 20
    total, weight = np.zeros((3, height, width)), np.zeros((height, width))
    blender = Blender(height, width, classes=3, size=size)
    for row in (0, 3, 6, 9, 16):
        for column in (0, 5, 12):
            probabilities = rng.random((3, size, size), np.float32)
            probabilities /= probabilities.sum(axis=0)
            here = slice(row, row + size), slice(column, column + size)
            total[:, *here] += raised_cosine(size) * probabilities
            weight[here] += raised_cosine(size)
            blender.add(row, column, probabilities)
    classes, confidence = blender.finish()
    np.testing.assert_array_equal(classes, total.argmax(axis=0))
    np.testing.assert_allclose(confidence, 100 * (total.max(axis=0) / weight), atol=0.51)


def test_pixels_that_no_window_covers_are_nodata() -> None:
    classes, confidence = _blend([(0, 0), (16, 8)], _field(3, 24, 16), 8)
    expected = np.zeros((24, 16), bool)
    expected[:8, :8] = expected[16:, 8:] = True
    np.testing.assert_array_equal(classes != NODATA, expected)
    np.testing.assert_array_equal(confidence != NODATA, expected)


def test_windows_out_of_order_are_refused() -> None:
    blender = Blender(16, 8, classes=2, size=8)
    half = np.full((2, 8, 8), 0.5, np.float32)
    blender.add(8, 0, half)
    with pytest.raises(ValueError, match="row 0 comes after row 8"):
        blender.add(0, 0, half)
