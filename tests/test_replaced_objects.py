"""Objects that are replaced under a stream: one error, then the new ones; never parts of both."""

from __future__ import annotations

import gc
import json
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

import flairhub
from benchmarks.objectserver import ObjectServer
from flairhub import PatchPlan
from flairhub.batches.streaming import PatchStream
from flairhub.errors import ReadError
from flairhub.store.chunks import ABSENT, ChunkCodec
from flairhub.store.ranges import OPEN_FILES

KEY = "aerial_rgbi"


@pytest.fixture
def root(store_root: Path, tmp_path: Path) -> Path:
    """A copy of the stores whose objects may be replaced, but not written to."""
    return Path(shutil.copytree(store_root, tmp_path / "store", copy_function=os.link))


@pytest.fixture(params=["disk", "server"])
def plan(root: Path, request: pytest.FixtureRequest) -> Iterator[PatchPlan]:
    with ObjectServer(root) if request.param == "server" else nullcontext() as server:
        yield PatchPlan.build(
            server.url if server else root,
            modalities=[KEY],
            labels=[],
            storage_options=server.storage_options if server else None,
        )


def _swap(root: Path) -> None:
    """Exchange the first two chunks of every shard that has two, the rest being as it was."""
    for shard in [path for path in root.rglob(f"{KEY}/c/**/*") if path.is_file()]:
        data = bytearray(shard.read_bytes())
        array = next(folder for folder in shard.parents if (folder / "zarr.json").exists())
        size = ChunkCodec(json.loads((array / "zarr.json").read_text())).index_bytes
        index = np.frombuffer(bytes(data[-size:-4]), "<u8").reshape(-1, 2).copy()
        held = np.flatnonzero(index[:, 0] != ABSENT)[:2]
        index[held] = index[held[::-1]]
        table = index.tobytes()
        new = shard.with_name("new")
        new.write_bytes(data[:-size] + table + struct.pack("<I", google_crc32c.value(table)))
        new.replace(shard)


def _pixels(stream: PatchStream) -> list[bytes]:
    return [batch.inputs[KEY].numpy().tobytes() for batch in stream]


def test_the_epoch_after_the_error_reads_what_is_there_now(plan: PatchPlan, root: Path) -> None:
    stream = flairhub.stream(plan, batch_size=2)
    old = _pixels(stream)
    _swap(root)
    with pytest.raises(ReadError, match=rf"{KEY}/c/.* was replaced while it was read"):
        _pixels(stream)
    new = _pixels(stream)
    assert new != old
    assert new == _pixels(flairhub.stream(plan, batch_size=2))


def test_an_epoch_under_way_ends(plan: PatchPlan, root: Path) -> None:
    expected = _pixels(flairhub.stream(plan, batch_size=1))
    stream = flairhub.stream(plan, batch_size=1, prefetch=0, threads=1)
    given: list[bytes] = []

    def read() -> None:
        for batch in stream:
            given.append(batch.inputs[KEY].numpy().tobytes())
            if len(given) == 1:
                _swap(root)

    with pytest.raises(ReadError, match="was replaced"):
        read()
    assert given == expected[: len(given)]


def test_an_iteration_beside_the_one_that_fails_sees_one_version(
    plan: PatchPlan, root: Path
) -> None:
    stream = flairhub.stream(plan, batch_size=1, prefetch=0, threads=1)
    under_way = iter(stream)
    next(under_way)
    _swap(root)
    with pytest.raises(ReadError, match="was replaced"):
        _pixels(stream)
    assert len(_pixels(stream)) == len(plan)
    with pytest.raises(ReadError, match="was replaced"):
        next(under_way)


def test_rois_that_are_open_serve_the_next_epoch(plan: PatchPlan) -> None:
    stream = flairhub.stream(plan, batch_size=2)
    first = _pixels(stream)
    before = stream.traffic.requests
    assert _pixels(stream) == first
    assert stream.traffic.requests - before <= len(plan)


def _held_files(root: Path) -> list[str]:
    handles = [handle for handle in Path("/proc/self/fd").iterdir() if handle.exists()]
    found = [os.readlink(handle) for handle in handles]
    return [path for path in found if path.startswith(str(root))]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="has no list of open files")
def test_files_stay_open_while_their_stream_lives(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = os.open

    def counted(path: str, *args: int) -> int:
        opened.append(path)
        return real(path, *args)

    monkeypatch.setattr(os, "open", counted)
    plan = PatchPlan.build(root, modalities=[KEY], labels=[])
    stream = flairhub.stream(plan, batch_size=1, threads=1)  # two may open a file at once
    opened.clear()
    first, second = _pixels(stream), _pixels(stream)
    assert first == second
    shards = [path for path in opened if "/c/" in path]
    assert len(shards) == len(set(shards))
    assert 0 < len(_held_files(root)) <= OPEN_FILES
    del stream
    gc.collect()
    assert _held_files(root) == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="has no list of open files")
def test_more_files_than_may_stay_open(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = PatchPlan.build(root, modalities=[KEY, "dem_elev"], labels=[])
    expected = list(flairhub.stream(plan, batch_size=4))
    monkeypatch.setattr("flairhub.store.ranges.OPEN_FILES", 1)
    stream = flairhub.stream(plan, batch_size=4, threads=4)
    for batch, other in zip(stream, expected, strict=True):
        for key, pixels in batch.inputs.items():
            assert pixels.equal(other.inputs[key])
    assert len(_held_files(root)) <= 1
