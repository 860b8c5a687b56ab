"""A raw dataset into stores: which ROIs are still to do, who does them, and when a domain is done.

A domain is complete when its tables exist. They are removed before the first of its ROIs is written
and come back after the last, so that a stopped conversion never looks finished; running the same
command again keeps the ROIs that are complete and does the rest.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from datetime import date
from multiprocessing import get_context
from typing import Any

import numpy as np
import pandas as pd

from converters.receipts import Receipt, committed_signature, signature, work_place
from converters.roi import RoiJob, convert_roi, dump_attributes, receipt_of
from converters.source import RoiSource, Source
from converters.tables import drop_tables, write_tables
from flairhub.errors import NotInStoreError, SourceDataError, UnknownNameError, did_you_mean
from flairhub.ids import DomainId
from flairhub.modalities import MODALITIES, Kind, Modality, get_modality
from flairhub.store.access import Location, resolve
from flairhub.store.codecs import codecs
from flairhub.store.layout import store_name
from flairhub.store.tables import read_table

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with a ROI's name, the number of ROIs done and of all."""


@dataclass
class ConversionReport:
    """What a conversion did.

    Parameters
    ----------
    domains
        Names of the domains that are complete now.
    rois, kept, patches, files
        ROIs written, ROIs found complete and kept, patches and files of those written.
    raw_bytes, source_bytes
        Decoded pixels and raw files that were read.
    store_bytes, objects
        Size and number of all objects of the stores in `domains`.
    notes
        Modalities that patches lack, and other oddities.
    """

    domains: list[str] = field(default_factory=list)
    rois: int = 0
    kept: int = 0
    patches: int = 0
    files: int = 0
    raw_bytes: int = 0
    source_bytes: int = 0
    store_bytes: int = 0
    objects: int = 0
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def convert(
    source: Source,
    root: str | Location,
    *,
    domains: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    profile: str = "fast",
    workers: int | None = None,
    progress: Progress | None = None,
) -> ConversionReport:
    """Convert a raw dataset into one store a domain under `root`.

    Parameters
    ----------
    source
        The raw dataset, such as `converters.flairhub_tree.FlairHubTree`.
    root
        Folder or URL for the stores.
    domains, modalities
        What to convert; everything when absent.
    profile
        Codec profile, see `flairhub.store.codecs`.
    workers
        Processes; as many as there are cores (and ROIs) when absent.
    progress
        Told of every finished ROI.

    Raises
    ------
    SourceDataError
        If a raw file is not what it should be. ROIs complete by then are kept; the ROI in question
        and its domain do not look complete.
    UnknownNameError
        If a domain, modality or profile does not exist.
    """
    chosen = choose_modalities(modalities)
    codecs(chosen[0], profile)
    place = resolve(root, read_only=False)
    report = ConversionReport()
    for domain in choose_domains(source, domains):
        rois = source.rois(domain, chosen)
        if not rois:
            msg = f"{domain}: no raster of {', '.join(m.source_name for m in chosen)} was found."
            raise SourceDataError(msg)
        jobs = [RoiJob(roi, source.name, root, profile, chosen) for roi in rois]
        _convert_domain(place, domain, jobs, workers, progress, report)
    report.notes += source.notes
    return report


def choose_domains(source: Source, names: Sequence[str] | None) -> list[DomainId]:
    """Return the wanted domains of a source; raises `UnknownNameError` for one it lacks."""
    known = source.domains()
    if names is None:
        return known
    texts = [str(d) for d in known]
    for name in names:
        if name not in texts:
            msg = f"{source.name} has no domain {name!r} here. {did_you_mean(name, texts)}"
            raise UnknownNameError(msg)
    return sorted(DomainId.parse(name) for name in set(names))


def choose_modalities(names: Sequence[str] | None) -> tuple[Modality, ...]:
    """Return modalities by name, in registry order; a mask brings the series it belongs to."""
    if names is None:
        return tuple(MODALITIES.values())
    keys = {get_modality(name).key for name in names}
    keys |= {m.group for m in MODALITIES.values() if m.kind is Kind.MASK and m.key in keys}
    return tuple(m for m in MODALITIES.values() if m.key in keys)


def _convert_domain(
    root: Location,
    domain: DomainId,
    jobs: Sequence[RoiJob],
    workers: int | None,
    progress: Progress | None,
    report: ConversionReport,
) -> None:
    store = root / store_name(domain)
    kept: dict[str, Receipt | None] = {}
    for job in jobs:
        wanted = signature(job.source, job.modalities, job.profile)
        if committed_signature(store / str(job.source.roi)) == wanted:
            kept[str(job.source.roi)] = receipt_of(root, job)
    complete = _rows_of_tables(root, domain)
    lost = [roi for roi, receipt in kept.items() if receipt is None and roi not in complete]
    kept = {roi: receipt or complete[roi] for roi, receipt in kept.items() if roi not in lost}
    todo = [job for job in jobs if str(job.source.roi) not in kept]
    if todo or set(complete) != set(kept):
        _begin(root, domain, {roi: r for roi, r in kept.items() if r is not None})
        done = dict(kept)
        for job, receipt in _run(todo, workers):
            done[str(job.source.roi)] = receipt
            _count(report, job.source, receipt)
            if progress is not None:
                progress(job.source.where, len(done), len(jobs))
        write_tables(root, domain, [receipt for receipt in done.values() if receipt])
        work_place(root, domain).delete_tree()
    elif progress is not None:
        progress(str(domain), len(jobs), len(jobs))
    report.domains.append(str(domain))
    report.kept += len(kept)
    _measure(root, domain, report)


def _begin(root: Location, domain: DomainId, kept: dict[str, Receipt]) -> None:
    """Take the domain out of sight, with the rows of its finished ROIs put aside first."""
    marker = root / store_name(domain) / "zarr.json"
    for roi, receipt in kept.items():
        (work_place(root, domain) / f"{roi}.json").write(receipt.to_bytes())
    drop_tables(root, domain)
    if not marker.exists():
        marker.write(dump_attributes(str(domain)))


def _run(jobs: Sequence[RoiJob], workers: int | None) -> Iterator[tuple[RoiJob, Receipt]]:
    count = min(workers or os.cpu_count() or 1, len(jobs))
    # a store in this process's memory is out of reach of others
    if count <= 1 or isinstance(jobs[0].root, Location) or jobs[0].root.startswith("memory:"):
        for job in jobs:
            yield job, convert_roi(job)
        return
    # GDAL and zarr hold threads and handles that do not survive a fork
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(convert_roi, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _rows_of_tables(root: Location, domain: DomainId) -> dict[str, Receipt]:
    """Return the rows of a complete domain as receipts, by ROI; empty when it is not complete."""
    try:
        rois = read_table(root, domain, "rois").drop(columns="geometry")
        patches = read_table(root, domain, "patches").drop(columns="geometry")
        shards = read_table(root, domain, "shards")
    except NotInStoreError:
        return {}
    found = {}
    for row in _plain(rois):
        roi = row["roi"]
        mine = _plain(patches[patches["roi"] == roi])
        found[roi] = Receipt(row, mine, _plain(shards[shards["roi"] == roi]))
    return found


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as a receipt has them: JSON values, nothing for what is missing."""
    rows = [dict(zip(frame.columns, values, strict=True)) for values in frame.to_numpy(object)]
    return [{k: _json_value(v) for k, v in row.items() if not _missing(v)} for row in rows]


def _missing(value: object) -> bool:
    return value is None or (not isinstance(value, np.ndarray) and bool(pd.isna(value)))  # type: ignore[call-overload]


def _json_value(value: Any) -> Any:  # noqa: ANN401 - whatever a table cell may hold
    if isinstance(value, np.ndarray):
        return [_json_value(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, date) else value


def _count(report: ConversionReport, source: RoiSource, receipt: Receipt) -> None:
    report.rois += 1
    report.patches += len(receipt.patches)
    report.files += receipt.files
    report.raw_bytes += receipt.raw_bytes
    report.source_bytes += receipt.source_bytes
    keys = [name.removeprefix("has_") for name in receipt.patches[0] if name.startswith("has_")]
    for key in keys:
        absent = [row["patch_id"] for row in receipt.patches if not row[f"has_{key}"]]
        if absent:
            some = f"{len(absent)} of {len(receipt.patches)} patches lack {key}"
            report.notes.append(f"{source.where}: {some}, such as {absent[0]}")


def _measure(root: Location, domain: DomainId, report: ConversionReport) -> None:
    shards = read_table(root, domain, "shards")
    report.store_bytes += int(shards["size"].sum())
    report.objects += len((root / store_name(domain)).objects())
