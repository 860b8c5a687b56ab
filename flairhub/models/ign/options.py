"""Everything that decides the names, shapes and numbers of a network of IGN's form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

import numpy as np

from flairhub.errors import ConfigError, did_you_mean
from flairhub.modalities import MODALITIES, Kind, dataset_modalities, get_modality
from flairhub.models.zoo import BANDS, SWIN_BASE, ModelCard
from flairhub.nomenclatures import NOMENCLATURES

SERIES_WIDTHS = (64, 64, 64, 128)
SERIES_DECODER_WIDTHS = (32, 32, 64, 128)
SERIES_OUT_WIDTHS = (32, 19)
"""IGN's configuration of the series' network; see `fitted_widths` and `IgnOptions`."""

HEADS = 16
"""Of the attention over time: every width of a series' encoder is a multiple."""


@dataclass(frozen=True)
class IgnOptions:
    """What a network of IGN's form takes, predicts and is made of.

    Parameters
    ----------
    modalities
        Inputs, by key of `flairhub.modalities`, in any order; they are encoded in IGN's.
    tasks
        Number of classes by class set. Keys of `flairhub.nomenclatures` have IGN's names in the
        state dict; other names keep theirs.
    bands
        Channels of single modalities, of one date for a series, where they differ from
        `flairhub.models.zoo.BANDS`. Elevation has two, or one where only heights are given.
    sizes
        Sides of the patches of single modalities, pixels, where they differ from the registry's.
        Tables of relative positions in Swin depend on them; other sizes can still be given.
    encoder
        Of every image: Swin in timm's names, an encoder of segmentation-models-pytorch
        (``resnet34``), or any network of timm with maps at 1/4 to 1/32.
    decoder
        ``upernet`` in the form of smp 0.4.0, or another decoder of segmentation-models-pytorch.
    fusion
        How maps of many modalities become those of one; ``concat`` is IGN's.
    aux
        Modalities with auxiliary heads.
    series_widths, series_decoder_widths
        Of the series' encoder and decoder, finest level first. With images both are replaced by
        `fitted_widths`.
    series_out_widths
        Of the last layers of a series' network; the number of all classes is appended where it is
        not the last.
    checkpointing
        In training, compute blocks again in the backward pass and keep less in memory.
    pretrained
        Start encoders of images from the published weights of timm or smp.

    Raises
    ------
    ConfigError
        If there is no input, an input is a mask or label, an auxiliary head has no input, a number
        is not a whole one of at least 1, widths do not fit each other, or a class set is named
        twice or cannot be a part of a parameter's name.
    UnknownNameError
        If a modality does not exist.
    """

    modalities: tuple[str, ...]
    tasks: Mapping[str, int]
    bands: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    encoder: str = SWIN_BASE
    decoder: str = "upernet"
    fusion: str = "concat"
    aux: tuple[str, ...] = ()
    series_widths: tuple[int, ...] = SERIES_WIDTHS
    series_decoder_widths: tuple[int, ...] = SERIES_DECODER_WIDTHS
    series_out_widths: tuple[int, ...] = SERIES_OUT_WIDTHS
    checkpointing: bool = False
    pretrained: bool = False

    def __post_init__(self) -> None:
        """Check names and bring modalities into IGN's order."""
        found = [get_modality(key) for key in self.modalities]
        unfit = [m.key for m in found if m.kind in (Kind.MASK, Kind.LABEL)]
        if unfit or not found:
            msg = f"A network needs images or series; got {unfit or 'no modality'}."
            raise ConfigError(msg)
        self._check_tasks()
        places = list(MODALITIES)
        ordered = sorted(set(self.modalities), key=lambda k: (is_series(k), places.index(k)))
        object.__setattr__(self, "modalities", tuple(ordered))
        stray = [key for key in (*self.aux, *self.bands, *self.sizes) if key not in ordered]
        if stray:
            msg = f"{stray} are set but are no inputs; the inputs are {ordered}."
            raise ConfigError(msg)
        for name, numbers in (("bands", self.bands), ("sizes", self.sizes)):
            for key, number in numbers.items():
                if not _counts(number):
                    msg = f"{name} of {key} must be a whole number of at least 1; got {number!r}."
                    raise ConfigError(msg)
        if self.series:
            self._check_widths()
        object.__setattr__(self, "aux", tuple(key for key in ordered if key in self.aux))

    def _check_tasks(self) -> None:
        if not isinstance(self.tasks, Mapping):
            msg = f"tasks are numbers of classes by class set, {{'cosia': 19}}; got {self.tasks!r}."
            raise ConfigError(msg)
        if not self.tasks or not all(map(_counts, self.tasks.values())):
            msg = f"A network needs class sets of at least one class; got {dict(self.tasks)}."
            raise ConfigError(msg)
        by_name: dict[str, str] = {}
        for task in self.tasks:
            name = task_name(task)
            if not name or "." in name:
                msg = f"Names of class sets are no empty text and have no dot; got {task!r}."
                raise ConfigError(msg)
            if name in by_name:
                msg = f"{by_name[name]!r} and {task!r} are one class set; give it once."
                raise ConfigError(msg)
            by_name[name] = task

    def _check_widths(self) -> None:
        for name in ("series_widths", "series_decoder_widths", "series_out_widths"):
            widths = getattr(self, name)
            if not widths or not all(map(_counts, widths)):
                msg = f"{name} must be whole numbers of at least 1; got {widths!r}."
                raise ConfigError(msg)
        encoder, decoder = self.series_widths, self.series_decoder_widths
        if not self.images and (len(encoder) != len(decoder) or encoder[-1] != decoder[-1]):
            msg = (
                "series_widths and series_decoder_widths must be as many and have the same last; "
                f"got {encoder} and {decoder}."
            )
            raise ConfigError(msg)
        if any(width % HEADS for width in encoder):
            msg = f"series_widths must be multiples of {HEADS}; got {encoder}."
            raise ConfigError(msg)

    @classmethod
    def of(cls, card: ModelCard, **changes: Any) -> IgnOptions:  # noqa: ANN401
        """Return the options of a published model, some of them changed.

        Raises
        ------
        ConfigError
            If the model is not of this form.
        """
        if card.family != "flair-hub":
            msg = f"{card.id} is a model of {card.family}, not of the form of FLAIR-HUB's."
            raise ConfigError(msg)
        options = cls(
            modalities=card.modalities,
            tasks=dict(zip(card.tasks, card.classes, strict=True)),
            encoder=card.encoder or SWIN_BASE,
            decoder=card.decoder or "upernet",
        )
        return options.changed(**changes)

    def changed(self, **changes: Any) -> IgnOptions:  # noqa: ANN401
        """Return the same with other values; raises `ConfigError` if there is no such option."""
        check_options(self.__dataclass_fields__, changes)
        return replace(self, **changes)

    def with_bands(self, channels: Mapping[str, int]) -> IgnOptions:
        """Return the same with other numbers of channels, by modality."""
        return replace(self, bands={**self.bands, **channels})

    @property
    def images(self) -> tuple[str, ...]:
        """Inputs of one date; the first is the reference, whose maps the others are brought to."""
        return tuple(key for key in self.modalities if not is_series(key))

    @property
    def series(self) -> tuple[str, ...]:
        """Inputs of many dates."""
        return tuple(key for key in self.modalities if is_series(key))

    @property
    def classes(self) -> int:
        """Classes of all tasks together."""
        return sum(self.tasks.values())

    @property
    def out_widths(self) -> tuple[int, ...]:
        """`series_out_widths`, ending in the number of classes."""
        widths = self.series_out_widths
        return widths if widths[-1] == self.classes else (*widths, self.classes)

    def bands_of(self, key: str) -> int:
        """Return the number of channels of an input."""
        known = BANDS.get(key)
        return self.bands.get(key, len(known or get_modality(key).bands))

    def size_of(self, key: str) -> int:
        """Return the side of an input's patches, pixels."""
        return self.sizes.get(key, get_modality(key).patch_px)


def _counts(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def check_options(known: Iterable[str], changes: Iterable[str]) -> None:
    """Raise `ConfigError` unless all names of changes are known ones."""
    for name in changes:
        if name not in known:
            msg = f"There is no option {name!r} of such a model. {did_you_mean(name, known)}"
            raise ConfigError(msg)


def is_series(key: str) -> bool:
    """Return whether a modality has many dates."""
    return get_modality(key).temporal


def task_name(task: str) -> str:
    """Return IGN's name of a class set: ``cosia`` is ``AERIAL_LABEL-COSIA``."""
    if task in NOMENCLATURES:
        for modality in dataset_modalities():
            if modality.nomenclatures[:1] == (task,):
                return modality.source_name
    return task


def map_channels(
    options: IgnOptions, images: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Return the channels of the maps that are fused, by modality, in the order in which they meet.

    Parameters
    ----------
    options
        Of the network.
    images
        Channels of the maps of every image, by modality, as `MonoEncoder` has them.
    """
    result = {}
    for key, found in images.items():
        # with a map at 1/2 the image itself counts as a map, though no decoder looks at it
        extra = (options.bands_of(key),) if found[0] else ()
        result[key] = (*extra, *(n for n in found if n))
    widths = options.series_decoder_widths
    if options.images:
        widths = fitted_widths(options.series_widths, len(result[options.images[0]]))
    return result | {key: tuple(reversed(widths)) for key in options.series}


def fitted_widths(widths: Iterable[int], levels: int) -> tuple[int, ...]:
    """Return as many widths as an image's encoder has levels, powers of two.

    They rise evenly from the smallest of `widths` to the largest. (63, 85, 107, 129) become
    (64, 64, 128, 128): IGN's series have these in encoder and decoder wherever there is an image.
    """
    found = list(widths)
    even = np.linspace(min(found) - 1, max(found) + 1, levels).astype(int)
    return tuple(int(2 ** round(np.log2(width))) for width in even)
