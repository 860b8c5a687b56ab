"""A series of small images and their dates to one map: attention over time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

YEAR_DAYS = 365.2425
"""Mean length of a Gregorian year, days."""

HARMONICS = 8
"""Sines and cosines of the year; the shortest has a period of about 46 days."""


class SeriesEncoder(nn.Module):
    """Embed every date by convolutions, tell it the season, and let attention choose among dates.

    Lightweight temporal attention with one learned query a head, whose product with a linear key
    is one linear score a head; the values of a head are its share of the channels. Only true dates
    are ever touched: padding is known by its position past ``lengths``, not by its value, so a
    result does not depend on how far the batch was padded.

    Parameters
    ----------
    bands
        Channels of one date.
    channels
        Channels of the resulting map; a multiple of `heads`.
    heads
        Heads of the attention.

    References
    ----------
    Garnot and Landrieu 2020, arXiv:2007.00586 (L-TAE); 2021, arXiv:2107.07933 (U-TAE).
    """

    def __init__(self, bands: int, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Sequential(
            nn.Conv2d(bands, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.season = nn.Linear(2 * HARMONICS, channels)
        self.score = nn.Conv2d(channels, heads, 1, bias=False)
        self.project = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, series: Tensor, days: Tensor, lengths: Tensor) -> Tensor:
        """Encode a batch of series.

        Parameters
        ----------
        series : Tensor, shape (B, T, bands, h, w), float32
            Padded at the end of T.
        days : Tensor, shape (B, T), int64
            Days since 1970-01-01; anything where padded.
        lengths : Tensor, shape (B,), int64
            True number of dates, at least 1.

        Returns
        -------
        Tensor, shape (B, channels, h, w), float32
        """
        true = torch.arange(series.shape[1], device=series.device) < lengths[:, None]
        dates = self.embed(series[true])
        dates = dates + self.season(season_code(days[true]).to(dates.dtype))[..., None, None]
        scores = _unpack(self.score(dates), true, -torch.inf)
        weights = scores.softmax(dim=1)[:, :, :, None]
        values = _unpack(dates.unflatten(1, (self.heads, -1)), true, 0.0)
        mixed: Tensor = self.project((weights * values).sum(dim=1).flatten(1, 2))
        return mixed


def season_code(days: Tensor) -> Tensor:
    """Return sines and cosines of the time of year, which runs on smoothly over New Year.

    Parameters
    ----------
    days : Tensor, shape (N,), int64
        Days since 1970-01-01.

    Returns
    -------
    Tensor, shape (N, 2 * HARMONICS), float32
    """
    phase = (days.double() % YEAR_DAYS) / YEAR_DAYS * (2 * math.pi)
    angles = phase[:, None] * torch.arange(1, HARMONICS + 1, device=days.device)
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def _unpack(dates: Tensor, true: Tensor, fill: float) -> Tensor:
    """Put true dates (N, ...) in their places of (B, T, ...), `fill` in all others."""
    full = dates.new_full((*true.shape, *dates.shape[1:]), fill)
    full[true] = dates
    return full
