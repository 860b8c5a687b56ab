"""The whole network: rasters and series of one ground to class scores at the finest resolution.

References
----------
Garioud et al. 2025, arXiv:2506.07080 (FLAIR-HUB), whose inputs and class sets these are; the papers
of the parts are named where they lie. ``docs/own-form.md`` tells what differs from IGN's network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from flairhub.errors import GridError
from flairhub.models.absence import AbsentTokens, ModalityDropout
from flairhub.models.alignment import Size, common_size, next_multiple, pad_to, resize
from flairhub.models.checks import CallForm
from flairhub.models.dates import computes_all
from flairhub.models.decoders import Decoder
from flairhub.models.encoder import MapEncoder
from flairhub.models.pyramid import Pyramid
from flairhub.models.scores import Scores


class MultimodalSegmenter(nn.Module):
    """Encode every source, merge what lies at the same ground resolution, decode, classify.

    The pyramid is that of the finest raster, or of a series where there is no raster.
    :func:`flairhub.models.build_model` puts the parts together.

    Parameters
    ----------
    rasters, series
        Encoders by modality; at least one in all.
    companions
        By series, the modality whose bands are appended to those of every date (cloud masks).
    bands
        Channels of every modality, companions too, of one date for a series.
    resolutions_m
        Pixel side of every modality, companions too, metres.
    pyramid
        The levels, and which map enters which.
    tokens
        What stands for the maps of absent modalities, where it has any.
    modality_dropout
        Leaves modalities out in training.
    fusions
        One a level, called as `flairhub.models.fusion.MeanFusion`.
    decoder
        From the merged pyramid to one map.
    heads
        1x1 convolutions from that map to classes, by nomenclature key.
    auxiliary
        Heads on the maps of one modality, called as `flairhub.models.auxiliary.AuxiliaryHead`, by
        modality and nomenclature key.
    dropout
        Share of channels dropped before the heads.
    """

    def __init__(
        self,
        *,
        rasters: Mapping[str, MapEncoder],
        series: Mapping[str, MapEncoder],
        companions: Mapping[str, str],
        bands: Mapping[str, int],
        resolutions_m: Mapping[str, float],
        pyramid: Pyramid,
        tokens: AbsentTokens,
        modality_dropout: ModalityDropout,
        fusions: Sequence[nn.Module],
        decoder: Decoder,
        heads: Mapping[str, nn.Conv2d],
        auxiliary: Mapping[str, Mapping[str, nn.Module]],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.rasters = nn.ModuleDict(rasters)
        self.series = nn.ModuleDict(series)
        self.companions = dict(companions)
        self.bands = dict(bands)
        self.resolutions_m = dict(resolutions_m)
        self.levels_m = pyramid.levels_m
        self.placement = {name: pyramid.placement(name) for name in (*rasters, *series)}
        self.tokens = tokens
        self.modality_dropout = modality_dropout
        self.fusions = nn.ModuleList(fusions)
        self.decoder = decoder
        self.dropout = nn.Dropout2d(dropout)
        self.heads = nn.ModuleDict(heads)
        self.auxiliary = nn.ModuleDict(
            {modality: nn.ModuleDict(each) for modality, each in auxiliary.items()}
        )
        self.finest_m = min(resolutions_m.values())
        self.form = CallForm(bands, self.placement, series, companions)

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        days: Mapping[str, Tensor] | None = None,
        lengths: Mapping[str, Tensor] | None = None,
        present: Mapping[str, Tensor] | None = None,
        size: Size | None = None,
    ) -> Scores:
        """Classify every pixel of the common ground.

        Parameters
        ----------
        inputs : mapping of Tensor, shape (B, C, H, W) or (B, T, C, H, W), float32
            By modality, normalised; any of those that the model was built for. One that is left out
            is absent everywhere. A series and its companion are given both or neither.
        days : mapping of Tensor, shape (B, T), int64
            Days since 1970-01-01, by series.
        lengths : mapping of Tensor, shape (B,), int64
            True number of dates, by series, from 0 to T; a series of none is absent. All dates are
            true where the key is left out. Those of companions are not used. On other devices than
            the CPU and in graphs numbers are not looked at: less than 0 is as 0, more than T as T.
        present : mapping of Tensor, shape (B,), bool
            Which samples have a modality; all where the key is left out. What stands in the inputs
            of the other samples is never looked at. A series is absent where its companion is.
        size
            Height and width of the scores; unless given, those that the ground has at the
            resolution of the finest modality that the model was built for.

        Returns
        -------
        Scores
            Before softmax, float32. In training also those of the auxiliary heads of the modalities
            given, where the model has such heads; they mean nothing for samples without the
            modality.

        Raises
        ------
        GridError
            If inputs do not cover the same ground, a tensor does not fit, or no sample has anything
            (which a compiled or exported network does not notice). A sample that has nothing, among
            others that do, gets scores that say nothing: those of any other such sample.
        UnknownNameError
            If a name is none that the model was built for.
        """
        days, lengths, present = days or {}, lengths or {}, present or {}
        self.form.check(inputs, days, lengths, present)
        ground = common_size(inputs, self.resolutions_m, self.finest_m)
        padded = next_multiple(ground, round(self.levels_m[-1] / self.finest_m))
        batch = next(iter(inputs.values())).shape[0]  # len() would fix it in exported graphs
        maps: dict[str, list[Tensor]] = {}
        rows: dict[str, Tensor] = {}
        for name, source, has in self._sources(inputs, lengths, present):
            found = self._encode(name, source, has, days, lengths, padded)
            if found:
                maps[name] = found
                if has is not None:
                    rows[name] = has
        if not maps:
            msg = (
                f"No sample has any of {', '.join(inputs)}: `present` is False or `lengths` are 0 "
                "for all of them, so there is nothing to classify."
            )
            raise GridError(msg)
        pyramid = self._merge(maps, rows, batch, padded)
        decoded = self.dropout(self.decoder(pyramid))

        def to_pixels(scores: Tensor) -> Tensor:
            whole = resize(scores.float(), padded)[..., : ground[0], : ground[1]]
            return whole if size is None else resize(whole, size)

        main = {label: to_pixels(head(decoded)) for label, head in self.heads.items()}
        aux = {
            f"{name}/{label}": to_pixels(head(maps[name]))
            for name, heads in self.auxiliary.items()
            for label, head in heads.items()  # type: ignore[operator]
            if self.training and name in maps
        }
        return Scores(main, aux)

    def _size(self, resolution_m: float, padded: Size) -> Size:
        """Return the padded ground's size at another resolution."""
        ratio = self.finest_m / resolution_m
        return round(padded[0] * ratio), round(padded[1] * ratio)

    def _sources(
        self,
        inputs: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
    ) -> Iterator[tuple[str, Tensor, Tensor | None]]:
        """Yield name, pixels and (B,) presence of every source given, companions appended.

        Presence is None where nothing says that a sample could lack the source.
        """
        for name in self.placement:
            companion = self.companions.get(name)
            if name not in inputs:
                continue
            source = inputs[name]
            flags = [present[key] for key in (name, companion) if key and key in present]
            if name in lengths:
                flags.append(lengths[name] > 0)
            if companion:
                source = torch.cat([source, inputs[companion]], dim=2)
            yield name, source, torch.stack(flags).all(dim=0) if flags else None

    def _encode(
        self,
        name: str,
        source: Tensor,
        has: Tensor | None,
        days: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        padded: Size,
    ) -> list[Tensor]:
        """Return the maps of a source for the whole batch, or none if no sample has it.

        Parameters
        ----------
        name
            Of the source.
        source : Tensor, shape (B, C, H, W) or (B, T, C, H, W)
            Pixels, a companion's bands appended.
        has : Tensor, shape (B,), bool, or None
            Which samples have it; all where None.
        days : mapping of Tensor, shape (B, T)
        lengths : mapping of Tensor, shape (B,)
        padded
            Size of the padded ground at the finest resolution.

        Returns
        -------
        list of Tensor, shapes (B, channels[i], h_i, w_i)
            Finest first; 0, or in graphs anything, where a sample lacks the source.
        """
        rows = None
        # Rows of absent samples must not enter the statistics of batch normalisation either.
        if has is not None and not computes_all(source, self.training) and not bool(has.all()):
            rows = has.nonzero()[:, 0]
            if not len(rows):
                return []
        raster = pad_to(
            source if rows is None else source[rows], self._size(self.resolutions_m[name], padded)
        )
        if name in self.series:
            when = [found[name] if rows is None else found[name][rows]
                    for found in (days, lengths) if name in found]  # fmt: skip
            maps: list[Tensor] = self.series[name](raster, *when)
        else:
            maps = self.rasters[name](raster)
        if rows is None:
            return maps
        return [m.new_zeros(len(source), *m.shape[1:]).index_copy(0, rows, m) for m in maps]

    def _merge(
        self,
        maps: Mapping[str, Sequence[Tensor]],
        rows: Mapping[str, Tensor],
        batch: int,
        padded: Size,
    ) -> list[Tensor]:
        """Return the merged pyramid.

        Parameters
        ----------
        maps : mapping of sequences of Tensor, shapes (B, channels[i], h_i, w_i)
            By source, finest first.
        rows : mapping of Tensor, shape (B,), bool
            By source, which samples have it; all where the key is left out.
        batch
            B.
        padded
            Size of the padded ground at the finest resolution.

        Returns
        -------
        list of Tensor, shapes (B, width of the level, h_i, w_i)
            Finest first.
        """
        if self.training and self.modality_dropout.active:
            here = next(iter(self.parameters())).device
            every = torch.ones(batch, dtype=torch.bool, device=here)
            rows = self.modality_dropout({name: rows.get(name, every) for name in maps})
        entering: list[dict[str, Tensor]] = [{} for _ in self.levels_m]
        present: dict[str, Tensor] = {}
        for name, places in self.placement.items():
            for place, (key, level) in enumerate(places.items()):
                found = maps[name][place] if name in maps else None
                if key in self.tokens:
                    entering[level][key] = self.tokens(key, found, rows.get(name), batch)
                elif found is not None:
                    entering[level][key] = found
                    if name in rows:
                        present[key] = rows[name]
        return [
            fusion(found, present, batch, self._size(level_m, padded))
            for fusion, found, level_m in zip(self.fusions, entering, self.levels_m, strict=True)
        ]
