"""Scores of maps: confusion matrices, accuracy, IoU, and the same for a map of one class.

Conventions, which published figures rarely state:

- Pixels whose true class is ignored by the nomenclature, or absent (255), do not count at all. A
  prediction of an ignored class on any other pixel counts as wrong.
- The mean IoU goes over the scored classes that occur in the truth. A class that only the
  prediction has costs the classes that it is mistaken for, and is not an extra zero.
- The baseline gives every pixel the most frequent class of the *training* labels, and is scored on
  the same pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flairhub.nomenclatures import Nomenclature

IGNORED = 255
"""Class of pixels that have no label."""

Matrix = npt.NDArray[np.int64]


def target_table(nomenclature: Nomenclature) -> Tensor:
    """Return what each of the 256 label values is learnt as: itself, or `IGNORED`; int64."""
    table = torch.full((256,), IGNORED)
    scored = torch.tensor(nomenclature.scored)
    table[scored] = scored
    return table


def confusion_matrix(truth: Tensor, prediction: Tensor, nomenclature: Nomenclature) -> Tensor:
    """Count pixels by true and predicted class.

    Parameters
    ----------
    truth : Tensor, any shape, uint8
        Class indexes; `IGNORED` and ignored classes do not count.
    prediction : Tensor, same shape, integer
        Class indexes, all below ``len(nomenclature)`` where the truth counts.

    Returns
    -------
    Tensor, shape (classes, classes), int64
        Rows are true classes, columns predicted ones.
    """
    size = len(nomenclature)
    targets = target_table(nomenclature).to(truth.device)[truth.long()]
    counted = targets != IGNORED
    pairs = targets[counted] * size + prediction[counted].long()
    return torch.bincount(pairs, minlength=size * size).reshape(size, size)


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class of the truth: code, name, pixels, and IoU of the model and of the baseline."""

    code: int
    name: str
    pixels: int
    iou: float
    baseline_iou: float


@dataclass(frozen=True, slots=True)
class Scores:
    """How good a map is, beside a map of one class on the same pixels.

    Parameters
    ----------
    label
        Key of the nomenclature.
    pixels
        Pixels that count.
    accuracy, mean_iou
        Overall accuracy, and mean over `classes`; in [0, 1], NaN where no pixel counts.
    baseline_class
        Name of the training labels' most frequent class.
    baseline_accuracy, baseline_mean_iou
        Of a map of that class alone.
    classes
        The scored classes that occur in the truth, by code.
    """

    label: str
    pixels: int
    accuracy: float
    mean_iou: float
    baseline_class: str
    baseline_accuracy: float
    baseline_mean_iou: float
    classes: tuple[ClassScore, ...]

    def to_plain(self) -> dict[str, Any]:
        """Return nested dicts and lists for JSON."""
        return asdict(self)


def score(matrix: Matrix, nomenclature: Nomenclature, majority: int) -> Scores:
    """Turn a confusion matrix into scores.

    Parameters
    ----------
    matrix : ndarray, shape (classes, classes), int64
        Rows are true classes; see `confusion_matrix`.
    nomenclature
        Of the classes.
    majority
        Code of the training labels' most frequent class; see `majority_class`.
    """
    truth = matrix.sum(axis=1)
    baseline = np.zeros_like(matrix)
    baseline[:, majority] = truth
    found = [c for c in nomenclature.scored if truth[c]]
    iou, baseline_iou = class_iou(matrix), class_iou(baseline)
    total = int(truth.sum())
    return Scores(
        label=nomenclature.key,
        pixels=total,
        accuracy=_ratio(np.trace(matrix), total),
        mean_iou=_mean(iou[found]),
        baseline_class=nomenclature.names[majority],
        baseline_accuracy=_ratio(np.trace(baseline), total),
        baseline_mean_iou=_mean(baseline_iou[found]),
        classes=tuple(
            ClassScore(
                c, nomenclature.names[c], int(truth[c]), float(iou[c]), float(baseline_iou[c])
            )
            for c in found
        ),
    )


def class_iou(matrix: Matrix) -> npt.NDArray[np.float64]:
    """Return intersection over union of every class, NaN where it is neither true nor predicted."""
    hits = np.diagonal(matrix).astype(np.float64)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - np.diagonal(matrix)
    iou = np.full(len(matrix), np.nan)
    np.divide(hits, union, out=iou, where=union > 0)
    return iou


def majority_class(counts: Sequence[int], nomenclature: Nomenclature) -> int:
    """Return the code of the most frequent scored class.

    Parameters
    ----------
    counts
        Training pixels of every class, by code.
    nomenclature
        Of the classes.
    """
    return max(nomenclature.scored, key=lambda code: counts[code])


def mean_over_labels(scores: Iterable[Scores]) -> float:
    """Return the mean of the label sets' mean IoU: what a run is judged by."""
    return _mean(np.array([s.mean_iou for s in scores]))


def summary(scores: Mapping[str, Scores]) -> str:
    """Say in one line how good a model is: for logs."""
    return "; ".join(
        f"{label}: accuracy {s.accuracy:.3f} (one class {s.baseline_accuracy:.3f}), "
        f"mean IoU {s.mean_iou:.3f} (one class {s.baseline_mean_iou:.3f})"
        for label, s in scores.items()
    )


def _ratio(part: int, whole: int) -> float:
    return float(part) / whole if whole else float("nan")


def _mean(values: npt.NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
