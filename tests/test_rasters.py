"""Both readers of a GeoTIFF give the same pixels, in whatever way GDAL has stored it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.io import MemoryFile

from converters import rasters
from converters.files import SourceFile
from converters.rasters import read_raster
from flairhub.modalities import MODALITIES, Modality

LAYOUTS = st.fixed_dictionaries(
    {
        "compress": st.sampled_from(["none", "lzw", "deflate", "zstd", "packbits", "lzma"]),
        "interleave": st.sampled_from(["pixel", "band"]),
        "bigtiff": st.sampled_from(["yes", "no"]),
        "endianness": st.sampled_from(["little", "big"]),
        "predictor": st.sampled_from([1, 2, 3]),
        "tiled": st.booleans(),
        "rows": st.sampled_from([1, 3, 16, 10_000]),
    }
)


def geotiff(pixels: npt.NDArray[Any], modality: Modality, **layout: Any) -> bytes:  # noqa: ANN401
    """Return a GeoTIFF with the modality's georeference, stored in the given way."""
    layout = dict(layout)
    rows = layout.pop("rows", None)
    if layout.get("compress") in ("none", "packbits") or (
        layout.get("predictor") == 3 and pixels.dtype.kind != "f"
    ):
        layout.pop("predictor", None)
    if layout.get("predictor") == 2 and pixels.dtype.kind == "f":
        layout.pop("predictor")
    if layout.pop("tiled", False):
        layout |= {"tiled": True, "blockxsize": 16, "blockysize": 32}
    elif rows is not None:
        layout["blockysize"] = min(rows, pixels.shape[-2])
    profile = {
        "driver": "GTiff",
        "count": len(pixels),
        "height": pixels.shape[-2],
        "width": pixels.shape[-1],
        "dtype": pixels.dtype,
        "crs": "EPSG:2154",
        "transform": rasterio.Affine(
            modality.resolution_m, 0, 670617.6, 0, -modality.resolution_m, 6376857.6
        ),
    }
    with MemoryFile() as memory:
        with memory.open(**profile, **layout) as dataset:
            dataset.write(pixels)
        return bytes(memory.read())


def pixels_of(modality: Modality, dates: int, seed: int) -> npt.NDArray[Any]:
    """Draw pixels, with NaN payloads and negative zeros where they exist."""
    rng = np.random.default_rng(seed)
    side = modality.patch_px
    shape = (dates * len(modality.bands), side, side)
    if modality.numpy_dtype.kind == "f":
        values = rng.normal(100, 30, shape).astype(modality.dtype)
        odd = values.view(np.uint32).reshape(-1)
        odd[:3] = [0x7FC00123, 0x80000000, 0xFF800001]
        return values
    return rng.integers(0, 200, shape).cumsum(-1).astype(modality.dtype)


def write(folder: Path, data: bytes) -> SourceFile:
    path = folder / "raster.tif"
    path.write_bytes(data)
    return SourceFile(str(path), len(data))


@pytest.mark.parametrize("key", ["spot_rgbi", "sentinel2_ts", "sentinel1_asc_ts", "aerial_rlt_pan"])
@given(layout=LAYOUTS, dates=st.integers(1, 40), seed=st.integers(0, 99))
def test_both_readers_agree(
    key: str,
    layout: dict[str, Any],
    dates: int,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    modality = MODALITIES[key]
    dates = dates if modality.temporal else 1
    pixels = pixels_of(modality, dates, seed)
    data = geotiff(pixels, modality, **layout)
    file = write(tmp_path_factory.mktemp("raster"), data)
    usual = rasters._decode_usual(data, modality)
    found, grid = rasters._decode_any(data, file, modality)
    bits = f"u{pixels.dtype.itemsize}"
    np.testing.assert_array_equal(found.view(bits), pixels.view(bits))
    assert usual is not None, "a common layout is left to the slow reader"
    np.testing.assert_array_equal(usual[0].view(bits), pixels.view(bits))
    assert usual[1] == grid
    raster = read_raster(file, modality)
    assert raster.grid == grid
    assert raster.pixels.shape == (dates, len(modality.bands), modality.patch_px, modality.patch_px)


def test_every_file_of_the_sample_takes_the_fast_way(raw_tree: Path) -> None:
    for path in raw_tree.rglob("*.tif"):
        modality = next(m for m in MODALITIES.values() if f"_{m.source_name}_" in path.name)
        data = path.read_bytes()
        usual = rasters._decode_usual(data, modality)
        assert usual is not None, path
        with rasterio.open(path) as source:
            bits = f"u{modality.numpy_dtype.itemsize}"
            np.testing.assert_array_equal(usual[0].view(bits), source.read().view(bits))


@pytest.mark.parametrize(
    "change",
    [
        {"crs": "EPSG:2154", "transform": rasterio.Affine(1.6, 0, 5.0, 0, 1.6, 9.0)},
        {"crs": "EPSG:2154", "transform": rasterio.Affine(1.6, 0.1, 5.0, 0, -1.6, 9.0)},
        {"crs": "EPSG:32631"},
        {"crs": None},
        {"sparse_ok": True},
    ],
)
def test_what_is_unusual_is_left_to_gdal(change: dict[str, Any]) -> None:
    modality = MODALITIES["spot_rgbi"]
    profile = {
        "driver": "GTiff", "count": 4, "height": 64, "width": 64, "dtype": "uint16",
        "crs": "EPSG:2154", "transform": rasterio.Affine(1.6, 0, 670617.6, 0, -1.6, 6376857.6),
    }  # fmt: skip
    with MemoryFile() as memory:
        with memory.open(**{**profile, **change}) as dataset:
            if "sparse_ok" not in change:
                dataset.write(np.ones((4, 64, 64), np.uint16))
        assert rasters._decode_usual(bytes(memory.read()), modality) is None
