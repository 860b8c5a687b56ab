"""The baseline of FLAIR#1: a U-Net on a ResNet34, with or without metadata of the image.

References
----------
Garioud et al. 2022, arXiv:2211.12979 (FLAIR#1); Ronneberger et al. 2015, arXiv:1505.04597 (U-Net);
He et al. 2016, arXiv:1512.03385 (ResNet); Iakubovskii 2019, Segmentation Models PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping

import segmentation_models_pytorch as smp
from torch import Tensor, nn

from flairhub.errors import GridError
from flairhub.models.alignment import Size, next_multiple, pad_to, resize
from flairhub.models.flair.conditioning import MetadataBranch
from flairhub.models.flair.options import DECODER, ENCODER, IMAGE, TASK, FlairOptions
from flairhub.models.scores import Scores

REDUCTION = 32
"""Pixels of the image per pixel of the deepest map."""


class FlairUnet(nn.Module):
    """U-Net on one aerial image.

    Its parameters have the names of IGN's code (``seg_model.*``, ``enc.*``).

    Parameters
    ----------
    options
        `FlairOptions.series_bands` and `modality_dropout` are not looked at.

    Attributes
    ----------
    channels : tuple of int
        Of the encoder's maps at 1/2, 1/4, 1/8, 1/16 and 1/32.
    """

    def __init__(self, options: FlairOptions) -> None:
        super().__init__()
        self.options = options
        self.seg_model = smp.create_model(
            DECODER,
            ENCODER,
            encoder_weights="imagenet" if options.pretrained else None,
            in_channels=options.bands,
            classes=options.classes,
        )
        self.channels = tuple(self.seg_model.encoder.out_channels[1:])
        self.enc = (
            None
            if options.metadata == "none"
            else MetadataBranch(self.channels[-1], options.metadata)
        )

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        metadata: Tensor | None = None,
        size: Size | None = None,
    ) -> Scores:
        """Classify every pixel.

        Parameters
        ----------
        inputs : mapping of Tensor, shape (B, bands, H, W), float32
            ``flair_aerial``, normalised, of any height and width. Other inputs are not looked at.
        metadata : Tensor, shape (B, 45), float32
            Of `flairhub.models.flair.metadata.encode_metadata`; for models that take them alone.
        size
            Height and width of the scores; those of the image unless given.

        Returns
        -------
        Scores
            ``main["flair"]``, shape (B, classes, H, W), before softmax; no auxiliary ones.

        Raises
        ------
        GridError
            If the image or metadata are missing or have the wrong shape, or metadata are given to
            a model that takes none.
        """
        image = self.image_of(inputs)
        scores = self.decode(self.encode(image, metadata), _size(image))
        return Scores({TASK: resize(scores, size or _size(image))}, {})

    def image_of(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the image, (B, bands, H, W); raises `GridError` unless it is such a one."""
        image = inputs.get(IMAGE)
        shape = () if image is None else tuple(image.shape)
        if image is None or len(shape) != 4 or shape[1] != self.options.bands or 0 in shape:
            found = "missing" if image is None else f"of the shape {shape}"
            form = f"(B, {self.options.bands}, H, W), none of them 0"
            msg = f"{IMAGE} must have the shape {form}; it is {found}."
            raise GridError(msg)
        return image

    def encode(self, image: Tensor, metadata: Tensor | None) -> list[Tensor]:
        """Return the maps at 1/2 to 1/32, shapes (B, channels[i], h_i, w_i), metadata added.

        The image is continued to whole multiples of 32 pixels, below and on the right.
        """
        if self.enc is None and metadata is not None:
            msg = "This model takes no metadata; build it with metadata='ign' or 'own' for that."
            raise GridError(msg)
        whole = pad_to(image, next_multiple(_size(image), REDUCTION))
        maps: list[Tensor] = self.seg_model.encoder(whole)[1:]
        return maps if self.enc is None else [*maps[:-1], self.enc(maps[-1], metadata)]

    def decode(self, maps: list[Tensor], size: Size) -> Tensor:
        """Return scores of the maps of `encode`, shape (B, classes, *size)."""
        height, width = (2 * side for side in _size(maps[0]))
        # smp's decoder takes the size of the first map alone: the image's
        image = maps[0].new_empty(maps[0].shape[0], 0, height, width)
        scores: Tensor = self.seg_model.segmentation_head(self.seg_model.decoder([image, *maps]))
        return scores[..., : size[0], : size[1]]


def _size(maps: Tensor) -> Size:
    return maps.shape[-2], maps.shape[-1]
