"""Where nothing was chosen or nothing is there, nothing was done: an error, never a success."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from converters.checksums import verify_checksums
from converters.flairhub_tree import FlairHubTree
from converters.selection import Selection
from converters.verify import verify
from flairhub.cli import run
from flairhub.errors import ConfigError, UnknownNameError

Capture = pytest.CaptureFixture[str]


def _refused(command: Sequence[str], capsys: Capture) -> str:
    code = run([*command, "--workers", "1"])
    captured = capsys.readouterr()
    assert code in (1, 2), captured.out
    assert "identical" not in captured.out
    assert "0 domains" not in captured.out
    return " ".join(captured.err.replace("│", " ").split())


def _without_splits(tree: Path) -> Path:
    for path in [*tree.rglob("*.csv"), *tree.rglob("*SPLIT.gpkg")]:
        path.unlink()
    return tree


IMPOSSIBLE = {
    "--rois TYPO": "has a ROI 'TYPO'",
    "--rois D099-2019/AF-S1-27": "none is chosen",
    "--years 1492": "1492",
    "--splits foo": "no split 'foo'",
    "--domains D099-2019": "no domain 'D099-2019'",
    "--domains ,": "names nothing",
    "--domains=": "names nothing",
    "--years ,": "names nothing",
}


@pytest.mark.parametrize("options", IMPOSSIBLE)
@pytest.mark.parametrize("command", ["convert", "verify", "verify --checksums"])
def test_a_selection_that_fits_nothing_is_refused(
    raw_tree: Path, store_root: Path, tmp_path: Path, command: str, options: str, capsys: Capture
) -> None:
    places = {
        "convert": [str(raw_tree), str(tmp_path / "store")],
        "verify": [str(raw_tree), str(store_root)],
        "verify --checksums": [str(store_root)],
    }[command]
    error = _refused([*command.split(), *places, *options.split()], capsys)
    assert IMPOSSIBLE[options] in error
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("command", ["convert", "verify", "verify --checksums"])
def test_parts_that_exclude_each_other_are_refused(
    raw_tree: Path, store_root: Path, tmp_path: Path, command: str, capsys: Capture
) -> None:
    first, second = FlairHubTree(raw_tree).domains()
    assert first.year != second.year
    places = {
        "convert": [str(raw_tree), str(tmp_path / "store")],
        "verify": [str(raw_tree), str(store_root)],
        "verify --checksums": [str(store_root)],
    }[command]
    options = ["--domains", str(first), "--years", str(second.year)]
    error = _refused([*command.split(), *places, *options], capsys)
    assert f"domains {first}" in error
    assert f"years {second.year}" in error


def test_a_split_of_a_source_without_splits_is_refused(
    domain_tree: Path, tmp_path: Path, capsys: Capture
) -> None:
    import shutil

    tree = _without_splits(Path(shutil.copytree(domain_tree, tmp_path / "raw")))
    for dry in ([], ["--dry-run"]):
        command = ["convert", str(tree), str(tmp_path / "store"), "--splits", "train", *dry]
        assert "train" in _refused(command, capsys)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("name", ["domains", "years", "rois", "modalities", "splits"])
def test_an_empty_choice_is_not_everything(name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"{name} names nothing"):
        Selection(**{name: []})


def test_an_empty_source_is_not_the_root_of_the_machine(tmp_path: Path, capsys: Capture) -> None:
    store = str(tmp_path / "store")
    for command in (["convert", "", store], ["convert", "", store, "--dry-run"]):
        assert "is empty" in _refused(command, capsys)


def test_a_folder_without_stores_is_not_verified(
    store_root: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert "holds no store" in _refused(["verify", "--checksums", str(tmp_path)], capsys)
    inside = next(store_root.glob("*.zarr"))
    assert "holds no store" in _refused(["verify", "--checksums", str(inside)], capsys)


def test_checksums_of_chosen_parts_alone(raw_tree: Path, store_root: Path) -> None:
    source = FlairHubTree(raw_tree)
    first, second = source.domains()
    whole = verify_checksums(str(store_root))
    parts = [verify_checksums(str(store_root), Selection(years=[d.year])) for d in (first, second)]
    assert sum(part.objects for part in parts) == whole.objects
    roi = f"{first}/{source.rois(first, source.modalities)[0].roi}"
    one = verify_checksums(str(store_root), Selection(rois=[roi]))
    assert one.passed
    assert 10 < one.objects < parts[0].objects
    split = verify_checksums(str(store_root), Selection(splits=["train"]))
    assert 10 < split.objects < whole.objects


def test_checksums_have_no_share(store_root: Path, capsys: Capture) -> None:
    command = ["verify", "--checksums", str(store_root), "--share", "0.01"]
    assert "share" in _refused(command, capsys)


def test_a_share_that_draws_no_patch_is_refused(raw_tree: Path, store_root: Path) -> None:
    with pytest.raises(ConfigError, match="draws none of the"):
        verify(FlairHubTree(raw_tree), str(store_root), share=1e-9)


def test_statistics_that_cannot_be_written_name_their_file(
    store_root: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "nowhere" / "x.json"
    assert run(["stats", str(store_root), "--out", str(out)]) == 1
    assert f"--out {out} cannot be written (No such file" in capsys.readouterr().err
