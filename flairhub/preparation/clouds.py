"""Which dates of a window are clear, by the snow and cloud probabilities of its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from flairhub.config import CloudFilter
from flairhub.preparation.series import Series

Fallback = Literal["clearest", "without snow"]
"""What stays of a window where no date is clear: the one date with the fewest hidden pixels, the
first of equals; or, as in IGN's loader, the dates that are clear of snow, perhaps none."""

_ROUNDING = 1e-6
"""Of a share times a number of pixels, so that five of a hundred are no more than 0.05."""


def clear_dates(
    masks: Series, bands: Sequence[str], limits: CloudFilter, fallback: Fallback = "clearest"
) -> Tensor:
    """Return which dates to keep.

    A pixel is hidden where its cloud or snow probability is above its limit; a date is clear where
    the share of hidden pixels is at most ``limits.max_share``.

    Parameters
    ----------
    masks
        Probabilities, percent.
    bands
        Names of their bands, in order; ``snow`` and ``cloud`` among them.
    limits
        Limits.
    fallback
        For windows without a clear date.

    Returns
    -------
    Tensor, shape (B, T), bool
        False where padded.
    """
    snow, cloud = (masks.values[:, :, list(bands).index(name)] for name in ("snow", "cloud"))
    most = limits.max_share * snow[0, 0].numel() + _ROUNDING
    true, snowy = masks.true(), snow > limits.max_snow
    hidden = (snowy | (cloud > limits.max_cloud)).sum(dim=(-2, -1))
    clear = (hidden <= most) & true
    if fallback == "clearest":
        fewest = hidden.masked_fill(~true, hidden.new_tensor(snow[0, 0].numel() + 1)).argmin(dim=1)
        instead = torch.arange(true.shape[1], device=true.device) == fewest[:, None]
    else:
        instead = snowy.sum(dim=(-2, -1)) <= most
    return torch.where(clear.any(dim=1, keepdim=True), clear, instead & true)


def without_clouds(series: Series, masks: Series, clear: Tensor) -> tuple[Series, Series]:
    """Return series and masks without the dates that are not clear.

    Parameters
    ----------
    series, masks
        On the same dates; a sample without masks keeps all of them.
    clear
        Of `clear_dates`.
    """
    kept = pad(clear, (0, series.days.shape[1] - clear.shape[1]))
    return series.only(kept | (masks.lengths == 0)[:, None]), masks.only(clear)
