"""Pyramid to one map at its finest level: U-Net, UPerNet, or two convolutions for one level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn

MIN_CHANNELS = 16
"""Channels that the finest level of a U-Net has at least."""


class Decoder(nn.Module):
    """Decode a pyramid with blocks of segmentation-models-pytorch.

    The U-Net stops at the pyramid's finest level, half or a quarter of the raster's resolution,
    and leaves the rest to the bilinear resize behind the head: full-size convolutions would cost
    more than all others together. A pyramid of one level (series alone) gets two convolutions;
    UPerNet needs two levels, and falls back to them too.

    Parameters
    ----------
    kind
        ``unet`` or ``upernet``.
    pyramid_channels
        Channels of every level, finest first.
    channels
        Width: of UPerNet everywhere, of the U-Net at its coarsest block, halved at every finer
        one down to 16.

    Attributes
    ----------
    out_channels : int
        Channels of the result.

    References
    ----------
    Ronneberger et al. 2015, arXiv:1505.04597 (U-Net); Xiao et al. 2018, arXiv:1807.10221 (UPerNet);
    Iakubovskii 2019, Segmentation Models PyTorch.
    """

    def __init__(
        self, kind: Literal["unet", "upernet"], pyramid_channels: Sequence[int], channels: int
    ) -> None:
        super().__init__()
        levels = len(pyramid_channels)
        # Both decoders expect maps at full (and half) size first, and never look into them.
        self._unused = 2 if kind == "upernet" and levels > 1 else 1
        encoder_channels = [0] * self._unused + list(pyramid_channels)
        self.out_channels = channels
        if levels == 1:
            self.block: nn.Module = _convolutions(pyramid_channels[0], channels)
        elif kind == "upernet":
            self.block = UPerNetDecoder(encoder_channels, max(3, levels + 1), channels)
        else:
            widths = [max(MIN_CHANNELS, channels >> i) for i in range(levels - 1)]
            self.block = UnetDecoder(encoder_channels, widths, n_blocks=levels - 1)
            self.out_channels = widths[-1]
        self._single = levels == 1

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
        if self._single:
            decoded: Tensor = self.block(pyramid[0])
        else:
            decoded = self.block([pyramid[0]] * self._unused + list(pyramid))
        return decoded


def _convolutions(in_channels: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (in_channels, channels):
        layers += [
            nn.Conv2d(width, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
