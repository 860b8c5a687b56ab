"""One raster to a pyramid of maps, by any of timm's convolutional or windowed networks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import timm
import torch
from torch import Tensor, nn

from flairhub.errors import ConfigError, did_you_mean
from flairhub.models.encoder import MapEncoder

_SLACK = 1.01
"""Reductions made from metres are not whole: 0.2 m x 32 / 1.6 m."""


class RasterEncoder(MapEncoder):
    """A timm network without its classifier, for any number of bands.

    Parameters
    ----------
    name
        timm's name of a network with a pyramid, such as ``mobilenetv3_small_100``.
    bands
        Channels of the input.
    min_reduction, max_reduction
        Levels to return, as input pixels per map pixel; layers past the last one are not built.
        At least one level is kept.
    pretrained
        Start from timm's published weights, whose first layer timm adapts to `bands`.

    Attributes
    ----------
    reductions : tuple of int
        Input pixels per map pixel of every level, increasing.
    channels : tuple of int
        Channels of every level.

    Raises
    ------
    ConfigError
        If timm has no such network, it has no pyramid, or its weights cannot be fetched.

    References
    ----------
    Wightman 2019, PyTorch Image Models. Howard et al. 2019, arXiv:1905.02244 (MobileNetV3);
    He et al. 2016, arXiv:1512.03385 (ResNet); Liu et al. 2021, arXiv:2103.14030 (Swin).
    """

    def __init__(
        self,
        name: str,
        bands: int,
        *,
        min_reduction: float = 1,
        max_reduction: float = 32,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        every = _reductions(name)
        low, high = min_reduction / _SLACK, max_reduction * _SLACK
        kept = [i for i, r in enumerate(every) if low <= r <= high] or [0]
        self.reductions = tuple(every[i] for i in kept)
        network = _create(name, in_chans=bands, out_indices=kept, pretrained=pretrained)
        self.channels = tuple(network.feature_info.channels())
        self.network: nn.Module = network

    def forward(self, raster: Tensor) -> list[Tensor]:
        """Encode a raster.

        Parameters
        ----------
        raster : Tensor, shape (B, bands, H, W), float32
            Sides are multiples of the last reduction.

        Returns
        -------
        list of Tensor, shapes (B, channels[i], H / reductions[i], W / reductions[i])
            Finest first.
        """
        maps: list[Tensor] = self.network(raster)
        return maps


def _create(name: str, **options: Any) -> Any:  # noqa: ANN401 - timm is untyped
    if not timm.is_model(name.partition(".")[0]):
        msg = f"timm has no network {name!r}. {did_you_mean(name, timm.list_models()[:2000])}"
        raise ConfigError(msg)
    if name.startswith("swin"):  # fixed to its training size unless told otherwise
        options["strict_img_size"] = False
    try:
        # The getter builds no layer past the last level, and gives (B, C, H, W) from any network.
        return timm.create_model(name, features_only=True, feature_cls="getter", **options)
    except (OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        wish = "published weights of" if options.get("pretrained") else "pyramid of"
        msg = f"timm cannot give the {wish} {name!r}: {error}"
        raise ConfigError(msg) from error


def _reductions(name: str) -> tuple[int, ...]:
    """Return a network's reductions without allocating its weights."""
    with torch.device("meta"):
        reductions = tuple(_create(name).feature_info.reduction())
    if any(finer >= coarser for finer, coarser in pairwise(reductions)):
        msg = f"{name!r} has no pyramid (reductions {reductions}); choose a convolutional network."
        raise ConfigError(msg)
    return reductions
