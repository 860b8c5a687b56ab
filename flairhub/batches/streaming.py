"""Read a plan's windows from the store, in threads, a bounded number ahead, in order.

One process: worker processes make reading slower here, and neither GDAL nor object-store clients
survive a fork. Pixels travel in the store's dtype; :mod:`flairhub.batches.prepare` makes them
float32 on the device.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor

from flairhub.batches.batch import IGNORE_INDEX, MultimodalBatch
from flairhub.batches.plan import PatchPlan, PatchWindow
from flairhub.errors import FlairHubError, PlanError, StoreLayoutError
from flairhub.grids import Window
from flairhub.modalities import Kind, Modality, get_label, get_modality
from flairhub.store.layout import PRESENT_ATTRIBUTE
from flairhub.store.reading import open_roi

Pixels = npt.NDArray[np.generic]
_OPEN_ROIS = 256
"""Opened ROIs that a stream keeps; metadata only, some 200 kB each."""


@dataclass(frozen=True)
class _Sample:
    inputs: Mapping[str, Pixels]
    labels: Mapping[str, Pixels]
    days: Mapping[str, npt.NDArray[np.int64]]
    present: Mapping[str, bool]
    window: PatchWindow


class PatchStream:
    """Batches of a plan; every iteration is an epoch.

    Parameters
    ----------
    plan
        What to read.
    batch_size
        Windows in a batch; the last one may be smaller.
    shuffle, seed, epoch
        The order is a function of these three alone; `set_epoch` changes the last.
    prefetch
        Batches read ahead.
    threads
        Threads that read and decode.
    drop_last
        Leave out a last batch that is not full.
    """

    def __init__(
        self,
        plan: PatchPlan,
        *,
        batch_size: int = 4,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        prefetch: int = 2,
        threads: int = 4,
        drop_last: bool = False,
    ) -> None:
        if batch_size < 1 or threads < 1 or prefetch < 0:
            msg = (
                "batch_size and threads must be at least 1 and prefetch at least 0; got "
                f"{batch_size}, {threads}, {prefetch}."
            )
            raise PlanError(msg)
        self.plan = plan
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = epoch
        self.prefetch = prefetch
        self.threads = threads
        self.drop_last = drop_last
        self._open = lru_cache(_OPEN_ROIS)(self._open_roi)

    @property
    def sampler(self) -> PatchStream:
        """Itself: where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        full, rest = divmod(len(self.plan), self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    def __iter__(self) -> Iterator[MultimodalBatch]:
        """Read one epoch; threads end with the iteration, also when it is left early."""
        order = self.plan.order(shuffle=self.shuffle, seed=self.seed, epoch=self.epoch)
        parts = iter(np.array_split(order, range(self.batch_size, len(order), self.batch_size)))
        if self.drop_last:
            parts = (part for part in parts if len(part) == self.batch_size)
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="flairhub-read")
        waiting: deque[list[Future[_Sample]]] = deque()

        def submit(count: int) -> None:
            for part in islice(parts, count):
                waiting.append([pool.submit(self._read, int(number)) for number in part])

        try:
            submit(self.prefetch + 1)
            while waiting:
                samples = [future.result() for future in waiting.popleft()]
                submit(1)
                yield self._collate(samples)
        finally:
            pool.shutdown(cancel_futures=True)

    def _open_roi(self, index: int) -> xr.DataTree:
        roi = self.plan.rois[index]
        return open_roi(roi.store, roi.roi)

    def _read(self, number: int) -> _Sample:
        plan, window = self.plan, self.plan.windows[number]
        index = int(plan.roi_index[number])
        tree = self._open(index)
        inputs, labels, days, present = {}, {}, {}, {}
        for key in plan.modalities:
            modality = get_modality(key)
            inputs[key], present[key] = self._pixels(tree, modality, window, index)
            if modality.temporal:
                there = present[key] and modality.group in tree.children
                times = tree[modality.group]["time"].to_numpy() if there else []
                days[key] = np.array(times, "datetime64[D]").astype(np.int64)
        rasters: dict[str, Pixels] = {}
        for key in plan.labels:
            modality, level = get_label(key)
            if modality.key not in rasters:
                found = self._pixels(tree, modality, window, index)
                rasters[modality.key], present[modality.key] = found
            raster = rasters[modality.key]
            labels[key] = raster[level - 1] if len(modality.bands) > 1 else raster
        return _Sample(inputs, labels, days, present, window)

    def _pixels(
        self, tree: xr.DataTree, modality: Modality, where: PatchWindow, index: int
    ) -> tuple[Pixels, bool]:
        roi = self.plan.rois[index]
        window = roi.grid.grid(modality.resolution_m).window(where.extent)
        names = modality.band_names if modality.kind is Kind.MASK else (modality.key,)
        if modality.group not in tree.children:
            return _absent(modality, self._bands(modality), window), False
        dataset = tree[modality.group].dataset
        if any(name not in dataset.variables for name in names):
            return _absent(modality, self._bands(modality), window), False
        try:
            y, x = window.slices
            read = [dataset.variables[name][..., y, x].to_numpy() for name in names]
        except FlairHubError:
            raise
        except Exception as error:  # whatever the store or a codec raises, the place is what helps
            msg = (
                f"{where.domain} {where.roi}: {modality.key} cannot be read at {where.extent}: "
                f"{error}"
            )
            raise StoreLayoutError(msg) from error
        pixels = np.stack(read, axis=1) if modality.kind is Kind.MASK else read[0]
        if not modality.is_label:
            pixels = pixels[..., self._bands(modality), :, :]
        if _all_present(dataset.attrs.get(PRESENT_ATTRIBUTE), window, modality):
            return pixels, True
        return (pixels, False) if modality.is_label else (np.zeros_like(pixels), False)

    def _bands(self, modality: Modality) -> list[int]:
        if modality.is_label:
            return list(range(len(modality.bands)))
        return list(modality.band_indexes(self.plan.bands[modality.key]))

    def _collate(self, samples: list[_Sample]) -> MultimodalBatch:
        first = samples[0]
        return MultimodalBatch(
            inputs={k: _stack([s.inputs[k] for s in samples], k in first.days) for k in first.inputs},
            labels={k: _stack([s.labels[k] for s in samples], False) for k in first.labels},
            days={k: _stack([s.days[k] for s in samples], True) for k in first.days},
            lengths={k: torch.tensor([len(s.days[k]) for s in samples]) for k in first.days},
            present={k: torch.tensor([s.present[k] for s in samples]) for k in first.present},
            windows=tuple(s.window for s in samples),
        )


def _absent(modality: Modality, bands: list[int], window: Window) -> Pixels:
    size = (window.height, window.width)
    if modality.is_label:
        lead = (len(bands),) if len(bands) > 1 else ()
        return np.full((*lead, *size), IGNORE_INDEX, modality.numpy_dtype)
    lead = (0, len(bands)) if modality.temporal else (len(bands),)
    return np.zeros((*lead, *size), modality.numpy_dtype)


def _all_present(flags: Any, window: Window, modality: Modality) -> bool:
    side = modality.patch_px
    rows = range(window.row // side, -(-(window.row + window.height) // side))
    columns = slice(window.column // side, -(-(window.column + window.width) // side))
    return all(set(flags[row][columns]) == {"1"} for row in rows)


def _stack(arrays: list[Any], padded: bool) -> Tensor:
    """Stack; series are padded with zeros at the end of their first axis to the longest."""
    if padded:
        longest = max(1, *(len(a) for a in arrays))
        arrays = [
            np.concatenate([a, np.zeros((longest - len(a), *a.shape[1:]), a.dtype)])
            if len(a) < longest
            else a
            for a in arrays
        ]
    return torch.from_numpy(np.ascontiguousarray(np.stack(arrays)))


def stream(
    plan: PatchPlan,
    *,
    batch_size: int = 4,
    shuffle: bool = False,
    seed: int = 0,
    epoch: int = 0,
    prefetch: int = 2,
    threads: int = 4,
    drop_last: bool = False,
) -> PatchStream:
    """Return the batches of a plan, to be iterated over as often as wanted.

    Parameters are those of `PatchStream`.

    Examples
    --------
    ::

        plan = flairhub.PatchPlan.build("store", modalities=["aerial_rgbi"], split="train")
        for batch in flairhub.stream(plan, batch_size=8, shuffle=True, seed=1):
            batch.inputs["aerial_rgbi"]  # (8, 4, 512, 512) uint8
    """
    return PatchStream(
        plan,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        epoch=epoch,
        prefetch=prefetch,
        threads=threads,
        drop_last=drop_last,
    )


