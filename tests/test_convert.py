"""Raw files into stores: layout, attributes, tables, restarts, and who writes what when."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401 - registers .rio
import xarray as xr
import zarr
import zarr_cm

from converters.convert import convert
from converters.flairhub_raw import RawFile
from converters.flairhub_tree import FlairHubTree
from converters.job import RoiJob
from converters.roi import convert_roi
from converters.selection import Selection
from flairhub.errors import UnknownNameError
from flairhub.grids import RoiGrid
from flairhub.ids import PatchId
from flairhub.modalities import MODALITIES, dataset_modalities
from flairhub.store.access import Location, resolve
from flairhub.store.layout import array_specs, groups
from tests.stores import RecordingStore
from tests.trees import copy_domain, first_tiff, read, snapshot


def _domains(root: Path) -> list[str]:
    return sorted(path.name.removesuffix(".zarr") for path in root.glob("*.zarr"))


def test_every_raster_comes_back_at_its_place(raw_tree: Path, store_root: Path) -> None:
    domain = _domains(store_root)[0]
    patches = gpd.read_parquet(store_root / f"{domain}.patches.parquet")
    patch = PatchId.parse(patches["patch_id"][len(patches) // 2])
    tree = xr.open_datatree(store_root / f"{domain}.zarr" / str(patch.roi), engine="zarr")
    for modality in dataset_modalities():
        path = raw_tree / RawFile.of(patch, modality).path
        with rasterio.open(path) as source:
            raw, bounds = source.read(), source.bounds
        dataset = tree[modality.group].to_dataset()
        part = dataset.sel(x=slice(bounds.left, bounds.right), y=slice(bounds.top, bounds.bottom))
        if modality.key == "sentinel2_msk_sc":
            stored = np.stack([part.snow.values, part.cloud.values], axis=1)
        else:
            stored = part[modality.key].values
        assert stored.dtype == modality.numpy_dtype
        np.testing.assert_array_equal(stored.reshape(raw.shape), raw, err_msg=modality.key)


def test_series_have_their_dates(raw_tree: Path, store_root: Path) -> None:
    domain = _domains(store_root)[0]
    frame = gpd.read_file(raw_tree / "GLOBAL_ALL_MTD" / "GLOBAL_SENTINEL1-ASC_MTD_DATES.gpkg")
    lengths = set()
    for row in gpd.read_parquet(store_root / f"{domain}.rois.parquet").itertuples():
        text = frame[frame.patch_id.str.startswith(f"{domain}_{row.roi}_")]["acquisition_dates"]
        listed = json.loads(text.iloc[0])
        expected = [listed[str(i)] for i in range(1, len(listed) + 1)]
        tree = xr.open_datatree(store_root / f"{domain}.zarr" / row.roi, engine="zarr")
        times = tree["sentinel1_asc_ts"]["time"].dt.strftime("%Y%m%d").values.tolist()
        assert times == expected
        assert [d.strftime("%Y%m%d") for d in row.times_sentinel1_asc_ts] == expected
        lengths.add(len(times))
    assert lengths, "no ROI was compared"


def test_rioxarray_sees_the_place(raw_tree: Path, store_root: Path) -> None:
    tiff = first_tiff(raw_tree, "DEM_ELEV")
    file = RawFile.parse(tiff.name)
    place = store_root / f"{file.folder.domain}.zarr" / str(file.roi)
    tree = xr.open_datatree(place, engine="zarr", decode_coords="all")
    dataset = tree["dem_elev"].to_dataset()
    with rasterio.open(tiff) as source:  # the north-west patch, so the ROI's corner
        assert dataset.rio.crs == source.crs
        assert dataset.rio.transform() == source.transform


def test_geozarr_attributes_are_valid(store_root: Path) -> None:
    domain = _domains(store_root)[0]
    root = zarr.open_group(store_root / f"{domain}.zarr", mode="r")
    checked = Counter[str]()
    for _, roi in root.groups():
        zarr_cm.validate_all(dict(roi.attrs))
        for name, group in roi.groups():
            attributes = dict(group.attrs)
            zarr_cm.validate_all(attributes)
            assert attributes["proj:code"] == "EPSG:2154"
            for modality in groups()[name]:
                variables = ("snow", "cloud") if modality.kind == "mask" else (modality.key,)
                for variable in variables:
                    array = group[variable]
                    zarr_cm.validate_all(dict(array.attrs))
                    transform = array.attrs["spatial:transform"]
                    assert transform == attributes["spatial:transform"]
                    checked[variable] += 1
    assert len(checked) == 11


def test_labels_carry_their_classes(store_root: Path) -> None:
    domain = _domains(store_root)[0]
    roi: Any = next(zarr.open_group(store_root / f"{domain}.zarr", mode="r").groups())[1]
    attributes = dict(roi["aerial_label_cosia/aerial_label_cosia"].attrs)
    assert attributes["flag_values"] == list(range(19))
    assert len(attributes["flag_meanings"].split()) == 19
    assert attributes["flag_colors"].split()[0] == "#db0e9a"
    lpis = dict(roi["all_label_lpis/all_label_lpis"].attrs)
    assert [len(lpis[f"level_{n}_flag_values"]) for n in (1, 2, 3)] == [23, 31, 46]


def test_chunks_are_patches_and_shards_whole(store_root: Path) -> None:
    domain = _domains(store_root)[0]
    roi: Any = next(zarr.open_group(store_root / f"{domain}.zarr", mode="r").groups())[1]
    for modality in dataset_modalities():
        variable = "snow" if modality.kind == "mask" else modality.key
        array = roi[f"{modality.group}/{variable}"]
        assert array.chunks[-2:] == (modality.patch_px,) * 2
        assert array.shards == array.shape
        assert array.compressors[-1].to_dict()["name"] == "crc32c"


def test_tables_describe_every_patch(raw_tree: Path, store_root: Path) -> None:
    for domain in _domains(store_root):
        patches = gpd.read_parquet(store_root / f"{domain}.patches.parquet")
        assert patches.crs.to_epsg() == 2154
        assert len(patches) == len(list(raw_tree.glob(f"{domain}_AERIAL_RGBI/*/*.tif")))
        assert patches["split"].isin(["train", "valid", "test"]).all()
        assert patches["has_dem_elev"].all()
        for row in patches.itertuples():
            assert sum(row.classes_cosia) == 512 * 512
            labels = read(
                raw_tree
                / RawFile.of(PatchId.parse(row.patch_id), MODALITIES["aerial_label_cosia"]).path
            )
            np.testing.assert_array_equal(
                row.classes_cosia, np.bincount(labels.ravel(), minlength=19)
            )
            assert len(row.cloud_percent) > 0
            assert tuple(row.geometry.bounds) == (row.left, row.bottom, row.right, row.top)


def test_at_most_100_objects_a_roi() -> None:
    """Count data objects for the largest usual ROI from the layout, and add the metadata."""
    roi = RoiGrid(0.0, 1024.0, 10, 10)
    shards = metadata = coordinates = 0
    for name, members in groups(dataset_modalities()).items():
        metadata += 2  # the group and spatial_ref, whose value is the fill value
        first = members[0]
        axes = 2 + first.temporal + (not first.is_label or len(first.bands) > 1)
        metadata += axes
        coordinates += axes
        assert name == first.key
        for modality in members:
            for spec in array_specs(modality, roi, 91):
                metadata += 1
                rows, columns = (
                    -(-n // s) for n, s in zip(spec.shape[-2:], spec.shards[-2:], strict=True)
                )
                shards += rows * columns
    assert 1 + metadata + coordinates + shards == 100 - 1


def test_a_sample_roi_has_the_counted_objects(store_root: Path) -> None:
    domain = _domains(store_root)[0]
    for roi in (store_root / f"{domain}.zarr").iterdir():
        if roi.is_dir():
            assert len([p for p in roi.rglob("*") if p.is_file()]) == 99


def test_running_again_writes_nothing(raw_tree: Path, tmp_path: Path) -> None:
    tree = copy_domain(raw_tree, tmp_path / "raw")
    root = tmp_path / "store"
    first = convert(FlairHubTree(tree), str(root), workers=1)
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    second = convert(FlairHubTree(tree), str(root), workers=1)
    assert (first.rois, second.rois, second.kept) == (first.rois, 0, first.rois)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before


def test_workers_do_not_change_a_byte(raw_tree: Path, store_root: Path, tmp_path: Path) -> None:
    convert(FlairHubTree(raw_tree), str(tmp_path / "store"), workers=2)
    assert snapshot(tmp_path / "store") == snapshot(store_root)


def test_a_roi_appears_last_and_each_shard_is_written_once(raw_tree: Path) -> None:
    tree = FlairHubTree(raw_tree)
    source = tree.rois(tree.domains()[0], tuple(MODALITIES.values()))[0]
    store = RecordingStore()
    job = RoiJob(source, tree.name, Location(store), "fast", tuple(MODALITIES.values()))
    convert_roi(job)
    written = [key for action, key in store.log if action == "set"]
    assert written[-1] == f"{source.domain}.zarr/{source.roi}/zarr.json"
    assert written[-2].endswith(f"{source.roi}.json"), "the receipt is kept before the ROI appears"
    assert not [key for key, count in Counter(written).items() if count > 1]


def test_a_new_roi_leaves_the_others_alone(raw_tree: Path, tmp_path: Path) -> None:
    tree = copy_domain(raw_tree, tmp_path / "raw")
    source = FlairHubTree(tree)
    domain = source.domains()[0]
    rois = source.rois(domain, tuple(MODALITIES.values()))
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    moved = {p: hidden / p.parent.name for p in tree.glob(f"D*/{rois[1].roi}")}
    for path, away in moved.items():
        path.rename(away)
    root = tmp_path / "store"
    convert(FlairHubTree(tree), str(root), workers=1)
    before = {
        p: p.stat().st_mtime_ns for p in (root / f"{domain}.zarr" / str(rois[0].roi)).rglob("*")
    }
    for path, away in moved.items():
        away.rename(path)
    report = convert(FlairHubTree(tree), str(root), workers=1)
    assert (report.rois, report.kept) == (1, 1)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    convert(FlairHubTree(tree), str(tmp_path / "whole"), workers=1)
    assert snapshot(root) == snapshot(tmp_path / "whole")


def test_a_missing_modality_is_recorded_not_invented(raw_tree: Path, tmp_path: Path) -> None:
    tree = copy_domain(raw_tree, tmp_path / "raw")
    gone = first_tiff(tree, "SPOT_RGBI")
    patch = RawFile.parse(gone.name)
    gone.unlink()
    report = convert(FlairHubTree(tree), str(tmp_path / "store"), workers=1)
    assert any("spot_rgbi" in note for note in report.notes)
    domain = str(patch.folder.domain)
    patches = gpd.read_parquet(tmp_path / "store" / f"{domain}.patches.parquet")
    absent = patches[~patches["has_spot_rgbi"]]
    assert absent["patch_id"].tolist() == [str(patch.patch(patch.folder.domain))]  # type: ignore[arg-type]
    assert absent["sha256_spot_rgbi"].isna().all()
    roi: Any = zarr.open_group(tmp_path / "store" / f"{domain}.zarr" / str(patch.roi), mode="r")
    flags = roi["spot_rgbi"].attrs["flairhub:present"]
    assert flags[patch.row - 1][patch.column - 1] == "0"
    assert "".join(flags).count("0") == 1


def test_a_whole_missing_modality_has_no_group(raw_tree: Path, tmp_path: Path) -> None:
    chosen = ["aerial_rgbi", "sentinel2_msk_sc", "cosia"[:0] or "aerial_label_cosia"]
    convert(FlairHubTree(raw_tree), str(tmp_path), Selection(modalities=chosen), workers=1)
    domain = _domains(tmp_path)[0]
    roi = next(zarr.open_group(tmp_path / f"{domain}.zarr", mode="r").groups())[1]
    assert set(roi.group_keys()) == {"aerial_rgbi", "sentinel2_ts", "aerial_label_cosia"}


def test_profile_portable_uses_only_core_codecs(raw_tree: Path, tmp_path: Path) -> None:
    convert(FlairHubTree(raw_tree), str(tmp_path), profile="portable", workers=1)
    core = {"sharding_indexed", "bytes", "zstd", "crc32c", "vlen-utf8"}
    names = set()
    for path in tmp_path.rglob("zarr.json"):
        document = json.loads(path.read_text())
        for codec in document.get("codecs", []):
            names.add(codec["name"])
            names |= {inner["name"] for inner in codec.get("configuration", {}).get("codecs", [])}
    assert names == core


def test_unknown_names_are_refused_with_the_near_match(raw_tree: Path, tmp_path: Path) -> None:
    source = FlairHubTree(raw_tree)
    known = str(source.domains()[0])
    with pytest.raises(UnknownNameError, match=known):
        convert(source, str(tmp_path), Selection(domains=[known[:-1] + "0"]))
    with pytest.raises(UnknownNameError, match="dem_elev"):
        convert(source, str(tmp_path), Selection(modalities=["dem_elv"]))
    with pytest.raises(UnknownNameError, match="portable"):
        convert(source, str(tmp_path), profile="portabel")
    assert not list(tmp_path.iterdir())


def test_converts_into_any_store(raw_tree: Path, store_root: Path) -> None:
    source = FlairHubTree(raw_tree)
    domain = source.domains()[0]
    convert(source, "memory://convert/store", Selection([str(domain)]), workers=1)
    place = resolve("memory://convert/store")
    for table in ("patches", "rois", "shards"):
        name = f"{domain}.{table}.parquet"
        assert (place / name).read() == (store_root / name).read_bytes()
