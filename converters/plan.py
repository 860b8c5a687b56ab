"""What a conversion would read and write, from names and sizes alone: ``convert --dry-run``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from math import ceil, prod
from typing import Any

from converters.convert import Progress, chosen_rois
from converters.families import check_family
from converters.files import SourceFile
from converters.geometry import roi_grid
from converters.job import RoiJob
from converters.jobs import pending
from converters.selection import Selection
from converters.source import RoiSource, Source
from converters.target import reachable
from converters.zips import open_zip
from flairhub.grids import Grid
from flairhub.ids import DomainId
from flairhub.modalities import Kind
from flairhub.store.access import Location, resolve
from flairhub.store.codecs import codecs
from flairhub.store.layout import TABLES, array_specs, groups, leading_dims

PART_BYTES = 5 * 2**20
"""A larger object goes to object storage in parts of this size, each a request."""

STORED_SHARE = {
    Kind.IMAGE: 0.6, Kind.ELEVATION: 0.3, Kind.SERIES: 0.7, Kind.MASK: 0.2, Kind.LABEL: 0.02
}  # fmt: skip
"""Stored bytes of a decoded byte, about: as of the sample, profile fast."""


@dataclass
class DomainPlan:
    """What the conversion of one domain would do.

    Parameters
    ----------
    domain
        Name.
    rois, kept, patches
        ROIs to write, ROIs that are complete, patches of the former.
    files, source_bytes
        Raw files to read.
    gets
        Requests that this takes where they lie on object storage, on one process: for names, 1000 a
        request, directories of zips, tables, headers, and one a raster. What is asked to find the
        domains counts with the first of them; what is asked again after an error is not counted.
    gets_a_worker
        What comes on top at most for each worker process: directories of zips.
    raw_bytes
        Their decoded pixels.
    objects, store_bytes
        Objects to write; their size is an estimate.
    puts
        Requests that writing to object storage takes, lease, receipts and tables included.
    problems
        What cannot be converted, as far as names and tables tell.
    """

    domain: str
    rois: int = 0
    kept: int = 0
    patches: int = 0
    files: int = 0
    source_bytes: int = 0
    raw_bytes: int = 0
    objects: int = 0
    store_bytes: int = 0
    gets: int = 0
    gets_a_worker: int = 0
    puts: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class ConversionPlan:
    """The plans of all domains, and how to show them."""

    domains: list[DomainPlan]

    @property
    def total(self) -> DomainPlan:
        """The sum over all domains."""
        whole = DomainPlan("total")
        for one in self.domains:
            for name in (f.name for f in fields(DomainPlan) if f.name != "domain"):
                setattr(whole, name, getattr(whole, name) + getattr(one, name))
        return whole

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"domains": [asdict(d) for d in self.domains], "total": asdict(self.total)}

    def __str__(self) -> str:
        """Return the totals as a text, a line a domain before them."""
        lines = [_line(one) for one in (*self.domains, self.total)]
        if more := self.total.gets_a_worker:
            lines.append(f"requests of each of several workers, for zips: up to {more:,} more")
        return "\n".join([*lines, *(f"problem: {one}" for one in self.total.problems)])


def _line(plan: DomainPlan) -> str:
    kept = f" ({plan.kept} complete, kept)" if plan.kept else ""
    return (
        f"{plan.domain}: {plan.rois} ROIs{kept}, {plan.patches:,} patches; reads {plan.files:,} "
        f"files, {plan.source_bytes / 1e6:,.1f} MB ({plan.raw_bytes / 1e6:,.1f} MB decoded), in "
        f"{plan.gets:,} requests; "
        f"writes {plan.objects:,} objects, about {plan.store_bytes / 1e6:,.0f} MB, in "
        f"{plan.puts:,} requests"
    )


def plan(
    source: Source,
    root: str | Location,
    selection: Selection | None = None,
    *,
    profile: str = "fast",
    progress: Progress | None = None,
) -> ConversionPlan:
    """Return what `converters.convert.convert` would do; nothing is written, no raster is read.

    Parameters
    ----------
    source, root, selection, profile
        As for the conversion; a source that has just been opened, as all that it was asked counts.
    progress
        Told of every domain.

    Raises
    ------
    SourceDataError, UnknownNameError, ConversionError
        As the conversion, as far as names and tables tell.
    """
    selection = selection or Selection()
    modalities = selection.choose_modalities(source)
    codecs(modalities[0], profile)
    place = resolve(reachable(root), read_only=False)
    check_family(place, modalities[0].dataset, source.name)
    total = len(selection.choose_domains(source))
    found: list[DomainPlan] = []
    asked = 0
    for number, (domain, rois) in enumerate(chosen_rois(source, selection, modalities), start=1):
        jobs = pending(place, domain, rois, modalities, profile)
        found.append(_plan_domain(domain, len(rois) - len(jobs), jobs))
        found[-1].gets += source.requests - asked
        asked = source.requests
        left_out = [*source.left_out(domain), *(one for roi in rois for one in roi.left_out)]
        found[-1].problems += [one.reason for one in left_out]
        if progress is not None:
            progress(str(domain), number, total)
    return ConversionPlan(found)


def _plan_domain(domain: DomainId, kept: int, jobs: Sequence[RoiJob]) -> DomainPlan:
    plan = DomainPlan(str(domain), rois=len(jobs), kept=kept)
    if jobs:
        # the lease, the domain's zarr.json at first and at last, tables with their sums, a receipt
        # a ROI; renewing the lease comes on top, as it takes as long as it takes
        plan.puts += 1 + 2 + len(TABLES) + 1 + len(jobs)
    zips: set[str] = set()
    for job in jobs:
        _add(plan, job, zips)
    plan.gets_a_worker = sum(open_zip(url).requests for url in zips)
    return plan


def _files(source: RoiSource, key: str) -> list[SourceFile]:
    """Return the files of a modality."""
    if key in source.areas:
        return [source.areas[key].file]
    return [by_key[key] for by_key in source.files.values() if key in by_key]


def _add(plan: DomainPlan, job: RoiJob, zips: set[str]) -> None:
    """Add what a ROI takes, and the zips that it lies in."""
    if job.source.problem is not None:
        plan.problems.append(job.source.problem)
        plan.rois -= 1
        return
    files = job.source.files
    plan.gets += not (job.keep or job.source.lattice)  # one raster tells where the ROI lies
    plan.patches += len(files)
    one = next(iter(files))
    grid = roi_grid(files, one, Grid(0.0, 0.0, 1.0, 1, 1))
    plan.objects += 1
    plan.puts += 1
    for name, members in groups().items():
        held = [
            (m, wanted)
            for m in members
            if m in job.modalities
            and m.key not in job.keep
            and (wanted := _files(job.source, m.key))
        ]
        if not held or (held[0][0].key != name and name not in job.keep):
            continue
        first = held[0][0]
        # the group, its grid mapping, and two objects of each coordinate
        others = {*leading_dims(first)} & {"time", "band", "level"}
        described = 2 + 2 * (2 + len(others))
        plan.objects += described
        plan.puts += described
        for modality, wanted in held:
            zips.update(file.url for file in wanted if file.member)
            plan.files += len(wanted)
            # what takes the place of pixels is looked at first
            plan.gets += len(wanted) * (2 if modality.key in job.replaced else 1)
            plan.source_bytes += sum(file.size for file in wanted)
            dates = len(job.source.times.get(modality.key, ()))
            area = job.source.area_grid(modality)
            for spec in array_specs(modality, grid, dates, area):
                whole = [prod(spec.shape)] if area else [prod(spec.chunks)] * len(wanted)
                raw = sum(whole) * modality.numpy_dtype.itemsize
                stored = int(raw * STORED_SHARE[modality.kind])
                shards = prod(
                    ceil(n / size) for n, size in zip(spec.shape, spec.shards, strict=True)
                )
                plan.raw_bytes += raw
                plan.store_bytes += stored
                plan.objects += 1 + shards
                plan.puts += 1 + max(shards, ceil(stored / PART_BYTES))
