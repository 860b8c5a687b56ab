"""Which patch belongs to train, valid or test: from IGN's CSVs and from its GeoPackage of folds."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from converters.dates import read_table
from converters.flairhub_raw import PATCH_ID
from flairhub.errors import SourceDataError
from flairhub.store.tables import FOLDS, SPLITS

_WORDS = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}


def split_of_file(path: Path) -> str | None:
    """Return the split that a CSV's name announces (``FLAIR-HUB_VALID.csv``), or None."""
    words = re.split(r"[^a-z]+", path.stem.lower())
    return next((_WORDS[word] for word in words if word in _WORDS), None)


def read_csv(path: Path) -> Iterator[str]:
    """Yield the patch ids of a split CSV, whose delimiter may be comma or semicolon.

    Raises
    ------
    SourceDataError
        If the header has no ``patch_id``.
    """
    with path.open(newline="", encoding="utf-8-sig") as handle:
        header = handle.readline()
        delimiter = ";" if header.count(";") > header.count(",") else ","
        columns = [name.strip() for name in header.strip().split(delimiter)]
        if PATCH_ID not in columns:
            msg = (
                f"{path}: the header has no column {PATCH_ID!r}; it reads {header.strip()!r:.120}."
            )
            raise SourceDataError(msg)
        position = columns.index(PATCH_ID)
        for number, row in enumerate(csv.reader(handle, delimiter=delimiter), start=2):
            if not row:
                continue
            if len(row) != len(columns):
                msg = f"{path}, line {number}: {len(row)} cells, but the header has {len(columns)}."
                raise SourceDataError(msg)
            yield row[position].strip()


def read_splits(files: list[Path]) -> dict[str, str]:
    """Return the split of every patch id listed in `files`.

    Raises
    ------
    SourceDataError
        If a patch is in two splits; the message names both files.
    """
    found: dict[str, tuple[str, Path]] = {}
    for path in files:
        split = split_of_file(path)
        if split is None:
            continue
        for patch in read_csv(path):
            known, other = found.setdefault(patch, (split, path))
            if known != split:
                msg = f"{patch} is {known} in {other}, but {split} in {path}."
                raise SourceDataError(msg)
    return {patch: split for patch, (split, _) in found.items()}


def read_folds(path: Path) -> Mapping[str, Mapping[str, str]]:
    """Return IGN's folds: table column -> patch id -> split.

    Raises
    ------
    SourceDataError
        If a value is not train, valid or test.
    """
    frame = read_table(path)
    folds: dict[str, Mapping[str, str]] = {}
    for column in (c for c in FOLDS if c in frame.columns):
        values = frame[column].dropna().astype(str)
        wrong = sorted(set(values) - set(SPLITS))
        if wrong:
            msg = f"{path}: {column} holds {wrong[0]!r}; expected {', '.join(SPLITS)}."
            raise SourceDataError(msg)
        folds[column] = {str(patch): split for patch, split in values.items()}
    return folds
