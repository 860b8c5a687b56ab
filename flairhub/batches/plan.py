"""Which windows are read, of what: a pure index plan, made from the domain tables alone.

Windows are xbatcher's: a `BatchSchema` over the ROI's common lattice says where they lie. The plan
keeps corners in arrays, one row a window, and touches no pixel and no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from xbatcher.generators import BatchSchema

from flairhub.errors import NotInStoreError, PlanError, did_you_mean
from flairhub.grids import PATCH_SIDE_M, Extent, RoiGrid, common_step
from flairhub.modalities import Modality, get_label, get_modality
from flairhub.store.access import Location, Source, resolve
from flairhub.store.layout import store_name
from flairhub.store.tables import FOLDS, SPLITS, domain_of, has_column, list_domains, read_table


@dataclass(frozen=True, slots=True)
class PatchWindow:
    """Where a sample comes from: domain, ROI, and its rectangle in EPSG:2154."""

    domain: str
    roi: str
    extent: Extent


@dataclass(frozen=True, slots=True)
class PlannedRoi:
    """A ROI that the plan reads: where its store lies, and its lattice."""

    store: Location
    domain: str
    roi: str
    grid: RoiGrid


@dataclass(frozen=True)
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
    """

    rois: tuple[PlannedRoi, ...]
    window_m: float
    modalities: tuple[str, ...]
    labels: tuple[str, ...]
    bands: Mapping[str, tuple[str, ...]]
    roi_index: npt.NDArray[np.int32] = field(repr=False)
    top: npt.NDArray[np.float64] = field(repr=False)
    left: npt.NDArray[np.float64] = field(repr=False)

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
        storage_options: Mapping[str, Any] | None = None,
    ) -> PatchPlan:
        """Plan windows over all chosen ROIs, in the order domain, ROI, row, column.

        Parameters
        ----------
        url
            A folder of stores, one store, or several of either.
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
            aerial rasters together, multiples of 51.2 m.
        complete
            Keep only windows all of whose patches have every chosen modality and label. Otherwise
            absent ones are masked in the batch.
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
        step = _check_step([*chosen, *labelled], window_m=window_m, stride_m=stride_m or window_m)
        if fold not in FOLDS:
            msg = f"There is no fold {fold!r}. {did_you_mean(fold, FOLDS)}"
            raise PlanError(msg)
        if split is not None and split not in SPLITS:
            msg = f"There is no split {split!r}. {did_you_mean(split, SPLITS)}"
            raise PlanError(msg)
        needed = [has_column(m.key) for m in (*chosen, *labelled)] if complete else []
        planned: list[PlannedRoi] = []
        corners: list[npt.NDArray[np.float64]] = []
        for store in _stores(url, domains, storage_options):
            table = read_table(store.parent, domain_of(store), "rois")
            patches = read_table(store.parent, domain_of(store), "patches")
            usable = patches[needed].all(axis=1) if needed else pd.Series(True, patches.index)
            if split is not None:
                usable &= patches[fold].eq(split).fillna(False)
            by_roi = dict(tuple(patches[usable].groupby("roi")))
            for row in table.to_dict("records"):
                if row["roi"] not in by_roi or (rois is not None and row["roi"] not in rois):
                    continue
                grid = _roi_grid(row)
                there = _patch_mask(grid, by_roi[row["roi"]])
                found = _corners(grid, there, step, window_m, stride_m or window_m)
                if len(found):
                    planned.append(PlannedRoi(store, str(row["domain"]), str(row["roi"]), grid))
                    corners.append(found)
        if not planned:
            what = f"split {split!r} of fold {fold!r}" if split else "these ROIs"
            msg = (
                f"No window of {window_m} m is left in {what}: no patch there has "
                f"{', '.join(m.key for m in (*chosen, *labelled))}, or the ROIs are smaller."
            )
            raise PlanError(msg)
        index = np.repeat(np.arange(len(planned), dtype=np.int32), [len(c) for c in corners])
        top, left = np.concatenate(corners).T
        keys = tuple(m.key for m in chosen)
        return cls(tuple(planned), window_m, keys, tuple(labels), by_name, index, top, left)

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
        _check_step([*chosen, *labelled], window_m=window_m)
        store = resolve(url, storage_options=storage_options)
        table = read_table(store.parent, domain_of(store), "rois")
        rows = [row for row in table.to_dict("records") if row["roi"] == roi]
        if not rows:
            msg = f"{domain_of(store)} has no ROI {roi!r}. {did_you_mean(roi, table['roi'])}"
            raise NotInStoreError(msg)
        grid = _roi_grid(rows[0])
        for modality in (*chosen, *labelled):
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

    @property
    def windows(self) -> Sequence[PatchWindow]:
        """The windows as objects, made one by one when asked for."""
        return _Windows(self)

    def order(self, *, shuffle: bool, seed: int, epoch: int) -> npt.NDArray[np.int64]:
        """Return the window numbers of an epoch: a function of `seed` and `epoch` alone."""
        if not shuffle:
            return np.arange(len(self))
        return np.random.default_rng((seed, epoch)).permutation(len(self))

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
            known = ", ".join(modality.nomenclatures)
            msg = f"{modality.key} is a label raster: ask for it with labels=({known!r},)."
            raise PlanError(msg)
    wanted = {get_modality(name).key: tuple(names) for name, names in (bands or {}).items()}
    for key in wanted:
        if key not in [m.key for m in chosen]:
            msg = f"bands are given for {key!r}, which is not among the modalities."
            raise PlanError(msg)
    by_name = {m.key: wanted.get(m.key, m.band_names) for m in chosen}
    for modality in chosen:
        modality.band_indexes(by_name[modality.key])
    rasters = {get_label(key)[0].key: get_label(key)[0] for key in labels}
    return chosen, list(rasters.values()), by_name


def _check_step(modalities: Sequence[Modality], **lengths: float) -> float:
    """Return the lattice step of `modalities`; refuse lengths that are not multiples of it."""
    if not modalities:
        msg = "A plan needs at least one modality or label."
        raise PlanError(msg)
    step = common_step(m.resolution_m for m in modalities)
    for name, length in lengths.items():
        steps = length / step
        if round(steps) >= 1 and abs(steps - round(steps)) < 1e-6:
            continue
        low = max(1, int(steps)) * step
        worst = max(modalities, key=lambda m: abs(length / m.resolution_m % 1 - 0.5) < 0.499)
        msg = (
            f"{name}={length} is not a whole number of pixels of every modality "
            f"({length / worst.resolution_m:g} pixels of {worst.key}, {worst.resolution_m} m). "
            f"Together they need multiples of {step:g} m, such as {low:g} or {low + step:g}."
        )
        raise PlanError(msg)
    return step


def _stores(
    url: Source | Iterable[Source],
    domains: Sequence[str] | None,
    storage_options: Mapping[str, Any] | None,
) -> list[Location]:
    urls = [url] if isinstance(url, (str, Location)) or hasattr(url, "__fspath__") else list(url)
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
    if domains is not None:
        names = {str(domain_of(place)): place for place in found}
        for name in domains:
            if name not in names:
                msg = f"There is no domain {name!r} here. {did_you_mean(name, names)}"
                raise NotInStoreError(msg)
        found = [names[name] for name in sorted(set(domains))]
    return found


def _roi_grid(row: Mapping[Any, Any]) -> RoiGrid:
    whole = ("rows", "columns", "first_row", "first_column")
    return RoiGrid(float(row["left"]), float(row["top"]), *(int(row[name]) for name in whole))


def _patch_mask(grid: RoiGrid, patches: pd.DataFrame) -> npt.NDArray[np.bool_]:
    there = np.zeros((grid.rows, grid.columns), bool)
    rows = patches["row"].to_numpy() - grid.first_row
    there[rows, patches["column"].to_numpy() - grid.first_column] = True
    return there


def _corners(
    grid: RoiGrid, there: npt.NDArray[np.bool_], step: float, window_m: float, stride_m: float
) -> npt.NDArray[np.float64]:
    """Return ``(top, left)`` of the windows whose patches are all `there`, shape ``(n, 2)``."""
    lattice = grid.grid(step)
    if min(lattice.height, lattice.width) * step < window_m - 1e-6:
        return np.empty((0, 2))
    size, stride = round(window_m / step), round(stride_m / step)
    starts = _windows(lattice.height, lattice.width, size, stride)
    first = np.floor(starts * step / PATCH_SIDE_M + 1e-6).astype(int)
    last = np.ceil((starts + size) * step / PATCH_SIDE_M - 1e-6).astype(int)
    # sums over any rectangle of patches from one cumulative table
    table = np.pad(there.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    (y0, x0), (y1, x1) = first.T, last.T
    count = table[y1, x1] - table[y0, x1] - table[y1, x0] + table[y0, x0]
    kept = starts[count == (y1 - y0) * (x1 - x0)]
    return np.round(np.array([grid.top, grid.left]) + kept * np.array([-step, step]), 6)


@cache
def _windows(height: int, width: int, size: int, stride: int) -> npt.NDArray[np.int64]:
    """Return xbatcher's windows over a lattice as ``(row, column)`` starts, row by row."""
    if stride > size:  # xbatcher's windows touch or overlap; wider steps are every n-th of them
        dense = _windows(height, width, size, size if stride % size == 0 else 1)
        return dense[(dense % stride == 0).all(axis=1)]
    blank = xr.DataArray(np.broadcast_to(np.uint8(0), (height, width)), dims=("y", "x"))
    schema = BatchSchema(
        blank,
        input_dims={"y": size, "x": size},
        input_overlap={"y": size - stride, "x": size - stride},
        concat_input_bins=False,
    )
    starts = [
        (selector["y"].start, selector["x"].start)
        for selectors in schema.selectors.values()
        for selector in selectors
    ]
    return np.array(sorted(starts), dtype=np.int64).reshape(-1, 2)


