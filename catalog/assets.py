"""Assets of a ROI, described from the registry: the groups of its cube and the index of patches.

An asset points to a Zarr group, never to an array, as the STAC best practices for Zarr ask; its
``bands`` name variables (``snow``) or entries of a variable (``sentinel2_ts[band=B04]``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache

from catalog.terms import PARQUET_TYPE, ZARR_TYPE, Json, instant, last_instant, word
from flairhub.grids import CRS, Grid, RoiGrid
from flairhub.modalities import Band, Kind, Modality
from flairhub.nomenclatures import NOMENCLATURES
from flairhub.store.layout import array_specs, fill_value, leading_dims

Counts = Mapping[str, Sequence[int]]
"""Pixels per class code, by nomenclature."""

_SENSORS: Mapping[str, Json] = {
    "spot_rgbi": {"constellation": "spot", "instruments": ["naomi"]},
    "sentinel2_ts": {"constellation": "sentinel-2", "instruments": ["msi"]},
    "flair_sentinel2_ts": {"constellation": "sentinel-2", "instruments": ["msi"]},
    "sentinel1_asc_ts": {"constellation": "sentinel-1", "instruments": ["c-sar"]},
    "sentinel1_desc_ts": {"constellation": "sentinel-1", "instruments": ["c-sar"]},
}
"""What is known of the instruments; the aerial cameras, and which satellite of a pair, are not."""

_HOISTED = ("data_type", "nodata", "unit", "classification:classes")
"""Fields that stand on the asset where all its bands agree on them."""


def roi_definition() -> Json:
    """Return what the asset with the whole ROI has in common over all ROIs."""
    return {
        "title": "All modalities",
        "description": "The ROI as one tree: `xarray.open_datatree(href, engine='zarr')`.",
        "type": ZARR_TYPE,
        "roles": ["data"],
        "zarr:node_type": "group",
        "zarr:zarr_format": 3,
        "zarr:consolidated": True,
    }


def patches_definition() -> Json:
    """Return what the asset with the domain's index of patches has in common over all ROIs."""
    return {
        "title": "Index of the domain's patches",
        "description": "Extent, split, dates, presence and class counts of every patch.",
        "type": PARQUET_TYPE,
        "roles": ["metadata"],
    }


def group_definition(modalities: Sequence[Modality]) -> Json:
    """Return what the asset of a modality group has in common over all ROIs.

    Its bands carry the published statistics of the whole dataset.

    Parameters
    ----------
    modalities
        Those that share the group (a series and its masks), the main one first.
    """
    bands = [
        _band(m, i, b, {}) | _statistics(m, i) for m in modalities for i, b in enumerate(m.bands)
    ]
    return _described(modalities, bands)


def group_asset(
    modalities: Sequence[Modality],
    roi: RoiGrid,
    days: Sequence[date],
    counts: Counts,
    area: Grid | None = None,
) -> Json:
    """Return the asset of a modality group of one ROI, all but its address.

    Parameters
    ----------
    modalities
        Those that share the group and are present, the main one first.
    roi
        The ROI's lattice.
    days
        Acquisition dates of a series in the order of its time axis, or of the patches' images.
    counts
        Goes into the classes of label assets.
    area
        The grid of a group that is not cut in patches.
    """
    main = modalities[0]
    grid = area or roi.grid(main.resolution_m)
    return {
        **_described(
            modalities, [_band(m, i, b, counts) for m in modalities for i, b in enumerate(m.bands)]
        ),
        **_time_range(days),
        "proj:shape": [grid.height, grid.width],
        "proj:transform": list(grid.transform),
        "proj:bbox": list(grid.extent.bbox),
        "cube:dimensions": _dimensions(main, grid, days),
        "cube:variables": _variables(modalities, roi, len(days), area),
    }


def _described(modalities: Sequence[Modality], bands: list[Json]) -> Json:
    main = modalities[0]
    return {
        "title": " with ".join([main.title, *(m.title.lower() for m in modalities[1:])]),
        "description": "; ".join(m.long_name for m in modalities) + ".",
        "type": ZARR_TYPE,
        "roles": ["data", "labels"] if main.is_label else ["data"],
        "zarr:node_type": "group",
        "zarr:zarr_format": 3,
        "zarr:consolidated": False,
        "proj:code": CRS,
        "raster:spatial_resolution": main.resolution_m,
        "raster:sampling": "area",
        **_SENSORS.get(main.group, {}),
        **_hoist(bands),
        "bands": bands,
    }


def _band(modality: Modality, index: int, band: Band, counts: Counts) -> Json:
    """One band object: STAC 1.1's common fields, and the eo extension's where they are known."""
    found: Json = {"name": _band_name(modality, index, band), "description": band.description}
    if band.common_name:
        found["eo:common_name"] = band.common_name
        if band.centre_um:
            found["eo:center_wavelength"] = band.centre_um
        if band.width_um:
            found["eo:full_width_half_max"] = band.width_um
    if modality.nomenclatures:
        key = modality.nomenclatures[index]
        found["classification:classes"] = _classes(key, counts.get(key))
    return found | _values(modality)


def _band_name(modality: Modality, index: int, band: Band) -> str:
    if modality.kind is Kind.MASK:
        return band.name
    dims = leading_dims(modality)
    if not dims:
        return modality.key
    return f"{modality.key}[{dims[-1]}={index + 1 if dims[-1] == 'level' else band.name}]"


def _classes(key: str, counts: Sequence[int] | None) -> list[Json]:
    """Class objects of the classification extension, with pixel counts where they are known."""
    if counts is None:
        return [*_legend(key)]
    return [entry | {"count": n} for entry, n in zip(_legend(key), counts, strict=True)]


@cache
def _legend(key: str) -> tuple[Json, ...]:
    return tuple(
        {
            "value": c.code,
            "name": word(c.name),
            "description": f"{c.name} (French: {c.name_fr})",
            "color_hint": c.colour[1:].upper(),
        }
        for c in NOMENCLATURES[key].classes
    )


def _values(modality: Modality) -> Json:
    """Say how values are stored; 0 is a true value of imagery, hence never nodata."""
    found: Json = {"data_type": modality.dtype}
    fill = fill_value(modality) if modality.nodata is None else modality.nodata
    if math.isnan(fill):
        found["nodata"] = "nan"
    elif fill or modality.nodata is not None:
        found["nodata"] = fill
    if modality.units != "1":
        found["unit"] = modality.units
    return found


def _statistics(modality: Modality, index: int) -> Json:
    if modality.statistics is None:
        return {}
    mean, std = modality.statistics.mean[index], modality.statistics.std[index]
    return {"statistics": {"mean": mean, "stddev": std}}


def _hoist(bands: list[Json]) -> Json:
    """Take out of the bands, and return, the fields on which all of them agree."""
    first = bands[0]
    agreed = [n for n in _HOISTED if n in first and all(b.get(n) == first[n] for b in bands)]
    found = {name: first[name] for name in agreed}
    for band in bands:
        for name in found:
            del band[name]
    return found


def _time_range(days: Sequence[date]) -> Json:
    if not days:
        return {}
    if min(days) == max(days):
        return {"datetime": instant(days[0])}
    return {"start_datetime": instant(min(days)), "end_datetime": last_instant(max(days))}


def _dimensions(modality: Modality, grid: Grid, days: Sequence[date]) -> Json:
    left, bottom, right, top = grid.extent.bbox
    metres = {"unit": "m", "reference_system": int(CRS.removeprefix("EPSG:"))}
    step = grid.resolution
    found: Json = {
        "x": {"type": "spatial", "axis": "x", "extent": [left, right], "step": step, **metres},
        "y": {"type": "spatial", "axis": "y", "extent": [bottom, top], "step": -step, **metres},
    }
    for name in leading_dims(modality):
        if name == "time":
            ends = [instant(min(days)), instant(max(days))] if days else [None, None]
            found[name] = {"type": "temporal", "extent": ends}
            if days:
                found[name]["values"] = [instant(day) for day in days]
        elif name == "level":
            found[name] = {"type": "level", "values": [*range(1, len(modality.bands) + 1)]}
        else:
            found[name] = {"type": "bands", "values": list(modality.band_names)}
    return found


def _variables(modalities: Sequence[Modality], roi: RoiGrid, dates: int, area: Grid | None) -> Json:
    found: Json = {}
    for m in modalities:
        for spec in array_specs(m, roi, dates, area):
            mask = m.kind is Kind.MASK
            found[spec.name] = {
                "type": "data",
                "dimensions": list(spec.dims),
                "description": m.bands[spec.bands[0]].description if mask else m.long_name,
                **_values(m),
            }
    return found
