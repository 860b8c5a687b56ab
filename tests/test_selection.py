"""Parts of a dataset, growth, dry runs, and raw data that are left out on request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.checksums import verify_checksums
from converters.convert import ConversionReport, convert
from converters.flairhub_tree import FlairHubTree
from converters.plan import plan
from converters.selection import Selection
from converters.verify import verify
from flairhub.cli import run
from flairhub.errors import SourceDataError, UnknownNameError
from flairhub.store.reading import open_domain, open_roi
from tests.trees import change_splits, copy_domain, first_tiff, rewrite, snapshot


def _convert(tree: Path, root: Path, **options: Any) -> ConversionReport:  # noqa: ANN401
    return convert(FlairHubTree(tree), str(root), workers=1, **options)


@pytest.fixture
def tree(raw_tree: Path, tmp_path: Path) -> Path:
    return copy_domain(raw_tree, tmp_path / "raw")


def test_parts_add_up_to_the_whole(raw_tree: Path, store_root: Path, tmp_path: Path) -> None:
    source = FlairHubTree(raw_tree)
    first, second = source.domains()
    root = tmp_path / "store"
    _convert(raw_tree, root, selection=Selection(years=[second.year]))
    assert [p.name for p in root.glob("*.zarr")] == [f"{second}.zarr"]
    everything = source.rois(first, source.modalities)
    one = f"{first}/{everything[0].roi}"
    report = _convert(raw_tree, root, selection=Selection(rois=[one]))
    assert (report.rois, report.domains) == (1, [str(first)])
    assert verify_checksums(str(root)).passed
    report = _convert(raw_tree, root)
    assert (report.rois, report.kept) == (len(everything) - 1, 3)
    assert snapshot(root) == snapshot(store_root)


def test_splits_choose_whole_rois(raw_tree: Path, tmp_path: Path) -> None:
    source = FlairHubTree(raw_tree)
    rois = [r for d in source.domains() for r in source.rois(d, source.modalities)]
    wanted = {r.where for r in rois if "valid" in r.folds["split"].values()}
    assert 0 < len(wanted) < len(rois)
    chosen = Selection(splits=["valid"], modalities=["spot_rgbi"])
    report = _convert(raw_tree, tmp_path / "store", selection=chosen)
    assert report.rois == len(wanted)
    assert report.patches == sum(len(r.files) for r in rois if r.where in wanted)


@pytest.mark.parametrize(
    ("selection", "word"),
    [
        (Selection(rois=["AF-S1-999"]), "no ROI|has a ROI"),
        (Selection(years=[1999]), "1999"),
        (Selection(splits=["trian"]), "train"),
        (Selection(domains=["D099-2019"]), "D099-2019"),
    ],
)
def test_unknown_parts_are_refused(
    raw_tree: Path, tmp_path: Path, selection: Selection, word: str
) -> None:
    with pytest.raises(UnknownNameError, match=word):
        _convert(raw_tree, tmp_path / "store", selection=selection)
    assert not (tmp_path / "store").exists()


def test_a_dry_run_foretells_the_conversion_and_writes_nothing(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "store"
    assert run(["convert", str(tree), str(root), "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)["total"]
    assert not root.exists()
    report = _convert(tree, root)
    assert planned["rois"] == report.rois
    assert planned["patches"] == report.patches
    assert planned["files"] == report.files
    assert planned["source_bytes"] == report.source_bytes
    assert planned["raw_bytes"] == report.raw_bytes
    assert planned["objects"] + 1 == report.objects, "and the domain's own zarr.json"
    assert 0.4 < planned["store_bytes"] / report.store_bytes < 2.5
    again = plan(FlairHubTree(tree), str(root)).total
    assert (again.rois, again.kept, again.objects) == (0, report.rois, 0)
    assert run(["convert", str(tree), str(root), "--dry-run"]) == 0
    assert "2 complete, kept" in capsys.readouterr().out


def test_bad_files_are_skipped_named_and_recorded(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = first_tiff(tree, "DEM_ELEV")
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    other = first_tiff(tree, "SPOT_RGBI")
    rewrite(other, dtype="float64")
    root = tmp_path / "store"
    command = ["convert", str(tree), str(root), "--workers", "1", "--on-error"]
    assert run([*command, "stop"]) == 1
    assert not list(root.glob("*.parquet"))
    assert run([*command, "skip"]) == 3
    error = capsys.readouterr().err
    assert bad.name in error
    assert other.name in error
    store = next(root.glob("*.zarr"))
    domain = open_domain(store)
    row = domain.patches.set_index("patch_id").loc[bad.stem.replace("_DEM_ELEV", "")]
    assert not row["has_dem_elev"]
    assert row["has_aerial_rgbi"]
    tree_ = open_roi(store, str(row["roi"]))
    assert "0" in "".join(tree_["dem_elev"].attrs["flairhub:present"])
    assert np.isnan(tree_["dem_elev"]["dem_elev"].to_numpy()).any()
    reasons = {(where, key) for where, key, _ in tree_["dem_elev"].attrs["flairhub:skipped"]}
    assert reasons == {(row.name, "dem_elev")}
    report = verify(FlairHubTree(tree), str(root))
    assert report.passed, report.findings
    assert report.skipped == 2
    # running again says the same and writes nothing
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    assert run([*command, "skip"]) == 3
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before
    # what is mended is taken in
    bad.write_bytes(whole)
    assert run([*command, "skip"]) == 3
    assert "0" not in "".join(
        open_roi(store, str(row["roi"]))["dem_elev"].attrs["flairhub:present"]
    )
    assert verify(FlairHubTree(tree), str(root)).skipped == 1


def test_a_roi_that_cannot_be_converted_is_skipped_whole(tree: Path, tmp_path: Path) -> None:
    victim = sorted(p.name for p in next(tree.glob("*_SPOT_RGBI")).iterdir())[0]
    for path in tree.rglob(f"*_{victim}_*.tif"):
        path.write_bytes(b"nothing")
    report = _convert(tree, tmp_path / "store", skip=True)
    assert report.rois == 1
    assert [one.where.split()[-1] for one in report.skipped] == [victim]
    store = next((tmp_path / "store").glob("*.zarr"))
    assert not (store / victim).exists()
    assert victim not in open_domain(store)
    found = verify(FlairHubTree(tree), str(tmp_path / "store"))
    assert (found.passed, found.skipped) == (True, 1)


def test_nothing_at_all_to_convert_is_an_error(tree: Path, tmp_path: Path) -> None:
    for path in tree.rglob("*.tif"):
        path.write_bytes(b"nothing")
    with pytest.raises(SourceDataError, match="no ROI could be converted"):
        _convert(tree, tmp_path / "store", skip=True)


def test_gaps_are_said(tree: Path, tmp_path: Path) -> None:
    for path in tree.rglob("*_1-2.tif"):
        path.unlink()
    report = _convert(tree, tmp_path / "store")
    assert any("cells of its lattice have no patch" in note for note in report.notes)


def test_a_random_part_is_verified_on_request(
    raw_tree: Path, store_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = FlairHubTree(raw_tree)
    whole = verify(source, str(store_root))
    part = verify(source, str(store_root), share=0.5, seed=1)
    assert part.passed
    assert 0 < part.files < whole.files
    assert part.files % 10 == 0, "patches are drawn whole"
    assert part.files == verify(source, str(store_root), share=0.5, seed=1).files
    command = ["verify", str(raw_tree), str(store_root), "--share", "0.5", "--workers", "1"]
    assert run(command) == 0
    assert "50% of the patches" in capsys.readouterr().out


def test_other_splits_change_the_tables(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    _convert(tree, root)
    before = open_domain(next(root.glob("*.zarr"))).patches["split"].tolist()
    change_splits(tree)
    report = _convert(tree, root)
    assert report.rois == 2
    after = open_domain(next(root.glob("*.zarr"))).patches["split"].tolist()
    assert not any(a == b for a, b in zip(before, after, strict=True) if a)
    assert verify(FlairHubTree(tree), str(root)).passed


def test_paths_in_csvs_are_not_followed(tree: Path, tmp_path: Path) -> None:
    """Files are found by name below the source; a CSV says no more than a patch's split."""
    outside = tree / "outside.tif"
    outside.write_bytes(first_tiff(tree, "SPOT_RGBI").read_bytes())
    for path in tree.rglob("*.csv"):
        path.write_text(path.read_text().replace("../D", "../outside.tif?D"))
    report = _convert(tree, tmp_path / "store")
    assert report.files == len(list(tree.glob("*/*/*.tif")))
    assert open_domain(next((tmp_path / "store").glob("*.zarr"))).patches["split"].notna().any()


@pytest.mark.parametrize("name", ["AF-S1-27%2F..", "AF-S1-27 ..", "..", "AF-S1-2/7"])
def test_rois_are_named_by_the_grammar_or_refused(tree: Path, tmp_path: Path, name: str) -> None:
    first = first_tiff(tree, "SPOT_RGBI")
    renamed = first.name.replace(first.parent.name, name.replace("/", "\\"))
    first.rename(first.with_name(renamed))
    with pytest.raises(SourceDataError):
        _convert(tree, tmp_path / "store")
    assert not (tmp_path / "store").exists()
