"""The network of FLAIR-HUB: images and series to scores, under the names that IGN's weights have.

References
----------
Garioud et al. 2025, arXiv:2506.07080 (FLAIR-HUB). ``docs/models.md`` tells how parts go together.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from flairhub.errors import ConfigError, GridError, did_you_mean
from flairhub.modalities import get_modality
from flairhub.models.alignment import Size, resize
from flairhub.models.ign.decoder import MapDecoder
from flairhub.models.ign.encoder import MonoEncoder
from flairhub.models.ign.fusion import FUSIONS
from flairhub.models.ign.options import IgnOptions, fitted_widths, map_channels, task_name
from flairhub.models.ign.resampling import enlarge
from flairhub.models.ign.utae import UTAE, SeriesMaps
from flairhub.models.scores import Scores


class IgnNetwork(nn.Module):
    """One encoder a modality, their maps fused, one decoder a class set.

    With images, the decoders work on the fused maps; a lone image has nothing to fuse, and its
    fusion layers lie idle. Without images, the scores are the mean of those of the series. What is
    not needed for the scores asked for is not computed, though its parameters exist.

    Parameters
    ----------
    options
        What it takes, predicts and is made of.
    """

    def __init__(self, options: IgnOptions) -> None:
        super().__init__()
        self.options = options
        self.encoders = nn.ModuleDict()
        self._names = {key: get_modality(key).source_name for key in options.modalities}
        images: dict[str, MonoEncoder] = {}
        for key in options.images:
            side = options.size_of(key)
            images[key] = MonoEncoder(
                options.encoder,
                options.bands_of(key),
                (side, side),
                pretrained=options.pretrained,
                checkpointing=options.checkpointing,
            )
            self.encoders[self._names[key]] = images[key]
        self.reference = options.images[0] if options.images else None
        channels = map_channels(options, {key: one.channels for key, one in images.items()})
        widths, decoder_widths = options.series_widths, options.series_decoder_widths
        if self.reference:
            widths = fitted_widths(widths, len(channels[self.reference]))
            decoder_widths = widths
        for key in options.series:
            series = UTAE(options.bands_of(key), widths, decoder_widths, options.out_widths)
            series.checkpointing = options.checkpointing
            self.encoders[self._names[key]] = series
        if options.fusion not in FUSIONS:
            hint = did_you_mean(options.fusion, FUSIONS)
            msg = f"There is no fusion {options.fusion!r}. {hint}"
            raise ConfigError(msg)
        self.fusion_handler = FUSIONS[options.fusion](channels, self.reference)
        self.main_decoders = nn.ModuleDict()
        self.aux_decoders = nn.ModuleDict()
        for task, classes in options.tasks.items():
            name = task_name(task)
            if hasattr(self.main_decoders, name):
                msg = (
                    f"A class set cannot be called {task!r}, as a method of torch's is; rename it."
                )
                raise ConfigError(msg)
            self.main_decoders[name] = self._head(images.get(self.reference or ""), classes)
            for key in options.aux:
                head = self._head(images.get(key), classes)
                self.aux_decoders[f"{self._names[key]}__{name}"] = head

    def _head(self, image: MonoEncoder | None, classes: int) -> nn.Module:
        """Return a decoder of an image's maps, or a convolution of the scores of series."""
        if image is None:
            return nn.Conv2d(self.options.classes, classes, 1)
        return MapDecoder(self.options.decoder, image.channels, classes)

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        days: Mapping[str, Tensor] | None = None,
        size: Size | None = None,
        aux: bool | None = None,
    ) -> Scores:
        """Classify every pixel.

        Parameters
        ----------
        inputs : mapping of Tensor, shape (B, C, H, W) or (B, T, C, H, W), float32
            Every modality of the network, normalised. A date of a series that is 0 everywhere is
            padding.
        days : mapping of Tensor, shape (B, T), float32
            By series, days from 15 May of each date's own year; 0 where padding.
        size
            Height and width of the scores; those of the first input unless given, which is the
            finest of IGN's models.
        aux
            Whether auxiliary heads are computed; in training only unless given.

        Returns
        -------
        Scores

        Raises
        ------
        GridError
            If an input or its days are missing, empty, or have the wrong number of samples, axes or
            channels.
        """
        days = days or {}
        self._check(inputs, days)
        size = size or _side(inputs[self.options.modalities[0]])
        wanted = self.options.aux if (self.training if aux is None else aux) else ()
        images = {k: self.encoders[self._names[k]](inputs[k]) for k in self.options.images}
        series: dict[str, SeriesMaps] = {
            k: self.encoders[self._names[k]](
                inputs[k], days[k], logits=not self.reference or k in wanted
            )
            for k in self.options.series
        }
        main = self._main(images, series, inputs, size)
        found = {}
        for task in self.options.tasks:
            for key in wanted:
                head = self.aux_decoders[f"{self._names[key]}__{task_name(task)}"]
                if key in images:
                    scores = head(images[key], _side(inputs[key]))
                else:
                    scores = head(series[key].logits)
                found[f"{key}/{task}"] = enlarge(scores, size)
        return Scores(main, found)

    def _main(
        self,
        images: Mapping[str, list[Tensor]],
        series: Mapping[str, SeriesMaps],
        inputs: Mapping[str, Tensor],
        size: Size,
    ) -> dict[str, Tensor]:
        heads = {task: self.main_decoders[task_name(task)] for task in self.options.tasks}
        if self.reference is None:
            # resizing commutes with means and 1 x 1 convolutions, so it comes last
            logits = [found.logits for found in series.values() if found.logits is not None]
            mean = torch.stack(logits).mean(0) if len(logits) > 1 else logits[0]
            if len(heads) == 1:
                return {task: enlarge(mean, size) for task in heads}
            return {task: enlarge(head(mean), size) for task, head in heads.items()}
        maps = images[self.reference]
        if len(self.options.modalities) > 1:
            every = {**images, **{key: found.maps for key, found in series.items()}}
            maps = self.fusion_handler(every)
        side = _side(inputs[self.reference])
        return {task: resize(head(maps, side), size) for task, head in heads.items()}

    def _check(self, inputs: Mapping[str, Tensor], days: Mapping[str, Tensor]) -> None:
        for key in self.options.modalities:
            axes, bands = (5 if key in self.options.series else 4), self.options.bands_of(key)
            if key not in inputs:
                msg = f"The network needs {', '.join(self.options.modalities)}; {key} is missing."
                raise GridError(msg)
            shape, first = inputs[key].shape, self.options.modalities[0]
            if len(shape) != axes or shape[-3] != bands or 0 in tuple(shape):
                form = f"{axes} axes and {bands} channels"
                msg = f"{key} must have {form}, and none be 0; its shape is {tuple(shape)}."
                raise GridError(msg)
            if shape[0] != inputs[first].shape[0]:
                msg = (
                    f"All inputs must have the same number of samples; {first} has "
                    f"{inputs[first].shape[0]} and {key} {shape[0]}."
                )
                raise GridError(msg)
            if axes == 5 and (key not in days or days[key].shape != inputs[key].shape[:2]):
                found = tuple(days[key].shape) if key in days else "missing"
                want = tuple(inputs[key].shape[:2])
                msg = f"The days of {key} must have the shape {want}; they are {found}."
                raise GridError(msg)


def _side(raster: Tensor) -> Size:
    return raster.shape[-2], raster.shape[-1]
