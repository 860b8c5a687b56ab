"""The STAC catalogue: valid offline, true to the tables, movable, replaced whole or not at all."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyarrow.parquet as pq
import pystac
import pytest
import shapely
import xarray as xr
import zarr
from pystac.errors import STACValidationError
from pystac.extensions.classification import ClassificationExtension
from pystac.extensions.datacube import DatacubeExtension, TemporalDimension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.scientific import ScientificExtension
from pystac.validation import RegisteredValidator, set_validator
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from stac_geoparquet.arrow import stac_table_to_items

import catalog.build
from catalog.build import build_catalog
from catalog.terms import ZARR_TYPE
from flairhub.cli import run
from flairhub.errors import CatalogError, NotInStoreError, StoreLayoutError
from flairhub.modalities import MODALITIES, dataset_modalities
from flairhub.nomenclatures import NOMENCLATURES
from flairhub.store.access import resolve
from flairhub.store.layout import groups
from tests.domain_tables import write_domain
from tests.stac_schemas import SCHEMAS
from tests.trees import snapshot

ROIS = {
    "AF-S1-27": [(5, 10), (5, 11), (6, 10)],  # a corner is absent
    "UN-S1-U9": [(1, 1), (2, 2)],  # two squares that touch in a point
    "FF-S2-14": [(r, c) for r in range(1, 5) for c in range(1, 6)],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of three domains, one of them with gaps, and their catalogue; not to be changed."""
    folder = tmp_path_factory.mktemp("tables")
    write_domain(folder, "D012-2019", ROIS)
    gaps = ["sentinel1_asc_ts", "sentinel2_msk_sc", "all_label_lpis"]
    write_domain(folder, "D024047-2021", {"VV-S1-3": [(1, 1)]}, absent=gaps, left=900000.0)
    write_domain(folder, "D035-2020", {"AA-S1-1": [(2, 2)]}, undated=True, dates=0)
    build_catalog(folder)
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Validate with pystac's own schemas and those of `stac_schemas`; reaching out fails."""

    def refuse(*_: object) -> None:
        msg = "a test tried to use the network"
        raise AssertionError(msg)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    before = RegisteredValidator.get_validator()
    validator = JsonSchemaSTACValidator()
    validator.schema_cache |= SCHEMAS
    set_validator(validator)
    yield
    set_validator(before)


def items_of(root: Path) -> dict[str, pystac.Item]:
    stac = pystac.Catalog.from_file(root / "catalog" / "catalog.json")
    return {item.id: item for item in stac.get_items(recursive=True)}


def item_json(root: Path, domain: str, roi: str) -> dict[str, Any]:
    path = root / "catalog" / "items" / domain / f"{domain}_{roi}.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


@pytest.mark.usefixtures("offline")
def test_pystac_validates_every_object_without_network(root: Path) -> None:
    stac = pystac.Catalog.from_file(root / "catalog" / "catalog.json")
    assert stac.validate_all() == 5
    collection = next(iter(stac.get_children()))
    assert set(collection.stac_extensions) < set(collection.validate())
    for item in items_of(root).values():
        assert set(item.stac_extensions) < set(item.validate())  # each was checked against


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("properties", "proj:shape"), [1024]),
        (("properties", "proj:epsg"), 2154),
        (("properties", "datetime"), "2019-07-14"),
        (("assets", "dem_elev", "raster:spatial_resolution"), 0),
        (("assets", "dem_elev", "zarr:zarr_format"), 2),
        (("assets", "sentinel2_ts", "cube:dimensions", "time", "extent"), None),
        (("assets", "sentinel2_ts", "cube:variables", "snow", "dimensions"), "time"),
        (("assets", "aerial_rgbi", "bands", 0, "eo:common_name"), "ultraviolet"),
        (("assets", "aerial_label_cosia", "classification:classes", 3, "name"), "not a word"),
        (("assets", "aerial_rgbi", "href"), None),
    ],
)
def test_validation_notices_faults(root: Path, keys: tuple[Any, ...], value: object) -> None:
    item = item_json(root, "D012-2019", "AF-S1-27")
    place: Any = item
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    with pytest.raises(STACValidationError):
        pystac.validation.validate_dict(item, pystac.STACObjectType.ITEM)


def test_pystac_extensions_read_what_was_written(root: Path) -> None:
    item = items_of(root)["D012-2019_AF-S1-27"]
    projection = ProjectionExtension.ext(item)
    assert projection.code == "EPSG:2154"
    assert projection.shape == [1024, 1024]
    assert projection.transform is not None
    assert projection.bbox is not None
    assert projection.transform[2] == projection.bbox[0]
    assert projection.transform[5] == projection.bbox[3]
    cube = DatacubeExtension.ext(item.assets["sentinel2_ts"])
    assert set(cube.dimensions) == {"time", "band", "y", "x"}
    time = cube.dimensions["time"]
    assert isinstance(time, TemporalDimension)
    assert time.extent == ["2019-01-03T00:00:00Z", "2019-01-23T00:00:00Z"]
    assert {n: v.dimensions for n, v in (cube.variables or {}).items()} == {
        "sentinel2_ts": ["time", "band", "y", "x"],
        "snow": ["time", "y", "x"],
        "cloud": ["time", "y", "x"],
    }
    legend = ClassificationExtension.ext(item.assets["aerial_label_cosia"]).classes
    assert [(c.value, c.color_hint) for c in legend or ()] == [
        (c.code, c.colour[1:].upper()) for c in NOMENCLATURES["cosia"].classes
    ]
    collection = item.get_collection()
    assert collection is not None
    assert ScientificExtension.ext(collection).doi == "10.48550/arXiv.2506.07080"


def test_one_asset_a_group_described_from_the_registry(root: Path) -> None:
    item = item_json(root, "D012-2019", "AF-S1-27")
    assert set(item["assets"]) == {"roi", "patches", *groups(dataset_modalities())}
    spot, radar = item["assets"]["spot_rgbi"], item["assets"]["sentinel1_desc_ts"]
    assert [b["name"] for b in spot["bands"]] == [
        f"spot_rgbi[band={name}]" for name in MODALITIES["spot_rgbi"].band_names
    ]
    assert (spot["data_type"], spot["proj:shape"]) == ("uint16", [128, 128])
    assert "nodata" not in spot
    assert radar["nodata"] == "nan"
    lpis = item["assets"]["all_label_lpis"]
    assert lpis["roles"] == ["data", "labels"]
    assert [len(b["classification:classes"]) for b in lpis["bands"]] == [23, 31, 46]
    optical = {b["name"]: b for b in item["assets"]["sentinel2_ts"]["bands"]}
    assert optical["cloud"]["nodata"] == 255
    assert optical["sentinel2_ts[band=B08]"]["eo:common_name"] == "nir"


def test_what_is_absent_is_not_catalogued(root: Path) -> None:
    item = item_json(root, "D024047-2021", "VV-S1-3")
    assert not {"sentinel1_asc_ts", "all_label_lpis"} & set(item["assets"])
    assert "cloud" not in item["assets"]["sentinel2_ts"]["cube:variables"]
    assert "flairhub:cloud_percent" not in item["properties"]
    assert "flairhub:cloud_percent" in item_json(root, "D012-2019", "AF-S1-27")["properties"]


def test_footprints_are_those_of_the_tables(root: Path) -> None:
    for domain in ("D012-2019", "D024047-2021", "D035-2020"):
        rois = gpd.read_parquet(root / f"{domain}.rois.parquet")
        for roi, outline in zip(rois["roi"], rois.geometry, strict=True):
            item = item_json(root, domain, roi)
            shape = shapely.geometry.shape(item["geometry"])
            assert shape.is_valid
            assert item["bbox"] == list(shape.bounds)
            dense = gpd.GeoSeries([shape], crs=4326).segmentize(1e-4).to_crs(2154).iloc[0]
            assert shapely.hausdorff_distance(dense, outline.segmentize(5)) < 0.05
            assert shapely.geometry.shape(item["properties"]["proj:geometry"]).equals(outline)
    shapes = {roi: item_json(root, "D012-2019", roi)["geometry"]["type"] for roi in ROIS}
    assert shapes["UN-S1-U9"] == "MultiPolygon"
    assert shapes["FF-S2-14"] == "Polygon"


def test_dates_span_all_but_the_historical_image(root: Path) -> None:
    item = items_of(root)["D012-2019_FF-S2-14"]
    assert item.datetime == datetime(2019, 7, 14, tzinfo=UTC)  # of 12 patches; 8 were on the 15th
    assert item.common_metadata.start_datetime == datetime(2019, 1, 3, tzinfo=UTC)
    assert item.common_metadata.end_datetime == datetime(2019, 9, 2, 23, 59, 59, tzinfo=UTC)
    aerial = item.assets["aerial_rgbi"].common_metadata
    assert aerial.start_datetime == datetime(2019, 7, 14, tzinfo=UTC)
    assert aerial.end_datetime == datetime(2019, 7, 15, 23, 59, 59, tzinfo=UTC)
    old = item.assets["aerial_rlt_pan"].extra_fields["datetime"]
    assert old == "1955-06-01T00:00:00Z"


def test_without_dates_the_range_is_the_year_of_the_domain(root: Path) -> None:
    properties = item_json(root, "D035-2020", "AA-S1-1")["properties"]
    assert properties["datetime"] is None
    assert properties["start_datetime"] == "2020-01-01T00:00:00Z"
    assert properties["end_datetime"] == "2020-12-31T23:59:59Z"


def test_properties_sum_up_the_patches(root: Path) -> None:
    properties = item_json(root, "D012-2019", "FF-S2-14")["properties"]
    patches = gpd.read_parquet(root / "D012-2019.patches.parquet").query("roi == 'FF-S2-14'")
    assert properties["flairhub:patches"] == 20
    assert properties["flairhub:splits"] == {
        "split": {"train": 16, "valid": 4, "test": 0},
        "split_1": {"train": 0, "valid": 0, "test": 20},
    }
    counts = sum(patches["classes_cosia"])
    shares = properties["flairhub:classes"]["cosia"]
    assert shares["water"] == pytest.approx(100 * counts[6] / sum(counts), abs=1e-4)
    assert sum(shares.values()) == pytest.approx(100, abs=0.01)
    by_date = sum(patches["cloud_percent"]) / 20
    assert properties["flairhub:clear_dates"] == sum(by_date < 10)
    assert properties["flairhub:cloud_percent"] == pytest.approx(by_date.mean(), abs=0.06)


def test_geoparquet_holds_the_same_items(root: Path) -> None:
    path = root / "catalog" / "items.parquet"
    frame = gpd.read_parquet(path).set_index("id")
    items = items_of(root)
    assert set(frame.index) == set(items)
    assert len(frame) == len(items)
    assert frame.crs.to_epsg() == 4326
    boxes = pq.read_table(path, columns=["id", "bbox"]).to_pylist()
    assert {r["id"]: [*r["bbox"].values()] for r in boxes} == {i: items[i].bbox for i in items}
    for name, item in items.items():
        assert frame.geometry[name].equals(shapely.geometry.shape(item.geometry))
        assert frame["start_datetime"][name] == item.common_metadata.start_datetime
    assert pq.read_metadata(path).row_group(0).column(0).compression == "ZSTD"
    geo = json.loads(pq.read_schema(path).metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert "bbox" in geo["columns"]["geometry"]["covering"]


def test_geoparquet_gives_back_stac_whose_addresses_are_beside_it(root: Path) -> None:
    table = pq.read_table(root / "catalog" / "items.parquet")
    back = {item["id"]: item for item in stac_table_to_items(table)}
    item = back["D012-2019_AF-S1-27"]
    assert item["assets"]["dem_elev"]["href"] == "../D012-2019.zarr/AF-S1-27/dem_elev"
    patches = root / "catalog" / item["assets"]["patches"]["href"]
    assert patches.resolve() == root / "D012-2019.patches.parquet"
    parents = {link["href"] for link in item["links"] if link["rel"] == "parent"}
    assert parents == {"collection.json"}


def test_neighbours_are_neighbours_in_the_file(tmp_path: Path) -> None:
    near, far = [(1, 1)], [(1, 1)]
    write_domain(tmp_path, "D001-2020", {"AA-S1-1": near}, left=100019.2)
    write_domain(tmp_path, "D002-2020", {"AA-S1-1": far}, left=1100083.2, top=7000064.0)
    write_domain(tmp_path, "D003-2020", {"AA-S1-1": near}, left=100121.6)
    build_catalog(tmp_path)
    order = pq.read_table(tmp_path / "catalog" / "items.parquet", columns=["id"])["id"].to_pylist()
    assert [name[:4] for name in order] in (["D001", "D003", "D002"], ["D003", "D001", "D002"])


def test_collection_sums_up_its_items(root: Path) -> None:
    stac = pystac.Catalog.from_file(root / "catalog" / "catalog.json")
    collection = next(iter(stac.get_collections()))
    boxes = [item.bbox or [] for item in collection.get_items()]
    west, south, east, north = zip(*boxes, strict=True)
    assert collection.extent.spatial.bboxes == [[min(west), min(south), max(east), max(north)]]
    assert collection.extent.temporal.intervals == [
        [datetime(2019, 1, 3, tzinfo=UTC), datetime(2021, 9, 2, 23, 59, 59, tzinfo=UTC)]
    ]
    assert collection.license == "etalab-2.0"
    assert collection.summaries.get_list("flairhub:strata") == ["AA", "AF", "FF", "UN", "VV"]
    assert set(collection.item_assets) == {"roi", "patches", *groups(dataset_modalities())}
    mean = collection.item_assets["dem_elev"].properties["bands"][0]["statistics"]["mean"]
    assert mean == 326.43


def test_same_tables_give_the_same_bytes(root: Path, tmp_path: Path) -> None:
    for table in root.glob("*.parquet"):
        shutil.copy(table, tmp_path)
    for _ in range(2):
        assert snapshot(build_catalog(tmp_path).path) == snapshot(root / "catalog")


def test_rebuilding_drops_what_is_gone(root: Path, tmp_path: Path) -> None:
    for table in root.glob("*.parquet"):
        shutil.copy(table, tmp_path)
    build_catalog(tmp_path)
    for table in tmp_path.glob("D024047-2021.*"):
        table.unlink()
    report = build_catalog(tmp_path)
    assert (report.items, report.domains) == (4, ("D012-2019", "D035-2020"))
    assert not (tmp_path / "catalog" / "items" / "D024047-2021").exists()


def test_a_failed_build_leaves_the_old_catalogue(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for table in root.glob("*.parquet"):
        shutil.copy(table, tmp_path)
    build_catalog(tmp_path)
    before = snapshot(tmp_path)

    def fail(*_: object) -> None:
        msg = "disk full"
        raise OSError(msg)

    monkeypatch.setattr(catalog.build, "write_items", fail)
    with pytest.raises(OSError, match="disk full"):
        build_catalog(tmp_path)
    assert snapshot(tmp_path) == before


def test_the_old_catalogue_returns_when_the_new_one_cannot_take_its_place(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for table in root.glob("*.parquet"):
        shutil.copy(table, tmp_path)
    build_catalog(tmp_path)
    before = snapshot(tmp_path)
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            msg = "folder is busy"
            raise OSError(msg)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="busy"):
        build_catalog(tmp_path)
    assert snapshot(tmp_path) == before


def test_no_folder_but_a_catalogue_is_replaced(root: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CatalogError, match="not a catalogue"):
        build_catalog(root, tmp_path)
    (tmp_path / "catalog.json").write_text('{"type": "Catalog", "id": "of-another-project"}')
    with pytest.raises(CatalogError, match="not a catalogue"):
        build_catalog(root, tmp_path)
    with pytest.raises(CatalogError, match="not a catalogue"):
        build_catalog(root, root)
    with pytest.raises(CatalogError, match="not a catalogue"):
        build_catalog(root, tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_store_elsewhere_has_absolute_addresses(root: Path, tmp_path: Path) -> None:
    store = resolve("memory://catalogued/store", read_only=False)
    for table in root.glob("D035-2020.*.parquet"):
        (store / table.name).write(table.read_bytes())
    with pytest.raises(CatalogError, match="--out"):
        build_catalog("memory://catalogued/store")
    build_catalog("memory://catalogued/store", tmp_path / "here")
    text = (tmp_path / "here" / "items" / "D035-2020" / "D035-2020_AA-S1-1.json").read_text()
    href = json.loads(text)["assets"]["dem_elev"]["href"]
    assert href == "memory://catalogued/store/D035-2020.zarr/AA-S1-1/dem_elev"


def test_errors_say_what_is_wrong(root: Path, tmp_path: Path) -> None:
    with pytest.raises(NotInStoreError, match="no complete domain"):
        build_catalog(tmp_path)
    assert list(tmp_path.iterdir()) == []
    rois = tmp_path / "D012-2019.rois.parquet"
    rois.write_bytes((root / rois.name).read_bytes())
    with pytest.raises(NotInStoreError, match=r"D012-2019\.patches\.parquet"):
        build_catalog(tmp_path)
    other = (root / "D035-2020.patches.parquet").read_bytes()
    (tmp_path / "D012-2019.patches.parquet").write_bytes(other)
    with pytest.raises(StoreLayoutError, match="AF-S1-27"):
        build_catalog(tmp_path)
    rois.write_bytes(b"<html>not found</html>")
    with pytest.raises(StoreLayoutError, match="damaged"):
        build_catalog(tmp_path)
    assert not (tmp_path / "catalog").exists()


def test_command(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "stac"
    assert run(["catalog", "build", str(root), "--out", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["items"], report["patches"], len(report["domains"])) == (5, 27, 3)
    assert Path(report["catalog"]).is_file()
    assert Path(report["geoparquet"]).is_file()
    assert run(["catalog", "build", str(root), "--out", str(out)]) == 0
    assert f"5 ROIs of 3 domains with 27 patches -> {out}" in capsys.readouterr().out
    assert run(["catalog", "build", str(tmp_path / "nowhere")]) == 1
    assert run(["catalog", "build"]) == 2


def test_addresses_lead_to_groups_that_open_even_after_a_move(
    store_root: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(store_root, tmp_path / "store")
    build_catalog(tmp_path / "store")
    (tmp_path / "store").rename(moved)
    items = items_of(moved)
    assert len(items) == 4
    for item in items.values():
        for key, asset in item.assets.items():
            href = asset.get_absolute_href() or ""
            if asset.media_type != ZARR_TYPE:
                assert len(gpd.read_parquet(href))
                continue
            written = json.loads((Path(href) / "zarr.json").read_text())
            consolidated = "consolidated_metadata" in written
            assert asset.extra_fields["zarr:consolidated"] is consolidated
            if key == "roi":
                tree = xr.open_datatree(href, engine="zarr")
                assert set(tree) == set(item.assets) - {"roi", "patches"}
                continue
            cube = asset.extra_fields["cube:variables"]
            described = {n: (v["data_type"], tuple(v["dimensions"])) for n, v in cube.items()}
            dataset = xr.open_dataset(href, engine="zarr", consolidated=False, decode_coords="all")
            assert described == {n: (str(v.dtype), v.dims) for n, v in dataset.items()}
            shape = [dataset.sizes["y"], dataset.sizes["x"]]
            assert asset.extra_fields["proj:shape"] == shape
            assert asset.extra_fields["proj:transform"] == dataset.attrs["spatial:transform"]
        store = next(link for link in item.links if link.rel == "store")
        assert zarr.open_group(store.get_absolute_href() or "", mode="r").name == "/"


@pytest.mark.usefixtures("offline")
def test_the_converted_sample_is_catalogued(store_root: Path, tmp_path: Path) -> None:
    report = build_catalog(store_root, tmp_path / "stac")
    assert report.items == 4
    stac = pystac.Catalog.from_file(report.path / "catalog.json")
    assert stac.validate_all() == 4
    for item in stac.get_items(recursive=True):
        assert item.datetime is not None
        assert item.properties["flairhub:classes"]["cosia"]
