"""Networks of timm without their classifiers: made, and tried without memory for what they do.

What timm tells of a network is not always so: maps may be half or twice as large as told, and many
networks with attention run on images of one size alone, or of multiples of one. So each is run once
on the device ``meta``, where nothing is computed but shapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import timm
import torch
from torch import Tensor

from flairhub.errors import ConfigError, did_you_mean
from flairhub.models.alignment import Size

_USUAL_SIDE = 224
"""Pixels, of networks that do not tell."""


@dataclass(frozen=True, slots=True)
class NetworkForm:
    """What a network with a pyramid takes and gives.

    Parameters
    ----------
    levels
        Places of the maps that it gives, as timm counts them.
    reductions
        Pixels of the image per pixel of every map.
    step
        Sides of images must be multiples of it.
    only
        The only side that it takes, or None where it takes all multiples of `step`.
    """

    levels: tuple[int, ...]
    reductions: tuple[int, ...]
    step: int
    only: int | None = None


def create(name: str, **options: Any) -> Any:  # noqa: ANN401 - timm is untyped
    """Return a network of timm.

    Raises
    ------
    ConfigError
        If timm has none of that name, cannot make it so, or cannot fetch its weights.
    """
    if not timm.is_model(name.partition(".")[0]):
        msg = f"timm has no network {name!r}. {did_you_mean(name, timm.list_models()[:2000])}"
        raise ConfigError(msg)
    try:
        return timm.create_model(name, **options)
    except (OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        wish = "published weights of" if options.get("pretrained") else "encoder"
        msg = f"timm cannot give the {wish} {name!r}: {error}"
        raise ConfigError(msg) from error


def create_pyramid(name: str, bands: int, **options: Any) -> Any:  # noqa: ANN401
    """Return a network that gives maps, by timm's options for such; see `create`."""
    options |= {"features_only": True, "in_chans": bands}
    if name.startswith("swin"):  # fixed to its training size unless told otherwise
        options["strict_img_size"] = False
    try:
        # The getter builds no layer past the last level, and gives (B, C, H, W) from any network.
        return create(name, feature_cls="getter", **options)
    except ConfigError as error:
        if "feature_cls" not in str(error.__cause__):  # a few choose for themselves
            raise
    return create(name, **options)


@cache
def measure(
    name: str, bands: int, levels: tuple[int, ...] | None = None, image: int | None = None
) -> NetworkForm:
    """Return what a network does, without memory for its weights.

    Parameters
    ----------
    name
        timm's.
    bands
        Channels of the image.
    levels
        Places of the maps that it is to give; timm's choice where None.
    image
        Side of the images that it is to be made for, pixels; its own where None.

    Raises
    ------
    ConfigError
        If timm cannot give it, or it fails on images of that size.
    """
    options = {} if image is None else {"img_size": image}
    with torch.device("meta"):
        network = create_pyramid(name, bands, out_indices=levels, **options).eval()
    told = timm.get_pretrained_cfg(name)
    side = image or (int(told.input_size[-1]) if told and told.input_size else _USUAL_SIDE)
    try:
        maps = _run(network, bands, (side, side))
    except Exception as error:  # each network's own
        msg = f"The encoder {name!r} fails on images of {bands} bands, {side} x {side}: {error}"
        raise ConfigError(msg) from error
    reductions = tuple(_reduction(side, one.shape[-1]) for one in maps)
    last = max(reductions)
    steps = [last * 2**n for n in range(8) if last * 2**n < side]
    step = next((s for s in (*steps, side) if _takes(network, bands, (s, 3 * s))), None)
    places = tuple(network.feature_info.out_indices)
    return NetworkForm(places, reductions, step or side, None if step else side)


def _run(network: Any, bands: int, size: Size) -> list[Tensor]:  # noqa: ANN401
    with torch.no_grad():
        maps: list[Tensor] = network(torch.zeros(1, bands, *size, device="meta"))
    return maps


def _takes(network: Any, bands: int, size: Size) -> bool:  # noqa: ANN401
    """Tell whether a network runs on images of a size, and its maps follow it."""
    try:
        maps = _run(network, bands, size)
    except Exception:
        return False
    return maps[0].shape[-1] > maps[0].shape[-2]


def _reduction(side: int, of_map: int) -> int:
    """Return pixels per pixel of a map; without padding at the edges maps are a bit too small."""
    return side // of_map if side % of_map == 0 else 2 ** round(math.log2(side / of_map))
