"""The proof: both sides are read and compared, bit for bit, and every difference is named."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, cast

import zarr

from converters.checksums import (
    Finding,
    Progress,
    VerificationReport,
    check_rest,
    domain_tables,
    records,
    rows_of_roi,
    run_checks,
)
from converters.comparison import RoiCheck, compare_roi
from converters.engine import engine_for
from converters.receipts import SKIPPED_ATTRIBUTE
from converters.selection import Selection
from converters.source import Source
from converters.target import reachable
from flairhub.errors import ConfigError, FlairHubError
from flairhub.ids import DomainId
from flairhub.modalities import MODALITIES
from flairhub.store.access import Location, resolve
from flairhub.store.layout import store_name


def verify(
    source: Source,
    root: str | Location,
    selection: Selection | None = None,
    *,
    share: float = 1.0,
    seed: int = 0,
    workers: int | None = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> VerificationReport:
    """Compare a raw dataset with the stores made from it.

    Every pixel of every file is compared bit for bit with the store's, every date, georeference,
    split and presence with the attributes, coordinates and tables, and every object of the store
    with the checksum kept of it.

    Parameters
    ----------
    source
        The raw dataset.
    root
        Folder or URL of the stores.
    selection
        What to compare; everything when absent. Its modalities do not count: all that were
        converted are compared.
    share
        Part of the patches whose pixels are compared, drawn at random; all else is compared whole.
    seed
        Of that draw.
    workers, scheduler
        Who does the work, as in `converters.convert.convert`.
    progress
        Told of every finished ROI.

    Returns
    -------
    VerificationReport
        Counts and findings. A difference is a finding, not an exception.

    Raises
    ------
    UnknownNameError
        If a name of the selection does not exist, or no ROI is chosen.
    ConfigError
        If `share` is so small that no patch was drawn.
    """
    selection = selection or Selection()
    root = reachable(root)
    place = resolve(root)
    report = VerificationReport(share=share)
    found: list[str] = []
    wanted = 0
    with engine_for(root, workers, scheduler) as engine:
        for domain in selection.choose_domains(source):
            tables = domain_tables(place, domain, report)
            if tables is None:
                continue
            converted = {key for names in tables["rois"]["modalities"] for key in names}
            modalities = tuple(m for m in MODALITIES.values() if m.key in converted)
            every = source.rois(domain, modalities)
            rois = selection.choose_rois(every)
            found += [f"{domain}/{roi.roi}" for roi in every]
            wanted += len(rois)
            rows = {row["roi"]: row for row in records(tables["rois"])}
            for name in sorted(set(rows) - {str(r.roi) for r in every}):
                report.findings.append(Finding(f"{domain} {name}", "is not in the source"))
            left_out = _left_out(place, domain)
            for one in (*source.left_out(domain), *(o for roi in rois for o in roi.left_out)):
                if (one.where, one.modality) in left_out:
                    report.skipped += 1
                else:
                    report.findings.append(Finding(f"{one.where} {one.modality}", one.reason))
            checks = []
            for roi in rois:
                if str(roi.roi) in rows:
                    checks.append(
                        RoiCheck(
                            root,
                            domain,
                            str(roi.roi),
                            rows_of_roi(tables["shards"], str(roi.roi)),
                            roi,
                            modalities,
                            rows[str(roi.roi)],
                            rows_of_roi(tables["patches"], str(roi.roi)),
                            share,
                            seed,
                        )
                    )
                elif (roi.where, "") in left_out:
                    report.skipped += 1
                else:
                    report.findings.append(Finding(roi.where, "is in the source, not in the store"))
            run_checks(engine, checks, compare_roi, report, progress)
            check_rest(place, domain, tables["shards"], report)
    if found:
        selection.check_rois(found, wanted)
    if share < 1 and report.patches and not report.files:
        msg = f"A share of {share:g} draws none of the {report.patches} patches; compare more."
        raise ConfigError(msg)
    return report


def _left_out(root: Location, domain: DomainId) -> set[tuple[str, str]]:
    """Return what the store itself says could not be converted: patch, ROI or domain; modality."""
    with suppress(FlairHubError, OSError, ValueError):
        store = root / store_name(domain)
        group = zarr.open_group(store.store, path=store.path, mode="r", zarr_format=3)
        left_out = cast("Any", group.attrs.get(SKIPPED_ATTRIBUTE, ()))
        return {(str(where), str(modality)) for where, modality, *_ in left_out}
    return set()
