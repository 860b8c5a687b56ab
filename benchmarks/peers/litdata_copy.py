"""litdata's own copy of the same samples, in the store's types, and its loader.

After litdata's documentation: tensors as leaves (the serializer that copies least), chunks of
64 MB, zstd around each sample, so that one is decompressed without its neighbours.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.peers.content import Content, Sample, collate
from flairhub.batches.streaming import stream

os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")  # it would ask the network

CHUNK_BYTES = "64MB"

_Job = tuple[str, Content, tuple[int, ...]]


def write(
    root: Path, content: Content, folder: Path, *, copies: int = 1, compression: str | None = None
) -> None:
    """Write all patches of the stores below `root` into `folder`, each `copies` times."""
    from litdata import optimize

    numbers = torch.randperm(
        len(content.plan(root)) * copies, generator=torch.Generator().manual_seed(0)
    )
    windows = [int(n) // copies for n in numbers]
    jobs: list[_Job] = [(str(root), content, tuple(windows[part::2])) for part in range(2)]
    level = {} if compression is None else {"compression_level": "sample"}
    optimize(
        _samples,
        jobs,
        str(folder),
        chunk_bytes=CHUNK_BYTES,
        num_workers=2,
        compression=compression,
        verbose=False,
        **level,
    )


def _samples(job: _Job) -> Iterator[Sample]:
    """Yield the samples of one job; all of its patches are kept in memory meanwhile."""
    root, content, windows = job
    known: dict[int, Sample] = {}
    distinct = sorted(set(windows))
    plan = content.plan(root).subset(torch.tensor(distinct).numpy())
    for number, batch in zip(distinct, stream(plan, batch_size=1), strict=True):
        known[number] = {key: value[0] for key, value in {**batch.inputs, **batch.labels}.items()}
    for number in windows:
        yield known[number]


def size(folder: Path) -> int:
    """Return the bytes of a copy."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def loader(
    url: str,
    batch_size: int,
    workers: int,
    *,
    start: str = "spawn",
    cache: Path | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Any:  # noqa: ANN401 - litdata is not typed
    """Return its loader over a copy; what it fetches goes through `cache`."""
    from litdata import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(
        url,
        cache_dir=None if cache is None else str(cache),
        shuffle=True,
        storage_options=dict(storage_options or {}),
        max_pre_download=4,
    )
    return StreamingDataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
        multiprocessing_context=start if workers else None,
    )


def remote_rate(
    url: str, storage_options: Mapping[str, Any], scratch: Path, batch_size: int, workers: int
) -> float:
    """Read one epoch of a remote copy, and return samples a second.

    Its cache on disk begins empty, since otherwise nothing would be remote but the first epoch.
    """
    from litdata.streaming import downloader

    # it lets its users set an endpoint, but not one without TLS
    downloader._OBSTORE_CLIENT_OPTIONS = {
        **downloader._OBSTORE_CLIENT_OPTIONS,
        "allow_http": True,
    }
    with TemporaryDirectory(dir=scratch) as cache:
        batches = loader(
            url,
            batch_size,
            workers,
            start="fork",  # its default; must not follow a read in this process
            cache=Path(cache),
            storage_options=storage_options,
        )
        started = time.perf_counter()
        count = sum(len(next(iter(batch.values()))) for batch in batches)
        return count / (time.perf_counter() - started)
