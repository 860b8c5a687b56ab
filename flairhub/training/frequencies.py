"""How often each class occurs in the training labels: for class weights and the baseline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flairhub.batches.plan import PatchPlan
from flairhub.batches.streaming import stream
from flairhub.nomenclatures import get_nomenclature

MAX_WINDOWS = 4096
"""Windows counted at most: shares hardly move after some thousand."""


def class_counts(plan: PatchPlan, *, max_windows: int = MAX_WINDOWS) -> dict[str, list[int]]:
    """Count the pixels of every class in a plan's labels; reads no input raster.

    Parameters
    ----------
    plan
        Of the training windows.
    max_windows
        Windows to read, drawn without replacement, the same ones every time.

    Returns
    -------
    dict
        By nomenclature key, pixels of every class in the order of the codes.
    """
    chosen = np.sort(plan.order(shuffle=True, seed=0, epoch=0)[:max_windows])
    labels_only = replace(plan.subset(chosen), modalities=(), bands={})
    counts = {key: np.zeros(256, np.int64) for key in plan.labels}
    for batch in stream(labels_only, batch_size=16):
        for key, labels in batch.labels.items():
            counts[key] += np.bincount(labels.numpy().ravel(), minlength=256)
    return {key: found[: len(get_nomenclature(key))].tolist() for key, found in counts.items()}
