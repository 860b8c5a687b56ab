"""What users get wrong is refused early, with the file named, and no store looks complete."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest

from converters.convert import convert
from converters.flairhub_tree import FlairHubTree
from converters.selection import Selection
from flairhub.cli import run
from flairhub.errors import NotInStoreError, SourceDataError
from flairhub.store.access import resolve
from flairhub.store.reading import open_domain, open_roi
from flairhub.store.tables import list_domains
from tests.trees import copy_domain, first_tiff, read, rewrite

Damage = Callable[[Path], Path]


@pytest.fixture
def tree(raw_tree: Path, tmp_path: Path) -> Path:
    """One domain's raw files, to damage."""
    return copy_domain(raw_tree, tmp_path / "raw")


def _truncate(tree: Path) -> Path:
    path = first_tiff(tree, "AERIAL_RGBI")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _web_page(tree: Path) -> Path:
    path = first_tiff(tree, "DEM_ELEV")
    path.write_text("<html>404</html>")
    return path


def _profile(modality: str, **profile: Any) -> Damage:  # noqa: ANN401 - rasterio's own
    def damage(tree: Path) -> Path:
        path = first_tiff(tree, modality)
        rewrite(path, **profile)
        return path

    return damage


def _pixels(modality: str, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Damage:
    def damage(tree: Path) -> Path:
        path = first_tiff(tree, modality)
        rewrite(path, change(read(path)))
        return path

    return damage


def _shifted(tree: Path) -> Path:
    path = first_tiff(tree, "SPOT_RGBI")
    import rasterio

    with rasterio.open(path) as source:
        moved = source.transform @ rasterio.Affine.translation(1, 0)
    rewrite(path, transform=moved)
    return path


def _swapped_names(tree: Path) -> Path:
    """Exchange two files of a patch in every folder: numbers now contradict georeferences."""
    for folder in sorted(tree.glob("D*")):
        roi = sorted(folder.iterdir())[0]
        one, other = (next(roi.glob(f"*_{place}.tif")) for place in ("1-1", "1-2"))
        spare = roi / "spare"
        one.rename(spare)
        other.rename(one)
        spare.rename(other)
    return Path("1-1")


DAMAGES: dict[str, tuple[Damage, str]] = {
    "truncated": (_truncate, "cut short"),
    "not a tiff": (_web_page, "cannot be read as GeoTIFF"),
    "crs": (_profile("SPOT_RGBI", crs="EPSG:32631"), "EPSG:2154"),
    "no crs": (_profile("SPOT_RGBI", crs=None), "missing"),
    "dtype": (_profile("DEM_ELEV", dtype="float64"), "float32"),
    "shape": (_pixels("AERIAL-RLT_PAN", lambda a: a[:, :255]), "255x256"),
    "bands": (_pixels("AERIAL_RGBI", lambda a: a[:3]), "number of bands is 3"),
    "bands of a date": (_pixels("SENTINEL2_TS", lambda a: a[:-1]), "10 a date"),
    "fewer images than dates": (_pixels("SENTINEL1-ASC_TS", lambda a: a[:-2]), "dates"),
    "class out of range": (_pixels("AERIAL_LABEL-COSIA", lambda a: a * 0 + 77), "class 77"),
    "shifted": (_shifted, "begins at"),
    "numbers against georeferences": (_swapped_names, "disagree"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_raster_is_refused(tree: Path, tmp_path: Path, name: str) -> None:
    damage, word = DAMAGES[name]
    path = damage(tree)
    root = tmp_path / "store"
    with pytest.raises(SourceDataError, match=word) as caught:
        convert(FlairHubTree(tree), str(root), workers=1)
    assert path.name in str(caught.value)
    _looks_unfinished(root, caught.value)


def _looks_unfinished(root: Path, error: SourceDataError) -> None:
    place = resolve(str(root), read_only=False)
    assert list_domains(place) == [], error
    for store in root.glob("*.zarr"):
        with pytest.raises(NotInStoreError, match="has not finished"):
            open_domain(str(store))
        for roi in (p for p in store.iterdir() if p.is_dir()):
            if not (roi / "zarr.json").exists():
                with pytest.raises(NotInStoreError):
                    open_roi(str(store), roi.name)


def test_after_the_mend_the_same_command_finishes(tree: Path, tmp_path: Path) -> None:
    path = first_tiff(tree, "AERIAL_RGBI")
    data = path.read_bytes()
    path.write_bytes(data[:1000])
    root = tmp_path / "store"
    assert run(["convert", str(tree), str(root), "--workers", "1"]) == 1
    path.write_bytes(data)
    assert run(["convert", str(tree), str(root), "--workers", "1"]) == 0
    assert run(["verify", str(tree), str(root)]) == 0


def test_failure_of_one_roi_keeps_the_finished_ones(tree: Path, tmp_path: Path) -> None:
    rois = sorted(path.name for path in next(tree.glob("*_AERIAL_RGBI")).iterdir())
    path = sorted(tree.glob(f"*_DEM_ELEV/{rois[-1]}/*.tif"))[0]
    data = path.read_bytes()
    path.write_bytes(data[:1000])
    root = tmp_path / "store"
    with pytest.raises(SourceDataError):
        convert(FlairHubTree(tree), str(root), workers=1)
    path.write_bytes(data)
    report = convert(FlairHubTree(tree), str(root), workers=1)
    assert (report.rois, report.kept) == (1, len(rois) - 1)


def _edit_dates(tree: Path, change: Callable[[dict[str, str]], object]) -> Path:
    path = tree / "GLOBAL_ALL_MTD" / "GLOBAL_SENTINEL2_MTD_DATES.gpkg"
    with sqlite3.connect(path) as database:
        (table,) = database.execute("select table_name from gpkg_contents").fetchone()
        rows = database.execute(f'select fid, acquisition_dates from "{table}"').fetchall()
        for trigger in database.execute("select name from sqlite_master where type='trigger'"):
            database.execute(f'drop trigger "{trigger[0]}"')
        for fid, text in rows:
            found = change(json.loads(text))
            new = found if isinstance(found, str) else json.dumps(found)
            sql = f'update "{table}" set acquisition_dates = ? where fid = ?'
            database.execute(sql, (new, fid))
    return path


def _without_last(dates: dict[str, str]) -> dict[str, str]:
    dates.pop(str(len(dates)))
    return dates


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (_without_last, "every image needs one date"),
        (lambda dates: {**dates, "1": "20191345"}, "20191345"),
        (lambda dates: {str(int(k) + 1): v for k, v in dates.items()}, "expected 1 to T"),
        (lambda dates: "[not json", "numbered dates"),
        (lambda dates: {**dates, "1": "<NA>"}, "lacks a date"),
    ],
)
def test_bad_dates_are_refused(
    tree: Path, tmp_path: Path, change: Callable[[dict[str, str]], object], word: str
) -> None:
    path = _edit_dates(tree, change)
    with pytest.raises(SourceDataError, match=word) as caught:
        convert(FlairHubTree(tree), str(tmp_path / "store"), workers=1)
    assert path.name in str(caught.value) or "SENTINEL2" in str(caught.value)


def test_missing_dates_are_refused(tree: Path, tmp_path: Path) -> None:
    path = tree / "GLOBAL_ALL_MTD" / "GLOBAL_SENTINEL2_MTD_DATES.gpkg"
    path.unlink()
    with pytest.raises(SourceDataError, match=path.name):
        convert(FlairHubTree(tree), str(tmp_path / "store"))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_either_delimiter_gives_the_same_splits(tree: Path, tmp_path: Path, delimiter: str) -> None:
    listed = {}
    for path in sorted(tree.rglob("*.csv")):
        text = path.read_text().replace(";", ",").replace(",", delimiter)
        path.write_text(text)
        listed[path.name] = len(text.splitlines()) - 1
    source = FlairHubTree(tree)
    roi = source.rois(source.domains()[0], ())
    assert roi == []
    convert(source, str(tmp_path / "store"), Selection(modalities=["spot_rgbi"]), workers=1)
    domain = open_domain(next((tmp_path / "store").glob("*.zarr")))
    assert domain.patches["split"].notna().all()
    assert sum(listed.values()) >= len(domain.patches)


def test_a_csv_without_patch_ids_is_refused(tree: Path, tmp_path: Path) -> None:
    path = sorted(p for p in tree.rglob("*.csv") if "TRAIN" in p.name.upper())[0]
    path.write_text("id|file\n1|a.tif\n")
    with pytest.raises(SourceDataError, match="patch_id") as caught:
        convert(FlairHubTree(tree), str(tmp_path / "store"))
    assert str(path) in str(caught.value)


def test_a_patch_in_two_splits_is_refused(tree: Path, tmp_path: Path) -> None:
    files = sorted(tree.rglob("*.csv"))
    train = next(p for p in files if "TRAIN" in p.name.upper())
    other = next(p for p in files if "TEST" in p.name.upper() and p.parent == train.parent)
    shutil.copy(train, other)
    text = train.read_text().splitlines()
    if len(text) < 2:
        pytest.fail("the sample's train CSV lists no patch")
    with pytest.raises(SourceDataError, match=r"is train in|is test in"):
        convert(FlairHubTree(tree), str(tmp_path / "store"))


def test_listed_patches_without_files_are_noted(tree: Path, tmp_path: Path) -> None:
    gone = first_tiff(tree, "AERIAL_RGBI").name.split("_")[-1]
    roi = first_tiff(tree, "AERIAL_RGBI").parent.name
    for path in tree.glob(f"D*/{roi}/*_{gone}"):
        path.unlink()
    report = convert(FlairHubTree(tree), str(tmp_path / "store"), workers=1)
    assert any("listed in the CSVs" in note for note in report.notes), report.notes


def test_nothing_to_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run(["convert", str(empty), str(tmp_path / "store")]) == 1
    assert "has no layout that is known. FLAIR-HUB has" in capsys.readouterr().err
    assert run(["convert", str(tmp_path / "nowhere"), str(tmp_path / "store")]) == 1
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_an_unknown_domain(
    raw_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["convert", str(raw_tree), str(tmp_path / "store"), "--domains", "D999-2020"])
    assert code == 1
    assert "D999-2020" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_a_file_in_the_wrong_folder_is_refused(tree: Path, tmp_path: Path) -> None:
    path = first_tiff(tree, "AERIAL_RGBI")
    other = sorted(path.parent.parent.iterdir())[-1]
    path.rename(other / path.name)
    with pytest.raises(SourceDataError, match="wrong folder") as caught:
        convert(FlairHubTree(tree), str(tmp_path / "store"))
    assert path.name in str(caught.value)
