"""The learning rate over a run: one cycle."""

from __future__ import annotations

import math

START = 1 / 25
"""Rate at the beginning, as a share of the largest."""

END = 1e-4
"""Rate at the end, as a share of the largest."""


def one_cycle(progress: float, warmup: float) -> float:
    """Return the learning rate as a share of the largest.

    Rises along a half cosine, then falls along another.

    Parameters
    ----------
    progress
        Share of the run that is done; anything above 1 counts as 1.
    warmup
        Share of the run in which the rate rises.

    References
    ----------
    Smith and Topin 2019, arXiv:1708.07120.
    """
    if progress < warmup:
        return _between(START, 1.0, progress / warmup)
    return _between(1.0, END, min(1.0, (progress - warmup) / max(1 - warmup, 1e-9)))


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
