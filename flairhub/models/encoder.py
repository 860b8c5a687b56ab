"""What all encoders of the segmenter have in common."""

from __future__ import annotations

from torch import nn


class MapEncoder(nn.Module):
    """A module that turns a raster or a series into maps, finest first.

    Attributes
    ----------
    reductions : tuple of int
        Input pixels per map pixel of every map, increasing.
    channels : tuple of int
        Channels of every map.
    """

    reductions: tuple[int, ...]
    channels: tuple[int, ...]
