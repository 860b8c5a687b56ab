"""Small networks of IGN's form, and random inputs for them."""

from __future__ import annotations

from typing import Any

import torch

from flairhub.modalities import MODALITIES
from flairhub.models import IgnNetwork, IgnOptions

TINY = "swin_tiny_patch4_window7_224"


def options(*modalities: str, **changes: Any) -> IgnOptions:  # noqa: ANN401
    """Return options of a small network; images of 20 and 40 cm have 64 pixels a side."""
    sizes = {key: 64 for key in modalities if not MODALITIES[key].temporal}
    values: dict[str, Any] = {"tasks": {"cosia": 19}, "sizes": sizes, "encoder": TINY}
    return IgnOptions(modalities, **(values | changes))


def arguments(network: IgnNetwork, samples: int = 2, dates: int = 4) -> tuple[Any, Any]:
    """Return random inputs and days; the last date of the first sample is padding."""
    chance = torch.Generator().manual_seed(1)
    inputs, days = {}, {}
    for key in network.options.modalities:
        lead = (samples, dates) if key in network.options.series else (samples,)
        side = network.options.size_of(key)
        shape = (*lead, network.options.bands_of(key), side, side)
        inputs[key] = torch.randn(shape, generator=chance)
        if key in network.options.series:
            days[key] = torch.randint(-134, 231, lead, generator=chance).float()
            inputs[key][0, -1], days[key][0, -1] = 0, 0
    return inputs, days


def made(given: IgnOptions) -> IgnNetwork:
    torch.manual_seed(0)
    return IgnNetwork(given).eval()
