"""What the domain tables say of each ROI, as plain Python values. No pixel is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import isnan
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from shapely.geometry.base import BaseGeometry

from flairhub.errors import StoreLayoutError
from flairhub.grids import CRS, Grid, RoiGrid
from flairhub.ids import DomainId, RoiId
from flairhub.modalities import Modality, family
from flairhub.store.layout import groups, table_name
from flairhub.store.tables import (
    DATED,
    FOLDS,
    SPLITS,
    classes_column,
    date_column,
    grid_column,
    has_column,
    times_column,
)

_SEGMENT_M = 256.0
"""Vertices are added at this distance before reprojection: edges then deviate by under 1 cm."""

_DEGREE_DECIMALS = 7
"""Written digits of longitudes and latitudes, about 1 cm."""


def _patch_columns(modalities: Sequence[Modality]) -> list[str]:
    """Return the columns of ``patches`` that are read, where it has these modalities."""
    return [
        *FOLDS,
        *(date_column(m.key) for m in modalities if m.key in DATED),
        *(has_column(m.key) for m in modalities),
        *(classes_column(key) for m in modalities for key in m.nomenclatures),
        "cloud_percent",
        "snow_percent",
    ]


@dataclass(frozen=True, slots=True)
class RoiFacts:
    """One ROI.

    Parameters
    ----------
    domain, roi
        Its name.
    grid
        Its lattice of patches.
    outline
        Union of the patches present, EPSG:2154.
    footprint
        The same in longitude and latitude.
    groups
        Store groups and the modalities present in each, the main one first.
    areas
        Grids of those that are not cut in patches.
    patches
        Number of patches.
    patches_with
        Number of patches that have a modality.
    days
        Acquisition dates by group: of a series in the order of its time axis, of an image one a
        patch where it is known.
    splits
        Patches per split, for every fold that says anything about the ROI.
    counts
        Pixels per class code, by nomenclature.
    clouds, snow
        Mean Sentinel-2 cloud and snow probability over the ROI, percent, one value a date.
    """

    domain: DomainId
    roi: RoiId
    grid: RoiGrid
    outline: BaseGeometry
    footprint: BaseGeometry
    groups: Mapping[str, tuple[Modality, ...]]
    areas: Mapping[str, Grid]
    patches: int
    patches_with: Mapping[str, int]
    days: Mapping[str, list[date]]
    splits: Mapping[str, Mapping[str, int]]
    counts: Mapping[str, list[int]]
    clouds: list[float]
    snow: list[float]

    @property
    def name(self) -> str:
        """Id of the ROI in the whole dataset, such as ``D012-2019_AF-S1-27``."""
        return f"{self.domain}_{self.roi}"

    @property
    def modalities(self) -> list[Modality]:
        """The modalities present, in the order of the store's groups."""
        return [m for members in self.groups.values() for m in members]


def read_facts(domain: DomainId, rois: pd.DataFrame, patches: pd.DataFrame) -> list[RoiFacts]:
    """Gather the facts of every ROI of a domain, in the order of `rois`.

    Parameters
    ----------
    domain
        Which domain.
    rois, patches
        Its tables, as `flairhub.store.tables.read_table` gives them.

    Raises
    ------
    StoreLayoutError
        If a column is missing, or a ROI has no row in the table of patches.
    """
    try:
        unions = gpd.GeoSeries.from_wkb(rois["geometry"], crs=CRS)
        outlines = gpd.GeoSeries(_tidy(unions.simplify(0).to_numpy()), crs=CRS)
        read = _patch_columns(family(key for keys in rois["modalities"] for key in keys))
        columns = patches[["roi", *read]].groupby("roi", sort=False).agg(list)
        of_roi = columns.to_dict("index")
        return [
            _facts(domain, row, of_roi[row["roi"]], outline, footprint)
            for row, outline, footprint in zip(
                rois.to_dict("records"), outlines, footprints(outlines), strict=True
            )
        ]
    except KeyError as error:
        msg = (
            f"{table_name(domain, 'rois')} and {table_name(domain, 'patches')} do not fit "
            f"together: {error} is missing; convert {domain} again."
        )
        raise StoreLayoutError(msg) from error


def footprints(outlines: gpd.GeoSeries) -> list[BaseGeometry]:
    """Return outlines of EPSG:2154 in longitude and latitude, exterior rings counter-clockwise."""
    degrees = outlines.segmentize(_SEGMENT_M).to_crs("EPSG:4326")
    rounded = shapely.transform(degrees.to_numpy(), lambda xy: xy.round(_DEGREE_DECIMALS))
    return list(_tidy(rounded))


def _tidy(polygons: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    """Give equal shapes equal coordinates, exterior rings counter-clockwise as GeoJSON has them."""
    tidy: npt.NDArray[np.object_] = shapely.orient_polygons(shapely.normalize(polygons))
    return tidy


def _facts(
    domain: DomainId,
    row: Mapping[Any, Any],
    patches: Mapping[Any, list[Any]],
    outline: BaseGeometry,
    footprint: BaseGeometry,
) -> RoiFacts:
    here = set(row["modalities"])
    areas = {m.group: _area(m, row) for m in family(here) if m.is_area}
    # a raster on a grid of its own is an asset if the grid is known: older tables do not have it
    present = [m for m in family(here) if m.key in here and areas.get(m.group, True)]
    members = groups(present)
    numbers = (int(row[n]) for n in ("rows", "columns", "first_row", "first_column"))
    return RoiFacts(
        domain=domain,
        roi=RoiId.parse(row["roi"]),
        grid=RoiGrid(float(row["left"]), float(row["top"]), *numbers),
        outline=outline,
        footprint=footprint,
        groups=members,
        areas={group: grid for group, grid in areas.items() if grid and group in members},
        patches=len(patches["cloud_percent"]),
        patches_with={key: sum(map(bool, patches[has_column(key)])) for key in here},
        days={group: _days(group, some[0], row, patches) for group, some in members.items()},
        splits=_splits(patches),
        counts=_class_counts(patches, present),
        clouds=_mean_by_date(patches["cloud_percent"]),
        snow=_mean_by_date(patches["snow_percent"]),
    )


def _area(modality: Modality, row: Mapping[Any, Any]) -> Grid | None:
    """Return the grid of a raster that is not cut in patches, where the table has it."""
    found = row.get(grid_column(modality.group))
    if found is None or isinstance(found, float):
        return None
    left, top, height, width = found
    return Grid(left, top, modality.resolution_m, int(height), int(width))


def _known(values: list[Any]) -> list[Any]:
    """Leave out what a table holds as null: None, or NaN where pandas made it so."""
    return [v for v in values if not (v is None or (isinstance(v, float) and isnan(v)))]


def _days(
    group: str, main: Modality, row: Mapping[Any, Any], patches: Mapping[Any, list[Any]]
) -> list[date]:
    if main.temporal:
        days = row[times_column(group)]
        return [] if days is None else list(days)
    return _known(patches[date_column(group)]) if group in DATED else []


def _splits(patches: Mapping[Any, list[Any]]) -> dict[str, dict[str, int]]:
    counted = {fold: Counter(_known(patches[fold])) for fold in FOLDS}
    return {fold: {s: found[s] for s in SPLITS} for fold, found in counted.items() if found}


def _class_counts(
    patches: Mapping[Any, list[Any]], modalities: Sequence[Modality]
) -> dict[str, list[int]]:
    keys = [key for m in modalities for key in m.nomenclatures]
    known = {key: _known(patches[classes_column(key)]) for key in keys}
    return {key: np.sum(some, axis=0).tolist() for key, some in known.items() if some}


def _mean_by_date(percentages: list[Any]) -> list[float]:
    known = _known(percentages)
    return [round(float(p), 1) for p in np.mean(known, axis=0)] if known else []
