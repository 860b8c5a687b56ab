"""The proof: both sides are read and compared, bit for bit, and every difference is named."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from converters.engine import Engine
from converters.npy import read_area
from converters.rasters import Raster, read_raster
from converters.receipts import SKIPPED_ATTRIBUTE, work_place
from converters.roi import as_stored
from converters.selection import Selection
from converters.source import RoiSource, Source
from flairhub.errors import FlairHubError, NotInStoreError, UnknownNameError, did_you_mean
from flairhub.grids import CRS, Extent, RoiGrid
from flairhub.ids import DomainId, PatchId
from flairhub.modalities import MODALITIES, Modality
from flairhub.store.access import Location, resolve
from flairhub.store.conventions import GRID_MAPPING, TIME_UNITS, grid_of
from flairhub.store.layout import (
    DATES_ATTRIBUTE,
    PRESENT_ATTRIBUTE,
    TABLES,
    ArraySpec,
    array_specs,
    store_name,
    sums_name,
    table_name,
)
from flairhub.store.tables import (
    FOLDS,
    date_column,
    has_column,
    read_table,
    sha256_column,
    source_column,
    times_column,
)

Progress = Callable[[str, int, int], None]


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
class _Check:
    """One unit of work, sent to a worker process: a ROI and its rows of the tables."""

    root: str | Location
    domain: DomainId
    roi: str
    objects: Sequence[dict[str, Any]]
    source: RoiSource | None = None
    modalities: tuple[Modality, ...] = ()
    row: dict[str, Any] = field(default_factory=dict)
    patches: Sequence[dict[str, Any]] = ()
    share: float = 1.0
    seed: int = 0


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
        What to compare; everything when absent. Modalities that were not converted are left out.
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
    """
    selection = selection or Selection()
    place = resolve(root)
    report = VerificationReport(share=share)
    with _engine(root, workers, scheduler) as engine:
        for domain in selection.choose_domains(source):
            tables = _tables(place, domain, report)
            if tables is None:
                continue
            converted = {key for names in tables["rois"]["modalities"] for key in names}
            modalities = tuple(m for m in MODALITIES.values() if m.key in converted)
            every = source.rois(domain, modalities)
            rois = selection.choose_rois(every)
            rows = {row["roi"]: row for row in _records(tables["rois"])}
            for name in sorted(set(rows) - {str(r.roi) for r in every}):
                report.findings.append(Finding(f"{domain} {name}", "is not in the source"))
            left_out = _left_out_rois(place, domain)
            checks = []
            for roi in rois:
                if str(roi.roi) in rows:
                    checks.append(
                        _Check(
                            root,
                            domain,
                            str(roi.roi),
                            _of_roi(tables["shards"], str(roi.roi)),
                            roi,
                            modalities,
                            rows[str(roi.roi)],
                            _of_roi(tables["patches"], str(roi.roi)),
                            share,
                            seed,
                        )
                    )
                elif roi.where in left_out:
                    report.skipped += 1
                else:
                    report.findings.append(Finding(roi.where, "is in the source, not in the store"))
            _run(engine, checks, report, progress)
            _check_rest(place, domain, tables["shards"], report)
    return report


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
        Its domains count.
    workers, scheduler
        Who does the work, as in `converters.convert.convert`.
    progress
        Told of every finished ROI.
    """
    place = resolve(root)
    report = VerificationReport()
    with _engine(root, workers, scheduler) as engine:
        for domain in _domains_there(place, selection or Selection()):
            tables = _tables(place, domain, report)
            if tables is None:
                continue
            checks = [
                _Check(root, domain, roi, _of_roi(tables["shards"], roi))
                for roi in sorted(set(tables["shards"]["roi"]) - {""})
            ]
            _run(engine, checks, report, progress)
            _check_rest(place, domain, tables["shards"], report)
    return report


def _domains_there(root: Location, selection: Selection) -> list[DomainId]:
    """Return the domains of which anything is there, complete or not."""
    ending = store_name(DomainId("000", 0)).partition(".")[2]
    found = set()
    for name in root.names():
        with suppress(FlairHubError):
            domain = DomainId.parse(name.partition(".")[0])
            tables = [table_name(domain, table) for table in TABLES]
            if name in (f"{domain}.{ending}", sums_name(domain), *tables):
                found.add(domain)
    texts = [str(domain) for domain in sorted(found)]
    for name in selection.domains or ():
        if name not in texts:
            msg = f"{root} has no domain {name!r}. {did_you_mean(name, texts)}"
            raise UnknownNameError(msg)
    return [d for d in sorted(found) if selection.domains is None or str(d) in selection.domains]


def _tables(
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


def _left_out_rois(root: Location, domain: DomainId) -> set[str]:
    """Return the ROIs that the store itself says could not be converted."""
    with suppress(FlairHubError, OSError, ValueError):
        store = root / store_name(domain)
        group = zarr.open_group(store.store, path=store.path, mode="r", zarr_format=3)
        left_out = cast("Any", group.attrs.get(SKIPPED_ATTRIBUTE, ()))
        return {str(where) for where, *_ in left_out}
    return set()


def _engine(root: str | Location, workers: int | None, scheduler: str | None) -> Engine:
    # a store in this process's memory is out of reach of others
    here = isinstance(root, Location) or root.startswith("memory:")
    return Engine(1 if here else workers, scheduler)


def _run(
    engine: Engine,
    checks: Sequence[_Check],
    report: VerificationReport,
    progress: Progress | None,
) -> None:
    parts: dict[str, VerificationReport] = {}
    for check, part in engine.run(checks, _check_roi):
        if isinstance(part, FlairHubError):
            found = Finding(f"{check.domain} {check.roi}", str(part))
            parts[check.roi] = VerificationReport(findings=[found])
        else:
            parts[check.roi] = part
        if progress is not None:
            progress(f"{check.domain} {check.roi}", len(parts), len(checks))
    for roi in sorted(parts):
        report.add(parts[roi])


def _check_rest(
    root: Location, domain: DomainId, shards: pd.DataFrame, report: VerificationReport
) -> None:
    """Check what belongs to no ROI, and that there is nothing that nobody lists."""
    store = root / store_name(domain)
    _check_objects(store, _of_roi(shards, ""), report)
    known = set(shards["key"])
    for key in store.objects():
        if key not in known:
            report.findings.append(Finding(f"{store.name}/{key}", "is not in the list of objects"))
    if work_place(root, domain).objects():
        report.findings.append(Finding(str(domain), "an unfinished conversion lies beside it"))


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


def _check_roi(check: _Check) -> VerificationReport:
    report = VerificationReport()
    store = resolve(check.root) / store_name(check.domain)
    _check_objects(store, check.objects, report)
    if check.source is not None:
        _RoiCheck(check, check.source, store, report).run()
    return report


_Node = zarr.Array[Any] | zarr.Group


class _RoiCheck:
    """Compares one ROI; collects findings."""

    def __init__(
        self, check: _Check, source: RoiSource, store: Location, report: VerificationReport
    ) -> None:
        self.source, self.store, self.report = source, store, report
        self.roi_row, self.modalities = check.row, check.modalities
        self.rows = {row["patch_id"]: row for row in check.patches}
        names = ("left", "top", "rows", "columns", "first_row", "first_column")
        self.grid = RoiGrid(**{name: check.row[name] for name in names})
        chance = random.Random(f"{check.seed} {source.where}")
        self.drawn = {p for p in source.files if check.share >= 1 or chance.random() < check.share}

    def run(self) -> None:
        self.report.rois += 1
        if self.source.problem is not None:
            self._found(self.source.where, self.source.problem)
            return
        path = (self.store / str(self.source.roi)).path
        try:
            group = zarr.open_group(self.store.store, path=path, mode="r", zarr_format=3)
        except (OSError, ValueError) as error:
            self._found(self.source.where, f"cannot be opened: {error}")
            return
        # what a conversion left out is said by it, and is no difference
        left_out = {
            (str(patch), str(key))
            for _, child in group.groups()
            for patch, key, _ in cast("Any", child.attrs.get(SKIPPED_ATTRIBUTE, ()))
        }
        self.report.skipped += len(left_out)
        there = {
            m.key: {
                patch: files[m.key]
                for patch, files in self.source.files.items()
                if m.key in files and (str(patch), m.key) not in left_out
            }
            for m in self.modalities
        }
        for key, area in self.source.areas.items():
            if key in there and (self.source.where, key) not in left_out:
                there[key] = dict.fromkeys(self.source.files, area.file)
        for patch in self.source.files:
            self._check_row(patch, {key for key, files in there.items() if patch in files})
        for modality in self.modalities:
            files = there[modality.key]
            if not files:
                continue
            try:
                self._check_group(group, modality, set(files))
                arrays = [self._array(group, spec) for spec in self._specs(modality)]
            except (KeyError, OSError, ValueError, RuntimeError) as error:
                self._found(f"{self.source.where} {modality.key}", f"cannot be read: {error!r}")
                continue
            if modality.is_area:
                self._check_area(modality, arrays)
                continue
            for patch in (p for p in files if p in self.drawn and str(p) in self.rows):
                try:
                    raster = read_raster(files[patch], modality)
                except FlairHubError as error:
                    self._found(str(files[patch]), str(error))
                    continue
                self._check_patch(patch, modality, raster, arrays, str(files[patch]))

    def _found(self, where: str, what: str) -> None:
        self.report.findings.append(Finding(where, what))

    def _array(self, group: zarr.Group, spec: ArraySpec) -> zarr.Array[Any]:
        found = group[spec.path]
        if not isinstance(found, zarr.Array):
            raise KeyError(spec.path)
        return found

    def _specs(self, modality: Modality) -> tuple[ArraySpec, ...]:
        dates = len(self.source.times.get(modality.key, ()))
        return array_specs(modality, self.grid, dates, self.source.area_grid(modality))

    def _check_row(self, patch: PatchId, there: set[str]) -> None:
        self.report.patches += 1
        row = self.rows.get(str(patch))
        if row is None:
            self._found(str(patch), "is missing from the patches table")
            return
        expected: dict[str, Any] = {has_column(m.key): m.key in there for m in self.modalities}
        expected |= {c: self.source.folds.get(c, {}).get(patch) for c in FOLDS}
        expected |= {source_column(k): told.get(patch) for k, told in self.source.facts.items()}
        for key, dates in self.source.dates.items():
            expected[date_column(key)] = dates.get(patch)
        extent = self.grid.patch_extent(patch.row, patch.column)
        expected |= dict(zip(("left", "bottom", "right", "top"), extent.bbox, strict=True))
        for column, value in expected.items():
            found = row.get(column)
            found = None if pd.isna(found) else found
            if found != value:
                self._found(str(patch), f"{column} is {found} in the patches table, not {value}")

    def _check_group(self, tree: zarr.Group, modality: Modality, there: set[PatchId]) -> None:
        group = tree[modality.group]
        if not isinstance(group, zarr.Group):
            raise KeyError(modality.group)
        where = f"{self.source.where} {modality.group}"
        grid = self.source.grid(modality, self.grid)
        attributes = dict(group.attrs)
        if grid_of(attributes, where) != grid or attributes.get("proj:code") != CRS:
            self._found(where, f"its GeoZarr attributes do not give {grid} in {CRS}")
        for name, values in (("x", grid.x), ("y", grid.y)):
            self._same(f"{where}/{name}", group[name], values)
        a, b, c, d, e, f = grid.transform
        mapping = dict(group[GRID_MAPPING].attrs)
        if [float(v) for v in str(mapping.get("GeoTransform")).split()] != [c, a, b, f, d, e]:
            self._found(f"{where}/{GRID_MAPPING}", "its GeoTransform is not the raw files'")
        if modality.temporal and modality.key == modality.group:
            self._check_times(where, group, modality)
        if modality.key == modality.group:
            flags = attributes.get(PRESENT_ATTRIBUTE)
            if flags != self._presence(there):
                self._found(where, f"{PRESENT_ATTRIBUTE} is not what the source has: {flags}")
            if not modality.is_label:
                self._same(f"{where}/band", group["band"], np.array(modality.band_names))

    def _presence(self, there: set[PatchId]) -> list[str]:
        places = {(p.row - self.grid.first_row, p.column - self.grid.first_column) for p in there}
        columns = range(self.grid.columns)
        return ["".join("01"[(r, c) in places] for c in columns) for r in range(self.grid.rows)]

    def _check_times(self, where: str, group: zarr.Group, modality: Modality) -> None:
        times = self.source.times[modality.key]
        self.report.dates += len(times)
        days = np.array(times, "datetime64[D]").astype(np.int64)
        self._same(f"{where}/time", group["time"], days)
        if group["time"].attrs.get("units") != TIME_UNITS:
            self._found(f"{where}/time", f"its units are not {TIME_UNITS!r}")
        expected = [str(day) for day in times]
        if group.attrs.get(DATES_ATTRIBUTE) != expected:
            self._found(where, f"{DATES_ATTRIBUTE} does not hold the source's dates")
        if [str(day) for day in self.roi_row[times_column(modality.key)]] != expected:
            self._found(where, "its dates in the rois table are not the source's")

    def _same(self, where: str, array: _Node, expected: npt.NDArray[Any]) -> None:
        found = np.asarray(array[...]) if isinstance(array, zarr.Array) else np.empty(0)
        if found.shape != expected.shape or not (found == expected).all():
            self._found(where, f"differs from the source: {found!s:.60}, not {expected!s:.60}")

    def _check_area(self, modality: Modality, arrays: Sequence[zarr.Array[Any]]) -> None:
        area = self.source.areas[modality.key]
        dates = len(self.source.times[modality.key])
        try:
            raster = read_area(area.file, modality, dates, area.grid)
        except FlairHubError as error:
            self._found(str(area.file), str(error))
            return
        self.report.files += 1
        self.report.pixels += raster.pixels.size
        column, whole = sha256_column(modality.key), (slice(None), slice(None))
        if {row.get(column) for row in self.rows.values()} != {raster.sha256}:
            self._found(str(area.file), "is not the file that was converted: its SHA-256 differs")
        for spec, array in zip(self._specs(modality), arrays, strict=True):
            self._compare(f"{spec.path} ({area.file})", raster, spec, array, whole)

    def _check_patch(
        self,
        patch: PatchId,
        modality: Modality,
        raster: Raster,
        arrays: Sequence[zarr.Array[Any]],
        file: str,
    ) -> None:
        self.report.files += 1
        self.report.pixels += raster.pixels.size
        if self.rows[str(patch)].get(sha256_column(modality.key)) != raster.sha256:
            self._found(file, "is not the file that was converted: its SHA-256 differs")
        extent = self.grid.patch_extent(patch.row, patch.column)
        if raster.grid.extent != extent and not _close(raster.grid.extent, extent):
            self._found(file, f"lies at {raster.grid.extent}, but {patch} at {extent} in the store")
        window = self.grid.patch_window(patch.row, patch.column, modality.resolution_m)
        for spec, array in zip(self._specs(modality), arrays, strict=True):
            self._compare(f"{patch} {spec.path} ({file})", raster, spec, array, window.slices)

    def _compare(
        self,
        where: str,
        raster: Raster,
        spec: ArraySpec,
        array: zarr.Array[Any],
        part: tuple[slice, slice],
    ) -> None:
        """Compare a file's pixels with the part of an array that holds them."""
        raw = as_stored(raster.pixels, spec)
        try:
            # through Zarr itself, as users read it; a file at a time, so that memory is flat
            stored = np.asarray(array[(..., *part)])
        except (OSError, ValueError, RuntimeError) as error:
            self._found(where, f"cannot be read: {error!r}")
            return
        if raw.shape != stored.shape or raw.dtype != stored.dtype:
            self._found(where, f"is {stored.dtype}{stored.shape}, not {raw.dtype}{raw.shape}")
            return
        wrong = _bits(raw) != _bits(stored)
        if wrong.any():
            first = tuple(int(i) for i in np.argwhere(wrong)[0])
            place = ", ".join(f"{d} {i}" for d, i in zip(spec.dims, first, strict=True))
            self._found(
                where,
                f"{int(wrong.sum())} of {wrong.size} pixels differ, first at {place}: "
                f"{stored[first]} in the store, {raw[first]} in the file",
            )


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(frame.columns, row, strict=True)) for row in frame.to_numpy(object)]


def _of_roi(frame: pd.DataFrame, roi: str) -> list[dict[str, Any]]:
    return _records(frame[frame["roi"] == roi])


def _bits(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """View floats as integers, so that NaN payloads and the sign of zero count."""
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


def _close(a: Extent, b: Extent) -> bool:
    return all(abs(p - q) < 1e-4 for p, q in zip(a.bbox, b.bbox, strict=True))
