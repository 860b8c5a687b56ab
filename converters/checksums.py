"""The stores against the checksums kept of them: rot is found without any raw file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

import pandas as pd

from converters.engine import Engine, engine_for
from converters.receipts import work_place
from converters.selection import Selection
from converters.target import reachable
from flairhub.errors import FlairHubError, NotInStoreError
from flairhub.ids import DomainId
from flairhub.store.access import Location, resolve
from flairhub.store.layout import TABLES, store_name, sums_name, table_name
from flairhub.store.tables import read_table

Progress = Callable[[str, int, int], None]
"""Called with a ROI's name, the number of ROIs done and of all."""


@dataclass(frozen=True)
class Finding:
    """One difference: where it is, and what is wrong there."""

    where: str
    what: str


@dataclass
class VerificationReport:
    """What was compared and what was found; no finding means the stores hold the raw data."""

    rois: int = 0
    patches: int = 0
    files: int = 0
    pixels: int = 0
    dates: int = 0
    objects: int = 0
    bytes: int = 0
    skipped: int = 0
    share: float = 1.0
    findings: list[Finding] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """True when nothing differs."""
        return not self.findings

    def add(self, part: VerificationReport) -> None:
        """Take over the counts and findings of a part."""
        for one in fields(self):
            if one.name != "share":
                setattr(self, one.name, getattr(self, one.name) + getattr(part, one.name))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "passed": self.passed}


@dataclass(frozen=True)
class ObjectsCheck:
    """One unit of work, sent to a worker process: a ROI and what the table says of its objects."""

    root: str | Location
    domain: DomainId
    roi: str
    objects: Sequence[dict[str, Any]]

    @property
    def store(self) -> Location:
        """The domain's store."""
        return resolve(self.root) / store_name(self.domain)


def verify_checksums(
    root: str | Location,
    selection: Selection | None = None,
    *,
    workers: int | None = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> VerificationReport:
    """Compare every object of stores and tables with the checksum that was kept of it.

    No source is needed: the pixels were proved equal when they were written or verified, and this
    shows that not a bit has changed since.

    Parameters
    ----------
    root
        Folder or URL of the stores.
    selection
        What to check; everything when absent. Its modalities do not count.
    workers, scheduler
        Who does the work, as in `converters.convert.convert`.
    progress
        Told of every finished ROI.

    Raises
    ------
    NotInStoreError
        If there is no store at `root`.
    UnknownNameError
        If a name of the selection does not exist, or no ROI is chosen.
    """
    selection = selection or Selection()
    root = reachable(root)
    place = resolve(root)
    report = VerificationReport()
    found: list[str] = []
    wanted = 0
    with engine_for(root, workers, scheduler) as engine:
        for domain in selection.domains_of(_domains_there(place), str(place)):
            tables = domain_tables(place, domain, report)
            if tables is None:
                continue
            every = sorted(set(tables["shards"]["roi"]) - {""})
            by_roi = tables["patches"].groupby("roi")["split"]
            splits = {str(roi): set(of_patches) for roi, of_patches in by_roi}
            rois = [roi for roi in every if selection.wants(domain, roi, splits.get(roi, ()))]
            found += [f"{domain}/{roi}" for roi in every]
            wanted += len(rois)
            checks = [
                ObjectsCheck(root, domain, roi, rows_of_roi(tables["shards"], roi)) for roi in rois
            ]
            run_checks(engine, checks, check_objects, report, progress)
            check_rest(place, domain, tables["shards"], report)
    if found:
        selection.check_rois(found, wanted)
    return report


def _domains_there(root: Location) -> list[DomainId]:
    """Return the domains of which anything is there, complete or not."""
    ending = store_name(DomainId("000", 0)).partition(".")[2]
    found = set()
    for name in root.names():
        with suppress(FlairHubError):
            domain = DomainId.parse(name.partition(".")[0])
            tables = [table_name(domain, table) for table in TABLES]
            if name in (f"{domain}.{ending}", sums_name(domain), *tables):
                found.add(domain)
    if not found:
        msg = f"{root} holds no store; expected a folder with stores such as D012-2019.{ending}."
        raise NotInStoreError(msg)
    return sorted(found)


def domain_tables(
    root: Location, domain: DomainId, report: VerificationReport
) -> dict[str, pd.DataFrame] | None:
    """Return the tables of a domain, held against their checksums; None where one is missing."""
    try:
        sums = (root / sums_name(domain)).read().decode("utf-8", "replace").splitlines()
    except NotInStoreError:
        report.findings.append(Finding(sums_name(domain), "is missing"))
        sums = []
    known = {name: digest for digest, _, name in (line.partition("  ") for line in sums)}
    for table in TABLES:
        name = table_name(domain, table)
        with suppress(NotInStoreError):  # said below
            data = (root / name).read()
            report.objects += 1
            report.bytes += len(data)
            if known.get(name) != hashlib.sha256(data).hexdigest():
                what = f"does not have the checksum that {sums_name(domain)} gives"
                report.findings.append(Finding(name, what))
    try:
        return {name: read_table(root, domain, name) for name in TABLES}
    except (FlairHubError, OSError, ValueError) as error:
        report.findings.append(Finding(str(domain), f"its tables cannot be read: {error}"))
        return None


_Check = TypeVar("_Check", bound=ObjectsCheck)


def run_checks(
    engine: Engine,
    checks: Sequence[_Check],
    function: Callable[[_Check], VerificationReport],
    report: VerificationReport,
    progress: Progress | None,
) -> None:
    """Check the ROIs of a domain; `report` takes up the findings in the order of their names."""
    parts: dict[str, VerificationReport] = {}
    for check, part in engine.run(checks, function):
        if isinstance(part, FlairHubError):
            found = Finding(f"{check.domain} {check.roi}", str(part))
            parts[check.roi] = VerificationReport(findings=[found])
        else:
            parts[check.roi] = part
        if progress is not None:
            progress(f"{check.domain} {check.roi}", len(parts), len(checks))
    for roi in sorted(parts):
        report.add(parts[roi])


def check_rest(
    root: Location, domain: DomainId, shards: pd.DataFrame, report: VerificationReport
) -> None:
    """Check what belongs to no ROI, and that there is nothing that nobody lists."""
    store = root / store_name(domain)
    _check_objects(store, rows_of_roi(shards, ""), report)
    known = set(shards["key"])
    for key in store.objects():
        if key not in known:
            report.findings.append(Finding(f"{store.name}/{key}", "is not in the list of objects"))
    if work_place(root, domain).objects():
        report.findings.append(Finding(str(domain), "an unfinished conversion lies beside it"))


def check_objects(check: ObjectsCheck) -> VerificationReport:
    """Hold every object of a ROI against its checksum."""
    report = VerificationReport()
    _check_objects(check.store, check.objects, report)
    return report


def _check_objects(
    store: Location, rows: Sequence[dict[str, Any]], report: VerificationReport
) -> None:
    for row in rows:
        report.objects += 1
        where = f"{store.name}/{row['key']}"
        try:
            data = (store / row["key"]).read()
        except (FlairHubError, OSError) as error:
            missing = isinstance(error, NotInStoreError)
            what = "is missing" if missing else f"cannot be read: {error}"
            report.findings.append(Finding(where, what))
            continue
        report.bytes += len(data)
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            report.findings.append(Finding(where, "does not have the checksum it was written with"))


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as dicts of plain values."""
    return [dict(zip(frame.columns, row, strict=True)) for row in frame.to_numpy(object)]


def rows_of_roi(frame: pd.DataFrame, roi: str) -> list[dict[str, Any]]:
    """Return the rows of one ROI."""
    return records(frame[frame["roi"] == roi])
