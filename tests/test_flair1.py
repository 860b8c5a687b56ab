"""FLAIR#1 from its own layout to a store and back."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine

from converters.convert import convert
from converters.flair1 import Flair1Tree, _letters
from converters.flair_raw import FlairFolder
from converters.flairhub_tree import FlairHubTree
from converters.miniature import write_sample
from converters.open import open_source
from converters.selection import Selection
from converters.verify import verify
from flairhub import open_roi
from flairhub.cli import run
from flairhub.errors import ConfigError, ConversionError, SourceDataError, UnknownNameError
from flairhub.ids import RoiId
from flairhub.nomenclatures import FLAIR_TO_COSIA, NOMENCLATURES
from flairhub.store.summary import summarise
from tests.trees import copy_flair_domain, flip_bit, problem, read, rewrite, snapshot

METADATA = "flair-1_metadata_aerial.json"


@pytest.fixture
def tree(flair1_tree: Path, tmp_path: Path) -> Path:
    return copy_flair_domain(flair1_tree, tmp_path / "raw")


def images(tree: Path) -> list[Path]:
    return sorted(tree.glob("flair_aerial_train/*/*/img/*.tif"))


def mask_of(image: Path) -> Path:
    path = str(image).replace("flair_aerial_", "flair_labels_").replace("/img/IMG", "/msk/MSK")
    return Path(path)


def shift(path: Path, east: float, north: float) -> None:
    with rasterio.open(path) as source:
        moved = Affine.translation(east, north) * source.transform
    rewrite(path, transform=moved)


def change_metadata(tree: Path, image: str, **told: Any) -> None:  # noqa: ANN401
    table = json.loads((tree / METADATA).read_text())
    table[image] |= told
    (tree / METADATA).write_text(json.dumps(table))


def test_conversion_is_proved(flair1_tree: Path, flair1_store: Path) -> None:
    report = verify(open_source(flair1_tree), str(flair1_store))
    assert report.passed, report.findings
    assert report.files == len(list(flair1_tree.rglob("*.tif")))
    assert report.pixels == report.patches * 6 * 512 * 512


def test_each_image_comes_back_where_it_lies(flair1_tree: Path, flair1_store: Path) -> None:
    patches = gpd.read_parquet(flair1_store / "D032-2019.patches.parquet")
    assert len(patches) == 6
    tree = xr.open_datatree(flair1_store / "D032-2019.zarr" / patches.roi[0], engine="zarr")
    aerial, mask = tree["flair_aerial"].to_dataset(), tree["flair_mask"].to_dataset()
    assert aerial.band.values.tolist() == ["red", "green", "blue", "nir", "elevation"]
    numbers = set()
    for row in patches.itertuples():
        path = next(flair1_tree.rglob(f"{row.source_image}.tif"))
        label = next(flair1_tree.rglob(f"{row.source_image.replace('IMG', 'MSK')}.tif"))
        with rasterio.open(path) as source:
            left, bottom, right, top = source.bounds
        assert (row.left, row.top) == (pytest.approx(left), pytest.approx(top))
        place = {"x": slice(left, right), "y": slice(top, bottom)}
        np.testing.assert_array_equal(aerial.sel(place).flair_aerial, read(path))
        np.testing.assert_array_equal(mask.sel(place).flair_mask, read(label)[0])
        numbers.add(int(row.source_image[4:]) - (row.row - 1) * 3 - row.column)
    assert len(numbers) > 1, "the sample's numbers give the places away"


def test_patches_have_their_date_and_camera(flair1_tree: Path, flair1_store: Path) -> None:
    table = json.loads((flair1_tree / METADATA).read_text())
    for path in flair1_store.glob("*.patches.parquet"):
        for row in gpd.read_parquet(path).itertuples():
            told = table[row.source_image]
            assert str(row.date_flair_aerial) == told["date"]
            assert (row.source_time, row.source_camera) == (told["time"], told["camera"])


def test_splits_follow_the_folders_and_the_baseline(flair1_store: Path) -> None:
    splits = {
        path.name.partition(".")[0]: set(gpd.read_parquet(path)["split"])
        for path in flair1_store.glob("*.patches.parquet")
    }
    assert splits == {"D032-2019": {"train"}, "D012-2019": {"test"}, "D004-2021": {"valid"}}


def test_tables_have_the_columns_of_the_family_and_count_its_classes(
    flair1_tree: Path, flair1_store: Path
) -> None:
    frame = gpd.read_parquet(flair1_store / "D032-2019.patches.parquet")
    assert frame["has_flair_aerial"].all()
    assert not frame["has_flair_sentinel2_ts"].any()
    assert not [c for c in frame if "cosia" in c or "spot" in c]
    for row in frame.itertuples():
        label = next(flair1_tree.rglob(f"{row.source_image.replace('IMG', 'MSK')}.tif"))
        found = np.bincount(read(label).ravel(), minlength=20)
        assert row.classes_flair.tolist() == found.tolist()
        assert found[0] == 0
    (summary,) = summarise(str(flair1_store / "D032-2019.zarr"))
    assert {v.modality for v in summary.variables} == {"flair_aerial", "flair_mask"}


def test_masks_are_those_of_flair_hub_in_other_numbers(flair1_tree: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "hub", domains=3, rois=1, rows=2, columns=3, seed=1)
    hub = sorted((tmp_path / "hub").glob("D032-2019_AERIAL_LABEL-COSIA/*/*.tif"))
    tree = Flair1Tree(flair1_tree)
    (roi,) = tree.rois(tree.domains()[2], tree.modalities)
    assert len(hub) == len(roi.files) == 6
    table = np.zeros(20, np.uint8)
    table[list(FLAIR_TO_COSIA)] = list(FLAIR_TO_COSIA.values())
    for patch, files in roi.files.items():
        (same,) = [p for p in hub if p.stem.endswith(f"_{patch.row}-{patch.column}")]
        mask = read(Path(files["flair_mask"].url))
        np.testing.assert_array_equal(table[mask], read(same))


def test_flairhub_opens_a_zone_and_says_whose_data_it_is(flair1_store: Path) -> None:
    name = gpd.read_parquet(flair1_store / "D012-2019.rois.parquet")["roi"][0]
    assert re.fullmatch(r"Z1-[A-Z]{2}", name)
    roi = open_roi(str(flair1_store / "D012-2019.zarr"), name)
    assert set(roi.children) == {"flair_aerial", "flair_mask"}
    assert roi.attrs["title"] == f"FLAIR#1 D012-2019 {name}"
    assert roi.attrs["attribution"].startswith("IGN FLAIR#1/#2")
    meanings = roi["flair_mask"]["flair_mask"].attrs["flag_meanings"].split()
    assert len(meanings) == len(NOMENCLATURES["flair"]) == 20
    assert meanings[1] == "building"


def test_zips_give_the_same_store(tree: Path, tmp_path: Path) -> None:
    convert(open_source(tree), str(tmp_path / "a"), workers=1)
    for folder in [path for path in tree.iterdir() if path.is_dir()]:
        with zipfile.ZipFile(f"{folder}.zip", "w", zipfile.ZIP_DEFLATED) as target:
            for path in sorted(folder.rglob("*")):
                target.write(path, path.relative_to(tree))
        shutil.rmtree(folder)
    with zipfile.ZipFile(tree / "flair-1_metadata_aerial.zip", "w") as target:
        target.write(tree / METADATA, METADATA)
    (tree / METADATA).unlink()
    convert(open_source(tree), str(tmp_path / "b"), workers=1)
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")


def test_a_zone_without_a_common_lattice_becomes_a_roi_a_lattice(
    tree: Path, tmp_path: Path
) -> None:
    paths = images(tree)
    for number, east in ((1, 12.0), (3, 12.0), (4, -0.2)):
        shift(paths[number], east, 0.0)
        shift(mask_of(paths[number]), east, 0.0)
    parts = dict(zip(paths, "ababca", strict=True))
    zone = paths[0].parts[-3].replace("_", "-")
    root = tmp_path / "store"
    report = convert(open_source(tree), str(root), workers=1)
    assert any(f"3 lattices, so that it becomes {zone}-a to {zone}-c" in n for n in report.notes)
    rois = gpd.read_parquet(root / "D032-2019.rois.parquet").set_index("roi")
    assert list(rois.index) == [f"{zone}-a", f"{zone}-b", f"{zone}-c"]
    assert rois["patches"].tolist() == [3, 2, 1]
    assert verify(open_source(tree), str(root)).passed
    patches = gpd.read_parquet(root / "D032-2019.patches.parquet").set_index("source_image")
    for path in paths:
        row = patches.loc[path.stem]
        with rasterio.open(path) as source:
            assert (row.left, row.top) == pytest.approx((source.bounds.left, source.bounds.top))
        assert row.roi == f"{zone}-{parts[path]}"
    assert convert(open_source(tree), str(root), workers=1).kept == 3


def test_patches_of_two_lattices_that_overlap_are_said(tree: Path, tmp_path: Path) -> None:
    first, *_ = paths = images(tree)
    with rasterio.open(first) as a, rasterio.open(paths[-1]) as b:
        move = a.bounds.left - b.bounds.left + 30.0, a.bounds.top - b.bounds.top
    for path in (paths[-1], mask_of(paths[-1])):
        shift(path, *move)
    report = convert(open_source(tree), str(tmp_path / "store"), workers=1)
    assert any(f"overlap, such as {first.stem} and IMG_" in note for note in report.notes)


def test_parts_of_a_zone_are_counted_in_letters() -> None:
    names = [_letters(number) for number in range(800)]
    assert names[:2] == ["a", "b"]
    assert names[25:28] == ["z", "aa", "ab"]
    assert len(set(names)) == 800
    for name in names[::100]:
        roi = RoiId.parse(f"Z12-UU-{name}")
        assert (roi.part, str(roi)) == (name, f"Z12-UU-{name}")


def test_two_images_at_one_place_are_refused(tree: Path) -> None:
    first, second = images(tree)[:2]
    with rasterio.open(first) as a, rasterio.open(second) as b:
        shift(second, a.bounds.left - b.bounds.left, a.bounds.top - b.bounds.top)
    assert f"{second} and {first} both begin at" in problem(tree)


def test_a_mask_elsewhere_than_its_image_is_refused(tree: Path) -> None:
    mask = sorted(tree.glob("flair_labels_train/*/*/msk/*.tif"))[2]
    shift(mask, 0.0, 102.4 * 7)
    assert f"{mask}: begins at" in problem(tree)


def test_a_damaged_image_is_named(tree: Path) -> None:
    path = images(tree)[1]
    path.write_bytes(path.read_bytes()[:200])
    assert f"{path} cannot be read as GeoTIFF" in problem(tree)


def test_other_sizes_and_classes_are_refused(tree: Path) -> None:
    path = sorted(tree.glob("flair_labels_train/*/*/msk/*.tif"))[0]
    pixels = read(path)
    pixels[0, 3, 4] = 20
    rewrite(path, pixels)
    assert "class 20 in band 1" in problem(tree)
    rewrite(path, pixels[:, :500])
    assert "500x512" in problem(tree)


def test_metadata_that_contradict_the_folders_are_refused(tree: Path) -> None:
    image = images(tree)[0].stem
    change_metadata(tree, image, zone="Z9_UU")
    assert f"{image} is of zone 'Z9_UU'" in problem(tree)
    change_metadata(tree, image, zone=images(tree)[0].parts[-3], date="2019-02-30")
    assert f"the date of {image} is '2019-02-30'" in problem(tree)
    (tree / METADATA).write_text("{")
    assert f"{METADATA} is not JSON" in problem(tree)
    (tree / METADATA).write_text("[]")
    assert "holds a list; expected an object" in problem(tree)


def test_images_without_metadata_have_no_date(tree: Path, tmp_path: Path) -> None:
    (tree / METADATA).unlink()
    report = convert(open_source(tree), str(tmp_path / "store"), workers=1)
    assert any(f"no {METADATA}" in note for note in report.notes)
    frame = gpd.read_parquet(tmp_path / "store" / "D032-2019.patches.parquet")
    assert frame["date_flair_aerial"].isna().all()
    assert verify(open_source(tree), str(tmp_path / "store")).passed


def test_an_image_without_a_mask_is_kept(tree: Path, tmp_path: Path) -> None:
    sorted(tree.glob("flair_labels_train/*/*/msk/*.tif"))[0].unlink()
    report = convert(open_source(tree), str(tmp_path / "store"), workers=1)
    assert any("1 of 6 patches lack flair_mask" in note for note in report.notes)
    assert verify(open_source(tree), str(tmp_path / "store")).passed


def test_a_file_that_breaks_the_grammar_is_named(tree: Path) -> None:
    path = images(tree)[0]
    path.rename(path.with_name("IMAGE_1.tif"))
    assert "IMAGE_1.tif is no raster of FLAIR#1 or FLAIR#2; expected a path like" in problem(tree)


def test_a_zone_in_two_folders_is_refused(tree: Path) -> None:
    shutil.copytree(tree / "flair_aerial_train", tree / "flair_1_aerial_test")
    assert "lies in flair_1_aerial_test and in flair_aerial_train" in problem(tree)


def test_rot_is_found(tree: Path, tmp_path: Path) -> None:
    convert(open_source(tree), str(tmp_path / "store"), workers=1)
    flip_bit(next((tmp_path / "store").glob("*.zarr/*/flair_mask/flair_mask/c/0/0")), 100)
    assert not verify(open_source(tree), str(tmp_path / "store")).passed


def test_families_do_not_mix(tree: Path, raw_tree: Path, tmp_path: Path) -> None:
    domain = FlairHubTree(raw_tree).domains()[0]
    for kind in ("aerial", "labels"):
        folder = tree / f"flair_{kind}_train"
        (folder / "D032_2019").rename(folder / str(domain).replace("-", "_"))
    (tree / METADATA).unlink()
    convert(open_source(tree), str(tmp_path / "s"), workers=1)
    with pytest.raises(ConversionError, match="needs a folder of its own"):
        convert(FlairHubTree(raw_tree), str(tmp_path / "s"), Selection([str(domain)]), workers=1)


def test_modalities_of_another_family_are_unknown(tree: Path) -> None:
    with pytest.raises(UnknownNameError, match="FLAIR#1 has no dem_elev"):
        Selection(modalities=["dem_elev"]).choose_modalities(open_source(tree))
    source = open_source(tree)
    (chosen,) = Selection(modalities=["flair_mask"]).choose_modalities(source)
    assert chosen.key == "flair_mask"


def test_layouts_are_told_by_their_folders(
    flair1_tree: Path, raw_tree: Path, tmp_path: Path
) -> None:
    assert isinstance(open_source(flair1_tree), Flair1Tree)
    assert isinstance(open_source(raw_tree), FlairHubTree)
    (tmp_path / "photos").mkdir()
    with pytest.raises(SourceDataError, match=r"FLAIR#1 like .* FLAIR#2 like .* Found photos"):
        open_source(tmp_path)
    (tmp_path / "flair_aerial_train").mkdir()
    (tmp_path / "D012-2019_AERIAL_RGBI").mkdir()
    with pytest.raises(SourceDataError, match="give each a folder"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("name", "sister"),
    [
        ("flair_aerial_train", "flair_labels_train"),
        ("flair_1_aerial_test", "flair_1_labels_test"),
        ("flair_2_toy_aerial_train", "flair_2_toy_labels_train"),
    ],
)
def test_folders_have_sisters(name: str, sister: str) -> None:
    folder = FlairFolder.parse(name)
    assert folder is not None
    assert str(folder) == name
    assert str(folder.sister("labels")) == sister


def test_the_sample_writes_each_layout(tmp_path: Path) -> None:
    small = ["--domains", "1", "--rois", "1", "--grid", "1x2", "--seed", "3"]
    for layout in ("flair-hub", "flair-hub-zips", "flair1"):
        for turn in ("a", "b"):
            place = tmp_path / layout / turn
            assert run(["sample", str(place), "--layout", layout, *small]) == 0
        assert snapshot(tmp_path / layout / "a") == snapshot(tmp_path / layout / "b")
    for layout in ("flair-hub", "flair-hub-zips"):
        convert(open_source(tmp_path / layout / "a"), str(tmp_path / f"{layout}-store"), workers=1)
    assert snapshot(tmp_path / "flair-hub-store") == snapshot(tmp_path / "flair-hub-zips-store")
    assert not list((tmp_path / "flair-hub-zips").rglob("*.tif"))


def test_a_sample_of_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'flair1'"):
        write_sample(tmp_path / "x", layout="flair_1")
    with pytest.raises(ConfigError, match="at most 6 domains"):
        write_sample(tmp_path / "x", layout="flair1", domains=7)
