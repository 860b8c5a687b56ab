"""Calendar, clouds and composites, each against its statement in plain numpy."""

from __future__ import annotations

import datetime as dt
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flairhub.config import CloudFilter
from flairhub.config.preparation import Period
from flairhub.preparation.calendar import day_in, month_of
from flairhub.preparation.clouds import Fallback, clear_dates, without_clouds
from flairhub.preparation.compatibility import day_offsets
from flairhub.preparation.composites import composite, ign_composite
from flairhub.preparation.series import Series
from tests import plain_preparation as plain

days_of_samples = st.lists(
    st.lists(st.dates(dt.date(2017, 11, 20), dt.date(2021, 2, 10)).map(plain.number), max_size=14),
    min_size=1,
    max_size=4,
)
seeds = st.integers(0, 2**32 - 1)
periods = st.sampled_from(["monthly", "semi-monthly"])


def series_of(
    days: list[list[int]], seed: int, *, bands: int = 2, padding: int = 0, holes: float = 0.0
) -> Series:
    """Return random float32 series with these days; some pixels are not a number."""
    rng = np.random.default_rng(seed)
    size = max(1, *map(len, days)) + padding
    values = rng.uniform(1, 9000, (len(days), size, bands, 3, 3)).astype(np.float32)
    values[rng.random(values.shape) < holes] = np.nan
    padded = np.zeros((len(days), size), np.int64)
    for i, row in enumerate(days):
        padded[i, : len(row)] = row
        values[i, len(row) :] = 0
    lengths = torch.tensor([len(row) for row in days])
    return Series(torch.from_numpy(values), torch.from_numpy(padded), lengths)


@given(st.lists(st.dates(dt.date(1900, 1, 1), dt.date(2199, 12, 31)), min_size=1))
def test_months_are_those_of_the_calendar(dates: list[dt.date]) -> None:
    days = torch.tensor([plain.number(d) for d in dates])
    month, day = month_of(days)
    assert month.tolist() == [12 * d.year + d.month - 1 for d in dates]
    assert day.tolist() == [d.day for d in dates]
    assert torch.equal(day_in(month, day), days)


@given(days_of_samples)
def test_offsets_are_from_may_of_each_dates_own_year(days: list[list[int]]) -> None:
    series = series_of(days, 0, padding=1)
    found = day_offsets(series.days, series.lengths)
    assert found.dtype == torch.float32
    for row, sample in zip(found.tolist(), days, strict=True):
        expected = [(d - dt.date(d.year, 5, 15)).days for d in map(plain.date, sample)]
        assert row == expected + [0] * (len(row) - len(expected))


@given(days_of_samples, seeds, st.integers(0, 3))
def test_dates_are_taken_out_by_shortening(days: list[list[int]], seed: int, padding: int) -> None:
    series = series_of(days, seed, padding=padding)
    kept = torch.from_numpy(np.random.default_rng(seed).random(series.days.shape) < 0.5)
    found = series.only(kept)
    assert found.days.shape[1] == max(1, int(found.lengths.max()))
    for i, sample in enumerate(days):
        at = [t for t in range(len(sample)) if kept[i, t]]
        assert int(found.lengths[i]) == len(at)
        torch.testing.assert_close(found.values[i, : len(at)], series.values[i, at])
        assert found.days[i, : len(at)].tolist() == [sample[t] for t in at]
        assert not found.values[i, len(at) :].any()
        assert not found.days[i, len(at) :].any()


@given(
    days_of_samples,
    seeds,
    st.sampled_from(["clearest", "without snow"]),
    st.sampled_from([("snow", "cloud"), ("cloud", "snow")]),
    st.floats(0, 100),
    st.sampled_from([0.0, 0.05, 1 / 9, 1 / 3, 0.5, 1.0]),
)
def test_dates_are_kept_by_their_hidden_pixels(
    days: list[list[int]],
    seed: int,
    fallback: Fallback,
    bands: tuple[str, str],
    level: float,
    share: float,
) -> None:
    """Whatever the order of the bands; where none is clear the fallback says what stays."""
    limits = CloudFilter(max_cloud=level, max_snow=level, max_share=share)
    rng = np.random.default_rng(seed)
    series = series_of(days, seed)
    percents = rng.integers(0, 101, series.values.shape).astype(np.float32)
    masks = Series(torch.from_numpy(percents), series.days, series.lengths)
    found = clear_dates(masks, bands, limits, fallback)
    at = [bands.index(name) for name in ("snow", "cloud")]
    for row, sample, size in zip(found, percents, series.lengths.tolist(), strict=True):
        expected = plain.clear(sample[:size, at], limits, rule_of_ign=fallback != "clearest")
        assert row.nonzero().flatten().tolist() == expected
        assert fallback != "clearest" or expected or not size


def test_a_share_that_is_just_reached_is_clear() -> None:
    percents = torch.zeros(1, 2, 2, 10, 10)
    percents[0, 0, 1].flatten()[:5] = 100
    percents[0, 1, 0].flatten()[:6] = 100
    masks = Series(percents, torch.zeros(1, 2, dtype=torch.int64), torch.tensor([2]))
    found = clear_dates(masks, ("snow", "cloud"), CloudFilter())
    assert found.tolist() == [[True, False]]


def test_a_sample_without_masks_keeps_its_dates() -> None:
    series = series_of([[1, 2, 3], [4, 5]], 0)
    percents = torch.full((2, 2, 2, 3, 3), 100.0)
    percents[1, 1] = 0
    masks = Series(percents, series.days[:, :2], torch.tensor([0, 2]))
    clear = clear_dates(masks, ("snow", "cloud"), CloudFilter())
    thin, thinned_masks = without_clouds(series, masks, clear)
    assert thin.lengths.tolist() == [3, 1]
    assert thin.days.tolist() == [[1, 2, 3], [5, 0, 0]]
    assert thinned_masks.lengths.tolist() == [0, 1]


@given(days_of_samples, seeds, periods, st.sampled_from([0.0, 0.3]), st.integers(0, 2))
def test_composites_are_means_of_periods_that_have_dates(
    days: list[list[int]], seed: int, period: str, holes: float, padding: int
) -> None:
    """Dates in any order, repeated, of several years; pixels that are not a number do not count."""
    series = series_of(days, seed, holes=holes, padding=padding)
    found = composite(series, cast("Period", period))
    for i, sample in enumerate(days):
        size = int(found.lengths[i])
        assert not found.values[i, size:].any()
        assert not found.days[i, size:].any()
        if not sample:
            assert size == 0
            continue
        values = series.values[i, : len(sample)].numpy()
        means, middles = plain.composite(values, sample, period)
        assert found.days[i, :size].tolist() == middles
        np.testing.assert_allclose(found.values[i, :size], means, rtol=1e-5)
    assert found.days.shape[1] == max(1, int(found.lengths.max()))


@given(days_of_samples, seeds, periods)
def test_composites_of_ign_repeat_what_was_before(
    days: list[list[int]], seed: int, period: str
) -> None:
    series = series_of(days, seed)
    found = ign_composite(series, cast("Period", period))
    size = 12 if period == "monthly" else 24
    assert found.days.shape == (len(days), size)
    for i, sample in enumerate(days):
        if not sample:
            assert int(found.lengths[i]) == 0
            assert not found.values[i].any()
            assert not found.days[i].any()
            continue
        values = series.values[i, : len(sample)].numpy()
        means, middles = plain.ign_composite(values, sample, period)
        assert int(found.lengths[i]) == size
        assert found.days[i].tolist() == middles
        np.testing.assert_allclose(found.values[i], means, rtol=1e-5)


def test_sixteen_bit_sums_are_exact() -> None:
    """As IGN's, which are in float64: ninety dates of one month stay below 2**24."""
    days = [[plain.number(dt.date(2020, 7, 1))] * 90]
    series = series_of(days, 3)
    whole = Series(series.values.round(), series.days, series.lengths)
    expected = whole.values[0].double().mean(0).float()
    for found in (composite(whole, "monthly"), ign_composite(whole, "monthly")):
        assert torch.equal(found.values[0, 0 if found.days.shape[1] == 1 else 6], expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("period", ["monthly", "semi-monthly"])
def test_a_gpu_gives_what_the_cpu_gives(period: Period) -> None:
    rng = np.random.default_rng(5)
    days = [sorted(rng.integers(17800, 18600, 60).tolist()) for _ in range(4)]
    series = series_of(days, 5, holes=0.1)
    moved = Series(*(tensor.cuda() for tensor in (series.values, series.days, series.lengths)))
    for one in (composite, ign_composite):
        here, there = one(series, period), one(moved, period)
        torch.testing.assert_close(there.values.cpu(), here.values, equal_nan=True)
        assert torch.equal(there.days.cpu(), here.days)
        assert torch.equal(there.lengths.cpu(), here.lengths)
