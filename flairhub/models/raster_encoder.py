"""One raster to a pyramid of maps, by any of timm's convolutional or windowed networks."""

from __future__ import annotations

from contextlib import suppress

from torch import Tensor, nn

from flairhub.errors import ConfigError, GridError
from flairhub.models.alignment import Size, next_multiple, pad_to, resize
from flairhub.models.encoder import MapEncoder
from flairhub.models.timm_networks import create_pyramid, measure

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
    image
        Side of the largest rasters, pixels, for networks that must be made for one size; they are
        made for timm's usual one where absent, or where they do not take another.

    Attributes
    ----------
    reductions : tuple of int
        Input pixels per map pixel of every level, increasing.
    channels : tuple of int
        Channels of every level.

    Raises
    ------
    ConfigError
        If timm has no such network, it has no pyramid, fails on so many bands, or its weights
        cannot be fetched.

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
        image: int | None = None,
    ) -> None:
        super().__init__()
        whole = measure(name, bands)
        deepest = dict(zip(whole.reductions, whole.levels, strict=True))
        if len(deepest) == 1 or sorted(whole.reductions) != list(whole.reductions):
            msg = (
                f"{name!r} has no pyramid (reductions {whole.reductions}); choose a convolutional "
                "network."
            )
            raise ConfigError(msg)
        low, high = min_reduction / _SLACK, max_reduction * _SLACK
        self.reductions = tuple(r for r in deepest if low <= r <= high) or whole.reductions[:1]
        kept = tuple(deepest[r] for r in self.reductions)
        self._name, self._form, options = name, measure(name, bands, kept), {}
        if self._form.only and image:
            with suppress(ConfigError):
                self._form, options = measure(name, bands, kept, image), {"img_size": image}
        network = create_pyramid(name, bands, out_indices=kept, pretrained=pretrained, **options)
        self.channels = tuple(network.feature_info.channels())
        self.network: nn.Module = network

    def forward(self, raster: Tensor) -> list[Tensor]:
        """Encode a raster.

        Parameters
        ----------
        raster : Tensor, shape (B, bands, H, W), float32
            Of any size, unless the network takes images of one size alone, which the raster must
            not exceed. It is padded to what the network takes, and maps are cut again.

        Returns
        -------
        list of Tensor, shapes (B, channels[i], H / reductions[i], W / reductions[i])
            Finest first; sides are rounded up.

        Raises
        ------
        GridError
            If the raster is larger than the only size that the network takes.
        """
        size = (raster.shape[-2], raster.shape[-1])
        padded = self._taken(size)
        maps: list[Tensor] = self.network(pad_to(raster, padded))
        found = []
        for one, reduction in zip(maps, self.reductions, strict=True):
            whole = resize(one, _reduced(padded, reduction))
            height, width = _reduced(size, reduction)
            found.append(whole if padded == size else whole[..., :height, :width])
        return found

    def _taken(self, size: Size) -> Size:
        """Return the size, not below the given one, that the network takes."""
        only = self._form.only
        if only is None:
            return next_multiple(size, self._form.step)
        if max(size) > only:
            msg = (
                f"The encoder {self._name!r} takes rasters of {only} x {only} pixels alone, to "
                f"which smaller ones are padded; got {size[0]} x {size[1]}. Take smaller windows, "
                "or an encoder without a fixed size: convolutional, Swin, MaxViT."
            )
            raise GridError(msg)
        return only, only


def _reduced(size: Size, reduction: int) -> Size:
    return -(-size[0] // reduction), -(-size[1] // reduction)
