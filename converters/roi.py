"""One ROI into its Zarr group: rasters in, whole shards out, the group's own ``zarr.json`` last."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
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
from converters.rows import Outcome, RoiRows
from converters.source import RoiSource
from converters.tiles import as_stored, blocks, lies_in, tiles
from converters.writing import Writing, sha256_of, size_of
from flairhub import __version__
from flairhub.errors import SourceDataError
from flairhub.grids import PATCH_SIDE_M, Grid, RoiGrid
from flairhub.ids import PatchId
from flairhub.modalities import Modality, get_modality
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
    with Writing(place) as objects:
        writer = _RoiWriter(job, place, root, objects)
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

    def __init__(self, job: RoiJob, place: Location, root: Location, writing: Writing) -> None:
        self.job = job
        self.source = job.source
        self.place, self.writing = place, writing
        self.work = work_place(root, job.source.domain) / f"{job.source.roi}.json"
        self.nodes: dict[str, Document] = {}
        self.receipt = Receipt.from_bytes(self.work.read()) if job.keep else Receipt(roi={})
        self.objects = {
            row["key"]: row for row in self.receipt.shards if row["key"].split("/")[1] in job.keep
        }
        self.rows = RoiRows(job.source, job.keep, self.receipt)
        self.outcome = self.rows.outcome
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
        self.rows.describe(self.grid, written, self.job.modalities)

    def commit(self) -> None:
        """Make the ROI visible: its receipt first, its ``zarr.json`` with all metadata last."""
        document = dump(consolidated(group_document(self._attributes()), self.nodes))
        self._note_object("zarr.json", document)
        self.writing.finish()
        if self._delete_leftovers():
            self.place.flush()
        else:  # every new group is flushed already
            for folder in (self.place, self.place.parent, self.place.parent.parent):
                folder.flush_names()
        self.receipt.shards = [self.objects[key] for key in sorted(self.objects)]
        self.work.write(self.receipt.to_bytes())
        self.work.flush()
        (self.place / "zarr.json").write(document)
        (self.place / "zarr.json").flush()

    def undo(self) -> None:
        """Delete what was written of a ROI that cannot be completed."""
        self.writing.finish()
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
            return roi_grid(
                self.rows.patches, patch, Grid(place.left, place.top, PATCH_SIDE_M, 1, 1)
            )
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
                return roi_grid(self.rows.patches, patch, raster.grid)
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
        self.writing.flush(name)
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
        for number, block in blocks(specs[0]):
            chunks: list[dict[tuple[int, ...], bytes]] = [{} for _ in specs]
            for patch, file in files.items():
                window = self.grid.patch_window(patch.row, patch.column, modality.resolution_m)
                if not lies_in(window, block):
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
            for number, block in blocks(spec):
                encoded = {
                    position: coder.encode(tile) for position, tile in tiles(pixels, block, spec)
                }
                key = "/".join(map(str, ("c", *(0,) * (len(spec.shape) - 2), *number)))
                self._put(f"{spec.path}/{key}", coder.shard(encoded))
        self.rows.note(tuple(self.source.files), modality, raster, area.file)
        return set(self.source.files)

    def _put(self, key: str, data: bytes | list[bytes]) -> None:
        self._note_object(key, data)
        self.writing.write(key, data)

    def _note_object(self, key: str, data: bytes | list[bytes]) -> None:
        name = f"{self.source.roi}/{key}"
        told = {"size": size_of(data), "sha256": sha256_of(data)}
        self.objects[name] = {"roi": str(self.source.roi), "key": name, **told}

    def _delete_leftovers(self) -> bool:
        """Delete what interrupted attempts or earlier versions left; return whether any did."""
        left = [
            key
            for key in self.place.objects()
            if key != "zarr.json" and f"{self.source.roi}/{key}" not in self.objects
        ]
        for key in left:
            (self.place / key).delete()
        return bool(left)

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
        self.rows.note((patch,), modality, raster, file)
        return raster

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
