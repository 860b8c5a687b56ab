"""Which bands the channels of first layers are, as far as names and numbers of tensors tell."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from flairhub.modalities import MODALITIES, Kind, get_modality
from flairhub.models import names as naming
from flairhub.models.identity import usual_bands

Bands = dict[str, tuple[str, ...]]

_MASKS = {mask.group: mask for mask in MODALITIES.values() if mask.kind is Kind.MASK}
"""By series: what our own form appends to the bands of every date."""


def channels_in(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the number of channels of every modality's first layer, wrappers or not."""
    _, own = naming.unwrap(tensors)
    first = naming.first_layers({name: tuple(tensors[full].shape) for name, full in own.items()})
    known = {m.source_name: m.key for m in MODALITIES.values()}
    return {known[m]: tensors[own[n]].shape[1] for m, n in first.items() if m in known}


def assumed_bands(tensors: Mapping[str, Tensor]) -> Bands:
    """Return the bands that so many channels usually are, by modality; nothing for other numbers.

    In our own form, which takes whatever is prepared, only all bands of a modality are that sure.
    """
    channels = channels_in(tensors)
    if not naming.is_own_form(tensors):
        return usual_bands(channels)
    every = {k: get_modality(k).band_names for k in channels
             if get_modality(k).kind is not Kind.ELEVATION}  # fmt: skip
    found = with_masks(every, tensors)
    return {key: bands for key, bands in found.items() if len(bands) == channels[key]}


def with_masks(bands: Mapping[str, tuple[str, ...]], tensors: Mapping[str, Tensor]) -> Bands:
    """Return bands with those of a series' masks appended where the first layer has as many."""
    channels, result = channels_in(tensors), dict(bands)
    for key, mask in _MASKS.items():
        if key in bands and len(bands[key]) + len(mask.bands) == channels.get(key):
            result[key] = (*bands[key], *(f"{mask.key}/{name}" for name in mask.band_names))
    return result
