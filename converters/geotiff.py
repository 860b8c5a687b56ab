"""The header of a GeoTIFF: the ten tags that say whether a raster is what the registry expects.

General readers turn every tag into objects, of which a series has thousands: they cost as much as
all pixels of a patch. What is not plain here is left to GDAL, which reads everything.

References
----------
TIFF 6.0, sections 2 and 8; BigTIFF; OGC GeoTIFF 1.1, requirements 1-5 and 9-11.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_WIDTH, _LENGTH, _BITS, _FILL_ORDER = 256, 257, 258, 266
_SAMPLES, _PLANES, _FORMAT = 277, 284, 339
_OFFSETS, _COUNTS = (273, 324), (279, 325)
_SCALE, _TIE, _MATRIX, _KEYS = 33550, 33922, 34264, 34735

_TYPES = {1: "B", 3: "H", 4: "I", 12: "d", 16: "Q"}
_LAYOUT = (_WIDTH, _LENGTH, _BITS, _FILL_ORDER, _SAMPLES, _PLANES, _FORMAT, *_OFFSETS, *_COUNTS)
_WANTED = frozenset((*_LAYOUT, _SCALE, _TIE, _MATRIX, _KEYS))
_DTYPES = {(8, 1): "uint8", (16, 1): "uint16", (32, 3): "float32"}

_RASTER_TYPE, _PROJECTED, _LINEAR_UNITS = 1025, 3072, 3076
_PIXEL_IS_AREA, _METRE = 1, 9001


@dataclass(frozen=True, slots=True)
class Header:
    """What the first image of a file is: samples a pixel, dtype, layout, and place on earth."""

    width: int
    height: int
    samples: int
    dtype: str
    separate: bool
    epsg: int
    transform: tuple[float, float, float, float, float, float]


def read_header(data: bytes) -> Header | None:
    """Return the header of a north-up raster of one dtype in metres; None for any other file.

    Strips that are not there (GDAL's sparse files) also give None.

    Raises
    ------
    struct.error, IndexError, KeyError, ValueError
        If the file is cut short or no TIFF.
    """
    tags = _tags(data)
    samples = tags.get(_SAMPLES, (1,))[0]
    bits, kinds = set(tags.get(_BITS, (1,))), set(tags.get(_FORMAT, (1,)))
    dtype = _DTYPES.get((bits.pop(), kinds.pop())) if len(bits) == len(kinds) == 1 else None
    offsets = next((tags[t] for t in _OFFSETS if t in tags), (0,))
    counts = next((tags[t] for t in _COUNTS if t in tags), (0,))
    keys = _geo_keys(tags.get(_KEYS, ()))
    scale, tie = tags.get(_SCALE), tags.get(_TIE)
    plain = (
        dtype is not None
        and tags.get(_FILL_ORDER, (1,)) == (1,)
        and all(offsets)
        and all(counts)
        and _MATRIX not in tags
        and scale is not None
        and tie is not None
        and len(tie) == 6
        and not any(tie[:3])
        and keys.get(_RASTER_TYPE) == _PIXEL_IS_AREA
        and keys.get(_LINEAR_UNITS, _METRE) == _METRE
        and _PROJECTED in keys
    )
    if not plain or dtype is None or scale is None or tie is None:
        return None
    return Header(
        tags[_WIDTH][0],
        tags[_LENGTH][0],
        samples,
        dtype,
        tags.get(_PLANES, (1,))[0] == 2,
        keys[_PROJECTED],
        (scale[0], 0.0, tie[3], 0.0, -scale[1], tie[4]),
    )


def _tags(data: bytes) -> dict[int, tuple[int, ...]]:
    """Return the wanted tags of the first directory."""
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    (version,) = struct.unpack_from(order + "H", data, 2)
    big = {42: False, 43: True}[version]
    head, number, entry = ("Q", "Q", "HHQQ") if big else ("I", "H", "HHII")
    start = struct.unpack_from(order + head, data, 8 if big else 4)[0]
    (count,) = struct.unpack_from(order + number, data, start)
    start += struct.calcsize(number)
    size, inline = struct.calcsize("<" + entry), 8 if big else 4
    found = {}
    for at in range(start, start + count * size, size):
        tag, kind, length, where = struct.unpack_from(order + entry, data, at)
        if tag not in _WANTED:
            continue
        form = f"{order}{length}{_TYPES[kind]}"
        place = at + size - inline if struct.calcsize(form) <= inline else where
        found[tag] = struct.unpack_from(form, data, place)
    return found


def _geo_keys(directory: tuple[int, ...]) -> dict[int, int]:
    """Return the keys whose values lie in the directory itself."""
    return {
        key: value
        for key, place, _, value in zip(*(iter(directory[4:]),) * 4, strict=True)
        if place == 0
    }
