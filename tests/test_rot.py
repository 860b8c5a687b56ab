"""Whatever happens to a store after it was written is found and named, without the raw files."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from converters.checksums import verify_checksums
from flairhub.cli import run


@pytest.fixture
def store(store_root: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(store_root, tmp_path / "store"))


def _objects(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def _name(path: Path, root: Path) -> str:
    return str(path.relative_to(root))


def test_every_flipped_bit_deleted_and_swapped_shard_is_named(store: Path) -> None:
    seed = 7
    chance = random.Random(seed)
    shards = [path for path in _objects(store) if "/c/" in str(path)]
    chance.shuffle(shards)
    deleted, (one, other), rest = shards[:20], shards[20:22], shards[22:]
    contents = one.read_bytes(), other.read_bytes()
    assert contents[0] != contents[1]
    for path in deleted:
        path.unlink()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    documents = [path for path in _objects(store) if path.name == "zarr.json"]
    flipped = set()
    for path in chance.choices(rest + documents, k=200):
        data = bytearray(path.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(data))
        flipped.add(path)
    report = verify_checksums(str(store))
    named = {finding.where for finding in report.findings}
    # two flips of one object may undo each other, though not with this seed
    assert named == {_name(path, store) for path in {*deleted, one, other, *flipped}}
    missing = {f.where for f in report.findings if f.what == "is missing"}
    assert missing == {_name(path, store) for path in deleted}


def test_zarr_by_itself_notices_neither_a_flip_nor_a_deletion(store: Path) -> None:
    """Why the checksums are kept: this is what a reader without them sees."""
    path = next(p for p in _objects(store) if "aerial_label_cosia/c/" in str(p))
    group = path.parents[4]
    before = np.asarray(zarr.open_group(group, mode="r")["aerial_label_cosia/aerial_label_cosia"])
    path.unlink()
    after = np.asarray(zarr.open_group(group, mode="r")["aerial_label_cosia/aerial_label_cosia"])
    assert before.shape == after.shape
    assert (after == 255).all()


@pytest.mark.parametrize("table", ["patches", "rois", "shards"])
def test_damaged_tables_are_named(store: Path, table: str) -> None:
    path = sorted(store.glob(f"*.{table}.parquet"))[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert path.name in {finding.where for finding in verify_checksums(str(store)).findings}


def test_a_missing_table_and_a_missing_store_are_named(store: Path) -> None:
    first, second = sorted(store.glob("*.zarr"))
    shutil.rmtree(first)
    (store / f"{second.stem}.rois.parquet").unlink()
    findings = verify_checksums(str(store)).findings
    assert sum(f.where.startswith(first.name) and f.what == "is missing" for f in findings) > 90
    assert any(f.where == second.stem and "cannot be read" in f.what for f in findings)


def test_a_stray_object_is_named(store: Path) -> None:
    place = next(store.glob("*.zarr/*")) / "dem_elev" / "notes.txt"
    place.write_text("mine")
    assert [f.where for f in verify_checksums(str(store)).findings] == [_name(place, store)]


def test_the_command_needs_no_raw_files(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "--checksums", str(store), "--workers", "1"]) == 0
    assert "identical" in capsys.readouterr().out
    victim = next(path for path in _objects(store) if "spot_rgbi/c/" in str(path))
    victim.unlink()
    assert run(["verify", "--checksums", str(store), "--workers", "1", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [f["where"] for f in report["findings"]] == [_name(victim, store)]
    assert run(["verify", "--checksums", str(store), "one too many"]) == 2


def test_sums_are_those_of_sha256sum(store: Path) -> None:
    import shutil as shell
    import subprocess

    if shell.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    for sums in store.glob("*.sha256"):
        subprocess.run(["sha256sum", "--check", "--quiet", sums.name], cwd=store, check=True)
