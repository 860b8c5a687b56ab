"""Dates of a padded batch of series: which are true, their season, and attention over them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

YEAR_DAYS = 365.2425
"""Mean length of a Gregorian year, days."""

HARMONICS = 8
"""Sines and cosines of the year; the shortest has a period of about 46 days."""


class TrueDates:
    """The way between a padded batch (B, T, ...) and its true dates (N, ...).

    Padding is known by its position past the lengths, never by its value. It is left out of what
    is computed; only a compiled network in evaluation computes it too and then ignores it, since
    shapes that depend on data would break its graph.

    Parameters
    ----------
    lengths : Tensor, shape (B,), int64, or None
        True number of dates; all are true where None.
    batch, dates
        B and T.
    training
        Whether statistics over the dates are taken, in which padding must not count.
    """

    def __init__(self, lengths: Tensor | None, batch: int, dates: int, *, training: bool) -> None:
        self.shape = (batch, dates)
        self.true: Tensor | None = None
        if lengths is not None:
            self.true = torch.arange(dates, device=lengths.device) < lengths[:, None]
        self.dense = self.true is None or computes_all(self.true, training)

    def pack(self, padded: Tensor) -> Tensor:
        """Return the true dates (N, ...) of (B, T, ...)."""
        if self.true is None:
            return padded.flatten(0, 1)
        if self.dense:
            return padded.masked_fill(~_like(self.true, padded), 0).flatten(0, 1)
        return padded[self.true]

    def unpack(self, dates: Tensor, fill: float) -> Tensor:
        """Put true dates (N, ...) in their places of (B, T, ...), `fill` in all others."""
        if self.dense:
            full: Tensor = dates.unflatten(0, self.shape)  # type: ignore[no-untyped-call]
            return full if self.true is None else full.masked_fill(~_like(self.true, full), fill)
        full = dates.new_full((*self.shape, *dates.shape[1:]), fill)
        full[self.true] = dates
        return full


def computes_all(like: Tensor, training: bool) -> bool:
    """Return whether absent samples and dates are computed too, and ignored afterwards.

    That is what a compiled network does, which wants shapes that depend on no data, and one on the
    device ``meta``, which has none. Statistics of batch normalisation would see them, so it is done
    in evaluation only.
    """
    return (torch.compiler.is_compiling() or like.is_meta) and not training


def _like(mask: Tensor, values: Tensor) -> Tensor:
    return mask.reshape(*mask.shape, *[1] * (values.dim() - 2))


class DateAttention(nn.Module):
    """Tell every date its season, and let learned queries choose among dates at every pixel.

    One query a head, the same for every input: its product with a linear key is one linear score a
    head. The values of a head are its share of the channels (`merge_dates`).

    Parameters
    ----------
    channels
        Of the maps; a multiple of `heads`.
    heads
        Heads of the attention.

    References
    ----------
    Garnot and Landrieu 2020, arXiv:2007.00586 (L-TAE).
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.season = nn.Linear(2 * HARMONICS, channels, bias=False)  # norms follow
        self.score = nn.Conv2d(channels, heads, 1, bias=False)

    def forward(self, maps: Tensor, days: Tensor, dates: TrueDates) -> tuple[Tensor, Tensor]:
        """Weigh dates.

        Parameters
        ----------
        maps : Tensor, shape (N, channels, h, w)
            Of the true dates.
        days : Tensor, shape (N,), int64
            Days since 1970-01-01.
        dates
            Where the true dates belong.

        Returns
        -------
        maps : Tensor, shape (N, channels, h, w)
            The season added.
        weights : Tensor, shape (B, T, heads, h, w)
            Their sum over T is 1; 0 where padded.
        """
        maps = maps + self.season(season_code(days).to(maps.dtype))[..., None, None]
        return maps, dates.unpack(self.score(maps), -torch.inf).softmax(dim=1)


def merge_dates(maps: Tensor, weights: Tensor) -> Tensor:
    """Sum over dates, every group of channels weighted by its head.

    ``(B, T, C, h, w)``, 0 where padded, and ``(B, T, heads, h, w)`` to ``(B, C, h, w)``.
    """
    values = maps.unflatten(2, (weights.shape[2], -1))  # type: ignore[no-untyped-call]
    merged: Tensor = (weights[:, :, :, None] * values).sum(dim=1).flatten(1, 2)
    return merged


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
