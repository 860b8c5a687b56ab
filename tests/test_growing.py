"""A store that is converted into once more: what stays, what is made anew, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from converters import roi as roi_module
from converters.checksums import verify_checksums
from converters.convert import ConversionReport, convert
from converters.flairhub_tree import FlairHubTree
from converters.plan import plan
from converters.receipts import ASIDE, GROUP_SIGNATURE
from converters.selection import Selection
from flairhub.errors import SourceDataError
from flairhub.store.access import Location
from tests.trees import change_splits, first_tiff, read, rewrite, snapshot


def run(
    tree: Path, root: Path, modalities: Sequence[str] | None = None, *, skip: bool = False
) -> ConversionReport:
    chosen = Selection(modalities=None if modalities is None else list(modalities))
    return convert(FlairHubTree(tree), str(root), chosen, workers=1, skip=skip)


def chunks(found: dict[str, bytes]) -> dict[str, bytes]:
    return {key: data for key, data in found.items() if "/c/" in key}


def only(tree: Path, target: Path, *modalities: str) -> Path:
    """Copy the rasters of some modalities, without tables of splits and dates."""
    for name in modalities:
        for folder in tree.glob(f"*_{name}"):
            shutil.copytree(folder, target / folder.name)
    return target


def table(root: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(next(root.glob(f"*.{name}.parquet")))


@pytest.fixture
def tree(domain_tree: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(domain_tree, tmp_path / "raw"))


@pytest.fixture
def full(domain_store: dict[str, bytes], tmp_path: Path) -> Path:
    """Return a complete store that may be changed."""
    root = tmp_path / "full"
    for key, data in domain_store.items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(data)
    return root


def test_another_source_adds_what_it_has(
    tree: Path, domain_store: dict[str, bytes], tmp_path: Path
) -> None:
    root = tmp_path / "store"
    run(tree, root, ["aerial_rgbi"])
    before = {p: p.stat().st_mtime_ns for p in root.rglob("c/**/*") if p.is_file()}
    splits = table(root, "patches")["split"].tolist()
    assert set(splits) - {None}
    run(only(tree, tmp_path / "dem", "DEM_ELEV"), root)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    expected = chunks(domain_store)
    found = chunks(snapshot(root))
    assert {key.split("/")[2] for key in found} == {"aerial_rgbi", "dem_elev"}
    assert found == {key: expected[key] for key in found}
    assert table(root, "patches")["split"].tolist() == splits
    # the new pixels count for the splits that are known
    statistics = table(root, "statistics")
    by_modality = statistics.groupby("modality")["split"].agg(set)
    assert by_modality["dem_elev"] == by_modality["aerial_rgbi"] == set(splits)
    assert verify_checksums(str(root)).passed


@pytest.mark.parametrize("modality", ["aerial_rgbi", "sentinel2_ts"])
def test_a_choice_that_is_there_changes_nothing(
    tree: Path, full: Path, domain_store: dict[str, bytes], modality: str
) -> None:
    for folder in (p for p in tree.iterdir() if "csv" in p.name.lower()):
        shutil.rmtree(folder)
    report = run(tree, full, [modality])
    assert (report.rois, report.kept) == (0, 2)
    assert snapshot(full) == domain_store


def test_masks_are_added_beside_their_series(
    tree: Path, domain_store: dict[str, bytes], tmp_path: Path
) -> None:
    root = tmp_path / "store"
    run(tree, root, ["sentinel2_ts"])
    before = {p: p.stat().st_mtime_ns for p in root.rglob("c/**/*") if p.is_file()}
    assert not list(root.glob("*/*/sentinel2_ts/snow"))
    run(tree, root, ["sentinel2_msk_sc"])
    assert {p: p.stat().st_mtime_ns for p in before} == before
    inside = "/sentinel2_ts/"
    found = {key: data for key, data in snapshot(root).items() if inside in key}
    assert found == {key: data for key, data in domain_store.items() if inside in key}
    assert table(root, "patches")["has_sentinel2_msk_sc"].all()
    assert verify_checksums(str(root)).passed


def test_other_splits_are_refused_where_pixels_would_be_lost(
    tree: Path, full: Path, domain_store: dict[str, bytes]
) -> None:
    change_splits(tree)
    (told,) = plan(FlairHubTree(tree), str(full), Selection(modalities=["aerial_rgbi"])).domains
    assert (told.rois, len(told.problems)) == (0, 2)
    with pytest.raises(SourceDataError, match=r"split of .* is '\w+' now and was '\w+'.*dem_e"):
        run(tree, full, ["aerial_rgbi"])
    assert snapshot(full) == domain_store


def test_a_larger_roi_is_refused_where_pixels_would_be_lost(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    for path in list(tree.glob("*_AERIAL_RGBI/*/*.tif")):
        if not path.stem.endswith(("_1-1", "_01-01")) and path != first_tiff(tree, "AERIAL_RGBI"):
            path.unlink()
    run(tree, root, ["aerial_rgbi"])
    before = snapshot(root)
    with pytest.raises(SourceDataError, match=r"outside its lattice, such as .* aerial_rgbi"):
        run(tree, root, ["dem_elev"])
    assert snapshot(root) == before
    assert run(tree, root, ["aerial_rgbi", "dem_elev"]).rois > 0


@pytest.mark.parametrize("skip", [False, True])
def test_pixels_are_given_up_for_nothing_that_cannot_be_read(
    tree: Path, full: Path, domain_store: dict[str, bytes], skip: bool
) -> None:
    bad = first_tiff(tree, "DEM_ELEV")
    bad.write_bytes(bad.read_bytes()[:5000])
    if skip:
        report = run(tree, full, skip=True)
        assert [bad.name in one.reason for one in report.skipped] == [True]
        found, expected = snapshot(full), dict(domain_store)
        # the domain's own document names what was left out
        for key in [k for k in expected if k.count("/") < 2]:
            del found[key], expected[key]
        assert found == expected
        assert verify_checksums(str(full)).passed
        return
    with pytest.raises(SourceDataError, match="What the store holds of it was left as it is"):
        run(tree, full)
    assert snapshot(full) == domain_store


def test_a_roi_is_out_of_sight_while_pixels_of_it_change(
    tree: Path, full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = first_tiff(tree, "DEM_ELEV")
    rewrite(changed, read(changed) + 1000)
    name = changed.parent.name
    seen = []

    def look_and_stop(self: roi_module._RoiWriter) -> None:
        seen.append(self.job.keep)
        raise KeyboardInterrupt

    monkeypatch.setattr(roi_module._RoiWriter, "write", look_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run(tree, full)
    monkeypatch.undo()
    assert len(seen) == 1
    assert "dem_elev" not in seen[0]
    assert "aerial_rgbi" in seen[0]
    marker = next(full.glob(f"*.zarr/{name}")) / "zarr.json"
    assert not marker.exists()
    assert not list(full.glob("*.parquet"))
    # nobody forgets what stays, whatever is converted in between
    others = [p.name for p in marker.parent.parent.iterdir() if p.is_dir() and p.name != name]
    convert(FlairHubTree(tree), str(full), Selection(rois=others[:1]), workers=1)
    assert list(full.glob(f".*.work/*{ASIDE}"))
    assert name not in set(table(full, "rois")["roi"])
    before = {p: p.stat().st_mtime_ns for p in marker.parent.glob("aerial_rgbi/**/c/**/*")}
    run(tree, full)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    fresh = tmp_path / "fresh"
    run(tree, fresh)
    assert snapshot(full) == snapshot(fresh)


@pytest.fixture
def stops(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stop before an object is written whose key ends so; several at once."""
    ends: list[str] = []
    write = Location.write

    def stop(self: Location, data: bytes | list[bytes]) -> None:
        if ends and str(self).endswith(tuple(ends)):
            raise KeyboardInterrupt
        write(self, data)

    monkeypatch.setattr(Location, "write", stop)
    return ends


def test_a_raster_that_is_put_back_after_a_stop_is_converted(
    tree: Path, full: Path, domain_store: dict[str, bytes], stops: list[str]
) -> None:
    changed = first_tiff(tree, "SENTINEL2_MSK-SC")
    before, pixels = changed.read_bytes(), read(changed)
    rewrite(changed, pixels[::-1] // 2)
    stops.append(f"{changed.parent.name}/zarr.json")
    with pytest.raises(KeyboardInterrupt):
        run(tree, full)
    stops.clear()
    changed.write_bytes(before)
    run(tree, full)
    assert snapshot(full) == domain_store


def test_a_stop_between_receipt_and_marker_is_gone_on_from(
    tree: Path, domain_store: dict[str, bytes], tmp_path: Path, stops: list[str]
) -> None:
    root = tmp_path / "store"
    run(tree, root, ["sentinel2_ts", "spot_rgbi"])
    before = {p: p.stat().st_mtime_ns for p in root.rglob("c/**/*") if p.is_file()}
    roi = first_tiff(tree, "SPOT_RGBI").parent.name
    stops.append(f"{roi}/zarr.json")
    with pytest.raises(KeyboardInterrupt):
        run(tree, root, ["sentinel2_msk_sc"])
    stops.clear()
    # another command in between takes nothing for there that is not
    run(tree, root, ["dem_elev"])
    assert verify_checksums(str(root)).passed
    run(tree, root, ["sentinel2_msk_sc"])
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert verify_checksums(str(root)).passed
    run(tree, root)
    assert chunks(snapshot(root)) == chunks(domain_store)


def test_a_store_with_one_signature_for_a_group_is_converted_anew(
    tree: Path, full: Path, domain_store: dict[str, bytes]
) -> None:
    for path in full.glob("*.zarr/*/zarr.json"):
        document = json.loads(path.read_text())
        for name, node in document["consolidated_metadata"]["metadata"].items():
            if "/" not in name:
                node["attributes"][GROUP_SIGNATURE] = "one for all"
        path.write_text(json.dumps(document))
    assert run(tree, full).rois == 2
    assert snapshot(full) == domain_store


def test_what_is_left_out_is_told_alike_wherever_the_files_lie(tree: Path, tmp_path: Path) -> None:
    bad = first_tiff(tree, "DEM_ELEV")
    bad.write_bytes(bad.read_bytes()[:5000])
    (tree / "csv_full" / "TRAIN_more.csv").write_bytes(b"patch_id;\xff\xfe")
    elsewhere = shutil.copytree(tree, tmp_path / "else" / "where")
    stores = [tmp_path / "one", tmp_path / "two"]
    for source, root in zip((tree, elsewhere), stores, strict=True):
        run(source, root, ["spot_rgbi", "dem_elev"], skip=True)
    assert snapshot(stores[0]) == snapshot(stores[1])
    document = json.loads(next(stores[0].glob("*.zarr/zarr.json")).read_text())
    told = json.dumps(document["attributes"])
    assert bad.name in told
    assert str(tmp_path) not in told
