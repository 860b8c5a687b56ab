"""The proof: both sides are read and compared, bit for bit, and every difference is named."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from converters.convert import choose_domains
from converters.rasters import Raster, read_raster
from converters.receipts import work_place
from converters.roi import as_stored
from converters.source import RoiSource, Source
from flairhub.errors import FlairHubError, NotInStoreError
from flairhub.grids import CRS, Extent, RoiGrid
from flairhub.ids import DomainId, PatchId
from flairhub.modalities import MODALITIES, Modality
from flairhub.store.access import Location, resolve
from flairhub.store.conventions import GRID_MAPPING, TIME_UNITS, grid_of
from flairhub.store.layout import (
    DATES_ATTRIBUTE,
    PRESENT_ATTRIBUTE,
    ArraySpec,
    array_specs,
    store_name,
)
from flairhub.store.tables import (
    FOLDS,
    date_column,
    has_column,
    read_table,
    sha256_column,
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
    findings: list[Finding] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """True when nothing differs."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "passed": self.passed}


def verify(
    source: Source,
    root: str | Location,
    *,
    domains: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> VerificationReport:
    """Compare a raw dataset with the stores made from it.

    Every pixel of every file is compared bit for bit with the store's, every date, georeference,
    split and presence with the attributes, coordinates and tables, and every data object of the
    store with the checksum kept of it.

    Parameters
    ----------
    source
        The raw dataset.
    root
        Folder or URL of the stores.
    domains
        What to compare; all domains of the source when absent.
    progress
        Told of every finished ROI.

    Returns
    -------
    VerificationReport
        Counts and findings. A difference is a finding, not an exception.
    """
    place = resolve(root)
    report = VerificationReport()
    for domain in choose_domains(source, domains):
        _verify_domain(source, place, domain, report, progress)
    return report


def _verify_domain(
    source: Source,
    root: Location,
    domain: DomainId,
    report: VerificationReport,
    progress: Progress | None,
) -> None:
    try:
        tables = {name: read_table(root, domain, name) for name in ("patches", "rois", "shards")}
    except (NotInStoreError, OSError, ValueError) as error:
        report.findings.append(Finding(str(domain), f"its tables cannot be read: {error}"))
        return
    store = root / store_name(domain)
    _check_objects(store, _records(tables["shards"]), report)
    converted = {key for names in tables["rois"]["modalities"] for key in names}
    modalities = [m for m in MODALITIES.values() if m.key in converted]
    rois = source.rois(domain, modalities)
    rows = {row["patch_id"]: row for row in _records(tables["patches"])}
    roi_rows = {row["roi"]: row for row in _records(tables["rois"])}
    for roi in sorted(set(roi_rows) - {str(r.roi) for r in rois}):
        report.findings.append(Finding(f"{domain} {roi}", "is in the store but not in the source"))
    for number, roi in enumerate(rois, start=1):
        if str(roi.roi) not in roi_rows:
            report.findings.append(Finding(roi.where, "is in the source but not in the store"))
            continue
        _RoiCheck(roi, store, roi_rows[str(roi.roi)], rows, report).run(modalities)
        if progress is not None:
            progress(roi.where, number, len(rois))
    if work_place(root, domain).objects():
        report.findings.append(Finding(str(domain), "an unfinished conversion lies beside it"))


def _check_objects(store: Location, rows: Sequence[Any], report: VerificationReport) -> None:
    for row in rows:
        report.objects += 1
        where = f"{store.name}/{row['key']}"
        try:
            data = (store / row["key"]).read()
        except NotInStoreError:
            report.findings.append(Finding(where, "is missing"))
            continue
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            report.findings.append(Finding(where, "does not have the checksum it was written with"))
    known = {row["key"] for row in rows}
    for key in store.objects():
        if not key.endswith("zarr.json") and key not in known:
            report.findings.append(Finding(f"{store.name}/{key}", "is not in the list of objects"))


_Node = zarr.Array[Any] | zarr.Group


class _RoiCheck:
    """Compares one ROI; collects findings."""

    def __init__(
        self,
        source: RoiSource,
        store: Location,
        roi_row: dict[str, Any],
        rows: dict[str, dict[str, Any]],
        report: VerificationReport,
    ) -> None:
        self.source, self.store, self.report = source, store, report
        self.roi_row, self.rows = roi_row, rows
        names = ("left", "top", "rows", "columns", "first_row", "first_column")
        self.grid = RoiGrid(**{name: roi_row[name] for name in names})

    def run(self, modalities: Sequence[Modality]) -> None:
        self.report.rois += 1
        path = (self.store / str(self.source.roi)).path
        try:
            group = zarr.open_group(self.store.store, path=path, mode="r", zarr_format=3)
        except (OSError, ValueError) as error:
            self._found(self.source.where, f"cannot be opened: {error}")
            return
        for patch in self.source.files:
            self._check_row(patch, modalities)
        for modality in modalities:
            files = {p: f[modality.key] for p, f in self.source.files.items() if modality.key in f}
            if not files:
                continue
            try:
                self._check_group(group, modality, set(files))
                arrays = [
                    np.asarray(group[spec.path][...])  # type: ignore[index]
                    for spec in self._specs(modality)
                ]
            except (KeyError, OSError, ValueError, RuntimeError) as error:
                self._found(f"{self.source.where} {modality.key}", f"cannot be read: {error!r}")
                continue
            for patch, file in files.items():
                if str(patch) not in self.rows:
                    continue  # said by _check_row
                try:
                    raster = read_raster(file, modality)
                except FlairHubError as error:
                    self._found(str(file), str(error))
                    continue
                self._check_patch(patch, modality, raster, arrays, str(file))

    def _found(self, where: str, what: str) -> None:
        self.report.findings.append(Finding(where, what))

    def _specs(self, modality: Modality) -> tuple[ArraySpec, ...]:
        dates = len(self.source.times.get(modality.key, ()))
        return array_specs(modality, self.grid, dates)

    def _check_row(self, patch: PatchId, modalities: Sequence[Modality]) -> None:
        self.report.patches += 1
        row = self.rows.get(str(patch))
        if row is None:
            self._found(str(patch), "is missing from the patches table")
            return
        expected: dict[str, Any] = {
            has_column(m.key): m.key in self.source.files[patch] for m in modalities
        }
        expected |= {c: self.source.folds.get(c, {}).get(patch) for c in FOLDS}
        for key, dates in self.source.dates.items():
            expected[date_column(key)] = dates.get(patch)
        extent = self.grid.patch_extent(patch.row, patch.column)
        expected |= dict(zip(("left", "bottom", "right", "top"), extent.bbox, strict=True))
        for column, value in expected.items():
            found = None if pd.isna(row[column]) else row[column]
            if found != value:
                self._found(str(patch), f"{column} is {found} in the patches table, not {value}")

    def _check_group(self, tree: zarr.Group, modality: Modality, there: set[PatchId]) -> None:
        group = tree[modality.group]
        if not isinstance(group, zarr.Group):
            raise KeyError(modality.group)
        where = f"{self.source.where} {modality.group}"
        grid = self.grid.grid(modality.resolution_m)
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

    def _check_patch(
        self,
        patch: PatchId,
        modality: Modality,
        raster: Raster,
        arrays: Sequence[npt.NDArray[Any]],
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
            raw = as_stored(raster.pixels, spec)
            stored = array[(..., *window.slices)]
            where = f"{patch} {spec.path} ({file})"
            if raw.shape != stored.shape or raw.dtype != stored.dtype:
                self._found(where, f"is {stored.dtype}{stored.shape}, not {raw.dtype}{raw.shape}")
                continue
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


def _bits(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """View floats as integers, so that NaN payloads and the sign of zero count."""
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


def _close(a: Extent, b: Extent) -> bool:
    return all(abs(p - q) < 1e-4 for p, q in zip(a.bbox, b.bbox, strict=True))
