"""Names of folders and files of FLAIR#1 and FLAIR#2: the only place that knows their grammar."""

from __future__ import annotations

import re
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from converters.files import SourceFile
from flairhub.errors import InvalidIdError, SourceDataError
from flairhub.ids import DomainId, RoiId
from flairhub.modalities import MODALITIES, Modality

IMAGE, MASK = MODALITIES["flair_aerial"], MODALITIES["flair_mask"]

_FOLDER = re.compile(
    r"(?P<stem>flair(?:_[12])?(?:_toy)?)_(?P<kind>aerial|labels|sen)_(?P<part>train|test)"
)
_RASTER = re.compile(
    r"(?P<domain>[^/]+)/(?P<zone>[^/]+)/(?:img/IMG|msk/MSK)_(?P<number>[0-9]+)\.tif"
)


@dataclass(frozen=True, slots=True)
class FlairFolder:
    """A folder at the top of FLAIR#1 or FLAIR#2.

    Parameters
    ----------
    stem
        How the name begins: ``flair``, ``flair_1``, ``flair_2``.
    kind
        ``aerial``, ``labels`` or ``sen``.
    part
        ``train`` or ``test``.
    """

    stem: str
    kind: str
    part: str

    @classmethod
    def parse(cls, name: str) -> FlairFolder | None:
        """Read a folder name; None for any other."""
        found = _FOLDER.fullmatch(name)
        return cls(**found.groupdict()) if found else None

    def sister(self, kind: str) -> FlairFolder:
        """Return the folder that holds another kind of the same zones."""
        return FlairFolder(self.stem, kind, self.part)

    def __str__(self) -> str:
        """Return the name as IGN writes it."""
        return f"{self.stem}_{self.kind}_{self.part}"


def raster_path(modality: Modality, domain: DomainId, zone: RoiId, number: int) -> str:
    """Return the path of an image or a mask below its folder."""
    folder, name = ("img", "IMG") if modality is IMAGE else ("msk", "MSK")
    return f"{zone_path(domain, zone)}/{folder}/{name}_{number:06d}.tif"


def zone_path(domain: DomainId, zone: RoiId) -> str:
    """Return the path of a zone below the folders."""
    return f"{domain}/{zone}".replace("-", "_")


class Part(Protocol):
    """Where a zone lies: printed, its path in the dataset."""

    @property
    def part(self) -> str:
        """``train`` or ``test``."""


@dataclass
class Zone:
    """What lies in the folders of one zone.

    Parameters
    ----------
    domain, roi
        Its ids.
    folders
        Where it was found; more than one is a fault.
    rasters
        By number of the image, then by modality key.
    """

    domain: DomainId
    roi: RoiId
    folders: list[Part] = field(default_factory=list)
    rasters: dict[str, dict[str, SourceFile]] = field(default_factory=lambda: defaultdict(dict))

    @property
    def name(self) -> str:
        """Domain and zone as IGN writes them."""
        return zone_path(self.domain, self.roi)


def parse_raster(
    path: str, modality: Modality, file: SourceFile, zones: dict[str, Zone]
) -> tuple[Zone, str]:
    """Return the zone of a raster, which is made when it is the first, and its number.

    Raises
    ------
    SourceDataError
        If the path is none of a raster.
    """
    found = _RASTER.fullmatch(path)
    if found is not None:
        with suppress(InvalidIdError):
            domain = DomainId.parse(found["domain"].replace("_", "-"))
            roi = RoiId.parse(found["zone"].replace("_", "-"))
            if not roi.part and path == raster_path(modality, domain, roi, int(found["number"])):
                zone = zones.setdefault(zone_path(domain, roi), Zone(domain, roi))
                return zone, found["number"]
    folder, name = ("img", "IMG") if modality is IMAGE else ("msk", "MSK")
    msg = (
        f"{file} is no raster of FLAIR#1 or FLAIR#2; expected a path like "
        f"D004_2021/Z1_AN/{folder}/{name}_000001.tif."
    )
    raise SourceDataError(msg)
