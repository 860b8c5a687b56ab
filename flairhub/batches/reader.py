"""One opened ROI, cut to windows: what a batch is collated from.

A modality that lacks any patch of a window is absent from it as a whole: zeros, a series without
dates. Labels keep what there is; the rest is the store's fill value, which is `IGNORE_INDEX`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from flairhub.batches.batch import IGNORE_INDEX
from flairhub.batches.plan import PatchPlan, PatchWindow, PlannedRoi
from flairhub.errors import ReadError, StoreLayoutError
from flairhub.grids import Window
from flairhub.modalities import Kind, Modality, get_label, get_modality
from flairhub.store.layout import PRESENT_ATTRIBUTE, fill_value
from flairhub.store.reading import open_roi

Pixels = npt.NDArray[np.generic]
Days = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """Arrays of one window, named as in `flairhub.batches.batch.MultimodalBatch`."""

    inputs: Mapping[str, Pixels]
    labels: Mapping[str, Pixels]
    days: Mapping[str, Days]
    present: Mapping[str, bool]
    window: PatchWindow


@dataclass(frozen=True)
class _Raster:
    """One modality of the ROI: its variables, still in the store, and the patches it has."""

    variables: tuple[xr.Variable, ...]
    patches: npt.NDArray[np.bool_]
    days: Days


class RoiReader:
    """Reads windows of one ROI, which is opened once; several threads may share it.

    Parameters
    ----------
    plan
        Says which modalities, bands and labels.
    roi
        One of the plan's ROIs.

    Raises
    ------
    NotInStoreError, StoreLayoutError
        If the ROI cannot be opened.
    """

    def __init__(self, plan: PatchPlan, roi: PlannedRoi) -> None:
        self.plan = plan
        self.roi = roi
        tree = open_roi(roi.store, roi.roi)
        self._labels = {key: get_label(key) for key in plan.labels}
        rasters = [get_modality(key) for key in plan.modalities]
        rasters += [raster for raster, _ in self._labels.values()]
        self._rasters = {modality.key: _find(tree, modality) for modality in rasters}

    def read(self, window: PatchWindow) -> Sample:
        """Read everything that the plan wants of one window; raises `ReadError`."""
        inputs, labels, days, present = {}, {}, {}, {}
        for key in self.plan.modalities:
            modality = get_modality(key)
            pixels = self._input(modality, window)
            present[key] = pixels is not None
            inputs[key] = self._absent(modality, window) if pixels is None else pixels
            if modality.temporal:
                found = self._rasters[key]
                days[key] = found.days if found and present[key] else np.empty(0, np.int64)
        levels: dict[str, Pixels] = {}
        for key, (modality, level) in self._labels.items():
            if modality.key not in levels:
                levels[modality.key], present[modality.key] = self._classes(modality, window)
            labels[key] = levels[modality.key][level - 1]
        return Sample(inputs, labels, days, present, window)

    def _input(self, modality: Modality, where: PatchWindow) -> Pixels | None:
        """Pixels ``(time,) band, y, x`` of the chosen bands, or None where a patch lacks them."""
        raster, window = self._rasters[modality.key], self._window(modality, where)
        if raster is None or not _covers(raster, modality, window):
            return None
        bands = list(modality.band_indexes(self.plan.bands[modality.key]))
        pixels = self._load(raster, modality, where)
        if modality.kind is not Kind.MASK:
            everything = bands == list(range(len(modality.bands)))
            return pixels[0] if everything else pixels[0][..., bands, :, :]
        # masks have no list of patches of their own, but a value that no percentage has
        if any((part == fill_value(modality)).any() for part in pixels):
            return None
        return np.stack([pixels[band] for band in bands], axis=1)

    def _classes(self, modality: Modality, where: PatchWindow) -> tuple[Pixels, bool]:
        """Classes ``level, y, x``, and whether every patch has them."""
        raster, window = self._rasters[modality.key], self._window(modality, where)
        size = (window.height, window.width)
        if raster is None:
            empty = np.full((len(modality.bands), *size), IGNORE_INDEX, modality.numpy_dtype)
            return empty, False
        (pixels,) = self._load(raster, modality, where)
        return pixels.reshape(-1, *size), _covers(raster, modality, window)

    def _load(self, raster: _Raster, modality: Modality, where: PatchWindow) -> list[Pixels]:
        y, x = self._window(modality, where).slices
        try:
            return [variable[..., y, x].to_numpy() for variable in raster.variables]
        except Exception as error:  # whatever store or codec raise: what helps is the place
            msg = (
                f"{modality.key} of {where.domain} {where.roi} cannot be read at "
                f"{where.extent.bbox} from {self.roi.store}: {error!r}. "
                "`flairhub verify` tells what is damaged."
            )
            raise ReadError(msg) from error

    def _window(self, modality: Modality, where: PatchWindow) -> Window:
        return self.roi.grid.grid(modality.resolution_m).window(where.extent)

    def _absent(self, modality: Modality, where: PatchWindow) -> Pixels:
        window = self._window(modality, where)
        lead = (0,) if modality.temporal else ()
        shape = (*lead, len(self.plan.bands[modality.key]), window.height, window.width)
        return np.zeros(shape, modality.numpy_dtype)


def _find(tree: xr.DataTree, modality: Modality) -> _Raster | None:
    """Return the modality's lazy variables, or None where the ROI has none."""
    names = modality.band_names if modality.kind is Kind.MASK else (modality.key,)
    group = tree.children.get(modality.group)
    if group is None or any(name not in group.variables for name in names):
        return None
    flags = group.attrs.get(PRESENT_ATTRIBUTE)
    if flags is None:
        msg = f"{tree.name}/{modality.group} does not say which patches it has; convert it again."
        raise StoreLayoutError(msg)
    days = np.empty(0, np.int64)
    if modality.temporal:
        days = group["time"].to_numpy().astype("datetime64[D]").astype(np.int64)
    patches = np.array([[flag == "1" for flag in row] for row in flags])
    dataset = group.dataset
    return _Raster(tuple(dataset.variables[name] for name in names), patches, days)


def _covers(raster: _Raster, modality: Modality, window: Window) -> bool:
    """Whether the raster has every patch that the window touches."""
    side = modality.patch_px
    rows = slice(window.row // side, -(-(window.row + window.height) // side))
    columns = slice(window.column // side, -(-(window.column + window.width) // side))
    return bool(raster.patches[rows, columns].all())
