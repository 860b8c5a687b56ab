"""U-TAE: a series of images to one map at every level, by convolutions and attention over time.

References
----------
Sainte Fare Garnot and Landrieu 2021, arXiv:2107.07933 (U-TAE); in the form of FLAIR-HUB (Garioud et
al. 2025, arXiv:2506.07080), which never halves the resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flairhub.models.ign.ltae import LTAE

Norm = Callable[[int], nn.Module]


def _groups_of(channels: int) -> nn.Module:
    return nn.GroupNorm(4, channels)


class ConvLayer(nn.Module):
    """Steps of 3 x 3 convolution with reflected edges, norm and ReLU; sizes stay.

    Parameters
    ----------
    widths
        Channels before, between and after the steps.
    norm
        Makes the norm of some channels.
    """

    def __init__(self, widths: Sequence[int], norm: Norm) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            conv = nn.Conv2d(before, after, 3, padding=1, padding_mode="reflect")
            layers += [conv, norm(after), nn.ReLU()]
        self.conv = nn.Sequential(*layers)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, widths[0], H, W) to (N, widths[-1], H, W)."""
        result: Tensor = self.conv(maps)
        return result


class ConvBlock(nn.Module):
    """A `ConvLayer` under the name that the weights know."""

    def __init__(self, widths: Sequence[int], norm: Norm) -> None:
        super().__init__()
        self.conv = ConvLayer(widths, norm)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, widths[0], H, W) to (N, widths[-1], H, W)."""
        result: Tensor = self.conv(maps)
        return result


class DownBlock(nn.Module):
    """Three convolutions, the last added to what it gets."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.down = ConvLayer((before, before), _groups_of)
        self.conv1 = ConvLayer((before, after), _groups_of)
        self.conv2 = ConvLayer((after, after), _groups_of)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, before, H, W) to (N, after, H, W)."""
        maps = self.conv1(self.down(maps))
        result: Tensor = maps + self.conv2(maps)
        return result


class UpBlock(nn.Module):
    """Bring a deeper map and the encoder's map of this level together.

    Parameters
    ----------
    before, after
        Channels of the deeper map and of the result.
    skip
        Channels of the encoder's map.
    """

    def __init__(self, before: int, after: int, skip: int) -> None:
        super().__init__()
        self.up = nn.Sequential(
            nn.ConvTranspose2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()
        )
        self.skip_conv = nn.Sequential(nn.Conv2d(skip, skip, 1), nn.BatchNorm2d(skip), nn.ReLU())
        self.conv1 = ConvLayer((after + skip, after), nn.BatchNorm2d)
        self.conv2 = ConvLayer((after, after), nn.BatchNorm2d)

    def forward(self, deeper: Tensor, skip: Tensor) -> Tensor:
        """(B, before, H, W) and (B, skip, H, W) to (B, after, H, W)."""
        maps = self.conv1(torch.cat([self.up(deeper), self.skip_conv(skip)], dim=1))
        result: Tensor = maps + self.conv2(maps)
        return result


class SeriesMaps(NamedTuple):
    """What `UTAE` gives.

    Attributes
    ----------
    maps : tuple of Tensor, shapes (B, C_i, H, W)
        Deepest first.
    logits : Tensor, shape (B, classes, H, W), or None where not asked for
        Never below 0.
    """

    maps: tuple[Tensor, ...]
    logits: Tensor | None


class UTAE(nn.Module):
    """The network of one series.

    Parameters
    ----------
    bands
        Channels of a date.
    widths
        Of the encoder's levels.
    decoder_widths
        Of the decoder's; the last, which is the deepest, is that of the encoder.
    out_widths
        Of the layers after the decoder, the last being classes. All end in ReLU, the last too.
    """

    def __init__(
        self,
        bands: int,
        widths: Sequence[int],
        decoder_widths: Sequence[int],
        out_widths: Sequence[int],
    ) -> None:
        super().__init__()
        self.checkpointing = False
        self.in_conv = ConvBlock((bands, widths[0], widths[0]), _groups_of)
        self.down_blocks = nn.ModuleList(DownBlock(*pair) for pair in pairwise(widths))
        self.temporal_encoder = LTAE(widths[-1])
        self.up_blocks = nn.ModuleList(
            UpBlock(before, after, skip)
            for (before, after), skip in zip(
                pairwise(reversed(decoder_widths)), reversed(widths[:-1]), strict=True
            )
        )
        self.out_conv = ConvBlock((decoder_widths[0], *out_widths), nn.BatchNorm2d)

    def forward(self, series: Tensor, days: Tensor, *, logits: bool = True) -> SeriesMaps:
        """Encode a series.

        Parameters
        ----------
        series : Tensor, shape (B, T, bands, H, W)
            A date that is 0 in every pixel and channel counts as padding.
        days : Tensor, shape (B, T)
            Days from a reference day, signed; 0 where padding.
        logits
            Whether the layers behind the last map are computed too.

        Returns
        -------
        SeriesMaps
        """
        excluded = (series == 0).flatten(2).all(2)
        levels = self._encode(series, excluded)
        merged, weights = self.temporal_encoder(levels[-1], days, excluded)
        maps = [merged]
        for block, level in zip(self.up_blocks, reversed(levels[:-1]), strict=True):
            maps.append(self._run(block, maps[-1], _merge(level, weights)))
        return SeriesMaps(tuple(maps), self._run(self.out_conv, maps[-1]) if logits else None)

    def _encode(self, series: Tensor, excluded: Tensor) -> list[Tensor]:
        """Return the maps of every date at every level, (B, T, C, H, W), finest first."""
        batch, dates = excluded.shape
        frames = series.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        kept = None
        if not torch.compiler.is_compiling() and bool(excluded.any()):
            kept = (~excluded).flatten().nonzero()[:, 0]  # padding costs nothing
            frames = frames.index_select(0, kept)
        levels = []
        for block in (self.in_conv, *self.down_blocks):
            # A date that is blank at one level is blank at all that follow; so is padding.
            blank = (frames == 0).flatten(1).all(1)
            frames = self._run(block, frames)
            # looking costs a GPU more than a mask does, and a graph cannot
            traced = torch.compiler.is_compiling() or frames.device.type != "cpu"
            if traced or bool(blank.any()):
                frames = frames.masked_fill(blank[:, None, None, None], 0)
            whole = frames
            if kept is not None:
                shape = (batch * dates, *frames.shape[1:])
                whole = frames.new_zeros(shape).index_copy(0, kept, frames)
            levels.append(whole.view(batch, dates, *frames.shape[1:]))
        return levels

    def _run(self, block: nn.Module, *maps: Tensor) -> Tensor:
        if self.checkpointing and self.training:
            found: Tensor = checkpoint(block, *maps, use_reentrant=False)
        else:
            found = block(*maps)
        return found


def _merge(level: Tensor, weights: Tensor) -> Tensor:
    """Sum over dates, every group of channels weighted by its head's attention.

    ``(B, T, C, H, W)`` and ``(B, heads, T, H, W)`` to ``(B, C, H, W)``. Padding is 0 in `level`.
    """
    groups = level.view(*level.shape[:2], weights.shape[1], -1, *level.shape[3:])
    return torch.einsum("btgchw,bgthw->bgchw", groups, weights).flatten(1, 2)
