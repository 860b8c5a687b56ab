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

    def forward(self, values: Tensor, excluded: Tensor) -> Tensor:
        """Return the weights of the dates.

        Parameters
        ----------
        values : Tensor, shape (N, T, width)
        excluded : Tensor, shape (N, T), bool
            Dates that are padding.

        Returns
        -------
        Tensor, shape (N, heads, T)
            With sum 1 over T; 0 for padding unless there is nothing else.
        """
        keys = self.fc1_k(values).unflatten(-1, self.Q.shape)
        scores = (keys * self.Q).sum(-1) / self.Q.shape[1] ** 0.5
        return scores.masked_fill(excluded[..., None], EXCLUDED).softmax(1).transpose(1, 2)


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
        self.heads = heads
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
        pixels = maps.permute(0, 3, 4, 2, 1).reshape(-1, channels, dates)
        values = self.inconv(self.in_norm(pixels)).transpose(1, 2)
        code = date_code(days, values.shape[-1] // self.heads).repeat(1, 1, self.heads)
        values = (values.unflatten(0, (batch, -1)) + code[:, None]).flatten(0, 1)
        outside = excluded[:, None].expand(-1, height * width, -1).flatten(0, 1)
        weights = self.attention_dropout(self.attention_heads(values, outside))
        chunks = values.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        merged = (weights[:, :, None] @ chunks).flatten(1)  # (B H W, width)
        merged = self.out_norm(self.dropout(self.mlp(merged)))
        place = (batch, height, width)
        return (
            merged.unflatten(0, place).permute(0, 3, 1, 2),
            weights.unflatten(0, place).permute(0, 3, 4, 1, 2),
        )


def date_code(days: Tensor, width: int) -> Tensor:
    """Return sines and cosines of days, shape (..., width); neighbours share a wavelength."""
    places = torch.arange(width, device=days.device)
    angles = days[..., None] / PERIOD ** (2 * (places // 2) / width)
    return torch.where(places % 2 == 0, angles.sin(), angles.cos())
