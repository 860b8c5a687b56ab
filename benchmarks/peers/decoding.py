"""The least that any reader of these stores must do: decode the chunks, here from memory."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.content import Content
from flairhub.batches.plan import PatchPlan
from flairhub.grids import PATCH_SIDE_M
from flairhub.modalities import MODALITIES, Kind
from flairhub.store.chunks import ChunkCodec

Chunk = tuple[ChunkCodec, bytes]


def chunks(root: Path, plan: PatchPlan, content: Content) -> list[list[Chunk]]:
    """Return the chunks of each window of a plan of patches, as they lie in the stores."""
    arrays: dict[Path, tuple[ChunkCodec, dict[str, bytes]]] = {}
    found = []
    for index, window in zip(plan.roi_index, plan.windows, strict=True):
        grid = plan.rois[index].grid
        row = round((grid.top - window.extent.top) / PATCH_SIDE_M)
        column = round((window.extent.left - grid.left) / PATCH_SIDE_M)
        place = root / f"{window.domain}.zarr" / window.roi
        mine = []
        for key in content.rasters:
            modality = MODALITIES[key]
            names = modality.band_names if modality.kind is Kind.MASK else (key,)
            for array in (place / modality.group / name for name in names):
                if array not in arrays:
                    arrays[array] = ChunkCodec(json.loads((array / "zarr.json").read_text())), {}
                codec, shards = arrays[array]
                mine.append((codec, _chunk(array, codec, shards, row, column)))
        found.append(mine)
    return found


def _chunk(
    array: Path, codec: ChunkCodec, shards: dict[str, bytes], row: int, column: int
) -> bytes:
    rows, columns = codec.chunks_per_shard[-2:]
    lead = ["0"] * (len(codec.shape) - 2)
    name = "/".join(["c", *lead, str(row // rows), str(column // columns)])
    if name not in shards:
        shards[name] = (array / name).read_bytes()
    shard = shards[name]
    index = np.frombuffer(shard[-codec.index_bytes : -4], "<u8").reshape(rows, columns, 2)
    offset, length = (int(n) for n in index[row % rows, column % columns])
    return shard[offset : offset + length]


def decode(windows: list[list[Chunk]], threads: int) -> int:
    """Decode all chunks of all windows in some threads, and return the number of windows."""

    def one(chunks: list[Chunk]) -> list[Any]:
        return [codec.decode(data) for codec, data in chunks]

    with ThreadPoolExecutor(threads) as pool:
        return sum(1 for _ in chain(pool.map(one, windows)))
