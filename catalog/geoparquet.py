"""All items as one GeoParquet file: a search reads columns in place of thousands of files."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
from shapely.geometry import shape
from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

from catalog.terms import Json, item_file


def write_items(items: Sequence[Json], collection: Json, path: Path) -> None:
    """Write stac-geoparquet 1.0 in GeoParquet 1.1: one row an item, neighbours close together.

    Addresses are made relative to the file itself, whose folder is the catalogue's.

    Parameters
    ----------
    items
        As they stand in their own files.
    collection
        Goes into the file's metadata, without its links to the items.
    path
        Where to write.
    """
    outlines = gpd.GeoSeries([shape(item["geometry"]) for item in items], crs="EPSG:4326")
    along = outlines.hilbert_distance()
    order = sorted(range(len(items)), key=lambda i: (along.iloc[i], items[i]["id"]))
    alone = {**collection, "links": [link for link in collection["links"] if link["rel"] != "item"]}
    to_parquet(
        parse_stac_items_to_arrow([_beside_table(items[i]) for i in order]),
        path,
        collections={collection["id"]: alone},
        compression="zstd",
    )


def _beside_table(item: Json) -> Json:
    folder = posixpath.dirname(item_file(item["properties"]["flairhub:domain"], item["id"]))

    def moved(part: Json) -> Json:
        href = part["href"]
        if "://" in href:
            return part
        return {**part, "href": posixpath.normpath(posixpath.join(folder, href))}

    assets = {key: moved(asset) for key, asset in item["assets"].items()}
    return {**item, "links": [moved(link) for link in item["links"]], "assets": assets}
