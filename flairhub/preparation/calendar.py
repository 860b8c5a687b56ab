"""Days since 1970-01-01 and months of the calendar, on any device."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

_FIRST_YEAR, _LAST_YEAR = 1900, 2200
"""Years that are known; days outside count as those of the first or last month."""


def month_of(days: Tensor) -> tuple[Tensor, Tensor]:
    """Return the month and the day of the month.

    Parameters
    ----------
    days : Tensor, int64
        Days since 1970-01-01.

    Returns
    -------
    month, day : Tensor, int64
        ``12 * year + month - 1``, and 1 to 31; shaped as `days`.
    """
    starts = _month_starts(days.device)
    index = (torch.bucketize(days, starts, right=True) - 1).clamp(min=0)
    return index + 12 * _FIRST_YEAR, days - starts[index] + 1


def day_in(month: Tensor, day: int | Tensor) -> Tensor:
    """Return days since 1970-01-01: the inverse of `month_of`."""
    starts = _month_starts(month.device)
    index = (month - 12 * _FIRST_YEAR).clamp(0, len(starts) - 1)
    return starts[index] + (day - 1)


@cache
def _month_starts(device: torch.device) -> Tensor:
    """Return the first day of every month that is known, in order."""
    months = np.arange(f"{_FIRST_YEAR}-01", f"{_LAST_YEAR}-01", dtype="datetime64[M]")
    return torch.from_numpy(months.astype("datetime64[D]").astype(np.int64)).to(device)
