"""The whole network: rasters and series of one ground to class scores at the finest resolution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from flairhub.errors import UnknownNameError, did_you_mean
from flairhub.models.alignment import Size, common_size, next_multiple, pad_to, resize
from flairhub.models.decoders import Decoder
from flairhub.models.fusion import Fusion
from flairhub.models.pyramid import Pyramid
from flairhub.models.raster_encoder import RasterEncoder
from flairhub.models.temporal import SeriesEncoder


class MultimodalSegmenter(nn.Module):
    """Encode every source, merge what lies at the same ground resolution, decode, classify.

    The pyramid is that of the finest raster (one level, the series' own grid, where there is no
    raster). :func:`flairhub.models.build_model` puts the parts together.

    Parameters
    ----------
    rasters, series
        Encoders by modality; at least one in all.
    companions
        By series, the modality whose bands are appended to those of every date (cloud masks).
    resolutions_m
        Pixel side of every modality, companions too, metres.
    pyramid
        The levels, and which map enters which.
    fusions
        One a level.
    decoder
        From the merged pyramid to one map.
    heads
        1x1 convolutions from that map to classes, by nomenclature key.
    dropout
        Share of channels dropped before the heads.
    """

    def __init__(
        self,
        *,
        rasters: Mapping[str, RasterEncoder],
        series: Mapping[str, SeriesEncoder],
        companions: Mapping[str, str],
        resolutions_m: Mapping[str, float],
        pyramid: Pyramid,
        fusions: Sequence[Fusion],
        decoder: Decoder,
        heads: Mapping[str, nn.Conv2d],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.rasters = nn.ModuleDict(rasters)
        self.series = nn.ModuleDict(series)
        self.companions = dict(companions)
        self.resolutions_m = dict(resolutions_m)
        self.levels_m = pyramid.levels_m
        self.placement = {name: pyramid.placement(name) for name in (*rasters, *series)}
        self.fusions = nn.ModuleList(fusions)
        self.decoder = decoder
        self.dropout = nn.Dropout2d(dropout)
        self.heads = nn.ModuleDict(heads)
        self.finest_m = min(resolutions_m.values())

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        days: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Classify every pixel of the common ground.

        Parameters
        ----------
        inputs : mapping of Tensor, shape (B, C, H, W) or (B, T, C, H, W), float32
            By modality, normalised. A modality may be left out, and is then absent everywhere.
        days : mapping of Tensor, shape (B, T), int64
            Days since 1970-01-01, by series.
        lengths : mapping of Tensor, shape (B,), int64
            True number of dates, by series; a series of none is absent.
        present : mapping of Tensor, shape (B,), bool
            Which samples have a modality; all where the key is left out. What stands in the inputs
            of the other samples is never looked at.

        Returns
        -------
        dict of Tensor, shape (B, classes, H, W), float32
            Scores before softmax, by nomenclature key, at the resolution of the finest modality
            that the model was built for.

        Raises
        ------
        GridError
            If inputs do not cover the same ground.
        UnknownNameError
            If the model was not built for an input.
        """
        self._check_names(inputs)
        size = common_size(inputs, self.resolutions_m, self.finest_m)
        padded = next_multiple(size, round(self.levels_m[-1] / self.finest_m))
        maps: list[dict[str, Tensor]] = [{} for _ in self.levels_m]
        rows = {}
        for name, source, has in self._sources(inputs, lengths, present):
            if not bool(has.any()):
                continue
            # Rows of absent samples must not enter the statistics of batch normalisation either.
            chosen = slice(None) if bool(has.all()) else has
            raster = pad_to(source[chosen], self._size(self.resolutions_m[name], padded))
            if name in self.series:
                found = [self.series[name](raster, days[name][chosen], lengths[name][chosen])]
            else:
                found = self.rasters[name](raster)
            for (key, level), one in zip(self.placement[name].items(), found, strict=True):
                maps[level][key], rows[key] = one, has
        batch = len(next(iter(inputs.values())))
        pyramid = [
            fusion(found, rows, batch, self._size(level_m, padded))
            for fusion, found, level_m in zip(self.fusions, maps, self.levels_m, strict=True)
        ]
        decoded = self.dropout(self.decoder(pyramid))
        return {
            label: resize(head(decoded).float(), padded)[..., : size[0], : size[1]]
            for label, head in self.heads.items()
        }

    def _check_names(self, inputs: Mapping[str, Tensor]) -> None:
        for name in inputs:
            if name not in self.resolutions_m:
                hint = did_you_mean(name, self.resolutions_m)
                msg = f"The model was not built for the input {name!r}. {hint}"
                raise UnknownNameError(msg)

    def _size(self, resolution_m: float, padded: Size) -> Size:
        """Return the padded ground's size at another resolution."""
        ratio = self.finest_m / resolution_m
        return round(padded[0] * ratio), round(padded[1] * ratio)

    def _sources(
        self,
        inputs: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
    ) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield name, pixels and (B,) presence of every source given, companions appended."""
        for name in self.placement:
            companion = self.companions.get(name, name)
            if name not in inputs or companion not in inputs:
                continue
            source = inputs[name]
            has = torch.ones(len(source), dtype=torch.bool, device=source.device)
            for key in (name, companion):
                has = has & present.get(key, has)
            if name in self.series:
                has = has & (lengths[name] > 0)
            if companion != name:
                source = torch.cat([source, inputs[companion]], dim=2)
            yield name, source, has
