"""Damaged raw files give a clean error or what they hold: no crash, no hang, no wrong pixel."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.fuzzing import READERS
from tests.trees import copy_flair_domain

COUNTS = {"tiff": 160, "geopackage": 40, "csv": 60, "zip": 60, "json": 60, "npy": 80}
MANY = {"tiff": 1500, "geopackage": 400, "csv": 300, "zip": 300, "json": 400, "npy": 600}


@pytest.fixture(scope="module")
def files(raw_tree: Path, flair2_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample, some of it zipped, and one domain of FLAIR#2."""
    folder = tmp_path_factory.mktemp("fuzz")
    for path in raw_tree.iterdir():
        (folder / path.name).symlink_to(path)
    copy_flair_domain(flair2_tree, folder / "flair")
    (folder / "zips").mkdir()
    for name in sorted(p.name for p in raw_tree.glob("*_SPOT_RGBI")):
        with zipfile.ZipFile(folder / "zips" / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as out:
            for file in sorted((raw_tree / name).rglob("*.tif")):
                out.write(file, file.relative_to(raw_tree))
    return folder


def _fuzz(kind: str, files: Path, count: int, seed: int) -> None:
    command = [sys.executable, "-m", "tests.fuzzing", kind, str(files), str(count), str(seed)]
    root = Path(__file__).parents[1]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    where = f"{kind}, seed {seed}"
    assert found.returncode == 0, f"{where}: crashed or hung: {found.stderr[-2000:]}"
    outcome = json.loads(found.stdout.splitlines()[-1])
    assert not outcome["faults"], f"{where}: {outcome['faults'][:5]}"
    assert outcome["read"] + outcome["refused"] == count
    assert outcome["refused"] > count // 10, f"{where}: hardly any damage was met: {outcome}"


@pytest.mark.parametrize("kind", READERS)
def test_damaged_files(files: Path, kind: str) -> None:
    _fuzz(kind, files, COUNTS[kind], 1)


def test_the_long_suite_damages_thousands() -> None:
    assert sum(count for kind, count in MANY.items() if kind != "zip") >= 2000
    assert READERS.keys() == COUNTS.keys() == MANY.keys()


@pytest.mark.long
@pytest.mark.parametrize("kind", READERS)
def test_very_many_damaged_files(files: Path, kind: str) -> None:
    _fuzz(kind, files, MANY[kind], 2)
