"""FLAIR#1: aerial images and masks by domain and zone, their place read from the rasters.

::

    flair_aerial_train/D004_2021/Z1_AN/img/IMG_000001.tif
    flair_labels_train/D004_2021/Z1_AN/msk/MSK_000001.tif
    flair_1_aerial_test, flair_1_labels_test                    the same for the test domains
    flair-1_metadata_aerial.json                                date, time and camera of each image

Each folder may be a zip of its name. A zone becomes a ROI, ``Z1_AN`` is called ``Z1-AN`` there.
The numbers of images say nothing about their place, so rows and columns are counted on the lattice
of 102.4 m that the georeferences of a zone share. Where they share none (IGN cut some patches apart
from the others) each lattice is a ROI: ``Z1-AN-a``, ``Z1-AN-b``, by the lowest number of an image.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from functools import cached_property
from string import ascii_lowercase
from typing import Any, ClassVar

from converters.files import InTree, RawTree, SourceFile, raw_tree
from converters.flair_raw import IMAGE, MASK, FlairFolder, Zone, parse_raster
from converters.geometry import lattice_positions, lattices, overlapping, roi_grid
from converters.rasters import read_grid
from converters.receipts import Skipped
from converters.source import Area, RoiSource
from flairhub.errors import SourceDataError
from flairhub.grids import Grid
from flairhub.ids import DomainId, PatchId, RoiId
from flairhub.modalities import MODALITIES, Modality

METADATA_FILE = "flair-1_metadata_aerial.json"

_METADATA = re.compile(r"flair.*metadata.*\.json")
_FACTS = {"time": "time", "camera": "camera", "patch_centroid_z": "altitude"}
"""Of the metadata, what is kept of each patch in the table of patches, besides its date: IGN's name
and the table's."""


class Flair1Tree(InTree):
    """The layout of FLAIR#1, unpacked or in IGN's zips.

    Parameters
    ----------
    root
        Path or URL, or what is open of it, of the folder that holds ``flair_aerial_train`` and
        its sisters.

    Raises
    ------
    SourceDataError
        If the folder does not exist, or holds nothing of FLAIR#1.
    """

    validation: ClassVar[frozenset[str]] = frozenset(
        {
            *("D004-2021", "D014-2020", "D029-2021", "D031-2019"),
            *("D058-2020", "D066-2021", "D067-2021", "D070-2020"),
        }
    )
    """Domains that IGN's baseline validates on; those of the test folders are test."""

    def __init__(self, root: str | os.PathLike[str] | RawTree) -> None:
        self.tree = raw_tree(root)
        found = [FlairFolder.parse(name) for name in self.tree.names]
        self.folders = [folder for folder in found if folder]
        if not any(folder.kind == "aerial" for folder in self.folders):
            msg = (
                f"{self.tree.root} holds no images of {self.name}; expected a folder or zip like "
                f"flair_aerial_train, found {', '.join(self.tree.names[:5]) or 'no folder at all'}."
            )
            raise SourceDataError(msg)
        self._notes: list[str] = []
        self._bad: dict[str, str] = {}

    @property
    def name(self) -> str:
        """Name of the layout, for the store's attributes."""
        return "FLAIR#1"

    @property
    def modalities(self) -> Sequence[Modality]:
        """Images of five bands, and masks."""
        return (IMAGE, MASK)

    @property
    def notes(self) -> Sequence[str]:
        """Oddities met so far."""
        return tuple(self._notes)

    def domains(self) -> list[DomainId]:
        """Return the domains that have a zone, sorted."""
        if not self._zones and self._bad:
            raise SourceDataError(next(iter(self._bad)))
        return sorted({zone.domain for zone in self._zones.values()})

    def rois(self, domain: DomainId, modalities: Sequence[Modality]) -> list[RoiSource]:
        """Return the zones of a domain that have files of `modalities`, with dates and splits.

        A zone whose patches share no lattice is returned in parts; one whose patches contradict
        the metadata or each other with its problem. Reads the header of a raster of every patch.
        """
        found = []
        for zone in sorted(self._zones.values(), key=lambda z: z.roi):
            if zone.domain == domain and {m.key for m in modalities} & self._held(zone):
                try:
                    found += self._parts(zone, modalities)
                except SourceDataError as error:  # of this zone alone: others may be whole
                    # where its patches lie is not known: one after the other
                    files = {
                        PatchId(domain, zone.roi, 1, number): by_key
                        for number, by_key in enumerate(zone.rasters.values(), start=1)
                    }
                    found.append(RoiSource(domain, zone.roi, files, problem=str(error)))
        return found

    def left_out(self, domain: DomainId) -> Sequence[Skipped]:
        """Return what was met so far that is of no use; it may be of any domain."""
        return [Skipped(str(domain), what, reason) for reason, what in self._bad.items()]

    @contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        """Note raw data that are of no use, and what they are of; others may be whole."""
        try:
            yield
        except SourceDataError as error:
            self._bad.setdefault(str(error), what)

    def _held(self, zone: Zone) -> set[str]:
        """Return the modalities that a zone has files of."""
        return {key for by_key in zone.rasters.values() for key in by_key}

    def _parts(self, zone: Zone, modalities: Sequence[Modality]) -> list[RoiSource]:
        """Return the ROIs of a zone, one a lattice; the first has the rasters of all of it."""
        if len(zone.folders) > 1:
            names = " and in ".join(map(str, zone.folders))
            msg = f"{zone.name} lies in {names}: one ROI cannot be both; convert one at a time."
            raise SourceDataError(msg)
        places = self._places(zone)
        numbers, grids = list(places), [grid for _, grid in places.values()]
        areas: dict[str, Area] = {}
        times: dict[str, tuple[date, ...]] = {}
        left_out: tuple[Skipped, ...] = ()
        try:
            areas, times = self._areas(zone, dict(zip(numbers, grids, strict=True)), modalities)
        except SourceDataError as error:  # of these alone: patches may be whole
            key = next(m.key for m in self.modalities if m.is_area)
            left_out = (Skipped(f"{zone.domain} {zone.roi}", key, str(error)),)
        parts = lattices(grids)
        found = []
        for part, members in enumerate(parts):
            roi = zone.roi if len(parts) == 1 else replace(zone.roi, part=_letters(part))
            one = {numbers[member]: places[numbers[member]] for member in members}
            found.append(self._roi(zone, roi, one, modalities))
        if len(parts) > 1:
            self._note_parts(zone, found, numbers, grids)
        first = replace(found[0], areas=areas, times=times, left_out=left_out)
        return [first, *found[1:]]

    def _note_parts(
        self, zone: Zone, parts: Sequence[RoiSource], numbers: Sequence[str], grids: Sequence[Grid]
    ) -> None:
        self._notes.append(
            f"{zone.name}: its patches lie on {len(parts)} lattices, so that it becomes "
            f"{parts[0].roi} to {parts[-1].roi}"
        )
        if pairs := overlapping(grids):
            one, other = (numbers[place] for place in pairs[0])
            self._notes.append(
                f"{zone.name}: {len(pairs)} pair(s) of patches overlap, such as IMG_{one} and "
                f"IMG_{other}"
            )

    def _roi(
        self,
        zone: Zone,
        roi: RoiId,
        places: Mapping[str, tuple[SourceFile, Grid]],
        modalities: Sequence[Modality],
    ) -> RoiSource:
        """Return the ROI of patches that share a lattice, which lie at `places` by image number."""
        cells = lattice_positions(list(places.values()))
        patches = {
            number: PatchId(zone.domain, roi, row, column)
            for number, (row, column) in zip(places, cells, strict=True)
        }
        keys = {m.key for m in modalities}
        files = {
            patch: {key: file for key, file in zone.rasters[number].items() if key in keys}
            for number, patch in patches.items()
        }
        facts, dates = self._facts(zone, patches)
        split = "valid" if str(zone.domain) in self.validation else "train"
        if zone.folders[0].part == "test":
            split = "test"
        one = next(iter(places))
        return RoiSource(
            zone.domain,
            roi,
            dict(sorted(files.items())),
            dates={IMAGE.key: dates} if IMAGE.key in keys else {},
            folds={"split": dict.fromkeys(patches.values(), split)},
            facts=facts,
            lattice=roi_grid(patches.values(), patches[one], places[one][1]),
        )

    def _areas(
        self, zone: Zone, grids: Mapping[str, Grid], modalities: Sequence[Modality]
    ) -> tuple[dict[str, Area], dict[str, tuple[date, ...]]]:
        """Return the rasters that cover a zone as a whole, and their dates: here none."""
        del zone, grids, modalities
        return {}, {}

    def _places(self, zone: Zone) -> dict[str, tuple[SourceFile, Grid]]:
        """Return by image number a raster of each patch, and where its header says it lies."""
        found = {}
        for number, by_key in sorted(zone.rasters.items()):
            key, file = min(by_key.items())
            found[number] = file, read_grid(file, MODALITIES[key])
        return found

    def _facts(
        self, zone: Zone, patches: Mapping[str, PatchId]
    ) -> tuple[dict[str, dict[PatchId, str]], dict[PatchId, date | None]]:
        """Return what the metadata tell of each patch, and its date where that is known."""
        facts: dict[str, dict[PatchId, str]] = {"image": {}}
        facts |= {name: {} for name in _FACTS.values()} if self._metadata else {}
        dates: dict[PatchId, date | None] = {}
        for number, patch in patches.items():
            image = f"IMG_{number}"
            facts["image"][patch] = image
            told, file = self._metadata.get(image, ({}, None))
            for name, expected in (("domain", 0), ("zone", 1)):
                should = zone.name.split("/")[expected]
                if told.get(name, should) != should:
                    msg = f"{file}: {image} is of {name} {told[name]!r}, but lies in {zone.name}."
                    raise SourceDataError(msg)
            dates[patch] = _day(told["date"], image, file) if "date" in told else None
            for theirs, name in _FACTS.items():
                if theirs in told:
                    facts[name][patch] = str(told[theirs])
        return facts, dates

    @cached_property
    def _zones(self) -> Mapping[str, Zone]:
        """Every zone by its name in all folders; masks beside their images."""
        found: dict[str, Zone] = {}
        for folder in self.folders:
            if folder.kind != "aerial":
                continue
            for modality, kind in ((IMAGE, "aerial"), (MASK, "labels")):
                there: Mapping[str, SourceFile] = {}
                with self._noting(modality.key):
                    there = self.tree.files(str(folder.sister(kind)))
                for path, file in sorted(there.items()):
                    if not path.endswith(".tif"):
                        continue
                    with self._noting(modality.key):
                        zone, number = parse_raster(path, modality, file, found)
                        if folder not in zone.folders:
                            zone.folders.append(folder)
                        zone.rasters[number][modality.key] = file
        return found

    @cached_property
    def _metadata(self) -> Mapping[str, tuple[Mapping[str, Any], SourceFile]]:
        """What the metadata say of each image, and in which file."""
        found: dict[str, tuple[Mapping[str, Any], SourceFile]] = {}
        for file in self.tables(_METADATA):
            with self._noting("date"):
                table = read_json(file)
                for image, told in table.items():
                    if not isinstance(told, dict):
                        msg = (
                            f"{file}: {image} is {told!r:.60}; expected its date, time and camera."
                        )
                        raise SourceDataError(msg)
                found |= {image: (told, file) for image, told in table.items()}
        if not found:
            self._notes.append(f"{self.tree.root} has no {METADATA_FILE}: dates are unknown")
        return found

    def tables(self, pattern: re.Pattern[str]) -> list[SourceFile]:
        """Return the files, in the root or in folders without rasters, whose name fits."""
        files = list(self.tree.files_here.values())
        for name in self.tree.names:
            if FlairFolder.parse(name) is None:
                with self._noting("date"):
                    files += self.tree.files(name).values()
        return sorted((f for f in files if pattern.fullmatch(f.name)), key=str)


def read_json(file: SourceFile) -> dict[str, Any]:
    """Return a JSON object; raises `SourceDataError`."""
    try:
        found = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        msg = f"{file} is not JSON ({error}): it is damaged or cut short. Fetch it again."
        raise SourceDataError(msg) from error
    if not isinstance(found, dict):
        msg = f"{file} holds a {type(found).__name__}; expected an object with a key an image."
        raise SourceDataError(msg)
    return found


def _day(text: object, image: str, file: SourceFile | None) -> date:
    try:
        return date.fromisoformat(str(text))
    except ValueError as error:
        msg = f"{file}: the date of {image} is {text!r}; expected one like 2021-05-28."
        raise SourceDataError(msg) from error


def _letters(number: int) -> str:
    """Return the name of a part: a to z, then aa to zz."""
    first, last = divmod(number, 26)
    return (_letters(first - 1) if first else "") + ascii_lowercase[last]
