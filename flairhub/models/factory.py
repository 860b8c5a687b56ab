"""From a configuration and the registry to a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from torch import nn

from flairhub.config import ModelConfig
from flairhub.errors import ConfigError, did_you_mean
from flairhub.modalities import Kind, Modality, get_modality
from flairhub.models.absence import AbsentTokens, ModalityDropout
from flairhub.models.auxiliary import AuxiliaryHead
from flairhub.models.decoders import Convolutions
from flairhub.models.encoder import MapEncoder
from flairhub.models.pyramid import Pyramid, SourceMap
from flairhub.models.raster_encoder import RasterEncoder
from flairhub.models.registry import (
    DECODERS,
    FUSIONS,
    RASTER_ENCODERS,
    SERIES_ENCODERS,
    choose,
    import_own_blocks,
)
from flairhub.models.segmenter import MultimodalSegmenter
from flairhub.nomenclatures import get_nomenclature

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
    10.24 m series joins where an aerial image has been reduced to 6.4 m. Other encoders end at the
    ground resolution where the finest raster's does.

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
        If a block does not exist, there is nothing to encode, or modality dropout leaves nothing.
    UnknownNameError
        If a modality or label set does not exist.
    """
    import_own_blocks()
    chosen = [get_modality(name) for name in modalities]
    sources = sorted(
        (m for m in chosen if m.kind not in (Kind.MASK, Kind.LABEL)),
        key=lambda m: (m.temporal, m.resolution_m),
    )
    if not sources:
        msg = f"A model needs a raster or a series; got {[m.key for m in chosen]}."
        raise ConfigError(msg)
    masks = [m for m in chosen if m.kind is Kind.MASK]
    companions = {m.group: m.key for m in masks}
    names = [m.key for m in sources]
    for name in config.modality_dropout:
        if name not in names:
            msg = f"model.modality_dropout names {name!r}. {did_you_mean(name, names)}"
            raise ConfigError(msg)
    make_fusion = choose(FUSIONS, "fusion", config.fusion)
    make_decoder = choose(DECODERS, "decoder", config.decoder)
    encoders = {
        m.key: _raster_encoder(config, m, bands[m.key], make_decoder.first_reduction, sources[0])
        for m in sources
        if not m.temporal
    }
    rasters = dict(encoders)
    for m in sources[len(rasters) :]:
        width = bands[m.key] + bands.get(companions.get(m.key, ""), 0)
        encoders[m.key] = _series_encoder(config, m, width, sources[0])
    pyramid = Pyramid.of({m.key: _maps(m, encoders[m.key]) for m in sources}, lead=names[0])
    widths = [min(found[0].channels, config.fusion_channels) for found in pyramid.entering]
    decoder = (make_decoder if len(widths) > 1 else Convolutions)(widths, config.decoder_channels)
    return MultimodalSegmenter(
        rasters=rasters,
        series={key: encoder for key, encoder in encoders.items() if key not in rasters},
        companions=companions,
        bands={m.key: bands[m.key] for m in (*sources, *masks)},
        resolutions_m={m.key: m.resolution_m for m in chosen},
        pyramid=pyramid,
        tokens=AbsentTokens(
            {
                one.key: one.channels
                for found in pyramid.entering
                for one in found
                if one.source in config.modality_dropout
            }
        ),
        modality_dropout=ModalityDropout({n: config.modality_dropout.get(n, 0.0) for n in names}),
        fusions=[
            make_fusion({one.key: one.channels for one in found}, width)
            for found, width in zip(pyramid.entering, widths, strict=True)
        ],
        decoder=decoder,
        heads={
            key: nn.Conv2d(decoder.out_channels, len(get_nomenclature(key)), 1) for key in labels
        },
        auxiliary={
            name: {
                key: AuxiliaryHead(encoder.channels, len(get_nomenclature(key))) for key in labels
            }
            for name, encoder in encoders.items()
            if config.auxiliary
        },
        dropout=config.dropout,
    )


def _maps(source: Modality, encoder: MapEncoder) -> list[SourceMap]:
    return [
        SourceMap(source.key, source.resolution_m * reduction, width)
        for reduction, width in zip(encoder.reductions, encoder.channels, strict=True)
    ]


def _raster_encoder(
    config: ModelConfig, raster: Modality, bands: int, first_reduction: int, lead: Modality
) -> MapEncoder:
    name = config.encoders.get(raster.key, config.encoder)
    timm: Callable[..., MapEncoder] = partial(RasterEncoder, name, image=raster.patch_px)
    ratio = lead.resolution_m / raster.resolution_m
    return RASTER_ENCODERS.get(name, timm)(
        bands,
        min_reduction=first_reduction * ratio,
        max_reduction=LAST_REDUCTION * ratio,
        pretrained=config.pretrained,
    )


def _series_encoder(
    config: ModelConfig, series: Modality, bands: int, lead: Modality
) -> MapEncoder:
    return choose(SERIES_ENCODERS, "series_encoder", config.series_encoder)(
        bands,
        config.series_channels,
        config.series_heads,
        max_reduction=LAST_REDUCTION * lead.resolution_m / series.resolution_m,
    )
