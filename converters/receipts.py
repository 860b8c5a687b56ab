"""What is kept of a converted ROI until its domain is complete: its rows of the domain tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from converters.source import RoiSource
from flairhub.ids import DomainId
from flairhub.modalities import Modality
from flairhub.store.access import Location
from flairhub.store.layout import FORMAT_VERSION

SIGNATURE_ATTRIBUTE = "flairhub:source_signature"


@dataclass
class Receipt:
    """Rows of one ROI for the tables, plain JSON values, and what its conversion moved.

    Parameters
    ----------
    roi
        Row of the ``rois`` table.
    patches, shards
        Rows of those tables.
    raw_bytes
        Decoded pixels.
    source_bytes, files
        Size and number of the raw files.
    """

    roi: dict[str, Any]
    patches: list[dict[str, Any]] = field(default_factory=list)
    shards: list[dict[str, Any]] = field(default_factory=list)
    raw_bytes: int = 0
    source_bytes: int = 0
    files: int = 0

    def to_bytes(self) -> bytes:
        """Return JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read JSON."""
        return cls(**json.loads(data))


def work_place(root: Location, domain: DomainId) -> Location:
    """Return the folder of unfinished work on a domain, hidden beside its store."""
    return root / f".{domain}.work"


def signature(source: RoiSource, modalities: Sequence[Modality], profile: str) -> str:
    """Return a digest of what a ROI would be converted from and how.

    Names and sizes of the files count, not their times, so that a copy of the same dataset gives
    the same store; a file that changes without changing size is `verify`'s to find.
    """
    wanted = {m.key for m in modalities}
    files = [
        (str(patch), key, path.stat().st_size)
        for patch, by_key in source.files.items()
        for key, path in by_key.items()
        if key in wanted
    ]
    parts = [
        FORMAT_VERSION,
        profile,
        sorted(files),
        {key: [str(day) for day in days] for key, days in sorted(source.times.items())},
        {k: {str(p): v for p, v in f.items()} for k, f in sorted(source.folds.items())},
        {k: {str(p): str(v) for p, v in f.items()} for k, f in sorted(source.dates.items())},
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def committed_signature(place: Location) -> str | None:
    """Return the signature of a complete ROI at `place`, or None where there is none."""
    marker = place / "zarr.json"
    if not marker.exists():
        return None
    found = json.loads(marker.read())["attributes"].get(SIGNATURE_ATTRIBUTE)
    return str(found)
