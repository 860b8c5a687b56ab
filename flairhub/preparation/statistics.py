"""Mean and standard deviation of prepared channels: published, of the user's file, or measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from flairhub.batches.batch import MultimodalBatch
from flairhub.batches.plan import PatchPlan
from flairhub.batches.streaming import stream
from flairhub.config import DataConfig, PreparationConfig
from flairhub.errors import PlanError, did_you_mean
from flairhub.modalities import Kind, Statistics, get_modality
from flairhub.preparation.physical import channel_names, to_physical
from flairhub.preparation.series import true_dates
from flairhub.store.normalisation import read_normalisation

_SEED = 0
_LEAST_STD = 1e-3


def published_statistics(key: str, channels: Sequence[str]) -> Statistics | None:
    """Return IGN's statistics of the prepared channels, or None where one of them has none.

    Elevation's published figures are of altitudes, ``dsm`` and ``dtm``.
    """
    modality = get_modality(key)
    if modality.kind is Kind.MASK:
        size = len(channels)
        return Statistics((0.0,) * size, (100.0,) * size, "percent to share")
    found = modality.statistics
    if found is None or not set(channels) <= set(modality.band_names):
        return None
    at = modality.band_indexes(channels)
    mean, std = tuple(found.mean[i] for i in at), tuple(found.std[i] for i in at)
    return Statistics(mean, std, found.source)


def missing_statistics(
    bands: Mapping[str, Sequence[str]], config: PreparationConfig | None = None
) -> tuple[str, ...]:
    """Return the modalities whose statistics must be measured."""
    return tuple(
        key
        for key, names in bands.items()
        if published_statistics(key, channel_names(key, names, config)) is None
    )


def run_statistics(
    data: DataConfig, plan: PatchPlan, *, max_windows: int = 64
) -> dict[str, Statistics]:
    """Return the statistics that are not IGN's: of the configured file, else measured.

    Parameters
    ----------
    data
        The ``data`` section of a run.
    plan
        Of its training windows.
    max_windows
        Windows on which to measure what neither IGN nor the file has.

    Returns
    -------
    dict
        By modality. Of elevation, altitudes have IGN's figures even where height or relief beside
        them are measured: some windows say little about the altitudes of a country.

    Raises
    ------
    ConfigError
        If the file cannot be read, or its channels are not those of the run.
    """
    if data.preparation.mode == "ign":
        return {}
    bands = {key: data.bands_of(key) for key in data.modalities}
    channels = {k: channel_names(k, names, data.preparation) for k, names in bands.items()}
    given: dict[str, Statistics] = {}
    if data.statistics is not None:
        given = read_normalisation(data.statistics, channels)
    missing = [k for k in missing_statistics(bands, data.preparation) if k not in given]
    measured = compute_statistics(plan, missing, data.preparation, max_windows=max_windows)
    return given | {k: _with_altitudes(k, channels[k], found) for k, found in measured.items()}


def compute_statistics(
    plan: PatchPlan,
    modalities: Sequence[str] | None = None,
    config: PreparationConfig | None = None,
    *,
    max_windows: int = 64,
) -> dict[str, Statistics]:
    """Measure mean and standard deviation of prepared channels on some windows of a plan.

    Parameters
    ----------
    plan
        Of the training windows.
    modalities
        Keys; those without published statistics when absent.
    config
        Says which channels are made of elevation. Clouds and composites do not matter: every date
        counts.
    max_windows
        Windows to read, drawn without replacement, the same ones every time.

    Returns
    -------
    dict
        By modality, in the units of `to_physical`. Padding, absent inputs and pixels without
        signal do not count.
    """
    wanted = missing_statistics(plan.bands, config) if modalities is None else modalities
    keys = tuple(get_modality(name).key for name in wanted)
    for key in keys:
        if key not in plan.modalities:
            msg = f"The plan does not read {key}. {did_you_mean(key, plan.modalities)}"
            raise PlanError(msg)
    if not keys:
        return {}
    order = np.random.default_rng(_SEED).permutation(len(plan))[:max_windows]
    narrow = plan.subset(np.sort(order)).only(keys)
    sums: dict[str, Tensor] = {}
    for batch in stream(narrow, batch_size=4):
        for key, pixels in batch.inputs.items():
            bands = plan.bands[key]
            channels = channel_names(key, bands, config)
            values = to_physical(key, pixels, bands, channels).double()
            used = torch.isfinite(values) & _there(batch, key)
            kept = torch.where(used, values, 0)
            over = [d for d in range(values.dim()) if d != values.dim() - 3]
            part = torch.stack([used.sum(over).double(), kept.sum(over), (kept**2).sum(over)])
            sums[key] = sums[key] + part if key in sums else part
    return {key: _statistics(key, sums[key], len(order)) for key in keys}


def _there(batch: MultimodalBatch, key: str) -> Tensor:
    """Where an input is of a present sample and a true date, in a shape that broadcasts."""
    there, pixels = batch.present[key], batch.inputs[key]
    if key in batch.lengths:
        there = there[:, None] & true_dates(batch.lengths[key], pixels.shape[1])
    return there[(...,) + (None,) * (pixels.dim() - there.dim())]


def _statistics(key: str, sums: Tensor, windows: int) -> Statistics:
    """Mean and standard deviation of each channel from count, sum and sum of squares."""
    count, total, squares = sums
    if not count.all():
        msg = f"{key} has no pixel in {windows} windows of the plan: no statistics to measure."
        raise PlanError(msg)
    mean = total / count
    # a flat channel would divide by nothing
    std = (squares / count - mean**2).clamp(min=0).sqrt().clamp(min=_LEAST_STD)
    source = f"measured on {windows} training windows"
    return Statistics(tuple(mean.tolist()), tuple(std.tolist()), source)


def _with_altitudes(key: str, channels: Sequence[str], measured: Statistics) -> Statistics:
    """Replace what was measured of altitudes by what IGN publishes."""
    mean, std = list(measured.mean), list(measured.std)
    for at, channel in enumerate(channels):
        published = published_statistics(key, [channel])
        if published is not None:
            (mean[at],), (std[at],) = published.mean, published.std
    return Statistics(tuple(mean), tuple(std), measured.source)
