"""FLAIR#2: the series of super-areas, found, placed, stored and proved."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import rasterio
import rioxarray  # noqa: F401 - registers .rio
import xarray as xr
import zarr
from affine import Affine

from converters.convert import convert
from converters.flair2 import CENTROIDS_FILE, MASKS, Flair2Tree, _edge
from converters.miniature import write_sample
from converters.open import open_source
from converters.plan import plan
from converters.selection import Selection
from converters.verify import verify
from flairhub import PatchPlan, open_roi
from flairhub.batches.streaming import stream
from flairhub.errors import ConfigError, SourceDataError
from flairhub.grids import Extent
from flairhub.store.conventions import grid_of
from flairhub.store.layout import AREA_CHUNK_PX
from flairhub.store.summary import summarise
from flairhub.training.run import train
from tests.test_training import make_config
from tests.trees import copy_flair_domain, flip_bit, problem, rewrite, snapshot

SERIES = "flair_sentinel2_ts"


@pytest.fixture
def tree(flair2_tree: Path, tmp_path: Path) -> Path:
    return copy_flair_domain(flair2_tree, tmp_path / "raw")


def part(tree: Path, name: str, domain: str = "D032_2019") -> Path:
    return next(tree.glob(f"*sen*/{domain}/*/sen/*_{name}"))


def change_centroids(tree: Path, change: Callable[[dict[str, Any]], None]) -> None:
    table = json.loads((tree / CENTROIDS_FILE).read_text())
    change(table)
    (tree / CENTROIDS_FILE).write_text(json.dumps(table))


def opened(store: Path, domain: str) -> xr.DataTree:
    (name,) = gpd.read_parquet(store / f"{domain}.rois.parquet")["roi"]
    return xr.open_datatree(store / f"{domain}.zarr" / name, engine="zarr", decode_coords="all")


def test_conversion_is_proved(flair2_tree: Path, flair2_store: Path) -> None:
    report = verify(open_source(flair2_tree), str(flair2_store))
    assert report.passed, report.findings
    series = [np.load(p, mmap_mode="r") for p in flair2_tree.rglob("*.npy")]
    assert report.files == len(list(flair2_tree.rglob("*.tif"))) + len(series)
    assert report.pixels == report.patches * 6 * 512 * 512 + sum(s.size for s in series)
    assert report.dates == sum(len(s) for s in series) // 2


@pytest.mark.parametrize("domain", ["D032_2019", "D084_2021", "D004_2021"])
def test_a_series_comes_back_with_its_dates(
    flair2_tree: Path, flair2_store: Path, domain: str
) -> None:
    group = opened(flair2_store, domain.replace("_", "-"))[SERIES].to_dataset()
    data = np.load(part(flair2_tree, "data.npy", domain))
    masks = np.load(part(flair2_tree, "masks.npy", domain))
    assert data.dtype == group[SERIES].dtype
    np.testing.assert_array_equal(group[SERIES], data)
    np.testing.assert_array_equal(group["snow"], masks[:, 0])
    np.testing.assert_array_equal(group["cloud"], masks[:, 1])
    products = part(flair2_tree, "products.txt", domain).read_text().split()
    assert group.time.dt.strftime("%Y%m%d").values.tolist() == [p[11:19] for p in products]
    assert group.band.values.tolist()[7] == "B8A"


def test_every_image_lies_in_the_pixel_that_the_table_names(
    flair2_tree: Path, flair2_store: Path
) -> None:
    table = json.loads((flair2_tree / CENTROIDS_FILE).read_text())
    checked = 0
    for path in flair2_store.glob("*.patches.parquet"):
        grid = opened(flair2_store, path.name.partition(".")[0])[SERIES].to_dataset()
        assert grid.rio.crs.to_epsg() == 2154
        assert abs(float(grid.x[1] - grid.x[0])) == 10
        for row in gpd.read_parquet(path).itertuples():
            place = row.geometry.centroid
            y, x = table[f"{row.source_image}.tif"]
            assert abs(float(grid.x[x]) - place.x) <= 5 + 1e-6
            assert abs(float(grid.y[y]) - place.y) <= 5 + 1e-6
            checked += 1
    assert checked == len(table)


def test_chunks_are_the_crops_of_the_baseline(flair2_store: Path) -> None:
    (name,) = gpd.read_parquet(flair2_store / "D032-2019.rois.parquet")["roi"]
    array: Any = zarr.open_group(flair2_store / "D032-2019.zarr" / name, mode="r")[
        f"{SERIES}/{SERIES}"
    ]
    dates, bands, height, width = array.shape
    assert array.chunks == (dates, bands, AREA_CHUNK_PX, AREA_CHUNK_PX)
    assert height % AREA_CHUNK_PX, "no chunk at the border is tested"
    assert array.shards[-2] >= height
    assert array.shards[-1] >= width
    assert array.nchunks_initialized == 4
    shards = flair2_store / "D032-2019.zarr" / name / SERIES / SERIES / "c"
    assert len(list(shards.rglob("*/0/0/0"))) == 1


def test_flairhub_opens_and_describes_the_series(flair2_tree: Path, flair2_store: Path) -> None:
    (name,) = gpd.read_parquet(flair2_store / "D032-2019.rois.parquet")["roi"]
    dataset = open_roi(str(flair2_store / "D032-2019.zarr"), name)[SERIES].to_dataset()
    data = np.load(part(flair2_tree, "data.npy"))
    np.testing.assert_array_equal(dataset[SERIES][:, 2, 17:57, 3:43], data[:, 2, 17:57, 3:43])
    patches = gpd.read_parquet(flair2_store / "D032-2019.patches.parquet")
    assert patches[f"has_{SERIES}"].all()
    masks = np.load(part(flair2_tree, "masks.npy"))
    np.testing.assert_allclose(
        patches["cloud_percent"][0], masks[:, 1].mean(axis=(1, 2)), atol=1e-3
    )
    (summary,) = summarise(str(flair2_store / "D032-2019.zarr"))
    assert f"{SERIES}/cloud" in [v.path for v in summary.variables]


def test_splits_follow_the_folders_and_the_baseline(flair2_store: Path) -> None:
    splits = {
        path.name.partition(".")[0]: set(gpd.read_parquet(path)["split"])
        for path in flair2_store.glob("*.patches.parquet")
    }
    assert splits == {"D032-2019": {"train"}, "D084-2021": {"test"}, "D004-2021": {"valid"}}
    assert "D077-2021" in Flair2Tree.validation
    assert "D070-2020" not in Flair2Tree.validation


def test_a_dry_run_knows_what_will_be_written(tree: Path, tmp_path: Path) -> None:
    planned = plan(open_source(tree), str(tmp_path / "store")).total
    report = convert(open_source(tree), str(tmp_path / "store"), workers=1)
    assert planned.files == report.files
    assert planned.raw_bytes == report.raw_bytes
    assert planned.source_bytes == report.source_bytes
    assert planned.objects == report.objects - 1  # the domain's own


def test_the_series_can_be_added_later_and_alone(tree: Path, tmp_path: Path) -> None:
    root, alone = str(tmp_path / "store"), str(tmp_path / "alone")
    first = Selection(modalities=["flair_aerial"])
    convert(open_source(tree), root, first, workers=1)
    mask = tmp_path / "store" / "D032-2019.zarr"
    before = {k: v for k, v in snapshot(mask).items() if "flair_aerial" in k}
    convert(open_source(tree), root, workers=1)
    after = snapshot(mask)
    assert before.items() <= after.items()
    assert verify(open_source(tree), root).passed
    assert convert(open_source(tree), root, workers=1).kept == 1
    convert(open_source(tree), alone, Selection(modalities=[SERIES]), workers=1)
    report = verify(open_source(tree), alone)
    assert report.passed, report.findings
    assert report.files == 1


def test_zones_without_a_series_are_kept(tree: Path, tmp_path: Path) -> None:
    shutil.rmtree(part(tree, "data.npy").parent)
    report = convert(open_source(tree), str(tmp_path / "store"), workers=1)
    assert any(f"6 of 6 patches lack {SERIES}" in note for note in report.notes)
    assert verify(open_source(tree), str(tmp_path / "store")).passed


def test_the_series_of_a_zone_in_parts_lies_in_the_first(tree: Path, tmp_path: Path) -> None:
    kinds = {"aerial": "img/IMG", "labels": "msk/MSK"}
    for kind, name in kinds.items():
        path = sorted(tree.glob(f"flair_{kind}_train/*/*/{name}_*.tif"))[2]
        with rasterio.open(path) as source:
            moved = Affine.translation(1.0, 0.0) * source.transform
        rewrite(path, transform=moved)
    root = tmp_path / "store"
    report = convert(open_source(tree), str(root), workers=1)
    rois = gpd.read_parquet(root / "D032-2019.rois.parquet").set_index("roi")
    first, second = rois.index
    assert rois.loc[first, "modalities"].tolist() == [
        "flair_aerial",
        SERIES,
        MASKS.key,
        "flair_mask",
    ]
    assert rois.loc[second, "modalities"].tolist() == ["flair_aerial", "flair_mask"]
    assert any(f"1 of 1 patches lack {SERIES}" in note for note in report.notes)
    group = open_roi(str(root / "D032-2019.zarr"), first)[SERIES]
    np.testing.assert_array_equal(group[SERIES], np.load(part(tree, "data.npy")))
    assert verify(open_source(tree), str(root)).passed


def test_names_with_an_underscore_are_read_too(tree: Path, tmp_path: Path) -> None:
    for path in sorted(tree.glob("flair_sen_train/*/*/sen/*")):
        path.rename(path.with_name(path.name.replace("-", "_")))
    convert(open_source(tree), str(tmp_path / "store"), workers=1)
    report = verify(open_source(tree), str(tmp_path / "store"))
    assert report.passed
    assert report.files == 14


def test_images_that_disagree_on_the_corner_are_named(tree: Path) -> None:
    images: list[str] = []

    def move(table: dict[str, Any]) -> None:
        zone = sorted(p.name for p in tree.glob("flair_aerial_train/*/*/img/*.tif"))
        images.extend([zone[0], zone[-1]])
        table[zone[-1]][1] += 3

    change_centroids(tree, move)
    message = problem(tree)
    assert "the super-area cannot have IMG_" in message
    assert images[-1] in message
    assert "more than its pixels of 10 m" in message


@pytest.mark.parametrize("value", [[1, -2], [1, 4000], [1.5, 2], "1,2", [3]])
def test_a_place_that_is_none_is_named(tree: Path, value: object) -> None:
    change_centroids(tree, lambda table: table.update(dict.fromkeys(table, value)))
    assert "expected a row and a column of its super-area" in problem(tree)


def test_a_super_area_without_a_place_is_named(tree: Path, tmp_path: Path) -> None:
    (tree / CENTROIDS_FILE).unlink()
    assert "its super-area has no georeference" in problem(tree)
    chosen = Selection(modalities=["flair_aerial", "flair_mask"])
    convert(open_source(tree), str(tmp_path / "store"), chosen, workers=1)
    assert verify(open_source(tree), str(tmp_path / "store"), chosen).passed


@pytest.mark.parametrize("corner", [(498_040.0, 6_283_090.0), (498_043.7, 6_283_091.3)])
def test_a_corner_is_found_to_a_fraction_of_a_pixel(corner: tuple[float, float]) -> None:
    left, top = corner
    west, north = [], []
    for row in range(10):
        for column in range(10):
            x, y = 498_200.0 + 102.4 * column, 6_282_900.0 - 102.4 * row
            pixel = int((top - y) // 10), int((x - left) // 10)
            west.append((x - 10 * pixel[1], "IMG", pixel, (x, y)))
            north.append((-y - 10 * pixel[0], "IMG", pixel, (x, y)))
    assert abs(_edge(west, "a") - left) < 0.5
    assert abs(-_edge(north, "a") - top) < 0.5
    if left % 10 == 0:
        assert (_edge(west, "a"), -_edge(north, "a")) == corner


def save(path: Path, array: npt.NDArray[Any]) -> None:
    np.save(path, array)


def cut(path: Path, array: npt.NDArray[Any]) -> None:
    del array
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path, array: npt.NDArray[Any]) -> None:
    del array
    path.write_bytes(b"")


def pickled(path: Path, array: npt.NDArray[Any]) -> None:
    path.write_bytes(pickle.dumps(array))


def objects(path: Path, array: npt.NDArray[Any]) -> None:
    np.save(path, np.array([array, None], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        ("data.npy", cut, "bytes, but .* are expected from its header"),
        ("data.npy", empty, "no .npy file that can be read"),
        ("data.npy", pickled, "no .npy file that can be read"),
        ("data.npy", objects, "holds pickled objects, which are never loaded"),
        ("data.npy", lambda p, a: save(p, a.astype("float32")), "float32, but .* has uint16"),
        ("data.npy", lambda p, a: save(p, a[:, :9]), r"9 x .* but \(dates, 10, y, x\)"),
        ("data.npy", lambda p, a: save(p, a[0]), r"but \(dates, 10, y, x\) is expected"),
        ("data.npy", lambda p, a: save(p, a[:-1]), "expected from the list of products"),
        ("masks.npy", lambda p, a: save(p, a[..., 1:]), "the rest of the super-area"),
        ("masks.npy", lambda p, a: save(p, a.astype("int8")), "int8, but .* has uint16"),
        ("products.txt", lambda p, _: p.write_text("S2A_MSIL2A_2021\n"), "line 1: .* names no day"),
        ("products.txt", lambda p, _: p.write_bytes(b"\xff\xfe"), "no text|not a text"),
        ("products.txt", lambda p, _: p.unlink(), "lies there without products.txt"),
        ("data.npy", lambda p, _: p.unlink(), "lies there without data.npy"),
        ("data.npy", lambda p, _: p.rename(p.with_name("x.npy")), "expected a path like"),
    ],
)
def test_damaged_series_are_named(
    tree: Path,
    tmp_path: Path,
    name: str,
    damage: Callable[[Path, npt.NDArray[Any]], None],
    says: str,
) -> None:
    path = part(tree, name)
    damage(path, np.load(path) if name.endswith("npy") else np.empty(0))
    with pytest.raises(SourceDataError, match=says) as caught:
        convert(open_source(tree), str(tmp_path / "store"), workers=1)
    assert str(path.parent) in str(caught.value)


def test_order_and_width_of_a_series_do_not_matter(tree: Path, tmp_path: Path) -> None:
    path = part(tree, "data.npy")
    data = np.load(path)
    np.save(path, np.asfortranarray(data))
    convert(open_source(tree), str(tmp_path / "store"), workers=1)
    assert verify(open_source(tree), str(tmp_path / "store")).passed
    group = opened(tmp_path / "store", "D032-2019")[SERIES]
    np.testing.assert_array_equal(group[SERIES], data)


def test_changed_pixels_and_rot_are_found(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    convert(open_source(tree), str(root), workers=1)
    path = part(tree, "data.npy")
    data = np.load(path)
    data[3, 2, -1, 0] += 1
    np.save(path, data)
    what = [f.what for f in verify(open_source(tree), str(root)).findings]
    assert any("1 of" in w and f"time 3, band 2, y {data.shape[2] - 1}, x 0" in w for w in what), (
        what
    )
    assert any("SHA-256 differs" in w for w in what)
    data[3, 2, -1, 0] -= 1
    np.save(path, data)
    assert verify(open_source(tree), str(root)).passed
    flip_bit(next(root.glob(f"*.zarr/*/{SERIES}/cloud/c/0/0/0")), 10)
    assert not verify(open_source(tree), str(root)).passed


def test_a_series_that_rots_after_the_header_is_skipped_on_demand(
    tree: Path, tmp_path: Path
) -> None:
    path = part(tree, "masks.npy")
    source = open_source(tree)
    rois = source.rois(source.domains()[0], source.modalities)
    assert set(rois[0].areas) == {SERIES, "flair_sentinel2_msk_sc"}
    before = path.read_bytes()
    path.write_bytes(before[:-1])
    report = convert(open_source(tree), str(tmp_path / "store"), skip=True, workers=1)
    assert [(one.where, one.modality) for one in report.skipped] == [
        (rois[0].where, "flair_sentinel2_msk_sc")
    ]
    assert verify(open_source(tree), str(tmp_path / "store")).passed
    assert convert(open_source(tree), str(tmp_path / "store"), skip=True, workers=1).kept == 1
    path.write_bytes(before)
    assert convert(open_source(tree), str(tmp_path / "store"), workers=1).rois == 1
    assert verify(open_source(tree), str(tmp_path / "store")).passed


def test_what_is_streamed_of_a_super_area_is_what_igns_code_cuts(
    flair2_tree: Path, flair2_store: Path
) -> None:
    middles = json.loads((flair2_tree / CENTROIDS_FILE).read_text())
    masks = "flair_sentinel2_msk_sc"
    plan = PatchPlan.build(
        str(flair2_store), modalities=["flair_aerial", SERIES, masks], labels=["flair"]
    )
    assert len(plan) == 18
    tables = [pd.read_parquet(path) for path in flair2_store.glob("*.patches.parquet")]
    images = pd.concat(tables).set_index(["roi", "left", "top"])["source_image"].to_dict()
    seen = 0
    for batch in stream(plan, batch_size=4, threads=2):
        for i, window in enumerate(batch.windows):
            where = (window.roi, window.extent.left, window.extent.top)
            row, column = middles[f"{images[where]}.tif"]
            square = (..., slice(row - 20, row + 20), slice(column - 20, column + 20))
            for key, name in ((SERIES, "data.npy"), (masks, "masks.npy")):
                whole = np.load(part(flair2_tree, name, window.domain.replace("-", "_")))
                found = batch.inputs[key][i, : batch.lengths[key][i]].numpy()
                np.testing.assert_array_equal(found, whole[square])
                assert batch.present[key][i]
            seen += 1
    assert seen == 18


def test_a_window_too_near_the_edge_of_a_super_area_lacks_it(flair2_store: Path) -> None:
    plan = PatchPlan.build(str(flair2_store), modalities=["flair_aerial", SERIES], labels=[])
    roi = plan.rois[0]
    grid = grid_of(cast("dict[str, Any]", open_roi(roi.store, roi.roi)[SERIES].attrs), SERIES)
    corner = Extent(grid.left, grid.top - 102.4, grid.left + 102.4, grid.top)
    assert min(grid.around(corner, 40).row, grid.around(corner, 40).column) < 0
    near = replace(
        plan, top=np.array([grid.top]), left=np.array([grid.left]), roi_index=np.array([0])
    )
    (batch,) = stream(near, batch_size=1)
    assert not batch.present[SERIES][0]
    assert batch.lengths[SERIES][0] == 0


def test_a_model_trains_on_images_and_masks(flair2_store: Path, tmp_path: Path) -> None:
    data = {"modalities": ["flair_aerial"], "labels": ["flair"]}
    result = train(make_config(flair2_store, tmp_path, data=data))
    assert [c.code for c in result.scores["flair"].classes] == list(range(1, 13))
    with pytest.raises(ConfigError, match="not an input modality"):
        make_config(flair2_store, tmp_path, data={**data, "modalities": [SERIES]})


def test_the_sample_is_the_same_each_time_and_as_flair1(
    flair1_tree: Path, flair2_tree: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    write_sample(again, domains=3, rois=1, rows=2, columns=3, seed=1, layout="flair2", workers=1)
    assert snapshot(again) == snapshot(flair2_tree)
    folder = "flair_aerial_train/D032_2019"
    assert snapshot(flair1_tree / folder) == snapshot(flair2_tree / folder)
    with rasterio.open(next(flair2_tree.rglob("IMG_000001.tif"))) as source:
        assert source.count == 5
