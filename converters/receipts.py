"""What is kept of a converted ROI until its domain is complete: its rows of the domain tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from converters.source import RoiSource
from flairhub.errors import NotInStoreError
from flairhub.ids import DomainId
from flairhub.modalities import Modality
from flairhub.store.access import Location
from flairhub.store.layout import FORMAT_VERSION
from flairhub.store.tables import source_column

GROUP_SIGNATURE = "flairhub:source_signature"
"""Attribute of a ROI's group: digest of the files it was made from and how."""

ROWS_SIGNATURE = "flairhub:splits_signature"
"""Attribute of a ROI: digest of the splits of its patches."""

SKIPPED_ATTRIBUTE = "flairhub:skipped"
"""Attribute of what lacks raw data that could not be converted: patch or ROI, modality, reason."""


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


def group_signature(source: RoiSource, members: Sequence[Modality], profile: str) -> str:
    """Return a digest of what a group of a ROI would be converted from and how.

    Names and sizes of the files count, not their times, so that a copy of the same dataset gives
    the same store; a file that changes without changing size is `verify`'s to find.
    """
    keys = [m.key for m in members]
    files = sorted(
        (str(patch), key, by_key[key].size)
        for patch, by_key in source.files.items()
        for key in keys
        if key in by_key
    )
    files += [
        (str(area.grid), key, area.file.size) for key, area in source.areas.items() if key in keys
    ]
    times = {key: [str(day) for day in source.times[key]] for key in keys if key in source.times}
    dates = {
        key: {str(p): str(day) for p, day in sorted(source.dates[key].items())}
        for key in keys
        if key in source.dates
    }
    return _digest([FORMAT_VERSION, profile, files, times, dates])


def rows_signature(source: RoiSource) -> str:
    """Return a digest of the splits of a ROI's patches, and of what else is told of them."""
    told = {**source.folds, **{source_column(k): f for k, f in source.facts.items()}}
    return _digest({k: {str(p): v for p, v in f.items()} for k, f in told.items()})


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def committed(place: Location) -> dict[str, Any] | None:
    """Return the ``zarr.json`` of a complete ROI at `place`, or None where there is none."""
    try:
        found: dict[str, Any] = json.loads((place / "zarr.json").read())
    except (NotInStoreError, ValueError):
        return None
    return found


def receipt_at(root: Location, domain: DomainId, roi: str) -> Receipt | None:
    """Return the receipt of a ROI that lies in the domain's work folder, or None."""
    try:
        return Receipt.from_bytes((work_place(root, domain) / f"{roi}.json").read())
    except (NotInStoreError, ValueError, TypeError):
        return None
