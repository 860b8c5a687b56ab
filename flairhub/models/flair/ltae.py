"""L-TAE over the true dates of series, however far a batch is padded.

References
----------
Sainte Fare Garnot and Landrieu 2020, arXiv:2007.00586 (L-TAE).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flairhub.models.ign.ltae import EXCLUDED, LTAE, date_code


class MaskedLTAE(LTAE):
    """The L-TAE of U-TAE, its parameters and their names, where padding enters no norm either."""

    def forward(self, maps: Tensor, days: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        """Attend over time.

        Parameters
        ----------
        maps : Tensor, shape (B, T, C, H, W)
            Finite everywhere.
        days : Tensor, shape (B, T)
            Days from a reference day, signed.
        true : Tensor, shape (B, T), bool
            Dates that are not padding.

        Returns
        -------
        merged : Tensor, shape (B, C, H, W)
        weights : Tensor, shape (B, heads, T, H, W)
            With sum 1 over T, 0 where padding; equal where there is nothing else.
        """
        height, width = maps.shape[-2:]
        pixels = maps.permute(0, 3, 4, 1, 2).flatten(1, 2)  # (B, P, T, C)
        pixels = norm_over_true(pixels, true, self.in_norm)
        values = F.linear(pixels, self.inconv.weight[..., 0], self.inconv.bias)
        code = date_code(days.where(true, 0), self.width // self.heads).to(values.dtype)
        values = values + code.repeat(1, 1, self.heads)[:, None]  # the same code for every head
        queries = self.attention_heads.Q  # (heads, key)
        keys = _split(self.attention_heads.fc1_k(values), self.heads)  # (B, P, T, heads, key)
        scores = (keys * queries).sum(-1) / queries.shape[1] ** 0.5
        scores = scores.masked_fill(~true[:, None, :, None], EXCLUDED)
        weights = self.attention_dropout(scores.softmax(2))  # (B, P, T, heads)
        merged = torch.einsum("bpth,bpthc->bphc", weights, _split(values, self.heads)).flatten(2)
        merged = self.out_norm(self.dropout(self.mlp(merged.flatten(0, 1))))
        return (
            merged.view(maps.shape[0], height, width, -1).permute(0, 3, 1, 2),
            weights.view(maps.shape[0], height, width, -1, self.heads).permute(0, 4, 3, 1, 2),
        )


def norm_over_true(pixels: Tensor, true: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Normalise groups of channels of each pixel over its true dates.

    Parameters
    ----------
    pixels : Tensor, shape (B, P, T, C)
    true : Tensor, shape (B, T), bool
    norm
        Whose groups, weight and bias are used.

    Returns
    -------
    Tensor, shape (B, P, T, C)
        0 where dates are padding.
    """
    inside = true[:, None, :, None, None]
    groups = _split(pixels, norm.num_groups)
    count = inside.sum((2, 4), keepdim=True).clamp(min=1) * groups.shape[-1]
    mean = groups.where(inside, 0).sum((2, 4), keepdim=True) / count
    centred = (groups - mean).where(inside, 0)
    variance = centred.square().sum((2, 4), keepdim=True) / count
    normed = (centred / (variance + norm.eps).sqrt()).flatten(3)
    return (normed * norm.weight + norm.bias).where(inside[..., 0], 0)


def _split(values: Tensor, parts: int) -> Tensor:
    """(..., C) to (..., parts, C / parts)."""
    return values.view(*values.shape[:-1], parts, -1)
