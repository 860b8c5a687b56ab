"""The domain tables, written as GeoParquet from the rows that conversion left."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from shapely import box, union_all

from converters.receipts import Receipt
from flairhub.grids import CRS
from flairhub.ids import DomainId, PatchId, RoiId
from flairhub.modalities import MODALITIES
from flairhub.store.access import Location
from flairhub.store.layout import table_name
from flairhub.store.tables import (
    DATED,
    FOLDS,
    classes_column,
    date_column,
    has_column,
    sha256_column,
    times_column,
)

_CORNERS = ("left", "bottom", "right", "top")


def write_tables(root: Location, domain: DomainId, receipts: Iterable[Receipt]) -> None:
    """Write ``shards``, ``patches`` and, last, ``rois``: with it the domain is complete.

    Rows are sorted, and the bytes depend on nothing but the rows.
    """
    done = sorted(receipts, key=lambda r: RoiId.parse(r.roi["roi"]))
    patches = [row for receipt in done for row in receipt.patches]
    patches.sort(key=lambda row: PatchId.parse(row["patch_id"]))
    shards = [row for receipt in done for row in receipt.shards]
    (root / table_name(domain, "shards")).write(_parquet(pd.DataFrame(shards)))
    (root / table_name(domain, "patches")).write(_geoparquet(_patch_frame(patches)))
    rois = [_roi_row(receipt) for receipt in done]
    (root / table_name(domain, "rois")).write(_geoparquet(gpd.GeoDataFrame(rois, crs=CRS)))


def drop_tables(root: Location, domain: DomainId) -> None:
    """Remove the tables, which makes the domain incomplete for every reader."""
    for table in ("rois", "patches", "shards"):
        (root / table_name(domain, table)).delete()


def _patch_frame(rows: Sequence[dict[str, Any]]) -> gpd.GeoDataFrame:
    labels = [key for m in MODALITIES.values() for key in m.nomenclatures]
    columns = [
        "patch_id", "domain", "roi", "row", "column", *_CORNERS, *FOLDS,
        *(date_column(key) for key in DATED),
        *(has_column(key) for key in MODALITIES),
        *(sha256_column(key) for key in MODALITIES),
        *(classes_column(key) for key in labels),
        "cloud_percent", "snow_percent",
    ]  # fmt: skip
    frame = pd.DataFrame(
        {c: pd.Series([row.get(c) for row in rows], dtype=_dtype(c)) for c in columns}
    )
    for column in (has_column(key) for key in MODALITIES):
        frame[column] = frame[column].map(bool)
    for column in (date_column(key) for key in DATED):
        frame[column] = [date.fromisoformat(v) if v else None for v in frame[column]]
    return gpd.GeoDataFrame(frame, geometry=box(*(frame[c] for c in _CORNERS)), crs=CRS)


def _dtype(column: str) -> str:
    if column in ("row", "column"):
        return "int16"
    return "float64" if column in _CORNERS else "object"


def _roi_row(receipt: Receipt) -> dict[str, Any]:
    row = dict(receipt.roi)
    for name in [name for name in row if name.startswith(times_column(""))]:
        row[name] = [date.fromisoformat(day) for day in row[name]]
    squares = [box(*(patch[c] for c in _CORNERS)) for patch in receipt.patches]
    return {**row, "geometry": union_all(squares)}


def _parquet(frame: pd.DataFrame) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), sink, compression="zstd")
    return sink.getvalue()


def _geoparquet(frame: gpd.GeoDataFrame) -> bytes:
    sink = io.BytesIO()
    frame.to_parquet(sink, index=False, compression="zstd")
    return sink.getvalue()
