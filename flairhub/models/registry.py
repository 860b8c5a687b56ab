"""The blocks that a configuration can name; CONTRIBUTING.md tells how to add one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import nn

from flairhub.errors import ConfigError, did_you_mean
from flairhub.models.decoders import Decoder, Unet, UPerNet
from flairhub.models.encoder import MapEncoder
from flairhub.models.fusion import MeanFusion
from flairhub.models.ltae import LTAE
from flairhub.models.utae import UTAE

_Block = TypeVar("_Block")

RASTER_ENCODERS: dict[str, Callable[..., MapEncoder]] = {}
"""Networks for rasters, built and called as `RasterEncoder` but for the name; all other names are
timm's."""

SERIES_ENCODERS: dict[str, Callable[..., MapEncoder]] = {"ltae": LTAE, "utae": UTAE}
"""Networks for series, built and called as `LTAE`."""

FUSIONS: dict[str, Callable[[Mapping[str, int], int], nn.Module]] = {"mean": MeanFusion}
"""What merges the maps of one level, built and called as `MeanFusion`."""

DECODERS: dict[str, type[Decoder]] = {"unet": Unet, "upernet": UPerNet}
"""What makes one map of a pyramid of two levels or more, built and called as `Unet`."""


def choose(registry: Mapping[str, _Block], key: str, name: str) -> _Block:
    """Return the block of a name; raises `ConfigError` with the `key` of the configuration."""
    if name not in registry:
        msg = f"model.{key}: there is no {name!r}. {did_you_mean(name, registry)}"
        raise ConfigError(msg)
    return registry[name]
