"""The two ways in which U-T&T brings the map of a series into the maps of an image.

Sizes of layers are those of IGN's code (IGNF/FLAIR-2, src/backbones/fusion_utils.py).

References
----------
Garioud et al. 2023, arXiv:2310.13336 (FLAIR#2).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from flairhub.models.alignment import Size, resize

DROPOUT = 0.3


def crop_middle(maps: Tensor, size: Size) -> Tensor:
    """Return the middle of (..., H, W), or all of it where that is smaller: (..., *size)."""
    for axis, wanted in ((-2, size[0]), (-1, size[1])):
        length = min(wanted, maps.shape[axis])
        maps = maps.narrow(axis, (maps.shape[axis] - length) // 2, length)
    return maps


class CroppedPath(nn.Module):
    """What the series tells of the image's own ground: pixel by pixel.

    Parameters
    ----------
    before
        Channels of the series' map.
    channels
        Of the image's maps.
    """

    def __init__(self, before: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.conv_list = nn.ModuleList(nn.Conv2d(before, after, 1) for after in channels)

    def forward(self, cropped: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
        """(B, before, h, w), on the image's ground alone, to (B, channels[i], *sizes[i])."""
        return [
            resize(conv(cropped), size) for conv, size in zip(self.conv_list, sizes, strict=True)
        ]


class CollapsedPath(nn.Module):
    """What the series tells of the surroundings: their mean, the same in every pixel.

    Parameters
    ----------
    before, channels
        As of `CroppedPath`.
    """

    def __init__(self, before: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.mlps = nn.ModuleList(_mlp(before, after) for after in channels)

    def forward(self, whole: Tensor) -> list[Tensor]:
        """(B, before, H, W), with its surroundings, to (B, channels[i], 1, 1).

        Of each sample for itself; IGN's code takes those of the first of the batch for all.
        """
        mean = whole.mean((-2, -1))
        return [mlp(mean)[:, :, None, None] for mlp in self.mlps]


def _mlp(before: int, after: int) -> nn.Sequential:
    """Return three layers whose widths go evenly from `before` to `after`, or by way of twice."""
    step = int(abs(before - after) / 3) * (1 if after > before else -1)
    first, second = (
        (2 * before, 2 * before) if before == after else (before + step, before + 2 * step)
    )
    layers: list[nn.Module] = []
    for wide, narrow in ((before, first), (first, second)):
        layers += [nn.Linear(wide, narrow), nn.Dropout(DROPOUT), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(second, after))
