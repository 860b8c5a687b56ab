"""A raw dataset into stores: which ROIs are still to do, who does them, and when a domain is done.

A domain is complete when its tables exist. Where a ROI that they list must be written anew they are
removed first and come back after the last, so that a stopped conversion never looks finished;
where ROIs or modalities are only added they stay until new ones take their place. Running the same
command again keeps what is complete and does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from converters.documents import domain_document
from converters.engine import Engine, engine_for
from converters.families import check_family
from converters.job import RoiJob
from converters.jobs import Options, left_out_elsewhere, roi_jobs
from converters.lock import Claim, domain_lock
from converters.receipts import (
    ASIDE,
    Receipt,
    Skipped,
    committed,
    receipt_at,
    skipped_before,
    work_place,
)
from converters.roi import convert_roi
from converters.rows import Outcome
from converters.selection import Selection
from converters.source import RoiSource, Source
from converters.tables import drop_tables, read_receipts, write_tables
from converters.target import reachable, target_errors
from flairhub.errors import (
    ConversionError,
    FlairHubError,
    NotInStoreError,
    SourceDataError,
)
from flairhub.ids import DomainId
from flairhub.modalities import Modality
from flairhub.store.access import Location, resolve
from flairhub.store.codecs import codecs
from flairhub.store.layout import store_name
from flairhub.store.tables import read_table

Progress = Callable[[str, int, int], None]
"""Called with a ROI's name, the number of ROIs done and of all."""

_NAMED = 10
"""How much of what was left out is named where that is everything."""


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
    skipped
        What could not be converted and was left out, now or by an earlier run.
    notes
        Modalities that patches lack, gaps, and other oddities.
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
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def convert(
    source: Source,
    root: str | Location,
    selection: Selection | None = None,
    *,
    profile: str = "fast",
    skip: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> ConversionReport:
    """Convert a raw dataset into one store a domain under `root`.

    Parameters
    ----------
    source
        The raw dataset, such as `converters.flairhub_tree.FlairHubTree`.
    root
        Folder or URL for the stores.
    selection
        What to convert; everything when absent. What the store holds besides stays as it is.
    profile
        Codec profile, see `flairhub.store.codecs`.
    skip
        Leave out files and ROIs that cannot be converted, and name them in the report and in the
        store; else the first one ends the conversion.
    workers
        Local processes; as many as there are cores (and ROIs) when absent.
    scheduler
        Address of a Dask scheduler that does the work instead.
    progress
        Told of every finished ROI.

    Raises
    ------
    SourceDataError
        If a raw file is not what it should be. ROIs complete by then are kept; the ROI in question
        and its domain do not look complete.
    UnknownNameError
        If a domain, ROI, modality, split or profile does not exist.
    ConversionError
        If the target cannot be written or reached, or another converter is at work there.
    """
    selection = selection or Selection()
    whole = selection.rois is None and selection.splits is None
    options = Options(selection.choose_modalities(source), profile, skip, whole)
    codecs(options.modalities[0], profile)
    root = reachable(root)
    place = resolve(root, read_only=False)
    with target_errors(place, "Nothing was written"):
        # lists the target: a wrong bucket or key says so before anything is read
        check_family(place, options.modalities[0].dataset, source.name)
    report = ConversionReport()
    with engine_for(root, workers, scheduler) as engine:
        for domain, rois in chosen_rois(source, selection, options.modalities):
            left_out = [*source.left_out(domain), *(one for roi in rois for one in roi.left_out)]
            if left_out and not skip:
                raise SourceDataError(left_out[0].reason)
            if not rois:
                report.skipped += left_out
                continue
            with target_errors(place), domain_lock(root, domain) as claim:
                work = _Domain(place, claim, source, options, report, engine)
                work.convert(rois, left_out, progress)
    if not report.domains:
        more = f" and {n} more" if (n := len(report.skipped) - _NAMED) > 0 else ""
        first = "; ".join(map(str, report.skipped[:_NAMED]))
        msg = f"{source.name}: no ROI could be converted. {first}{more}"
        raise SourceDataError(msg)
    report.notes += source.notes
    return report


def chosen_rois(
    source: Source, selection: Selection, modalities: Sequence[Modality]
) -> Iterator[tuple[DomainId, list[RoiSource]]]:
    """Yield the chosen ROIs, domain by domain; none where all was left out.

    Raises
    ------
    SourceDataError
        If a domain has no file of the chosen modalities.
    UnknownNameError
        If a name of the selection does not exist, or no ROI is chosen; after the last domain.
    """
    found: list[str] = []
    wanted = 0
    for domain in selection.choose_domains(source):
        every = source.rois(domain, modalities)
        if not every and not source.left_out(domain):
            names = ", ".join(m.source_name for m in modalities)
            msg = f"{domain}: no raster of {names} was found."
            raise SourceDataError(msg)
        found += [f"{domain}/{roi.roi}" for roi in every]
        chosen = selection.choose_rois(every)
        wanted += len(chosen)
        if chosen or not every:
            yield domain, chosen
    if found:
        selection.check_rois(found, wanted)


class _Domain:
    """The conversion of one domain, which holds its lock."""

    def __init__(
        self,
        root: Location,
        claim: Claim,
        source: Source,
        options: Options,
        report: ConversionReport,
        engine: Engine,
    ) -> None:
        self.root, self.claim, self.domain, self.engine = root, claim, claim.domain, engine
        self.source, self.options, self.report = source, options, report
        self.store = root / store_name(self.domain)
        self.work = work_place(root, self.domain)

    def convert(
        self, rois: Sequence[RoiSource], left_out: Sequence[Skipped], progress: Progress | None
    ) -> None:
        """Convert what is not there yet, and complete the tables."""
        self._delete_partials()
        complete = read_receipts(self.root, self.domain)
        jobs, skipped = roi_jobs(self.root, self.domain, rois, complete, self.options)
        skipped += left_out
        before = skipped_before(self.store)
        elsewhere = left_out_elsewhere(before, self.domain, rois, complete, self.options)
        claim = self.claim
        jobs = [
            replace(job, root=claim.root, source_name=self.source.name, claim=claim) for job in jobs
        ]
        for job in jobs:
            if job.source.problem is not None and not self.options.skip:
                raise SourceDataError(job.source.problem)
        self.report.kept += len(rois) - len(jobs)
        unfinished = bool(self.work.objects())
        anew = self._begin(jobs, complete) if jobs else set()
        done = len(rois) - len(jobs)
        changed, written = unfinished, set[str]()
        for job, outcome in self.engine.run(jobs, convert_roi):
            if isinstance(outcome, FlairHubError):
                if not self.options.skip:
                    if anew and all(committed(self.store / roi) for roi in anew):
                        self._complete(
                            complete, [*skipped, *elsewhere]
                        )  # nothing that it had is lost
                    raise outcome
                skipped.append(Skipped(job.source.where, "", str(outcome)))
            else:
                changed = True
                written.add(str(job.source.roi))
                skipped += outcome.skipped
                _count(self.report, job.source, outcome)
            done += 1
            if progress is not None:
                progress(job.source.where, done, len(rois))
        if not jobs and progress is not None:
            progress(str(self.domain), len(rois), len(rois))
        skipped.sort(key=Skipped.as_list)
        # a ROI that was refused is in the store as it was
        refused = {f"{self.domain} {roi}" for roi in complete.keys() - anew}
        lacking = [one for one in skipped if one.modality or one.where not in refused]
        told = self._plain([*lacking, *elsewhere])
        if not changed and complete and told != self._plain(before):
            self._keep_receipts(complete, sorted(complete)[:1])  # or a stop would not be noticed
            changed = True
        if changed or anew or not complete:
            there = {roi: r for roi, r in complete.items() if roi not in anew}
            complete = dict(self._complete(there, told))
            if lost := sorted(written - complete.keys()):
                msg = (
                    f"{self.domain}: workers converted {', '.join(lost)}, but there is nothing of "
                    f"it in {self.root}: they must see the same folder under the same path."
                )
                raise ConversionError(msg)
        self.report.skipped += skipped
        if complete:
            self.report.domains.append(str(self.domain))
            self._measure()

    def _begin(self, jobs: Sequence[RoiJob], complete: Mapping[str, Receipt]) -> set[str]:
        """Put receipts aside where they are needed, and take the domain out of sight if it must.

        Returns the ROIs of its tables that are made anew.
        """
        self.claim.check()
        jobs = [job for job in jobs if job.source.problem is None]
        anew = {str(job.source.roi) for job in jobs if job.hides} & set(complete)
        kept = {str(job.source.roi) for job in jobs if job.keep}
        self._keep_receipts(complete, complete if anew else kept & set(complete))
        if anew:
            drop_tables(self.root, self.domain)
        marker = self.store / "zarr.json"
        if not marker.exists():
            marker.write(self._document())
        return anew

    def _keep_receipts(self, complete: Mapping[str, Receipt], rois: Iterable[str]) -> None:
        """Put receipts where a stopped conversion is gone on from."""
        for roi in rois:
            place = self.work / f"{roi}.json"
            if not place.exists():
                place.write(complete[roi].to_bytes())
        self.work.flush()

    def _complete(
        self, complete: Mapping[str, Receipt], skipped: Sequence[Skipped]
    ) -> Mapping[str, Receipt]:
        """Write the tables; return the receipts of the ROIs that are in them.

        A domain of which all was left out is no domain: nothing of it stays.
        """
        receipts = dict(complete)
        for name in self.work.objects():
            roi = name.removesuffix(ASIDE).removesuffix(".json")
            found = receipt_at(self.root, self.domain, roi)
            if found is not None and committed(self.store / roi) is not None:
                receipts[roi] = found
        self.claim.check()
        if not receipts:
            if self.store.objects() == ["zarr.json"]:
                self.store.delete_tree()
            return receipts
        document = self._document(skipped)
        (self.store / "zarr.json").write(document)
        (self.store / "zarr.json").flush()
        write_tables(self.root, self.domain, receipts.values(), {"zarr.json": document})
        self._clear_work(receipts)
        return receipts

    def _clear_work(self, complete: Collection[str]) -> None:
        """Delete the work folder, but for what is put aside of ROIs that are not complete."""
        names = self.work.objects()
        aside = {name.removesuffix(ASIDE) for name in names if name.endswith(ASIDE)} - {*complete}
        if not aside:
            self.work.delete_tree()
            return
        for name in names:
            if name.removesuffix(ASIDE).removesuffix(".json") not in aside:
                (self.work / name).delete()

    def _document(self, skipped: Sequence[Skipped] = ()) -> bytes:
        dataset = self.options.modalities[0].dataset
        told = self._plain(skipped)
        return domain_document(str(self.domain), self.source.name, dataset, told)

    def _plain(self, skipped: Iterable[Skipped]) -> list[Skipped]:
        """Return what the store tells of it: each once, sorted, and without this machine's folders.

        With them no two stores would be the same.
        """
        root = f"{self.source.root}/"
        plain = {replace(one, reason=one.reason.replace(root, "")) for one in skipped}
        return sorted(plain, key=Skipped.as_list)

    def _delete_partials(self) -> None:
        """Delete files that a killed process was still writing, beside the store and in it."""
        for place in (self.root, self.store, self.work):
            with suppress(FileNotFoundError, NotInStoreError):
                for name in place.names():
                    mine = place is not self.root or name.startswith(str(self.domain))
                    if mine and name.endswith(".partial"):
                        (place / name).delete()

    def _measure(self) -> None:
        shards = read_table(self.root, self.domain, "shards")
        self.report.store_bytes += int(shards["size"].sum())
        self.report.objects += len(shards)


def _count(report: ConversionReport, source: RoiSource, outcome: Outcome) -> None:
    report.rois += 1
    report.patches += outcome.patches
    report.files += outcome.files
    report.raw_bytes += outcome.raw_bytes
    report.source_bytes += outcome.source_bytes
    for key, absent in outcome.absent.items():
        some = f"{len(absent)} of {outcome.patches} patches lack {key}"
        report.notes.append(f"{source.where}: {some}, such as {absent[0]}")
    if outcome.gaps:
        report.notes.append(f"{source.where}: {outcome.gaps} cells of its lattice have no patch")
