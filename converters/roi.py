"""One ROI into its Zarr group: rasters in, whole shards out, the group's own ``zarr.json`` last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from converters.geometry import check_extent, roi_grid
from converters.rasters import Raster, read_grid, read_raster
from converters.receipts import SIGNATURE_ATTRIBUTE, Receipt, signature, work_place
from converters.source import RoiSource
from flairhub import __version__
from flairhub.errors import SourceDataError
from flairhub.grids import RoiGrid, Window
from flairhub.ids import PatchId
from flairhub.modalities import Kind, Modality
from flairhub.store.access import Location, resolve
from flairhub.store.codecs import codecs
from flairhub.store.conventions import (
    CF_VERSION,
    GRID_MAPPING,
    LICENCE,
    coordinate_attributes,
    geozarr_attributes,
    grid_mapping_attributes,
    variable_attributes,
)
from flairhub.store.layout import (
    DATES_ATTRIBUTE,
    FORMAT_VERSION,
    PRESENT_ATTRIBUTE,
    ArraySpec,
    array_specs,
    groups,
    store_name,
)
from flairhub.store.tables import (
    DATED,
    classes_column,
    date_column,
    has_column,
    sha256_column,
    times_column,
)


@dataclass(frozen=True)
class RoiJob:
    """One unit of work, sent to a worker process: a ROI, where it goes, and how."""

    source: RoiSource
    source_name: str
    root: str | Location
    profile: str
    modalities: tuple[Modality, ...]


def convert_roi(job: RoiJob) -> Receipt:
    """Convert one ROI; until its last write no reader sees it.

    Leftovers of an earlier attempt are deleted first. The receipt is kept in the domain's work
    folder before the ROI becomes visible, so that nothing is read twice after a stop.

    Returns
    -------
    Receipt
        The ROI's rows of the domain tables.

    Raises
    ------
    SourceDataError
        If a raw file is not what it should be; the ROI is then absent from the store.
    """
    root = resolve(job.root, read_only=False)
    place = root / store_name(job.source.domain) / str(job.source.roi)
    (place / "zarr.json").delete()
    place.delete_tree()
    writer = _RoiWriter(job, place)
    receipt = writer.write()
    (work_place(root, job.source.domain) / f"{job.source.roi}.json").write(receipt.to_bytes())
    writer.commit()
    return receipt


class _RoiWriter:
    """Holds what the steps of one ROI's conversion share."""

    def __init__(self, job: RoiJob, place: Location) -> None:
        self.job = job
        self.source = job.source
        self.place = place
        self.grid = _lattice(job.source, job.modalities)
        # metadata are drafted in memory: on the store itself zarr would write the ROI's own first,
        # which must come last
        self.draft = Location(MemoryStore())
        self.tree = zarr.create_group(self.draft.store, attributes=self._attributes())
        self.receipt = Receipt(roi={})
        self.rows: dict[PatchId, dict[str, Any]] = {
            patch: {"patch_id": str(patch)} for patch in job.source.files
        }

    def write(self) -> Receipt:
        """Write every group but the ROI's own metadata, and fill in the receipt."""
        kept: list[str] = []
        for name, members in groups().items():
            present = [m for m in members if m in self.job.modalities and self._patches(m)]
            # masks are kept on the time axis of their series, so not without it
            if present and present[0].key == name:
                self._write_group(name, present)
                kept += [m.key for m in present]
        self._describe(kept)
        return self.receipt

    def commit(self) -> None:
        """Write the ROI's ``zarr.json`` with the consolidated metadata of all its children."""
        zarr.consolidate_metadata(self.draft.store)
        (self.place / "zarr.json").write((self.draft / "zarr.json").read())

    def _patches(self, modality: Modality) -> dict[PatchId, Path]:
        files = self.source.files
        return {patch: by[modality.key] for patch, by in files.items() if modality.key in by}

    def _write_group(self, name: str, members: Sequence[Modality]) -> None:
        first = members[0]
        grid = self.grid.grid(first.resolution_m)
        attributes = {
            "Conventions": CF_VERSION,
            "title": f"{first.title}, {self.source.where}",
            PRESENT_ATTRIBUTE: self._presence(first),
            **geozarr_attributes(grid),
        }
        if first.temporal:
            attributes[DATES_ATTRIBUTE] = [str(day) for day in self.source.times[first.key]]
        group = self.tree.create_group(name, attributes=attributes)
        mapping = group.create_array(GRID_MAPPING, shape=(), dtype="int32", fill_value=0)
        mapping.attrs.update(grid_mapping_attributes(grid))
        _coordinate(group, "y", grid.y)
        _coordinate(group, "x", grid.x)
        if first.temporal:
            _coordinate(group, "time", _days(self.source.times[first.key]))
        if first.is_label and len(first.bands) > 1:
            _coordinate(group, "level", np.arange(1, len(first.bands) + 1, dtype=np.uint8))
        elif not first.is_label:
            _coordinate(group, "band", np.array(first.band_names))
        for modality in members:
            for spec in self._specs(modality):
                self._create(group, spec)
        for key in (self.draft / name).objects():
            (self.place / name / key).write((self.draft / name / key).read())
        for modality in members:
            self._write_modality(modality)

    def _presence(self, modality: Modality) -> list[str]:
        flags = np.zeros((self.grid.rows, self.grid.columns), np.uint8)
        for patch in self._patches(modality):
            flags[patch.row - self.grid.first_row, patch.column - self.grid.first_column] = 1
        return ["".join(map(str, row)) for row in flags]

    def _specs(self, modality: Modality) -> tuple[ArraySpec, ...]:
        dates = len(self.source.times.get(modality.key, ()))
        return array_specs(modality, self.grid, dates)

    def _write_modality(self, modality: Modality) -> None:
        specs = self._specs(modality)
        arrays = [
            zarr.open_array(self.place.store, path=(self.place / spec.path).path, mode="r+")
            for spec in specs
        ]
        for block in _blocks(specs[0]):
            patches = {
                patch: path
                for patch, path in self._patches(modality).items()
                if _inside(self._window(patch, modality), block)
            }
            if not patches:
                continue
            pixels = [_empty(spec, block) for spec in specs]
            for patch, path in patches.items():
                raster = self._read(patch, path, modality)
                window = self._window(patch, modality)
                y = slice(window.row - block.row, window.row - block.row + window.height)
                x = slice(window.column - block.column, window.column - block.column + window.width)
                for spec, target in zip(specs, pixels, strict=True):
                    target[..., y, x] = as_stored(raster.pixels, spec)
            for array, values in zip(arrays, pixels, strict=True):
                array[(..., *block.slices)] = values

    def _create(self, group: zarr.Group, spec: ArraySpec) -> None:
        grid = self.grid.grid(spec.modality.resolution_m)
        attributes = variable_attributes(spec.modality, spec.bands) | geozarr_attributes(grid)
        group.create_array(
            spec.name,
            shape=spec.shape,
            dtype=spec.modality.dtype,
            chunks=spec.chunks,
            shards=spec.shards,
            fill_value=spec.fill_value,
            dimension_names=spec.dims,
            attributes=attributes,
            **codecs(spec.modality, self.job.profile),
        )

    def _window(self, patch: PatchId, modality: Modality) -> Window:
        return self.grid.patch_window(patch.row, patch.column, modality.resolution_m)

    def _read(self, patch: PatchId, path: Path, modality: Modality) -> Raster:
        raster = read_raster(path, modality)
        dates = len(self.source.times.get(modality.key, ()))
        check_extent(patch, raster.grid, self.grid.patch_extent(patch.row, patch.column), path)
        if modality.temporal and len(raster.pixels) != dates:
            msg = (
                f"{path}: {len(raster.pixels)} images, but {dates} dates are listed for "
                f"{self.source.where} {modality.source_name}; every image needs one date."
            )
            raise SourceDataError(msg)
        self.receipt.files += 1
        self.receipt.source_bytes += raster.size
        self.receipt.raw_bytes += raster.pixels.nbytes
        row = self.rows[patch]
        row[sha256_column(modality.key)] = raster.sha256
        row |= _class_counts(raster.pixels, modality, path)
        row |= _mask_means(raster.pixels, modality)
        return raster

    def _describe(self, kept: Sequence[str]) -> None:
        source, grid = self.source, self.grid
        domain, roi = str(source.domain), str(source.roi)
        for patch, row in self.rows.items():
            extent = grid.patch_extent(patch.row, patch.column)
            row |= {"domain": domain, "roi": roi, "row": patch.row, "column": patch.column}
            row |= dict(zip(("left", "bottom", "right", "top"), extent.bbox, strict=True))
            row |= {has_column(m.key): m.key in source.files[patch] for m in self.job.modalities}
            row |= {column: by_patch.get(patch) for column, by_patch in source.folds.items()}
            for key in DATED:
                day = source.dates.get(key, {}).get(patch)
                row[date_column(key)] = str(day) if day else None
        self.receipt.patches = list(self.rows.values())
        self.receipt.roi = {
            "roi": roi,
            "domain": domain,
            "rows": grid.rows,
            "columns": grid.columns,
            "first_row": grid.first_row,
            "first_column": grid.first_column,
            **dict(zip(("left", "bottom", "right", "top"), grid.extent.bbox, strict=True)),
            "patches": len(self.rows),
            "modalities": list(kept),
            **{
                times_column(key): [str(day) for day in days]
                for key, days in source.times.items()
                if key in groups()
            },
        }
        self.receipt.shards = list(self._shards())

    def _shards(self) -> Iterator[dict[str, Any]]:
        for key in self.place.objects():
            if not key.endswith("zarr.json"):
                data = (self.place / key).read()
                digest = hashlib.sha256(data).hexdigest()
                name = f"{self.source.roi}/{key}"
                yield {
                    "roi": str(self.source.roi), "key": name, "size": len(data), "sha256": digest,
                }  # fmt: skip

    def _attributes(self) -> dict[str, Any]:
        grid = self.grid
        lattice = {"rows": grid.rows, "columns": grid.columns}
        lattice |= {"first_row": grid.first_row, "first_column": grid.first_column}
        extent = geozarr_attributes(grid.grid(min(m.resolution_m for m in self.job.modalities)))
        return {
            "Conventions": CF_VERSION,
            "title": f"FLAIR-HUB {self.source.where}",
            **LICENCE,
            **extent,
            "flairhub:format": FORMAT_VERSION,
            "flairhub:profile": self.job.profile,
            "flairhub:converter": f"flairhub {__version__}",
            "flairhub:source": self.job.source_name,
            "flairhub:domain": str(self.source.domain),
            "flairhub:roi": str(self.source.roi),
            "flairhub:grid": lattice,
            SIGNATURE_ATTRIBUTE: signature(self.source, self.job.modalities, self.job.profile),
        }


def as_stored(pixels: npt.NDArray[np.generic], spec: ArraySpec) -> npt.NDArray[np.generic]:
    """Return raw pixels ``(dates, bands, y, x)`` with the dimensions of a store array."""
    chosen = pixels[:, list(spec.bands)]
    if "time" not in spec.dims:
        chosen = chosen[0]
    if spec.modality.kind is Kind.MASK or (spec.modality.is_label and len(spec.bands) == 1):
        chosen = chosen[..., 0, :, :]
    return chosen


def _lattice(source: RoiSource, modalities: Sequence[Modality]) -> RoiGrid:
    by_key = {m.key: m for m in modalities}
    grids = {}
    for patch, files in source.files.items():
        key = next(key for key in by_key if key in files)
        grids[patch] = read_grid(files[key], by_key[key])
    return roi_grid(grids)


def _coordinate(group: zarr.Group, name: str, values: npt.NDArray[Any]) -> None:
    text = values.dtype.kind == "U"
    array = group.create_array(
        name,
        shape=values.shape,
        dtype="string" if text else values.dtype,
        chunks=values.shape,
        compressors=(ZstdCodec(level=9),),
        dimension_names=(name,),
        attributes=coordinate_attributes(name),
        config={"write_empty_chunks": True},
    )
    array[:] = values


def _days(times: Sequence[date]) -> npt.NDArray[np.int64]:
    return np.array(times, "datetime64[D]").astype(np.int64)


def _blocks(spec: ArraySpec) -> Iterator[Window]:
    (height, width), (rows, columns) = spec.shape[-2:], spec.shards[-2:]
    for row in range(0, height, rows):
        for column in range(0, width, columns):
            yield Window(row, column, min(rows, height - row), min(columns, width - column))


def _inside(window: Window, block: Window) -> bool:
    rows = block.row <= window.row < block.row + block.height
    return rows and block.column <= window.column < block.column + block.width


def _empty(spec: ArraySpec, block: Window) -> npt.NDArray[np.generic]:
    shape = (*spec.shape[:-2], block.height, block.width)
    return np.full(shape, spec.fill_value, spec.modality.numpy_dtype)


def _class_counts(
    pixels: npt.NDArray[np.generic], modality: Modality, path: Path
) -> Mapping[str, list[int]]:
    counts = {}
    for level, key in enumerate(modality.nomenclatures, start=1):
        nomenclature = modality.nomenclature(level)
        found = np.bincount(pixels[0, level - 1].ravel().astype(np.int64))
        if len(found) > len(nomenclature):
            msg = (
                f"{path}: class {len(found) - 1} in band {level}, but {nomenclature.title} ends at "
                f"{len(nomenclature) - 1}."
            )
            raise SourceDataError(msg)
        padded = np.pad(found, (0, len(nomenclature) - len(found)))
        counts[classes_column(key)] = [int(n) for n in padded]
    return counts


def _mask_means(pixels: npt.NDArray[np.generic], modality: Modality) -> Mapping[str, list[float]]:
    if modality.kind is not Kind.MASK:
        return {}
    means = pixels.astype(np.float64).mean(axis=(2, 3)).round(3)
    return {
        f"{name}_percent": [float(v) for v in means[:, i]]
        for i, name in enumerate(modality.band_names)
    }


def receipt_of(root: Location, job: RoiJob) -> Receipt | None:
    """Return the receipt of a ROI that an interrupted run left, or None."""
    place = work_place(root, job.source.domain) / f"{job.source.roi}.json"
    return Receipt.from_bytes(place.read()) if place.exists() else None


def dump_attributes(domain: str) -> bytes:
    """Return the ``zarr.json`` of a domain's root group."""
    attributes = {"title": f"FLAIR-HUB {domain}", **LICENCE, "flairhub:format": FORMAT_VERSION}
    document = {"attributes": attributes, "zarr_format": 3, "node_type": "group"}
    return json.dumps(document, indent=2).encode()
