"""What training minimises: cross entropy of one or several label sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flairhub.batches.batch import IGNORE_INDEX
from flairhub.nomenclatures import Nomenclature, get_nomenclature
from flairhub.training.metrics import IGNORED, target_table

MIN_SHARE = 1e-3
"""Share below which a class is not weighted up any further."""


class SegmentationLoss(nn.Module):
    """Weighted sum of cross entropies, one a label set.

    Pixels without a label, and those of classes that the nomenclature ignores, do not count; a
    batch that has none else contributes 0.

    Parameters
    ----------
    class_counts
        Training pixels of every class, by nomenclature key.
    class_balance
        Exponent of inverse frequency in the classes' weights, 0 to 1: see `class_weights`.
    task_weights
        Weight of each label set; 1 where absent.
    label_smoothing
        Share of the target that is spread evenly over all classes.
    auxiliary
        Weight of the mean loss of auxiliary scores, beside the weight of their label set.
    """

    def __init__(
        self,
        class_counts: Mapping[str, Sequence[int]],
        *,
        class_balance: float = 0.0,
        task_weights: Mapping[str, float] | None = None,
        label_smoothing: float = 0.0,
        auxiliary: float = 0.0,
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.auxiliary = auxiliary
        self.task_weights = {key: (task_weights or {}).get(key, 1.0) for key in class_counts}
        for key, counts in class_counts.items():
            nomenclature = get_nomenclature(key)
            weights = class_weights(counts, nomenclature, class_balance)
            self.register_buffer(f"weights_{key}", weights, persistent=False)
            self.register_buffer(f"targets_{key}", target_table(nomenclature), persistent=False)

    def forward(
        self,
        scores: Mapping[str, Tensor],
        labels: Mapping[str, Tensor],
        aux: Mapping[str, Tensor] | None = None,
        present: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Compare scores with labels.

        Parameters
        ----------
        scores : mapping of Tensor, shape (B, classes, H, W), float32
            Before softmax, by nomenclature key.
        labels : mapping of Tensor, shape (B, H, W), uint8
            Class indexes, 255 where there is none.
        aux : mapping of Tensor, shape (B, classes, H, W), float32
            Scores from single modalities, by modality and nomenclature key: ``"dem_elev/cosia"``.
        present : mapping of Tensor, shape (B,), bool
            Which samples have a modality, for `aux`: all where the key is left out. Others do not
            count.

        Returns
        -------
        Tensor, scalar, float32
        """
        parts = []
        for key, weight in self.task_weights.items():
            loss = self._cross_entropy(key, scores[key], labels[key])
            alone = [
                self._cross_entropy(key, found, _where_present(labels[key], has))
                for found, has in _of_label(key, aux or {}, present or {})
            ]
            if alone:
                loss = loss + self.auxiliary * torch.stack(alone).mean()
            parts.append(weight * loss)
        return torch.stack(parts).sum()

    def _cross_entropy(self, key: str, scores: Tensor, labels: Tensor) -> Tensor:
        weights = self.get_buffer(f"weights_{key}")
        targets = self.get_buffer(f"targets_{key}")[labels.long()]
        total = F.cross_entropy(
            scores,
            targets,
            weights,
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        # As reduction="mean" divides, except that 0 / 0 stays 0: windows without labels exist.
        padded = F.pad(weights, (0, IGNORED + 1 - len(weights)))
        return total / padded[targets].sum().clamp(min=1e-6)


def _of_label(
    label: str, aux: Mapping[str, Tensor], present: Mapping[str, Tensor]
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield the auxiliary scores of a label set, and which samples have their modality."""
    for name, found in aux.items():
        modality, _, key = name.partition("/")
        if key == label:
            yield found, present.get(modality)


def _where_present(labels: Tensor, has: Tensor | None) -> Tensor:
    return labels if has is None else labels.masked_fill(~has[:, None, None], IGNORE_INDEX)


def class_weights(counts: Sequence[int], nomenclature: Nomenclature, exponent: float) -> Tensor:
    """Return weights that grow as classes get rarer, with mean 1 over the training pixels.

    Parameters
    ----------
    counts
        Training pixels of every class, by code.
    nomenclature
        Of the classes; ignored ones get weight 0.
    exponent
        0 for equal weights, 1 for inverse frequency, 0.5 for a compromise.

    Returns
    -------
    Tensor, shape (classes,), float32
    """
    scored = torch.zeros(len(nomenclature), dtype=torch.float64)
    scored[list(nomenclature.scored)] = 1.0
    pixels = torch.tensor(counts, dtype=torch.float64) * scored
    if not pixels.any():
        return scored.float()
    shares = pixels / pixels.sum()
    weights = shares.clamp(min=MIN_SHARE) ** -exponent * scored
    return (weights / (weights * shares).sum()).float()
