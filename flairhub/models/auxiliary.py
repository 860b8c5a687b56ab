"""Scores from the maps of one modality alone, so that its encoder learns from labels directly."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flairhub.models.alignment import resize


class AuxiliaryHead(nn.Module):
    """Classify every map of a modality by itself and add the scores up at the finest.

    Parameters
    ----------
    channels
        Of the modality's maps, finest first.
    classes
        Number of classes.

    References
    ----------
    Long et al. 2015, arXiv:1411.4038 (FCN); Lee et al. 2015, arXiv:1409.5185 (deep supervision).
    """

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        # one bias is enough for a sum
        self.classify = nn.ModuleList(
            nn.Conv2d(width, classes, 1, bias=level == 0) for level, width in enumerate(channels)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(B, channels[i], h_i, w_i), finest first, to (B, classes, h_0, w_0)."""
        size = (maps[0].shape[-2], maps[0].shape[-1])
        scores = [resize(conv(one), size) for conv, one in zip(self.classify, maps, strict=True)]
        return torch.stack(scores).sum(dim=0)
