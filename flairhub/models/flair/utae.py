"""U-TAE as its authors made it: halving the resolution at each level, attention at the coarsest.

Dates that are padding are told by lengths, never by their values, and enter nothing: no norm, no
attention, no sum. FLAIR-HUB's own, `flairhub.models.ign.utae`, keeps the resolution.

References
----------
Sainte Fare Garnot and Landrieu 2021, arXiv:2107.07933 (U-TAE); 2020, arXiv:2007.00586 (L-TAE).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from flairhub.errors import GridError
from flairhub.models.alignment import resize
from flairhub.models.flair.ltae import MaskedLTAE
from flairhub.models.ign.utae import ConvBlock, DownBlock, UpBlock

WIDTHS = (64, 64, 128, 128)
"""Of the levels of encoder and decoder, finest first (IGNF/FLAIR-2, flair-2-config.yml)."""

GROUPS = 4
"""Of the encoder's norms."""


class HalvingBlock(DownBlock):
    """A `DownBlock` whose first convolution halves height and width."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after)
        self.down.conv[0] = nn.Conv2d(before, before, 4, 2, 1, padding_mode="reflect")


class DoublingBlock(UpBlock):
    """An `UpBlock` whose first convolution doubles height and width."""

    def __init__(self, before: int, after: int, skip: int) -> None:
        super().__init__(before, after, skip)
        self.up[0] = nn.ConvTranspose2d(before, after, 4, 2, 1)


class StridedUtae(nn.Module):
    """From a series of images to one map of their size.

    The layers that IGN's network has behind this map are left out: nothing uses what they give. The
    other parameters have the names of IGN's code.

    Parameters
    ----------
    bands
        Channels of a date.
    widths
        Of the levels, finest first; the map has the first of them.
    """

    def __init__(self, bands: int, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.channels = widths[0]
        self.in_conv = ConvBlock(
            (bands, widths[0], widths[0]), lambda channels: nn.GroupNorm(GROUPS, channels)
        )
        self.down_blocks = nn.ModuleList(HalvingBlock(*pair) for pair in pairwise(widths))
        self.temporal_encoder = MaskedLTAE(widths[-1])
        self.up_blocks = nn.ModuleList(
            DoublingBlock(before, after, after) for before, after in pairwise(reversed(widths))
        )

    def forward(self, series: Tensor, days: Tensor, lengths: Tensor) -> Tensor:
        """Encode a series.

        Parameters
        ----------
        series : Tensor, shape (B, T, bands, H, W)
            Sides are multiples of 8 pixels, 16 at least.
        days : Tensor, shape (B, T)
            Days from a reference day, signed.
        lengths : Tensor, shape (B,), integers
            Number of true dates; padding is at the end. What stands there is not looked at.

        Returns
        -------
        Tensor, shape (B, channels, H, W)

        Raises
        ------
        GridError
            If height or width cannot be halved as often as there are levels.
        """
        step = 2 ** len(self.down_blocks)
        if any(side % step or side < 2 * step for side in series.shape[-2:]):
            msg = (
                f"Series must have sides that are multiples of {step} pixels, {2 * step} at least; "
                f"they are {' x '.join(map(str, series.shape[-2:]))}."
            )
            raise GridError(msg)
        true = torch.arange(series.shape[1], device=series.device) < lengths[:, None]
        levels = self._encode(series, true)
        maps, weights = self.temporal_encoder(levels[-1], days, true)
        for block, level in zip(self.up_blocks, reversed(levels[:-1]), strict=True):
            maps = block(maps, _merge(level, weights))
        result: Tensor = maps
        return result

    def _encode(self, series: Tensor, true: Tensor) -> list[Tensor]:
        """Return maps of all dates, (B, T, C, h, w) a level, finest first; padding is 0."""
        inside = true[:, :, None, None, None]
        # shapes must not depend on lengths then
        compiling = torch.compiler.is_compiling() or series.is_meta
        frames = series.where(inside, 0).flatten(0, 1) if compiling else series[true]
        levels = []
        for block in (self.in_conv, *self.down_blocks):
            frames = block(frames)
            if compiling:
                whole = frames.view(*true.shape, *frames.shape[1:]).where(inside, 0)
            else:
                whole = frames.new_zeros(*true.shape, *frames.shape[1:])
                whole[true] = frames
            levels.append(whole)
        return levels


def _merge(level: Tensor, weights: Tensor) -> Tensor:
    """Sum over dates, each group of channels weighted by its head's attention.

    ``(B, T, C, h, w)`` and ``(B, heads, T, h', w')`` to ``(B, C, h, w)``; weights are interpolated.
    """
    fine = resize(weights.flatten(1, 2), (level.shape[-2], level.shape[-1]))
    batch, dates, _, height, width = level.shape
    groups = level.view(batch, dates, weights.shape[1], -1, height, width)
    fine = fine.view(batch, -1, dates, height, width)
    return torch.einsum("btgchw,bgthw->bgchw", groups, fine).flatten(1, 2)
