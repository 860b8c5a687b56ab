"""Every profile gives every pixel back, bit for bit, through Zarr and without it."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.storage import MemoryStore

import flairhub
from converters.convert import convert
from converters.flairhub_tree import FlairHubTree
from converters.verify import verify
from flairhub.errors import StoreLayoutError, UnknownNameError
from flairhub.modalities import MODALITIES, Modality
from flairhub.store.chunks import ChunkCodec
from flairhub.store.codecs import PROFILES, codecs
from flairhub.store.image_codec import WebpCodec
from flairhub.store.layout import fill_value, leading_dims
from tests.trees import copy_domain

Pixels = npt.NDArray[np.generic]

SIDE = 24
"""Of a chunk here; odd against WebP's tiles and pcodec's pages alike."""

SPECIAL = np.array(
    [
        0x80000000,  # -0.0
        0x7F800000, 0xFF800000,  # infinities
        0x7FC00001, 0xFFC12345, 0x7FA00001,  # NaNs with payloads, the last one signalling
        0x00000001, 0x7F7FFFFF,  # the smallest and the largest
    ],
    np.uint32,
).view(np.float32)  # fmt: skip


def _lead(modality: Modality) -> tuple[int, ...]:
    sizes = {"time": 5, "band": len(modality.bands), "level": len(modality.bands)}
    return tuple(sizes[d] for d in leading_dims(modality))


def _pixels(modality: Modality) -> Pixels:
    """Two by two chunks: any bits, a smooth image with odd values in it, zeros, the fill value."""
    dtype, lead = modality.numpy_dtype, _lead(modality)
    shape = (*lead, 2 * SIDE, 2 * SIDE)
    random = np.random.default_rng(len(modality.key))
    values: Pixels = np.zeros(shape, dtype)
    noise = random.bytes(values[..., :SIDE, :SIDE].nbytes)
    values[..., :SIDE, :SIDE] = np.frombuffer(noise, dtype).reshape(*lead, SIDE, SIDE)
    ramp = np.add.outer(np.arange(SIDE), np.arange(SIDE)) * 0.37 + 100
    values[..., :SIDE, SIDE:] = ramp.astype(dtype)
    if dtype.kind == "f":
        values[..., 3, SIDE : SIDE + len(SPECIAL)] = SPECIAL
    else:
        values[..., 3, SIDE : SIDE + 2] = 0, 256**dtype.itemsize - 1
    values[..., SIDE:, SIDE:] = fill_value(modality)
    return values


def _array(modality: Modality, profile: str, pixels: Pixels, side: int = SIDE) -> zarr.Array[Any]:
    array: zarr.Array[Any] = zarr.create_array(
        MemoryStore(),
        shape=pixels.shape,
        dtype=modality.dtype,
        chunks=(*pixels.shape[:-2], side, side),
        shards=pixels.shape,
        fill_value=fill_value(modality),
        **codecs(modality, profile),
    )
    array[...] = pixels
    return array


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("modality", MODALITIES.values(), ids=list(MODALITIES))
def test_zarr_gives_the_same_bits_back(modality: Modality, profile: str) -> None:
    pixels = _pixels(modality)
    array = _array(modality, profile, pixels)
    found = np.asarray(zarr.open_array(array.store, mode="r")[...])
    assert found.dtype == pixels.dtype
    assert found.tobytes() == pixels.tobytes()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("modality", MODALITIES.values(), ids=list(MODALITIES))
def test_chunks_give_the_same_bits_back_without_zarr(modality: Modality, profile: str) -> None:
    pixels = _pixels(modality)
    chunks = ChunkCodec(_array(modality, profile, pixels).metadata.to_dict())
    for y in (0, SIDE):
        for x in (0, SIDE):
            part = pixels[..., y : y + SIDE, x : x + SIDE]
            assert chunks.decode(chunks.encode(part)).tobytes() == part.tobytes()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("modality", MODALITIES.values(), ids=list(MODALITIES))
def test_bytes_of_another_chunk_are_refused(modality: Modality, profile: str) -> None:
    pixels = _pixels(modality)
    chunks = ChunkCodec(_array(modality, profile, pixels).metadata.to_dict())
    half = ChunkCodec(_array(modality, profile, pixels, SIDE // 2).metadata.to_dict())
    good = chunks.encode(pixels[..., :SIDE, :SIDE])
    small = half.encode(pixels[..., : SIDE // 2, : SIDE // 2])
    part = good[: len(good) // 2]
    sealed = part + struct.pack("<I", google_crc32c.value(part))
    turned = bytes([*good[:9], good[9] ^ 4, *good[10:]])
    for bad in (b"", good[:3], good[:-1], turned, sealed, small):
        with pytest.raises(ValueError, match=r"chunk|not right|WebP"):
            chunks.decode(bad)
    with pytest.raises(ValueError, match=r"chunk|not right|WebP"):
        half.decode(good)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("modality", MODALITIES.values(), ids=list(MODALITIES))
def test_every_chunk_ends_in_a_checksum(modality: Modality, profile: str) -> None:
    assert codecs(modality, profile)["compressors"][-1].to_dict()["name"] == "crc32c"


def test_an_unknown_profile_is_refused_with_the_near_match() -> None:
    with pytest.raises(UnknownNameError, match="'archive'"):
        codecs(MODALITIES["dem_elev"], "archiv")


# --- WebP


SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 70), st.integers(1, 70))
KINDS = ("noise", "constant", "fourth 0", "fourth 255", "fourth opaque", "few classes")


def _image(kind: str, shape: tuple[int, int, int], seed: int) -> npt.NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, shape, dtype=np.uint8)
    if kind == "constant":
        pixels[:] = seed % 256
    elif kind == "few classes":
        pixels %= 3
    elif shape[0] > 3:
        # what is kept as alpha is the difference to the second band: 255 there is opaque
        fourth = {"fourth 0": 0, "fourth 255": 255, "fourth opaque": pixels[1] - 1}
        pixels[3] = fourth.get(kind, pixels[3])
    return pixels


@given(SHAPES, st.sampled_from(KINDS), st.integers(0, 2**32 - 1))
def test_webp_loses_nothing(shape: tuple[int, int, int], kind: str, seed: int) -> None:
    codec, pixels = WebpCodec(), _image(kind, shape, seed)
    before = pixels.copy()
    found = codec.decode_pixels(codec.encode_pixels(pixels))
    assert found.shape == shape
    assert found.tobytes() == before.tobytes() == pixels.tobytes()


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("kind", KINDS)
def test_webp_loses_nothing_of_whole_tiles(kind: str, bands: int) -> None:
    codec, pixels = WebpCodec(), _image(kind, (bands, 304, 304), bands)
    assert codec.decode_pixels(codec.encode_pixels(pixels)).tobytes() == pixels.tobytes()


def test_webp_reads_what_is_not_contiguous() -> None:
    codec, pixels = WebpCodec(), _image("noise", (4, 40, 60), 0)
    part = pixels[:, ::2, 3:50]
    assert codec.decode_pixels(codec.encode_pixels(part)).tobytes() == part.tobytes()


def test_webp_makes_smooth_bands_small() -> None:
    """Bands that go together cost less than each alone."""
    one = _image("noise", (1, 64, 64), 0)
    together = len(WebpCodec().encode_pixels(np.repeat(one, 4, axis=0)))
    assert together < 1.2 * len(WebpCodec().encode_pixels(one))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 16384, 1), np.uint8),
        np.zeros((4, 8, 8), np.uint16),
        np.zeros(8, np.uint8),
    ],
    ids=["too long", "uint16", "one dimension"],
)
def test_webp_refuses_what_it_cannot_hold(pixels: Pixels) -> None:
    with pytest.raises(StoreLayoutError, match="uint8"):
        WebpCodec().encode_pixels(pixels)  # type: ignore[arg-type]


def test_zarr_refuses_webp_for_other_types() -> None:
    with pytest.raises(StoreLayoutError, match="uint16"):
        zarr.create_array(
            MemoryStore(), shape=(8, 8), dtype="uint16", serializer=WebpCodec(), compressors=()
        )


def test_damaged_webp_is_a_value_error() -> None:
    whole = WebpCodec().encode_pixels(_image("noise", (5, 20, 20), 0))
    for size in (0, 1, 2, 5, 9, len(whole) // 2, len(whole) - 1):
        with pytest.raises(ValueError, match="damaged"):
            WebpCodec().decode_pixels(whole[:size])
    with pytest.raises(ValueError, match="damaged"):
        WebpCodec().decode_pixels(b"\0" * 40)


@pytest.fixture(scope="module")
def archive(raw_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One domain, raw and converted with ``--profile archive``."""
    folder = tmp_path_factory.mktemp("archive")
    raw, store = copy_domain(raw_tree, folder / "raw"), folder / "store"
    convert(FlairHubTree(raw), str(store), profile="archive", workers=1)
    return raw, store


def test_an_archive_passes_verification(archive: tuple[Path, Path]) -> None:
    raw, store = archive
    report = verify(FlairHubTree(raw), str(store))
    assert report.passed, report.findings
    assert report.pixels > 0


def test_an_archive_opens_and_records_its_profile(archive: tuple[Path, Path]) -> None:
    (place,) = archive[1].glob("*.zarr")
    domain = flairhub.open_domain(place)
    for tree in domain.values():
        assert tree.attrs["flairhub:profile"] == "archive"
        assert '"flairhub.webp"' in (place / str(tree.name) / "zarr.json").read_text()


def test_an_archive_streams_what_the_fast_store_does(
    archive: tuple[Path, Path], store_root: Path
) -> None:
    (place,) = archive[1].glob("*.zarr")
    wanted = {"modalities": ["aerial_rgbi", "aerial_rlt_pan", "dem_elev"], "labels": ["lpis_2"]}
    domains = [place.name.removesuffix(".zarr")]
    plans = [
        flairhub.PatchPlan.build(root, domains=domains, **wanted)  # type: ignore[arg-type]
        for root in (archive[1], store_root)
    ]
    batches = 0
    for ours, fast in zip(*(flairhub.stream(p, batch_size=2) for p in plans), strict=True):
        batches += 1
        for key, pixels in fast.inputs.items():
            assert ours.inputs[key].numpy().tobytes() == pixels.numpy().tobytes()
        assert ours.labels["lpis_2"].equal(fast.labels["lpis_2"])
    assert batches > 0


def test_plain_xarray_opens_an_archive_where_flairhub_is_installed(
    archive: tuple[Path, Path],
) -> None:
    (place,) = archive[1].glob("*.zarr")
    domain = flairhub.open_domain(place)
    roi = next(iter(domain))
    group = place / roi / "aerial_rgbi"
    # another process, so that nothing of ours has been imported and registered before
    code = (
        "import sys, warnings; warnings.simplefilter('ignore'); import xarray as xr; "
        "pixels = xr.open_zarr(sys.argv[1], consolidated=False)['aerial_rgbi'].to_numpy(); "
        "print(pixels.sum())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(group)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = xr.open_zarr(group, consolidated=False)["aerial_rgbi"].to_numpy()
    assert int(done.stdout) == expected.sum() > 0
