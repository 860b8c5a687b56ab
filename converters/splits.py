"""Which patch belongs to train, valid or test: from IGN's CSVs and from its GeoPackage of folds."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from converters.dates import read_columns
from converters.files import SourceFile
from converters.flairhub_raw import PATCH_ID
from flairhub.errors import SourceDataError
from flairhub.store.tables import FOLDS, SPLITS

_WORDS = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}


def split_of_file(name: str) -> str | None:
    """Return the split that a CSV's name announces (``FLAIR-HUB_VALID.csv``), or None."""
    words = re.split(r"[^a-z]+", PurePosixPath(name).stem.lower())
    return next((_WORDS[word] for word in words if word in _WORDS), None)


def read_csv(file: SourceFile) -> Iterator[str]:
    """Yield the patch ids of a split CSV, whose delimiter may be comma or semicolon.

    Raises
    ------
    SourceDataError
        If it is no such table; the message names the line.
    """
    try:
        lines = file.read().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        msg = f"{file} is not a text in UTF-8: {error}."
        raise SourceDataError(msg) from error
    header = lines[0] if lines else ""
    delimiter = ";" if header.count(";") > header.count(",") else ","
    columns = [name.strip() for name in header.strip().split(delimiter)]
    if PATCH_ID not in columns:
        msg = f"{file}: the header has no column {PATCH_ID!r}; it reads {header.strip()!r:.120}."
        raise SourceDataError(msg)
    position = columns.index(PATCH_ID)
    rows = csv.reader(lines[1:], delimiter=delimiter)
    try:
        for row in rows:
            if not row:
                continue
            if len(row) != len(columns):
                msg = (
                    f"{file}, line {rows.line_num + 1}: {len(row)} cells, but the header has "
                    f"{len(columns)}."
                )
                raise SourceDataError(msg)
            yield row[position].strip()
    except csv.Error as error:
        msg = f"{file}, line {rows.line_num + 1}: {error}."
        raise SourceDataError(msg) from error


def read_splits(files: Iterable[SourceFile]) -> dict[str, str]:
    """Return the split of every patch id listed in `files`.

    Raises
    ------
    SourceDataError
        If a patch is in two splits; the message names both files.
    """
    found: dict[str, tuple[str, SourceFile]] = {}
    for file in files:
        split = split_of_file(file.name)
        if split is None:
            continue
        for patch in read_csv(file):
            known, other = found.setdefault(patch, (split, file))
            if known != split:
                msg = f"{patch} is {known} in {other}, but {split} in {file}."
                raise SourceDataError(msg)
    return {patch: split for patch, (split, _) in found.items()}


def read_folds(file: SourceFile) -> Mapping[str, Mapping[str, str]]:
    """Return IGN's folds: table column -> patch id -> split.

    Raises
    ------
    SourceDataError
        If a value is not train, valid or test.
    """
    folds = read_columns(file, FOLDS)
    for column, by_patch in folds.items():
        wrong = sorted(set(by_patch.values()) - set(SPLITS))
        if wrong:
            msg = f"{file}: {column} holds {wrong[0]!r}; expected {', '.join(SPLITS)}."
            raise SourceDataError(msg)
    return folds
