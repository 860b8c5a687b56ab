"""A Zarr codec that keeps an 8-bit chunk as lossless WebP; `docs/codecs.md` says what it saves.

WebP's own transforms make red and blue differences to green, but leave alpha, where the fourth band
goes, as it is. In its place the difference to the second band is kept: a tenth fewer bytes on real
aerial images, for an addition. Numbers wrap around, so that nothing is lost.

A chunk is ``bands`` (uint16) and then, for every image of up to four bands, its size (uint32) and a
WebP file; integers are little-endian. Missing colours are 0.

References
----------
Zarr v3 core specification, ``zarr-specs.readthedocs.io/en/latest/v3``: array-to-bytes codecs and
the names of extensions. RFC 9649: WebP lossless; libwebp writes at most 16383 pixels a side.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from typing import Any, Self

import imagecodecs
import numpy as np
import numpy.typing as npt
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.common import JSON, parse_named_configuration
from zarr.registry import register_codec

from flairhub.errors import StoreLayoutError

Pixels = npt.NDArray[np.uint8]

NAME = "flairhub.webp"
"""In ``zarr.json``, and of the entry point through which Zarr finds the codec."""

_METHOD = 4
"""WebP's effort, 0 to 6: 6 takes over ten times as long for 2 % fewer bytes."""

_QUALITY = 20
"""How hard the entropy coder tries, 0 to 100: 70 takes twice as long for 1 % fewer bytes."""

_MOST_PIXELS = 16383
_HEADER, _SIZE = struct.Struct("<H"), struct.Struct("<I")


@dataclass(frozen=True)
class WebpCodec(ArrayBytesCodec):
    """Array-to-bytes codec for chunks ``([leading,] y, x)`` of uint8, bit for bit."""

    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """Return the codec that ``zarr.json`` names."""
        parse_named_configuration(data, NAME, require_configuration=False)
        return cls()

    def to_dict(self) -> dict[str, JSON]:
        """Return what stands in ``zarr.json``; the bytes tell how to decode them."""
        return {"name": NAME}

    def validate(self, *, dtype: Any, **_: object) -> None:  # noqa: ANN401 - Zarr's own types
        """Refuse arrays of another type when they are created or opened."""
        if dtype.to_native_dtype() != np.uint8:
            msg = f"{NAME} holds uint8 pixels, not {dtype.to_native_dtype()}."
            raise StoreLayoutError(msg)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Cannot be told beforehand."""
        raise NotImplementedError

    def encode_pixels(self, pixels: Pixels) -> bytes:
        """Return the bytes of a chunk ``([leading,] y, x)``.

        Raises
        ------
        StoreLayoutError
            If WebP cannot hold the chunk.
        """
        if pixels.ndim < 2 or pixels.dtype != np.uint8 or max(pixels.shape[-2:]) > _MOST_PIXELS:
            msg = (
                f"{NAME} holds uint8 chunks (..., y, x) of at most {_MOST_PIXELS} pixels a side, "
                f"not {pixels.dtype} {pixels.shape}."
            )
            raise StoreLayoutError(msg)
        bands = pixels.reshape(-1, *pixels.shape[-2:])
        parts = [_HEADER.pack(len(bands))]
        for first in range(0, len(bands), 4):
            image = _encode_image(bands[first : first + 4])
            parts += [_SIZE.pack(len(image)), image]
        return b"".join(parts)

    def decode_pixels(self, data: bytes | memoryview) -> Pixels:
        """Return the pixels ``(bands, y, x)`` of a chunk, its leading dimensions as one.

        Raises
        ------
        ValueError
            If the bytes are damaged.
        """
        whole = bytes(data)
        images: list[Pixels] = []
        try:
            (bands,) = _HEADER.unpack_from(whole)
            offset = _HEADER.size
            for first in range(0, bands, 4):
                (size,) = _SIZE.unpack_from(whole, offset)
                offset += _SIZE.size
                image = whole[offset : offset + size]
                images.append(_decode_image(image, min(4, bands - first)))
                offset += size
            return np.concatenate(images) if len(images) > 1 else images[0]
        except (struct.error, IndexError, RuntimeError) as error:
            msg = f"The images of a chunk of {len(whole)} bytes are damaged: {error}."
            raise ValueError(msg) from error

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        encoded = await asyncio.to_thread(self.encode_pixels, chunk_data.as_numpy_array())
        return chunk_spec.prototype.buffer.from_bytes(encoded)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        pixels = await asyncio.to_thread(self.decode_pixels, chunk_data.to_bytes())
        return chunk_spec.prototype.nd_buffer.from_numpy_array(pixels.reshape(chunk_spec.shape))


def _encode_image(bands: Pixels) -> bytes:
    """Return one to four bands as a WebP file."""
    channels = 4 if len(bands) == 4 else 3
    image = np.zeros((*bands.shape[1:], channels), np.uint8)
    if len(bands) == 1:
        image[..., 1] = bands[0]  # green: the one that others are differences to
    else:
        image[..., : len(bands)] = bands.transpose(1, 2, 0)
    if channels == 4:
        image[..., 3] -= image[..., 1]
    # lossless in imagecodecs is also exact: colours survive where alpha is 0
    encoded = imagecodecs.webp_encode(image, level=_QUALITY, method=_METHOD, lossless=True)
    return bytes(encoded)


def _decode_image(data: bytes, bands: int) -> Pixels:
    """Return the bands ``(bands, y, x)`` of one WebP file."""
    # an alpha that is 255 everywhere is not written, but asked for
    image = imagecodecs.webp_decode(data, hasalpha=bands == 4)
    if bands == 1:
        return np.ascontiguousarray(image[None, ..., 1])
    pixels: Pixels = np.ascontiguousarray(image[..., :bands].transpose(2, 0, 1))
    if bands == 4:
        pixels[3] += pixels[1]
    return pixels


register_codec(NAME, WebpCodec)
