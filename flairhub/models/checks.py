"""What a call of the own network must look like: names, shapes, types; numbers where that is free.

Names, shapes and types are known without waiting, in compiled and exported graphs too, which keep
nothing of these checks. Numbers of lengths are looked at on the CPU alone: a GPU would wait for
them, and a graph has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from flairhub.errors import GridError, UnknownNameError, did_you_mean


class CallForm:
    """What a network was built for, and whether a call fits.

    Parameters
    ----------
    bands
        Channels of every modality, of one date for a series.
    sources
        Modalities that are encoded; the others accompany a series.
    series
        Those of them that have many dates.
    companions
        By series, the modality whose bands are appended to those of every date.
    """

    def __init__(
        self,
        bands: Mapping[str, int],
        sources: Iterable[str],
        series: Iterable[str],
        companions: Mapping[str, str],
    ) -> None:
        self.bands = dict(bands)
        self.sources = tuple(sources)
        self.series = tuple(series)
        self.companions = {name: companions[name] for name in self.series if name in companions}
        self.temporal = (*self.series, *companions.values())

    def check(
        self,
        inputs: Mapping[str, Tensor],
        days: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
    ) -> None:
        """Refuse a call that does not fit; see `MultimodalSegmenter.forward`.

        Raises
        ------
        GridError
            If there is nothing to encode, a series lacks its companion or days, or a tensor has
            another shape, type or number than it must.
        UnknownNameError
            If a name is none that the network was built for.
        """
        for name in inputs:
            if name not in self.bands:
                hint = did_you_mean(name, self.bands)
                msg = f"The model was not built for the input {name!r}. {hint}"
                raise UnknownNameError(msg)
        _check_names("days", days, self.temporal)
        _check_names("lengths", lengths, self.temporal)
        _check_names("present", present, self.bands)
        if not any(name in inputs for name in self.sources):
            needs = [f"{n} with {self.companions[n]}" if n in self.companions else n
                     for n in self.sources]  # fmt: skip
            found = ", ".join(inputs) or "none"
            msg = f"The model needs at least one input of {', '.join(needs)}; got {found}."
            raise GridError(msg)
        batch = next(iter(inputs.values())).shape[:1]
        for name, pixels in inputs.items():
            self._check_pixels(name, pixels, batch)
        for name, companion in self.companions.items():
            _check_pair(name, companion, inputs)
        for name in self.series:
            if name in inputs:
                _check_tensor(f"The days of {name}", days.get(name), inputs[name].shape[:2], _DAYS)
        for name, numbers in lengths.items():
            _check_tensor(f"The lengths of {name}", numbers, batch, _COUNTS)
            if name in inputs:
                _check_counts(name, numbers, inputs[name].shape[1])
        for name, flags in present.items():
            _check_tensor(f"The flags `present` of {name}", flags, batch, "bool")

    def _check_pixels(self, name: str, pixels: Tensor, batch: torch.Size) -> None:
        lead = ("B", "T") if name in self.temporal else ("B",)
        form = (*lead, str(self.bands[name]), "H", "W")
        shape = tuple(pixels.shape)
        if len(shape) != len(form) or shape[-3] != self.bands[name] or 0 in shape:
            msg = (
                f"{name} must have the shape ({', '.join(form)}), none of them 0; its shape is "
                f"{shape}."
            )
            raise GridError(msg)
        if pixels.shape[:1] != batch:
            msg = (
                f"All inputs must have the same number of samples; the first has {batch[0]} and "
                f"{name} {shape[0]}."
            )
            raise GridError(msg)
        if not pixels.is_floating_point():
            msg = (
                f"{name} must be normalised floating-point numbers; it is {pixels.dtype}. "
                "flairhub.preparation makes them from what a store holds."
            )
            raise GridError(msg)


_DAYS = "whole numbers, days since 1970-01-01"
_COUNTS = "whole numbers"


def _check_names(part: str, given: Mapping[str, Tensor], known: Iterable[str]) -> None:
    for name in given:
        if name not in known:
            of = "input" if part == "present" else "series"
            msg = f"{part} names {name!r}, which is no {of} of the model. "
            raise UnknownNameError(msg + (did_you_mean(name, known) if known else ""))


def _check_pair(series: str, companion: str, inputs: Mapping[str, Tensor]) -> None:
    given = [name for name in (series, companion) if name in inputs]
    if len(given) == 1:
        msg = (
            f"The model was built for {series} with {companion}; only {given[0]} is given. Give "
            "both or neither; `present` says which samples have them."
        )
        raise GridError(msg)
    dates = [inputs[name].shape[1] for name in given]
    if given and dates[0] != dates[1]:
        msg = f"{series} and {companion} must have the same dates; found {dates[0]} and {dates[1]}."
        raise GridError(msg)


def _check_tensor(what: str, found: Tensor | None, shape: torch.Size, kind: str) -> None:
    if found is None or found.shape != shape:
        told = "missing" if found is None else str(tuple(found.shape))
        msg = f"{what} must have the shape {tuple(shape)}; they are {told}."
        raise GridError(msg)
    whole = not (found.is_floating_point() or found.is_complex())
    if not whole or (found.dtype == torch.bool) != (kind == "bool"):
        msg = f"{what} must be {kind}; they are {found.dtype}."
        raise GridError(msg)


def _check_counts(name: str, lengths: Tensor, dates: int) -> None:
    if torch.compiler.is_compiling() or lengths.device.type != "cpu":
        return
    if bool(((lengths < 0) | (lengths > dates)).any()):
        msg = (
            f"The lengths of {name} must lie between 0 and {dates}, its number of dates; they are "
            f"{lengths.tolist()}."
        )
        raise GridError(msg)
