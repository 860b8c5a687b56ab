"""Acquisition dates from IGN's GeoPackages: one list a ROI for series, one date a patch else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path

import pandas as pd
import pyogrio

from converters.flairhub_raw import DATE, DATES, PATCH_ID
from flairhub.errors import SourceDataError

_MISSING = {"", "<NA>", "None", "nan"}


def read_table(path: Path, *columns: str) -> pd.DataFrame:
    """Read columns of a GeoPackage, without geometry; index is the patch id.

    Raises
    ------
    SourceDataError
        If the file cannot be read or lacks a column; the message names both.
    """
    try:
        frame = pyogrio.read_dataframe(path, read_geometry=False)
    except Exception as error:  # pyogrio passes on whatever GDAL and SQLite raise
        msg = f"{path} cannot be read as GeoPackage: {error}."
        raise SourceDataError(msg) from error
    for column in (PATCH_ID, *columns):
        if column not in frame.columns:
            msg = f"{path} has no column {column!r}; it has {', '.join(frame.columns)}."
            raise SourceDataError(msg)
    indexed: pd.DataFrame = frame.set_index(PATCH_ID)
    return indexed


def _column(path: Path, name: str) -> Mapping[str, object]:
    values = read_table(path, name)[name]
    return {str(patch): value for patch, value in values.items()}


def read_series_dates(path: Path) -> Mapping[str, object]:
    """Return the JSON text of the dates of every patch id; parse with `parse_series`."""
    return _column(path, DATES)


def parse_series(text: object, path: Path, patch: str) -> tuple[date, ...]:
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
        msg = f"{path}: {DATES} of {patch} is not a JSON object of numbered dates: {text!r:.80}."
        raise SourceDataError(msg) from error
    if sorted(numbered) != list(range(1, len(numbered) + 1)):
        msg = f"{path}: dates of {patch} are numbered {sorted(numbered)}; expected 1 to T."
        raise SourceDataError(msg)
    days = [parse_day(numbered[i], path, patch) for i in sorted(numbered)]
    if None in days:
        msg = f"{path}: {patch} lacks a date in its series; every image of a series needs one."
        raise SourceDataError(msg)
    return tuple(day for day in days if day is not None)


def parse_day(value: object, path: Path, patch: str) -> date | None:
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
    try:
        return datetime.strptime(text, "%Y%m%d").date()
    except ValueError as error:
        msg = f"{path}: {value!r} of {patch} is not a date YYYYMMDD."
        raise SourceDataError(msg) from error


def read_single_dates(path: Path) -> Mapping[str, object]:
    """Return the raw date of every patch id; parse with `parse_day`."""
    return _column(path, DATE)
