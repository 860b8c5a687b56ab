"""One checkpoint, one ROI, one map: plan, predict, blend, write, and score where labels exist."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

import flairhub
from flairhub.batches.plan import PatchPlan
from flairhub.batches.streaming import stream
from flairhub.batches.windowing import lattice_step
from flairhub.config import DataConfig
from flairhub.errors import NotInStoreError, PlanError, UnknownNameError, did_you_mean
from flairhub.grids import Extent, RoiGrid, common_step
from flairhub.inference.blending import Blender
from flairhub.inference.cog import write_cog
from flairhub.inference.scoring import score_map
from flairhub.inference.windows import cover, is_filled, true_overlap
from flairhub.inference.zarr_writer import write_map
from flairhub.modalities import get_modality
from flairhub.nomenclatures import Nomenclature, get_nomenclature
from flairhub.store.access import Source
from flairhub.store.reading import Domain, open_domain
from flairhub.store.tables import has_column
from flairhub.training.metrics import Scores
from flairhub.training.task import SegmentationTask, load_task

_LOG = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the windows done and the windows in all."""


@dataclass(frozen=True, slots=True)
class PredictionResult:
    """Where a map lies, and how good it is.

    Parameters
    ----------
    zarr, cog
        Paths of the store and of the GeoTIFF.
    domain, roi, label
        What was mapped.
    windows
        Number of windows.
    overlap
        Share of a window's side that its neighbour covered again.
    scores
        Against the ROI's labels; None where it has none.
    """

    zarr: Path
    cog: Path
    domain: str
    roi: str
    label: str
    windows: int
    overlap: float
    scores: Scores | None

    def to_plain(self) -> dict[str, Any]:
        """Return nested dicts, lists, strings and numbers for JSON."""
        return {
            "zarr": str(self.zarr),
            "cog": str(self.cog),
            "domain": self.domain,
            "roi": self.roi,
            "label": self.label,
            "windows": self.windows,
            "overlap": self.overlap,
            "scores": None if self.scores is None else self.scores.to_plain(),
        }


def predict(
    checkpoint: str | Path,
    url: Source,
    roi: str,
    out: str | Path,
    *,
    label: str = "cosia",
    window_m: float | None = None,
    overlap: float = 0.5,
    batch_size: int = 4,
    device: str = "cpu",
    progress: Progress | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> PredictionResult:
    """Map one ROI with a trained model; write the map as Zarr and as COG, and score it.

    A pixel is mapped where at least one of the model's finest rasters is present; windows that
    none of these fills are not predicted, and what no window covers is nodata.

    Parameters
    ----------
    checkpoint
        Written by `flairhub.training.run.train`.
    url
        The domain's store, such as ``/data/store/D012-2019.zarr``.
    roi
        Name of the ROI.
    out
        Folder for ``<domain>_<roi>_<label>.zarr`` and ``.tif``; maps that lie there are replaced.
    label
        Which of the model's class sets to map.
    window_m
        Side of a window, metres, a multiple of the lattice on which the model's modalities share
        pixel edges. When absent that of training, or two steps of that lattice where training's
        is one step, since windows of one step cannot overlap.
    overlap
        Share of a window's side that its neighbour covers again; rounded to that lattice.
    batch_size
        Windows at a time; the map does not depend on it.
    device
        Where to compute, in torch's words.
    progress
        Called after every batch.
    storage_options
        For obstore or fsspec.

    Raises
    ------
    CheckpointError
        If the checkpoint is not one of ours.
    NotInStoreError
        If the domain or the ROI does not exist.
    UnknownNameError
        If the model has no such class set.
    PlanError
        If the ROI is smaller than a window, a window is no multiple of the lattice, or the ROI
        has none of the model's finest rasters.
    """
    task = load_task(checkpoint).to(device)
    nomenclature = _class_set(task, label)
    domain = open_domain(url, storage_options=storage_options)
    lattice = _lattice(domain, roi)
    data = task.config.data
    window_m = _window(data, window_m)
    overlap = _overlap(data, window_m, overlap)
    plan = PatchPlan.for_extents(
        url,
        roi,
        _extents(data, domain, roi, lattice, window_m, overlap),
        modalities=data.modalities,
        bands=data.bands,
        storage_options=storage_options,
    )
    grid = lattice.grid(min(get_modality(key).resolution_m for key in data.modalities))
    blender = Blender(
        grid.height,
        grid.width,
        classes=len(nomenclature),
        size=round(window_m / grid.resolution),
    )
    windows = _probabilities(task, plan, label, batch_size, device)
    for number, (extent, probabilities) in enumerate(windows, 1):
        corner = grid.window(extent)
        blender.add(corner.row, corner.column, probabilities)
        if progress is not None:
            progress(number, len(plan))
    classes, confidence = blender.finish()
    stem = f"{domain.id}_{roi}_{label}"
    attributes = {
        "title": f"{nomenclature.title} of {domain.id} {roi}",
        "source": f"flairhub {flairhub.__version__}, model {Path(checkpoint).name}",
        "flairhub:inputs": list(data.modalities),
    }
    store = Path(out) / f"{stem}.zarr"
    write_map(store, classes, confidence, grid, nomenclature, attributes=attributes)
    cog = write_cog(Path(out) / f"{stem}.tif", classes, grid, nomenclature)
    scores = score_map(domain[roi], classes, nomenclature, majority=task.majority[label])
    return PredictionResult(store, cog, str(domain.id), roi, label, len(plan), overlap, scores)


def _class_set(task: SegmentationTask, label: str) -> Nomenclature:
    known = task.config.data.labels
    if label not in known:
        msg = f"The model does not map {label!r}. {did_you_mean(label, known)}"
        raise UnknownNameError(msg)
    return get_nomenclature(label)


def _lattice(domain: Domain, roi: str) -> RoiGrid:
    rows = domain.rois[domain.rois["roi"] == roi].to_dict("records")
    if not rows:
        msg = f"{domain.id} has no ROI {roi!r}. {did_you_mean(roi, domain)}"
        raise NotInStoreError(msg)
    row = rows[0]
    whole = ("rows", "columns", "first_row", "first_column")
    return RoiGrid(float(row["left"]), float(row["top"]), *(int(row[name]) for name in whole))


def _window(data: DataConfig, wanted: float | None) -> float:
    """Return the side of a window, metres."""
    modalities = [get_modality(key) for key in data.modalities]
    if wanted is None:
        return max(data.window_m, 2 * lattice_step(modalities))
    lattice_step(modalities, window_m=wanted)
    return wanted


def _overlap(data: DataConfig, window_m: float, wanted: float) -> float:
    """Return the overlap that the lattice allows; say so where it allows none."""
    resolutions = [get_modality(key).resolution_m for key in data.modalities]
    found = true_overlap(window_m, wanted, resolutions)
    if wanted and not found:
        _LOG.warning(
            "windows of %g m do not overlap by %g: this model's modalities share pixel edges every "
            "%g m only; choose a larger window_m or overlap",
            *(window_m, wanted, common_step(resolutions)),
        )
    return found


def _extents(
    data: DataConfig, domain: Domain, roi: str, lattice: RoiGrid, window_m: float, overlap: float
) -> list[Extent]:
    """Return the windows that cover the ROI and that one of the model's finest rasters fills."""
    resolutions = [get_modality(key).resolution_m for key in data.modalities]
    windows = cover(lattice, window_m=window_m, overlap=overlap, resolutions_m=resolutions)
    finest = [k for k in data.modalities if get_modality(k).resolution_m == min(resolutions)]
    patches = domain.patches[domain.patches["roi"] == roi]
    there = [_presence(lattice, patches[patches[has_column(key)]]) for key in finest]
    kept = [w for w in windows if any(is_filled(w, lattice, mask) for mask in there)]
    if not kept:
        msg = (
            f"No window of {window_m:g} m of {domain.id} {roi} is filled by "
            f"{' or '.join(finest)}, in which the model sees most detail."
        )
        raise PlanError(msg)
    if len(kept) < len(windows):
        _LOG.warning(
            "%s %s: %d of %d windows lack %s; what no other window covers is nodata",
            *(domain.id, roi, len(windows) - len(kept), len(windows), " and ".join(finest)),
        )
    return kept


def _presence(lattice: RoiGrid, patches: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return which cells of the lattice the given rows of the patch table fill."""
    there = np.zeros((lattice.rows, lattice.columns), bool)
    rows = patches["row"].to_numpy() - lattice.first_row
    there[rows, patches["column"].to_numpy() - lattice.first_column] = True
    return there


def _probabilities(
    task: SegmentationTask, plan: PatchPlan, label: str, batch_size: int, device: str
) -> Iterator[tuple[Extent, npt.NDArray[np.float32]]]:
    """Yield every window with its class probabilities, shape ``(classes, y, x)``."""
    for batch in stream(plan, batch_size=batch_size):
        with torch.inference_mode():
            found = task(batch.to(device))[label].softmax(dim=1).cpu().numpy()
        for window, probabilities in zip(batch.windows, found, strict=True):
            yield window.extent, probabilities
