"""The stream's own reader gives what plain xarray gives, for any window, codec and gap."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import flairhub
from converters.convert import convert
from converters.flairhub_tree import FlairHubTree
from flairhub import PatchPlan
from flairhub.batches.streaming import stream
from flairhub.grids import Extent
from flairhub.modalities import MODALITIES, dataset_modalities, get_label, get_modality
from flairhub.store.codecs import PROFILES
from tests.trees import copy_domain

INPUTS = [m.key for m in dataset_modalities() if not m.is_label]
LABELS = [name for m in dataset_modalities() for name in m.nomenclatures]
Pixels = npt.NDArray[np.generic]


@pytest.fixture(scope="module", params=PROFILES)
def gappy(
    request: pytest.FixtureRequest, raw_tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A domain in which patches lack files, and one patch everything."""
    folder = tmp_path_factory.mktemp(f"gappy-{request.param}")
    tree = copy_domain(raw_tree, folder / "raw")
    chance = np.random.default_rng(0)
    paths = sorted(tree.rglob("*.tif"))
    for path in paths:
        if chance.random() < 0.1:
            path.unlink()
    root = folder / "store"
    convert(FlairHubTree(tree), str(root), workers=1, profile=request.param)
    return root


@lru_cache(maxsize=64)
def _plain(place: Path) -> xr.DataTree:
    return xr.open_datatree(place, engine="zarr")


def _read(place: Path, key: str, box: Extent) -> tuple[Pixels, npt.NDArray[np.int64]]:
    """Pixels and days of one modality, by xarray alone."""
    modality = get_modality(key)
    dataset = _plain(place)[modality.group].to_dataset()
    part = dataset.sel(x=slice(box.left, box.right), y=slice(box.top, box.bottom))
    names = ["snow", "cloud"] if key == "sentinel2_msk_sc" else [key]
    read = [part[name].to_numpy() for name in names]
    pixels = np.stack(read, axis=1) if len(read) > 1 else read[0]
    days = np.empty(0, np.int64)
    if modality.temporal:
        days = part["time"].to_numpy().astype("datetime64[D]").astype(np.int64)
    return pixels, days


def _present(place: Path, key: str, box: Extent) -> bool:
    """Whether the tables say that every patch of a window has a modality."""
    patches = flairhub.open_domain(place.parent).patches
    near = patches[
        (patches["roi"] == place.name)
        & (patches["left"] < box.right - 1e-3) & (patches["right"] > box.left + 1e-3)
        & (patches["bottom"] < box.top - 1e-3) & (patches["top"] > box.bottom + 1e-3)
    ]  # fmt: skip
    sides = [round((high - low) / 102.4, 3) for low, high in ((box.left, box.right),)]
    first = flairhub.open_domain(place.parent).rois.set_index("roi").loc[place.name]
    column = (box.left - first["left"]) / 102.4
    row = (first["top"] - box.top) / 102.4
    across = np.ceil(column + sides[0] - 1e-6) - np.floor(column + 1e-6)
    down = np.ceil(row + sides[0] - 1e-6) - np.floor(row + 1e-6)
    return len(near) == across * down and bool(near[f"has_{key}"].all())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_window_is_what_xarray_reads(gappy: Path, data: st.DataObject) -> None:
    (store,) = gappy.glob("*.zarr")
    rois = flairhub.open_domain(store).rois
    chosen = data.draw(st.sampled_from(rois.to_dict("records")), label="roi")
    keys = data.draw(
        st.lists(st.sampled_from(INPUTS), min_size=1, max_size=4, unique=True), label="inputs"
    )
    labels = data.draw(st.lists(st.sampled_from(LABELS), max_size=2, unique=True), label="labels")
    rasters = [*(get_modality(k) for k in keys), *(get_label(k)[0] for k in labels)]
    steps = [round(m.resolution_m * 1000) for m in rasters]
    step = int(np.lcm.reduce(steps)) / 1000
    most = min(int(chosen["rows"]), int(chosen["columns"])) * 102.4
    side = data.draw(st.integers(1, int(min(most, 230) / step)), label="side") * step
    places = [int((chosen[n] * 102.4 - side) / step + 1e-6) for n in ("rows", "columns")]
    extents = []
    for _ in range(data.draw(st.integers(1, 3), label="windows")):
        down, right = (data.draw(st.integers(0, most)) * step for most in places)
        left, top = round(chosen["left"] + right, 6), round(chosen["top"] - down, 6)
        extents.append(Extent(left, round(top - side, 6), round(left + side, 6), top))
    plan = PatchPlan.for_extents(store, chosen["roi"], extents, modalities=keys, labels=labels)
    place = store / chosen["roi"]
    for number, batch in enumerate(stream(plan, batch_size=2, threads=2)):
        for i, window in enumerate(batch.windows):
            assert window.extent == extents[2 * number + i]
            for key in keys:
                found = batch.inputs[key][i].numpy()
                expected, days = _read(place, key, window.extent)
                present = bool(batch.present[key][i])
                assert present == _present(place, key, window.extent), key
                if key in batch.lengths:
                    assert int(batch.lengths[key][i]) == (len(days) if present else 0)
                    if present:
                        np.testing.assert_array_equal(batch.days[key][i, : len(days)], days)
                        found = found[: len(days)]
                if present:
                    assert found.tobytes() == np.ascontiguousarray(expected).tobytes(), key
                else:
                    assert not found.any()
            for key in labels:
                raster, level = get_label(key)
                pixels, _ = _read(place, raster.key, window.extent)
                wanted = pixels if pixels.ndim == 2 else pixels[level - 1]
                np.testing.assert_array_equal(batch.labels[key][i], wanted)
                assert bool(batch.present[raster.key][i]) == _present(
                    place, raster.key, window.extent
                )


def test_every_modality_is_tried() -> None:
    assert {m.key for m in MODALITIES.values() if not m.is_area} >= set(INPUTS)
