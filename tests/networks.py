"""Small networks of IGN's form, for tests of weights."""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor, nn

from flairhub.models import IgnNetwork, IgnOptions, build
from flairhub.models.flair import FlairOptions, FlairUnet, TextureTime
from flairhub.models.published import ModelOptions

State = dict[str, Tensor]
FUSED = IgnOptions(("spot_rgbi", "sentinel2_ts"), {"cosia": 19}, encoder="convnextv2_atto")
SERIES = IgnOptions(("sentinel2_ts",), {"cosia": 19})
SWIN = IgnOptions(("spot_rgbi",), {"cosia": 19}, encoder="swin_tiny_patch4_window7_224")
ALONE = IgnOptions(("spot_rgbi",), {"cosia": 19}, encoder="convnextv2_atto")


@overload
def make(options: IgnOptions, seed: int = 0) -> IgnNetwork: ...
@overload
def make(options: FlairOptions, seed: int = 0) -> FlairUnet | TextureTime: ...
def make(options: ModelOptions, seed: int = 0) -> nn.Module:
    """Build a network of which no tensor has its usual value."""
    torch.manual_seed(seed)
    model: nn.Module = build(options).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return model


def same(model: nn.Module, state: State) -> bool:
    found = model.state_dict()
    return found.keys() == state.keys() and all(torch.equal(found[k], state[k]) for k in state)
