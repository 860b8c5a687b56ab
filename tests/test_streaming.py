"""Batches hold what plain xarray reads, in a fixed order, and leave no thread behind."""

from __future__ import annotations

import shutil
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import flairhub
from converters.convert import convert
from converters.flairhub_tree import FlairHubTree
from flairhub import PatchPlan
from flairhub.batches.batch import IGNORE_INDEX, MultimodalBatch
from flairhub.batches.order import Shuffle
from flairhub.batches.streaming import stream
from flairhub.errors import FlairHubError, PlanError
from flairhub.modalities import dataset_modalities, get_modality
from tests.trees import copy_domain, first_tiff

INPUTS = [m.key for m in dataset_modalities() if not m.is_label]
LABELS = ["cosia", "lpis_1", "lpis_3"]


def _readers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("flairhub-")]


@pytest.mark.parametrize(
    ("window_m", "stride_m"), [(102.4, None), (51.2, None), (102.4, 51.2), (204.8, 102.4)]
)
def test_batches_equal_plain_xarray(
    store_root: Path, window_m: float, stride_m: float | None
) -> None:
    plan = PatchPlan.build(
        store_root, modalities=INPUTS, labels=LABELS, window_m=window_m, stride_m=stride_m
    )
    checked = 0
    for batch in stream(plan, batch_size=3):
        for i, window in enumerate(batch.windows):
            place = store_root / f"{window.domain}.zarr" / window.roi
            tree = xr.open_datatree(place, engine="zarr")
            box = window.extent
            part = {"x": slice(box.left, box.right), "y": slice(box.top, box.bottom)}
            for key in INPUTS:
                modality = get_modality(key)
                dataset = tree[modality.group].to_dataset().sel(part)
                names = ["snow", "cloud"] if key == "sentinel2_msk_sc" else [key]
                read = [dataset[name].to_numpy() for name in names]
                expected = np.stack(read, axis=1) if len(read) > 1 else read[0]
                found = batch.inputs[key][i].numpy()
                if modality.temporal:
                    assert batch.lengths[key][i] == len(expected)
                    days = dataset["time"].to_numpy().astype("datetime64[D]").astype(np.int64)
                    np.testing.assert_array_equal(batch.days[key][i, : len(days)], days)
                    assert not batch.days[key][i, len(days) :].any()
                    assert not found[len(expected) :].any()
                    found = found[: len(expected)]
                assert found.dtype == modality.numpy_dtype
                np.testing.assert_array_equal(found, expected, err_msg=key)
            cosia = tree["aerial_label_cosia"].to_dataset().sel(part)["aerial_label_cosia"]
            np.testing.assert_array_equal(batch.labels["cosia"][i], cosia)
            lpis = tree["all_label_lpis"].to_dataset().sel(part)["all_label_lpis"]
            for level in (1, 3):
                found = batch.labels[f"lpis_{level}"][i].numpy()
                np.testing.assert_array_equal(found, lpis.sel(level=level))
            assert all(flags[i] for flags in batch.present.values())
            checked += 1
    assert checked == len(plan) > 0


def test_bands_are_chosen_by_name_and_order(store_root: Path) -> None:
    every = PatchPlan.build(store_root, modalities=["aerial_rgbi", "sentinel2_ts"])
    some = PatchPlan.build(
        store_root,
        modalities=["aerial_rgbi", "sentinel2_ts"],
        bands={"aerial_rgbi": ["nir", "red"], "sentinel2_ts": ["B11"]},
    )
    whole, part = next(iter(stream(every))), next(iter(stream(some)))
    assert torch.equal(part.inputs["aerial_rgbi"], whole.inputs["aerial_rgbi"][:, [3, 0]])
    assert torch.equal(part.inputs["sentinel2_ts"], whole.inputs["sentinel2_ts"][:, :, [8]])


def _signature(batches: list[MultimodalBatch]) -> list[tuple[object, ...]]:
    return [window for batch in batches for window in batch.windows]  # type: ignore[misc]


def test_order_does_not_depend_on_threads_or_prefetch(store_root: Path) -> None:
    plan = PatchPlan.build(store_root, modalities=["spot_rgbi"])
    orders = [
        _signature(list(stream(plan, batch_size=2, shuffle=True, seed=7, threads=t, prefetch=p)))
        for t, p in ((1, 0), (2, 1), (8, 9))
    ]
    assert orders[0] == orders[1] == orders[2]
    assert sorted(map(str, orders[0])) == sorted(map(str, plan.windows))
    other = _signature(list(stream(plan, batch_size=2, shuffle=True, seed=8)))
    assert other != orders[0]


def test_epochs_differ_and_come_back(store_root: Path) -> None:
    plan = PatchPlan.build(store_root, modalities=["spot_rgbi"], window_m=51.2)
    batches = stream(plan, shuffle=True)
    first = _signature(list(batches))
    batches.set_epoch(1)
    second = _signature(list(batches))
    batches.set_epoch(0)
    assert first == _signature(list(batches)) != second


def test_lengths(store_root: Path) -> None:
    plan = PatchPlan.build(store_root, modalities=["spot_rgbi"])
    whole, full = stream(plan, batch_size=5), stream(plan, batch_size=5, drop_last=True)
    assert len(plan) % 5
    assert len(list(whole)) == len(whole) == len(full) + 1
    assert len(list(full)) == len(full)


def test_no_thread_is_left(store_root: Path) -> None:
    plan = PatchPlan.build(store_root, modalities=["spot_rgbi"])
    list(stream(plan))
    assert not _readers()
    for _ in stream(plan, batch_size=1):
        assert _readers()
        break
    assert not _readers(), "leaving the loop early leaves threads behind"


def test_a_damaged_shard_names_the_place(store_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.copytree(store_root, root)
    shard = sorted(root.glob("*.zarr/*/dem_elev/dem_elev/c/0/0/0"))[0]
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 0x40
    shard.write_bytes(bytes(data))
    plan = PatchPlan.build(root, modalities=["dem_elev"])
    with pytest.raises(FlairHubError, match="dem_elev") as caught:
        list(stream(plan))
    roi = shard.relative_to(root).parts[1]
    assert roi in str(caught.value)
    assert not _readers()


def test_absent_modalities_are_masked(raw_tree: Path, tmp_path: Path) -> None:
    tree = copy_domain(raw_tree, tmp_path / "raw")
    first_tiff(tree, "SENTINEL1-ASC_TS").unlink()
    roi = first_tiff(tree, "SPOT_RGBI").parent.name
    for path in tree.glob(f"*_SPOT_RGBI/{roi}/*.tif"):
        path.unlink()
    first_tiff(tree, "AERIAL_LABEL-COSIA").unlink()
    root = tmp_path / "store"
    convert(FlairHubTree(tree), str(root), workers=1)
    wanted = ["aerial_rgbi", "spot_rgbi", "sentinel1_asc_ts"]
    complete = PatchPlan.build(root, modalities=wanted)
    masked = PatchPlan.build(root, modalities=wanted, complete=False)
    assert len(complete) < len(masked)
    batch = next(iter(stream(masked, batch_size=len(masked))))
    assert batch.present["aerial_rgbi"].all()
    assert not batch.present["spot_rgbi"].all()
    for key in ("spot_rgbi", "sentinel1_asc_ts"):
        absent = ~batch.present[key]
        assert absent.any()
        assert not batch.inputs[key][absent].any()
    assert int((~batch.present["sentinel1_asc_ts"]).sum()) == 1
    unlabelled = ~batch.present["aerial_label_cosia"]
    assert (batch.labels["cosia"][unlabelled] == IGNORE_INDEX).all()
    assert unlabelled.any()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("batch_size", (0, 2.5, "4", None, True)),
        ("threads", (0, 1.5)),
        ("prefetch", (-1, 0.5)),
        ("seed", (-1, "a", None, 1.5)),
        ("epoch", (-1, "a")),
        ("retry_s", (-1, "x", float("nan"), None)),
        ("cache_bytes", (-1, "1 GB")),
        ("device", ("gpu", "cuda:99", 1.5)),
        ("shuffle", ("blocks",)),
    ],
)
def test_bad_settings_are_refused(
    store_root: Path, tmp_path: Path, name: str, values: tuple[object, ...]
) -> None:
    plan = PatchPlan.build(store_root, modalities=["spot_rgbi"])
    for value in values:
        with pytest.raises(PlanError, match=name):
            flairhub.stream(plan, cache=tmp_path, **{name: value})  # type: ignore[arg-type]


def test_numbers_of_numpy_are_settings(store_root: Path) -> None:
    plan = PatchPlan.build(store_root, modalities=["spot_rgbi"])
    made = flairhub.stream(plan, batch_size=np.int64(3), seed=np.uint8(7), retry_s=float("inf"))  # type: ignore[arg-type]
    assert len(next(iter(made))) == 3


def _peak_of_a_first_batch(plan: PatchPlan, shuffle: Shuffle) -> int:
    tracemalloc.start()
    try:
        for _ in stream(plan, batch_size=1, shuffle=shuffle, prefetch=0, threads=1):
            break
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shuffle", [True, False, "block"])
def test_long_epochs_begin_as_short_ones(store_root: Path, shuffle: Shuffle) -> None:
    few = PatchPlan.build(store_root, modalities=["spot_rgbi"], labels=[])
    count = 100_000
    many = few.subset(np.arange(count) % len(few))
    more = _peak_of_a_first_batch(many, shuffle) - _peak_of_a_first_batch(few, shuffle)
    assert more < 200 * count  # numbers, and nothing made for each window
