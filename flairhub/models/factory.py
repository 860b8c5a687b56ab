"""From a configuration and the registry to a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from flairhub.config import ModelConfig
from flairhub.errors import ConfigError
from flairhub.modalities import Kind, Modality, get_modality
from flairhub.models.decoders import Decoder
from flairhub.models.fusion import Fusion
from flairhub.models.pyramid import Pyramid, SourceMap
from flairhub.models.raster_encoder import RasterEncoder
from flairhub.models.segmenter import MultimodalSegmenter
from flairhub.models.temporal import SeriesEncoder
from flairhub.nomenclatures import get_nomenclature

FIRST_REDUCTION = {"unet": 2, "upernet": 4}
"""Input pixels per pixel of the finest map that a decoder uses."""

LAST_REDUCTION = 32
"""Input pixels of the finest raster per pixel of the coarsest map."""


def build_model(
    config: ModelConfig,
    modalities: Iterable[str],
    bands: Mapping[str, int],
    labels: Iterable[str],
) -> MultimodalSegmenter:
    """Build the network of a run, with fresh weights unless `config` asks for published ones.

    The finest raster's encoder gives the levels of the pyramid. Every other map, of a coarser
    raster or of a series, enters the level whose pixels are nearest to its own in metres: a
    10.24 m series joins where an aerial image has been reduced to 6.4 m. Encoders of coarser
    rasters end at the ground resolution where the finest one's does.

    Parameters
    ----------
    config
        Names and widths.
    modalities
        Inputs, by registry key: any rasters, any series, at least one of them.
    bands
        Channels of every input, of one date for a series.
    labels
        Class sets to predict, by nomenclature key.

    Raises
    ------
    ConfigError
        If an encoder does not exist, or there is nothing to encode.
    UnknownNameError
        If a modality or label set does not exist.
    """
    chosen = [get_modality(name) for name in modalities]
    sources = sorted(
        (m for m in chosen if m.kind not in (Kind.MASK, Kind.LABEL)),
        key=lambda m: (m.temporal, m.resolution_m),
    )
    if not sources:
        msg = f"A model needs a raster or a series; got {[m.key for m in chosen]}."
        raise ConfigError(msg)
    companions = {m.group: m.key for m in chosen if m.kind is Kind.MASK}
    rasters = _raster_encoders(config, [m for m in sources if not m.temporal], bands)
    series = {
        m.key: SeriesEncoder(
            bands[m.key] + bands.get(companions.get(m.key, ""), 0),
            config.series_channels,
            config.series_heads,
        )
        for m in sources
        if m.temporal
    }
    pyramid = Pyramid.of(
        {m.key: _maps(m, rasters.get(m.key), config.series_channels) for m in sources},
        lead=sources[0].key,
    )
    widths = [min(found[0].channels, config.fusion_channels) for found in pyramid.entering]
    decoder = Decoder(config.decoder, widths, config.decoder_channels)
    return MultimodalSegmenter(
        rasters=rasters,
        series=series,
        companions=companions,
        resolutions_m={m.key: m.resolution_m for m in chosen},
        pyramid=pyramid,
        fusions=[
            Fusion({one.key: one.channels for one in found}, width)
            for found, width in zip(pyramid.entering, widths, strict=True)
        ],
        decoder=decoder,
        heads={
            key: nn.Conv2d(decoder.out_channels, len(get_nomenclature(key)), 1) for key in labels
        },
        dropout=config.dropout,
    )


def _maps(source: Modality, encoder: RasterEncoder | None, channels: int) -> list[SourceMap]:
    """Describe the maps of a source: an encoder's, or the one of a series."""
    if encoder is None:
        return [SourceMap(source.key, source.resolution_m, channels)]
    return [
        SourceMap(source.key, source.resolution_m * reduction, width)
        for reduction, width in zip(encoder.reductions, encoder.channels, strict=True)
    ]


def _raster_encoders(
    config: ModelConfig, rasters: list[Modality], bands: Mapping[str, int]
) -> dict[str, RasterEncoder]:
    """Return an encoder a raster; all end at the ground resolution of the finest one's last map."""
    return {
        m.key: RasterEncoder(
            config.encoders.get(m.key, config.encoder),
            bands[m.key],
            min_reduction=FIRST_REDUCTION[config.decoder]
            * rasters[0].resolution_m
            / m.resolution_m,
            max_reduction=LAST_REDUCTION * rasters[0].resolution_m / m.resolution_m,
            pretrained=config.pretrained,
        )
        for m in rasters
    }
