"""The pixels of a ROI against its raw files, bit for bit; every difference is named."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from converters.checksums import Finding, ObjectsCheck, VerificationReport, check_objects
from converters.npy import read_area
from converters.rasters import Raster, read_raster
from converters.receipts import SKIPPED_ATTRIBUTE
from converters.source import RoiSource
from converters.tiles import as_stored
from flairhub.errors import FlairHubError
from flairhub.grids import CRS, Extent, RoiGrid
from flairhub.ids import PatchId
from flairhub.modalities import Modality
from flairhub.store.conventions import GRID_MAPPING, TIME_UNITS, grid_of
from flairhub.store.layout import (
    DATES_ATTRIBUTE,
    PRESENT_ATTRIBUTE,
    ArraySpec,
    array_specs,
)
from flairhub.store.tables import (
    FOLDS,
    date_column,
    has_column,
    sha256_column,
    source_column,
    times_column,
)


@dataclass(frozen=True)
class RoiCheck(ObjectsCheck):
    """A check that compares pixels too: with the ROI's source, and its rows of the tables."""

    source: RoiSource
    modalities: tuple[Modality, ...]
    row: dict[str, Any]
    patches: Sequence[dict[str, Any]]
    share: float
    seed: int


def compare_roi(check: RoiCheck) -> VerificationReport:
    """Hold a ROI's objects against their checksums, and all that it says against its source."""
    report = check_objects(check)
    _Comparison(check, report).run()
    return report


_Node = zarr.Array[Any] | zarr.Group


class _Comparison:
    """Compares one ROI; the report takes up the findings."""

    def __init__(self, check: RoiCheck, report: VerificationReport) -> None:
        source = check.source
        self.source, self.store, self.report = source, check.store, report
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


def _bits(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """View floats as integers, so that NaN payloads and the sign of zero count."""
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


def _close(a: Extent, b: Extent) -> bool:
    return all(abs(p - q) < 1e-4 for p, q in zip(a.bbox, b.bbox, strict=True))
