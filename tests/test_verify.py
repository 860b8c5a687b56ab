"""Every difference between raw files and store is found and named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from converters.checksums import VerificationReport
from converters.convert import convert
from converters.flairhub_raw import RawFile
from converters.flairhub_tree import FlairHubTree
from converters.verify import verify
from flairhub.store.conventions import GRID_MAPPING
from tests.trees import copy_domain, first_tiff, flip_bit, read, rewrite


@pytest.fixture(scope="module")
def pristine(raw_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One domain, raw and converted."""
    folder = tmp_path_factory.mktemp("pristine")
    tree = copy_domain(raw_tree, folder / "raw")
    convert(FlairHubTree(tree), str(folder / "store"), workers=1)
    return tree, folder / "store"


@pytest.fixture
def pair(pristine: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A copy to damage."""
    raw, store = pristine
    shutil.copytree(raw, tmp_path / "raw")
    shutil.copytree(store, tmp_path / "store")
    return tmp_path / "raw", tmp_path / "store"


def _verify(pair: tuple[Path, Path]) -> VerificationReport:
    return verify(FlairHubTree(pair[0]), str(pair[1]))


def _shard(store: Path, variable: str) -> Path:
    return sorted(store.glob(f"*.zarr/*/{variable}/c/**/*"))[-1]


def _edit(path: Path, **attributes: object) -> None:
    document = json.loads(path.read_text())
    document["attributes"] |= attributes
    path.write_text(json.dumps(document))


def test_a_faithful_store_passes(pristine: tuple[Path, Path]) -> None:
    report = _verify(pristine)
    assert report.passed, report.findings
    tiffs = list(pristine[0].rglob("*.tif"))
    assert report.files == len(tiffs)
    assert report.pixels == sum(read(path).size for path in tiffs)
    assert report.dates > 0


@pytest.mark.parametrize(
    "variable",
    [
        "aerial_rgbi/aerial_rgbi",
        "dem_elev/dem_elev",
        "sentinel2_ts/cloud",
        "all_label_lpis/all_label_lpis",
        "sentinel1_asc_ts/time",
    ],
)
@pytest.mark.parametrize("position", [10, -30])
def test_one_flipped_bit_of_the_store_is_named(
    pair: tuple[Path, Path], variable: str, position: int
) -> None:
    shard = _shard(pair[1], variable)
    flip_bit(shard, position)
    findings = _verify(pair).findings
    name = str(shard.relative_to(pair[1]))
    assert any(f.where == name and "checksum" in f.what for f in findings), findings


def test_one_flipped_bit_of_a_pixel_is_named(pair: tuple[Path, Path]) -> None:
    path = first_tiff(pair[0], "DEM_ELEV")
    pixels = read(path)
    pixels.view(np.uint32)[1, 17, 23] ^= 1
    rewrite(path, pixels)
    findings = _verify(pair).findings
    assert any(
        str(path) in f.where and "1 of" in f.what and "band 1, y 17, x 23" in f.what
        for f in findings
    ), findings


def test_a_deleted_shard_is_named(pair: tuple[Path, Path]) -> None:
    shard = _shard(pair[1], "spot_rgbi/spot_rgbi")
    shard.unlink()
    findings = _verify(pair).findings
    name = str(shard.relative_to(pair[1]))
    assert any(f.where == name and "missing" in f.what for f in findings)
    assert any("pixels differ" in f.what and "spot_rgbi" in f.where for f in findings)


def test_a_stray_object_is_named(pair: tuple[Path, Path]) -> None:
    shard = _shard(pair[1], "spot_rgbi/spot_rgbi")
    shutil.copy(shard, shard.with_name("9"))
    assert any("not in the list" in f.what for f in _verify(pair).findings)


@pytest.mark.parametrize(
    ("group", "attribute", "value", "word"),
    [
        ("dem_elev", "spatial:transform", [0.2, 0, 0.0, 0, -0.2, 0.0], "GeoZarr"),
        ("dem_elev", "proj:code", "EPSG:3857", "GeoZarr"),
        ("dem_elev", "flairhub:present", ["000", "111"], "flairhub:present"),
        (f"dem_elev/{GRID_MAPPING}", "GeoTransform", "0 0.2 0 0 0 -0.2", "GeoTransform"),
        ("sentinel2_ts", "flairhub:dates", ["2001-01-01"], "flairhub:dates"),
    ],
)
def test_a_changed_attribute_is_named(
    pair: tuple[Path, Path], group: str, attribute: str, value: object, word: str
) -> None:
    place = sorted(pair[1].glob(f"*.zarr/*/{group}/zarr.json"))[0]
    _edit(place, **{attribute: value})
    roi = place.relative_to(pair[1]).parts[1]
    consolidated = place.parents[len(Path(group).parts)] / "zarr.json"
    document = json.loads(consolidated.read_text())
    document["consolidated_metadata"]["metadata"][group]["attributes"][attribute] = value
    consolidated.write_text(json.dumps(document))
    findings = _verify(pair).findings
    assert any(roi in f.where and word in f.what for f in findings), findings


def test_a_changed_table_is_named(pair: tuple[Path, Path]) -> None:
    path = next(pair[1].glob("*.patches.parquet"))
    frame = pd.read_parquet(path)
    frame.loc[1, "split_1"] = "test" if frame.loc[1, "split_1"] != "test" else "train"
    frame.to_parquet(path)
    findings = _verify(pair).findings
    assert [f for f in findings if f.where == frame.loc[1, "patch_id"] and "split_1" in f.what]


def test_another_source_file_is_named(pair: tuple[Path, Path]) -> None:
    path = first_tiff(pair[0], "AERIAL_LABEL-COSIA")
    rewrite(path, compress="deflate")
    findings = _verify(pair).findings
    assert [f.where for f in findings] == [str(path)]
    assert "SHA-256" in findings[0].what


def test_a_new_patch_in_the_source_is_named(pair: tuple[Path, Path]) -> None:
    for roi in pair[0].glob("*_AERIAL_RGBI/*"):
        path = sorted(roi.glob("*.tif"))[-1]
        file = RawFile.parse(path.name)
        new = RawFile(file.folder, file.roi, file.row, file.column + 1)
        shutil.copy(path, roi / str(new))
    assert any("patches table" in f.what for f in _verify(pair).findings)


def test_a_domain_that_is_not_there_is_named(pair: tuple[Path, Path]) -> None:
    for table in pair[1].glob("*.rois.parquet"):
        table.unlink()
    report = _verify(pair)
    assert not report.passed
    assert "does not exist" in report.findings[0].what
