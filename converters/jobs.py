"""What is still to be done of a domain: ROIs, and groups of them, that its store lacks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from converters.job import RoiJob
from converters.kept import in_nodes
from converters.npy import read_area
from converters.rasters import read_raster
from converters.receipts import (
    SKIPPED_ATTRIBUTE,
    Receipt,
    Skipped,
    committed,
    put_aside,
    receipt_at,
    signature,
    signatures,
)
from converters.source import RoiSource
from converters.tables import read_receipts
from flairhub.errors import InvalidIdError, SourceDataError
from flairhub.ids import DomainId, PatchId
from flairhub.modalities import MODALITIES, Modality, get_modality
from flairhub.store.access import Location
from flairhub.store.layout import groups, store_name
from flairhub.store.tables import source_column


@dataclass(frozen=True)
class Options:
    """How to convert; see `convert`. `whole`: all ROIs of each domain, not a choice of them."""

    modalities: tuple[Modality, ...]
    profile: str = "fast"
    skip: bool = False
    whole: bool = True


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
        there = committed(store / name) if known else None
        document = there or (put_aside(root, domain, name) if known else None)
        job = RoiJob(roi, "", root, options.profile, options.modalities, options.skip)
        if known is None or document is None:
            jobs.append(job)
            continue
        held = _Held(roi, known, document, _wanted(roi, options.modalities), options.profile)
        skipped += held.left_out
        if held.lost:
            problem = held.refusal()
            jobs.append(replace(job, source=replace(roi, problem=problem), keep=held.keys))
        elif there is None or held.missing:
            hides = there is None or bool(held.replaced)
            jobs.append(replace(job, keep=held.kept, replaced=held.replaced, hides=hides))
    return jobs, skipped


def left_out_elsewhere(
    before: Iterable[Skipped],
    domain: DomainId,
    rois: Sequence[RoiSource],
    complete: Collection[str],
    options: Options,
) -> list[Skipped]:
    """Return, of what a domain said before that it lacks, what these ROIs and options leave alone.

    What was not chosen stays as it is known, and ROIs of the store that this source has not.
    """
    chosen = {m.key for m in options.modalities}
    looked_at = {str(roi.roi) for roi in rois}
    found = []
    for one in before:
        roi = _roi_of(one, domain)
        away = bool(roi) and roi not in looked_at and (roi in complete or not options.whole)
        if away or (one.modality in MODALITIES and one.modality not in chosen):
            found.append(one)
    return found


def _roi_of(skipped: Skipped, domain: DomainId) -> str:
    """Return the ROI that something skipped belongs to; empty where that is all of a domain."""
    with suppress(InvalidIdError):
        return str(PatchId.parse(skipped.where).roi)
    return skipped.where.removeprefix(str(domain)).strip()


def _wanted(roi: RoiSource, modalities: Sequence[Modality]) -> tuple[str, ...]:
    """Return the modalities that a ROI's files make; a mask only beside its series."""
    there = roi.keys
    found = []
    for name, members in groups().items():
        present = [m.key for m in members if m in modalities and m.key in there]
        if present and present[0] == name:
            found += present
    return tuple(found)


class _Held:
    """What of a committed ROI may stay, and what must be written.

    Parameters
    ----------
    roi
        What the source has of it now.
    receipt, document
        What is known of it: rows of the tables, and its ``zarr.json``.
    wanted
        Modalities that the source has and the user chose.
    profile
        Of the codecs.

    Attributes
    ----------
    keys
        Modalities that it has.
    kept, replaced
        Of these, those that stay and those that must be made anew.
    missing
        Wanted modalities that are not there, or not as they should be.
    lost
        Modalities that would have to be made anew, but are not wanted.
    left_out
        Raw data that what stays lacks.
    """

    def __init__(
        self,
        roi: RoiSource,
        receipt: Receipt,
        document: Mapping[str, Any],
        wanted: Sequence[str],
        profile: str,
    ) -> None:
        self.roi = roi
        nodes = document["consolidated_metadata"]["metadata"]
        # of a ROI that was stopped the receipt may be ahead of what is in sight, or put aside
        self.keys = tuple(key for key in receipt.roi["modalities"] if in_nodes(key, nodes))
        self.reason = _conflict(roi, receipt, document)
        changed = set(self.keys) if self.reason else set()
        self.left_out: list[Skipped] = []
        tried: set[str] = set()
        for name, node in nodes.items():
            if "/" in name:
                continue
            found = node["attributes"]
            left_out = [Skipped(*one) for one in found.get(SKIPPED_ATTRIBUTE, ())]
            made = signatures(found)
            members = [key for key in self.keys if get_modality(key).group == name]
            fresh = {
                key
                for key in wanted
                if get_modality(key).group == name
                and made.get(key) != signature(roi, get_modality(key), profile)
            }
            fresh |= {key for key in wanted if _mended(left_out, key, roi)}
            if members and members[0] in fresh:  # its dates are those of all
                fresh |= set(members)
            # what could not be read and cannot be now
            tried |= {key for key in made if key not in fresh}
            changed |= fresh & set(members)
            self.left_out += [one for one in left_out if one.modality not in changed]
        self.kept = tuple(key for key in self.keys if key not in changed)
        self.replaced = tuple(key for key in self.keys if key in changed)
        there = {*self.kept, *(tried - changed)}
        self.missing = tuple(key for key in wanted if key not in there)
        self.lost = tuple(key for key in self.replaced if key not in wanted)

    def refusal(self) -> str:
        """Say why the ROI cannot be converted without losing something."""
        why = self.reason or "its raw files are not those that it was converted from"
        return (
            f"{self.roi.where} is there already, and {why}. To convert it anew, every modality "
            f"that it has must be chosen and be in the source; these are not: "
            f"{', '.join(self.lost)}. Nothing of it was changed."
        )


def _conflict(roi: RoiSource, receipt: Receipt, document: Mapping[str, Any]) -> str | None:
    """Say why nothing of a committed ROI can stay; None where it can."""
    grid = document["attributes"].get("flairhub:grid", {})
    rows = range(grid.get("first_row", 0), grid.get("first_row", 0) + grid.get("rows", 0))
    first = grid.get("first_column", 0)
    columns = range(first, first + grid.get("columns", 0))
    outside = [p for p in roi.files if p.row not in rows or p.column not in columns]
    if outside:
        return f"the source has patches outside its lattice, such as {outside[0]}"
    known = {row["patch_id"]: row for row in receipt.patches}
    told = {**roi.folds, **{source_column(k): f for k, f in roi.facts.items()}}
    for column, by_patch in told.items():
        for patch, value in by_patch.items():
            row = known.get(str(patch))
            if row is not None and value is not None and value != row.get(column):
                before = row.get(column)
                return f"{column} of {patch} is {value!r} now and was {before!r}"
    return None


def _mended(left_out: Iterable[Skipped], key: str, roi: RoiSource) -> bool:
    """Tell whether a file of a modality that was left out can be read by now."""
    by_name = {str(patch): files for patch, files in roi.files.items()}
    for one in (one for one in left_out if one.modality == key):
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
