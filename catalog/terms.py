"""Words of the catalogue: versions, extensions, media types, file names, forms of dates."""

from __future__ import annotations

import re
from datetime import date
from functools import cache
from typing import Any

Json = dict[str, Any]
"""A JSON object under construction."""

STAC_VERSION = "1.1.0"

ZARR_TYPE = "application/vnd.zarr; version=3"
PARQUET_TYPE = "application/vnd.apache.parquet"

_EXTENSIONS = "https://stac-extensions.github.io"
PROJECTION = f"{_EXTENSIONS}/projection/v2.0.0/schema.json"
DATACUBE = f"{_EXTENSIONS}/datacube/v2.3.0/schema.json"
RASTER = f"{_EXTENSIONS}/raster/v2.0.0/schema.json"
ZARR = f"{_EXTENSIONS}/zarr/v1.1.0/schema.json"
EO = f"{_EXTENSIONS}/eo/v2.0.0/schema.json"
CLASSIFICATION = f"{_EXTENSIONS}/classification/v2.0.0/schema.json"
SCIENTIFIC = f"{_EXTENSIONS}/scientific/v1.0.0/schema.json"

CATALOG_FILE = "catalog.json"
COLLECTION_FILE = "collection.json"
TABLE_FILE = "items.parquet"


def item_file(domain: str, item: str) -> str:
    """Return the path of an item inside the catalogue."""
    return f"items/{domain}/{item}.json"


def instant(day: date) -> str:
    """Return midnight UTC of a day as STAC writes it; IGN publishes no times of day."""
    return f"{day.isoformat()}T00:00:00Z"


def last_instant(day: date) -> str:
    """Return the last second of a day, the closing end of a range."""
    return f"{day.isoformat()}T23:59:59Z"


@cache
def word(name: str) -> str:
    """Return a class name as one word, as the classification extension wants it."""
    return re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_")
