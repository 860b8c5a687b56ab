"""Bytes of the codec profiles against TIFFs, and how fast aerial images are decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from rasterio.io import MemoryFile
from rasterio.transform import from_origin
from zarr.storage import MemoryStore

from benchmarks.harness import Row, Workspace, benchmark, interleaved, timed
from flairhub.modalities import MODALITIES, Kind, Modality
from flairhub.store.chunks import ChunkCodec
from flairhub.store.codecs import PROFILES, codecs

Pixels = npt.NDArray[Any]

TILES = Path(__file__).parents[2] / "shared" / "samples"
"""Real aerial images with near infrared first (TreeSatAI, Ahlswede et al., CC BY 4.0)."""

TIFFS: dict[str, dict[str, Any]] = {
    "deflate": {"compress": "deflate", "zlevel": 6, "predictor": 2},
    "LZW": {"compress": "lzw"},
}
"""What TIFFs are compressed with: the best that every reader knows, and bare LZW."""

STORE_GOALS = {
    "fast": {"deflate": 0.80, "LZW": 0.50},
    "portable": {"deflate": 1.25, "LZW": 0.80},
    "archive": {"deflate": 0.65, "LZW": 0.40},
}
TILE_GOALS = {
    # Zarr's own filters know no correlation of bands: see docs/codecs.md
    "fast": {"deflate": 1.02, "LZW": 0.60},
    "portable": {"deflate": 1.35, "LZW": 0.80},
    "archive": {"deflate": 0.80, "LZW": 0.50},
}
DECODING_GOALS = {"fast": 1.0, "archive": 0.5}


@benchmark
def coding(workspace: Workspace) -> Iterator[Row]:
    """Pixels of every raster as chunks of each profile, and as TIFFs."""
    rasters = [
        (MODALITIES[key], _untiff(file.read()))
        for roi in workspace.rois()
        for files in roi.files.values()
        for key, file in files.items()
    ]
    yield from _bytes("sample", rasters, STORE_GOALS, "all rasters of the sample")
    aerial = MODALITIES["aerial_rgbi"]
    yield from _decoding([pixels for modality, pixels in rasters if modality is aerial])
    # only where the project was made: elsewhere there is nothing real to measure on
    tiles = [
        (aerial, np.roll(_untiff(path.read_bytes()), -1, axis=0))
        for path in sorted(TILES.glob("*20cm*.tif"))
    ]
    if tiles:
        yield from _bytes("tiles", tiles, TILE_GOALS, "real 20 cm aerial images")


def _bytes(
    what: str,
    rasters: Sequence[tuple[Modality, Pixels]],
    goals: dict[str, dict[str, float]],
    note: str,
) -> Iterator[Row]:
    tiffs = {
        name: sum(len(_tiff(pixels, options)) for _, pixels in rasters)
        for name, options in TIFFS.items()
    }
    for profile in PROFILES:
        size = sum(
            len(_codec(modality.key, profile, chunk.shape).encode(chunk))
            for modality, pixels in rasters
            for chunk in _chunks(modality, pixels)
        )
        for name, peer in tiffs.items():
            yield Row(
                f"{profile}, {what}/{name}", "MB", size / 1e6, peer / 1e6, goals[profile][name],
                "lower", f"{note}; peer: {name} TIFFs",
            )  # fmt: skip


def _decoding(images: Sequence[Pixels]) -> Iterator[Row]:
    raw = sum(pixels.nbytes for pixels in images) / 1e6
    aerial = MODALITIES["aerial_rgbi"]
    codec = {p: _codec(aerial.key, p, images[0].shape) for p in DECODING_GOALS}
    coded = {p: [made.encode(pixels) for pixels in images] for p, made in codec.items()}
    tiffs = [_tiff(pixels, TIFFS["deflate"]) for pixels in images]

    def decode(profile: str) -> float:
        return raw / timed(lambda: [codec[profile].decode(data) for data in coded[profile]])[0]

    def read() -> float:
        return raw / timed(lambda: [_untiff(data) for data in tiffs])[0]

    contestants = {profile: partial(decode, profile) for profile in coded}
    found = interleaved({**contestants, "peer": read})
    for profile, goal in DECODING_GOALS.items():
        yield Row(
            f"{profile}, decoding", "MB/s", found[profile], found["peer"], goal, "higher",
            "aerial images of the sample, one core; peer: rasterio reads deflate TIFFs in memory",
        )  # fmt: skip


def _chunks(modality: Modality, pixels: Pixels) -> Iterator[Pixels]:
    """Yield what of a raster file is an inner chunk of the store."""
    if modality.temporal:
        pixels = pixels.reshape(-1, len(modality.bands), *pixels.shape[1:])
    if modality.kind is Kind.MASK:
        yield from np.moveaxis(pixels, 1, 0)
    else:
        yield pixels[0] if modality.is_label and len(modality.bands) == 1 else pixels


@cache
def _codec(key: str, profile: str, shape: tuple[int, ...]) -> ChunkCodec:
    modality = MODALITIES[key]
    array: zarr.Array[Any] = zarr.create_array(
        MemoryStore(),
        shape=shape,
        dtype=modality.dtype,
        chunks=shape,
        shards=shape,
        **codecs(modality, profile),
    )
    return ChunkCodec(array.metadata.to_dict())


def _tiff(pixels: Pixels, options: dict[str, Any]) -> bytes:
    count, height, width = pixels.shape
    with MemoryFile() as file:
        with file.open(
            driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype,
            interleave="pixel", transform=from_origin(0, 0, 0.2, 0.2), **options,
        ) as dataset:  # fmt: skip
            dataset.write(pixels)
        return bytes(file.read())


def _untiff(data: bytes) -> Pixels:
    with MemoryFile(data) as file, file.open() as dataset:
        found: Pixels = dataset.read()
    return found
