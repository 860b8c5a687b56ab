"""The collection of all ROIs, and the root catalogue above it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from catalog.assets import group_definition, patches_definition, roi_definition
from catalog.terms import (
    CATALOG_FILE,
    CATALOG_ID,
    CLASSIFICATION,
    COLLECTION_FILE,
    COLLECTION_ID,
    EO,
    PARQUET_TYPE,
    PROJECTION,
    RASTER,
    SCIENTIFIC,
    STAC_VERSION,
    TABLE_FILE,
    ZARR,
    Json,
    item_file,
)
from flairhub.modalities import Modality, family
from flairhub.store.conventions import LICENCE
from flairhub.store.layout import groups

_DOI = "10.48550/arXiv.2506.07080"

_CITATION = (
    "Garioud, A., Giordano, S., David, N., Gonthier, N. (2025). FLAIR-HUB: Large-scale Multimodal "
    "Dataset for Land Cover and Crop Mapping. arXiv:2506.07080."
)

_DESCRIPTION = """\
FLAIR-HUB as Zarr datacubes: aerial and historical images, elevation, SPOT, Sentinel-1 and
Sentinel-2 series, land-cover and crop labels of regions of interest (ROIs) all over France.

One item is one ROI. Its assets are groups of the store of its domain (one department in one year),
one a modality; `roi` is all of them as one tree. The range of an item spans all acquisitions but
the historical images of 1947-1965, whose dates are on their asset; `datetime` is that of the aerial
image. Days begin at midnight UTC, since no times are published.

Fields of the prefix `flairhub`: `patches` counts the 102.4 m squares present, `splits` counts them
by fold and split, `classes` gives the percentage of labelled pixels by class, `cloud_percent` and
`snow_percent` the mean Sentinel-2 probabilities over dates and patches, `clear_dates` the number of
dates with a mean cloud probability under 10 %, `acquisitions` the length of each series."""

_PROVIDERS = [
    {
        "name": "IGN",
        "description": "Institut national de l'information géographique et forestière",
        "roles": ["producer", "licensor"],
        "url": "https://ignf.github.io/FLAIR/",
    },
    {"name": "flairhub", "description": "Conversion to Zarr", "roles": ["processor"]},
]

_LICENCE_TEXT = "https://www.etalab.gouv.fr/licence-ouverte-open-licence/"


def collection(items: Sequence[Json]) -> Json:
    """Return the collection of `items`, which must not be empty; links are sorted by item."""
    ordered = sorted(items, key=lambda item: str(item["id"]))
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [PROJECTION, RASTER, ZARR, EO, CLASSIFICATION, SCIENTIFIC],
        "id": COLLECTION_ID,
        "title": "FLAIR-HUB datacubes",
        "description": _DESCRIPTION,
        "keywords": [
            "FLAIR-HUB", "IGN", "France", "land cover", "crops", "aerial", "elevation", "SPOT",
            "Sentinel-1", "Sentinel-2", "time series", "zarr", "datacube", "semantic segmentation",
        ],
        "license": LICENCE["license"],
        "providers": _PROVIDERS,
        "extent": _extent(ordered),
        "summaries": _summaries(ordered),
        "sci:doi": _DOI,
        "sci:citation": _CITATION,
        "item_assets": {
            "roi": roi_definition(),
            **{group: group_definition(members) for group, members in _groups(ordered).items()},
            "patches": patches_definition(),
        },
        "assets": {
            "items": {
                "href": f"./{TABLE_FILE}",
                "title": "All items as GeoParquet",
                "description": "One row an item, in the order of a Hilbert curve; addresses are "
                "relative to this file.",
                "type": PARQUET_TYPE,
                "roles": ["collection-mirror"],
            }
        },
        "links": [*_collection_links(), *map(_item_link, ordered)],
    }  # fmt: skip


def _groups(items: Sequence[Json]) -> dict[str, tuple[Modality, ...]]:
    """Return the groups that a ROI of this family of datasets can have as assets."""
    keys = (key for item in items for key in item["properties"]["flairhub:modalities"])
    return groups(m for m in family(keys) if not m.is_area)


def root_catalog() -> Json:
    """Return the root catalogue, in which the collections of later steps find their place."""
    return {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": CATALOG_ID,
        "title": "FLAIR-HUB",
        "description": "What a folder of flairhub stores holds.",
        "links": [
            {"rel": "root", "href": f"./{CATALOG_FILE}", "type": "application/json"},
            {
                "rel": "child",
                "href": f"./{COLLECTION_FILE}",
                "type": "application/json",
                "title": "FLAIR-HUB datacubes",
            },
        ],
    }


def _extent(items: Sequence[Json]) -> Json:
    west, south, east, north = zip(*(item["bbox"] for item in items), strict=True)
    starts, ends = (
        [item["properties"][name] for item in items] for name in ("start_datetime", "end_datetime")
    )
    return {
        "spatial": {"bbox": [[min(west), min(south), max(east), max(north)]]},
        "temporal": {"interval": [[min(starts), max(ends)]]},
    }


def _summaries(items: Sequence[Json]) -> Json:
    """Values that occur, for the fields that one would search by."""

    def seen(values: Sequence[Any]) -> list[Any]:
        return sorted(set(values))

    properties = [item["properties"] for item in items]
    assets = [asset for item in items for asset in item["assets"].values()]
    patches = [p["flairhub:patches"] for p in properties]
    found: Json = {
        "proj:code": seen([p["proj:code"] for p in properties]),
        "constellation": seen([a["constellation"] for a in assets if "constellation" in a]),
        "instruments": seen([i for a in assets for i in a.get("instruments", ())]),
        "flairhub:domain": seen([p["flairhub:domain"] for p in properties]),
        "flairhub:strata": seen([p["flairhub:strata"] for p in properties]),
        "flairhub:modalities": seen([m for p in properties for m in p["flairhub:modalities"]]),
        "flairhub:patches": {"minimum": min(patches), "maximum": max(patches)},
    }
    return {name: values for name, values in found.items() if values}


def _collection_links() -> list[Json]:
    return [
        {"rel": "root", "href": f"./{CATALOG_FILE}", "type": "application/json"},
        {"rel": "parent", "href": f"./{CATALOG_FILE}", "type": "application/json"},
        {"rel": "license", "href": _LICENCE_TEXT, "title": "Licence Ouverte / Open Licence 2.0"},
        {"rel": "cite-as", "href": LICENCE["references"]},
    ]


def _item_link(item: Json) -> Json:
    href = item_file(item["properties"]["flairhub:domain"], item["id"])
    return {
        "rel": "item",
        "href": f"./{href}",
        "type": "application/geo+json",
        "title": item["properties"]["title"],
    }
