"""From a batch as stored to what a network sees: float32, normalised, augmented, on the device.

===================  ==========================================================================
images, series       ``(x - mean) / std`` per band, in raw units
Sentinel-1           first to decibels, ``10 log10 x``; no signal (0, NaN) becomes 0 in the end
elevation            two channels: height above ground (surface minus terrain) and relief
                     (terrain minus its mean over the window); altitude itself does not transfer
                     from one region to another
masks                percent divided by 100
===================  ==========================================================================

Statistics are those of the file that the configuration names (`flairhub.store.normalisation`), or
IGN's where it publishes some, and else measured by `compute_statistics` on training windows;
nothing is clipped. Pixels that are not finite (no signal, NaN) become 0, the mean. Absent
modalities are 0, and so is the padding of a series.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from flairhub.batches.batch import MultimodalBatch
from flairhub.batches.plan import PatchPlan
from flairhub.batches.streaming import stream
from flairhub.errors import PlanError, did_you_mean
from flairhub.modalities import Kind, Modality, Statistics, get_modality

_SEED = 0
_LEAST_STD = 1e-3


def channel_names(key: str, bands: Sequence[str]) -> tuple[str, ...]:
    """Return what the prepared channels of a modality are: its bands, or height and relief."""
    modality = get_modality(key)
    if modality.kind is not Kind.ELEVATION:
        return tuple(bands)
    return ("height", "relief") if {"dsm", "dtm"} <= set(bands) else ("relief",)


def published_statistics(key: str, bands: Sequence[str]) -> Statistics | None:
    """Return IGN's statistics of the chosen bands, or None where the prepared channels have none.

    Elevation's published figures are of altitudes, which preparation removes.
    """
    modality = get_modality(key)
    if modality.kind is Kind.MASK:
        size = len(bands)
        return Statistics((0.0,) * size, (100.0,) * size, "percent to share")
    found = modality.statistics
    if found is None or modality.kind is Kind.ELEVATION:
        return None
    at = modality.band_indexes(bands)
    mean, std = tuple(found.mean[i] for i in at), tuple(found.std[i] for i in at)
    return Statistics(mean, std, found.source)


def to_physical(pixels: Tensor, modality: Modality, bands: Sequence[str]) -> Tensor:
    """Return float32 channels in the units that statistics are taken in; no signal is NaN.

    Parameters
    ----------
    pixels
        ``(..., C, H, W)``, as stored.
    modality
        Whose pixels they are.
    bands
        Names of the bands on axis -3.

    Returns
    -------
    Tensor
        ``(..., channels, H, W)`` float32: raw units, decibels, or metres.
    """
    values = pixels.float()
    if modality.key.startswith("sentinel1"):
        return torch.where(values > 0, 10 * torch.log10(values.clamp(min=1e-30)), torch.nan)
    if modality.kind is Kind.ELEVATION:
        names = list(bands)
        ground = values[..., names.index("dtm" if "dtm" in names else "dsm"), :, :]
        relief = ground - ground.nanmean(dim=(-2, -1), keepdim=True)
        if len(channel_names(modality.key, bands)) == 1:
            return relief.unsqueeze(-3)
        height = values[..., names.index("dsm"), :, :] - ground
        return torch.stack([height, relief], dim=-3)
    return values


class Preparation(nn.Module):
    """Normalises batches; its statistics are buffers, so they travel with a checkpoint.

    Parameters
    ----------
    bands
        Names of the bands that are read, by modality.
    statistics
        Of modalities for which IGN publishes none, from `compute_statistics`; they also replace
        published ones.

    Raises
    ------
    PlanError
        If a modality has no statistics.
    """

    def __init__(
        self, bands: Mapping[str, Sequence[str]], statistics: Mapping[str, Statistics] | None = None
    ) -> None:
        super().__init__()
        self.bands = {key: tuple(names) for key, names in bands.items()}
        for key, names in self.bands.items():
            found = (statistics or {}).get(key) or published_statistics(key, names)
            size = len(channel_names(key, names))
            if found is None:
                msg = (
                    f"IGN publishes no statistics of the prepared {key}: "
                    "measure them with compute_statistics."
                )
                raise PlanError(msg)
            if len(found.mean) != size:
                msg = f"Statistics of {key} are of {len(found.mean)} channels; it has {size}."
                raise PlanError(msg)
            shape = (size, 1, 1)
            self.register_buffer(f"mean_{key}", torch.tensor(found.mean).reshape(shape))
            self.register_buffer(f"std_{key}", torch.tensor(found.std).reshape(shape))

    def forward(self, batch: MultimodalBatch) -> MultimodalBatch:
        """Return the batch with float32, normalised inputs; labels and dates as they are."""
        inputs = {key: self._prepare(key, pixels, batch) for key, pixels in batch.inputs.items()}
        return MultimodalBatch(
            inputs, batch.labels, batch.days, batch.lengths, batch.present, batch.windows
        )

    def _prepare(self, key: str, pixels: Tensor, batch: MultimodalBatch) -> Tensor:
        values = to_physical(pixels, get_modality(key), self.bands[key])
        mean, std = self.get_buffer(f"mean_{key}"), self.get_buffer(f"std_{key}")
        prepared = torch.nan_to_num((values - mean) / std, nan=0.0, posinf=0.0, neginf=0.0)
        return torch.where(_there(batch, key, prepared), prepared, 0)


def missing_statistics(bands: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the modalities whose statistics must be measured."""
    return tuple(key for key, names in bands.items() if published_statistics(key, names) is None)


def compute_statistics(
    plan: PatchPlan, modalities: Sequence[str] | None = None, *, max_windows: int = 64
) -> dict[str, Statistics]:
    """Measure mean and standard deviation of prepared channels on some windows of a plan.

    Parameters
    ----------
    plan
        Of the training windows.
    modalities
        Keys; those without published statistics when absent.
    max_windows
        Windows to read, drawn without replacement, the same ones every time.

    Returns
    -------
    dict
        By modality, in the units of `to_physical`. Padding, absent inputs and pixels without
        signal do not count.
    """
    wanted = missing_statistics(plan.bands) if modalities is None else modalities
    keys = tuple(get_modality(name).key for name in wanted)
    for key in keys:
        if key not in plan.modalities:
            msg = f"The plan does not read {key}. {did_you_mean(key, plan.modalities)}"
            raise PlanError(msg)
    if not keys:
        return {}
    order = plan.order(shuffle=True, seed=_SEED, epoch=0)[:max_windows]
    narrow = plan.subset(np.sort(order)).only(keys)
    sums: dict[str, Tensor] = {}
    for batch in stream(narrow, batch_size=4):
        for key, pixels in batch.inputs.items():
            values = to_physical(pixels, get_modality(key), plan.bands[key]).double()
            used = torch.isfinite(values) & _there(batch, key, values)
            kept = torch.where(used, values, 0)
            over = [d for d in range(values.dim()) if d != values.dim() - 3]
            part = torch.stack([used.sum(over).double(), kept.sum(over), (kept**2).sum(over)])
            sums[key] = sums[key] + part if key in sums else part
    return {key: _statistics(key, sums[key], len(order)) for key in keys}


def _there(batch: MultimodalBatch, key: str, values: Tensor) -> Tensor:
    """Where `values` are of a present sample and a true date, in a shape that broadcasts."""
    there = batch.present[key].reshape(-1, *(1,) * (values.dim() - 1))
    if key in batch.lengths:
        dates = torch.arange(values.shape[1], device=values.device)
        true = dates < batch.lengths[key][:, None]
        there = there & true[..., None, None, None]
    return there


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


def augment(batch: MultimodalBatch, generator: torch.Generator) -> MultimodalBatch:
    """Flip and turn each sample by one of the eight symmetries of the square.

    All modalities and labels of a sample are turned alike; dates do not change. Windows are square.

    Parameters
    ----------
    batch
        As streamed or prepared.
    generator
        Source of chance, on the CPU.
    """
    choices = torch.randint(0, 8, (len(batch),), generator=generator).tolist()

    def turn(tensor: Tensor) -> Tensor:
        # torch turns no unsigned 16-bit numbers; their bits do not mind another name
        bits = tensor.view(torch.int16) if tensor.dtype == torch.uint16 else tensor
        turned = [_symmetry(sample, choice) for sample, choice in zip(bits, choices, strict=True)]
        return torch.stack(turned).view(tensor.dtype)

    inputs = {key: turn(value) for key, value in batch.inputs.items()}
    labels = {key: turn(value) for key, value in batch.labels.items()}
    return MultimodalBatch(inputs, labels, batch.days, batch.lengths, batch.present, batch.windows)


def _symmetry(sample: Tensor, choice: int) -> Tensor:
    turned = torch.rot90(sample, choice % 4, (-2, -1))
    return turned.flip(-1) if choice >= 4 else turned
