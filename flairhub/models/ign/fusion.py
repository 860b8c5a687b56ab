"""Maps of many modalities to those of one.

To add a fusion, write a class that takes and gives what `ConcatFusion` does, and enter it in
`FUSIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from flairhub.models.alignment import resize

FusionMaker = Callable[[Mapping[str, Sequence[int]], str | None], nn.Module]
"""From the channels of every modality's maps and the reference, None where there is no image."""


class ConcatFusion(nn.Module):
    """At every level, concatenate what all modalities have and mix it by a 1 x 1 convolution.

    Maps meet by their place in the list, not by their resolution on the ground: the deepest map of
    a series enters at the finest level of the images. The convolution of a concatenation is the
    sum of convolutions, and these commute with resizing: each map is convolved at its own
    resolution and only the result resized.

    Parameters
    ----------
    channels
        By modality, of each of its maps in the order in which they meet.
    reference
        Modality whose sizes and channels the result has. Without any the layer is a single unused
        convolution, since weights have one.

    References
    ----------
    Garioud et al. 2025, arXiv:2506.07080 (FLAIR-HUB).
    """

    def __init__(self, channels: Mapping[str, Sequence[int]], reference: str | None) -> None:
        super().__init__()
        self.reference = reference
        self.conv_f = nn.ModuleList()
        if reference is None:
            self.conv_f.append(nn.Conv2d(1, 1, 1))
            return
        target = channels[reference]
        filled = {k: (*[n[0]] * (len(target) - len(n)), *n) for k, n in channels.items()}
        self.widths = [tuple(n[i] for n in filled.values()) for i in range(len(target))]
        for level, width in zip(self.widths, target, strict=True):
            self.conv_f.append(nn.Conv2d(sum(level), width, 1))

    def forward(self, maps: Mapping[str, Sequence[Tensor]]) -> list[Tensor]:
        """Fuse.

        Parameters
        ----------
        maps : mapping of sequences of Tensor, shapes (B, channels, h, w)
            By modality, in the order and with the channels of `channels`. Leading maps may be left
            out by all that have them; so the image itself is, which no decoder looks at.

        Returns
        -------
        list of Tensor, shapes (B, channels[reference][i], H_i, W_i)
        """
        target = maps[self.reference]  # type: ignore[index]
        fused = []
        for level in range(-len(target), 0):
            conv: Any = self.conv_f[level]
            size = (target[level].shape[-2], target[level].shape[-1])
            weights = conv.weight.split(self.widths[level], dim=1)
            total = conv.bias[:, None, None]
            for found, weight in zip(maps.values(), weights, strict=True):
                one = found[max(level, -len(found))]
                total = total + resize(F.conv2d(one, weight), size)
            fused.append(total)
        return fused


FUSIONS: dict[str, FusionMaker] = {"concat": ConcatFusion}
"""What makes the fusion of each name."""
