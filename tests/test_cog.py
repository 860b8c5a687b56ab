"""The map as files: COG with colours, names and overviews; Zarr with georeference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as Xml

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import rioxarray  # noqa: F401 - registers the accessor
import xarray as xr
import zarr
import zarr_cm
from rio_cogeo.cogeo import cog_validate

from flairhub.grids import PATCH_SIDE_M, Grid, RoiGrid
from flairhub.inference.atomic import replacing
from flairhub.inference.cog import write_cog
from flairhub.inference.zarr_writer import write_map
from flairhub.nomenclatures import NOMENCLATURES

# rioxarray multiplies transforms the way that affine 3 is about to give up
pytestmark = pytest.mark.filterwarnings("ignore:Use .@. matmul:PendingDeprecationWarning")

COSIA = NOMENCLATURES["cosia"]
ROI = RoiGrid(PATCH_SIDE_M * 6500, PATCH_SIDE_M * 61000, rows=3, columns=4)
GRID = ROI.grid(0.2)


def make_classes(grid: Grid = GRID) -> npt.NDArray[np.uint8]:
    """Blocks of 64 pixels of random classes; the north-west patch is absent."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, len(COSIA), (grid.height // 64, grid.width // 64))
    classes = np.kron(blocks, np.ones((64, 64))).astype(np.uint8)
    classes[:512, :512] = 255
    return classes


@pytest.fixture(scope="module")
def cog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cog(tmp_path_factory.mktemp("cog") / "map.tif", make_classes(), GRID, COSIA)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    classes = make_classes()
    confidence = np.where(classes == 255, 255, 80).astype(np.uint8)
    path = tmp_path_factory.mktemp("zarr") / "map.zarr"
    return write_map(path, classes, confidence, GRID, COSIA, attributes={"title": "A map"})


@pytest.fixture
def opened(store: Path) -> Iterator[xr.Dataset]:
    with xr.open_zarr(store, decode_coords="all", chunks=None) as dataset:
        yield dataset


def test_cog_is_valid_in_the_strict_sense(cog: Path) -> None:
    valid, errors, warnings = cog_validate(str(cog), strict=True, quiet=True)
    assert (valid, errors, warnings) == (True, [], [])


def test_cog_holds_the_map_at_its_place(cog: Path) -> None:
    with rasterio.open(cog) as source:
        np.testing.assert_array_equal(source.read(1), make_classes())
        assert source.crs.to_epsg() == 2154
        assert tuple(source.transform)[:6] == GRID.transform
        assert source.nodata == 255
        assert source.descriptions == ("COSIA land cover",)
        assert source.block_shapes == [(512, 512)]


def test_cog_has_the_colours_of_the_nomenclature(cog: Path) -> None:
    with rasterio.open(cog) as source:
        table = source.colormap(1)
    assert [table[c.code][:3] for c in COSIA.classes] == [tuple(rgb) for rgb in COSIA.palette]
    assert table[0][3] == 255
    assert table[255][3] == 0


def test_overviews_take_the_class_that_covers_most(tmp_path: Path) -> None:
    classes = np.full((1024, 1024), 12, np.uint8)
    classes[::2, ::2] = 3  # a quarter of the pixels; averages or nearest would show them
    path = write_cog(tmp_path / "mode.tif", classes, RoiGrid(0.0, 204.8, 2, 2).grid(0.2), COSIA)
    with rasterio.open(path) as source:
        assert source.overviews(1) == [2]
        assert set(np.unique(source.read(1, out_shape=(512, 512)))) == {12}


def test_sidecars_name_the_classes(cog: Path) -> None:
    names = Xml.parse(f"{cog}.aux.xml").getroot().findall("PAMRasterBand[@band='1']//Category")
    assert [n.text for n in names] == list(COSIA.names)
    style = Xml.parse(cog.with_suffix(".qml")).getroot()
    entries = style.findall("pipe/rasterrenderer/colorPalette/paletteEntry")
    found = [(e.get("value"), e.get("color"), e.get("label")) for e in entries]
    assert found == [(str(c.code), c.colour, c.name) for c in COSIA.classes]


def test_zarr_opens_with_plain_xarray(opened: xr.Dataset) -> None:
    np.testing.assert_array_equal(opened.classes, make_classes())
    assert opened.classes.dtype == opened.confidence.dtype == np.uint8
    np.testing.assert_array_equal(opened.x, GRID.x)
    np.testing.assert_array_equal(opened.y, GRID.y)
    assert opened.rio.crs.to_epsg() == 2154
    assert tuple(opened.rio.transform())[:6] == GRID.transform


def test_zarr_says_what_the_codes_mean(opened: xr.Dataset) -> None:
    attributes = opened.classes.attrs
    assert attributes["flag_values"] == [c.code for c in COSIA.classes]
    assert len(attributes["flag_meanings"].split()) == len(COSIA)
    assert attributes["flag_colors"].split()[0] == COSIA.classes[0].colour
    assert opened.attrs["title"] == "A map"


def test_zarr_is_sharded_and_passes_geozarr_validation(store: Path) -> None:
    group = zarr.open_group(store, mode="r")
    array = group["classes"]
    assert isinstance(array, zarr.Array)
    assert array.chunks == (512, 512)
    assert array.shards == (1536, 2048)
    assert array.fill_value == 255
    zarr_cm.validate_all(dict(group.attrs))
    assert len([p for p in store.rglob("*") if p.is_file()]) <= 12


def test_writing_again_replaces_the_map(tmp_path: Path) -> None:
    grid = RoiGrid(0.0, 102.4, 1, 1).grid(0.2)
    for code in (3, 8):
        classes = np.full((512, 512), code, np.uint8)
        write_cog(tmp_path / "map.tif", classes, grid, COSIA)
        write_map(tmp_path / "map.zarr", classes, classes, grid, COSIA, attributes={})
    with rasterio.open(tmp_path / "map.tif") as source:
        assert (source.read(1) == 8).all()
    with xr.open_zarr(tmp_path / "map.zarr", chunks=None) as dataset:
        assert (dataset.classes == 8).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "map.qml", "map.tif", "map.tif.aux.xml", "map.zarr",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_failed_write_leaves_what_stood_there(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "result"

    def fill(path: Path, text: str) -> None:
        if kind == "folder":
            path.mkdir()
            path = path / "inner"
        path.write_text(text)

    def fail_halfway() -> None:
        with replacing(target) as partial:
            fill(partial, "new")
            raise RuntimeError("broken")

    with replacing(target) as partial:
        fill(partial, "old")
    with pytest.raises(RuntimeError, match="broken"):
        fail_halfway()
    inner = target / "inner" if kind == "folder" else target
    assert inner.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
