"""Patches a second that reach a training loop from a local disk, against what people would use."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Row, Workspace, benchmark, interleaved
from benchmarks.peers import decoding, litdata_copy
from benchmarks.peers.content import AERIAL, ALL, WORKERS, Content, loader
from benchmarks.peers.tiff_dataset import TiffDataset
from benchmarks.peers.xbatcher_dataset import XbatcherDataset
from converters.convert import convert
from converters.flairhub_tree import FlairHubTree
from converters.miniature import write_sample
from flairhub.batches.plan import PatchPlan
from flairhub.batches.streaming import stream

BATCH = 16
EPOCHS = 4
"""Epochs read in one go, so that a short sample has no beginning and end of its own."""

THREADS = max(2, os.cpu_count() or 2)
PREFETCH = 2 * BATCH
REALISTIC_PATCHES = 50
"""Patches of a ROI at least: FLAIR-HUB has 85 on average, and indexes are read once a ROI."""


def realistic(workspace: Workspace) -> Workspace:
    """Return the workspace, or one with larger ROIs where its own are small."""
    rois = workspace.rois()
    if sum(len(roi.files) for roi in rois) >= REALISTIC_PATCHES * len(rois):
        return workspace
    place = workspace.scratch / "large-rois"
    found = Workspace(place / "raw", place / "root", workspace.scratch)
    if not place.exists():
        write_sample(found.raw, domains=1, rois=2, rows=8, columns=8, seed=0, long_series=True)
        convert(FlairHubTree(found.raw), str(found.root))
    return found


def epochs(plan: PatchPlan, count: int = EPOCHS) -> PatchPlan:
    """Return the windows of several shuffled epochs, one after the other."""
    drawn = np.random.default_rng(0)
    return plan.subset(np.concatenate([drawn.permutation(len(plan)) for _ in range(count)]))


def rate(batches: Iterable[Any], size: Callable[[Any], int] = len) -> float:
    """Take all batches, and return samples a second."""
    started = time.perf_counter()
    count = sum(size(batch) for batch in batches)
    return count / (time.perf_counter() - started)


def samples(batch: dict[str, Any]) -> int:
    """Return the number of samples of a peer's batch."""
    return len(next(iter(batch.values())))


def best(found: dict[str, float], name: str) -> tuple[float, str]:
    """Return a peer's better number over its `WORKERS`, and both in words."""
    rates = {workers: found[f"{name} {workers}"] for workers in WORKERS}
    return max(rates.values()), ", ".join(f"{r:.0f} with {w} workers" for w, r in rates.items())


@benchmark
def streaming(workspace: Workspace) -> Iterator[Row]:
    """Shuffled epochs from a local disk, warm, all contestants in turn."""
    workspace = realistic(workspace)
    patches = [
        {key: Path(file.url) for key, file in files.items()}
        for roi in workspace.rois()
        for files in list(roi.files.values())[::2]  # enough to wait for
    ]
    yield from _all(workspace, patches)
    found = interleaved(_against_tiffs(workspace, patches, AERIAL), repeats=3)
    peer, words = best(found, "TIFF")
    yield Row(
        "stream, aerial and labels", "patches/s", found["ours"], peer, 12.0, "higher",
        f"local, warm; peer: a torch Dataset over the GeoTIFFs, {words}",
    )  # fmt: skip


def _all(workspace: Workspace, patches: list[dict[str, Path]]) -> Iterator[Row]:
    plan = ALL.plan(workspace.root)
    copy = workspace.scratch / "litdata"
    litdata_copy.write(workspace.root, ALL, copy)
    windows = decoding.chunks(workspace.root, epochs(plan), ALL)
    lazy = XbatcherDataset(workspace.root, plan.subset(np.arange(0, len(plan), 2)), ALL)
    contestants = _against_tiffs(workspace, patches, ALL)
    for workers in WORKERS:
        one = loader(lazy, BATCH, workers)
        contestants[f"xbatcher {workers}"] = partial(rate, one, samples)
        other = litdata_copy.loader(str(copy), BATCH, workers)
        contestants[f"litdata {workers}"] = partial(_several, other)
    for name, measure in contestants.items():
        if name.endswith(" 2"):
            measure()  # starts its processes
    found = interleaved(contestants, repeats=3)
    ours = found["ours"]
    tiff, words = best(found, "TIFF")
    yield Row(
        "stream, all modalities", "patches/s", ours, tiff, 20.0, "higher",
        f"local, warm; peer: a torch Dataset over the GeoTIFFs, {words}",
    )  # fmt: skip
    xbatcher, words = best(found, "xbatcher")
    yield Row(
        "stream/xbatcher", "patches/s", ours, xbatcher, 4.0, "higher",
        f"the same; peer: xbatcher's generators and load() over the same store, {words}",
    )  # fmt: skip
    litdata, words = best(found, "litdata")
    yield Row(
        "stream/litdata", "patches/s", ours, litdata, 0.9, "higher",
        f"the same; peer: litdata over a copy without compression, {words}",
    )  # fmt: skip
    yield Row(
        "bytes/litdata", "MB", litdata_copy.size(workspace.root) / 1e6,
        litdata_copy.size(copy) / 1e6, 0.45, "lower",
        "the stores with all that is in them; peer: that copy",
    )  # fmt: skip
    # next to each other, and often: both take all cores, and what else runs there hits one of them
    pair = {"ours": contestants["ours"], "floor": lambda: _decoding(windows)}
    found = interleaved(pair, repeats=9)
    yield Row(
        "stream/decoding", "patches/s", found["ours"], found["floor"], 0.8, "higher",
        f"the same; peer: the chunks decoded from memory in {THREADS} threads, nothing else",
    )  # fmt: skip


def _against_tiffs(
    workspace: Workspace, patches: list[dict[str, Path]], content: Content
) -> dict[str, Callable[[], float]]:
    plan = epochs(content.plan(workspace.root))
    batches = stream(plan, batch_size=BATCH, threads=THREADS, prefetch=PREFETCH)
    dataset = TiffDataset(patches, content)
    loaders = {f"TIFF {workers}": loader(dataset, BATCH, workers) for workers in WORKERS}
    peers = {name: partial(rate, one, samples) for name, one in loaders.items()}
    return {"ours": partial(rate, batches), **peers}


def _decoding(windows: list[list[decoding.Chunk]]) -> float:
    started = time.perf_counter()
    return decoding.decode(windows, THREADS) / (time.perf_counter() - started)


def _several(batches: Iterable[Any]) -> float:
    """Take `EPOCHS` iterations, one after the other."""
    return rate((batch for _ in range(EPOCHS) for batch in batches), samples)
