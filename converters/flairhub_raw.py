"""Names in FLAIR-HUB's raw tree: the only place that puts them together or takes them apart.

::

    D012-2019_AERIAL_RGBI/AF-S1-27/D012-2019_AERIAL_RGBI_AF-S1-27_5-10.tif
    D012-195X_AERIAL-RLT_PAN/AF-S1-27/D012-195X_AERIAL-RLT_PAN_AF-S1-27_5-10.tif
    GLOBAL_ALL_MTD/GLOBAL_SENTINEL2_MTD_DATES.gpkg
    FLAIR-HUB_TRAIN.csv

The historical modality carries ``195X`` in place of a year, so the years of one department share
its folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Self

from flairhub.errors import InvalidIdError, SourceDataError
from flairhub.ids import DomainId, PatchId, RoiId
from flairhub.modalities import FLAIR_HUB, Modality, dataset_modalities

METADATA_FOLDER = "GLOBAL_ALL_MTD"
SPLIT_FILE = "GLOBAL_ALL_MTD_SPLIT.gpkg"
PATCH_ID = "patch_id"
DATES = "acquisition_dates"
"""GeoPackage column with the dates of a series, JSON ``{"1": "20190111", ...}`` in band order."""
DATE = "date"
"""GeoPackage column with the date of a single image, ``YYYYMMDD``."""

_BY_SOURCE_NAME = {m.source_name: m for m in dataset_modalities(FLAIR_HUB)}
_FOLDER = re.compile(r"(?P<code>D[0-9]{3}(?:[0-9]{3})?)-(?P<year>[0-9]{3}[0-9X])_(?P<modality>.+)")
_FILE = re.compile(r"(?P<folder>.+)_(?P<roi>[^_]+)_(?P<row>[0-9]+)-(?P<column>[0-9]+)\.tif")


@dataclass(frozen=True, slots=True)
class RawFolder:
    """A folder of one modality: department code (``D012``), year token, modality."""

    code: str
    year: str
    modality: Modality

    @classmethod
    def of(cls, domain: DomainId, modality: Modality) -> Self:
        """Return the folder that holds a modality of a domain."""
        return cls(domain.code, modality.source_year or f"{domain.year:04d}", modality)

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Read a folder name; None when it is not that of a known modality."""
        found = _FOLDER.fullmatch(name)
        if found is None or found["modality"] not in _BY_SOURCE_NAME:
            return None
        modality = _BY_SOURCE_NAME[found["modality"]]
        if modality.source_year not in (None, found["year"]):
            return None
        if modality.source_year is None and not found["year"].isdigit():
            return None
        return cls(found["code"], found["year"], modality)

    @property
    def domain(self) -> DomainId | None:
        """The domain, or None for a folder that all years of a department share."""
        if self.modality.source_year is not None:
            return None
        return DomainId.parse(f"{self.code}-{self.year}")

    def __str__(self) -> str:
        """Return the name as IGN writes it."""
        return f"{self.code}-{self.year}_{self.modality.source_name}"


@dataclass(frozen=True, slots=True)
class RawFile:
    """A raster file of one patch inside its folder."""

    folder: RawFolder
    roi: RoiId
    row: int
    column: int

    @classmethod
    def of(cls, patch: PatchId, modality: Modality) -> Self:
        """Return the file that holds a modality of a patch."""
        folder = RawFolder.of(patch.domain, modality)
        return cls(folder, patch.roi, patch.row, patch.column)

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read a file name (without folders).

        Raises
        ------
        SourceDataError
            If it does not follow the grammar.
        """
        found = _FILE.fullmatch(name)
        folder = _folder(found["folder"]) if found else None
        if found is None or folder is None:
            msg = (
                f"{name!r} is not a raster of FLAIR-HUB; expected a name like "
                "D012-2019_AERIAL_RGBI_AF-S1-27_5-10.tif."
            )
            raise SourceDataError(msg)
        try:
            roi = _roi(found["roi"])
        except InvalidIdError as error:
            msg = f"{name!r}: {error}"
            raise SourceDataError(msg) from error
        return cls(folder, roi, int(found["row"]), int(found["column"]))

    def patch(self, domain: DomainId) -> PatchId:
        """Return the patch, given the domain that the folder belongs to."""
        return PatchId(domain, self.roi, self.row, self.column)

    @property
    def path(self) -> PurePosixPath:
        """Path below the root of the tree."""
        return PurePosixPath(str(self.folder), str(self.roi), str(self))

    def __str__(self) -> str:
        """Return the name as IGN writes it."""
        return f"{self.folder}_{self.roi}_{self.row}-{self.column}.tif"


@lru_cache(maxsize=1024)
def _folder(name: str) -> RawFolder | None:
    return RawFolder.parse(name)  # every file of a folder repeats its name


@lru_cache(maxsize=1024)
def _roi(name: str) -> RoiId:
    return RoiId.parse(name)


def dates_file(modality: Modality) -> str | None:
    """Return the GeoPackage with a modality's dates, or None when IGN ships none."""
    return f"GLOBAL_{modality.dates_name}_MTD_DATES.gpkg" if modality.dates_name else None


def csv_columns() -> tuple[str, ...]:
    """Return the header of the split CSVs: the patch, then every modality by IGN's name, sorted."""
    return (PATCH_ID, *sorted(_BY_SOURCE_NAME))


def csv_path(file: RawFile) -> str:
    """Return the path of a raster as the split CSVs give it, relative to their own folder."""
    return f"../{file.path}"
