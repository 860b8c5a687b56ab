"""Acquisition dates from IGN's GeoPackages: one list a ROI for series, one date a patch else."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from datetime import date

import pyogrio

from converters.files import SourceFile
from converters.flairhub_raw import DATES, PATCH_ID
from converters.reading import REQUESTS
from flairhub.errors import SourceDataError

_MISSING = {"", "<NA>", "None", "nan"}


def read_columns(file: SourceFile, wanted: Iterable[str]) -> dict[str, dict[str, str]]:
    """Read text columns of a GeoPackage: column -> patch id -> value; a NULL is left out.

    A table has a row a patch, but the rows of a ROI repeat each other: equal texts are kept once,
    and rows pass in batches, so that 241,100 rows of dates take some megabytes.

    Parameters
    ----------
    file
        The GeoPackage; in a zip or behind a URL it is held in memory while it is read.
    wanted
        Names of columns; those that the table lacks are left out.

    Raises
    ------
    SourceDataError
        If the file cannot be read or has no patch ids.
    """
    place: str | bytes = file.url
    if file.member or "://" in file.url:
        place = file.read()
    else:
        REQUESTS.add()
    with warnings.catch_warnings():
        # of a table in memory: it has no name, and needs none
        warnings.filterwarnings("ignore", ".*non conformant file extension", RuntimeWarning)
        return _read_columns(file, place, wanted)


def _read_columns(
    file: SourceFile, place: str | bytes, wanted: Iterable[str]
) -> dict[str, dict[str, str]]:
    try:
        fields = list(pyogrio.read_info(place)["fields"])
        there = [name for name in wanted if name in fields]
        found: dict[str, dict[str, str]] = {name: {} for name in there}
        known: dict[str, str] = {}
        columns = [name for name in (PATCH_ID, *there) if name in fields]
        with pyogrio.open_arrow(place, columns=columns, read_geometry=False, use_pyarrow=True) as (
            _,
            reader,
        ):
            for batch in reader if PATCH_ID in fields else ():
                patches = batch[PATCH_ID].to_pylist()
                for name in there:
                    values = batch[name].to_pylist()
                    found[name].update(
                        (str(patch), known.setdefault(str(value), str(value)))
                        for patch, value in zip(patches, values, strict=True)
                        if value is not None
                    )
    except Exception as error:  # pyogrio passes on whatever GDAL and SQLite raise
        msg = f"{file} cannot be read as GeoPackage: {error}."
        raise SourceDataError(msg) from error
    if PATCH_ID not in fields:
        msg = f"{file} has no column {PATCH_ID!r}; it has {', '.join(fields)}."
        raise SourceDataError(msg)
    return found


def read_column(file: SourceFile, name: str) -> Mapping[str, str]:
    """Return one column of a GeoPackage by patch id; raises `SourceDataError` if it is absent."""
    found = read_columns(file, [name])
    if name not in found:
        msg = f"{file} has no column {name!r}, which must hold the dates of every patch."
        raise SourceDataError(msg)
    return found[name]


def parse_series(text: object, file: SourceFile, patch: str) -> tuple[date, ...]:
    """Read ``{"1": "20190111", ...}`` into dates in band order.

    Dates may repeat and need not increase: the order of the bands is kept.

    Raises
    ------
    SourceDataError
        If the text is not such an object, numbers are not 1..T, or a date is invalid.
    """
    try:
        entries = json.loads(str(text))
        numbered = {int(key): value for key, value in entries.items()}
    except (ValueError, AttributeError) as error:
        msg = f"{file}: {DATES} of {patch} is not a JSON object of numbered dates: {text!r:.80}."
        raise SourceDataError(msg) from error
    if sorted(numbered) != list(range(1, len(numbered) + 1)):
        msg = f"{file}: dates of {patch} are numbered {sorted(numbered)}; expected 1 to T."
        raise SourceDataError(msg)
    days = [parse_day(numbered[i], file, patch) for i in sorted(numbered)]
    if None in days:
        msg = f"{file}: {patch} lacks a date in its series; every image of a series needs one."
        raise SourceDataError(msg)
    return tuple(day for day in days if day is not None)


def parse_day(value: object, file: SourceFile, patch: str) -> date | None:
    """Read ``YYYYMMDD``; a day ``00`` (known to the month) becomes the 1st, ``<NA>`` None.

    Raises
    ------
    SourceDataError
        If it is no date.
    """
    text = "" if value is None else str(value).strip()
    if text in _MISSING:
        return None
    if len(text) == 8 and text.endswith("00"):
        text = text[:6] + "01"
    digits = len(text) == 8 and text.isdecimal()  # the other forms of ISO 8601 are not IGN's
    try:
        return date.fromisoformat(text if digits else "")
    except ValueError as error:
        msg = f"{file}: {value!r} of {patch} is not a date YYYYMMDD."
        raise SourceDataError(msg) from error
