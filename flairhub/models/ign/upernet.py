"""UPerNet as segmentation-models-pytorch 0.4.0 has it, which IGN's weights were trained with.

References
----------
Xiao et al. 2018, arXiv:1807.10221 (UPerNet); Zhao et al. 2017, arXiv:1612.01105 (pyramid pooling);
Lin et al. 2017, arXiv:1612.03144 (feature pyramid). The form is described in ``docs/models.md``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flairhub.models.alignment import Size, resize
from flairhub.models.ign.resampling import convolve_resized, halve_doubled

WIDTH = 256
"""Channels of the feature pyramid."""

OUT_WIDTH = 64
"""Channels of the result."""

POOLS = (1, 2, 3, 6)
"""Sides of the pooled maps."""


class ConvNormReLU(nn.Sequential):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, before: int, after: int, side: int = 1) -> None:
        super().__init__(
            nn.Conv2d(before, after, side, padding=side // 2, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        )


class PyramidPooling(nn.Module):
    """Add to a map what it is on average over the whole image and its parts."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(s), ConvNormReLU(channels, channels // len(POOLS)))
            for s in POOLS
        )
        self.out_conv = ConvNormReLU(2 * channels, WIDTH)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, 256, H, W)."""
        size = (maps.shape[-2], maps.shape[-1])
        pooled = [resize(block(maps), size) for block in self.blocks]
        result: Tensor = self.out_conv(torch.cat([maps, *pooled], dim=1))
        return result


class FpnStage(nn.Module):
    """Add a finer map to the coarser ones."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.skip_conv = ConvNormReLU(channels, WIDTH)

    def forward(self, coarser: Tensor, finer: Tensor) -> Tensor:
        """(B, 256, h, w) and (B, channels, H, W) to (B, 256, H, W)."""
        skip: Tensor = self.skip_conv(finer)
        return resize(coarser, _side(finer)) + skip


class UPerNetDecoder(nn.Module):
    """Pyramid pooling, feature pyramid, and one convolution over all levels at 1/4.

    Parameters
    ----------
    channels
        Of the image encoder's maps at 1/2, 1/4, 1/8, 1/16 and 1/32; 0 where there is no such map.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        *finer, last = channels
        self.psp = PyramidPooling(last)
        self.fpn_stages = nn.ModuleList(
            FpnStage(n) if n else nn.Identity() for n in reversed(finer)
        )
        # Weights hold a stage for the image itself, made for one channel, that nothing uses.
        self.fpn_stages.append(FpnStage(1))
        self.fpn_bottleneck = ConvNormReLU(len(channels) * WIDTH, OUT_WIDTH, 3)
        self.apply(_initialise)

    def forward(self, maps: Sequence[Tensor], image: Size) -> Tensor:
        """Decode a pyramid.

        Parameters
        ----------
        maps : sequence of Tensor, shapes (B, channels[i], h_i, w_i)
            Finest first; the map at 1/2 is left out where there is none.
        image
            Height and width of the image, pixels.

        Returns
        -------
        Tensor, shape (B, 64, image[0] // 4, image[1] // 4)
        """
        size = (image[0] // 4, image[1] // 4)
        levels = [self.psp(maps[-1])]
        for stage, finer in zip(self.fpn_stages, reversed(maps[:-1]), strict=False):
            levels.append(stage(levels[-1], finer))
        if len(maps) < len(self.fpn_stages):  # for want of a map at 1/2, the one at 1/4 doubled
            half = (image[0] // 2, image[1] // 2)
            twice = (2 * size[0], 2 * size[1]) == half and size == _side(levels[-1])
            levels.append(halve_doubled(levels[-1]) if twice else resize(levels[-1], half))
        conv, norm, relu = (self.fpn_bottleneck[i] for i in range(3))
        # the convolution of all levels, stacked at one size, is the sum of theirs
        weights = torch.split(conv.get_parameter("weight"), WIDTH, dim=1)
        total = sum(_convolve(*pair, size) for pair in zip(levels, weights, strict=True))
        result: Tensor = relu(norm(total))
        return result


def _convolve(maps: Tensor, weight: Tensor, size: Size) -> Tensor:
    """Resize and convolve, the cheaper way round: small maps before they are resized.

    ``(B, 256, h, w)`` and weights ``(64, 256, 3, 3)`` to ``(B, 64, *size)``.
    """
    if maps.shape[-2] < size[0] and maps.shape[-1] < size[1]:
        return convolve_resized(maps, weight, size)
    maps = resize(maps, size)
    if maps.requires_grad and maps.device.type == "cpu":
        maps = maps.contiguous()  # else the gradient of the weights takes four times as long
    return F.conv2d(maps, weight, padding=1)


def _side(maps: Tensor) -> Size:
    return maps.shape[-2], maps.shape[-1]


class UPerNet(nn.Module):
    """The decoder and a head that brings classes from 1/4 to the image's size.

    Parameters
    ----------
    channels
        See `UPerNetDecoder`.
    classes
        Number of classes.
    """

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.decoder = UPerNetDecoder(channels)
        self.segmentation_head = nn.Sequential(nn.Conv2d(OUT_WIDTH, classes, 1))
        self.segmentation_head.apply(_initialise_head)

    def forward(self, maps: Sequence[Tensor], image: Size) -> Tensor:
        """See `UPerNetDecoder.forward`; returns (B, classes, image[0] // 4 * 4, ...)."""
        logits = self.segmentation_head(self.decoder(maps, image))
        return F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=True)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_uniform_(module.weight, mode="fan_in", nonlinearity="relu")


def _initialise_head(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
