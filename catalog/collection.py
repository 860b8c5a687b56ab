"""The collection of all ROIs, and the root catalogue above it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from catalog.assets import group_definition, patches_definition, roi_definition
from catalog.families import Family, family_of
from catalog.terms import (
    CATALOG_FILE,
    CLASSIFICATION,
    COLLECTION_FILE,
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
    one = _family(ordered)
    (doi, citation), *others = one.papers
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [PROJECTION, RASTER, ZARR, EO, CLASSIFICATION, SCIENTIFIC],
        "id": one.key,
        "title": f"{one.title} datacubes",
        "description": one.description,
        "keywords": list(one.keywords),
        "license": LICENCE["license"],
        "providers": _PROVIDERS,
        "extent": _extent(ordered),
        "summaries": _summaries(ordered),
        "sci:doi": doi,
        "sci:citation": citation,
        **({"sci:publications": [{"doi": d, "citation": c} for d, c in others]} if others else {}),
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
        "links": [*_collection_links(one), *map(_item_link, ordered)],
    }  # fmt: skip


def _groups(items: Sequence[Json]) -> dict[str, tuple[Modality, ...]]:
    """Return the groups that a ROI of this family of datasets can have as assets."""
    return groups(family(_modalities(items)))


def _modalities(items: Sequence[Json]) -> list[str]:
    return [key for item in items for key in item["properties"]["flairhub:modalities"]]


def _family(items: Sequence[Json]) -> Family:
    return family_of(_modalities(items))


def root_catalog(items: Sequence[Json]) -> Json:
    """Return the root catalogue, in which the collections of later steps find their place."""
    one = _family(items)
    return {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": one.catalog_id,
        "title": one.title,
        "description": "What a folder of flairhub stores holds.",
        "links": [
            {"rel": "root", "href": f"./{CATALOG_FILE}", "type": "application/json"},
            {
                "rel": "child",
                "href": f"./{COLLECTION_FILE}",
                "type": "application/json",
                "title": f"{one.title} datacubes",
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


def _collection_links(one: Family) -> list[Json]:
    return [
        {"rel": "root", "href": f"./{CATALOG_FILE}", "type": "application/json"},
        {"rel": "parent", "href": f"./{CATALOG_FILE}", "type": "application/json"},
        {"rel": "license", "href": _LICENCE_TEXT, "title": "Licence Ouverte / Open Licence 2.0"},
        *({"rel": "cite-as", "href": f"https://doi.org/{doi}"} for doi, _ in one.papers),
    ]


def _item_link(item: Json) -> Json:
    href = item_file(item["properties"]["flairhub:domain"], item["id"])
    return {
        "rel": "item",
        "href": f"./{href}",
        "type": "application/geo+json",
        "title": item["properties"]["title"],
    }
