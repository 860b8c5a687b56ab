"""Maps of many sources to one map: each projected, then averaged over the sources present."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from flairhub.models.alignment import Size, resize


class MeanFusion(nn.Module):
    """Merge maps that show the same ground, at one level of a pyramid.

    Every map has its own 1x1 projection, and the mean goes over the maps that a sample really has.
    An absent source therefore contributes nothing, whatever its placeholder holds: the result
    equals that of a call without it. With all sources present this is the usual concatenation and
    1x1 convolution, up to a constant.

    Parameters
    ----------
    channels
        Channels of every map that enters here, by its key: see `forward`.
    out_channels
        Channels of the merged map.

    References
    ----------
    Havaei et al. 2016, arXiv:1607.05194 (the mean over what is there).
    """

    def __init__(self, channels: Mapping[str, int], out_channels: int) -> None:
        super().__init__()
        self.project = nn.ModuleDict(
            {key: nn.Conv2d(n, out_channels, 1, bias=False) for key, n in channels.items()}
        )
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(
        self, maps: Mapping[str, Tensor], present: Mapping[str, Tensor], batch: int, size: Size
    ) -> Tensor:
        """Merge one level.

        Parameters
        ----------
        maps : mapping of Tensor, shape (B, channels, h, w), float32
            By key, at any resolution; those that no sample has are left out.
        present : mapping of Tensor, shape (B,), bool
            Which samples have a map, by the same keys; all where the key is left out. What stands
            in the maps of the others is never looked at.
        batch, size
            B, and height and width of the merged map.

        Returns
        -------
        Tensor, shape (B, out_channels, *size), float32
        """
        total = self.norm.weight.new_zeros(batch, self.norm.num_features, *size)
        count = total.new_zeros(batch, 1, 1, 1)
        for key, found in maps.items():
            projected = resize(self.project[key](found), size).to(total.dtype)
            if key in present:
                rows = present[key][:, None, None, None]
                total = total + torch.where(rows, projected, 0.0)
                count = count + rows
            else:
                total, count = total + projected, count + 1
        merged: Tensor = self.norm(total / count.clamp(min=1)).relu()
        return merged
