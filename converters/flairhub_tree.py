"""FLAIR-HUB unpacked in a folder: files found by name, dates and splits from its tables."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path

from converters.dates import parse_day, parse_series, read_series_dates, read_single_dates
from converters.flairhub_raw import (
    METADATA_FOLDER,
    SPLIT_FILE,
    RawFile,
    RawFolder,
    dates_file,
)
from converters.source import RoiSource
from converters.splits import read_folds, read_splits, split_of_file
from flairhub.errors import InvalidIdError, SourceDataError
from flairhub.ids import DomainId, PatchId, RoiId
from flairhub.modalities import Modality


class FlairHubTree:
    """The layout of IGN's FLAIR-HUB, zips unpacked side by side.

    Parameters
    ----------
    root
        Folder that holds ``D012-2019_AERIAL_RGBI`` and its sisters.

    Raises
    ------
    SourceDataError
        If the folder does not exist or holds nothing of FLAIR-HUB.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        if not root.is_dir():
            msg = f"{root} is not a folder; expected the folder of an unpacked FLAIR-HUB."
            raise SourceDataError(msg)
        names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
        self._folders = [folder for name in names if (folder := RawFolder.parse(name))]
        if not any(folder.domain for folder in self._folders):
            msg = (
                f"{root} holds no folder of FLAIR-HUB; expected names like "
                f"D012-2019_AERIAL_RGBI, found {', '.join(names[:5]) or 'no folder at all'}."
            )
            raise SourceDataError(msg)
        self._notes: list[str] = []

    @property
    def name(self) -> str:
        """Name of the layout, for the store's attributes (no path: it would differ by machine)."""
        return "FLAIR-HUB"

    @property
    def notes(self) -> Sequence[str]:
        """Oddities met so far."""
        return tuple(self._notes)

    def domains(self) -> list[DomainId]:
        """Return the domains that have at least one folder, sorted."""
        return sorted({folder.domain for folder in self._folders if folder.domain})

    def rois(self, domain: DomainId, modalities: Sequence[Modality]) -> list[RoiSource]:
        """Return the ROIs of a domain with files, dates and splits.

        Raises
        ------
        SourceDataError
            If a file name breaks the grammar, or the dates of a series are missing or differ
            inside a ROI.
        """
        files: dict[RoiId, dict[PatchId, dict[str, Path]]] = defaultdict(dict)
        for modality in modalities:
            for patch, path in self._files(domain, modality):
                files[patch.roi].setdefault(patch, {})[modality.key] = path
        # the historical folder serves every year of a department: on its own it makes no patch
        for roi, patches in list(files.items()):
            own = {p: f for p, f in patches.items() if any(not _shared(m, modalities) for m in f)}
            files[roi] = dict(sorted(own.items()))
        self._note_absent(domain, {p for patches in files.values() for p in patches})
        return [
            self._roi(domain, roi, files[roi], modalities) for roi in sorted(files) if files[roi]
        ]

    def _files(self, domain: DomainId, modality: Modality) -> Iterable[tuple[PatchId, Path]]:
        folder = RawFolder.of(domain, modality)
        if folder not in self._folders:
            return
        for roi in sorted(e.name for e in os.scandir(self.root / str(folder)) if e.is_dir()):
            place = self.root / str(folder) / roi
            for name in sorted(e.name for e in os.scandir(place) if e.name.endswith(".tif")):
                file = RawFile.parse(name)
                if file.folder != folder or str(file.roi) != roi:
                    msg = f"{place / name} lies in the wrong folder; expected {file.path}."
                    raise SourceDataError(msg)
                yield file.patch(domain), place / name

    def _note_absent(self, domain: DomainId, there: set[PatchId]) -> None:
        listed = {text for text in self._splits if text.startswith(f"{domain}_")}
        absent = sorted(listed - set(map(str, there)))
        if absent:
            self._notes.append(
                f"{domain}: {len(absent)} patch(es) listed in the CSVs have no file, "
                f"such as {absent[0]}"
            )

    def _roi(
        self,
        domain: DomainId,
        roi: RoiId,
        files: Mapping[PatchId, Mapping[str, Path]],
        modalities: Sequence[Modality],
    ) -> RoiSource:
        used = [m for m in modalities if any(m.key in by_key for by_key in files.values())]
        times = {
            m.key: self._times(m, [p for p, f in files.items() if m.key in f])
            for m in used
            if m.temporal
        }
        dates = {m.key: self._dates(m, files) for m in used if not m.temporal and m.dates_name}
        folds: dict[str, dict[PatchId, str]] = {}
        for column, by_patch in {"split": self._splits, **self._folds}.items():
            folds[column] = {p: by_patch[str(p)] for p in files if str(p) in by_patch}
        return RoiSource(domain, roi, files, times, dates, folds)

    def _times(self, modality: Modality, patches: Sequence[PatchId]) -> tuple[date, ...]:
        table, path = self._dates_table(modality)
        first: tuple[date, ...] | None = None
        for patch in patches:
            if str(patch) not in table:
                msg = f"{path} has no dates of {patch}; {modality.source_name} needs them."
                raise SourceDataError(msg)
            found = parse_series(table[str(patch)], path, str(patch))
            if first is None:
                first = found
            elif found != first:
                msg = (
                    f"{path}: {patch} has {len(found)} dates from {min(found)}, but "
                    f"{patches[0]} of the same ROI has {len(first)} from {min(first)}; the dates "
                    "of a series must be the same in all of a ROI."
                )
                raise SourceDataError(msg)
        return first or ()

    def _dates(
        self, modality: Modality, patches: Iterable[PatchId]
    ) -> Mapping[PatchId, date | None]:
        table, path = self._dates_table(modality)
        return {p: parse_day(table.get(str(p)), path, str(p)) for p in patches}

    def _dates_table(self, modality: Modality) -> tuple[Mapping[str, object], Path]:
        name = dates_file(modality)
        path = self.root / METADATA_FOLDER / str(name)
        if path not in self._tables:
            if path.exists():
                read = read_series_dates if modality.temporal else read_single_dates
                self._tables[path] = read(path)
            elif modality.temporal:
                msg = f"{path} does not exist; {modality.source_name} needs its dates."
                raise SourceDataError(msg)
            else:
                self._tables[path] = {}
        return self._tables[path], path

    @cached_property
    def _tables(self) -> dict[Path, Mapping[str, object]]:
        return {}

    @cached_property
    def _splits(self) -> Mapping[str, str]:
        folders = [self.root, *(p for p in sorted(self.root.iterdir()) if _may_hold_csv(p))]
        inner = [p for folder in folders[1:] for p in sorted(folder.iterdir()) if p.is_dir()]
        files = [f for folder in (*folders, *inner) for f in sorted(folder.glob("*.csv"))]
        found = read_splits([f for f in files if split_of_file(f)])
        for text in found:
            try:
                PatchId.parse(text)
            except InvalidIdError as error:
                msg = f"A split CSV below {self.root} lists a bad patch: {error}"
                raise SourceDataError(msg) from error
        return found

    @cached_property
    def _folds(self) -> Mapping[str, Mapping[str, str]]:
        path = self.root / METADATA_FOLDER / SPLIT_FILE
        return read_folds(path) if path.exists() else {}


def _may_hold_csv(path: Path) -> bool:
    """Tell small folders from those with hundreds of thousands of rasters."""
    return path.is_dir() and RawFolder.parse(path.name) is None


def _shared(key: str, modalities: Sequence[Modality]) -> bool:
    return next(m for m in modalities if m.key == key).source_year is not None
