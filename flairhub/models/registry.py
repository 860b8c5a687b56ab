"""The blocks that a configuration can name; CONTRIBUTING.md tells how to add one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TypeVar

from torch import nn

from flairhub.errors import ConfigError, did_you_mean
from flairhub.models.decoders import Decoder, Unet, UPerNet
from flairhub.models.encoder import MapEncoder
from flairhub.models.fusion import MeanFusion
from flairhub.models.ltae import LTAE
from flairhub.models.utae import UTAE

_Block = TypeVar("_Block")

OWN_BLOCKS = "FLAIRHUB_BLOCKS"
"""Environment variable: a Python file of one's own that enters blocks here."""

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


def import_own_blocks() -> None:
    """Run the file that `OWN_BLOCKS` names, once; raises `ConfigError` if that fails."""
    told = os.environ.get(OWN_BLOCKS)
    if not told:
        return
    path = Path(told).resolve()
    if any(getattr(module, "__file__", None) == str(path) for module in [*sys.modules.values()]):
        return
    spec = spec_from_file_location(path.stem, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        msg = f"{OWN_BLOCKS} names {told}, which is no Python file."
        raise ConfigError(msg)
    if path.stem in sys.modules:
        msg = f"{OWN_BLOCKS} names {told}, and there is a module {path.stem!r}; rename the file."
        raise ConfigError(msg)
    module = module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[path.stem]
        msg = f"The blocks of {told} cannot be imported: {type(error).__name__}: {error}"
        raise ConfigError(msg) from error
