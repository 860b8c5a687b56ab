"""One inner chunk between pixels and bytes, and shards made of such bytes; no Zarr event loop.

The bytes are those that Zarr writes for the same metadata, so that either side may write and either
may read; what is saved is a thread hop for each codec of each chunk.

References
----------
Zarr v3 core specification, ``zarr-specs.readthedocs.io/en/latest/v3``: codecs bytes, zstd, crc32c,
sharding_indexed. Zarr-Python 3, ``zarr.codecs.numcodecs``: names and configurations of the others.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import google_crc32c
import imagecodecs
import numpy as np
import numpy.typing as npt
from numcodecs.registry import get_codec
from pcodec import standalone
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.registry import get_codec_class

from flairhub.errors import StoreLayoutError

Pixels = npt.NDArray[Any]

ABSENT = 2**64 - 1
"""Offset and length in a shard's index of a chunk that it does not hold."""

_RESIDUE = 0x48674BC7
"""CRC32C of whatever ends with its own CRC32C (RFC 3720, appendix B.4)."""


class ChunkCodec:
    """Encodes and decodes the inner chunks of one array.

    Parameters
    ----------
    metadata
        ``zarr.json`` of a sharded array, as parsed.

    Raises
    ------
    StoreLayoutError
        If the array is not sharded, or a codec has no form that works outside Zarr's event loop.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        outer = metadata["codecs"]
        if [codec["name"] for codec in outer] != ["sharding_indexed"]:
            names = ", ".join(codec["name"] for codec in outer)
            msg = f"Expected an array of shards; its codecs are {names}."
            raise StoreLayoutError(msg)
        sharding = outer[0]["configuration"]
        parsed = ArrayV3Metadata.from_dict(dict(metadata))
        self.dtype: np.dtype[Any] = parsed.dtype.to_native_dtype()
        self.shape: tuple[int, ...] = tuple(sharding["chunk_shape"])
        shard_shape = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        self.chunks_per_shard: tuple[int, ...] = tuple(
            whole // inner for whole, inner in zip(shard_shape, self.shape, strict=True)
        )
        self._steps = _steps(sharding["codecs"])
        # filters change no size: what follows them makes as many bytes as there are pixels
        self._filters = sum(decode is _sum for _, decode in self._steps)

    def encode(self, pixels: Pixels) -> bytes:
        """Return the bytes of one chunk of `shape` and `dtype`."""
        value: Any = np.ascontiguousarray(pixels, self.dtype)
        if value.shape != self.shape:
            msg = f"A chunk has the shape {self.shape}, not {value.shape}."
            raise StoreLayoutError(msg)
        for encode, _ in self._steps:
            value = encode(value)
        return bytes(value)

    def decode(self, data: bytes | memoryview, out: Pixels | None = None) -> Pixels:
        """Return the pixels of one chunk.

        Parameters
        ----------
        data
            The chunk as it lies in its shard.
        out
            Contiguous, of `shape` and `dtype`: filled and returned in place of a new array.

        Raises
        ------
        ValueError
            If the checksum differs, or the bytes are not those of such a chunk.
        """
        found = np.empty(self.shape, self.dtype) if out is None else out
        flat = found.reshape(-1)
        try:
            value: Any = data
            for number in reversed(range(len(self._steps))):
                value = self._steps[number][1](value, flat if number <= self._filters else None)
        except (RuntimeError, TypeError) as error:  # what codecs raise at damaged bytes
            msg = f"A chunk cannot be decoded: {error}."
            raise ValueError(msg) from error
        return found

    def shard(self, chunks: Mapping[tuple[int, ...], bytes]) -> list[bytes]:
        """Return the parts of a shard with chunks at their positions in it; others are absent.

        Chunks lie in the order of the mapping, the index with its checksum at the end. Nothing is
        copied: a shard of aerial images has tens of MB.
        """
        index = np.full((*self.chunks_per_shard, 2), ABSENT, "<u8")
        offset = 0
        for position, data in chunks.items():
            index[position] = offset, len(data)
            offset += len(data)
        tail = index.tobytes()
        return [*chunks.values(), tail + struct.pack("<I", google_crc32c.value(tail))]

    @property
    def index_bytes(self) -> int:
        """Size of a shard's index, its checksum included."""
        return 16 * prod(self.chunks_per_shard) + 4


Step = tuple[Callable[[Any], Any], Callable[[Any, Pixels | None], Any]]
"""Both directions of a codec. The second fills an array, flat, where it is given one."""


def _steps(codecs: Sequence[Mapping[str, Any]]) -> list[Step]:
    """Return the steps of a chain; the first one takes and fills pixels."""
    steps = [_step(codec) for codec in codecs]
    names = [codec["name"] for codec in codecs]
    if names[:2] == ["bytes", "zstd"]:  # pixels are what zstd makes of them
        (little, _), (pack, unpack) = steps[:2]
        return [(lambda pixels: pack(little(pixels)), unpack), *steps[2:]]
    if "bytes" in names:  # after filters, it changes no byte
        steps.pop(names.index("bytes"))
    return steps


def _step(codec: Mapping[str, Any]) -> Step:
    """Return the two directions of one codec of a chain."""
    name, options = codec["name"], dict(codec.get("configuration", {}))
    if name == "bytes":
        if options.get("endian", "little") != "little":
            msg = "Only little-endian stores are written by flairhub."
            raise StoreLayoutError(msg)
        return _little, _copy
    if name == "crc32c":
        return _seal, _unseal
    if name == "numcodecs.delta" and np.dtype(options["dtype"]).itemsize == 1:
        return _differences, _sum
    if name == "numcodecs.pcodec":
        return get_codec({"id": "pcodec", **options}).encode, _decompress
    if name == "zstd":
        return get_codec({"id": "zstd", **options}).encode, _unpack
    if name.startswith("numcodecs."):
        found = get_codec({"id": name.removeprefix("numcodecs."), **options})
        return found.encode, found.decode
    made: Any = get_codec_class(name).from_dict(dict(codec))
    if hasattr(made, "encode_pixels"):  # one of ours
        return made.encode_pixels, lambda data, out: _copy(made.decode_pixels(data), out)
    msg = f"The codec {name!r} is none that flairhub writes."
    raise StoreLayoutError(msg)


def _little(pixels: Pixels) -> Pixels:
    return pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)


def _copy(data: Any, out: Pixels | None) -> Any:  # noqa: ANN401 - whatever the codec before made
    if out is not None:
        found = np.frombuffer(data, out.dtype)
        _check_count(len(found), len(out))  # numpy would broadcast
        np.copyto(out, found)
    return data


def _unpack(data: Any, out: Pixels | None) -> Any:  # noqa: ANN401 - any buffer
    if out is None:
        return imagecodecs.zstd_decode(data)
    _check_count(len(imagecodecs.zstd_decode(data, out=out.view(np.uint8).data)), out.nbytes)
    return out


def _differences(pixels: Pixels) -> Pixels:
    """Return differences of bytes, flat; numcodecs makes two arrays more."""
    found: Pixels = imagecodecs.delta_encode(pixels.reshape(-1))
    return found


def _sum(data: Any, out: Pixels | None) -> Any:  # noqa: ANN401 - any buffer
    """Undo differences of bytes, where they lie; seven times as fast as numcodecs does."""
    if out is not None:
        _check_count(len(data), len(out))
    return imagecodecs.delta_decode(data, out=out)


def _check_count(found: int, expected: int) -> None:
    if found != expected:
        msg = f"{found} numbers are not the {expected} of a chunk"
        raise ValueError(msg)


def _decompress(data: Any, out: Pixels | None) -> Any:  # noqa: ANN401 - any buffer
    packed = bytes(data)  # pcodec takes nothing else
    if out is None:
        return standalone.simple_decompress(packed)
    progress = standalone.simple_decompress_into(packed, out)
    _check_count(progress.n_processed, len(out))
    if not progress.finished:
        msg = f"there are more numbers than the {len(out)} of a chunk"
        raise ValueError(msg)
    return out


def _seal(data: Any) -> bytes:  # noqa: ANN401 - any buffer
    found = bytes(data)
    return found + struct.pack("<I", google_crc32c.value(found))


def _unseal(data: Any, _: Pixels | None) -> memoryview:  # noqa: ANN401 - any buffer
    whole = bytes(data)  # no copy where it is; google_crc32c takes nothing else
    if google_crc32c.value(whole) != _RESIDUE or len(whole) < 4:
        msg = f"The checksum at the end of a chunk of {len(whole)} bytes does not fit it."
        raise ValueError(msg)
    return memoryview(whole)[:-4]
