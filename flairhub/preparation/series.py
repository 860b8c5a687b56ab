"""A batch of series: dates stand first, padding after them, and only lengths tell them apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Series:
    """One modality's dates.

    Parameters
    ----------
    values : Tensor, shape (B, T, C, H, W), float32
        Zero where padded.
    days : Tensor, shape (B, T), int64
        Days since 1970-01-01; 0 where padded.
    lengths : Tensor, shape (B,), int64
        True number of dates, at most T.
    """

    values: Tensor
    days: Tensor
    lengths: Tensor

    def true(self) -> Tensor:
        """Return where dates are true, shape ``(B, T)``."""
        return true_dates(self.lengths, self.days.shape[1])

    def only(self, kept: Tensor) -> Series:
        """Return the true dates among `kept`, (B, T) bool, in their order; T is the most of them.

        T is at least 1, as in a batch without a single date.
        """
        kept = kept & self.true()
        lengths = kept.sum(dim=1)
        order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)[:, : _longest(lengths)]
        rows = torch.arange(len(order), device=order.device)[:, None]
        padding = ~true_dates(lengths, order.shape[1])
        return Series(
            self.values[rows, order].masked_fill_(padding[..., None, None, None], 0),
            self.days[rows, order].masked_fill_(padding, 0),
            lengths,
        )

    def to_size(self, size: int) -> Series:
        """Return the series with T = `size`, cut or padded with zeros."""
        more = size - self.days.shape[1]
        if not more:
            return self
        return Series(
            pad(self.values, (0, 0, 0, 0, 0, 0, 0, more)), pad(self.days, (0, more)), self.lengths
        )


def true_dates(lengths: Tensor, size: int) -> Tensor:
    """Return which of `size` dates are no padding, shape ``(B, size)``."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def _longest(lengths: Tensor) -> int:
    return max(1, int(lengths.max()))
