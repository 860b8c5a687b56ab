"""An image to its maps at 1/2 to 1/32, by any network that gives them.

To add an encoder, write a class that takes what `EncoderMaker` says and has what `MonoEncoder`
needs, and enter it in `ENCODERS`.

References
----------
Wightman 2019, PyTorch Image Models; Iakubovskii 2019, Segmentation Models PyTorch; Chen et al.
2016, arXiv:1604.06174 (checkpointing).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from segmentation_models_pytorch.encoders import get_encoder as get_smp_encoder
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from flairhub.errors import ConfigError, GridError
from flairhub.models.alignment import Size
from flairhub.models.ign import swin
from flairhub.models.timm_networks import create

REDUCTIONS = (2, 4, 8, 16, 32)
"""Pixels of the image per pixel of the maps that decoders take."""

EncoderMaker = Callable[[str, int, Size, bool], nn.Module]
"""From name, bands, height and width of the images, and whether to start from published weights."""


class MonoEncoder(nn.Module):
    """The encoder of one image, under the name that the weights know.

    It wraps a module that takes ``(B, bands, H, W)``, returns maps, finest first, and lists their
    channels as ``out_channels``, as encoders of segmentation-models-pytorch do. Only those at
    `REDUCTIONS` are used: the last five, or four where the map at 1/2 is missing or has no channel.

    Parameters
    ----------
    name
        See `flairhub.models.ign.options.IgnOptions`.
    bands
        Channels of the image.
    image
        Height and width of the images that it is made for, pixels.
    pretrained
        Start from published weights.
    checkpointing
        In training, compute the network again in the backward pass and keep less in memory; block
        by block where it has ``checkpointing``.

    Attributes
    ----------
    channels : tuple of int
        At `REDUCTIONS`; the first is 0 where there is no such map.

    Raises
    ------
    ConfigError
        If there is no such network, it has no pyramid, or its weights cannot be fetched.
    """

    def __init__(
        self,
        name: str,
        bands: int,
        image: Size,
        *,
        pretrained: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        make = next(ENCODERS[names] for names in reversed(ENCODERS) if re.fullmatch(names, name))
        network: Any = make(name, bands, image, pretrained)
        used = [n for n in network.out_channels[-len(REDUCTIONS) :] if n]
        self.channels = (0,) * (len(REDUCTIONS) - len(used)) + tuple(used)
        self._name, self._made_for = name, image
        self.checkpointing = checkpointing and not hasattr(network, "checkpointing")
        if hasattr(network, "checkpointing"):
            network.checkpointing = checkpointing
        self.seg_model: nn.Module = network

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, bands, H, W) to maps (B, channels[i], h_i, w_i) at 1/2 (or 1/4) to 1/32.

        Raises `GridError` if the network fails on images of another size than it is made for.
        """
        size = (image.shape[-2], image.shape[-1])
        if torch.compiler.is_compiling() or size == self._made_for:
            return self._encode(image)
        try:
            return self._encode(image)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError, ValueError) as error:
            given, made_for = (f"{height} x {width}" for height, width in (size, self._made_for))
            msg = (
                f"The encoder {self._name!r} fails on images of {given} pixels ({error}). It is "
                f"made for {made_for}, and not every network takes others: give that size, or "
                "build it for yours with `sizes`."
            )
            raise GridError(msg) from error

    def _encode(self, image: Tensor) -> list[Tensor]:
        if self.checkpointing and self.training:
            maps: list[Tensor] = checkpoint(self.seg_model, image, use_reentrant=False)
        else:
            maps = self.seg_model(image)
        return maps[-sum(n > 0 for n in self.channels) :]


class SwinEncoder(nn.Module):
    """Our `flairhub.models.ign.swin.Swin`, which takes timm's weights."""

    def __init__(self, name: str, bands: int, image: Size, pretrained: bool) -> None:
        super().__init__()
        self.model = swin.Swin(name, bands, image)
        self.out_channels = self.model.channels
        if pretrained:
            options = {"features_only": True, "in_chans": bands, "img_size": image}
            self.model.load_state_dict(create(name, pretrained=True, **options).state_dict())

    @property
    def checkpointing(self) -> bool:
        """Whether blocks are computed again in the backward pass."""
        return self.model.checkpointing

    @checkpointing.setter
    def checkpointing(self, wanted: bool) -> None:
        self.model.checkpointing = wanted

    def forward(self, image: Tensor) -> list[Tensor]:
        """See `MonoEncoder`."""
        maps: list[Tensor] = self.model(image)
        return maps


class TimmEncoder(nn.Module):
    """Any network of timm with maps at 1/4, 1/8, 1/16 and 1/32."""

    def __init__(self, name: str, bands: int, image: Size, pretrained: bool) -> None:
        super().__init__()
        with torch.device("meta"):
            found = create(name, features_only=True).feature_info.reduction()
        places = [i for i, reduction in enumerate(found) if reduction in REDUCTIONS]
        if tuple(found[i] for i in places)[-4:] != REDUCTIONS[1:]:
            msg = f"{name!r} has maps at 1/{found}; a pyramid has them at 1/{REDUCTIONS[1:]}."
            raise ConfigError(msg)
        options = {"features_only": True, "in_chans": bands, "out_indices": places}
        try:
            network = create(name, pretrained=pretrained, img_size=image, **options)
        except ConfigError:  # convolutional networks know no size
            network = create(name, pretrained=pretrained, **options)
        self.model: nn.Module = network
        self.out_channels = tuple(network.feature_info.channels())
        self._channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"

    def forward(self, image: Tensor) -> list[Tensor]:
        """See `MonoEncoder`."""
        maps = self.model(image)
        return [m.permute(0, 3, 1, 2) for m in maps] if self._channels_last else list(maps)


def make_smp_encoder(name: str, bands: int, _image: Size, pretrained: bool) -> nn.Module:
    """Return an encoder of segmentation-models-pytorch, ``resnet34`` above all."""
    with _RatesInMemory():
        encoder: nn.Module = get_smp_encoder(
            name, in_channels=bands, weights="imagenet" if pretrained else None
        )
    return encoder


class _RatesInMemory(TorchFunctionMode):
    """Makes ranges of numbers on the CPU: mix transformers read rates of their blocks from one.

    On the device ``meta`` they would find none.
    """

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        given = kwargs or {}
        return func(*args, **({"device": "cpu", **given} if func is torch.linspace else given))


ENCODERS: dict[str, EncoderMaker] = {
    ".*": TimmEncoder,
    "|".join(map(re.escape, smp_encoders)): make_smp_encoder,
    swin.NAME: SwinEncoder,
}
"""What makes the encoders whose names match a regular expression; the last entry that does."""
