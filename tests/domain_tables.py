"""Domain tables made by hand, for tests that need no pixels: any ROI shapes, any gaps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
from shapely import box, union_all

from flairhub.grids import CRS, PATCH_SIDE_M
from flairhub.ids import DomainId
from flairhub.modalities import MODALITIES, dataset_modalities
from flairhub.nomenclatures import NOMENCLATURES
from flairhub.store import tables
from flairhub.store.layout import groups, table_name

Cells = Iterable[tuple[int, int]]
"""IGN's 1-based (row, column) of the patches present."""

SERIES = tuple(g for g, members in groups(dataset_modalities()).items() if members[0].temporal)


def write_domain(
    root: Path,
    domain: str,
    rois: Mapping[str, Cells],
    *,
    left: float = 500019.2,
    top: float = 6500044.8,
    dates: int = 5,
    absent: Iterable[str] = (),
    undated: bool = False,
) -> None:
    """Write ``patches`` and ``rois`` of a domain; ROIs lie 5 km apart, eastward."""
    present = [m.key for m in dataset_modalities() if m.key not in set(absent)]
    year = DomainId.parse(domain).year
    patch_rows: list[dict[str, object]] = []
    roi_rows: list[dict[str, object]] = []
    for number, (roi, cells) in enumerate(rois.items()):
        origin = left + number * 49 * PATCH_SIDE_M
        mine = [
            _patch(domain, roi, row, column, origin, top, present, dates, undated)
            for row, column in cells
        ]
        times = [date(year, 1, 3) + timedelta(days=5 * i) for i in range(dates)]
        roi_rows.append(_roi(domain, roi, mine, present, times))
        patch_rows += mine
    for rows, table in ((patch_rows, "patches"), (roi_rows, "rois")):
        frame = pd.DataFrame(rows)
        path = root / table_name(DomainId.parse(domain), table)
        gpd.GeoDataFrame(frame, geometry="geometry", crs=CRS).to_parquet(path)


def _patch(
    domain: str,
    roi: str,
    row: int,
    column: int,
    origin: float,
    top: float,
    present: list[str],
    dates: int,
    undated: bool,
) -> dict[str, object]:
    west = round(origin + (column - 1) * PATCH_SIDE_M, 6)
    north = round(top - (row - 1) * PATCH_SIDE_M, 6)
    extent = (west, round(north - PATCH_SIDE_M, 6), round(west + PATCH_SIDE_M, 6), north)
    draw = np.random.default_rng([row, column])
    year = DomainId.parse(domain).year
    days = {"aerial_rlt_pan": date(1955, 6, 1), "spot_rgbi": date(year, 9, 2)}
    day = date(year, 7, 14 + (column > 3))
    optical = "sentinel2_msk_sc" in present
    return {
        "patch_id": f"{domain}_{roi}_{row}-{column}",
        "domain": domain,
        "roi": roi,
        "row": row,
        "column": column,
        **dict(zip(("left", "bottom", "right", "top"), extent, strict=True)),
        "geometry": box(*extent),
        **dict.fromkeys(tables.FOLDS),
        "split": "valid" if column == 1 else "train",
        "split_1": "test",
        **{
            tables.date_column(m): None if undated or m not in present else days.get(m, day)
            for m in tables.DATED
        },
        **{tables.has_column(m): m in present for m in MODALITIES},
        **{
            tables.classes_column(key): draw.integers(0, 900, len(n)).tolist()
            for key, n in NOMENCLATURES.items()
        },
        "cloud_percent": [float((7 * i + row) % 60) for i in range(dates)] if optical else None,
        "snow_percent": [0.5] * dates if optical else None,
    }


def _roi(
    domain: str,
    roi: str,
    patches: list[dict[str, object]],
    present: list[str],
    times: list[date],
) -> dict[str, object]:
    frame = pd.DataFrame(patches)
    rows, columns = frame["row"], frame["column"]
    return {
        "roi": roi,
        "domain": domain,
        "rows": rows.max() - rows.min() + 1,
        "columns": columns.max() - columns.min() + 1,
        "first_row": rows.min(),
        "first_column": columns.min(),
        "left": frame["left"].min(),
        "bottom": frame["bottom"].min(),
        "right": frame["right"].max(),
        "top": frame["top"].max(),
        "geometry": union_all(frame["geometry"].to_numpy()),
        "patches": len(patches),
        "modalities": present,
        **{tables.times_column(g): times if g in present else None for g in SERIES},
    }
