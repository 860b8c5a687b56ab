"""Which windows are read, of what: a pure index plan, made from the domain tables alone.

The plan keeps the windows' corners in arrays, one row a window, and touches no pixel and no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from flairhub.batches.arguments import choose, choose_filters, cut, length, names, seconds
from flairhub.batches.candidates import (
    ROI_COLUMNS,
    Candidates,
    PlannedRoi,
    candidates,
    roi_grid,
    stores_at,
)
from flairhub.batches.filters import CLOUDED, NO_FILTERS, Filters, Period
from flairhub.batches.order import Shuffle, order
from flairhub.batches.windowing import TOLERANCE, corners, lattice_step
from flairhub.errors import NotInStoreError, PlanError, did_you_mean
from flairhub.grids import PATCH_SIDE_M, Extent
from flairhub.modalities import Modality
from flairhub.store.access import Source, resolve
from flairhub.store.tables import FOLDS, RETRY_S, SPLITS, domain_of, read_table

__all__ = ["PatchPlan", "PatchWindow", "PlannedRoi"]


@dataclass(frozen=True, slots=True)
class PatchWindow:
    """Where a sample comes from: domain, ROI, and its rectangle in EPSG:2154."""

    domain: str
    roi: str
    extent: Extent


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
        retry_s: float = RETRY_S,
    ) -> PatchPlan:
        """Plan windows over all chosen ROIs, in the order domain, ROI, row, column.

        Parameters
        ----------
        url
            A folder of stores, one store, or several of either; a domain may occur once.
        modalities, labels
            Inputs by registry key, and class sets (``cosia``, ``lpis_1``, ...). A name alone will
            do wherever several may stand.
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
            Keep only windows all of whose patches have every chosen modality and label, and for
            each series that `dates` or `max_cloud` cut a date that all of them share. Otherwise
            windows whose patches have some of them are kept too, and what is absent is masked in
            the batch. Places without any patch are never planned.
        dates
            By modality, the first and the last day taken, such as ``{"sentinel2_ts":
            ("2021-04-01", "2021-09-30")}``; a month or a year stands for all of its days, None
            leaves an end open. Single-date imagery from other days is not planned; series, which
            must be read, are cut to these days, masks as their series.
        max_cloud
            Dates of Sentinel-2, which must be read, are left out unless their mean cloud
            percentage (0 to 100) is at most this over every patch that the window touches.
        classes
            By class set and class, the least share (0 to 1) of a patch's pixels: ``{"cosia":
            {"vineyard": 0.05}}`` plans patches that are a twentieth vineyard or more; with 0,
            those that have any.
        storage_options
            For obstore or fsspec.
        retry_s
            Seconds for which storage that fails is asked again for tables.

        Raises
        ------
        PlanError
            If a size does not fit the grids, a value is none of its kind, or no window is left.
        UnknownNameError
            If a modality, band or class set does not exist.
        NotInStoreError
            If a store or table is missing, or the URL cannot be one of a store.
        ReadError
            If the storage does not give the tables.
        """
        chosen, labelled, by_name = choose(modalities, labels, bands)
        window_m = length("window_m", window_m)
        stride_m = window_m if stride_m is None else length("stride_m", stride_m)
        step = lattice_step(cut([*chosen, *labelled]), window_m=window_m, stride_m=stride_m)
        retry_s = seconds("retry_s", retry_s)
        if fold not in FOLDS:
            msg = f"There is no fold {fold!r}. {did_you_mean(str(fold), FOLDS)}"
            raise PlanError(msg)
        if split is not None and split not in SPLITS:
            msg = f"There is no split {split!r}. {did_you_mean(str(split), SPLITS)}"
            raise PlanError(msg)
        rasters = [m.key for m in (*chosen, *labelled)]
        filters = choose_filters(chosen, dates, max_cloud, classes)
        wanted = None if rois is None else set(names("rois", rois))
        asked = Candidates(tuple(rasters), split, fold, complete, filters, retry_s)
        several = None if domains is None else names("domains", domains)
        stores = stores_at(url, several, storage_options, retry_s)
        planned: list[PlannedRoi] = []
        found: list[npt.NDArray[np.float64]] = []
        known: set[str] = set()
        for roi, usable in candidates(stores, asked):
            known.add(roi.roi)
            if wanted is None or roi.roi in wanted:
                planned.append(roi)
                found.append(
                    corners(roi.grid, usable, step=step, window_m=window_m, stride_m=stride_m)
                )
        for name in sorted((wanted or set()) - known):
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
        keys, sets = tuple(m.key for m in chosen), names("labels", labels)
        where = index, top, left
        return cls(tuple(kept), window_m, keys, sets, by_name, *where, filters, complete)

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
        retry_s: float = RETRY_S,
    ) -> PatchPlan:
        """Plan given square windows of one ROI, in the given order; absent inputs are masked.

        Raises
        ------
        PlanError
            If windows differ in size, or do not fit the pixels of every modality.
        NotInStoreError
            If the ROI does not exist.
        """
        chosen, labelled, by_name = choose(modalities, labels, bands)
        sides = {round(e.right - e.left, 6) for e in extents}
        sides |= {round(e.top - e.bottom, 6) for e in extents}
        if len(sides) != 1:
            msg = f"Windows of one plan must be squares of one size; got sides {sorted(sides)} m."
            raise PlanError(msg)
        window_m = sides.pop()
        lattice_step(cut([*chosen, *labelled]), window_m=window_m)
        store = resolve(url, storage_options=storage_options)
        table = read_table(store.parent, domain_of(store), "rois", ROI_COLUMNS, retry_s=retry_s)
        rows = [row for row in table.to_dict("records") if row["roi"] == roi]
        if not rows:
            msg = f"{domain_of(store)} has no ROI {roi!r}. {did_you_mean(roi, table['roi'])}"
            raise NotInStoreError(msg)
        grid = roi_grid(rows[0])
        for modality in cut([*chosen, *labelled]):
            for extent in extents:
                grid.grid(modality.resolution_m).window(extent)
        planned = PlannedRoi(store, str(domain_of(store)), roi, grid)
        return cls(
            (planned,),
            window_m,
            tuple(m.key for m in chosen),
            names("labels", labels),
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


def _left_out(filters: Filters) -> str:
    """Say which filters may have left nothing."""
    named = [name for name in ("dates", "max_cloud", "classes") if getattr(filters, name)]
    return f" and passes {', '.join(named)}" if named else ""
