"""Killed, cut off, out of space: the next run ends as if nothing had happened."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from converters.checksums import verify_checksums
from converters.convert import convert
from converters.flairhub_tree import FlairHubTree
from converters.lock import domain_lock
from converters.selection import Selection
from flairhub.errors import ConversionError
from flairhub.store import access
from flairhub.store.access import Location, resolve
from tests.stores import FailingStore
from tests.trees import snapshot

COMMAND = str(Path(sys.executable).with_name("flairhub"))


def start(domain_tree: Path, root: Path, *options: str) -> subprocess.Popen[str]:
    """Start the command as a process group of its own."""
    command = [COMMAND, "convert", str(domain_tree), str(root), *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_first_object(process: subprocess.Popen[str], root: Path) -> None:
    while process.poll() is None and not (root.exists() and any(root.rglob("*"))):
        time.sleep(0.005)


def check_what_readers_see(root: Path, domain_store: dict[str, bytes]) -> int:
    """Hold every ROI that is visible against the undisturbed one; return how many there are."""
    seen = 0
    for marker in root.glob("*.zarr/*/zarr.json"):
        roi = str(marker.parent.relative_to(root)) + "/"
        expected = {key: data for key, data in domain_store.items() if key.startswith(roi)}
        found = {key: data for key, data in snapshot(root).items() if key.startswith(roi)}
        assert found == expected, f"{roi} is visible but not complete"
        seen += 1
    if list(root.glob("*.rois.parquet")):
        domains = {key.partition(".")[0] for key in domain_store}
        assert seen == sum(
            key.count("/") == 2 and key.endswith("zarr.json") for key in domain_store
        )
        assert len(domains) == 1
    return seen


def kill_until_done(
    domain_tree: Path,
    root: Path,
    domain_store: dict[str, bytes],
    kills: int,
    chance: random.Random,
    *options: str,
) -> int:
    """Kill conversions at random moments; return how many kills met a process at work."""
    hit = 0
    longest = 2.0
    while hit < kills:
        process = start(domain_tree, root, *options)
        wait_for_first_object(process, root)
        time.sleep(chance.uniform(0, longest))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)  # the coordinator alone: its workers are orphans
            hit += 1
        process.communicate()
        check_what_readers_see(root, domain_store)
        if process.returncode == 0:
            assert snapshot(root) == domain_store
            shutil.rmtree(root)
    return hit


@pytest.mark.parametrize("options", [("--workers", "1"), ("--workers", "2")])
def test_killed_at_any_moment(
    domain_tree: Path, domain_store: dict[str, bytes], tmp_path: Path, options: tuple[str, ...]
) -> None:
    _killed(domain_tree, domain_store, tmp_path / "store", 3, 20261121, options)


@pytest.mark.long
@pytest.mark.parametrize(
    ("seed", "options"), [(n, ("--workers", str(1 + n % 2))) for n in range(5)]
)
def test_killed_at_any_moment_often(
    domain_tree: Path,
    domain_store: dict[str, bytes],
    tmp_path: Path,
    seed: int,
    options: tuple[str, ...],
) -> None:
    _killed(domain_tree, domain_store, tmp_path / "store", 12, seed, options)


def _killed(
    domain_tree: Path,
    domain_store: dict[str, bytes],
    root: Path,
    kills: int,
    seed: int,
    options: tuple[str, ...],
) -> None:
    print(f"seed {seed}: {kills} kills")  # noqa: T201 - shown when it fails
    hit = kill_until_done(domain_tree, root, domain_store, kills, random.Random(seed), *options)
    assert hit == kills
    last = start(domain_tree, root, *options)
    _, errors = last.communicate()
    assert last.returncode == 0, errors
    assert snapshot(root) == domain_store
    assert verify_checksums(str(root)).passed


@pytest.mark.parametrize("writes", [0, 1, 7, 40, 98, 100, 150, 198, 201, 203])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), ConnectionError("connection reset")]
)
def test_a_target_that_fails_while_it_is_written(
    domain_tree: Path, domain_store: dict[str, bytes], writes: int, error: Exception
) -> None:
    store = FailingStore(writes, error)
    source = FlairHubTree(domain_tree)
    with pytest.raises(ConversionError, match="run the same command again") as caught:
        convert(source, Location(store, "store"))
    assert str(error).partition("]")[2].strip() in str(caught.value)
    names = resolve(Location(store, "store")).objects()
    assert not [name for name in names if name.endswith("rois.parquet")]
    store.error = None
    convert(source, Location(store, "store"))
    assert snapshot_of(Location(store, "store")) == domain_store


def snapshot_of(place: Location) -> dict[str, bytes]:
    return {key: (place / key).read() for key in place.objects()}


def test_a_disk_that_takes_no_more(
    domain_tree: Path, domain_store: dict[str, bytes], tmp_path: Path
) -> None:
    root = tmp_path / "store"

    def limit() -> None:
        # of a file, which is what an unprivileged test can bound; Python turns the signal to EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    command = [COMMAND, "convert", str(domain_tree), str(root), "--workers=1"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)
    assert found.returncode == 1
    assert "File too large" in found.stderr
    assert "run the same command again" in found.stderr
    assert not list(root.glob("*.parquet"))
    convert(FlairHubTree(domain_tree), str(root), workers=1)
    assert snapshot(root) == domain_store


def test_the_second_converter_is_refused(domain_tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    source = FlairHubTree(domain_tree)
    (domain,) = source.domains()
    place = resolve(str(root), read_only=False)
    with domain_lock(place, domain):
        with pytest.raises(ConversionError, match=f"{domain} is being converted.*{os.getpid()}"):
            convert(source, str(root), workers=1)
        other = start(domain_tree, root, "--workers", "1")
        _, errors = other.communicate()
        assert other.returncode == 1
        assert "is being converted" in errors
    assert not list(root.glob("*.zarr"))


def test_two_at_once_end_in_one_good_store(
    domain_tree: Path, domain_store: dict[str, bytes], tmp_path: Path
) -> None:
    root = tmp_path / "store"
    both = [start(domain_tree, root, "--workers", "1") for _ in range(2)]
    codes = sorted(process.communicate() and process.returncode for process in both)
    assert codes in ([0, 1], [0, 0])  # the second may come when the first is done
    assert snapshot(root) == domain_store


def test_a_lost_worker_costs_only_time(
    domain_tree: Path, domain_store: dict[str, bytes], tmp_path: Path
) -> None:
    root = tmp_path / "store"
    process = start(domain_tree, root, "--workers", "2")
    wait_for_first_object(process, root)
    while not list(root.glob("*.zarr/*/*/*/c")):  # until a worker writes pixels
        assert process.poll() is None
        time.sleep(0.01)
    victim = _workers(process.pid)[0]
    victim.kill()
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert snapshot(root) == domain_store


def _workers(pid: int) -> list[Any]:
    """Return the processes that do the work: spawned by the nannies."""
    children = psutil.Process(pid).children(recursive=True)
    return [c for c in children if "spawn_main" in " ".join(c.cmdline())]


@pytest.fixture
def cluster() -> Iterator[str]:
    from distributed import LocalCluster

    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1"
    ) as found:
        yield found.scheduler_address


def test_a_cluster_does_the_work(
    domain_tree: Path, domain_store: dict[str, bytes], cluster: str, tmp_path: Path
) -> None:
    convert(FlairHubTree(domain_tree), str(tmp_path / "store"), scheduler=cluster)
    assert snapshot(tmp_path / "store") == domain_store


def test_a_cluster_that_is_not_there(domain_tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"tcp://127\.0\.0\.1:9 cannot be reached"):
        convert(FlairHubTree(domain_tree), str(tmp_path / "store"), scheduler="tcp://127.0.0.1:9")


def test_a_modality_is_added_without_rewriting(
    domain_tree: Path, domain_store: dict[str, bytes], tmp_path: Path
) -> None:
    root = tmp_path / "store"
    source = FlairHubTree(domain_tree)
    first = ["aerial_rgbi", "sentinel2_ts"]
    convert(source, str(root), Selection(modalities=first), workers=1)
    before = {p: p.stat().st_mtime_ns for p in root.rglob("c/**/*") if p.is_file()}
    more = ["dem_elev", "aerial_label_cosia"]
    report = convert(source, str(root), Selection(modalities=more), workers=1)
    assert report.rois == 2
    assert {p: p.stat().st_mtime_ns for p in before} == before
    again = convert(source, str(root), Selection(modalities=[*first, "dem_elev"]), workers=1)
    assert (again.rois, again.kept) == (0, 2)
    assert verify_checksums(str(root)).passed
    marker = json.loads(next(root.glob("*.zarr/*/zarr.json")).read_text())
    groups = {p for p in marker["consolidated_metadata"]["metadata"] if "/" not in p}
    assert groups == {*first, "dem_elev", "aerial_label_cosia"}
    convert(source, str(root), workers=1)
    found = snapshot(root)
    assert {k: v for k, v in found.items() if "/c/" in k} == {
        k: v for k, v in domain_store.items() if "/c/" in k
    }


def test_a_power_cut_finds_the_pixels_before_the_marker(
    domain_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a ROI is synced to disk before the document that makes it visible is written."""
    synced: set[str] = set()
    unsynced: dict[str, list[str]] = {}
    sync, write = access._sync, Location.write

    def recorded_sync(path: str | Path) -> None:
        synced.add(str(path))
        sync(path)

    def recorded_write(place: Location, data: bytes | list[bytes]) -> None:
        path = tmp_path / place.path
        if path.name == "zarr.json" and path.parent.parent.suffix == ".zarr":
            files = [str(p) for p in path.parent.rglob("*") if p.is_file()]
            unsynced[str(path)] = [name for name in files if name not in synced]
            assert len(files) > 90
        synced.discard(str(path))
        write(place, data)

    monkeypatch.setattr(access, "_sync", recorded_sync)
    monkeypatch.setattr(Location, "write", recorded_write)
    convert(FlairHubTree(domain_tree), str(tmp_path / "store"), workers=1)
    assert len(unsynced) == 2
    assert not any(unsynced.values())
