"""With ``--on-error skip`` only what cannot be used is left out, and it is named: exit code 3."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from converters.checksums import verify_checksums
from converters.convert import ConversionReport, convert
from converters.files import RawTree
from converters.open import open_source
from converters.selection import Selection
from converters.verify import verify
from flairhub.cli import run
from flairhub.errors import SourceDataError
from flairhub.store.reading import open_domain
from tests.trees import copy_domain, copy_flair_domain, first_tiff, snapshot

CHOICE = Selection(modalities=["sentinel1_asc_ts", "spot_rgbi", "dem_elev"])


@pytest.fixture
def tree(domain_tree: Path, tmp_path: Path) -> Path:
    """One domain's raw files, to damage."""
    return copy_domain(domain_tree, tmp_path / "raw")


def _convert(tree: Path, choice: Selection | None = CHOICE, *, skip: bool) -> ConversionReport:
    return convert(open_source(tree), str(tree.parent / "store"), choice, skip=skip, workers=1)


def _zip_cut_short(tree: Path) -> str:
    folder = next(tree.glob("*_SPOT_RGBI"))
    shutil.rmtree(folder)
    path = folder.with_name(f"{folder.name}.zip")
    path.write_bytes(b"PK\x03\x04 and no more")
    return path.name


def _copy(tree: Path) -> str:
    path = first_tiff(tree, "SPOT_RGBI")
    shutil.copy(path, path.with_name("copy.tif"))
    return str(path.with_name("copy.tif"))


def _wrong_folder(tree: Path) -> str:
    path = first_tiff(tree, "SPOT_RGBI")
    other = sorted(path.parent.parent.iterdir())[-1]
    shutil.copy(path, other)
    return str(other / path.name)


def _csv_of_another_code(tree: Path) -> str:
    path = sorted(p for p in tree.rglob("*.csv") if "TRAIN" in p.name.upper())[0]
    path.write_bytes(path.read_bytes() + "é".encode("latin-1"))
    return str(path)


def _dates(change: Callable[[Path], object]) -> Callable[[Path], str]:
    def damage(tree: Path) -> str:
        path = next((tree / "GLOBAL_ALL_MTD").glob("*SENTINEL1-ASC*DATES.gpkg"))
        change(path)
        return path.name

    return damage


DAMAGES: dict[str, tuple[Callable[[Path], str], set[str], bool]] = {
    "a zip": (_zip_cut_short, {"spot_rgbi"}, True),
    "a copy": (_copy, {"spot_rgbi"}, False),
    "a raster of another ROI": (_wrong_folder, {"spot_rgbi"}, False),
    "a CSV": (_csv_of_another_code, {"split"}, False),
    "dates": (_dates(lambda p: p.write_bytes(b"nothing")), {"sentinel1_asc_ts"}, True),
    "no dates": (_dates(Path.unlink), {"sentinel1_asc_ts"}, True),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_one_bad_thing_costs_itself_alone(tree: Path, name: str) -> None:
    damage, left_out, lost = DAMAGES[name]
    path = damage(tree)
    with pytest.raises(SourceDataError, match=path.replace("/", ".")):
        _convert(tree, skip=False)
    assert not (tree.parent / "store").exists()
    report = _convert(tree, skip=True)
    assert report.rois == 2
    assert {one.modality for one in report.skipped} == left_out
    assert all(path in one.reason for one in report.skipped)
    domain = open_domain(next((tree.parent / "store").glob("*.zarr")))
    gone = left_out if lost else set()
    wanted = {"sentinel1_asc_ts", "spot_rgbi", "dem_elev"} - gone
    assert {m for names in domain.rois["modalities"] for m in names} == wanted
    found = verify(open_source(tree), str(tree.parent / "store"))
    assert found.findings == []


def test_what_is_mended_is_taken_in(tree: Path) -> None:
    path = next((tree / "GLOBAL_ALL_MTD").glob("*SENTINEL1-ASC*DATES.gpkg"))
    data = path.read_bytes()
    path.write_bytes(b"nothing")
    assert {one.modality for one in _convert(tree, skip=True).skipped} == {"sentinel1_asc_ts"}
    path.write_bytes(data)
    report = _convert(tree, skip=True)
    assert (report.rois, report.skipped) == (2, [])
    assert verify(open_source(tree), str(tree.parent / "store")).findings == []


def _told(tree: Path) -> list[list[str]]:
    (path,) = (tree.parent / "store").glob("*.zarr/zarr.json")
    return list(json.loads(path.read_bytes())["attributes"].get("flairhub:skipped", []))


def _times(tree: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (tree.parent / "store").rglob("*")}


def test_what_is_removed_is_told_no_more(tree: Path) -> None:
    _convert(tree, skip=False)
    before = snapshot(tree.parent / "store")
    stray = Path(_copy(tree))
    assert [one.modality for one in _convert(tree, skip=True).skipped] == ["spot_rgbi"]
    assert [one[1] for one in _told(tree)] == ["spot_rgbi"]
    assert verify(open_source(tree), str(tree.parent / "store")).findings == []
    assert verify_checksums(str(tree.parent / "store")).findings == []
    times = _times(tree)
    _convert(tree, skip=True)
    assert _times(tree) == times
    stray.unlink()
    assert _convert(tree, skip=True).skipped == []
    assert snapshot(tree.parent / "store") == before
    times = _times(tree)
    _convert(tree, skip=True)
    assert _times(tree) == times


def test_what_is_not_looked_at_is_told_as_before(tree: Path) -> None:
    bad = first_tiff(tree, "SPOT_RGBI")
    bad.write_bytes(b"nothing")
    stray = first_tiff(tree, "DEM_ELEV").with_name("copy.tif")
    stray.write_bytes(b"nothing")
    _convert(tree, skip=True)
    before = _told(tree)
    assert sorted(one[1] for one in before) == ["dem_elev", "spot_rgbi"]
    other = next(p.name for p in bad.parent.parent.iterdir() if p != bad.parent)
    _convert(tree, Selection(modalities=["spot_rgbi"], rois=[other]), skip=True)
    _convert(tree, Selection(modalities=["sentinel1_asc_ts"]), skip=True)
    _convert(tree, Selection(modalities=["aerial_rgbi"]), skip=True)  # writes
    assert _told(tree) == before
    stray.unlink()
    assert _convert(tree, Selection(modalities=["dem_elev"]), skip=True).rois == 0
    assert [one[1] for one in _told(tree)] == ["spot_rgbi"]


def test_a_stop_while_that_is_written_is_gone_on_from(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stray = Path(_copy(tree))
    _convert(tree, skip=True)
    stray.unlink()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("converters.convert.write_tables", stop)
    with pytest.raises(KeyboardInterrupt):
        _convert(tree, skip=True)
    monkeypatch.undo()
    assert verify_checksums(str(tree.parent / "store")).findings
    _convert(tree, skip=True)
    assert verify_checksums(str(tree.parent / "store")).findings == []


def test_verify_does_not_pass_what_it_cannot_read(tree: Path) -> None:
    _convert(tree, skip=False)
    name = _zip_cut_short(tree)
    findings = verify(open_source(tree), str(tree.parent / "store")).findings
    assert any(name in one.what for one in findings)


def test_what_macos_leaves_is_passed_over(tree: Path) -> None:
    before = RawTree(tree)
    names = {folder: before.files(folder).keys() for folder in before.names}
    path = first_tiff(tree, "SPOT_RGBI")
    path.with_name(f"._{path.name}").write_bytes(b"\0\x05\x16\7")
    (tree / "._FLAIR-HUB_TRAIN.csv").write_bytes(b"\0\x05\x16\7\xff")
    (tree / "._D012-2019_SPOT_RGBI.zip").write_bytes(b"\0\x05\x16\7")
    with zipfile.ZipFile(tree / "D012-2019_DEM_ELEV.zip", "w") as out:
        out.writestr(f"__MACOSX/D012-2019_DEM_ELEV/{path.parent.name}/._{path.name}", b"\0\x05")
    after = RawTree(tree)
    assert {folder: after.files(folder).keys() for folder in after.names} == names
    assert _convert(tree, skip=False).skipped == []


def test_a_domain_without_one_good_roi_does_not_stop_the_others(
    raw_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree, root = tmp_path / "raw", tmp_path / "store"
    shutil.copytree(raw_tree, tree)
    first, second = sorted(p.name.partition("_")[0] for p in tree.glob("*_DEM_ELEV"))
    for path in (tree / f"{first}_DEM_ELEV").rglob("*.tif"):
        path.write_bytes(b"nothing")
    command = ["convert", str(tree), str(root), "--modalities=dem_elev", "--workers=1"]
    assert run([*command, "--on-error=skip"]) == 3
    assert first in capsys.readouterr().err
    assert not (root / f"{first}.zarr").exists()
    assert len(open_domain(root / f"{second}.zarr")) == 2


@pytest.mark.parametrize("kind", ["metadata", "stray", "zip", "centroids"])
def test_of_the_other_layouts_too(flair2_tree: Path, tmp_path: Path, kind: str) -> None:
    tree = copy_flair_domain(flair2_tree, tmp_path / "raw")
    if kind == "zip":
        shutil.rmtree(tree / "flair_sen_train")
        path = tree / "flair_sen_train.zip"
    elif kind == "stray":
        path = next(tree.glob("flair_aerial_train/*/*/img")) / "copy.tif"
    else:
        path = next(tree.glob(f"*{kind}*.json"))
    path.write_bytes(b"nothing")
    with pytest.raises(SourceDataError, match=path.name):
        _convert(tree, None, skip=False)
    report = _convert(tree, None, skip=True)
    assert report.rois == 1
    assert all(path.name in one.reason for one in report.skipped)
    expected = {"metadata": "date", "stray": "flair_aerial"}.get(kind, "flair_sentinel2_ts")
    assert {one.modality for one in report.skipped} == {expected}
