"""Which patch belongs to train, valid or test: from IGN's CSVs and from its GeoPackage of folds."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from converters.dates import read_columns
from converters.files import SourceFile
from converters.flairhub_raw import PATCH_ID
from flairhub.errors import SourceDataError
from flairhub.store.tables import FOLDS, SPLITS

_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def split_of_file(name: str) -> str | None:
    """Return the split that a CSV's name announces (``FLAIR-HUB_VALID.csv``), or None."""
    words = re.split(r"[^a-z]+", PurePosixPath(name).stem.lower())
    return next((_WORDS[word] for word in words if word in _WORDS), None)


def read_csv(file: SourceFile, root: str) -> Iterator[str]:
    """Yield the patch ids of a split CSV, whose delimiter may be comma or semicolon.

    Parameters
    ----------
    file
        The CSV.
    root
        Path or URL of the source.

    Raises
    ------
    SourceDataError
        If it is no such table, or holds a path that leaves the source; the message names the line.
    """
    try:
        lines = file.read().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        msg = f"{file} is not a text in UTF-8: {error}."
        raise SourceDataError(msg) from error
    header = lines[0] if lines else ""
    delimiter = ";" if header.count(";") > header.count(",") else ","
    rows = csv.reader(lines, delimiter=delimiter)
    try:
        columns = [name.strip() for name in next(rows, [])]
        if PATCH_ID not in columns:
            msg = (
                f"{file}: the header has no column {PATCH_ID!r}; it reads {header.strip()!r:.120}."
            )
            raise SourceDataError(msg)
        position = columns.index(PATCH_ID)
        for row in rows:
            if not row:
                continue
            if len(row) != len(columns):
                msg = (
                    f"{file}, line {rows.line_num}: {len(row)} cells, but the header has "
                    f"{len(columns)}."
                )
                raise SourceDataError(msg)
            if _is_odd(row) and (outside := [one for one in row if _leaves(one, file, root)]):
                msg = (
                    f"{file}, line {rows.line_num}: {outside[0]!r} leaves the source {root}. Files "
                    "are found by name, so correct or remove that path."
                )
                raise SourceDataError(msg)
            yield row[position].strip()
    except csv.Error as error:
        msg = f"{file}, line {rows.line_num}: {error}."
        raise SourceDataError(msg) from error


def _is_odd(row: Sequence[str]) -> bool:
    """Tell whether a row may hold other paths than IGN's, ``../folder/roi/file.tif``; fast."""
    text = "".join(f"\n{cell.strip()}" for cell in row).replace("\n../", "\n")
    return ".." in text or "\n/" in text or "\\" in text or ":" in text


def _leaves(cell: str, file: SourceFile, root: str) -> bool:
    """Tell whether a cell is a path that leads out of the source, by its words alone."""
    path = cell.strip().replace("\\", "/")
    home = root if "://" in root else os.path.abspath(root)
    if path.startswith("/") or "://" in path or re.match(r"[A-Za-z]:/", path):
        return ".." in path.split("/") or not path.startswith(f"{home.rstrip('/')}/")
    # a zip stands for a folder; IGN's paths start one level up wherever their CSV lies
    place = file.url.removeprefix(root).strip("/").count("/") + file.member.strip("/").count("/")
    level = max(place + bool(file.member), 1)
    for part in path.split("/"):
        level += -1 if part == ".." else part not in ("", ".")
        if level < 0:
            return True
    return False


def read_splits(files: Iterable[SourceFile], root: str) -> dict[str, str]:
    """Return the split of every patch id listed in `files` of the source at `root`.

    Raises
    ------
    SourceDataError
        If a patch is in two splits, whose files the message names, or as `read_csv`.
    """
    found: dict[str, tuple[str, SourceFile]] = {}
    for file in files:
        split = split_of_file(file.name)
        if split is None:
            continue
        for patch in read_csv(file, root):
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
