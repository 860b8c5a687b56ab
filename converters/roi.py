"""One ROI into its Zarr group: rasters in, whole shards out, the group's own ``zarr.json`` last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.documents import (
    Document,
    array_document,
    consolidated,
    coordinate,
    dump,
    group_document,
    scalar_document,
)
from converters.files import SourceFile
from converters.geometry import check_place, roi_grid
from converters.npy import read_area
from converters.rasters import Raster, read_raster
from converters.receipts import (
    GROUP_SIGNATURE,
    ROWS_SIGNATURE,
    SKIPPED_ATTRIBUTE,
    Receipt,
    Skipped,
    group_signature,
    rows_signature,
    work_place,
)
from converters.source import RoiSource
from converters.statistics import PixelStatistics, count_classes
from flairhub import __version__
from flairhub.errors import SourceDataError
from flairhub.grids import PATCH_SIDE_M, Grid, RoiGrid, Window
from flairhub.ids import PatchId
from flairhub.modalities import MODALITIES, Kind, Modality, get_modality
from flairhub.store.access import Location, resolve
from flairhub.store.chunks import ChunkCodec
from flairhub.store.conventions import (
    CF_VERSION,
    GRID_MAPPING,
    LICENCES,
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
    source_column,
    times_column,
)

Files = Mapping[PatchId, SourceFile]


@dataclass(frozen=True)
class RoiJob:
    """One unit of work, sent to a worker process: a ROI, where it goes, and how.

    Parameters
    ----------
    source, source_name
        What to convert, and the name of its layout.
    root
        Where the stores lie.
    profile
        Of the codecs.
    modalities
        What to convert, of those that the ROI has files of.
    skip
        Leave out files that cannot be converted; else they stop the ROI.
    keep
        Groups of the ROI that are in the store and stay as they are.
    """

    source: RoiSource
    source_name: str
    root: str | Location
    profile: str
    modalities: tuple[Modality, ...]
    skip: bool = False
    keep: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What the conversion of a ROI moved; the ROI's receipt lies in the work folder."""

    patches: int = 0
    files: int = 0
    raw_bytes: int = 0
    source_bytes: int = 0
    absent: dict[str, list[str]] = field(default_factory=dict)
    gaps: int = 0
    skipped: list[Skipped] = field(default_factory=list)


def convert_roi(job: RoiJob) -> Outcome:
    """Convert one ROI; until its last write no reader sees anything of it that is new.

    The receipt is kept in the domain's work folder before the ROI becomes visible, so that nothing
    is read twice after a stop.

    Raises
    ------
    SourceDataError
        If a raw file is not what it should be; the ROI is then as it was, or absent.
    """
    if job.source.problem is not None:
        raise SourceDataError(job.source.problem)
    root = resolve(job.root, read_only=False)
    place = root / store_name(job.source.domain) / str(job.source.roi)
    writer = _RoiWriter(job, place, root)
    if not job.keep:
        (place / "zarr.json").delete()
    try:
        writer.write()
        writer.commit()
    except SourceDataError:
        writer.undo()
        raise
    return writer.outcome


class _RoiWriter:
    """Holds what the steps of one ROI's conversion share."""

    def __init__(self, job: RoiJob, place: Location, root: Location) -> None:
        self.job = job
        self.source = job.source
        self.place = place
        self.work = work_place(root, job.source.domain) / f"{job.source.roi}.json"
        self.outcome = Outcome()
        self.nodes: dict[str, Document] = {}
        # what stays of the ROI keeps its rows
        self.receipt = Receipt.from_bytes(self.work.read()) if job.keep else Receipt(roi={})
        self.objects = {
            row["key"]: row for row in self.receipt.shards if row["key"].split("/")[1] in job.keep
        }
        self.rows: dict[PatchId, dict[str, Any]] = {
            PatchId.parse(row["patch_id"]): row for row in self.receipt.patches
        }
        self.statistics = PixelStatistics()
        for patch in job.source.files:
            self.rows.setdefault(patch, {"patch_id": str(patch)})
        self._take_kept()
        self.reference: object = None
        self.grid = self._lattice()

    def write(self) -> None:
        """Write every new group but the ROI's own metadata."""
        written: list[str] = []
        for name, members in groups().items():
            if name in self.job.keep:
                continue
            present = [m for m in members if m in self.job.modalities and m.key in self.source.keys]
            # masks are kept on the time axis of their series, so not without it
            if present and present[0].key == name:
                written += self._write_group(name, present)
        self._describe(written)

    def commit(self) -> None:
        """Make the ROI visible: its receipt first, its ``zarr.json`` with all metadata last."""
        document = dump(consolidated(group_document(self._attributes()), self.nodes))
        self._note_object("zarr.json", document)
        self._delete_leftovers()
        self.receipt.shards = [self.objects[key] for key in sorted(self.objects)]
        self.place.flush()
        self.work.write(self.receipt.to_bytes())
        self.work.flush()
        (self.place / "zarr.json").write(document)
        (self.place / "zarr.json").flush()

    def undo(self) -> None:
        """Delete what was written of a ROI that cannot be completed."""
        for key in self.place.objects():
            if key != "zarr.json" and key.partition("/")[0] not in self.job.keep:
                (self.place / key).delete()

    def _take_kept(self) -> None:
        """Take over the metadata of the groups that stay."""
        if not self.job.keep:
            return
        old = json.loads((self.place / "zarr.json").read())
        for path, document in old["consolidated_metadata"]["metadata"].items():
            if path.partition("/")[0] in self.job.keep:
                document.pop("consolidated_metadata", None)
                self.nodes[path] = document

    def _lattice(self) -> RoiGrid:
        """Return the lattice from the first file that can be read."""
        problem: SourceDataError | None = None
        if self.source.lattice is not None:
            patch = next(iter(self.source.files))
            place = self.source.lattice.patch_extent(patch.row, patch.column)
            self.reference = "the lattice of its patches"
            return roi_grid(self.rows, patch, Grid(place.left, place.top, PATCH_SIDE_M, 1, 1))
        for patch, by_key in self.source.files.items():
            for modality in sorted(self.job.modalities, key=lambda m: m.patch_px):
                if modality.key not in by_key:
                    continue
                try:
                    raster = read_raster(by_key[modality.key], modality)
                except SourceDataError as error:
                    if not self.job.skip:
                        raise
                    problem = error
                    continue
                self.reference = by_key[modality.key]
                return roi_grid(self.rows, patch, raster.grid)
        msg = f"{self.source.where}: no file of it can be read; the last one said: {problem}"
        raise SourceDataError(msg)

    def _files(self, modality: Modality) -> dict[PatchId, SourceFile]:
        files = self.source.files
        return {patch: by[modality.key] for patch, by in files.items() if modality.key in by}

    def _write_group(self, name: str, members: Sequence[Modality]) -> list[str]:
        """Write a group, pixels first; return the modalities of which a patch was left."""
        first = members[0]
        grid = self.source.grid(first, self.grid)
        nodes: dict[str, Document] = {GRID_MAPPING: scalar_document(grid_mapping_attributes(grid))}
        for axis, values in self._coordinates(first):
            nodes[axis], chunk = coordinate(axis, values)
            self._put(f"{name}/{axis}/c/0", chunk)
        there: dict[str, set[PatchId]] = {}
        skipped_before = len(self.outcome.skipped)
        for modality in members:
            specs = self._specs(modality)
            for spec in specs:
                attributes = variable_attributes(modality, spec.bands) | geozarr_attributes(grid)
                nodes[spec.name] = array_document(spec, self.job.profile, attributes)
            coders = [ChunkCodec(nodes[spec.name]) for spec in specs]
            write = self._write_area if modality.is_area else self._write_modality
            there[modality.key] = write(modality, specs, coders)
        if not there[first.key]:
            self._forget(name)
            return []
        attributes = {
            "Conventions": CF_VERSION,
            "title": f"{first.title}, {self.source.where}",
            PRESENT_ATTRIBUTE: self._presence(there[first.key]),
            GROUP_SIGNATURE: group_signature(self.source, members, self.job.profile),
            **geozarr_attributes(grid),
        }
        if first.temporal:
            attributes[DATES_ATTRIBUTE] = [str(day) for day in self.source.times[first.key]]
        if skipped := self.outcome.skipped[skipped_before:]:
            attributes[SKIPPED_ATTRIBUTE] = [one.as_list() for one in skipped]
        self.nodes[name] = group_document(attributes)
        self._put(f"{name}/zarr.json", dump(self.nodes[name]))
        for variable, document in nodes.items():
            self.nodes[f"{name}/{variable}"] = document
            self._put(f"{name}/{variable}/zarr.json", dump(document))
        return [m.key for m in members if there[m.key]]

    def _coordinates(self, first: Modality) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        grid = self.source.grid(first, self.grid)
        yield "y", grid.y
        yield "x", grid.x
        if first.temporal:
            yield "time", np.array(self.source.times[first.key], "datetime64[D]").astype(np.int64)
        if first.is_label and len(first.bands) > 1:
            yield "level", np.arange(1, len(first.bands) + 1, dtype=np.uint8)
        elif not first.is_label:
            yield "band", np.array(first.band_names)

    def _forget(self, name: str) -> None:
        """Take back a group none of whose files could be read; `_delete_leftovers` deletes it."""
        prefix = f"{self.source.roi}/{name}/"
        self.objects = {k: row for k, row in self.objects.items() if not k.startswith(prefix)}

    def _presence(self, there: Collection[PatchId]) -> list[str]:
        flags = np.zeros((self.grid.rows, self.grid.columns), np.uint8)
        for patch in there:
            flags[patch.row - self.grid.first_row, patch.column - self.grid.first_column] = 1
        return ["".join(map(str, row)) for row in flags]

    def _specs(self, modality: Modality) -> tuple[ArraySpec, ...]:
        dates = len(self.source.times.get(modality.key, ()))
        return array_specs(modality, self.grid, dates, self.source.area_grid(modality))

    def _write_modality(
        self, modality: Modality, specs: Sequence[ArraySpec], coders: Sequence[ChunkCodec]
    ) -> set[PatchId]:
        """Write the shards of a modality, each once; return the patches that they hold."""
        files = self._files(modality)
        there: set[PatchId] = set()
        for number, block in _blocks(specs[0]):
            chunks: list[dict[tuple[int, ...], bytes]] = [{} for _ in specs]
            for patch, file in files.items():
                window = self.grid.patch_window(patch.row, patch.column, modality.resolution_m)
                if not _inside(window, block):
                    continue
                try:
                    raster = self._read(patch, file, modality)
                except SourceDataError as error:
                    if not self.job.skip:
                        raise
                    self.outcome.skipped.append(Skipped(str(patch), modality.key, str(error)))
                    continue
                there.add(patch)
                inside = (
                    (window.row - block.row) // window.height,
                    (window.column - block.column) // window.width,
                )
                for spec, coder, encoded in zip(specs, coders, chunks, strict=True):
                    position = (*(0,) * (len(spec.shape) - 2), *inside)
                    encoded[position] = coder.encode(as_stored(raster.pixels, spec))
            for spec, coder, encoded in zip(specs, coders, chunks, strict=True):
                if encoded:
                    zeros = (0,) * (len(spec.shape) - 2)
                    key = "/".join(map(str, ("c", *zeros, *number)))
                    self._put(f"{spec.path}/{key}", coder.shard(encoded))
                encoded.clear()
        return there

    def _write_area(
        self, modality: Modality, specs: Sequence[ArraySpec], coders: Sequence[ChunkCodec]
    ) -> set[PatchId]:
        """Write the shards of a raster of the whole ROI; return all patches, or none."""
        area = self.source.areas[modality.key]
        dates = len(self.source.times[modality.key])
        try:
            raster = read_area(area.file, modality, dates, area.grid)
        except SourceDataError as error:
            if not self.job.skip:
                raise
            self.outcome.skipped.append(Skipped(self.source.where, modality.key, str(error)))
            return set()
        for spec, coder in zip(specs, coders, strict=True):
            pixels = as_stored(raster.pixels, spec)
            for number, block in _blocks(spec):
                encoded = {
                    position: coder.encode(tile) for position, tile in _tiles(pixels, block, spec)
                }
                key = "/".join(map(str, ("c", *(0,) * (len(spec.shape) - 2), *number)))
                self._put(f"{spec.path}/{key}", coder.shard(encoded))
        self._note_raster(tuple(self.source.files), modality, raster, area.file)
        return set(self.source.files)

    def _put(self, key: str, data: bytes | bytearray) -> None:
        self._note_object(key, data)
        (self.place / key).write(data)

    def _note_object(self, key: str, data: bytes | bytearray) -> None:
        name = f"{self.source.roi}/{key}"
        digest = hashlib.sha256(data).hexdigest()
        self.objects[name] = {
            "roi": str(self.source.roi), "key": name, "size": len(data), "sha256": digest,
        }  # fmt: skip

    def _delete_leftovers(self) -> None:
        """Delete what an interrupted attempt or an earlier version of the ROI left behind."""
        for key in self.place.objects():
            if key != "zarr.json" and f"{self.source.roi}/{key}" not in self.objects:
                (self.place / key).delete()

    def _read(self, patch: PatchId, file: SourceFile, modality: Modality) -> Raster:
        raster = read_raster(file, modality)
        dates = len(self.source.times.get(modality.key, ()))
        check_place(patch, raster.grid, self.grid, file, self.reference)
        if modality.temporal and len(raster.pixels) != dates:
            msg = (
                f"{file}: {len(raster.pixels)} images, but {dates} dates are listed for "
                f"{self.source.where} {modality.source_name}; every image needs one date."
            )
            raise SourceDataError(msg)
        self._note_raster((patch,), modality, raster, file)
        return raster

    def _note_raster(
        self, patches: Sequence[PatchId], modality: Modality, raster: Raster, file: SourceFile
    ) -> None:
        """Note what a file holds in the rows of the patches that it belongs to."""
        counts = _class_counts(raster.pixels, modality, file)
        splits = {self.source.folds.get("split", {}).get(patch) for patch in patches}
        split = splits.pop() if len(splits) == 1 else None
        if counts:
            self.statistics.add_classes(modality, counts, split)
        else:
            self.statistics.add(modality, raster.pixels, split)
        self.outcome.files += 1
        self.outcome.source_bytes += raster.size
        self.outcome.raw_bytes += raster.pixels.nbytes
        told = {has_column(modality.key): True, sha256_column(modality.key): raster.sha256}
        told |= {classes_column(key): found.tolist() for key, found in counts.items()}
        told |= _mask_means(raster.pixels, modality)
        for patch in patches:
            self.rows[patch] |= told

    def _describe(self, written: Sequence[str]) -> None:
        source, grid = self.source, self.grid
        domain, roi = str(source.domain), str(source.roi)
        for patch, row in self.rows.items():
            extent = grid.patch_extent(patch.row, patch.column)
            row |= {"domain": domain, "roi": roi, "row": patch.row, "column": patch.column}
            row |= dict(zip(("left", "bottom", "right", "top"), extent.bbox, strict=True))
            row |= {column: by_patch.get(patch) for column, by_patch in source.folds.items()}
            row |= {source_column(k): told.get(patch) for k, told in source.facts.items()}
            for key in DATED:
                if key in source.dates:
                    day = source.dates[key].get(patch)
                    row[date_column(key)] = str(day) if day else None
            for modality in self.job.modalities:
                row.setdefault(has_column(modality.key), False)
                if not row[has_column(modality.key)]:
                    self.outcome.absent.setdefault(modality.key, []).append(str(patch))
        self.outcome.patches = len(self.rows)
        self.outcome.gaps = grid.rows * grid.columns - len(self.rows)
        self.receipt.patches = list(self.rows.values())
        kept_statistics = [
            row
            for row in self.receipt.statistics
            if get_modality(row["modality"]).group in self.job.keep
        ]
        self.receipt.statistics = kept_statistics + self.statistics.rows(roi)
        order = list(MODALITIES)
        self.receipt.statistics.sort(key=lambda row: order.index(row["modality"]))
        before = self.receipt.roi
        kept = {m.key for name in self.job.keep for m in groups()[name]}
        kept &= set(before.get("modalities", ()))
        times = {k: v for k, v in before.items() if k.startswith(times_column(""))}
        times |= {
            times_column(key): [str(day) for day in days]
            for key, days in source.times.items()
            if key in groups()
        }
        self.receipt.roi = {
            "roi": roi,
            "domain": domain,
            "rows": grid.rows,
            "columns": grid.columns,
            "first_row": grid.first_row,
            "first_column": grid.first_column,
            **dict(zip(("left", "bottom", "right", "top"), grid.extent.bbox, strict=True)),
            "patches": len(self.rows),
            "modalities": [key for key in MODALITIES if key in kept or key in written],
            **times,
        }

    def _attributes(self) -> dict[str, Any]:
        grid = self.grid
        lattice = {"rows": grid.rows, "columns": grid.columns}
        lattice |= {"first_row": grid.first_row, "first_column": grid.first_column}
        held = [get_modality(key) for key in self.receipt.roi["modalities"]]
        finest = min((m.resolution_m for m in held if not m.is_area), default=PATCH_SIDE_M)
        extent = geozarr_attributes(grid.grid(finest))
        return {
            "Conventions": CF_VERSION,
            "title": f"{self.job.source_name} {self.source.where}",
            **LICENCES[held[0].dataset],
            **extent,
            "flairhub:format": FORMAT_VERSION,
            "flairhub:profile": self.job.profile,
            "flairhub:converter": f"flairhub {__version__}",
            "flairhub:source": self.job.source_name,
            "flairhub:domain": str(self.source.domain),
            "flairhub:roi": str(self.source.roi),
            "flairhub:grid": lattice,
            ROWS_SIGNATURE: rows_signature(self.source),
        }


def as_stored(pixels: npt.NDArray[np.generic], spec: ArraySpec) -> npt.NDArray[np.generic]:
    """Return raw pixels ``(dates, bands, y, x)`` with the dimensions of a store array."""
    chosen = pixels[:, list(spec.bands)]
    if "time" not in spec.dims:
        chosen = chosen[0]
    if spec.modality.kind is Kind.MASK or (spec.modality.is_label and len(spec.bands) == 1):
        chosen = chosen[..., 0, :, :]
    return chosen


def _blocks(spec: ArraySpec) -> Iterator[tuple[tuple[int, int], Window]]:
    """Yield the shards of an array: number, and the pixels that each covers."""
    (height, width), (rows, columns) = spec.shape[-2:], spec.shards[-2:]
    for i, row in enumerate(range(0, height, rows)):
        for j, column in enumerate(range(0, width, columns)):
            block = Window(row, column, min(rows, height - row), min(columns, width - column))
            yield (i, j), block


def _tiles(
    pixels: npt.NDArray[np.generic], block: Window, spec: ArraySpec
) -> Iterator[tuple[tuple[int, ...], npt.NDArray[np.generic]]]:
    """Yield the inner chunks of a shard: position in it, and pixels, filled up where they end."""
    lead = (0,) * (len(spec.shape) - 2)
    rows, columns = spec.chunks[-2:]
    inside = pixels[(..., *block.slices)]
    for i, row in enumerate(range(0, block.height, rows)):
        for j, column in enumerate(range(0, block.width, columns)):
            part = inside[..., row : row + rows, column : column + columns]
            tile = np.full(spec.chunks, spec.fill_value, part.dtype)
            tile[..., : part.shape[-2], : part.shape[-1]] = part
            yield (*lead, i, j), tile


def _inside(window: Window, block: Window) -> bool:
    rows = block.row <= window.row < block.row + block.height
    return rows and block.column <= window.column < block.column + block.width


def _class_counts(
    pixels: npt.NDArray[np.generic], modality: Modality, file: SourceFile
) -> dict[str, npt.NDArray[np.int64]]:
    """Return the pixels of every class by class set; refuse classes that do not exist."""
    counts = {}
    for level, key in enumerate(modality.nomenclatures, start=1):
        nomenclature = modality.nomenclature(level)
        found = count_classes(pixels[0, level - 1])
        last = int(np.flatnonzero(found)[-1])
        if last >= len(nomenclature):
            msg = (
                f"{file}: class {last} in band {level}, but {nomenclature.title} ends at "
                f"{len(nomenclature) - 1}."
            )
            raise SourceDataError(msg)
        counts[key] = found[: len(nomenclature)]
    return counts


def _mask_means(pixels: npt.NDArray[np.generic], modality: Modality) -> Mapping[str, list[float]]:
    if modality.kind is not Kind.MASK:
        return {}
    means = pixels.astype(np.float64).mean(axis=(2, 3)).round(3)
    return {
        f"{name}_percent": [float(v) for v in means[:, i]]
        for i, name in enumerate(modality.band_names)
    }


def domain_document(
    domain: str, source: str, dataset: str, skipped: Sequence[Skipped] = ()
) -> bytes:
    """Return the ``zarr.json`` of a domain's root group.

    Parameters
    ----------
    domain, source
        Its name, and that of the layout it comes from.
    dataset
        Family of its modalities.
    skipped
        What was left out.
    """
    attributes: dict[str, Any] = {"title": f"{source} {domain}", **LICENCES[dataset]}
    attributes["flairhub:format"] = FORMAT_VERSION
    if skipped:
        attributes[SKIPPED_ATTRIBUTE] = [one.as_list() for one in skipped]
    document = {"attributes": attributes, "zarr_format": 3, "node_type": "group"}
    return json.dumps(document, indent=2).encode()
