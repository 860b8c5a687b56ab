"""Which patches of each ROI windows may touch, told from the domain tables.

Tables stay Arrow's: a dataset has a quarter of a million patches, each with lists of class counts
and cloud percentages, which as Python objects would take most of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from os import PathLike
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flairhub.batches.filters import CLOUD_COLUMN, CLOUDED, Filters
from flairhub.errors import NotInStoreError, PlanError, did_you_mean
from flairhub.grids import RoiGrid
from flairhub.modalities import get_modality
from flairhub.store.access import Location, Source, resolve
from flairhub.store.layout import store_name
from flairhub.store.tables import domain_of, has_column, list_domains, read_columns, times_column

S = TypeVar("S")
T = TypeVar("T")

ROI_COLUMNS = ("roi", "rows", "columns", "first_row", "first_column", "left", "top")
"""Columns of ``rois`` that `roi_grid` needs."""

_TABLES_AT_ONCE = 8
"""Domains whose tables are read at the same time: object storage answers slowly, but many."""


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


@dataclass(frozen=True, slots=True)
class Candidates:
    """What makes a patch one that windows may touch.

    Parameters
    ----------
    rasters
        Keys of modalities and label rasters.
    split, fold
        Value, or None for any, and column of the patch table.
    complete
        Whether a patch needs all rasters, and dates of the series that `filters` cut; or some.
    filters
        What else is left out.
    retry_s
        Seconds for which storage that fails is asked again.
    """

    rasters: tuple[str, ...]
    split: str | None
    fold: str
    complete: bool
    filters: Filters
    retry_s: float


def stores_at(
    url: Source | Iterable[Source],
    domains: Sequence[str] | None,
    storage_options: Mapping[str, Any] | None,
    retry_s: float,
) -> list[Location]:
    """Return the chosen domains' stores, sorted by domain.

    Raises
    ------
    PlanError
        If a domain occurs twice, or `url` is no place.
    NotInStoreError
        If there is no such place or domain.
    ReadError
        If a folder cannot be listed.
    """
    urls = [url] if isinstance(url, (str, PathLike, Location)) else url
    if not isinstance(urls, Iterable):
        msg = f"A plan needs the URL or path of a folder of stores, or several, not {url!r}."
        raise PlanError(msg)
    found: list[Location] = []
    for one in urls:
        place = resolve(one, storage_options=storage_options)
        if place.name.endswith(".zarr"):
            found.append(place)
            continue
        known = list_domains(place, retry_s=retry_s)
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


def roi_grid(row: Mapping[Any, Any]) -> RoiGrid:
    """Return the lattice of a row of ``rois``."""
    whole = ("rows", "columns", "first_row", "first_column")
    return RoiGrid(float(row["left"]), float(row["top"]), *(int(row[name]) for name in whole))


def candidates(
    stores: Sequence[Location], wanted: Candidates
) -> Iterator[tuple[PlannedRoi, npt.NDArray[np.bool_]]]:
    """Yield every ROI with the patches that windows may touch.

    Their shape is ``(rows, columns)``, or ``(rows, columns, dates)`` where a patch may be touched
    for some dates.
    """
    for several in _ahead(lambda store: list(_of_domain(store, wanted)), stores):
        yield from several


def _of_domain(
    store: Location, wanted: Candidates
) -> Iterator[tuple[PlannedRoi, npt.NDArray[np.bool_]]]:
    domain, filters = domain_of(store), wanted.filters
    has = [has_column(key) for key in wanted.rasters]
    modalities = [get_modality(key) for key in wanted.rasters]
    series = {m.group for m in modalities if m.temporal}
    columns = dict.fromkeys(["roi", "row", "column", wanted.fold, *has, *filters.columns(series)])
    patches = read_columns(store.parent, domain, "patches", list(columns), retry_s=wanted.retry_s)
    there = np.stack([_flags(patches.column(name)) for name in has])
    usable = there.all(axis=0) if wanted.complete else there.any(axis=0)
    if wanted.split is not None:
        usable &= _flags(pa.compute.equal(patches.column(wanted.fold), wanted.split))
    usable &= filters.usable(patches)
    patches = patches.filter(pa.array(usable))
    by_roi = _rows_by(patches.column("roi"))
    row_of, column_of = (patches.column(name).to_numpy() for name in ("row", "column"))
    times = {group: times_column(group) for group in sorted(series) if filters.touches(group)}
    rois = read_columns(
        store.parent, domain, "rois", [*ROI_COLUMNS, *times.values()], retry_s=wanted.retry_s
    )
    for number, row in enumerate(rois.select(list(ROI_COLUMNS)).to_pylist()):
        grid = roi_grid(row)
        mine = by_roi.get(str(row["roi"]), np.empty(0, np.int64))
        at = row_of[mine] - grid.first_row, column_of[mine] - grid.first_column
        mask = np.zeros((grid.rows, grid.columns), bool)
        mask[at] = True
        clear: npt.NDArray[np.bool_] | None = None
        for group, column in times.items():
            days = rois.column(column)[number].values
            taken = filters.in_period(
                group,
                np.empty(0, "datetime64[D]")
                if days is None
                else days.to_numpy(zero_copy_only=False),
            )
            if group == CLOUDED and filters.max_cloud is not None:
                clear = np.zeros((*mask.shape, len(taken)), bool)
                clear[at] = filters.clear(patches.column(CLOUD_COLUMN).take(mine), len(taken))
            elif wanted.complete and not taken.any():
                mask[:] = False
            if wanted.complete and clear is not None and group == CLOUDED:
                mask = mask[..., None] & clear & taken
        yield PlannedRoi(store, str(domain), str(row["roi"]), grid, clear), mask


def _flags(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = column.fill_null(False).to_numpy()
    return found


def _rows_by(column: pa.ChunkedArray) -> dict[str, npt.NDArray[np.int64]]:
    """Return the numbers of the rows of every value, in order."""
    coded = column.combine_chunks().dictionary_encode()
    codes = coded.indices.to_numpy()
    rows = np.split(np.argsort(codes, kind="stable"), np.bincount(codes).cumsum()[:-1])
    return dict(zip(coded.dictionary.to_pylist(), rows, strict=True)) if len(codes) else {}


def _ahead(work: Callable[[S], T], items: Sequence[S]) -> Iterator[T]:
    """Yield what `work` makes of every item, in order, some of them at the same time.

    Its threads are daemons: nobody waits for them who interrupts a plan while storage is silent.
    """
    futures: list[Future[T]] = [Future() for _ in items]
    waiting: SimpleQueue[tuple[Future[T], S]] = SimpleQueue()
    for pair in zip(futures, items, strict=True):
        waiting.put(pair)

    def run() -> None:
        while True:
            try:
                future, item = waiting.get_nowait()
            except Empty:
                return
            try:
                future.set_result(work(item))
            except BaseException as error:
                future.set_exception(error)

    try:
        for _ in range(min(_TABLES_AT_ONCE, len(items))):
            Thread(target=run, name="flairhub-tables", daemon=True).start()
        while futures:
            yield futures.pop(0).result()
    finally:
        while not waiting.empty():
            waiting.get_nowait()
