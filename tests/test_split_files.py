"""CSVs of splits: their names, their headers, and paths in them that leave the source."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from converters.files import SourceFile
from converters.flairhub_tree import FlairHubTree
from converters.splits import read_csv, split_of_file
from flairhub.cli import run
from flairhub.errors import SourceDataError

PATCH = "D012-2019_AF-S1-27_5-10"
INSIDE = [
    "../D012-2019_SPOT_RGBI/AF-S1-27/x.tif",
    "D012-2019_SPOT_RGBI/../D012-2019_DEM_ELEV/x.tif",
    "./x.tif",
    "x..tif",
    "12:30",
    "1",
    "",
]
OUTSIDE = [
    "../../../../etc/passwd",
    "../../x.tif",
    "../D012-2019_SPOT_RGBI/../../../x.tif",
    "../..",
    "..\\..\\x.tif",
    "/etc/passwd",
    "C:\\x.tif",
    "s3://elsewhere/x.tif",
    "file:///etc/passwd",
]


def _csv(root: Path, folder: str, cell: str) -> SourceFile:
    path = root / folder / "TRAIN.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"patch_id;SPOT_RGBI\n{PATCH};\n{PATCH};{cell}\n")
    return SourceFile(str(path), path.stat().st_size)


@pytest.mark.parametrize("folder", ["", "csv_toy"])
@pytest.mark.parametrize("cell", INSIDE)
def test_paths_inside_the_source_are_fine(tmp_path: Path, cell: str, folder: str) -> None:
    assert list(read_csv(_csv(tmp_path, folder, cell), str(tmp_path))) == [PATCH, PATCH]


@pytest.mark.parametrize("folder", ["", "csv_toy"])
@pytest.mark.parametrize("cell", OUTSIDE)
def test_paths_that_leave_the_source_are_refused(tmp_path: Path, cell: str, folder: str) -> None:
    file = _csv(tmp_path, folder, cell)
    with pytest.raises(SourceDataError, match="leaves the source") as caught:
        list(read_csv(file, str(tmp_path)))
    assert f"{file}, line 3" in str(caught.value)
    assert repr(cell) in str(caught.value)


def test_depth_and_the_sources_own_path_count(tmp_path: Path) -> None:
    for cell in ("../../D012-2019_SPOT_RGBI/x.tif", str(tmp_path / "x.tif")):
        assert list(read_csv(_csv(tmp_path, "a/b", cell), str(tmp_path)))
    shutil.make_archive(str(tmp_path / "FULL"), "zip", tmp_path, "a")
    size = (tmp_path / "a" / "b" / "TRAIN.csv").stat().st_size
    zipped = SourceFile(str(tmp_path / "FULL.zip"), size, "a/b/TRAIN.csv")
    with pytest.raises(SourceDataError, match="leaves the source"):
        list(read_csv(zipped, "/elsewhere"))


def test_a_conversion_refuses_them(
    domain_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = Path(shutil.copytree(domain_tree, tmp_path / "raw"))
    for path in tree.rglob("*.csv"):
        path.write_text(path.read_text().replace("../D", "../../../outside.tif?D"))
    assert run(["convert", str(tree), str(tmp_path / "store"), "--dry-run"]) == 1
    assert "leaves the source" in capsys.readouterr().out
    assert run(["convert", str(tree), str(tmp_path / "store")]) == 1
    assert "leaves the source" in capsys.readouterr().err


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_quoted_header_is_read(tmp_path: Path, delimiter: str, mark: str) -> None:
    path = tmp_path / "TRAIN.csv"
    lines = [["SPOT_RGBI", "patch_id"], ["x.tif", PATCH]]
    text = "\n".join(delimiter.join(f'"{cell}"' for cell in line) for line in lines)
    path.write_text(mark + text, encoding="utf-8")
    assert list(read_csv(SourceFile(str(path), 1), str(tmp_path))) == [PATCH]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("FLAIR-HUB_TRAIN.csv", "train"),
        ("TRAINING.csv", "train"),
        ("my_validation.csv", "valid"),
        ("Testing_2.csv", "test"),
        ("trained.csv", None),
        ("constraints.csv", None),
    ],
)
def test_names_that_say_a_split(name: str, split: str | None) -> None:
    assert split_of_file(name) == split


def test_csvs_that_say_no_split_are_noted(domain_tree: Path, tmp_path: Path) -> None:
    tree = Path(shutil.copytree(domain_tree, tmp_path / "raw"))
    for number, path in enumerate(sorted(tree.rglob("*.csv"))):
        path.rename(path.with_name(f"part{number}.csv"))
    source = FlairHubTree(tree)
    (roi,) = source.rois(source.domains()[0], source.modalities)[:1]
    assert not roi.folds["split"]
    (note,) = [note for note in source.notes if "say no split" in note]
    assert "part0.csv" in note
