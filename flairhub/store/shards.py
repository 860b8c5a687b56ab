"""One sharded array, read window by window: which bytes a window needs, and its pixels of them.

A shard's index is read once and kept. It lies at the shard's end, so that one request brings it
without knowing the shard's size; a shard that is hardly larger than its index, such as a snow mask,
comes whole with it.

A chunk that is not there reads as fill value only where the store does not say that it holds it: an
object that was lost must not become an image of zeros.

References
----------
Zarr v3 core specification, ``zarr-specs.readthedocs.io/en/latest/v3``: sharding_indexed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from flairhub.errors import ReadError, StoreLayoutError
from flairhub.grids import Window
from flairhub.store.access import Location
from flairhub.store.chunks import ABSENT, ChunkCodec
from flairhub.store.ranges import Body, ByteRange, Reads

Pixels = npt.NDArray[Any]

TAIL_BYTES = 16 * 1024
"""What is read of a shard's end at least; chunks that come with it cost no request."""

ATTEMPTS = 6
"""How often bytes are asked for whose checksum is wrong; the storage may hold them right."""


class MissingChunkError(ReadError):
    """A chunk is not there, though the store says that it is."""


@dataclass(frozen=True, slots=True)
class ChunkPart:
    """What a window takes of one chunk.

    Parameters
    ----------
    data
        The chunk's bytes where they came with the index, else None.
    where
        Where its bytes lie, if the shard holds it and `data` is None.
    source, target
        Rows and columns in the chunk, and in the window.
    """

    data: bytes | None
    where: ByteRange | None
    source: tuple[slice, slice]
    target: tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class _Index:
    """Where a shard's chunks lie: offset and length, shape ``(rows, columns, 2)``."""

    place: Location
    chunks: npt.NDArray[np.uint64]
    e_tag: str | None
    tail: bytes
    tail_begins: int


class ShardedArray:
    """An array whose chunks hold all but its last two dimensions whole.

    Parameters
    ----------
    place
        The array.
    metadata
        Its ``zarr.json``.
    held
        Which chunks it must hold, ``row, column``, or whether all; others read as fill value.

    Raises
    ------
    StoreLayoutError
        If the array is not laid out so.
    """

    def __init__(
        self,
        place: Location,
        metadata: Mapping[str, Any],
        held: npt.NDArray[np.bool_] | bool = False,
    ) -> None:
        self.place = place
        self.codec = codec = _codec(json.dumps({**metadata, "attributes": {}}))
        self.shape: tuple[int, ...] = tuple(metadata["shape"])
        self.fill = np.array(metadata["fill_value"], codec.dtype)
        if codec.shape[:-2] != self.shape[:-2] or len(self.shape) < 2:
            msg = f"Chunks of {place} have the shape {codec.shape}, the array {self.shape}."
            raise StoreLayoutError(msg)
        down, across = (-(-self.shape[axis] // codec.shape[axis]) for axis in (-2, -1))
        try:
            self._held = np.broadcast_to(held, (down, across))
        except ValueError as error:
            msg = f"{place} has {down} x {across} chunks, but the ROI {np.shape(held)} patches."
            raise StoreLayoutError(msg) from error
        encoding = metadata["chunk_key_encoding"]
        separator = encoding.get("configuration", {}).get("separator", "/")
        self._separator: str = separator
        self._first = separator.join(["c", *("0" for _ in self.shape[:-2])])
        self._indexes: dict[tuple[int, int], _Index | None] = {}
        (rows, columns), (height, width) = codec.chunks_per_shard[-2:], codec.shape[-2:]
        self._shard_size = rows * height, columns * width

    def missing(self, window: Window) -> list[tuple[int, int]]:
        """Return the shards that a window touches whose indexes are not known yet."""
        rows, columns = self._shard_size
        down = range(window.row // rows, -(-(window.row + window.height) // rows))
        across = range(window.column // columns, -(-(window.column + window.width) // columns))
        return [key for key in product(down, across) if key not in self._indexes]

    def parts(self, window: Window) -> list[ChunkPart]:
        """Return what a window takes of which chunks; no index may be `missing`.

        Raises
        ------
        MissingChunkError
            If one of them is not there that must be.
        """
        rows, columns = self.codec.chunks_per_shard[-2:]
        height, width = self.codec.shape[-2:]
        down = _overlaps(window.row, window.height, height)
        across = _overlaps(window.column, window.width, width)
        found = []
        for (y, from_y, to_y), (x, from_x, to_x) in product(down, across):
            index = self._indexes[y // rows, x // columns]
            data, where = None, None
            if index is not None:
                offset, size = index.chunks[y % rows, x % columns].tolist()
            if index is None or offset == ABSENT:
                if self._must_hold(y, x):
                    shard = self._shard(y // rows, x // columns)
                    lacks = "does not exist" if index is None else f"lacks its chunk {y}, {x}"
                    msg = f"{shard} {lacks}, though the ROI's metadata say that it is there."
                    raise MissingChunkError(msg)
            elif offset >= index.tail_begins:
                begin = offset - index.tail_begins
                data = index.tail[begin : begin + size]
            else:
                where = ByteRange(index.place, offset, offset + size, index.e_tag)
            found.append(ChunkPart(data, where, (from_y, from_x), (to_y, to_x)))
        return found

    def assemble(
        self, parts: Sequence[ChunkPart], data: Sequence[bytes | memoryview | None], out: Pixels
    ) -> None:
        """Fill a window with what its chunks hold.

        Parameters
        ----------
        parts
            From `parts`.
        data
            The bytes of each; None where the shard lacks the chunk.
        out
            The window, shape ``(..., height, width)`` and of the array's dtype.

        Raises
        ------
        ValueError
            If bytes are not those of the chunk.
        """
        for part, found in zip(parts, data, strict=True):
            target = out[(..., *part.target)]
            if found is None:
                target[...] = self.fill
            elif target.shape == self.codec.shape and target.flags.c_contiguous:
                self.codec.decode(found, target)
            else:
                target[...] = self.codec.decode(found)[(..., *part.source)]

    def tail(self, shard: tuple[int, int], attempt: int = 0) -> ByteRange:
        """Return the end of a shard, in which its index lies."""
        size = max(self.codec.index_bytes, TAIL_BYTES)
        return ByteRange(self._shard(*shard), start=-size, attempt=attempt)

    def take(self, shard: tuple[int, int], place: Location, body: Body) -> None:
        """Keep the index that a shard's end holds; raises `ValueError` where it is damaged."""
        self._indexes[shard] = self._parse(place, body)

    def _parse(self, place: Location, body: Body) -> _Index | None:
        """Return the index, None where there is no shard; raises `ValueError` at a damaged one."""
        if body.data is None:
            return None
        data = bytes(body.data)
        size = self.codec.index_bytes
        index = data[-size:-4]
        if len(data) < size or struct.unpack("<I", data[-4:])[0] != google_crc32c.value(index):
            raise ValueError
        chunks = np.frombuffer(index, "<u8").reshape(*self.codec.chunks_per_shard[-2:], 2)
        held = chunks[chunks[..., 0] != ABSENT]
        ends = int(held.sum(axis=1).max(initial=0))  # chunks and index leave no gap
        begins = max(0, ends + size - len(data))
        if len(held) and int(held[:, 0].max()) >= begins:
            return _Index(place, chunks, body.e_tag, data[:-size], begins)
        return _Index(place, chunks.copy(), body.e_tag, b"", ends)

    def _must_hold(self, row: int, column: int) -> bool:
        """Tell whether a chunk must be there; none is outside of the array."""
        down, across = self._held.shape
        return 0 <= row < down and 0 <= column < across and bool(self._held[row, column])

    def _shard(self, row: int, column: int) -> Location:
        return self.place / f"{self._first}{self._separator}{row}{self._separator}{column}"


def load_indexes(wanted: Iterable[tuple[ShardedArray, tuple[int, int]]]) -> Reads[None]:
    """Read the indexes of shards, of all arrays at once.

    Raises
    ------
    ReadError
        If one is damaged.
    """
    missing = list(wanted)
    for attempt in range(ATTEMPTS):
        tails = [array.tail(shard, attempt) for array, shard in missing]
        bodies = yield tails
        failed = []
        for one, tail, body in zip(missing, tails, bodies, strict=True):
            array, shard = one
            try:
                array.take(shard, tail.place, body)
            except ValueError:
                failed.append(one)
        missing = failed
        if not missing:
            return
    array, shard = missing[0]
    msg = (
        f"The index of {array.tail(shard).place} is damaged: its checksum does not fit. "
        "`flairhub verify --checksums` tells what else is."
    )
    raise ReadError(msg)


@lru_cache(maxsize=4096)
def _codec(metadata: str) -> ChunkCodec:
    """Share a codec among the arrays of like ROIs: making one takes as long as a small read."""
    return ChunkCodec(json.loads(metadata))


@lru_cache(maxsize=4096)
def _overlaps(start: int, length: int, size: int) -> tuple[tuple[int, slice, slice], ...]:
    """Return the chunks along one axis: number, part of the chunk, part of the window."""
    found = []
    for number in range(start // size, -(-(start + length) // size)):
        low, high = max(start, number * size), min(start + length, (number + 1) * size)
        inside = slice(low - number * size, high - number * size)
        found.append((number, inside, slice(low - start, high - start)))
    return tuple(found)
