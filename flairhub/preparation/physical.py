"""From stored numbers to those whose mean and standard deviation are taken."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flairhub.config import PreparationConfig
from flairhub.modalities import Kind, get_modality
from flairhub.preparation.elevation import elevate
from flairhub.store.statistics import has_decibels


def channel_names(
    key: str, bands: Sequence[str], config: PreparationConfig | None = None
) -> tuple[str, ...]:
    """Return what the prepared channels of a modality are: its bands, or those of elevation."""
    if get_modality(key).kind is not Kind.ELEVATION:
        return tuple(bands)
    return (config or PreparationConfig()).elevation_of(bands)


def to_physical(key: str, pixels: Tensor, bands: Sequence[str], channels: Sequence[str]) -> Tensor:
    """Return float32 channels in the units that statistics are taken in, in memory of their own.

    Parameters
    ----------
    key
        Of the modality.
    pixels
        ``(..., bands, H, W)``, as stored.
    bands, channels
        Names on axis -3, before and after: see `channel_names`.

    Returns
    -------
    Tensor
        ``(..., channels, H, W)`` float32: raw units; decibels, not finite where there is no
        signal; metres.
    """
    modality = get_modality(key)
    if modality.kind is Kind.ELEVATION:
        return elevate(pixels, bands, channels)
    values = pixels.to(torch.float32, copy=True)
    if has_decibels(modality):
        return values.log10_().mul_(10)
    return values
