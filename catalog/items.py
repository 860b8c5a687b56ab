"""From the facts of a ROI to its STAC item."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import pandas as pd
from shapely.geometry import mapping

from catalog.assets import group_asset, patches_definition, roi_definition
from catalog.facts import RoiFacts
from catalog.families import family_of
from catalog.terms import (
    CATALOG_FILE,
    CLASSIFICATION,
    COLLECTION_FILE,
    DATACUBE,
    EO,
    PROJECTION,
    RASTER,
    STAC_VERSION,
    ZARR,
    ZARR_TYPE,
    Json,
    instant,
    last_instant,
    word,
)
from flairhub.grids import CRS
from flairhub.modalities import MODALITIES
from flairhub.nomenclatures import NOMENCLATURES
from flairhub.store.layout import store_name, table_name

CLEAR_PERCENT = 10.0
"""A Sentinel-2 date counts as clear when its mean cloud probability over the ROI is below this."""

_SHARES = ("cosia", "lpis_1", "flair")
"""Class sets whose shares are item properties, to be searched for."""

_REFERENCES = ("aerial_rgbi", "flair_aerial")
"""The modality of each family whose date stands for the ROI: the labels were drawn on it."""

_FINEST_M = min(m.resolution_m for m in MODALITIES.values())


def roi_item(facts: RoiFacts, root: str) -> Json:
    """Return the item of one ROI.

    Parameters
    ----------
    facts
        What the tables say.
    root
        Address of the folder that holds the stores, as seen from the item's own folder.
    """
    store = f"{root}/{store_name(facts.domain)}"
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": _extensions(facts),
        "id": facts.name,
        "geometry": mapping(facts.footprint),
        "bbox": list(facts.footprint.bounds),
        "properties": {
            "title": f"{facts.domain} {facts.roi}",
            **_times(facts),
            **_projection(facts),
            **_contents(facts),
        },
        "links": [
            {"rel": "root", "href": f"../../{CATALOG_FILE}", "type": "application/json"},
            {"rel": "parent", "href": f"../../{COLLECTION_FILE}", "type": "application/json"},
            {"rel": "collection", "href": f"../../{COLLECTION_FILE}", "type": "application/json"},
            {"rel": "store", "href": store, "type": ZARR_TYPE, "title": f"Store of {facts.domain}"},
        ],
        "assets": {
            "roi": {"href": f"{store}/{facts.roi}", **roi_definition()},
            **{g: _group_asset(facts, g, f"{store}/{facts.roi}/{g}") for g in facts.groups},
            "patches": {
                "href": f"{root}/{table_name(facts.domain, 'patches')}",
                **patches_definition(),
            },
        },
        "collection": family_of(m.key for m in facts.modalities).key,
    }


def _extensions(facts: RoiFacts) -> list[str]:
    spectral = any(b.common_name for m in facts.modalities for b in m.bands)
    classified = any(m.is_label for m in facts.modalities)
    return [PROJECTION, DATACUBE, RASTER, ZARR, *[EO] * spectral, *[CLASSIFICATION] * classified]


def _times(facts: RoiFacts) -> Json:
    """Range of all acquisitions but the historical ones, and the aerial image's usual date.

    Without any date the range is the year of the domain, which is that of the aerial campaign.
    """
    recent = [
        day
        for group, days in facts.days.items()
        if not facts.groups[group][0].source_year
        for day in days
    ] or [date(facts.domain.year, 1, 1), date(facts.domain.year, 12, 31)]
    days = [day for key in _REFERENCES for day in facts.days.get(key, ())]
    usual = pd.Series(days, dtype=object).mode()
    return {
        "datetime": None if usual.empty else instant(usual.iloc[0]),
        "start_datetime": instant(min(recent)),
        "end_datetime": last_instant(max(recent)),
    }


def _projection(facts: RoiFacts) -> Json:
    finest = facts.grid.grid(_FINEST_M)
    return {
        "proj:code": CRS,
        "proj:bbox": list(facts.grid.extent.bbox),
        "proj:geometry": mapping(facts.outline),
        "proj:shape": [finest.height, finest.width],
        "proj:transform": list(finest.transform),
    }


def _contents(facts: RoiFacts) -> Json:
    """Say what is in the ROI, in fields of our own prefix."""
    found: Json = {
        "flairhub:domain": str(facts.domain),
        "flairhub:roi": str(facts.roi),
        "flairhub:strata": facts.roi.strata,
        "flairhub:patches": facts.patches,
        "flairhub:modalities": [m.key for m in facts.modalities],
        "flairhub:acquisitions": {
            group: len(facts.days[group])
            for group, members in facts.groups.items()
            if members[0].temporal
        },
        "flairhub:splits": facts.splits,
        "flairhub:classes": _shares(facts.counts),
    }
    if facts.clouds:
        found["flairhub:cloud_percent"] = round(sum(facts.clouds) / len(facts.clouds), 1)
        found["flairhub:clear_dates"] = sum(c < CLEAR_PERCENT for c in facts.clouds)
    if facts.snow:
        found["flairhub:snow_percent"] = round(sum(facts.snow) / len(facts.snow), 1)
    return found


def _shares(counts: Mapping[str, list[int]]) -> Json:
    """Percentage of the ROI's labelled pixels in every class."""
    return {
        key: {
            word(c.name): round(100 * counts[key][c.code] / sum(counts[key]), 4)
            for c in NOMENCLATURES[key].classes
        }
        for key in _SHARES
        if sum(counts.get(key, ()))
    }


def _group_asset(facts: RoiFacts, group: str, href: str) -> Json:
    members, area = facts.groups[group], facts.areas.get(group)
    asset = {
        "href": href,
        **group_asset(members, facts.grid, facts.days[group], facts.counts, area),
    }
    asset["flairhub:patches"] = facts.patches_with[members[0].key]
    if facts.clouds and any(b.name == "cloud" for m in members for b in m.bands):
        asset["flairhub:cloud_percent_by_date"] = facts.clouds
    return asset
