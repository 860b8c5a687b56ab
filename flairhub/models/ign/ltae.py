"""Lightweight temporal attention: a series of vectors to one, and how much each date counted.

References
----------
Sainte Fare Garnot and Landrieu 2020, arXiv:2007.00586 (L-TAE).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

PERIOD = 1000.0
"""Longest wavelength of the code of dates is 2 pi times this, days."""

EXCLUDED = -1000.0
"""Score of dates that are padding."""


class MasterQueries(nn.Module):
    """Attention whose queries are learned and the same for every input, one a head.

    Parameters
    ----------
    heads
        Heads.
    key_width
        Width of queries and keys.
    width
        Width of the values, all heads together.
    """

    def __init__(self, heads: int, key_width: int, width: int) -> None:
        super().__init__()
        self.Q = nn.Parameter(torch.empty(heads, key_width))
        self.fc1_k = nn.Linear(width, heads * key_width)
        for weight in (self.Q, self.fc1_k.weight):
            nn.init.normal_(weight, std=(2 / key_width) ** 0.5)

    def directions(self) -> tuple[Tensor, Tensor]:
        """Return what scores are made of a value with: a vector a head, and a constant.

        The score of a value is the product of its key, which is linear in it, with the query.

        Returns
        -------
        vectors : Tensor, shape (heads, width)
        constants : Tensor, shape (heads,)
        """
        scaled = self.Q / self.Q.shape[1] ** 0.5
        weight = self.fc1_k.weight.unflatten(0, self.Q.shape)  # type: ignore[no-untyped-call]
        bias = self.fc1_k.bias.view(self.Q.shape)
        return torch.einsum("hk,hkc->hc", scaled, weight), (scaled * bias).sum(1)


class LTAE(nn.Module):
    """Temporal attention at every pixel.

    Parameters
    ----------
    channels
        Of the maps.
    heads
        Heads of the attention; groups of both norms.
    key_width
        Width of queries and keys.
    width
        Width within.
    """

    def __init__(
        self, channels: int, heads: int = 16, key_width: int = 4, width: int = 256
    ) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.in_norm = nn.GroupNorm(heads, channels)
        self.inconv = nn.Conv1d(channels, width, 1)
        self.attention_heads = MasterQueries(heads, key_width, width)
        self.attention_dropout = nn.Dropout(0.1)
        self.mlp = nn.Sequential(nn.Linear(width, channels), nn.BatchNorm1d(channels), nn.ReLU())
        self.dropout = nn.Dropout(0.2)
        self.out_norm = nn.GroupNorm(heads, channels)

    def forward(self, maps: Tensor, days: Tensor, excluded: Tensor) -> tuple[Tensor, Tensor]:
        """Attend over time.

        Parameters
        ----------
        maps : Tensor, shape (B, T, C, H, W)
            Zero where dates are padding. The first norm runs over all of them, padding too, as the
            weights were trained: its result depends on how far a batch is padded.
        days : Tensor, shape (B, T)
            Days from a reference day, signed; 0 where padding.
        excluded : Tensor, shape (B, T), bool
            Dates that are padding.

        Returns
        -------
        merged : Tensor, shape (B, C, H, W)
        weights : Tensor, shape (B, heads, T, H, W)
        """
        batch, dates, channels, height, width = maps.shape
        pixels = maps.permute(0, 3, 4, 1, 2).flatten(1, 2)  # (B, P, T, C)
        pixels = norm_over_dates(pixels, self.in_norm)
        # A value is W x + b + code. Neither scores nor sums over dates need the values themselves.
        weight, bias = self.inconv.weight[..., 0], self.inconv.get_parameter("bias")
        # (B, T, c), the same for every head
        code = date_code(days, self.width // self.heads).to(weight.dtype)
        vectors, constants = self.attention_heads.directions()
        of_dates = (code.repeat(1, 1, self.heads) + bias) @ vectors.T + constants  # (B, T, heads)
        scores = pixels @ (vectors @ weight).T + of_dates[:, None]
        scores = scores.masked_fill(excluded[:, None, :, None], EXCLUDED)
        weights = self.attention_dropout(scores.softmax(2).transpose(2, 3))  # (B, P, heads, T)
        summed = weights @ pixels  # (B, P, heads, C)
        chunks = weight.view(self.heads, -1, channels)
        merged = torch.einsum("bphx,hcx->bphc", summed, chunks) + weights @ code[:, None]
        merged = merged + weights.sum(-1, keepdim=True) * bias.view(self.heads, -1)
        merged = self.out_norm(self.dropout(self.mlp(merged.flatten(0, 1).flatten(1))))
        return (
            merged.view(batch, height, width, channels).permute(0, 3, 1, 2),
            weights.view(batch, height, width, self.heads, dates).permute(0, 3, 4, 1, 2),
        )


def norm_over_dates(pixels: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Normalise groups of channels over all dates of a pixel.

    Parameters
    ----------
    pixels : Tensor, shape (B, P, T, C)
    norm
        Whose groups, weight and bias are used.

    Returns
    -------
    Tensor, shape (B, P, T, C)
    """

    def of_groups(channels: Tensor) -> Tensor:  # (B, P, C): means over dates, then over groups
        size = channels.shape[-1] // norm.num_groups
        means = channels.view(*channels.shape[:-1], norm.num_groups, size).mean(-1)
        return means.repeat_interleave(size, dim=-1)[:, :, None]

    centred = pixels - of_groups(pixels.mean(2))
    gain = (of_groups(centred.square().mean(2)) + norm.eps).rsqrt() * norm.weight
    return torch.addcmul(norm.bias, centred, gain)


def date_code(days: Tensor, width: int) -> Tensor:
    """Return sines and cosines of days; neighbours share a wavelength.

    Parameters
    ----------
    days : Tensor, shape (...)
    width
        How many.

    Returns
    -------
    Tensor, shape (..., width)
        float64 for days of that type, else float32: angles of coarser types would be wrong.
    """
    places = torch.arange(width, device=days.device)
    days = days.to(torch.promote_types(days.dtype, torch.float32))
    angles = days[..., None] / PERIOD ** (2 * (places // 2) / width)
    return torch.where(places % 2 == 0, angles.sin(), angles.cos())
