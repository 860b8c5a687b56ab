"""All of the preparation, in order: clouds, composites, physical units, normalisation, absence.

===================  ==========================================================================
images, series       ``(x - mean) / std`` per band, in raw units
Sentinel-1           in decibels, ``10 log10 x``; no signal (0, NaN) becomes 0 in the end
elevation            the configured channels, each with its own statistics; height above ground
                     and relief unless told otherwise, since altitude itself does not transfer
                     from one region to another
masks                percent divided by 100; dates and composites as their series
===================  ==========================================================================

Nothing is clipped. Pixels that are not finite (no signal, NaN) become 0, the mean. Absent
modalities are 0, and so is the padding of a series.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from flairhub.batches.batch import MultimodalBatch
from flairhub.config import PreparationConfig
from flairhub.config.preparation import Period
from flairhub.errors import PlanError
from flairhub.modalities import Kind, Statistics, get_modality
from flairhub.preparation.clouds import Fallback, clear_dates, without_clouds
from flairhub.preparation.composites import composite
from flairhub.preparation.physical import channel_names, to_physical
from flairhub.preparation.series import Series
from flairhub.preparation.statistics import published_statistics


class Preparation(nn.Module):
    """Prepares batches; its statistics are buffers, so they travel with a checkpoint.

    Parameters
    ----------
    bands
        Names of the bands that are read, by modality.
    statistics
        Of modalities for which IGN publishes none, from `compute_statistics`; they also replace
        published ones.
    config
        Channels of elevation, clouds and composites; the defaults when absent.

    Attributes
    ----------
    channels : dict of tuple of str
        Names of the channels of prepared inputs, by modality.

    Raises
    ------
    PlanError
        If a modality has no statistics, or the options do not fit the bands.
    """

    fallback: Fallback = "clearest"

    def __init__(
        self,
        bands: Mapping[str, Sequence[str]],
        statistics: Mapping[str, Statistics] | None = None,
        config: PreparationConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config or PreparationConfig()
        self.bands = {key: tuple(names) for key, names in bands.items()}
        try:
            self.config.check(self.bands)
        except ValueError as error:
            raise PlanError(str(error)) from None
        self.channels = {k: channel_names(k, names, self.config) for k, names in self.bands.items()}
        self._masks = {
            get_modality(key).group: key
            for key in self.bands
            if get_modality(key).kind is Kind.MASK
        }
        for key, channels in self.channels.items():
            found = (statistics or {}).get(key) or published_statistics(key, channels)
            if found is None:
                msg = (
                    f"IGN publishes no statistics of the prepared {key} ({', '.join(channels)}): "
                    "measure them with compute_statistics."
                )
                raise PlanError(msg)
            sizes = {len(found.mean), len(found.std)}
            if sizes != {len(channels)}:
                msg = (
                    f"Statistics of {key} are of {len(found.mean)} channels; it has "
                    f"{len(channels)}: {', '.join(channels)}."
                )
                raise PlanError(msg)
            self.register_buffer(f"mean_{key}", _column(found.mean))
            self.register_buffer(f"std_{key}", _column(found.std))

    def forward(self, batch: MultimodalBatch) -> MultimodalBatch:
        """Return the batch with float32, normalised inputs; labels as they are.

        Series have other dates where clouds or composites are configured: days and lengths say
        which. Masks have as many dates as their series, padded where they are absent.

        Raises
        ------
        PlanError
            If the batch has another modality, or another number of bands of one.
        """
        self._check(batch)
        days, lengths = dict(batch.days), dict(batch.lengths)
        inputs = {}
        for key in batch.inputs.keys() - lengths.keys():
            inputs[key] = self._finish(key, batch.inputs[key], batch.present[key])
        for key, series in self._series(batch).items():
            days[key], lengths[key] = series.days, series.lengths
            there = series.true() & batch.present[key][:, None]
            inputs[key] = self._finish(key, series.values, there)
        ordered = {key: inputs[key] for key in batch.inputs}
        return replace(batch, inputs=ordered, days=days, lengths=lengths)

    def _check(self, batch: MultimodalBatch) -> None:
        """Refuse pixels that would be normalised with other bands' statistics."""
        for key, pixels in batch.inputs.items():
            if key not in self.bands:
                msg = f"The batch has {key}; this preparation is of {', '.join(self.bands)}."
                raise PlanError(msg)
            bands, rank = self.bands[key], 5 if key in batch.lengths else 4
            if pixels.dim() != rank or pixels.shape[-3] != len(bands):
                msg = (
                    f"{key} of the batch has the shape {tuple(pixels.shape)}; this preparation is "
                    f"of {len(bands)} bands ({', '.join(bands)}), shape (batch, "
                    f"{'dates, ' if rank == 5 else ''}{len(bands)}, rows, columns). Prepare with "
                    "the bands of the plan: Preparation(plan.bands)."
                )
                raise PlanError(msg)

    def _series(self, batch: MultimodalBatch) -> dict[str, Series]:
        """Return the series without clouds, averaged; masks on the dates of their series."""
        found = {
            key: Series(batch.inputs[key].float(), batch.days[key], batch.lengths[key])
            for key in batch.inputs.keys() & batch.lengths.keys()
        }
        for key, mask in self._masks.items():
            if self.config.clouds is not None and {key, mask} <= found.keys():
                bands = self.bands[mask]
                clear = clear_dates(found[mask], bands, self.config.clouds, self.fallback)
                found[key], found[mask] = without_clouds(found[key], found[mask], clear)
        for key, period in self.config.composites.items():
            for name in {key, self._masks.get(key, key)} & found.keys():
                found[name] = self._average(found[name], period)
        for key, mask in self._masks.items():
            if {key, mask} <= found.keys():
                found[mask] = found[mask].to_size(found[key].days.shape[1])
        return found

    def _finish(self, key: str, pixels: Tensor, there: Tensor) -> Tensor:
        """Return normalised pixels, 0 where there is nothing; `there` is (B,) or (B, T)."""
        values = self._normalise(key, self._physical(key, pixels))
        if pixels.is_floating_point():
            values.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        # asking a device whether anything is absent would make it wait
        if there.device.type != "cpu" or not bool(there.all()):
            values.masked_fill_(~there[(...,) + (None,) * (values.dim() - there.dim())], 0)
        return values

    def _average(self, series: Series, period: Period) -> Series:
        return composite(series, period)

    def _physical(self, key: str, pixels: Tensor) -> Tensor:
        """Return float32 pixels of the prepared channels, in memory of their own."""
        return to_physical(key, pixels, self.bands[key], self.channels[key])

    def _normalise(self, key: str, values: Tensor) -> Tensor:
        """Normalise in place: every further pass over memory costs as much as the arithmetic."""
        return values.sub_(self.get_buffer(f"mean_{key}")).div_(self.get_buffer(f"std_{key}"))


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values).reshape(-1, 1, 1)
