"""What IGN's loader makes of the same TIFFs, for networks that were trained behind it.

docs/preparation.md lists the rules and where they are deliberately not followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from flairhub import ign
from flairhub.batches.batch import MultimodalBatch
from flairhub.config import CloudFilter, PreparationConfig
from flairhub.config.preparation import Period, check_ign_bands
from flairhub.errors import PlanError
from flairhub.modalities import MODALITIES, Kind, Statistics, get_modality
from flairhub.preparation.calendar import day_in, month_of
from flairhub.preparation.clouds import Fallback
from flairhub.preparation.composites import ign_composite
from flairhub.preparation.physical import channel_names
from flairhub.preparation.pipeline import Preparation
from flairhub.preparation.series import Series, true_dates


class IgnPreparation(Preparation):
    """Prepares batches as IGN's loader does, to a relative error of 1e-6.

    Rasters are normalised with the statistics of `flairhub.ign`; series stay as they are. Masks
    choose dates and are no input of the network: prepared batches do not have them.

    Parameters
    ----------
    bands
        Names of the bands that are read, by modality, in the order of the network's channels.
    config
        Of mode ``ign``; IGN's default when absent: surface and height, clouds filtered where a
        series has masks, no composites.
    statistics
        By modality, a value a prepared channel, where a network was trained with others than those
        of `flairhub.ign`. With them, any bands may be read.

    Raises
    ------
    PlanError
        If the bands, options or statistics do not fit each other.
    """

    fallback: Fallback = "without snow"

    def __init__(
        self,
        bands: Mapping[str, Sequence[str]],
        config: PreparationConfig | None = None,
        statistics: Mapping[str, Statistics] | None = None,
    ) -> None:
        config, given = config or _default(bands), dict(statistics or {})
        if config.mode != "ign":
            msg = f"This is the preparation of mode ign; the configuration says {config.mode!r}."
            raise PlanError(msg)
        try:
            check_ign_bands({key: names for key, names in bands.items() if key not in given})
        except ValueError as error:
            msg = f"{error} Or give their statistics."
            raise PlanError(msg) from None
        for key, names in bands.items():
            if get_modality(key).kind is not Kind.MASK:
                given.setdefault(key, _statistics(key, len(channel_names(key, names, config))))
        super().__init__(bands, given, config)
        self.channels = {k: v for k, v in self.channels.items() if k not in self._masks.values()}
        for key in self.channels:
            mean = torch.tensor(given[key].mean, dtype=torch.float64).reshape(-1, 1, 1)
            residue = mean - self.get_buffer(f"mean_{key}").double()
            self.register_buffer(f"residue_{key}", residue.float())

    def forward(self, batch: MultimodalBatch) -> MultimodalBatch:
        """Return the batch with float32 inputs as IGN's networks were trained on.

        Days are still counted from 1970: `day_offsets` gives IGN's. A month that repeats the one
        before has its day, and one before the first has the reference day, of offset 0.
        """
        ready = super().forward(batch)
        inputs, days, lengths = (
            {key: value for key, value in part.items() if key in self.channels}
            for part in (ready.inputs, ready.days, ready.lengths)
        )
        return replace(ready, inputs=inputs, days=days, lengths=lengths)

    def _average(self, series: Series, period: Period) -> Series:
        return ign_composite(series, period)

    def _physical(self, key: str, pixels: Tensor) -> Tensor:
        if get_modality(key).temporal:
            return pixels.to(torch.float32, copy=True)
        return super()._physical(key, pixels)

    def _normalise(self, key: str, values: Tensor) -> Tensor:
        """Subtract the mean in two parts: IGN does so in float64, which counts near the mean."""
        if get_modality(key).temporal:
            return values
        mean, residue, std = (
            self.get_buffer(f"{part}_{key}") for part in ("mean", "residue", "std")
        )
        return values.sub_(mean).sub_(residue).div_(std)


def day_offsets(days: Tensor, lengths: Tensor) -> Tensor:
    """Return days since 15 May of each date's own year, as IGN's networks encode dates.

    Parameters
    ----------
    days : Tensor, shape (B, T), int64
        Days since 1970-01-01.
    lengths : Tensor, shape (B,), int64
        True number of dates.

    Returns
    -------
    Tensor, shape (B, T), float32
        From -134 to 230; 0 where padded.
    """
    month, _ = month_of(days)
    first, day = ign.REFERENCE_DAY
    offsets = days - day_in(month - month % 12 + first - 1, day)
    return torch.where(true_dates(lengths, days.shape[1]), offsets, 0).float()


def _default(bands: Mapping[str, Sequence[str]]) -> PreparationConfig:
    """Return IGN's default; a series that could be filtered asks for its masks."""
    masked = {m.group for m in MODALITIES.values() if m.kind is Kind.MASK}
    return PreparationConfig(mode="ign", clouds=CloudFilter() if masked & bands.keys() else None)


def _statistics(key: str, channels: int) -> Statistics:
    """Return IGN's statistics of the first channels; those that change nothing for a series."""
    found = ign.STATISTICS.get(key)
    if found is None:
        return Statistics((0.0,) * channels, (1.0,) * channels, "as stored")
    return Statistics(found.mean[:channels], found.std[:channels], found.source)
