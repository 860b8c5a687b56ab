"""What a file of weights is: inputs, classes, encoder, decoder, and what it cannot tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flairhub.errors import CheckpointError, ConfigError
from flairhub.modalities import get_modality
from flairhub.models.flair.options import FlairOptions
from flairhub.models.ign.options import IgnOptions
from flairhub.models.published import ModelOptions, options_of
from flairhub.models.zoo import BANDS, CARDS, ModelCard

_UNTOLD = "The file does not tell the bands of "


@dataclass(frozen=True)
class Identity:
    """What a file of weights fits.

    Parameters
    ----------
    options
        What `flairhub.models.build` makes the same network of.
    card
        The published model with the same inputs and class sets, or None.
    differences
        How `options` differ from those of `card`, as sentences.
    bands
        Channels by modality; empty where their number fits no known choice.
    notes
        What the file does not tell and was taken from the registry.
    described
        The fields of STAC's extension for models that the file came with, where it is of our own
        format: name, licence, source, statistics.
    """

    options: ModelOptions
    card: ModelCard | None
    differences: tuple[str, ...] = ()
    bands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    described: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        options: ModelOptions,
        bands: Mapping[str, tuple[str, ...]],
        notes: tuple[str, ...] = (),
    ) -> Identity:
        """Return what options and bands are among the published models."""
        card = _card(options)
        return cls(options, card, _differences(options, card), bands, notes)

    @property
    def id(self) -> str | None:
        """Id of the published model, or None."""
        return self.card.id if self.card else None

    def with_bands(self, bands: Mapping[str, str | Iterable[str]]) -> Identity:
        """Return the same with bands that the user knows.

        Raises
        ------
        UnknownNameError
            If a modality or band does not exist.
        ConfigError
            If they are no names of bands by modality.
        CheckpointError
            If the file has another number of channels, or not this modality.
        """
        known = dict(self.bands)
        for key, chosen in named_bands(bands).items():
            if key not in self.options.modalities:
                msg = (
                    f"Bands are given for {key}; the file has {', '.join(self.options.modalities)}."
                )
                raise CheckpointError(msg)
            if len(chosen) != self.options.bands_of(key):
                msg = (
                    f"The file has {self.options.bands_of(key)} channels of {key}; "
                    f"got {len(chosen)} bands: {', '.join(chosen)}."
                )
                raise CheckpointError(msg)
            known[key] = chosen
        told = tuple(f"{_UNTOLD}{get_modality(name).key}" for name in bands)
        notes = tuple(note for note in self.notes if not note.startswith(told))
        return replace(self, bands=known, notes=notes)

    def to_plain(self) -> dict[str, Any]:
        """Return dicts, lists, strings and numbers alone, for JSON."""
        options = self.options
        return {
            "id": self.id,
            "modalities": list(options.modalities),
            "tasks": dict(options.tasks),
            "bands": {key: list(found) for key, found in self.bands.items()},
            "channels": {key: options.bands_of(key) for key in options.modalities},
            "sizes": {key: options.size_of(key) for key in options.modalities},
            "encoder": options.encoder if options.images else None,
            "decoder": options.decoder if options.images else None,
            "fusion": options.fusion if isinstance(options, IgnOptions) else None,
            "aux": list(options.aux),
            "metadata": getattr(options, "metadata", "none"),
            "differences": list(self.differences),
            "notes": list(self.notes),
        }


def named_bands(bands: object) -> dict[str, tuple[str, ...]]:
    """Return what a user calls the bands of modalities, by key; a lone text is one band.

    Raises
    ------
    UnknownNameError
        If a modality or band does not exist.
    ConfigError
        If it is no mapping to names, or names no band or one twice.
    """
    if not isinstance(bands, Mapping):
        msg = (
            "Bands are names by modality, in the order of its channels, such as "
            f"{{'aerial_rgbi': ('red', 'green', 'blue')}}; got {bands!r}. For a number of channels "
            "build the model, and load into it."
        )
        raise ConfigError(msg)
    result = {}
    for name, given in bands.items():
        key = get_modality(name).key
        chosen = (given,) if isinstance(given, str) else given
        texts = isinstance(chosen, Sequence) and all(isinstance(band, str) for band in chosen)
        if not texts or not chosen or len(set(chosen)) < len(chosen):
            msg = f"The bands of {key} are different names, at least one; got {given!r}."
            raise ConfigError(msg)
        check_bands(key, chosen)
        result[key] = tuple(chosen)
    return result


def check_bands(key: str, bands: Iterable[str]) -> None:
    """Raise `UnknownNameError` unless all are channels of a modality; heights are computed."""
    computed = set(BANDS.get(key, ())) - set(get_modality(key).band_names)
    get_modality(key).band_indexes(band for band in bands if band not in computed)


def usual_bands(channels: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """Return the bands behind so many channels: IGN's choice, or all; nothing for other numbers."""
    result = {}
    for key, number in channels.items():
        for choice in (BANDS.get(key, ()), get_modality(key).band_names):
            if len(choice) == number:
                result[key] = choice
                break
    return result


def untold_bands(
    channels: Mapping[str, int], bands: Mapping[str, tuple[str, ...]]
) -> Iterable[str]:
    """Yield a note on every modality whose bands had to be taken from the registry."""
    for key, number in channels.items():
        if key not in bands:
            yield f"{_UNTOLD}{key}: {number} channels are no known choice."
        elif bands[key] != get_modality(key).band_names:
            yield f"{_UNTOLD}{key}; taken as {', '.join(bands[key])}."


def _card(options: ModelOptions) -> ModelCard | None:
    for card in CARDS.values():
        same = set(card.modalities) == set(options.modalities) and set(card.tasks) == set(
            options.tasks
        )
        told = isinstance(options, FlairOptions) and options.metadata != "none"
        if same and told == card.metadata:
            return card
    return None


def _differences(options: ModelOptions, card: ModelCard | None) -> tuple[str, ...]:
    """Say how options differ from a published model's."""
    if card is None:
        return ()
    published = options_of(card)
    found = []
    for what in ("encoder", "decoder"):
        if options.images and getattr(options, what) != getattr(published, what):
            found.append(f"{what} {getattr(options, what)} in place of {getattr(published, what)}")
    for task, number in options.tasks.items():
        if number != published.tasks[task]:
            found.append(f"{number} classes of {task} in place of {published.tasks[task]}")
    fusions = [getattr(one, "fusion", None) for one in (options, published)]
    if fusions[0] != fusions[1]:
        found.append(f"fusion {fusions[0]} in place of {fusions[1]}")
    form, usual = (getattr(one, "metadata", None) for one in (options, published))
    if form != usual:
        found.append(f"metadata of the form {form} in place of {usual}")
    for key in options.modalities:
        for what, mine, theirs in (
            ("channels", options.bands_of(key), published.bands_of(key)),
            ("px a patch", options.size_of(key), published.size_of(key)),
        ):
            if mine != theirs:
                found.append(f"{mine} {what} of {key} in place of {theirs}")
    return tuple(found)
