"""A series of small images to a pyramid of maps: a U-Net with attention over time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flairhub.models.alignment import resize
from flairhub.models.dates import DateAttention, TrueDates, merge_dates
from flairhub.models.encoder import MapEncoder

LEVELS = 3
"""Maps of the pyramid; each has half the resolution of the one before."""


class UTAE(MapEncoder):
    """U-TAE with a spatial pyramid: dates are encoded one by one, merged by attention, decoded.

    Attention is computed on the coarsest maps; its weights, resized, merge the dates of the finer
    ones. Maps of dates are normalised each by itself and padding is never touched, so a result does
    not depend on how far the batch was padded. Any size works: the maps of an odd one are rounded
    up, and all of them cover the same ground.

    Parameters
    ----------
    bands
        Channels of one date.
    channels
        Channels of every map; a multiple of `heads`.
    heads
        Heads of the attention; groups of the norms.
    max_reduction
        Coarser maps are not returned, though they are made and used; the finest always is.

    References
    ----------
    Garnot and Landrieu 2021, arXiv:2107.07933 (U-TAE); Wu and He 2018, arXiv:1803.08494 (group
    normalisation).
    """

    def __init__(
        self, bands: int, channels: int, heads: int, *, max_reduction: float = 2.0**LEVELS
    ) -> None:
        super().__init__()
        every = tuple(2**level for level in range(LEVELS))
        self.reductions = tuple(r for r in every if r <= max(1, max_reduction))
        self.channels = (channels,) * len(self.reductions)
        each_date = partial(nn.GroupNorm, heads)
        self.stem = _Convolutions(bands, channels, each_date)
        self.down = nn.ModuleList(
            _Convolutions(channels, channels, each_date) for _ in range(LEVELS - 1)
        )
        self.attention = DateAttention(channels, heads)
        self.project = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )
        self.up = nn.ModuleList(
            _Convolutions(2 * channels, channels, nn.BatchNorm2d) for _ in range(LEVELS - 1)
        )

    def forward(self, series: Tensor, days: Tensor, lengths: Tensor | None = None) -> list[Tensor]:
        """Encode a batch of series.

        ``(B, T, bands, h, w)`` to ``(B, channels[i], h / reductions[i], w / reductions[i])``,
        finest first, sides rounded up; for the arguments see `LTAE.forward`.
        """
        dates = TrueDates(lengths, *days.shape, training=self.training)
        levels = [self.stem(dates.pack(series))]
        for block in self.down:
            levels.append(block(_halve(levels[-1])))
        deepest, weights = self.attention(levels[-1], dates.pack(days), dates)
        maps = [self.project(merge_dates(dates.unpack(deepest, 0.0), weights))]
        for block, level in zip(self.up, reversed(levels[:-1]), strict=True):
            size = (level.shape[-2], level.shape[-1])
            finer = resize(weights.flatten(0, 1), size).view(*days.shape, -1, *size)
            skip = merge_dates(dates.unpack(level, 0.0), finer)
            maps.append(block(torch.cat([resize(maps[-1], size), skip], dim=1)))
        return maps[::-1][: len(self.reductions)]


class _Convolutions(nn.Module):
    """Two 3 x 3 convolutions with norms, the second added to what it gets; sizes stay."""

    def __init__(self, before: int, after: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Sequential(nn.Conv2d(width, after, 3, padding=1, bias=False), norm(after), nn.ReLU())
            for width in (before, after)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(N, before, h, w) to (N, after, h, w)."""
        maps = self.first(maps)
        result: Tensor = maps + self.second(maps)
        return result


def _halve(maps: Tensor) -> Tensor:
    """Average (N, C, h, w) over 2 x 2 pixels; odd sides are rounded up, outer edges coincide."""
    height, width = maps.shape[-2:]
    return F.adaptive_avg_pool2d(maps, (-(-height // 2), -(-width // 2)))
