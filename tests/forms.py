"""The published form of the network and our own, small, and inputs for both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flairhub.config import ModelConfig
from flairhub.modalities import MODALITIES
from flairhub.models import IgnNetwork, IgnOptions, MultimodalSegmenter, build_model

BANDS = {key: len(m.bands) for key, m in MODALITIES.items()}
SMALL = ModelConfig(
    encoder="mobilenetv3_small_050", decoder_channels=32, series_channels=16, series_heads=4
)
COUNTS = {"cosia": [1] * 19}


def own(*modalities: str, **changes: Any) -> MultimodalSegmenter:  # noqa: ANN401
    torch.manual_seed(0)
    return build_model(SMALL.model_copy(update=changes), modalities, BANDS, ["cosia"]).eval()


def published(*modalities: str, **changes: Any) -> IgnNetwork:  # noqa: ANN401
    torch.manual_seed(0)
    options: dict[str, Any] = {"tasks": {"cosia": 19}, "bands": {}, **changes}
    options["bands"] = {key: BANDS[key] for key in modalities}
    return IgnNetwork(IgnOptions(modalities, encoder="resnet18", **options)).eval()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rasters(*modalities: str, batch: int = 2, side_m: float = 25.6) -> dict[str, Tensor]:
    """Return random images of one ground."""
    return {
        key: random(
            batch, BANDS[key], *[round(side_m / MODALITIES[key].resolution_m)] * 2, seed=place
        )
        for place, key in enumerate(modalities)
    }


def every_input(batch: int = 2) -> dict[str, Any]:
    """Return images, a series of 4 and 3 dates and its masks on 51.2 m of ground."""
    inputs = rasters("aerial_rgbi", "dem_elev", "spot_rgbi", batch=batch, side_m=51.2)
    inputs["sentinel2_ts"] = random(batch, 4, 10, 5, 5)
    inputs["sentinel2_msk_sc"] = random(batch, 4, 2, 5, 5)
    days = torch.arange(18000, 18400, 100).expand(batch, 4)
    return {
        "inputs": inputs,
        "days": {"sentinel2_ts": days},
        "lengths": {"sentinel2_ts": torch.tensor([4, *[3] * (batch - 1)])},
    }


EVERY = tuple(every_input()["inputs"])
FEW = ("spot_rgbi", "sentinel2_ts", "sentinel2_msk_sc")


def alike(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5)
