"""FLAIR-HUB, unpacked or in IGN's zips: files found by name, dates and splits from its tables."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from functools import cached_property

from converters.dates import parse_day, parse_series, read_column
from converters.files import InTree, RawTree, SourceFile, raw_tree
from converters.flairhub_raw import (
    DATE,
    DATES,
    METADATA_FOLDER,
    SPLIT_FILE,
    RawFile,
    RawFolder,
    dates_file,
)
from converters.receipts import Skipped
from converters.source import RoiSource
from converters.splits import read_folds, read_splits, split_of_file
from flairhub.errors import InvalidIdError, SourceDataError
from flairhub.ids import DomainId, PatchId, RoiId
from flairhub.modalities import FLAIR_HUB, Modality, dataset_modalities


class FlairHubTree(InTree):
    """The layout of IGN's FLAIR-HUB: folders, or zips read in place, side by side.

    Parameters
    ----------
    root
        Path or URL, or what is open of it, of the folder that holds ``D012-2019_AERIAL_RGBI`` or
        ``D012-2019_AERIAL_RGBI.zip`` and its sisters.

    Raises
    ------
    SourceDataError
        If the folder does not exist or holds nothing of FLAIR-HUB.
    """

    def __init__(self, root: str | os.PathLike[str] | RawTree) -> None:
        self.tree = raw_tree(root)
        names = self.tree.names
        self._folders = [folder for name in names if (folder := RawFolder.parse(name))]
        if not any(folder.domain for folder in self._folders):
            msg = (
                f"{self.tree.root} holds no folder of FLAIR-HUB; expected names like "
                "D012-2019_AERIAL_RGBI or D012-2019_AERIAL_RGBI.zip, found "
                f"{', '.join(names[:5]) or 'no folder at all'}."
            )
            raise SourceDataError(msg)
        self._notes: list[str] = []
        self._left_out: dict[DomainId, list[Skipped]] = {}

    @property
    def name(self) -> str:
        """Name of the layout, for the store's attributes (no path: it would differ by machine)."""
        return FLAIR_HUB

    @property
    def modalities(self) -> Sequence[Modality]:
        """The ten rasters of a patch."""
        return dataset_modalities(FLAIR_HUB)

    @property
    def notes(self) -> Sequence[str]:
        """Oddities met so far."""
        return tuple(self._notes)

    def domains(self) -> list[DomainId]:
        """Return the domains that have at least one folder, sorted."""
        return sorted({folder.domain for folder in self._folders if folder.domain})

    def rois(self, domain: DomainId, modalities: Sequence[Modality]) -> list[RoiSource]:
        """Return the ROIs of a domain with files, dates and splits.

        A modality whose dates are missing or contradictory is left out of its ROI; a zip that
        cannot be read, or a raster that lies in the wrong place, of the domain: see `left_out`.
        """
        left_out = [Skipped(str(domain), "split", why) for why in self._split_columns[1]]
        self._left_out[domain] = left_out
        files: dict[RoiId, dict[PatchId, dict[str, SourceFile]]] = defaultdict(dict)
        for modality in modalities:
            for patch, path in self._files(domain, modality, left_out):
                files[patch.roi].setdefault(patch, {})[modality.key] = path
        # the historical folder serves every year of a department: on its own it makes no patch
        for roi, patches in list(files.items()):
            own = {p: f for p, f in patches.items() if _own(f, modalities)}
            files[roi] = dict(sorted(own.items()))
        self._note_absent(domain, {p for patches in files.values() for p in patches})
        return [
            self._roi(domain, roi, files[roi], modalities) for roi in sorted(files) if files[roi]
        ]

    def left_out(self, domain: DomainId) -> Sequence[Skipped]:
        """Return what `rois` met in a domain that is of no use, beyond what its ROIs tell."""
        return tuple(self._left_out.get(domain, ()))

    def _files(
        self, domain: DomainId, modality: Modality, left_out: list[Skipped]
    ) -> Iterator[tuple[PatchId, SourceFile]]:
        folder = RawFolder.of(domain, modality)
        if folder not in self._folders:
            return
        try:
            there = self.tree.files(str(folder))
        except SourceDataError as error:  # of this modality alone: others may be whole
            left_out.append(Skipped(str(domain), modality.key, str(error)))
            return
        for path, file in sorted(there.items()):
            if not path.endswith(".tif"):
                continue
            try:
                raw = RawFile.parse(path.rpartition("/")[2])
            except SourceDataError as error:
                left_out.append(Skipped(str(domain), modality.key, f"{file}: {error}"))
                continue
            if raw.folder != folder or path != f"{raw.roi}/{raw}":
                reason = f"{file} lies in the wrong folder; expected {raw.path}."
                left_out.append(Skipped(str(domain), modality.key, reason))
                continue
            yield raw.patch(domain), file

    def _note_absent(self, domain: DomainId, there: set[PatchId]) -> None:
        splits = self._split_columns[0]["split"]
        listed = {text for text in splits if text.startswith(f"{domain}_")}
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
        files: Mapping[PatchId, Mapping[str, SourceFile]],
        modalities: Sequence[Modality],
    ) -> RoiSource:
        times: dict[str, Sequence[date]] = {}
        dates: dict[str, Mapping[PatchId, date | None]] = {}
        left_out: dict[str, Skipped] = {}
        for m in modalities:
            patches = [patch for patch, by_key in files.items() if m.key in by_key]
            try:
                if patches and m.temporal:
                    times[m.key] = self._times(m, patches)
                elif patches and m.dates_name:
                    dates[m.key] = self._dates(m, files)
            except SourceDataError as error:  # of this modality alone: others may be whole
                left_out[m.key] = Skipped(f"{domain} {roi}", m.key, str(error))
        rest = {p: {k: f for k, f in by.items() if k not in left_out} for p, by in files.items()}
        used = {patch: by_key for patch, by_key in rest.items() if _own(by_key, modalities)}
        if not used:
            reason = next(iter(left_out.values())).reason
            return RoiSource(domain, roi, files, problem=reason)
        folds: dict[str, dict[PatchId, str]] = {}
        for column, by_patch in self._split_columns[0].items():
            folds[column] = {p: by_patch[str(p)] for p in used if str(p) in by_patch}
        return RoiSource(domain, roi, used, times, dates, folds, left_out=tuple(left_out.values()))

    def _times(self, modality: Modality, patches: Sequence[PatchId]) -> tuple[date, ...]:
        table, file = self._dates_table(modality)
        first: tuple[date, ...] | None = None
        text: str | None = None
        for patch in patches:
            found = table.get(str(patch))
            if found is None:
                msg = f"{file} has no dates of {patch}; {modality.source_name} needs them."
                raise SourceDataError(msg)
            if found is text:  # the texts of a ROI are one object
                continue
            text, days = found, parse_series(found, file, str(patch))
            if first is None:
                first = days
            elif days != first:
                msg = (
                    f"{file}: {patch} has {len(days)} dates from {min(days)}, but "
                    f"{patches[0]} of the same ROI has {len(first)} from {min(first)}; the dates "
                    "of a series must be the same in all of a ROI."
                )
                raise SourceDataError(msg)
        return first or ()

    def _dates(
        self, modality: Modality, patches: Iterable[PatchId]
    ) -> Mapping[PatchId, date | None]:
        if str(dates_file(modality)) not in self._metadata:
            return dict.fromkeys(patches)
        table, file = self._dates_table(modality)
        return {p: parse_day(table.get(str(p)), file, str(p)) for p in patches}

    def _dates_table(self, modality: Modality) -> tuple[Mapping[str, str], SourceFile]:
        name = str(dates_file(modality))
        if name not in self._metadata:
            msg = (
                f"{self.tree.root}/{METADATA_FOLDER}/{name} does not exist; "
                f"{modality.source_name} needs its dates."
            )
            raise SourceDataError(msg)
        file = self._metadata[name]
        if name not in self._tables:
            try:
                self._tables[name] = read_column(file, DATES if modality.temporal else DATE)
            except SourceDataError as error:  # told of every ROI, read once
                self._tables[name] = error
        found = self._tables[name]
        if isinstance(found, SourceDataError):
            raise SourceDataError(str(found))
        return found, file

    @cached_property
    def _tables(self) -> dict[str, Mapping[str, str] | SourceDataError]:
        return {}

    @cached_property
    def _metadata(self) -> Mapping[str, SourceFile]:
        """The files of IGN's folder of tables, by name."""
        if METADATA_FOLDER not in self.tree.names:
            return {}
        return {path.rpartition("/")[2]: f for path, f in self.tree.files(METADATA_FOLDER).items()}

    @cached_property
    def _split_columns(self) -> tuple[Mapping[str, Mapping[str, str]], Sequence[str]]:
        """The split and folds of patches, by column and id; and what of the tables is of no use."""
        problems: list[str] = []
        files = list(self.tree.files_here.values())
        for folder in self.tree.names:
            if RawFolder.parse(folder) is None:  # those hold rasters, very many of them
                with _noting(problems):
                    files += self.tree.files(folder).values()
        tables = sorted((f for f in files if f.name.lower().endswith(".csv")), key=str)
        if ignored := [f for f in tables if split_of_file(f.name) is None]:
            self._notes.append(
                f"{len(ignored)} CSV(s) were not read, such as {ignored[0]}: their names say no "
                "split (train, valid or test)"
            )
        good = []
        for file in tables:
            with _noting(problems):
                _check_patches(file, read_splits([file], self.tree.root))
                good.append(file)
        columns: dict[str, Mapping[str, str]] = {"split": {}}
        with _noting(problems):
            columns["split"] = read_splits(good, self.tree.root)
        with _noting(problems):
            folds = self._metadata.get(SPLIT_FILE)
            columns |= read_folds(folds) if folds else {}
        return columns, list(dict.fromkeys(problems))


@contextmanager
def _noting(problems: list[str]) -> Iterator[None]:
    """Note what is the matter with raw data, and go on."""
    try:
        yield
    except SourceDataError as error:
        problems.append(str(error))


def _check_patches(file: SourceFile, patches: Iterable[str]) -> None:
    for text in patches:
        try:
            PatchId.parse(text)
        except InvalidIdError as error:
            msg = f"{file} lists a bad patch: {error}"
            raise SourceDataError(msg) from error


def _own(keys: Iterable[str], modalities: Sequence[Modality]) -> bool:
    """Tell whether a patch has a raster of its own year: what all years share makes none."""
    return any(not _shared(key, modalities) for key in keys)


def _shared(key: str, modalities: Sequence[Modality]) -> bool:
    return next(m for m in modalities if m.key == key).source_year is not None
