"""Channels made of a surface and a terrain model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def elevate(pixels: Tensor, bands: Sequence[str], channels: Sequence[str]) -> Tensor:
    """Return the wanted channels of elevation, metres.

    ==========  ==================================================================
    ``dsm``     surface above sea level, with buildings and trees
    ``dtm``     terrain above sea level, bare ground
    ``height``  surface minus terrain
    ``relief``  terrain (surface where it is not read) minus its mean over the window's pixels
    ==========  ==================================================================

    Parameters
    ----------
    pixels : Tensor, shape (B, bands, H, W)
        Metres above sea level; not a number where there is no measurement.
    bands
        ``dsm``, ``dtm`` or both, as they stand in `pixels`.
    channels
        Wanted, in order; `flairhub.config.preparation.ELEVATION_NEEDS` says what each needs.

    Returns
    -------
    Tensor, shape (B, channels, H, W), float32
    """
    bands = list(bands)
    found = pixels.new_empty((len(pixels), len(channels), *pixels.shape[-2:]), dtype=torch.float32)
    for at, channel in enumerate(channels):
        out = found[:, at]
        if channel == "height":
            torch.sub(pixels[:, bands.index("dsm")], pixels[:, bands.index("dtm")], out=out)
        elif channel == "relief":
            ground = pixels[:, bands.index("dtm" if "dtm" in bands else "dsm")]
            torch.sub(ground, _mean(ground), out=out)
        else:
            out.copy_(pixels[:, bands.index(channel)])
    return found


def _mean(ground: Tensor) -> Tensor:
    """Return the mean of the finite pixels of (B, H, W), shape ``(B, 1, 1)``."""
    ones = ground.sub(ground).add_(1)  # or not a number; a fifteenth of `nanmean`'s time
    window = (-2, -1)
    return ground.nansum(window, keepdim=True) / ones.nansum(window, keepdim=True)
