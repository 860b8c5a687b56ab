"""The domain tables, written as GeoParquet from the rows that conversion left."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from shapely import box, union_all

from converters.receipts import Receipt
from converters.statistics import statistics_table
from flairhub.errors import NotInStoreError
from flairhub.grids import CRS
from flairhub.ids import DomainId, PatchId, RoiId
from flairhub.modalities import Modality, family
from flairhub.store.access import Location
from flairhub.store.layout import TABLES, sums_name, table_name
from flairhub.store.tables import (
    DATED,
    FOLDS,
    classes_column,
    date_column,
    has_column,
    read_table,
    sha256_column,
    source_column,
    times_column,
)

_CORNERS = ("left", "bottom", "right", "top")


def write_tables(
    root: Location,
    domain: DomainId,
    receipts: Iterable[Receipt],
    documents: Mapping[str, bytes],
) -> None:
    """Write the tables, ``rois`` last: with it the domain is complete.

    Rows are sorted, and the bytes depend on nothing but the rows. A file of SHA-256 sums lies
    beside the tables, which hold those of everything else.

    Parameters
    ----------
    root, domain
        Where, and of which domain.
    receipts
        Of all its ROIs.
    documents
        Objects of the store that belong to no ROI, by key.
    """
    done = sorted(receipts, key=lambda r: RoiId.parse(r.roi["roi"]))
    patches = [row for receipt in done for row in receipt.patches]
    patches.sort(key=lambda row: PatchId.parse(row["patch_id"]))
    shards = [row for receipt in done for row in receipt.shards]
    shards += [
        {"roi": "", "key": key, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for key, data in documents.items()
    ]
    rois = [_roi_row(receipt) for receipt in done]
    possible = family(key for receipt in done for key in receipt.roi["modalities"])
    tables = {
        "shards": _parquet(pd.DataFrame(shards)),
        "statistics": _bytes(statistics_table(r for one in done for r in one.statistics)),
        "patches": _geoparquet(_patch_frame(patches, possible)),
        "rois": _geoparquet(gpd.GeoDataFrame(rois, crs=CRS)),
    }
    sums = "".join(
        f"{hashlib.sha256(data).hexdigest()}  {table_name(domain, table)}\n"
        for table, data in tables.items()
    )
    (root / sums_name(domain)).write(sums.encode())
    for table, data in tables.items():
        (root / table_name(domain, table)).write(data)
        (root / table_name(domain, table)).flush()


def read_receipts(root: Location, domain: DomainId) -> dict[str, Receipt]:
    """Return the rows of a complete domain as receipts, by ROI; empty when it is not complete."""
    try:
        rois = read_table(root, domain, "rois").drop(columns="geometry")
        patches = read_table(root, domain, "patches").drop(columns="geometry")
        shards = read_table(root, domain, "shards")
        statistics = read_table(root, domain, "statistics")
    except NotInStoreError:
        return {}
    of_roi = [dict(list(table.groupby("roi"))) for table in (patches, shards, statistics)]
    found = {}
    for row in _plain(rois):
        roi = row["roi"]
        found[roi] = Receipt(row, *(_plain(one[roi]) if roi in one else [] for one in of_roi))
    return found


def drop_tables(root: Location, domain: DomainId) -> None:
    """Remove the tables, which makes the domain incomplete for every reader."""
    for table in ("rois", *TABLES):
        (root / table_name(domain, table)).delete()
    (root / sums_name(domain)).delete()
    root.flush_names()


def _patch_frame(
    rows: Sequence[dict[str, Any]], modalities: Sequence[Modality]
) -> gpd.GeoDataFrame:
    keys = [m.key for m in modalities]
    dated = [key for key in DATED if key in keys]
    labels = [key for m in modalities for key in m.nomenclatures]
    extra = sorted({c for row in rows for c in row if c.startswith(source_column(""))})
    columns = [
        "patch_id", "domain", "roi", "row", "column", *_CORNERS, *FOLDS,
        *(date_column(key) for key in dated),
        *(has_column(key) for key in keys),
        *(sha256_column(key) for key in keys),
        *(classes_column(key) for key in labels),
        "cloud_percent", "snow_percent", *extra,
    ]  # fmt: skip
    frame = pd.DataFrame(
        {c: pd.Series([row.get(c) for row in rows], dtype=_dtype(c)) for c in columns}
    )
    for column in (has_column(key) for key in keys):
        frame[column] = frame[column].map(bool)
    for column in (date_column(key) for key in dated):
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
    return _bytes(pa.Table.from_pandas(frame, preserve_index=False))


def _bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _geoparquet(frame: gpd.GeoDataFrame) -> bytes:
    sink = io.BytesIO()
    frame.to_parquet(sink, index=False, compression="zstd")
    return sink.getvalue()


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as a receipt has them: JSON values, nothing for what is missing."""
    rows = [dict(zip(frame.columns, values, strict=True)) for values in frame.to_numpy(object)]
    return [{k: _json_value(v) for k, v in row.items() if not _missing(v)} for row in rows]


def _missing(value: object) -> bool:
    return value is None or (not isinstance(value, np.ndarray) and bool(pd.isna(value)))  # type: ignore[call-overload]


def _json_value(value: Any) -> Any:  # noqa: ANN401 - whatever a table cell may hold
    if isinstance(value, np.ndarray):
        return [_json_value(v) for v in value] if value.dtype == object else value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, date) else value
