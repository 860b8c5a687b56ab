"""A plan is which windows, in which order: made from the tables alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zarr.storage import LocalStore

import flairhub
from flairhub import PatchPlan
from flairhub.batches.windowing import starts
from flairhub.errors import FlairHubError, NotInStoreError, PlanError
from flairhub.store.access import Location
from tests.stores import CountingStore

SOME = ["aerial_rgbi", "spot_rgbi", "sentinel2_ts"]


def test_patch_sized_windows_are_the_patches(store_root: Path) -> None:
    plan = PatchPlan.build(store_root, modalities=SOME)
    expected = set()
    for place in sorted(store_root.glob("*.zarr")):
        domain = flairhub.open_domain(place)
        corners = domain.patches[["roi", "left", "top"]].itertuples(index=False)
        expected |= {(str(domain.id), *corner) for corner in corners}
    found = [(w.domain, w.roi, w.extent.left, w.extent.top) for w in plan.windows]
    assert set(found) == expected
    assert len(found) == len(set(found)) == len(plan)
    assert found == sorted(found, key=lambda f: (f[0], f[1], -f[3], f[2]))


def test_a_plan_touches_tables_only(store_root: Path) -> None:
    store = CountingStore(LocalStore(store_root, read_only=True))
    PatchPlan.build(Location(store), modalities=SOME, split="train")
    assert store.requests
    assert all(key.endswith(".parquet") for key in store.requests)


def test_windows_stay_inside_their_split(store_root: Path) -> None:
    plans = {
        split: PatchPlan.build(store_root, modalities=SOME, split=split)
        for split in ("train", "valid", "test")
    }
    everything = PatchPlan.build(store_root, modalities=SOME)
    assert sum(map(len, plans.values())) == len(everything)
    for split, plan in plans.items():
        for place in sorted(store_root.glob("*.zarr")):
            domain = flairhub.open_domain(place)
            by_corner = domain.patches.set_index(["roi", "left", "top"])["split"]
            for window in plan.windows:
                if window.domain == str(domain.id):
                    key = (window.roi, window.extent.left, window.extent.top)
                    assert by_corner[key] == split


def test_other_folds_are_other_splits(store_root: Path) -> None:
    plan = PatchPlan.build(store_root, modalities=SOME, split="test", fold="split_2")
    assert 0 < len(plan) < len(PatchPlan.build(store_root, modalities=SOME))


def test_smaller_and_overlapping_windows(store_root: Path) -> None:
    whole = PatchPlan.build(store_root, modalities=SOME)
    small = PatchPlan.build(store_root, modalities=SOME, window_m=51.2)
    assert len(small) == 4 * len(whole)
    overlapping = PatchPlan.build(store_root, modalities=SOME, window_m=102.4, stride_m=51.2)
    assert len(overlapping) > len(whole)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"window_m": 60.0}, ["window_m=60 ", "51.2"]),
        ({"stride_m": 20.0}, ["stride_m=20 ", "51.2"]),
        ({"window_m": -51.2}, ["window_m"]),
        ({"split": "trian"}, ["trian", "train"]),
        ({"fold": "split_7"}, ["split_7", "split_"]),
        ({"modalities": ["aerial_rgb"]}, ["aerial_rgb", "aerial_rgbi"]),
        ({"modalities": ["all_label_lpis"]}, ["all_label_lpis", "label"]),
        ({"labels": ["cosie"]}, ["cosie", "cosia"]),
        ({"bands": {"aerial_rgbi": ["read"]}}, ["read", "red"]),
        ({"bands": {"dem_elev": ["dsm"]}}, ["dem_elev"]),
        ({"domains": ["D999-2020"]}, ["D999-2020"]),
        ({"window_m": 102400.0}, ["window"]),
    ],
)
def test_what_does_not_fit_is_refused(
    store_root: Path, change: dict[str, object], words: list[str]
) -> None:
    settings: dict[str, object] = {"modalities": SOME} | change
    with pytest.raises(FlairHubError) as caught:
        PatchPlan.build(store_root, **settings)  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotInStoreError, match="convert"):
        PatchPlan.build(tmp_path, modalities=SOME)


def test_given_windows_must_fit_the_pixels(store_root: Path) -> None:
    place = sorted(store_root.glob("*.zarr"))[0]
    domain = flairhub.open_domain(place)
    roi = next(iter(domain))
    plan = PatchPlan.build(place, modalities=["aerial_rgbi"], rois=[roi])
    extents = [window.extent for window in plan.windows]
    again = PatchPlan.for_extents(place, roi, extents, modalities=["aerial_rgbi"])
    assert [w.extent for w in again.windows] == extents
    shifted = plan.windows[0].extent
    moved = type(shifted)(*(value + 0.1 for value in shifted.bbox))
    with pytest.raises(FlairHubError):
        PatchPlan.for_extents(place, roi, [moved], modalities=["aerial_rgbi"])
    small = type(shifted)(shifted.left, shifted.bottom, shifted.left + 51.2, shifted.top)
    with pytest.raises(PlanError, match="one size"):
        PatchPlan.for_extents(place, roi, [shifted, small], modalities=["aerial_rgbi"])


def test_order_is_a_function_of_seed_and_epoch(store_root: Path) -> None:
    plan = PatchPlan.build(store_root, modalities=SOME, window_m=51.2)
    one = plan.order(shuffle=True, seed=3, epoch=0)
    assert (one == plan.order(shuffle=True, seed=3, epoch=0)).all()
    assert (one != plan.order(shuffle=True, seed=3, epoch=1)).any()
    assert (one != plan.order(shuffle=True, seed=4, epoch=0)).any()
    assert (np.sort(one) == np.arange(len(plan))).all()
    assert (plan.order(shuffle=False, seed=3, epoch=9) == np.arange(len(plan))).all()


@given(length=st.integers(1, 40), size=st.integers(1, 12), stride=st.integers(1, 15))
def test_windows_are_those_of_a_sliding_frame(length: int, size: int, stride: int) -> None:
    if size > length:
        return
    found = starts(length, size, stride)
    assert found.tolist() == list(range(0, length - size + 1, stride))
