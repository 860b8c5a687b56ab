"""How good a finished map is, against the labels of its ROI."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from flairhub.inference.blending import NODATA
from flairhub.modalities import get_label
from flairhub.nomenclatures import Nomenclature
from flairhub.training.metrics import IGNORED, Scores, confusion_matrix, score

_STRIP_PX = 512
"""Rows read at a time: a patch of labels, so that every chunk is read once."""


def read_labels(roi: xr.DataTree, nomenclature: Nomenclature) -> xr.DataArray | None:
    """Return the ROI's lazy labels of one class set, dims ``y, x``; None where it has none.

    Parameters
    ----------
    roi
        As `flairhub.open_roi` gives it.
    nomenclature
        Which class set.
    """
    modality, level = get_label(nomenclature.key)
    if modality.group not in roi.children:
        return None
    labels = roi[modality.group].dataset[modality.key]
    return labels.isel(level=level - 1) if "level" in labels.dims else labels


def score_map(
    roi: xr.DataTree,
    classes: npt.NDArray[np.uint8],
    nomenclature: Nomenclature,
    *,
    majority: int,
) -> Scores | None:
    """Compare a map with the labels of its ROI, a row of patches at a time.

    Parameters
    ----------
    roi
        As `flairhub.open_roi` gives it.
    classes
        The map, shape ``(y, x)``; each label is compared with the map pixel that it lies in.
        Pixels without a prediction do not count.
    nomenclature
        What the codes mean.
    majority
        Code of the training labels' most frequent class, for the baseline.

    Returns
    -------
    Scores or None
        None where the ROI has no such labels.
    """
    labels = read_labels(roi, nomenclature)
    if labels is None:
        return None
    rows, columns = (_nearest(*sizes) for sizes in zip(labels.shape, classes.shape, strict=True))
    size = len(nomenclature)
    matrix = np.zeros((size, size), np.int64)
    for strip in np.array_split(np.arange(len(rows)), max(1, len(rows) // _STRIP_PX)):
        truth = labels.isel(y=slice(strip[0], strip[-1] + 1)).to_numpy()
        found = classes[rows[strip]][:, columns]
        truth = np.where(found == NODATA, np.uint8(IGNORED), truth)
        matrix += confusion_matrix(
            torch.from_numpy(truth), torch.from_numpy(found), nomenclature
        ).numpy()
    return score(matrix, nomenclature, majority)


def _nearest(fine: int, coarse: int) -> npt.NDArray[np.int64]:
    """Return, for each of `fine` pixels along an axis, the one of `coarse` that it lies in."""
    return ((np.arange(fine) + 0.5) * coarse / fine).astype(np.int64)
