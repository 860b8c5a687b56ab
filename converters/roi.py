"""One ROI into its Zarr group: rasters in, whole shards out, the group's own ``zarr.json`` last."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
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
from converters.job import RoiJob
from converters.kept import KeptPart
from converters.rasters import Raster
from converters.raw_roi import RawRoi
from converters.receipts import (
    GROUP_SIGNATURE,
    SKIPPED_ATTRIBUTE,
    Receipt,
    Skipped,
    aside_place,
    committed,
    put_aside,
    signature,
    signatures,
    work_place,
)
from converters.rows import Outcome, RoiRows
from converters.tiles import as_stored, blocks, lies_in, tiles
from converters.writing import Writing, sha256_of, size_of
from flairhub import __version__
from flairhub.errors import SourceDataError
from flairhub.grids import PATCH_SIDE_M
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


def convert_roi(job: RoiJob) -> Outcome:
    """Convert one ROI; until its last write no reader sees anything of it that is new.

    The receipt is kept in the domain's work folder before the ROI becomes visible, so that nothing
    is read twice after a stop.

    Raises
    ------
    SourceDataError
        If a raw file is not what it should be; the ROI is then as it was, or absent. What is in the
        store already is given up for nothing but files that can be read.
    """
    if job.source.problem is not None:
        raise SourceDataError(job.source.problem)
    root = resolve(job.root, read_only=False)
    place = root / store_name(job.source.domain) / str(job.source.roi)
    with Writing(place) as objects:
        writer = _RoiWriter(job, place, root, objects)
        if job.replaced:
            writer.raw.check(job.replaced, writer.kept.left_out() if job.skip else ())
        job.check_claim()
        if job.hides:
            writer.hide()
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
        self.place, self.root, self.writing = place, root, writing
        self.work = work_place(root, job.source.domain) / f"{job.source.roi}.json"
        self.receipt = Receipt.from_bytes(self.work.read()) if job.keep else Receipt(roi={})
        before = None
        if job.keep or job.replaced:
            before = committed(place) or put_aside(root, job.source.domain, str(job.source.roi))
        self.kept = KeptPart(job.keep, self.receipt, before or {})
        self.nodes = self.kept.nodes()
        self.objects = self.kept.objects()
        self.kept_objects = frozenset(self.objects)
        self.late: dict[str, bytes] = {}
        self.rows = RoiRows(job.source, job.keep, self.receipt)
        self.outcome = self.rows.outcome
        patches, stored = self.rows.patches, self.kept.lattice()
        self.raw = RawRoi(self.source, patches, job.modalities, skip=job.skip, stored=stored)
        self.grid = self.raw.grid

    def hide(self) -> None:
        """Take the ROI out of sight; what stays of it is put aside for whoever goes on."""
        marker = self.place / "zarr.json"
        if self.job.keep and marker.exists():
            aside = aside_place(self.root, self.source.domain, str(self.source.roi))
            aside.write(dump(self.kept.document()))
            aside.flush()
        marker.delete()

    def write(self) -> None:
        """Write everything new but the ROI's own metadata."""
        written: list[str] = []
        for name, members in groups().items():
            kept = [m for m in members if m.key in self.job.keep]
            new = [
                m
                for m in members
                if m in self.job.modalities and m.key in self.source.keys and m not in kept
            ]
            # masks are kept on the time axis of their series, so not without it
            if new and (kept or new[0].key == name):
                written += self._write_group(name, kept, new)
        self.rows.describe(self.grid, written, self.job.modalities)

    def commit(self) -> None:
        """Make the ROI visible: its receipt first, its ``zarr.json`` with all metadata last."""
        document = dump(consolidated(group_document(self._attributes()), self.nodes))
        self._note_object("zarr.json", document)
        self.writing.finish()
        self.job.check_claim()
        if self._delete_leftovers():
            self.place.flush()
        else:  # every new group is flushed already
            for folder in (self.place, self.place.parent, self.place.parent.parent):
                folder.flush_names()
        for key, data in self.late.items():
            (self.place / key).write(data)
            (self.place / key).flush()
        self.receipt.shards = [self.objects[key] for key in sorted(self.objects)]
        self.work.write(self.receipt.to_bytes())
        self.work.flush()
        (self.place / "zarr.json").write(document)
        (self.place / "zarr.json").flush()

    def undo(self) -> None:
        """Delete what was written of a ROI that cannot be completed."""
        self.writing.finish()
        self.job.check_claim()
        for key in self.place.objects():
            if key != "zarr.json" and f"{self.source.roi}/{key}" not in self.kept_objects:
                (self.place / key).delete()

    def _write_group(
        self, name: str, kept: Sequence[Modality], new: Sequence[Modality]
    ) -> list[str]:
        """Write what is new of a group, pixels first; return the modalities that have a patch."""
        first = (*kept, *new)[0]
        grid = self.source.grid(first, self.grid)
        before = self.nodes[name]["attributes"] if kept else {}
        nodes: dict[str, Document] = {}
        if not kept:
            nodes[GRID_MAPPING] = scalar_document(grid_mapping_attributes(grid))
            for axis, values in self._coordinates(first):
                nodes[axis], chunk = coordinate(axis, values)
                self._put(f"{name}/{axis}/c/0", chunk)
        there: dict[str, set[PatchId]] = {}
        skipped_before = len(self.outcome.skipped)
        for modality in new:
            specs = self._specs(modality)
            for spec in specs:
                attributes = variable_attributes(modality, spec.bands) | geozarr_attributes(grid)
                nodes[spec.name] = array_document(spec, self.job.profile, attributes)
            coders = [ChunkCodec(nodes[spec.name]) for spec in specs]
            write = self._write_area if modality.is_area else self._write_modality
            there[modality.key] = write(modality, specs, coders)
        if not kept and not there[first.key]:
            self._forget(name)
            return []
        made = {m.key: signature(self.source, m, self.job.profile) for m in new}
        attributes = before or {
            "Conventions": CF_VERSION,
            "title": f"{first.title}, {self.source.where}",
            PRESENT_ATTRIBUTE: self._presence(there[first.key]),
            **geozarr_attributes(grid),
        }
        made_before = {k: v for k, v in signatures(before).items() if k not in made}
        attributes = {**attributes, GROUP_SIGNATURE: {**made_before, **made}}
        if first.temporal:
            attributes[DATES_ATTRIBUTE] = [str(day) for day in self.source.times[first.key]]
        skipped = [one.as_list() for one in self.outcome.skipped[skipped_before:]]
        skipped += [one for one in attributes.pop(SKIPPED_ATTRIBUTE, ()) if one[1] in made_before]
        if skipped:
            attributes[SKIPPED_ATTRIBUTE] = sorted(skipped)
        self.nodes[name] = group_document(attributes)
        data = dump(self.nodes[name])
        if kept:  # it is in sight as it was, until all of the ROI is there
            self.late[f"{name}/zarr.json"] = data
            self._note_object(f"{name}/zarr.json", data)
        else:
            self._put(f"{name}/zarr.json", data)
        for variable, document in nodes.items():
            self.nodes[f"{name}/{variable}"] = document
            self._put(f"{name}/{variable}/zarr.json", dump(document))
        self.writing.flush(name)
        return [m.key for m in new if there[m.key]]

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
        files = self.raw.files(modality)
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
                    self._leave_out(str(patch), modality, file, error)
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
        try:
            raster = self.raw.area(modality)
        except SourceDataError as error:
            if not self.job.skip:
                raise
            self._leave_out(self.source.where, modality, area.file, error)
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

    def _leave_out(
        self, where: str, modality: Modality, file: SourceFile, error: SourceDataError
    ) -> None:
        # the folder is this machine's; with it no two stores would be the same
        reason = str(error).replace(str(file), file.name)
        self.outcome.skipped.append(Skipped(where, modality.key, reason))

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
        raster = self.raw.raster(patch, file, modality)
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
        }
