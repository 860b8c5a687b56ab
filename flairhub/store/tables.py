"""The domain tables: their columns, and how to read them. GeoParquet, EPSG:2154.

``patches`` has a row a patch, ``rois`` a row a ROI, ``shards`` a row an object of the store with
its size and checksum. They lie beside the store and are written when a domain is complete; plans,
catalogues and listings are made from them without touching a pixel. `converters` writes them.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from flairhub.errors import FlairHubError, NotInStoreError, ReadError, StoreLayoutError
from flairhub.ids import DomainId
from flairhub.modalities import MODALITIES
from flairhub.store.access import Location
from flairhub.store.asking import storage_reason
from flairhub.store.layout import TABLES, store_name, table_name

FOLDS = ("split", "split_1", "split_2", "split_3", "split_4", "split_5", "split_flairchallenge")
"""Columns of ``patches`` that hold a split: of the CSVs, and of IGN's published folds."""

SPLITS = ("train", "valid", "test")
"""Values of those columns."""


def date_column(modality: str) -> str:
    """Return the ``patches`` column with the acquisition date of a single-date modality."""
    return f"date_{modality}"


def has_column(modality: str) -> str:
    """Return the boolean ``patches`` column that says whether the modality is present."""
    return f"has_{modality}"


def sha256_column(modality: str) -> str:
    """Return the ``patches`` column with the SHA-256 of the raw file."""
    return f"sha256_{modality}"


def classes_column(nomenclature: str) -> str:
    """Return the ``patches`` column with the pixel count of every class."""
    return f"classes_{nomenclature}"


def source_column(fact: str) -> str:
    """Return the ``patches`` column with a fact that a layout tells of a patch's raw files."""
    return f"source_{fact}"


def times_column(group: str) -> str:
    """Return the ``rois`` column with the dates of a series."""
    return f"times_{group}"


def grid_column(group: str) -> str:
    """Return the ``rois`` column with the grid of a group that is not cut in patches.

    Its values are left and top in metres, height and width in pixels.
    """
    return f"grid_{group}"


DATED = tuple(m.key for m in MODALITIES.values() if m.dates_name and not m.temporal)
"""Single-date modalities for which IGN publishes an acquisition date."""


RETRY_S = 60.0
"""Seconds for which storage that fails is asked again for a table or for names."""


def read_table(
    root: Location,
    domain: DomainId,
    table: str,
    columns: Sequence[str] | None = None,
    *,
    retry_s: float = RETRY_S,
) -> pd.DataFrame:
    """Read one table of a domain, in one request.

    Parameters
    ----------
    root
        Folder that holds the stores.
    domain
        Which domain.
    table
        ``patches``, ``rois``, ``shards`` or ``statistics``.
    columns
        Only these; all when absent.
    retry_s
        Seconds for which storage that fails is asked again.

    Returns
    -------
    pandas.DataFrame
        Geometry as WKB bytes; ``geopandas.read_parquet`` gives geometries.

    Raises
    ------
    NotInStoreError
        If the table does not exist: the domain is unknown there, or its conversion not complete.
    ReadError
        If the storage does not give it.
    StoreLayoutError
        If there is no table of that name, it lacks a column, or the file is not Parquet.
    """
    found = read_columns(root, domain, table, columns, retry_s=retry_s)
    return cast("pd.DataFrame", found.to_pandas())


def read_columns(
    root: Location,
    domain: DomainId,
    table: str,
    columns: Sequence[str] | None = None,
    *,
    retry_s: float = RETRY_S,
) -> pa.Table:
    """Read one table of a domain as Arrow holds it: lists stay arrays; otherwise `read_table`."""
    if table not in TABLES:
        msg = f"There is no table {table!r}; a domain has {', '.join(TABLES)}."
        raise StoreLayoutError(msg)
    place = root / table_name(domain, table)
    try:
        data = place.read(retry_s=retry_s)
    except NotInStoreError:
        try:
            known = ", ".join(map(str, list_domains(root, retry_s=retry_s))) or "none"
        except ReadError as error:
            known = f"not known, since {str(error).rstrip('.')}"
        msg = (
            f"{place} does not exist: {domain} is not in this folder, or its conversion has not "
            f"finished (run the same `flairhub convert` again). Complete domains: {known}."
        )
        raise NotInStoreError(msg) from None
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        missing = sorted(set(columns or ()) - set(file.schema_arrow.names))
        if missing:
            msg = (
                f"{place} has no column {', '.join(missing)}: another version of flairhub wrote "
                "it. Convert the domain again."
            )
            raise StoreLayoutError(msg)
        return file.read(columns=columns and list(columns))
    except FlairHubError:
        raise
    except (pa.ArrowException, ValueError, OSError) as error:  # what pyarrow calls damage
        msg = f"{place} is damaged ({storage_reason(error)}); run `flairhub convert` again."
        raise StoreLayoutError(msg) from error


def list_domains(root: Location, *, retry_s: float = RETRY_S) -> list[DomainId]:
    """Return the complete domains of a folder, sorted.

    Raises
    ------
    ReadError
        If the folder cannot be listed.
    """
    ending = table_name(DomainId("000", 0), "rois").removeprefix(str(DomainId("000", 0)))
    try:
        names = root.names(retry_s=retry_s)
    except ReadError as error:
        if not root.url.startswith("http"):
            raise
        msg = (
            f"{error} Web servers list no folders: give the URLs of the stores, which end in .zarr."
        )
        raise ReadError(msg) from None
    return sorted(
        DomainId.parse(name.removesuffix(ending)) for name in names if name.endswith(ending)
    )


def domain_of(location: Location) -> DomainId:
    """Return the domain whose store lies at `location`; raises `StoreLayoutError`."""
    domain, dot, _ = location.name.partition(".")
    if not dot or location.name != store_name(DomainId.parse(domain)):
        msg = f"{location} is not a domain's store; expected a path that ends like D012-2019.zarr."
        raise StoreLayoutError(msg)
    return DomainId.parse(domain)
