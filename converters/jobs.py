"""What is still to be done of a domain: ROIs, and groups of them, that its store lacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from converters.npy import read_area
from converters.rasters import read_raster
from converters.receipts import (
    GROUP_SIGNATURE,
    ROWS_SIGNATURE,
    SKIPPED_ATTRIBUTE,
    Receipt,
    Skipped,
    committed,
    group_signature,
    receipt_at,
    rows_signature,
)
from converters.roi import RoiJob
from converters.source import RoiSource
from converters.tables import read_receipts
from flairhub.errors import SourceDataError
from flairhub.ids import DomainId
from flairhub.modalities import Modality, get_modality
from flairhub.store.access import Location
from flairhub.store.layout import groups, store_name


@dataclass(frozen=True)
class Options:
    """How to convert; see `convert`."""

    modalities: tuple[Modality, ...]
    profile: str = "fast"
    skip: bool = False


def pending(
    root: Location,
    domain: DomainId,
    rois: Sequence[RoiSource],
    modalities: tuple[Modality, ...],
    profile: str,
) -> list[RoiJob]:
    """Return what is to be done of some ROIs of a domain; reads the store, writes nothing."""
    complete = read_receipts(root, domain)
    return roi_jobs(root, domain, rois, complete, Options(modalities, profile))[0]


def roi_jobs(
    root: Location,
    domain: DomainId,
    rois: Sequence[RoiSource],
    complete: Mapping[str, Receipt],
    options: Options,
) -> tuple[list[RoiJob], list[Skipped]]:
    """Return what is to do, and what earlier runs left out of what is not."""
    jobs, skipped = [], []
    store = root / store_name(domain)
    for roi in rois:
        name = str(roi.roi)
        known = receipt_at(root, domain, name) or complete.get(name)
        document = committed(store / name) if known else None
        wanted = _wanted_groups(roi, options.modalities)
        keep, left_out = _kept_groups(document, roi, wanted, options.profile)
        skipped += left_out
        if document is not None and set(wanted) <= set(keep):
            continue
        jobs.append(
            RoiJob(
                roi,
                "",
                root,
                options.profile,
                options.modalities,
                options.skip,
                tuple(keep),
            )
        )
    return jobs, skipped


def _wanted_groups(roi: RoiSource, modalities: Sequence[Modality]) -> dict[str, list[Modality]]:
    """Return the groups that a ROI's files make, with the modalities in each."""
    there = roi.keys
    wanted = {}
    for name, members in groups().items():
        present = [m for m in members if m in modalities and m.key in there]
        if present and present[0].key == name:
            wanted[name] = present
    return wanted


def _kept_groups(
    document: Mapping[str, Any] | None,
    roi: RoiSource,
    wanted: Mapping[str, Sequence[Modality]],
    profile: str,
) -> tuple[list[str], list[Skipped]]:
    """Return the groups of a committed ROI that may stay, and what is left out of them."""
    if document is None:
        return [], []
    attributes = document["attributes"]
    lattice = attributes.get("flairhub:grid", {})
    patches = roi.files
    rows, columns = [p.row for p in patches], [p.column for p in patches]
    inside = (
        lattice.get("first_row", 0) <= min(rows)
        and max(rows) < lattice.get("first_row", 0) + lattice.get("rows", 0)
        and lattice.get("first_column", 0) <= min(columns)
        and max(columns) < lattice.get("first_column", 0) + lattice.get("columns", 0)
    )
    if not inside or attributes.get(ROWS_SIGNATURE) != rows_signature(roi):
        return [], []
    kept, skipped = [], []
    for path, node in document["consolidated_metadata"]["metadata"].items():
        if "/" in path:
            continue
        found = node["attributes"]
        left_out = [Skipped(*one) for one in found.get(SKIPPED_ATTRIBUTE, ())]
        if path in wanted:
            signature = group_signature(roi, wanted[path], profile)
            if found.get(GROUP_SIGNATURE) != signature or _mended(left_out, roi):
                continue
        kept.append(path)
        skipped += left_out
    return kept, skipped


def _mended(left_out: Iterable[Skipped], roi: RoiSource) -> bool:
    """Tell whether a file that was left out can be read by now."""
    by_name = {str(patch): files for patch, files in roi.files.items()}
    for one in left_out:
        if one.modality in roi.areas:
            area, modality = roi.areas[one.modality], get_modality(one.modality)
            with suppress(SourceDataError):
                read_area(area.file, modality, len(roi.times[one.modality]), area.grid)
                return True
        file = by_name.get(one.where, {}).get(one.modality)
        if file is not None:
            with suppress(SourceDataError):
                read_raster(file, get_modality(one.modality))
                return True
    return False
