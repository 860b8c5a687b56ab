"""One ROI, cut to windows: which bytes they need, and their place in a batch.

Nothing is read here: `RoiReader.open` and `RoiReader.fetch` say what they need, as generators
(`flairhub.store.ranges`), and `RoiReader.fill` makes pixels of it.

A modality that lacks any patch of a window is absent from it as a whole: zeros, a series without
dates. Labels keep what there is; the rest is the store's fill value, which is `IGNORE_INDEX`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flairhub.batches.batch import IGNORE_INDEX
from flairhub.batches.buffers import BatchBuffers
from flairhub.batches.plan import PatchPlan, PatchWindow, PlannedRoi
from flairhub.errors import NotInStoreError, ReadError, StoreLayoutError
from flairhub.grids import Extent, Grid, Window
from flairhub.modalities import Kind, Modality, get_label, get_modality
from flairhub.store.conventions import grid_of
from flairhub.store.layout import DATES_ATTRIBUTE, PRESENT_ATTRIBUTE, fill_value
from flairhub.store.ranges import ByteRange, Reads
from flairhub.store.reading import check_format
from flairhub.store.shards import ATTEMPTS, ChunkPart, MissingChunkError, ShardedArray, load_indexes

Pixels = npt.NDArray[Any]
Days = npt.NDArray[np.int64]

MERGE_GAP = 64 * 1024
"""Bytes between two ranges of one object that are read along rather than asked for apart."""


@dataclass(frozen=True)
class _Raster:
    """One modality of the ROI: its arrays, the patches it has, and its dates."""

    modality: Modality
    arrays: tuple[ShardedArray, ...]
    patches: npt.NDArray[np.bool_]
    days: Days
    grid: Grid
    complete: bool

    def window(self, extent: Extent, size: tuple[int, int]) -> Window:
        """Return the pixels of a rectangle; the plan has made sure that they are whole."""
        if self.modality.is_area:
            return self.grid.around(extent, size[0])
        row = round((self.grid.top - extent.top) / self.modality.resolution_m)
        column = round((extent.left - self.grid.left) / self.modality.resolution_m)
        return Window(row, column, *size)

    def covers(self, window: Window) -> bool:
        """Whether there is every patch that the window touches, or all of it."""
        if self.modality.is_area:
            return (
                min(window.row, window.column) >= 0
                and window.row + window.height <= self.grid.height
                and window.column + window.width <= self.grid.width
            )
        if self.complete:
            return True
        side = self.modality.patch_px
        rows = slice(window.row // side, -(-(window.row + window.height) // side))
        columns = slice(window.column // side, -(-(window.column + window.width) // side))
        return bool(self.patches[rows, columns].all())


Parts = tuple[Sequence[ChunkPart], Sequence[bytes | memoryview | None]]
"""A window's parts of the chunks of one array, and their bytes; None where the store has none."""

Fetched = Mapping[str, Sequence[Parts]]
"""What a window needs: by modality, for each of its arrays."""


class DamagedError(ReadError):
    """Bytes that are not those of the chunk; asking for them once more may help."""


class RoiReader:
    """Reads windows of one ROI; several threads may share it.

    Parameters
    ----------
    plan
        Says which modalities, bands and labels.
    roi
        One of the plan's ROIs.
    document
        The ROI's ``zarr.json``.

    Raises
    ------
    StoreLayoutError
        If the ROI is not laid out as this version reads it.
    """

    def __init__(self, plan: PatchPlan, roi: PlannedRoi, document: Mapping[str, Any]) -> None:
        self.plan = plan
        self.roi = roi
        check_format(document.get("attributes", {}), roi.store / roi.roi)
        self._labels = {key: get_label(key) for key in plan.labels}
        rasters = [get_modality(key) for key in plan.modalities]
        rasters += [raster for raster, _ in self._labels.values()]
        self._rasters = {m.key: self._find(document, m) for m in rasters}
        self._bands = {key: _chosen(key, names) for key, names in plan.bands.items()}

    @classmethod
    def open(cls, plan: PatchPlan, roi: PlannedRoi) -> Reads[RoiReader]:
        """Return the reader of a ROI, after one request.

        Raises
        ------
        NotInStoreError
            If the ROI does not exist.
        StoreLayoutError
            If its metadata are damaged or of another format.
        """
        place = roi.store / roi.roi
        problem = ""
        for attempt in range(ATTEMPTS):
            (body,) = yield [ByteRange(place / "zarr.json", attempt=attempt)]
            if body.data is None:
                msg = f"{place} does not exist, though the domain's tables list it."
                raise NotInStoreError(msg)
            try:
                document = json.loads(bytes(body.data))
            except ValueError as error:
                problem = str(error)
            else:
                return cls(plan, roi, document)
        msg = f"{place}/zarr.json is damaged ({problem}). Convert the ROI again."
        raise StoreLayoutError(msg)

    def fetch(self, windows: Sequence[PatchWindow], *, attempt: int = 0) -> Reads[list[Fetched]]:
        """Return what windows need, after reading it: at most one range for each array and window.

        Indexes of shards that are not known yet come all at once, then the chunks all at once.
        Ranges of one object that are closer than `MERGE_GAP` become one.

        Raises
        ------
        MissingChunkError
            If the store lacks a chunk that it must hold; names URL, ROI, patch and modality.
        """
        needed = [list(self._needed(where)) for where in windows]
        unknown = {
            (array, shard): None
            for rasters in needed
            for raster, window in rasters
            for array in raster.arrays
            for shard in array.missing(window)
        }
        if unknown:
            yield from load_indexes(unknown)
        wanted = [
            {raster.modality.key: self._parts(raster, window, where) for raster, window in rasters}
            for rasters, where in zip(needed, windows, strict=True)
        ]
        every = [p for parts in wanted for arrays in parts.values() for a in arrays for p in a]
        ranges = sorted(
            {part.where for part in every if part.where is not None},
            key=lambda one: (one.place.path, one.start),
        )
        merged = list(_merge(ranges, attempt))
        bodies = (yield [whole for whole, _ in merged]) if merged else ()
        data: dict[ByteRange, bytes | memoryview] = {}
        for (whole, inside), body in zip(merged, bodies, strict=True):
            if body.data is None:
                msg = f"{whole.place} was deleted while it was read."
                raise ReadError(msg)
            if len(inside) == 1:
                data[inside[0]] = body.data
                continue
            view = memoryview(body.data)
            for one in inside:
                begin = one.start - whole.start
                data[one] = view[begin : begin + (one.stop or 0) - one.start]
        return [
            {
                key: [
                    (array, [p.data if p.where is None else data[p.where] for p in array])
                    for array in arrays
                ]
                for key, arrays in parts.items()
            }
            for parts in wanted
        ]

    def fill(self, fetched: Fetched, buffers: BatchBuffers, row: int) -> None:
        """Decode a window into its row of a batch.

        Raises
        ------
        DamagedError
            If bytes are not those of the chunk; names URL, ROI, patch and modality.
        """
        where = buffers.windows[row]
        present = buffers.present[row]
        for key in self.plan.modalities:
            modality = get_modality(key)
            if modality.temporal:
                days, pixels = self._series(modality, where, fetched)
                buffers.days[row][key], buffers.series[row][key] = days, pixels
                present[key] = len(days) > 0
            else:
                present[key] = self._image(modality, where, fetched, buffers.inputs[key][row])
        levels: dict[str, Pixels] = {}
        for key, (modality, level) in self._labels.items():
            out = buffers.labels[key][row]
            if modality.key not in levels:
                levels[modality.key] = self._classes(modality, where, fetched, out)
                raster = self._rasters[modality.key]
                present[modality.key] = raster is not None and raster.covers(
                    raster.window(where.extent, self.plan.pixels(modality))
                )
            if levels[modality.key] is not out:
                out[...] = levels[modality.key][level - 1]

    def _needed(self, where: PatchWindow) -> Iterator[tuple[_Raster, Window]]:
        for raster in self._rasters.values():
            if raster is None:
                continue
            window = raster.window(where.extent, self.plan.pixels(raster.modality))
            if raster.modality.is_label or raster.covers(window):
                yield raster, window

    def _parts(self, raster: _Raster, window: Window, where: PatchWindow) -> list[list[ChunkPart]]:
        try:
            return [array.parts(window) for array in raster.arrays]
        except MissingChunkError as error:
            msg = (
                f"{raster.modality.key} of {place_name(self.roi, where)} cannot be read: {error} "
                "`flairhub verify --checksums` tells what else is missing; copy it again, or "
                "convert the ROI again."
            )
            raise MissingChunkError(msg) from error

    def _image(self, modality: Modality, where: PatchWindow, data: Fetched, out: Pixels) -> bool:
        """Fill the chosen bands ``band, y, x``; zeros, and False, where a patch lacks them."""
        raster, found = self._rasters[modality.key], data.get(modality.key)
        if raster is None or found is None:
            out[...] = 0
            return False
        bands = self._bands[modality.key]
        if bands is None:
            self._assemble(raster, 0, where, found[0], out)
            return True
        every = np.empty((len(modality.bands), *out.shape[1:]), out.dtype)
        self._assemble(raster, 0, where, found[0], every)
        np.take(every, bands, axis=0, out=out)
        return True

    def _series(self, modality: Modality, where: PatchWindow, data: Fetched) -> tuple[Days, Pixels]:
        """Days, and the chosen bands ``time, band, y, x``; none where a patch lacks them."""
        raster, found = self._rasters[modality.key], data.get(modality.key)
        size = self.plan.pixels(modality)
        bands = self._bands[modality.key]
        count = len(self.plan.bands[modality.key])
        nothing = np.empty(0, np.int64), np.zeros((0, count, *size), modality.numpy_dtype)
        if raster is None or found is None:
            return nothing
        if modality.kind is Kind.MASK:
            arrays = []
            for number, array in enumerate(raster.arrays):
                one = np.empty((len(raster.days), *size), modality.numpy_dtype)
                self._assemble(raster, number, where, found[number], one)
                # masks have no list of patches of their own, but a value that no percentage has
                if (one == array.fill).any():
                    return nothing
                arrays.append(one)
            chosen = arrays if bands is None else [arrays[band] for band in bands]
            pixels = np.stack(chosen, axis=1)
        else:
            pixels = np.empty((*raster.arrays[0].shape[:-2], *size), modality.numpy_dtype)
            self._assemble(raster, 0, where, found[0], pixels)
            if bands is not None:
                pixels = pixels[:, bands]
        kept = self.plan.dates_kept(self.roi, modality, raster.days, where.extent)
        return raster.days[kept], pixels[kept]

    def _classes(
        self, modality: Modality, where: PatchWindow, data: Fetched, out: Pixels
    ) -> Pixels:
        """Classes ``level, y, x``; of a raster with one level, `out` itself, filled."""
        raster, found = self._rasters[modality.key], data.get(modality.key)
        if raster is None or found is None:
            return np.full((len(modality.bands), *out.shape), IGNORE_INDEX, out.dtype)
        if len(raster.arrays[0].shape) == 2:
            self._assemble(raster, 0, where, found[0], out)
            return out
        every = np.empty((raster.arrays[0].shape[0], *out.shape), out.dtype)
        self._assemble(raster, 0, where, found[0], every)
        return every

    def _assemble(
        self,
        raster: _Raster,
        number: int,
        where: PatchWindow,
        found: Parts,
        out: Pixels,
    ) -> None:
        try:
            raster.arrays[number].assemble(*found, out)
        except ValueError as error:
            msg = (
                f"{raster.modality.key} of {place_name(self.roi, where)} cannot be decoded from "
                f"{raster.arrays[number].place}: {error} "
                "`flairhub verify --checksums` tells what is damaged."
            )
            raise DamagedError(msg) from error

    def _find(self, document: Mapping[str, Any], modality: Modality) -> _Raster | None:
        """Return the modality's arrays, or None where the ROI has none."""
        names = modality.band_names if modality.kind is Kind.MASK else (modality.key,)
        place = self.roi.store / self.roi.roi
        members = document.get("consolidated_metadata", {}).get("metadata", {})
        group = members.get(modality.group)
        paths = [f"{modality.group}/{name}" for name in names]
        if group is None or any(path not in members for path in paths):
            return None
        flags = group["attributes"].get(PRESENT_ATTRIBUTE)
        if flags is None:
            where = place / modality.group
            msg = f"{where} does not say which patches it has; convert it again."
            raise StoreLayoutError(msg)
        days = np.empty(0, np.int64)
        if modality.temporal:
            dates = np.array(group["attributes"][DATES_ATTRIBUTE], "datetime64[D]")
            days = dates.astype(np.int64)
        patches = np.array([[flag == "1" for flag in row] for row in flags])
        # flags of a group are those of its series; masks may lack more, but not in a complete plan
        sure = modality.kind is not Kind.MASK or self.plan.complete
        held = sure and (modality.is_area or patches)
        arrays = tuple(ShardedArray(place / path, members[path], held) for path in paths)
        if (
            arrays[0].fill.tobytes()
            != np.array(fill_value(modality), arrays[0].fill.dtype).tobytes()
        ):
            msg = f"{arrays[0].place} has the fill value {arrays[0].fill}."
            raise StoreLayoutError(msg)
        if modality.is_area:
            grid = grid_of(group["attributes"], place / modality.group)
        else:
            grid = self.roi.grid.grid(modality.resolution_m)
        return _Raster(modality, arrays, patches, days, grid, complete=bool(patches.all()))


def place_name(roi: PlannedRoi, where: PatchWindow) -> str:
    """Return the name of a window for messages: its first patch, and its corners."""
    first = roi.grid.patch_at(where.extent.left, where.extent.top)
    return f"patch {where.domain}_{where.roi}_{first[0]}-{first[1]} (window {where.extent.bbox})"


def _chosen(key: str, names: Sequence[str]) -> list[int] | None:
    """Return the positions of bands, None where they are all bands in their order."""
    modality = get_modality(key)
    return None if tuple(names) == modality.band_names else list(modality.band_indexes(names))


def _merge(
    ranges: Sequence[ByteRange], attempt: int
) -> Iterator[tuple[ByteRange, list[ByteRange]]]:
    """Yield ranges to ask for, each with those of the sorted `ranges` that lie in it."""
    inside: list[ByteRange] = []
    stop = 0
    for one in [*ranges, None]:
        if inside and (
            one is None or one.place.path != inside[0].place.path or one.start > stop + MERGE_GAP
        ):
            first = inside[0]
            yield ByteRange(first.place, first.start, stop, first.e_tag, attempt), inside
            inside, stop = [], 0
        if one is not None:
            inside.append(one)
            stop = max(stop, one.stop or 0)
