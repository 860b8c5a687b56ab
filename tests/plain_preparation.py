"""What preparation means, said in plain numpy for one sample at a time; and random batches."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from flairhub import ign
from flairhub.batches.batch import MultimodalBatch
from flairhub.batches.plan import PatchWindow
from flairhub.config import CloudFilter
from flairhub.grids import Extent

Array = npt.NDArray[Any]
EPOCH = dt.date(1970, 1, 1)
WINDOW = PatchWindow("D012-2019", "AF-S1-27", Extent(0.0, 0.0, 102.4, 102.4))


def date(day: int) -> dt.date:
    return EPOCH + dt.timedelta(days=int(day))


def number(day: dt.date) -> int:
    return (day - EPOCH).days


def clear(masks: Array, limits: CloudFilter, *, rule_of_ign: bool = False) -> list[int]:
    """Which dates of ``(T, snow and cloud, H, W)`` stay."""
    hidden = [
        float(((one[1] > limits.max_cloud) | (one[0] > limits.max_snow)).mean()) for one in masks
    ]
    kept = [t for t, share in enumerate(hidden) if share <= limits.max_share + 1e-9]
    if kept or not hidden:
        return kept
    if rule_of_ign:
        snowy = [float((one[0] > limits.max_snow).mean()) for one in masks]
        return [t for t, share in enumerate(snowy) if share <= limits.max_share + 1e-9]
    return [hidden.index(min(hidden))]


def part_of(day: dt.date, period: str) -> int:
    """0 for a month or its first half, 1 for its second."""
    return int(period == "semi-monthly" and day.day > 15)


def middle(year: int, month: int, part: int, period: str) -> int:
    return number(dt.date(year, month, 15 if period == "monthly" else (8, 23)[part]))


def composite(values: Array, days: Sequence[int], period: str) -> tuple[Array, list[int]]:
    """Mean of every period that has a date, in order, and the days they stand on."""
    dates = [date(day) for day in days]
    periods = sorted({(d.year, d.month, part_of(d, period)) for d in dates})
    means = [
        mean_of_finite(
            [
                value
                for value, d in zip(values, dates, strict=True)
                if (d.year, d.month, part_of(d, period)) == one
            ]
        )
        for one in periods
    ]
    return np.array(means), [middle(*one, period) for one in periods]


def ign_composite(values: Array, days: Sequence[int], period: str) -> tuple[Array, list[int]]:
    """One mean for each period of the first date's year; gaps repeat what was before."""
    dates = [date(day) for day in days]
    year = dates[0].year
    data, offsets = [], []
    last, last_day = np.zeros_like(values[0], np.float64), number(dt.date(year, *ign.REFERENCE_DAY))
    for month in range(1, 13):
        for part in range(1 if period == "monthly" else 2):
            chosen = [
                value
                for value, d in zip(values, dates, strict=True)
                if d.month == month
                and part_of(d, period) == part
                and (period == "monthly" or d.year == year)
            ]
            if chosen:
                last, last_day = mean_of_finite(chosen), middle(year, month, part, period)
            data.append(last)
            offsets.append(last_day)
    return np.array(data), offsets


def mean_of_finite(values: Sequence[Array]) -> Array:
    stack = np.array(values, np.float64)
    finite = np.isfinite(stack)
    with np.errstate(invalid="ignore"):
        mean: Array = np.where(finite, stack, 0).sum(0) / finite.sum(0)
    return mean


def elevate(pixels: Array, bands: Sequence[str], channels: Sequence[str]) -> Array:
    """Channels of one elevation raster ``(bands, H, W)``."""
    raster = dict(zip(bands, pixels.astype(np.float64), strict=True))
    ground = raster.get("dtm", raster.get("dsm"))
    assert ground is not None
    made = raster | {"relief": ground - np.nanmean(ground)}
    if len(raster) == 2:
        made["height"] = raster["dsm"] - raster["dtm"]
    return np.stack([made[channel] for channel in channels])


def normalise(pixels: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """Channels on axis -3; what is not finite becomes the mean."""
    shape = (-1, 1, 1)
    values = (pixels.astype(np.float64) - np.reshape(mean, shape)) / np.reshape(std, shape)
    return np.where(np.isfinite(values), values, 0)


def batch_of(
    inputs: Mapping[str, Sequence[Array]],
    days: Mapping[str, Sequence[Sequence[int]]] | None = None,
    absent: Mapping[str, Sequence[int]] | None = None,
) -> MultimodalBatch:
    """Stack samples; series are padded with zeros, and absent samples are zeros without dates."""
    tensors, padded, lengths, present = {}, {}, {}, {}
    days, absent = days or {}, absent or {}
    for key, samples in inputs.items():
        there = np.array([i not in absent.get(key, ()) for i in range(len(samples))])
        present[key] = torch.from_numpy(there)
        if key not in days:
            stack = np.stack(samples) * there[:, None, None, None].astype(samples[0].dtype)
            tensors[key] = torch.from_numpy(stack)
            continue
        counts = [len(d) if here else 0 for d, here in zip(days[key], there, strict=True)]
        size = max(1, *counts)
        stack = np.zeros((len(samples), size, *samples[0].shape[1:]), samples[0].dtype)
        dates = np.zeros((len(samples), size), np.int64)
        for i, count in enumerate(counts):
            stack[i, :count] = samples[i][:count]
            dates[i, :count] = days[key][i][:count]
        tensors[key], padded[key] = torch.from_numpy(stack), torch.from_numpy(dates)
        lengths[key] = torch.tensor(counts)
    windows = (WINDOW,) * len(next(iter(inputs.values())))
    return MultimodalBatch(tensors, {}, padded, lengths, present, windows)
