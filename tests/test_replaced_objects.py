"""Objects that are replaced under a stream: one error, then the new ones; never parts of both."""

from __future__ import annotations

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
