"""Parts of objects: shared, checked, kept on disk within bounds, and as few as can be."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.objectserver import ObjectServer
from flairhub import PatchPlan
from flairhub.batches.pipeline import Readers
from flairhub.batches.streaming import PatchStream, stream
from flairhub.errors import ConfigError, ReadError, StoreLayoutError
from flairhub.modalities import dataset_modalities
from flairhub.store.access import resolve
from flairhub.store.cache import RangeCache
from flairhub.store.ranges import ByteRange, RangeReader, Reads, describe
from flairhub.store.shards import ShardedArray, load_indexes

INPUTS = [m.key for m in dataset_modalities() if not m.is_label]
LABELS = [name for m in dataset_modalities() for name in m.nomenclatures]
ARRAYS = 11
"""All of a ROI; two of them hold masks."""


@pytest.fixture(scope="module")
def server(store_root: Path) -> Iterator[ObjectServer]:
    with ObjectServer(store_root) as running:
        yield running


def _stream(server: ObjectServer, **options: Any) -> PatchStream:  # noqa: ANN401
    plan = PatchPlan.build(
        server.url, modalities=INPUTS, labels=LABELS, storage_options=server.storage_options
    )
    server.reset()
    return stream(plan, batch_size=4, **options)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _pixels(batches: PatchStream) -> list[bytes]:
    return [
        tensor.numpy().tobytes()
        for batch in batches
        for part in (batch.inputs, batch.labels, batch.days)
        for tensor in part.values()
    ]


def test_requests_are_counted_and_few(server: ObjectServer) -> None:
    batches = _stream(server, shuffle=True, prefetch=64)
    first = _pixels(batches)
    plan = batches.plan
    counts = server.counts()
    assert batches.traffic.requests == counts.total
    assert batches.traffic.bytes == counts.total_bytes
    # nothing is asked for twice: a ROI's metadata, the index of each shard, a chunk of each array
    assert counts.total <= len(plan.rois) * (1 + ARRAYS) + len(plan) * ARRAYS
    server.reset()
    batches.set_epoch(1)
    assert len(_pixels(batches)) == len(first)
    assert server.counts().total <= len(plan) * (ARRAYS - 1), "indexes are kept, small shards too"
    assert server.counts().requests_of("zarr.json") == 0


def _noting(reads: Reads[Any], waves: list[int]) -> Reads[Any]:
    """Pass a reader's questions on, and note how many it asks at a time."""
    bodies: Any = None
    while True:
        try:
            wanted = reads.send(bodies)
        except StopIteration as stop:
            return stop.value
        waves.append(len(wanted))
        bodies = yield wanted


def test_a_cold_start_is_three_round_trips(store_root: Path) -> None:
    """A ROI's metadata, all indexes, all chunks: whatever the number of modalities."""
    plan = PatchPlan.build(store_root, modalities=INPUTS, labels=LABELS)
    readers, source = Readers(plan), RangeReader()
    last = [len(plan) - 2, len(plan) - 1]
    for numbers, begin in ([0], [1, ARRAYS]), ([1], []), (last, [1, ARRAYS]):
        waves: list[int] = []
        found = source.run(_noting(readers.fetch(numbers), waves))
        assert len(found) == len(numbers)
        assert waves[:-1] == begin
        assert 0 < waves[-1] <= ARRAYS * len(numbers)


def test_block_order_asks_less_for_the_same_pixels(server: ObjectServer) -> None:
    apart = _stream(server, shuffle=False, prefetch=64)
    expected = sorted(w.extent.bbox for batch in apart for w in batch.windows)
    server.reset()
    together = _stream(server, shuffle="block", prefetch=64)
    found = {}
    for batch in together:
        for i, window in enumerate(batch.windows):
            found[window] = batch.inputs["dem_elev"][i].numpy().tobytes()
    assert sorted(window.extent.bbox for window in found) == expected
    asked = server.counts().requests_of("/c/")
    assert asked < apart.traffic.requests
    for batch in apart:
        for i, window in enumerate(batch.windows):
            assert batch.inputs["dem_elev"][i].numpy().tobytes() == found[window]


def test_it_runs_where_a_loop_runs(server: ObjectServer) -> None:
    """A notebook's cells run inside an event loop."""

    async def cell() -> list[bytes]:
        return _pixels(_stream(server))

    assert asyncio.run(cell()) == _pixels(_stream(server))


def test_a_cache_saves_the_requests_of_the_next_epoch(server: ObjectServer, tmp_path: Path) -> None:
    cached = _stream(server, cache=tmp_path / "cache")
    assert cached.cache is not None
    first = _pixels(cached)
    assert cached.cache.hit_rate == 0
    server.reset()
    assert _pixels(cached) == first
    assert server.counts().total == 0
    assert cached.cache.hits == cached.cache.misses > 0
    again = _stream(server, cache=tmp_path / "cache")
    server.reset()
    assert _pixels(again) == first
    assert again.cache is not None
    assert again.cache.hit_rate == 1
    assert 0 < server.counts().total <= 12 * len(again.plan.rois), "indexes tell what is current"


def test_a_cut_file_of_the_cache_is_read_anew(server: ObjectServer, tmp_path: Path) -> None:
    first = _pixels(_stream(server, cache=tmp_path))
    for path in _files(tmp_path):
        path.write_bytes(path.read_bytes()[:-1])
    assert _pixels(_stream(server, cache=tmp_path)) == first


def test_a_damaged_file_of_the_cache_is_read_anew(server: ObjectServer, tmp_path: Path) -> None:
    first = _pixels(_stream(server, cache=tmp_path))
    for path in _files(tmp_path):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
    assert _pixels(_stream(server, cache=tmp_path)) == first


def _fill(folder: Path, seed: int) -> None:
    cache = RangeCache(folder, 200_000)
    place = resolve(folder) / "object"
    chance = np.random.default_rng(seed)
    for _ in range(400):
        start = int(chance.integers(0, 300))
        wanted = ByteRange(place, start, start + 2_000, "version")
        data = cache.get(wanted)
        assert data is None or data == bytes([start % 256]) * 2_000
        if data is None:
            cache.put(wanted, bytes([start % 256]) * 2_000)


def test_processes_share_a_cache_within_its_bound(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_fill, args=(tmp_path, seed)) for seed in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    size = sum(path.stat().st_size for path in _files(tmp_path))
    assert 100_000 < size <= 200_000 * 1.1
    assert not list(tmp_path.rglob("*.partial"))


def test_the_least_used_goes_first(tmp_path: Path) -> None:
    cache = RangeCache(tmp_path, 10_000)
    place = resolve(tmp_path) / "object"
    ranges = [ByteRange(place, n * 1000, (n + 1) * 1000, "v") for n in range(10)]
    for one in ranges:
        cache.put(one, bytes(1000))
    assert cache.get(ranges[0]) is not None
    for n in range(10, 14):
        cache.put(ByteRange(place, n * 1000, (n + 1) * 1000, "v"), bytes(1000))
    assert cache.get(ranges[0]) is not None, "it was used lately"
    assert cache.get(ranges[1]) is None


def test_files_of_the_user_stay(server: ObjectServer, tmp_path: Path) -> None:
    """The folder of a cache may hold a thesis; the cache's own folder may, too."""
    folder = tmp_path / "cache"
    cached = _stream(server, cache=folder, cache_bytes=10**6)
    kept = [folder / "thesis" / "results.csv", folder / "ab" / ("0" * 62), folder / "notes.txt"]
    own = next(path for path in folder.iterdir() if path.is_dir())
    kept += [own / "notes.txt", own / "ab" / "results.csv", own / "thesis" / ("0" * 62)]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(20_000))
        os.utime(path, (0, 0))
    assert len(_pixels(cached)) > 0
    assert cached.cache is not None
    cached.cache.clean()
    assert set(kept) <= set(_files(folder))
    ours = set(_files(folder)) - set(kept)
    assert all(own in path.parents for path in ours)
    assert 0 < sum(path.stat().st_size for path in ours) <= 10**6 < cached.traffic.bytes


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    cache = RangeCache(tmp_path / "cache", 10_000)
    one = ByteRange(resolve(tmp_path) / "object", 0, 1000, "v")
    cache.put(one, bytes(1000))
    shutil.rmtree(tmp_path / "cache")
    assert cache.get(one) is None
    cache.clean()
    cache.put(one, bytes(1000))
    assert cache.get(one) == bytes(1000)


def test_a_folder_that_takes_nothing_is_no_error(tmp_path: Path) -> None:
    cache = RangeCache(tmp_path / "cache", 10_000)
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("a file stands in its place")
    one = ByteRange(resolve(tmp_path) / "object", 0, 1000, "v")
    cache.put(one, bytes(1000))
    cache.clean()
    assert cache.get(one) is None


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cache folder .*file/cache"):
        RangeCache(tmp_path / "file" / "cache")


def test_files_that_end_early_are_said(tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(b"0123456789")
    place = resolve(tmp_path) / "object"

    def reads(*wanted: ByteRange) -> Reads[list[bytes | None]]:
        bodies = yield wanted
        return [None if b.data is None else bytes(b.data) for b in bodies]

    reader = RangeReader()
    whole = (ByteRange(place), ByteRange(place, -4), ByteRange(place, -40), ByteRange(place, 2, 5))
    assert reader.run(reads(*whole)) == [b"0123456789", b"6789", b"0123456789", b"234"]
    assert reader.run(reads(ByteRange(place.parent / "none", 0, 5))) == [None]
    with pytest.raises(ReadError, match=r"2 bytes came from .*object in place of 4"):
        reader.run(reads(ByteRange(place, 8, 12)))


def test_errors_keep_secrets() -> None:
    error = OSError("GET https://user:pass@host/key?X-Amz-Signature=abc&x=1 failed: <Code>x</Code>")
    said = describe(error)
    assert "pass" not in said
    assert "abc" not in said
    assert said.startswith("OSError: GET https://host/key")


def test_a_damaged_index_is_said(store_root: Path, tmp_path: Path) -> None:
    array = sorted(store_root.glob("*.zarr/*/dem_elev/dem_elev"))[0]
    metadata = json.loads((array / "zarr.json").read_text())
    copy = tmp_path / "dem_elev"
    shard = copy / "c" / "0" / "0" / "0"
    shard.parent.mkdir(parents=True)
    data = bytearray((array / "c" / "0" / "0" / "0").read_bytes())
    data[-10] ^= 1
    shard.write_bytes(bytes(data))
    sharded = ShardedArray(resolve(copy), metadata)
    with pytest.raises(ReadError, match=r"index of .*dem_elev/c/0/0/0 is damaged"):
        RangeReader().run(load_indexes([(sharded, (0, 0))]))
    metadata["codecs"][0]["configuration"]["chunk_shape"] = [1, 512, 512]
    with pytest.raises(StoreLayoutError, match="Chunks of"):
        ShardedArray(resolve(copy), metadata)
