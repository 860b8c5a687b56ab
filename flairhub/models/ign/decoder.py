"""Maps of an image to scores of classes, by any decoder.

To add a decoder, write a class that takes channels and classes and has the ``forward`` of
`SmpDecoder`, and enter it in `DECODERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import segmentation_models_pytorch as smp
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from torch import Tensor, nn

from flairhub.errors import ConfigError, GridError, did_you_mean
from flairhub.models.alignment import Size
from flairhub.models.ign.upernet import UPerNet

DOUBLING = ("unetplusplus", "manet", "linknet", "fpn")
"""Decoders of smp that double every map, and so need each to be twice as large as the next."""

POOLED = {"pan": 8}
"""Decoders of smp that halve the deepest map again, and the least side that they need."""

DecoderMaker = Callable[[Sequence[int], int], nn.Module]
"""From channels at 1/2 to 1/32, 0 where there is no such map, and the number of classes."""


class MapDecoder(nn.Module):
    """One decoder with its head, under the name that the weights know.

    Parameters
    ----------
    name
        See `flairhub.models.ign.options.IgnOptions`.
    channels
        At 1/2 to 1/32; the first is 0 where there is no such map.
    classes
        Number of classes.

    Raises
    ------
    ConfigError
        If there is no such decoder, or it does not fit such maps.
    """

    def __init__(self, name: str, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        if name not in DECODERS:
            msg = f"There is no decoder {name!r}. {did_you_mean(name, DECODERS)}"
            raise ConfigError(msg)
        self.seg_model = DECODERS[name](channels, classes)

    def forward(self, maps: Sequence[Tensor], image: Size) -> Tensor:
        """Return scores of about the image's size, (B, classes, h, w).

        Maps and size are those of `flairhub.models.ign.upernet.UPerNetDecoder.forward`. Raises
        `GridError` if the decoder does not take maps of such sizes.
        """
        logits: Tensor = self.seg_model(maps, image)
        return logits


class _Shape(nn.Module):
    """What smp asks of an encoder, without one."""

    def __init__(self, out_channels: Sequence[int], depth: int, output_stride: int) -> None:
        super().__init__()
        self.out_channels = list(out_channels[: depth + 1])
        self.output_stride = output_stride

    def set_in_channels(self, in_channels: int, pretrained: bool = False) -> None:
        """Do nothing."""


class SmpDecoder(nn.Module):
    """A decoder of segmentation-models-pytorch with its head, as that library puts them together.

    Parameters
    ----------
    name
        Name of the architecture there, in small letters.
    channels, classes
        See `DecoderMaker`.
    **options
        Arguments of the architecture that differ from that library's defaults.

    References
    ----------
    Iakubovskii 2019, Segmentation Models PyTorch; Ronneberger et al. 2015, arXiv:1505.04597
    (U-Net).
    """

    def __init__(
        self,
        name: str,
        channels: Sequence[int],
        classes: int,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__()
        placeholder = "flairhub-shape"
        smp_encoders[placeholder] = {
            "encoder": _Shape,
            "params": {"out_channels": [3, *channels]},
            "pretrained_settings": {},
        }
        try:
            whole = smp.create_model(name, placeholder, None, classes=classes, **options)
        except (ValueError, RuntimeError, TypeError, ZeroDivisionError) as error:
            msg = f"The decoder {name!r} does not take maps of {tuple(channels)} channels: {error}"
            raise ConfigError(msg) from error
        finally:
            del smp_encoders[placeholder]
        self.decoder: nn.Module = whole.decoder
        self.segmentation_head: nn.Module = whole.segmentation_head
        self._name = name
        self._depth = options.get("encoder_depth", len(channels))
        self._has_half = channels[0] > 0

    def forward(self, maps: Sequence[Tensor], image: Size) -> Tensor:
        """See `MapDecoder.forward`."""
        batch, (height, width) = maps[0].shape[0], image
        # Decoders look only at the size of the image, and know an absent map by its 0 channels.
        empty = [maps[0].new_empty(batch, 0, height, width)]
        if not self._has_half:
            empty.append(maps[0].new_empty(batch, 0, height // 2, width // 2))
        pyramid = [*empty, *maps][: self._depth + 1]
        self._check(pyramid[1:], image)
        logits: Tensor = self.segmentation_head(self.decoder(pyramid))
        return logits

    def _check(self, pyramid: Sequence[Tensor], image: Size) -> None:
        """Refuse maps (B, C_i, h_i, w_i), finest first, whose sizes do not suit the decoder."""
        what = f"The decoder {self._name!r} does not take images of {image[0]} x {image[1]} pixels"
        if self._name in DOUBLING and any(
            fine != 2 * coarse
            for one, next_one in pairwise(pyramid)
            for fine, coarse in zip(one.shape[-2:], next_one.shape[-2:], strict=True)
        ):
            msg = f"{what}: it doubles every map. Sides must be multiples of 32; or take 'upernet'."
            raise GridError(msg)
        least = POOLED.get(self._name, 1)
        if min(pyramid[-1].shape[-2:]) < least:
            msg = f"{what}: it halves the deepest map thrice. Sides must be {32 * least} or more."
            raise GridError(msg)


DECODERS: dict[str, DecoderMaker] = {
    "upernet": UPerNet,
    **{
        name: partial(SmpDecoder, name)
        for name in ("unet", "unetplusplus", "manet", "linknet", "fpn", "segformer")
    },
    "pan": partial(SmpDecoder, "pan", encoder_output_stride=32),
    "pspnet": partial(SmpDecoder, "pspnet", encoder_depth=3),
}
"""What makes the decoder of each name. Of smp's, DeepLab's need dilated encoders, DPT a ViT."""
