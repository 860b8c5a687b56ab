"""What is kept of a converted ROI until its domain is complete: its rows of the domain tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from converters.source import RoiSource
from flairhub.errors import NotInStoreError
from flairhub.ids import DomainId
from flairhub.modalities import Modality
from flairhub.store.access import Location
from flairhub.store.layout import FORMAT_VERSION

GROUP_SIGNATURE = "flairhub:source_signature"
"""Attribute of a ROI's group: by modality, digest of the files it was made from and how."""

SKIPPED_ATTRIBUTE = "flairhub:skipped"
"""Attribute of what lacks raw data that could not be converted: patch or ROI, modality, reason."""

ASIDE = ".aside.json"
"""End of the names of what `put_aside` reads; receipts end in ``.json`` alone."""


@dataclass(frozen=True)
class Skipped:
    """Raw data that were left out: a patch's modality, or a whole ROI (no modality)."""

    where: str
    modality: str
    reason: str

    def as_list(self) -> list[str]:
        """Return plain JSON."""
        return [self.where, self.modality, self.reason]

    def __str__(self) -> str:
        """Return a line of a report."""
        return f"{self.where} {self.modality}".strip() + f" skipped: {self.reason}"


@dataclass
class Receipt:
    """Rows of one ROI for the tables, plain JSON values.

    Parameters
    ----------
    roi
        Row of the ``rois`` table.
    patches, shards, statistics
        Rows of those tables.
    """

    roi: dict[str, Any]
    patches: list[dict[str, Any]] = field(default_factory=list)
    shards: list[dict[str, Any]] = field(default_factory=list)
    statistics: list[dict[str, Any]] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        """Return JSON."""
        return json.dumps(vars(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read JSON."""
        return cls(**json.loads(data))


def work_place(root: Location, domain: DomainId) -> Location:
    """Return the folder of unfinished work on a domain, hidden beside its store."""
    return root / f".{domain}.work"


def signature(source: RoiSource, modality: Modality, profile: str) -> str:
    """Return a digest of what a modality of a ROI would be converted from and how.

    Names and sizes of the files count, not their times, so that a copy of the same dataset gives
    the same store; a file that changes without changing size is `verify`'s to find.
    """
    key = modality.key
    files = sorted(
        (str(patch), by_key[key].size) for patch, by_key in source.files.items() if key in by_key
    )
    areas = [str(area.grid) for held, area in source.areas.items() if held == key]
    sizes = [area.file.size for held, area in source.areas.items() if held == key]
    times = [str(day) for day in source.times.get(key, ())]
    dates = {str(p): str(day) for p, day in sorted(source.dates.get(key, {}).items())}
    told = [FORMAT_VERSION, profile, key, files, areas, sizes, times, dates]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def signatures(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Return the signatures of a group's attributes; none where there was one for all of it."""
    found = attributes.get(GROUP_SIGNATURE)
    return dict(found) if isinstance(found, dict) else {}


def committed(place: Location) -> dict[str, Any] | None:
    """Return the ``zarr.json`` of a complete ROI at `place`, or None where there is none."""
    try:
        found: dict[str, Any] = json.loads((place / "zarr.json").read())
    except (NotInStoreError, ValueError):
        return None
    return found


def skipped_before(place: Location) -> list[Skipped]:
    """Return what a store says that it lacks."""
    told = (committed(place) or {}).get("attributes", {}).get(SKIPPED_ATTRIBUTE, ())
    return [Skipped(*one) for one in told]


def put_aside(root: Location, domain: DomainId, roi: str) -> dict[str, Any] | None:
    """Return the metadata of what stays of a ROI that is being converted anew, or None.

    Such a ROI is out of sight until it is complete; whoever goes on after a stop needs them.
    """
    try:
        found: dict[str, Any] = json.loads(aside_place(root, domain, roi).read())
    except (NotInStoreError, ValueError):
        return None
    return found


def aside_place(root: Location, domain: DomainId, roi: str) -> Location:
    """Return where `put_aside` looks."""
    return work_place(root, domain) / f"{roi}{ASIDE}"


def receipt_at(root: Location, domain: DomainId, roi: str) -> Receipt | None:
    """Return the receipt of a ROI that lies in the domain's work folder, or None."""
    try:
        return Receipt.from_bytes((work_place(root, domain) / f"{roi}.json").read())
    except (NotInStoreError, ValueError, TypeError):
        return None
