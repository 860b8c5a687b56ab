"""What networks take and give, as flat tensors by name.

A `Signature` is what a program needs to call a network that it knows nothing else of: export,
drawing and tests are made of it alone. `signature_of` gives that of any network of the package; for
a class of one's own, register a function of the same arguments with `signature_of.register`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn

from flairhub.errors import ExportError, UnknownNameError, did_you_mean
from flairhub.ign import REFERENCE_DAY
from flairhub.modalities import get_modality
from flairhub.models.alignment import Size
from flairhub.models.flair.metadata import WIDTH
from flairhub.models.flair.unet import FlairUnet
from flairhub.models.flair.utt import TextureTime
from flairhub.models.ign.network import IgnNetwork
from flairhub.models.segmenter import MultimodalSegmenter

SAMPLES = "samples"
"""The open axis that all inputs share."""

_OFFSETS = (-134, 231)
_EPOCH_DAYS = (16_000, 20_000)
"""Bounds of days in examples, counted in two ways."""

Sizes = Mapping[str, Size]


@dataclass(frozen=True, slots=True)
class Input:
    """One tensor.

    Parameters
    ----------
    argument
        Of the network's ``forward``.
    key
        In that argument, where it is a mapping.
    axes
        Sizes, and names of those that are open; axes of one name have one size.
    dtype
        Type of its numbers.
    values
        Bounds of whole numbers that it holds; normal numbers where None.
    meaning
        What they are, for people.
    """

    argument: str
    key: str | None
    axes: tuple[str | int, ...]
    dtype: torch.dtype = torch.float32
    values: tuple[int, int] | None = None
    meaning: str = ""

    @property
    def name(self) -> str:
        """``sentinel2_ts`` of pixels; ``sentinel2_ts_days``; the argument's where it has no key."""
        parts = (self.key, None if self.argument == "inputs" else self.argument)
        return "_".join(filter(None, parts))

    def shape(self, open_sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return its shape, given the sizes of open axes."""
        return tuple(open_sizes[axis] if isinstance(axis, str) else axis for axis in self.axes)

    def __str__(self) -> str:
        """Return name, type and axes."""
        axes = ", ".join(map(str, self.axes))
        return f"{self.name} ({axes}) {str(self.dtype).removeprefix('torch.')}"


@dataclass(frozen=True, slots=True)
class Signature:
    """What a network takes and gives.

    Parameters
    ----------
    inputs
        In the order of a call: pixels by modality, then days, lengths, presence and metadata.
    outputs
        Class sets, whose scores (B, classes, H, W) it gives.
    size
        Height and width of the scores; the network's own choice where None.
    """

    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    size: Size | None = None

    @property
    def open_axes(self) -> tuple[str, ...]:
        """Names of all open axes."""
        named = (axis for one in self.inputs for axis in one.axes if isinstance(axis, str))
        return tuple(dict.fromkeys(named))

    def arguments(self, tensors: Iterable[Tensor]) -> dict[str, Any]:
        """Return the arguments of ``forward`` for tensors in the order of `inputs`."""
        found: dict[str, Any] = {} if self.size is None else {"size": self.size}
        for one, tensor in zip(self.inputs, tensors, strict=True):
            if one.key is None:
                found[one.argument] = tensor
            else:
                found.setdefault(one.argument, {})[one.key] = tensor
        return found

    def open_sizes(self, samples: int, dates: int) -> dict[str, int]:
        """Return sizes of open axes: one date more for each series, so that no two are alike."""
        others = [axis for axis in self.open_axes if axis != SAMPLES]
        return {SAMPLES: samples} | {axis: dates + place for place, axis in enumerate(others)}

    def examples(self, samples: int = 2, dates: int = 3, seed: int = 0) -> dict[str, Tensor]:
        """Return random inputs by name.

        The first sample has everything; series and images of others may end early or be absent. A
        network that knows padding by its zeros gets some in the first sample.
        """
        chance = torch.Generator().manual_seed(seed)
        sizes = self.open_sizes(samples, dates)
        found: dict[str, Tensor] = {}
        for one in self.inputs:
            shape = one.shape(sizes)
            if one.values is None:
                found[one.name] = torch.randn(shape, generator=chance)
            else:
                drawn = torch.randint(*one.values, shape, generator=chance)
                found[one.name] = drawn.to(one.dtype)
        for one in self.inputs:
            if one.argument == "lengths":
                longest = found[f"{one.key}_days"].shape[1]
                found[one.name] %= longest + 1
                found[one.name][0] = longest
            elif one.argument == "present":
                found[one.name][0] = True
            elif one.argument == "days" and f"{one.key}_lengths" not in found:
                end = max(1, found[one.name].shape[1] - 1)
                found[str(one.key)][0, end:], found[one.name][0, end:] = 0, 0
        return found


@singledispatch
def signature_of(
    network: nn.Module, size: Size | None = None, sizes: Sizes | None = None
) -> Signature:
    """Say what a network takes and gives.

    Parameters
    ----------
    network
        Of the package, or of a class that is registered here.
    size
        Height and width of the scores; see its ``forward``.
    sizes
        Heights and widths of inputs by modality, where they are not those that it is made for, or
        of a patch.

    Raises
    ------
    ExportError
        If its class is not known.
    UnknownNameError
        If sizes are given for what is no input.
    """
    known = ", ".join(kind.__name__ for kind in signature_of.registry if kind is not object)
    msg = (
        f"It is not known what a {type(network).__name__} takes; known are {known}. Register a "
        "function that tells it with flairhub.models.signatures.signature_of.register."
    )
    raise ExportError(msg)


@signature_of.register
def _(network: IgnNetwork, size: Size | None = None, sizes: Sizes | None = None) -> Signature:
    options = network.options
    made_for = {key: 2 * (options.size_of(key),) for key in options.modalities}
    bands = {key: options.bands_of(key) for key in options.modalities}
    inputs = (*_pixels(bands, made_for, sizes), *_offsets(options.series))
    return Signature(inputs, tuple(options.tasks), size)


@signature_of.register
def _(
    network: MultimodalSegmenter, size: Size | None = None, sizes: Sizes | None = None
) -> Signature:
    bands, series = network.bands, tuple(network.series)
    inputs = (
        *_pixels(bands, {key: 2 * (get_modality(key).patch_px,) for key in bands}, sizes),
        *(
            Input(
                "days",
                key,
                (SAMPLES, _dates(key)),
                torch.int64,
                _EPOCH_DAYS,
                "days since 1970-01-01",
            )
            for key in series
        ),
        *_lengths(series),
        *(
            Input("present", key, (SAMPLES,), torch.bool, (0, 2), f"whether a sample has {key}")
            for key in network.rasters
        ),
    )
    return Signature(inputs, tuple(network.heads), size)


@signature_of.register
def _(network: FlairUnet, size: Size | None = None, sizes: Sizes | None = None) -> Signature:
    return _baseline(network, (), size, sizes)


@signature_of.register
def _(network: TextureTime, size: Size | None = None, sizes: Sizes | None = None) -> Signature:
    return _baseline(network, network.options.series, size, sizes)


def _baseline(
    network: FlairUnet | TextureTime,
    series: tuple[str, ...],
    size: Size | None,
    sizes: Sizes | None,
) -> Signature:
    options = network.options
    bands = {key: options.bands_of(key) for key in (*options.images, *series)}
    metadata = (
        ()
        if options.metadata == "none"
        else (
            Input(
                "metadata",
                None,
                (SAMPLES, WIDTH),
                meaning="flairhub.models.flair.encode_metadata",
            ),
        )
    )
    inputs = (
        *_pixels(bands, {key: 2 * (options.size_of(key),) for key in bands}, sizes),
        *_offsets(series),
        *_lengths(series),
        *metadata,
    )
    return Signature(inputs, tuple(options.tasks), size)


def _pixels(bands: Mapping[str, int], made_for: Sizes, sizes: Sizes | None) -> Iterator[Input]:
    for key in sizes or {}:
        if key not in bands:
            msg = f"A size is given for {key!r}, which is no input. {did_you_mean(key, bands)}"
            raise UnknownNameError(msg)
    for key, number in bands.items():
        modality = get_modality(key)
        dates = (_dates(modality.group),) if modality.temporal else ()
        size = {**made_for, **(sizes or {})}[key]
        yield Input(
            "inputs", key, (SAMPLES, *dates, number, *size), meaning="prepared as for training"
        )


def _offsets(series: Iterable[str]) -> Iterator[Input]:
    month, day = REFERENCE_DAY
    meaning = f"days from {month:02}-{day:02} of each date's own year"
    for key in series:
        yield Input("days", key, (SAMPLES, _dates(key)), torch.float32, _OFFSETS, meaning)


def _lengths(series: Iterable[str]) -> Iterator[Input]:
    for key in series:
        meaning = f"number of true dates of {key}, which come first; 0 where it is absent"
        yield Input("lengths", key, (SAMPLES,), torch.int64, (0, 2**16), meaning)


def _dates(series: str) -> str:
    """Name the axis of a series' dates; masks share that of their series."""
    return f"dates_{series}"
