"""Means of the dates of each month or half month.

`composite` is this project's form: calendar periods in order, those without a date left out, so
that lengths say how many there are. `ign_composite` is IGN's: the twelve months (or twenty-four
halves) of one year, each without a date repeating the one before.

A mean is over the finite values of a pixel; it is not a number where there are none.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flairhub import ign
from flairhub.config.preparation import Period
from flairhub.preparation.calendar import day_in, month_of
from flairhub.preparation.series import Series

_HALVES_FROM = 16
"""Day on which the second half of a month begins."""

_MIDDLES = {"monthly": (15,), "semi-monthly": (8, 23)}
"""Day of the month that stands for a period."""


def composite(series: Series, period: Period) -> Series:
    """Return one date for each period that has dates, in order of time.

    Parameters
    ----------
    series
        In any order; a date may repeat.
    period
        ``monthly``: calendar months, dated on the 15th. ``semi-monthly``: from the 1st to the
        15th, dated on the 8th, and from the 16th on, dated on the 23rd. Months of different years
        are different periods.

    Returns
    -------
    Series
        T is the largest number of periods of a sample, at least 1; lengths count them.
    """
    true = series.true()
    last = torch.iinfo(torch.int64).max
    code = _code(series.days, period).masked_fill(~true, last)
    ordered, order = code.sort(dim=1, stable=True)
    new = torch.ones_like(true)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    lengths = (new & (ordered != last)).sum(dim=1)
    rank = torch.empty_like(code).scatter_(1, order, new.cumsum(dim=1) - 1)
    size = max(1, int(lengths.max()))
    means = _means(series.values, rank, true, size)
    # padding has a rank of its own after the last period, which may not exist
    codes = code.new_zeros(len(code), size + 1).scatter_(1, rank.clamp(max=size), code)[:, :size]
    there = torch.arange(size, device=code.device) < lengths[:, None]
    days = torch.where(there, _middle(torch.where(there, codes, 0), period), 0)
    return Series(torch.where(there[..., None, None, None], means, 0), days, lengths)


def ign_composite(series: Series, period: Period) -> Series:
    """Return the twelve months, or twenty-four half months, of the first date's year.

    Monthly, dates of any year count for their month; semi-monthly, those of other years are left
    out. A period without a date repeats the values and the day of the one before; before the first
    it is zeros, on the day from which IGN counts. A sample without dates stays without.

    Parameters
    ----------
    series
        In file order.
    period
        As for `composite`.
    """
    parts = len(_MIDDLES[period])
    size = 12 * parts
    code, true = _code(series.days, period), series.true()
    start = code[:, :1] - code[:, :1] % size
    if period == "semi-monthly":
        true = true & (code >= start) & (code < start + size)
    number = code % size
    means = _means(series.values, number, true, size)
    count = torch.zeros_like(start).expand(-1, size).scatter_add(1, number, true.long())
    places = torch.arange(size, device=code.device).expand_as(count)
    latest = torch.where(count > 0, places, -1).cummax(dim=1).values
    rows = torch.arange(len(code), device=code.device)[:, None]
    filled = torch.where((latest >= 0)[..., None, None, None], means[rows, latest.clamp(min=0)], 0)
    month, day = ign.REFERENCE_DAY
    reference = day_in(start // parts + month - 1, day)
    days = torch.where(latest >= 0, _middle(start + latest.clamp(min=0), period), reference)
    has = series.lengths > 0
    days = torch.where(has[:, None], days, 0)
    return Series(filled, days, torch.where(has, size, 0))


def _code(days: Tensor, period: Period) -> Tensor:
    """Return the number of each day's period: months since the year 0, or halves of them."""
    month, day = month_of(days)
    return month if period == "monthly" else 2 * month + (day >= _HALVES_FROM)


def _middle(code: Tensor, period: Period) -> Tensor:
    """Return the days that stand for periods, by their numbers."""
    middles = code.new_tensor(_MIDDLES[period])
    return day_in(code // len(middles), middles[code % len(middles)])


def _means(values: Tensor, number: Tensor, true: Tensor, size: int) -> Tensor:
    """Average dates by their number, (B, T) from 0 to `size`; shape ``(B, size, C, H, W)``."""
    batch = len(values)
    # what does not count goes to a row after the last one
    rows = torch.where(true, number, size)
    rows = rows + torch.arange(batch, device=rows.device)[:, None] * (size + 1)
    finite = torch.isfinite(values)
    sums = values.new_zeros(batch * (size + 1), *values.shape[2:])
    counts = torch.zeros_like(sums)
    sums.index_add_(0, rows.flatten(), torch.where(finite, values, 0).flatten(0, 1))
    counts.index_add_(0, rows.flatten(), finite.to(values.dtype).flatten(0, 1))
    means = sums.div_(counts).reshape(batch, size + 1, *values.shape[2:])
    return means[:, :size]
