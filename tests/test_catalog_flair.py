"""The catalogue of FLAIR#1 and FLAIR#2: in their own words, with their super-areas."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyarrow.parquet as pq
import pystac
import pytest
from pystac.extensions.scientific import ScientificExtension
from stac_geoparquet.arrow import stac_table_to_items

from catalog.build import build_catalog
from flairhub import open_roi
from flairhub.errors import CatalogError
from tests.domain_tables import write_domain
from tests.test_catalog import items_of, offline

__all__ = ["offline"]

SERIES = "flair_sentinel2_ts"


@pytest.fixture(scope="module")
def root(flair2_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of FLAIR#2, and their catalogue; not to be changed."""
    folder = tmp_path_factory.mktemp("flair-tables")
    for table in flair2_store.glob("*.parquet"):
        shutil.copy(table, folder)
    build_catalog(folder)
    return folder


def item_of(root: Path, domain: str) -> dict[str, Any]:
    (path,) = (root / "catalog" / "items" / domain).iterdir()
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


@pytest.mark.usefixtures("offline")
def test_every_object_is_valid(root: Path) -> None:
    stac = pystac.Catalog.from_file(root / "catalog" / "catalog.json")
    assert stac.validate_all() == 3
    collection = next(iter(stac.get_collections()))
    assert collection.validate()
    science = ScientificExtension.ext(collection)
    assert science.doi == "10.48550/arXiv.2310.13336"
    assert [one.doi for one in science.publications or ()] == ["10.48550/arXiv.2211.12979"]


def test_nothing_speaks_of_another_family(root: Path) -> None:
    documents = sorted((root / "catalog").rglob("*.json"))
    assert len(documents) == 5
    for path in documents:
        text = path.read_text("utf-8")
        assert "flair-hub" not in text.lower().replace(".zarr", ""), path
    collection = json.loads((root / "catalog" / "collection.json").read_text("utf-8"))
    assert (collection["id"], collection["title"]) == ("flair", "FLAIR#1 and FLAIR#2 datacubes")
    assert {item.collection_id for item in items_of(root).values()} == {"flair"}
    table = pq.read_table(root / "catalog" / "items.parquet")
    assert {item["collection"] for item in stac_table_to_items(table)} == {"flair"}


def test_a_super_area_is_an_asset_on_its_own_grid(flair2_store: Path, root: Path) -> None:
    item = item_of(root, "D032-2019")
    groups = {"roi", "patches", "flair_aerial", SERIES, "flair_mask"}
    assert set(item["assets"]) == groups
    asset = item["assets"][SERIES]
    data = open_roi(str(flair2_store / "D032-2019.zarr"), item["properties"]["flairhub:roi"])
    group = data[SERIES].to_dataset()
    assert asset["proj:shape"] == [group.sizes["y"], group.sizes["x"]]
    left, bottom, right, top = asset["proj:bbox"]
    assert (left, right) == (float(group.x[0]) - 5, float(group.x[-1]) + 5)
    assert (bottom, top) == (float(group.y[-1]) - 5, float(group.y[0]) + 5)
    inner = item["properties"]["proj:bbox"]
    assert left < inner[0] < inner[2] < right
    assert bottom < inner[1] < inner[3] < top
    cube = asset["cube:dimensions"]
    days = [f"{str(day)[:10]}T00:00:00Z" for day in group.time.values]
    assert cube["time"]["values"] == days
    assert set(asset["cube:variables"]) == {SERIES, "snow", "cloud"}
    assert len(asset["flairhub:cloud_percent_by_date"]) == len(days)
    assert item["properties"]["flairhub:acquisitions"] == {SERIES: len(days)}


def test_classes_and_dates_are_those_of_the_zone(flair2_store: Path, root: Path) -> None:
    item = item_of(root, "D032-2019")
    assert item["properties"]["flairhub:strata"] == "UN"
    (day,) = set(gpd.read_parquet(flair2_store / "D032-2019.patches.parquet")["date_flair_aerial"])
    assert item["properties"]["datetime"].startswith(str(day))
    classes = item["assets"]["flair_mask"]["classification:classes"]
    assert [c["value"] for c in classes] == list(range(20))
    shares = item["properties"]["flairhub:classes"]["flair"]
    assert sum(shares.values()) == pytest.approx(100, abs=0.01)


def test_families_in_one_folder_are_refused(flair2_store: Path, tmp_path: Path) -> None:
    for table in flair2_store.glob("*.parquet"):
        shutil.copy(table, tmp_path)
    write_domain(tmp_path, "D012-2019", {"AF-S1-27": [(1, 1)]})
    with pytest.raises(CatalogError, match=r"FLAIR#1/#2 and FLAIR-HUB.*Keep each in a folder"):
        build_catalog(tmp_path)
    assert not (tmp_path / "catalog").exists()
