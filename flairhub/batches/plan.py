"""Which windows are read, of what: a pure index plan, made from the domain tables alone.

The plan keeps the windows' corners in arrays, one row a window, and touches no pixel and no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import ceil, floor
from os import PathLike
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from flairhub.batches.filters import CLOUDED, NO_FILTERS, Filters, Period
from flairhub.batches.order import Shuffle, order
from flairhub.batches.windowing import TOLERANCE, corners, lattice_step
from flairhub.errors import NotInStoreError, PlanError, did_you_mean
from flairhub.grids import PATCH_SIDE_M, Extent, RoiGrid
from flairhub.modalities import Modality, get_label, get_modality
from flairhub.store.access import Location, Source, resolve
from flairhub.store.layout import store_name
from flairhub.store.tables import (
    FOLDS,
    SPLITS,
    domain_of,
    has_column,
    list_domains,
    read_table,
    times_column,
)

_TABLES_AT_ONCE = 8
"""Domains whose tables are read at the same time: object storage answers slowly, but many."""

_ROI_COLUMNS = ("roi", "rows", "columns", "first_row", "first_column", "left", "top")


@dataclass(frozen=True, slots=True)
class PatchWindow:
    """Where a sample comes from: domain, ROI, and its rectangle in EPSG:2154."""

    domain: str
    roi: str
    extent: Extent


@dataclass(frozen=True, slots=True)
class PlannedRoi:
    """A ROI that the plan reads: where its store lies, its lattice, and its clear dates.

    Parameters
    ----------
    store
        Of its domain.
    domain, roi
        Their names.
    grid
        The lattice of patches.
    clear
        Which dates of Sentinel-2 are clear over which patches, shape ``(rows, columns, dates)``;
        None where the plan does not ask for clouds.
    """

    store: Location
    domain: str
    roi: str
    grid: RoiGrid
    clear: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class PatchPlan:
    """What to read: windows, modalities, bands, labels.

    Made by `PatchPlan.build` (windows on a regular stride, chosen by split) or
    `PatchPlan.for_extents` (windows given one by one, for maps).

    Parameters
    ----------
    rois
        ROIs in order.
    window_m
        Side of a window, metres.
    modalities, labels
        Keys of inputs and of class sets.
    bands
        Names of the bands that are read of each modality, in order.
    roi_index, top, left
        For each window: which of `rois`, and its north-west corner, metres. Shape ``(windows,)``.
    filters
        Which dates of series are read.
    complete
        Whether the tables say that every patch of every window has all modalities.
    """

    rois: tuple[PlannedRoi, ...]
    window_m: float
    modalities: tuple[str, ...]
    labels: tuple[str, ...]
    bands: Mapping[str, tuple[str, ...]]
    roi_index: npt.NDArray[np.int32]
    top: npt.NDArray[np.float64]
    left: npt.NDArray[np.float64]
    filters: Filters = NO_FILTERS
    complete: bool = False

    @classmethod
    def build(
        cls,
        url: Source | Iterable[Source],
        *,
        modalities: Sequence[str],
        labels: Sequence[str] = ("cosia",),
        domains: Sequence[str] | None = None,
        rois: Sequence[str] | None = None,
        split: str | None = None,
        fold: str = "split",
        bands: Mapping[str, Sequence[str]] | None = None,
        window_m: float = PATCH_SIDE_M,
        stride_m: float | None = None,
        complete: bool = True,
        dates: Mapping[str, Period] | None = None,
        max_cloud: float | None = None,
        classes: Mapping[str, Mapping[str, float]] | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> PatchPlan:
        """Plan windows over all chosen ROIs, in the order domain, ROI, row, column.

        Parameters
        ----------
        url
            A folder of stores, one store, or several of either; a domain may occur once.
        modalities, labels
            Inputs by registry key, and class sets (``cosia``, ``lpis_1``, ...).
        domains, rois
            Only these; all when absent.
        split
            ``train``, ``valid`` or ``test``; every patch when absent. A window is kept when all
            patches that it touches are of the split.
        fold
            Column of the patch table that holds the split: ``split`` (IGN's CSVs), ``split_1``...
        bands
            Bands by name and modality; all bands where absent.
        window_m, stride_m
            Side of a window and step between windows, metres; `stride_m` is `window_m` when
            absent. Both must be whole numbers of pixels of every modality: with Sentinel and
            aerial rasters together, multiples of 51.2 m. What is left at a ROI's edges and is
            smaller than a window is not read. Of FLAIR#2's super-areas, which have a grid of
            their own, 40 x 40 pixels around a window's middle are read: `Grid.around`.
        complete
            Keep only windows all of whose patches have every chosen modality and label. Otherwise
            windows whose patches have some of them are kept too, and what is absent is masked in
            the batch. Places without any patch are never planned.
        dates
            By modality, the first and the last day taken, such as ``{"sentinel2_ts":
            ("2021-04-01", "2021-09-30")}``; None leaves an end open. Single-date imagery from
            other days is not planned; series are cut to these days.
        max_cloud
            Dates of Sentinel-2 are read whose mean cloud percentage (0 to 100) is at most this
            over every patch that the window touches.
        classes
            By class set and class, the least share (0 to 1) of a patch's pixels: ``{"cosia":
            {"vineyard": 0.05}}`` plans patches that are a twentieth vineyard or more; with 0,
            those that have any.
        storage_options
            For obstore or fsspec.

        Raises
        ------
        PlanError
            If a size does not fit the grids, a name does not exist, or no window is left.
        NotInStoreError
            If a store or table is missing.
        """
        chosen, labelled, by_name = _choose(modalities, labels, bands)
        stride_m = window_m if stride_m is None else stride_m
        step = lattice_step(_cut([*chosen, *labelled]), window_m=window_m, stride_m=stride_m)
        if fold not in FOLDS:
            msg = f"There is no fold {fold!r}. {did_you_mean(fold, FOLDS)}"
            raise PlanError(msg)
        if split is not None and split not in SPLITS:
            msg = f"There is no split {split!r}. {did_you_mean(split, SPLITS)}"
            raise PlanError(msg)
        rasters = [m.key for m in (*chosen, *labelled)]
        wanted = {get_modality(key).key: period for key, period in (dates or {}).items()}
        filters = Filters(wanted, max_cloud, dict(classes or {}))
        planned: list[PlannedRoi] = []
        found: list[npt.NDArray[np.float64]] = []
        known: set[str] = set()
        with ThreadPoolExecutor(_TABLES_AT_ONCE) as pool:
            tables = pool.map(
                lambda store: list(_usable_patches(store, rasters, split, fold, complete, filters)),
                _stores(url, domains, storage_options),
            )
        for several in tables:
            for roi, usable in several:
                known.add(roi.roi)
                if rois is None or roi.roi in rois:
                    planned.append(roi)
                    found.append(
                        corners(roi.grid, usable, step=step, window_m=window_m, stride_m=stride_m)
                    )
        for name in sorted(set(rois or ()) - known):
            msg = f"There is no ROI {name!r} in these domains. {did_you_mean(name, sorted(known))}"
            raise NotInStoreError(msg)
        sizes = [len(part) for part in found]
        if not sum(sizes):
            what = f"split {split!r} of fold {fold!r}" if split else "these ROIs"
            msg = (
                f"No window of {window_m:g} m is left in {what}: no patch there has "
                f"{', '.join(rasters)}{_left_out(filters)}, or the ROIs are smaller."
            )
            raise PlanError(msg)
        kept = [roi for roi, size in zip(planned, sizes, strict=True) if size]
        index = np.repeat(np.arange(len(kept), dtype=np.int32), [size for size in sizes if size])
        top, left = np.concatenate(found).T
        keys = tuple(m.key for m in chosen)
        where = index, top, left
        return cls(tuple(kept), window_m, keys, tuple(labels), by_name, *where, filters, complete)

    @classmethod
    def for_extents(
        cls,
        url: Source,
        roi: str,
        extents: Sequence[Extent],
        *,
        modalities: Sequence[str],
        labels: Sequence[str] = (),
        bands: Mapping[str, Sequence[str]] | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> PatchPlan:
        """Plan given square windows of one ROI, in the given order; absent inputs are masked.

        Raises
        ------
        PlanError
            If windows differ in size, or do not fit the pixels of every modality.
        NotInStoreError
            If the ROI does not exist.
        """
        chosen, labelled, by_name = _choose(modalities, labels, bands)
        sides = {round(e.right - e.left, 6) for e in extents}
        sides |= {round(e.top - e.bottom, 6) for e in extents}
        if len(sides) != 1:
            msg = f"Windows of one plan must be squares of one size; got sides {sorted(sides)} m."
            raise PlanError(msg)
        window_m = sides.pop()
        lattice_step(_cut([*chosen, *labelled]), window_m=window_m)
        store = resolve(url, storage_options=storage_options)
        table = read_table(store.parent, domain_of(store), "rois", _ROI_COLUMNS)
        rows = [row for row in table.to_dict("records") if row["roi"] == roi]
        if not rows:
            msg = f"{domain_of(store)} has no ROI {roi!r}. {did_you_mean(roi, table['roi'])}"
            raise NotInStoreError(msg)
        grid = _roi_grid(rows[0])
        for modality in _cut([*chosen, *labelled]):
            for extent in extents:
                grid.grid(modality.resolution_m).window(extent)
        planned = PlannedRoi(store, str(domain_of(store)), roi, grid)
        return cls(
            (planned,),
            window_m,
            tuple(m.key for m in chosen),
            tuple(labels),
            by_name,
            np.zeros(len(extents), np.int32),
            np.array([e.top for e in extents]),
            np.array([e.left for e in extents]),
        )

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.roi_index)

    def __repr__(self) -> str:
        """Return how much is read of what, in a few lines."""
        domains = len({roi.domain for roi in self.rois})
        named = (f"{key} ({', '.join(self.bands[key])})" for key in self.modalities)
        lines = (
            f"<flairhub.PatchPlan of {len(self):,} windows of {self.window_m:g} m>",
            f"ROIs: {len(self.rois):,} in {domains} domain{'s' if domains != 1 else ''}",
            f"modalities: {', '.join(named)}",
            f"labels: {', '.join(self.labels) or 'none'}",
        )
        return "\n  ".join(lines)

    def pixels(self, modality: Modality) -> tuple[int, int]:
        """Return height and width of what is read of a modality for a window, pixels."""
        side = modality.around_px or round(self.window_m / modality.resolution_m)
        return side, side

    def dates_kept(
        self, roi: PlannedRoi, modality: Modality, days: npt.NDArray[np.int64], extent: Extent
    ) -> slice | npt.NDArray[np.bool_]:
        """Return which dates of a series, given as days since 1970, are read of a window."""
        period = self.filters.period(modality.group)
        clear = roi.clear if modality.group == CLOUDED else None
        if period is None and clear is None:
            return slice(None)
        kept = np.ones(len(days), bool)
        if period is not None:
            low, high = (int(day.astype(np.int64)) for day in period)
            kept &= (days >= low) & (days <= high)
        if clear is not None:
            grid = roi.grid.grid(PATCH_SIDE_M)
            top, bottom = ((grid.top - y) / PATCH_SIDE_M for y in (extent.top, extent.bottom))
            left, right = ((x - grid.left) / PATCH_SIDE_M for x in (extent.left, extent.right))
            rows = slice(floor(top + TOLERANCE), ceil(bottom - TOLERANCE))
            columns = slice(floor(left + TOLERANCE), ceil(right - TOLERANCE))
            kept &= clear[rows, columns].all(axis=(0, 1))
        return kept

    def order(self, *, shuffle: Shuffle, seed: int, epoch: int) -> npt.NDArray[np.int64]:
        """Return the window numbers of an epoch: a function of `seed` and `epoch` alone."""
        return order(self.roi_index, self.top, shuffle=shuffle, seed=seed, epoch=epoch)[0]

    @property
    def fingerprint(self) -> str:
        """Return a hash of the windows and of what is read of them, wherever the stores lie."""
        whole = hashlib.sha256()
        for part in (self.roi_index, self.top, self.left):
            whole.update(np.ascontiguousarray(part).tobytes())
        rois = [(roi.domain, roi.roi) for roi in self.rois]
        what = (rois, self.window_m, self.modalities, self.labels, sorted(self.bands.items()))
        whole.update(repr((what, self.filters)).encode())
        return whole.hexdigest()[:16]

    @property
    def windows(self) -> Sequence[PatchWindow]:
        """The windows as objects, made one by one when asked for."""
        return _Windows(self)

    def only(self, modalities: Sequence[str]) -> PatchPlan:
        """Return the plan of the same windows for some of its modalities, without labels."""
        keys = tuple(key for key in self.modalities if key in modalities)
        bands = {key: self.bands[key] for key in keys}
        return replace(self, modalities=keys, bands=bands, labels=())

    def subset(self, indexes: npt.NDArray[np.integer[Any]]) -> PatchPlan:
        """Return the plan of some of the windows, by number."""
        return replace(
            self,
            roi_index=self.roi_index[indexes],
            top=self.top[indexes],
            left=self.left[indexes],
        )


class _Windows(Sequence[PatchWindow]):
    def __init__(self, plan: PatchPlan) -> None:
        self.plan = plan

    def __len__(self) -> int:
        return len(self.plan)

    @overload
    def __getitem__(self, index: int) -> PatchWindow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PatchWindow]: ...
    def __getitem__(self, index: int | slice) -> PatchWindow | Sequence[PatchWindow]:
        plan = self.plan
        if isinstance(index, slice):
            return _Windows(plan.subset(np.arange(len(plan))[index]))
        roi = plan.rois[plan.roi_index[index]]
        left, top = float(plan.left[index]), float(plan.top[index])
        bottom, right = round(top - plan.window_m, 6), round(left + plan.window_m, 6)
        return PatchWindow(roi.domain, roi.roi, Extent(left, bottom, right, top))

    def __iter__(self) -> Iterator[PatchWindow]:
        return (self[i] for i in range(len(self)))


def _choose(
    modalities: Sequence[str], labels: Sequence[str], bands: Mapping[str, Sequence[str]] | None
) -> tuple[list[Modality], list[Modality], dict[str, tuple[str, ...]]]:
    """Look names up; a label's raster is among the second list once."""
    chosen = [get_modality(name) for name in modalities]
    for modality in chosen:
        if modality.is_label:
            msg = f"{modality.key} is a label raster: ask for labels={modality.nomenclatures}."
            raise PlanError(msg)
    for names in ([m.key for m in chosen], list(labels)):
        if len(set(names)) < len(names):
            msg = f"A plan reads everything once; {', '.join(names)} has a name twice."
            raise PlanError(msg)
    wanted = {get_modality(name).key: tuple(names) for name, names in (bands or {}).items()}
    for key in wanted:
        if key not in [m.key for m in chosen]:
            msg = f"bands are given for {key!r}, which is not among the modalities."
            raise PlanError(msg)
    by_name = {m.key: wanted.get(m.key, m.band_names) for m in chosen}
    for modality in chosen:
        if not modality.band_indexes(by_name[modality.key]):
            msg = f"No band of {modality.key} is chosen; leave the key out for all of them."
            raise PlanError(msg)
    rasters = {get_label(key)[0].key: get_label(key)[0] for key in labels}
    return chosen, list(rasters.values()), by_name


def _cut(modalities: Iterable[Modality]) -> list[Modality]:
    """Return those that are cut in patches: windows lie on their pixels."""
    return [m for m in modalities if not m.is_area]


def _stores(
    url: Source | Iterable[Source],
    domains: Sequence[str] | None,
    storage_options: Mapping[str, Any] | None,
) -> list[Location]:
    urls = [url] if isinstance(url, (str, PathLike, Location)) else list(url)
    found: list[Location] = []
    for one in urls:
        place = resolve(one, storage_options=storage_options)
        if place.name.endswith(".zarr"):
            found.append(place)
            continue
        known = list_domains(place)
        if not known:
            msg = f"{place} holds no complete domain; convert one with `flairhub convert` first."
            raise NotInStoreError(msg)
        found += [place / store_name(domain) for domain in known]
    by_domain = {domain_of(place): place for place in found}
    if len(by_domain) < len(found):
        msg = f"A domain occurs twice among {', '.join(map(str, found))}."
        raise PlanError(msg)
    names = {str(domain) for domain in by_domain}
    for name in domains or ():
        if name not in names:
            msg = f"There is no domain {name!r} here. {did_you_mean(name, sorted(names))}"
            raise NotInStoreError(msg)
    return [
        place
        for domain, place in sorted(by_domain.items())
        if domains is None or str(domain) in domains
    ]


def _roi_grid(row: Mapping[Any, Any]) -> RoiGrid:
    whole = ("rows", "columns", "first_row", "first_column")
    return RoiGrid(float(row["left"]), float(row["top"]), *(int(row[name]) for name in whole))


def _usable_patches(
    store: Location,
    rasters: Sequence[str],
    split: str | None,
    fold: str,
    complete: bool,
    filters: Filters,
) -> Iterator[tuple[PlannedRoi, npt.NDArray[np.bool_]]]:
    """Yield every ROI of a domain with the patches that windows may touch, ``(rows, columns)``."""
    domain = domain_of(store)
    has = [has_column(key) for key in rasters]
    columns = dict.fromkeys(["roi", "row", "column", fold, *has, *filters.columns(rasters)])
    patches = read_table(store.parent, domain, "patches", list(columns))
    usable = patches[has].all(axis=1) if complete else patches[has].any(axis=1)
    if split is not None:
        usable &= patches[fold].eq(split)
    usable &= filters.usable(patches)
    patches = patches[usable]
    by_roi = patches.groupby("roi").indices
    row_of, column_of = (patches[name].to_numpy() for name in ("row", "column"))
    series = {get_modality(key).group for key in rasters if get_modality(key).temporal}
    times = {group: times_column(group) for group in series if filters.touches(group)}
    table = read_table(store.parent, domain, "rois", [*_ROI_COLUMNS, *times.values()])
    for row in table.to_dict("records"):
        grid = _roi_grid(row)
        mine = by_roi.get(str(row["roi"]), np.empty(0, np.int64))
        at = row_of[mine] - grid.first_row, column_of[mine] - grid.first_column
        mask = np.zeros((grid.rows, grid.columns), bool)
        mask[at] = True
        clear: npt.NDArray[np.bool_] | None = None
        for group, column in times.items():
            days = np.array(() if row[column] is None else row[column], "datetime64[D]")
            kept = np.broadcast_to(filters.in_period(group, days), (len(mine), len(days)))
            if group == CLOUDED and filters.max_cloud is not None:
                found = filters.clear(patches.iloc[mine], len(days))
                clear = np.zeros((*mask.shape, len(days)), bool)
                clear[at] = found
                kept = kept & found
            if complete:
                mask[at] &= kept.any(axis=1)
        yield PlannedRoi(store, str(domain), str(row["roi"]), grid, clear), mask


def _left_out(filters: Filters) -> str:
    """Say which filters may have left nothing."""
    named = [name for name in ("dates", "max_cloud", "classes") if getattr(filters, name)]
    return f" and passes {', '.join(named)}" if named else ""
