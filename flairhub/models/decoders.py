"""Pyramid to one map at its finest level: U-Net, UPerNet, or two convolutions for one level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn

MIN_CHANNELS = 16
"""Channels that the finest level of a U-Net has at least."""


class Decoder(nn.Module):
    """What makes one map of a pyramid; it is built with the pyramid's channels and a width.

    Attributes
    ----------
    first_reduction : int
        Input pixels of the finest raster per pixel of the finest map that it wants.
    out_channels : int
        Channels of the result.
    """

    first_reduction: ClassVar[int] = 2
    out_channels: int


class Unet(Decoder):
    """U-Net of segmentation-models-pytorch.

    It stops at the pyramid's finest level, half the raster's resolution, and leaves the rest to
    the bilinear resize behind the head: full-size convolutions would cost more than all others
    together.

    Parameters
    ----------
    pyramid_channels
        Channels of every level, finest first; two levels or more.
    channels
        Width of the coarsest block, halved at every finer one down to 16.

    References
    ----------
    Ronneberger et al. 2015, arXiv:1505.04597 (U-Net); Iakubovskii 2019, Segmentation Models
    PyTorch.
    """

    def __init__(self, pyramid_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        blocks = len(pyramid_channels) - 1
        widths = [max(MIN_CHANNELS, channels >> i) for i in range(blocks)]
        self.block = UnetDecoder([0, *pyramid_channels], widths, n_blocks=blocks)
        self.out_channels = widths[-1]

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Decode.

        Parameters
        ----------
        pyramid : sequence of Tensor, shapes (B, pyramid_channels[i], h_i, w_i), float32
            Finest first.

        Returns
        -------
        Tensor, shape (B, out_channels, h_0, w_0), float32
        """
        # The decoder expects a map at full size first, and never looks into it.
        decoded: Tensor = self.block([pyramid[0], *pyramid])
        return decoded


class UPerNet(Decoder):
    """UPerNet of segmentation-models-pytorch, from a quarter of the raster's resolution.

    Parameters
    ----------
    pyramid_channels
        Channels of every level, finest first; two levels or more.
    channels
        Width everywhere.

    References
    ----------
    Xiao et al. 2018, arXiv:1807.10221 (UPerNet); Iakubovskii 2019, Segmentation Models PyTorch.
    """

    first_reduction = 4

    def __init__(self, pyramid_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        depth = max(3, len(pyramid_channels) + 1)
        self.block = UPerNetDecoder([0, 0, *pyramid_channels], depth, channels)
        self.out_channels = channels

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """See `Unet.forward`."""
        # The decoder expects maps at full and half size first, and never looks into them.
        decoded: Tensor = self.block([pyramid[0], pyramid[0], *pyramid])
        return decoded


class Convolutions(Decoder):
    """Two 3 x 3 convolutions, for pyramids of one level, which others do not take.

    Parameters
    ----------
    pyramid_channels
        Channels of the level.
    channels
        Width.
    """

    def __init__(self, pyramid_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (*pyramid_channels, channels):
            layers += [
                nn.Conv2d(width, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
        self.block = nn.Sequential(*layers)
        self.out_channels = channels

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """See `Unet.forward`."""
        decoded: Tensor = self.block(pyramid[0])
        return decoded
