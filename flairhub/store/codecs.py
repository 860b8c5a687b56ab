"""Which codecs compress which pixels: one table of profiles, chosen by measurement.

`docs/codecs.md` has the measurements. ``fast`` (default) converts fast and opens with Zarr-Python
alone: delta + Zstandard for 8-bit imagery, pcodec for 16-bit and floating-point numbers, Zstandard
for classes. ``portable`` uses only codecs of the Zarr v3 core specification, so that any reader can
open it. ``archive`` is the smallest: lossless WebP for 8-bit imagery and classes.
Every inner chunk ends in crc32c: Zarr itself notices no flipped bit.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

from flairhub.errors import UnknownNameError, did_you_mean
from flairhub.modalities import Kind, Modality
from flairhub.store.image_codec import WebpCodec

Profile = Literal["fast", "portable", "archive"]
PROFILES: tuple[str, ...] = get_args(Profile)

_ZSTD_LEVEL = {"fast": 1, "portable": 5, "archive": 15}
"""After delta, level 1 is smaller than 5 and ten times as fast; on bare numbers it is not."""

_PCODEC_LEVEL = {"fast": 6, "archive": 8}
"""8 saves 1 to 2 % more and takes up to three times as long."""

_PLAIN_MODEL: dict[str, Any] = {
    "mode_spec": "classic",
    "delta_spec": "try_consecutive",
    "delta_encoding_order": 1,
}
"""Differences of neighbours, which is what pcodec finds for reflectance and backscatter anyway."""

_PAGE = 2**16
"""Numbers of elevation that pcodec models together, of half a million in a chunk: its buffers then
stay in the cache, and are small enough not to be mapped anew each time."""


def codecs(modality: Modality, profile: str = "fast") -> dict[str, Any]:
    """Return ``filters``, ``serializer``, ``compressors`` for `zarr.create_array`.

    Raises
    ------
    UnknownNameError
        If the profile does not exist.
    """
    if profile not in PROFILES:
        msg = f"Unknown codec profile {profile!r}. {did_you_mean(profile, PROFILES)}"
        raise UnknownNameError(msg)
    dtype = modality.numpy_dtype
    if profile == "archive" and dtype.itemsize == 1:
        return {"filters": (), "serializer": WebpCodec(), "compressors": (Crc32cCodec(),)}
    # zarr spells the dtype of a single byte without an endianness, and refuses one
    plain = BytesCodec() if dtype.itemsize > 1 else BytesCodec(endian=None)
    zstd = {
        "filters": (),
        "serializer": plain,
        "compressors": (ZstdCodec(level=_ZSTD_LEVEL[profile]), Crc32cCodec()),
    }
    if profile == "portable" or modality.kind in (Kind.LABEL, Kind.MASK):
        return zstd
    from zarr.codecs.numcodecs import Delta, PCodec

    if dtype.itemsize == 1:
        return zstd | {"filters": (Delta(dtype=dtype.str),)}
    # its search for a model takes as long as the rest, and only elevation gains by it: its numbers
    # come in steps
    model = {"equal_pages_up_to": _PAGE} if modality.kind is Kind.ELEVATION else _PLAIN_MODEL
    return {
        "filters": (),
        "serializer": PCodec(level=_PCODEC_LEVEL[profile], **model),
        "compressors": (Crc32cCodec(),),
    }
