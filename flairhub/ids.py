"""Names of the units of a dataset: domain (department-year), ROI, patch.

``str(X.parse(text)) == text`` holds for every id; nothing else in the project splits these names.
The historical modality's ``D012-195X`` is a name of raw folders, not an id: see
:mod:`converters.flairhub_raw`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering
from typing import Self

from flairhub.errors import InvalidIdError

_DOMAIN = re.compile(r"D(?P<department>[0-9]{3}(?:[0-9]{3})?)-(?P<year>[0-9]{4})")
_ROI = re.compile(r"(?P<strata>[A-Z]{2})-S(?P<campaign>[0-9])-(?P<counter>[A-Z]?[0-9]+)")
_ZONE = re.compile(r"Z(?P<counter>[0-9]+)-(?P<strata>[A-Z]{2})(?:-(?P<part>[a-z]+))?")
_PATCH = re.compile(
    r"(?P<domain>[^_]+)_(?P<roi>[^_]+)_(?P<row>[1-9][0-9]*)-(?P<column>[1-9][0-9]*)"
)


def _match(pattern: re.Pattern[str], text: str, what: str, example: str) -> re.Match[str]:
    found = pattern.fullmatch(text)
    if found is None:
        msg = f"{text!r} is not a {what}; expected a name like {example!r}."
        raise InvalidIdError(msg)
    return found


@total_ordering
@dataclass(frozen=True, slots=True)
class DomainId:
    """One department (or a merged pair) flown in one year, such as ``D012-2019``.

    Parameters
    ----------
    department
        Three digits, or six for a merged pair (``024047``).
    year
        Year of the aerial campaign.
    """

    department: str
    year: int

    def __post_init__(self) -> None:
        """Refuse parts that would not print as a valid id."""
        _match(_DOMAIN, str(self), "domain", "D012-2019")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a domain id such as ``D024047-2021``; raises `InvalidIdError`."""
        found = _match(_DOMAIN, text, "domain", "D012-2019")
        return cls(found["department"], int(found["year"]))

    @property
    def code(self) -> str:
        """The department part with its letter, such as ``D012``: shared by all years."""
        return f"D{self.department}"

    def __str__(self) -> str:
        """Return the id as IGN writes it."""
        return f"D{self.department}-{self.year:04d}"

    def __lt__(self, other: DomainId) -> bool:
        """Order by department, then year."""
        return (self.department, self.year) < (other.department, other.year)


@total_ordering
@dataclass(frozen=True, slots=True)
class RoiId:
    """A region of interest inside a domain, such as ``AF-S1-27`` or ``UN-S1-U9``.

    A zone of FLAIR#1 or FLAIR#2 is a ROI without a campaign: ``Z1_AN`` on disk is ``Z1-AN`` here,
    since ``_`` separates the parts of a patch id. Where a zone's patches share no lattice, each
    lattice is a ROI: ``Z1-AN-a``, ``Z1-AN-b``.

    Parameters
    ----------
    strata
        The two dominant land-cover strata (U urban, A agricultural, F forest, N natural, V vine).
    campaign
        Sampling campaign, 1 or 2; None for a zone.
    counter
        Running number, with one leading letter in some domains.
    part
        Letters of a part of a zone; empty for a whole one, and for every other ROI.
    """

    strata: str
    campaign: int | None
    counter: str
    part: str = ""

    def __post_init__(self) -> None:
        """Refuse parts that would not print as a valid id."""
        pattern = _ROI if self.campaign is not None else _ZONE
        _match(pattern, str(self), "ROI", "AF-S1-27")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a ROI id such as ``UN-S1-U9`` or ``Z1-AN``; raises `InvalidIdError`."""
        zone = _ZONE.fullmatch(text)
        if zone is not None:
            return cls(zone["strata"], None, zone["counter"], zone["part"] or "")
        found = _match(_ROI, text, "ROI", "AF-S1-27")
        return cls(found["strata"], int(found["campaign"]), found["counter"])

    def __str__(self) -> str:
        """Return the id as IGN writes it, but for the ``-`` of a zone."""
        part = f"-{self.part}" if self.part else ""
        if self.campaign is None:
            return f"Z{self.counter}-{self.strata}{part}"
        return f"{self.strata}-S{self.campaign}-{self.counter}{part}"

    def __lt__(self, other: RoiId) -> bool:
        """Order as the printed names do."""
        return str(self) < str(other)


@total_ordering
@dataclass(frozen=True, slots=True)
class PatchId:
    """One 102.4 m square of a ROI, such as ``D012-2019_AF-S1-27_5-10``.

    Parameters
    ----------
    domain, roi
        Where the patch lies.
    row, column
        1-based position in the ROI; rows grow southward, columns eastward.
    """

    domain: DomainId
    roi: RoiId
    row: int
    column: int

    def __post_init__(self) -> None:
        """Refuse positions that IGN's names cannot carry."""
        if self.row < 1 or self.column < 1:
            msg = f"Patch positions start at 1; got row {self.row}, column {self.column}."
            raise InvalidIdError(msg)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a patch id such as ``D006-2020_FF-S1-14_5-5``; raises `InvalidIdError`."""
        found = _match(_PATCH, text, "patch id", "D012-2019_AF-S1-27_5-10")
        domain, roi = DomainId.parse(found["domain"]), RoiId.parse(found["roi"])
        return cls(domain, roi, int(found["row"]), int(found["column"]))

    def __str__(self) -> str:
        """Return the id as IGN writes it."""
        return f"{self.domain}_{self.roi}_{self.row}-{self.column}"

    def __lt__(self, other: PatchId) -> bool:
        """Order by domain, ROI, row, column."""
        mine = (self.domain, self.roi, self.row, self.column)
        return mine < (other.domain, other.roi, other.row, other.column)
