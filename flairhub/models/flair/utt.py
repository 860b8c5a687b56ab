"""The baseline of FLAIR#2, U-T&T: texture of an aerial image and time of a Sentinel-2 series.

References
----------
Garioud et al. 2023, arXiv:2310.13336 (FLAIR#2); Sainte Fare Garnot and Landrieu 2021,
arXiv:2107.07933 (U-TAE).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flairhub.errors import ConfigError, GridError
from flairhub.modalities import get_modality
from flairhub.models.alignment import Size, resize
from flairhub.models.flair.fusion import CollapsedPath, CroppedPath, crop_middle
from flairhub.models.flair.options import IMAGE, SERIES, TASK, FlairOptions
from flairhub.models.flair.unet import FlairUnet
from flairhub.models.flair.utae import StridedUtae
from flairhub.models.scores import Scores

AUX = f"{SERIES}/{TASK}"
"""Key of the scores of the series alone."""


class TextureTime(nn.Module):
    """A U-Net whose maps a U-TAE adds to before they are decoded.

    The series covers more ground than the image, with the image in the middle. What is cropped to
    it is added pixel by pixel, the mean of all of it as a number a channel, at each of the levels
    that the decoder uses.

    Parameters
    ----------
    options
        With `FlairOptions.series_bands`.

    Raises
    ------
    ConfigError
        If there is no series.
    """

    def __init__(self, options: FlairOptions) -> None:
        super().__init__()
        if not options.series_bands:
            msg = "U-T&T needs a series: series_bands must be 1 or more."
            raise ConfigError(msg)
        self.options = options
        self.texture = FlairUnet(options)
        self.time = StridedUtae(options.series_bands)
        self.cropped = CroppedPath(self.time.channels, self.texture.channels)
        self.collapsed = CollapsedPath(self.time.channels, self.texture.channels)
        self.aux_head = nn.Conv2d(self.time.channels, options.classes, 1)
        self._ratio = get_modality(IMAGE).resolution_m / get_modality(SERIES).resolution_m

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        days: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
        metadata: Tensor | None = None,
        aux: bool | None = None,
        size: Size | None = None,
    ) -> Scores:
        """Classify every pixel of the image.

        Parameters
        ----------
        inputs : mapping of Tensor, shape (B, bands, H, W) and (B, T, series_bands, h, w), float32
            ``flair_aerial``, of any size, and ``flair_sentinel2_ts``, of multiples of 8 pixels, 40
            in IGN's, both with the same middle; normalised.
        days : mapping of Tensor, shape (B, T)
            Of the series: days from 15 May of each date's own year.
        lengths : mapping of Tensor, shape (B,), integers
            Of the series: true dates; padding is at the end. Without any, the image decides alone.
        present : mapping of Tensor, shape (B,), bool
            Of the series: samples that have one; all unless given.
        metadata : Tensor, shape (B, 45), float32
            As of `FlairUnet.forward`.
        aux
            Whether the scores of the series alone are computed; in training only unless given.
        size
            Height and width of the scores; those of the image unless given.

        Returns
        -------
        Scores
            ``main["flair"]`` and ``aux["flair_sentinel2_ts/flair"]``, each (B, classes, H, W),
            before softmax.

        Raises
        ------
        GridError
            If an input is missing or has the wrong shape.
        """
        image = self.texture.image_of(inputs)
        series = self._series(inputs, days, lengths, image.shape[0])
        side = (image.shape[-2], image.shape[-1])
        size = size or side
        whole = self.time(series, days[SERIES], lengths[SERIES])
        ground = crop_middle(whole, self._ground(side))
        maps = self.texture.encode(image, metadata)
        used = self._used(lengths[SERIES], (present or {}).get(SERIES))[:, None, None, None]
        sizes = [(one.shape[-2], one.shape[-1]) for one in maps]
        added = zip(maps, self.cropped(ground, sizes), self.collapsed(whole), strict=True)
        fused = [one + (near + around).where(used, 0) for one, near, around in added]
        found = {}
        if self.training if aux is None else aux:
            # interpolating nearest pixels commutes with 1 x 1 convolutions, so it comes last
            found[AUX] = F.interpolate(self.aux_head(ground), size=size, mode="nearest")
        return Scores({TASK: resize(self.texture.decode(fused, side), size)}, found)

    def _ground(self, size: Size) -> Size:
        """Return the size of an image in pixels of the series: 10 x 10 for IGN's."""
        return max(1, round(size[0] * self._ratio)), max(1, round(size[1] * self._ratio))

    def _used(self, lengths: Tensor, present: Tensor | None) -> Tensor:
        """Return the samples whose series is used, (B,) bool: those that have one and keep it."""
        used = lengths > 0
        if present is not None:
            used = used & present
        if self.training and self.options.modality_dropout:
            kept = torch.rand(used.shape, device=used.device) >= self.options.modality_dropout
            used = used & kept
        return used

    def _series(
        self,
        inputs: Mapping[str, Tensor],
        days: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        batch: int,
    ) -> Tensor:
        series = inputs.get(SERIES)
        bands = self.options.series_bands
        shape = () if series is None else tuple(series.shape)
        if series is None or len(shape) != 5 or shape[::2][:2] != (batch, bands) or 0 in shape:
            found = "missing" if series is None else f"of the shape {shape}"
            form = f"({batch}, T, {bands}, h, w), none of them 0"
            msg = f"{SERIES} must have the shape {form}; it is {found}."
            raise GridError(msg)
        for name, table, shape in (
            ("days", days, series.shape[:2]),
            ("lengths", lengths, series.shape[:1]),
        ):
            if SERIES not in table or table[SERIES].shape != shape:
                told = tuple(table[SERIES].shape) if SERIES in table else "missing"
                msg = f"The {name} of {SERIES} must have the shape {tuple(shape)}; they are {told}."
                raise GridError(msg)
        return series
