"""FLAIR#1 and FLAIR#2 in the zips of Hugging Face."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS

from converters.convert import convert
from converters.flair_huggingface import FlairHuggingFaceTree
from converters.flair_raw import FlairFolder
from converters.open import open_source
from converters.verify import verify
from flairhub.errors import SourceDataError
from tests.trees import problem, read, rewrite, snapshot

KINDS = {"aerial": "aerial", "labels": "labels", "sen": "sentinel"}


def repack(flair2_tree: Path, target: Path, zipped: bool = True) -> Path:
    """Put FLAIR#2 in order as Hugging Face has it."""
    for folder in [path for path in flair2_tree.iterdir() if path.is_dir()]:
        parsed = FlairFolder.parse(folder.name)
        assert parsed is not None
        split = "flair#2-test" if parsed.part == "test" else "train-val"
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            year, zone, *_, name = path.relative_to(folder).parts
            place = target / "data" / split / year / KINDS[parsed.kind] / zone / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    (target / "aux-data").mkdir()
    for path in flair2_tree.glob("*.json"):
        shutil.copy(path, target / "aux-data")
    (target / "aux-data" / "load_data.py").write_text("# code that nobody runs\n")
    if zipped:
        for domain in sorted((target / "data").glob("*/*")):
            with zipfile.ZipFile(f"{domain}.zip", "w") as out:
                for path in sorted(p for p in domain.rglob("*") if p.is_file()):
                    out.write(path, path.relative_to(domain.parent))
            shutil.rmtree(domain)
    return target


@pytest.fixture
def tree(flair2_tree: Path, tmp_path: Path) -> Path:
    return repack(flair2_tree, tmp_path / "raw", zipped=False)


def test_zips_of_domains_give_the_store_of_the_first_layout(
    flair2_tree: Path, flair2_store: Path, tmp_path: Path
) -> None:
    tree = repack(flair2_tree, tmp_path / "raw")
    source = open_source(tree)
    assert isinstance(source, FlairHuggingFaceTree)
    root = tmp_path / "store"
    convert(source, str(root), workers=1)
    assert verify(open_source(tree), str(root)).passed
    expected, found = snapshot(flair2_store), snapshot(root)
    pixels = [key for key in expected if "/c/" in key]
    assert len(pixels) == 42
    assert {key: found[key] for key in pixels} == {key: expected[key] for key in pixels}
    for name in ("D032-2019", "D084-2021", "D004-2021"):
        frames = [gpd.read_parquet(r / f"{name}.patches.parquet") for r in (flair2_store, root)]
        assert frames[0].equals(frames[1])


def test_unpacked_folders_and_the_data_folder_alone_are_read(tree: Path, tmp_path: Path) -> None:
    assert len(open_source(tree).domains()) == 3
    shutil.move(tree / "aux-data" / "flair_aerial_metadata.json", tree / "data")
    shutil.move(tree / "aux-data" / "flair-2_centroids_sp_to_patch.json", tree / "data")
    convert(open_source(tree / "data"), str(tmp_path / "store"), workers=1)
    assert verify(open_source(tree / "data"), str(tmp_path / "store")).passed


def test_what_does_not_belong_is_named(tree: Path) -> None:
    image = next(tree.rglob("IMG_*.tif"))
    other = image.rename(image.with_name("IMAGE_1.tif"))
    assert "IMAGE_1.tif is no raster of FLAIR#1 or FLAIR#2; expected a path like" in problem(tree)
    other.rename(image)
    series = next(tree.rglob("*_data.npy"))
    series.rename(series.with_name(series.name.replace("D0", "D9")))
    assert "is no series of FLAIR#2; expected a name like SEN2_sp_D" in problem(tree)
    (tree / "data" / "train-val" / "notes").mkdir()
    with pytest.raises(SourceDataError, match="train-val/notes is no domain"):
        open_source(tree)


def test_a_zone_in_two_splits_is_refused(tree: Path) -> None:
    domain = next((tree / "data" / "train-val").iterdir())
    shutil.copytree(domain, tree / "data" / "flair#1-test" / domain.name)
    assert f"lies in train-val/{domain.name} and in flair#1-test/{domain.name}" in problem(tree)


def test_masks_that_name_their_crs_without_its_code_are_read(tree: Path, tmp_path: Path) -> None:
    masks = sorted(tree.rglob("MSK_*.tif"))
    axes = 'UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]'
    for path in masks:
        rewrite(path, crs=CRS.from_wkt(f'LOCAL_CS["RGF93 / Lambert-93",{axes}]'))
        with rasterio.open(path) as source:
            assert source.crs.to_epsg() is None
    convert(open_source(tree), str(tmp_path / "store"), workers=1)
    report = verify(open_source(tree), str(tmp_path / "store"))
    assert report.passed, report.findings
    with rasterio.open(masks[0]) as source:
        assert np.array_equal(source.read(), read(masks[0]))
    rewrite(masks[0], crs=CRS.from_wkt(f'LOCAL_CS["a site plan",{axes}]'))
    assert "site plan" in problem(tree)
