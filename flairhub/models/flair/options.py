"""What a baseline takes, predicts and is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from flairhub.errors import ConfigError, did_you_mean
from flairhub.modalities import get_modality
from flairhub.models.ign.options import check_options
from flairhub.models.zoo import ModelCard

IMAGE, SERIES, TASK = "flair_aerial", "flair_sentinel2_ts", "flair"
"""Keys of the inputs in `flairhub.modalities`, and of the classes in `flairhub.nomenclatures`."""

ENCODER, DECODER = "resnet34", "unet"

Form = Literal["none", "ign", "own"]
"""Whether metadata are taken, and how: as IGN's code does, or with its faults repaired."""


@dataclass(frozen=True)
class FlairOptions:
    """Options of a baseline of FLAIR#1 or FLAIR#2.

    Parameters
    ----------
    bands
        Channels of the aerial image.
    classes
        Number of classes; `flairhub.models.flair.classes` has the numberings of 12, 13, 15 and 19.
    series_bands
        Channels of a date of the Sentinel-2 series; 0 for a network of the image alone.
    metadata
        Whether metadata of the image are taken: see `flairhub.models.flair.conditioning`.
    modality_dropout
        Share of samples whose series is left out in training.
    pretrained
        Start the image's encoder from ImageNet weights, as IGN did (downloaded on first use).

    Raises
    ------
    ConfigError
        If a value is none of those.
    """

    bands: int = 5
    classes: int = 13
    series_bands: int = 0
    metadata: Form = "none"
    modality_dropout: float = 0.0
    pretrained: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        if self.bands < 1 or self.classes < 1 or self.series_bands < 0:
            msg = (
                "A baseline needs at least one band and one class; got "
                f"bands={self.bands}, classes={self.classes}, series_bands={self.series_bands}."
            )
            raise ConfigError(msg)
        if self.metadata not in get_args(Form):
            hint = did_you_mean(str(self.metadata), get_args(Form))
            msg = f"metadata={self.metadata!r} is no form of metadata. {hint}"
            raise ConfigError(msg)
        if not 0 <= self.modality_dropout <= 1:
            msg = f"modality_dropout={self.modality_dropout} is a share: from 0 to 1."
            raise ConfigError(msg)

    @classmethod
    def of(cls, card: ModelCard, **changes: Any) -> FlairOptions:  # noqa: ANN401
        """Return the options of a published baseline, some of them changed.

        Raises
        ------
        ConfigError
            If the model is no baseline, or there is no such option.
        """
        if card.family not in ("flair-1", "flair-2"):
            msg = f"{card.id} is a model of {card.family}, no baseline of FLAIR#1 or FLAIR#2."
            raise ConfigError(msg)
        options = cls(
            bands=len(card.bands[IMAGE]),
            classes=card.classes[0],
            series_bands=len(card.bands.get(SERIES, ())),
            metadata="ign" if card.metadata else "none",
        )
        return options.changed(**changes)

    def changed(self, **changes: Any) -> FlairOptions:  # noqa: ANN401
        """Return the same with other values; raises `ConfigError` if there is no such option."""
        check_options(self.__dataclass_fields__, changes)
        return replace(self, **changes)

    def with_bands(self, channels: Mapping[str, int]) -> FlairOptions:
        """Return the same with other numbers of channels, by modality."""
        return replace(
            self,
            bands=channels.get(IMAGE, self.bands),
            series_bands=channels.get(SERIES, self.series_bands),
        )

    @property
    def encoder(self) -> str:
        """Of the image, in the words of segmentation-models-pytorch."""
        return ENCODER

    @property
    def decoder(self) -> str:
        """Of the image, in the same words."""
        return DECODER

    @property
    def aux(self) -> tuple[str, ...]:
        """Inputs with an auxiliary head."""
        return self.series

    @property
    def images(self) -> tuple[str, ...]:
        """Inputs of one date."""
        return (IMAGE,)

    @property
    def series(self) -> tuple[str, ...]:
        """Inputs of many dates."""
        return (SERIES,) if self.series_bands else ()

    @property
    def modalities(self) -> tuple[str, ...]:
        """All inputs."""
        return (*self.images, *self.series)

    @property
    def tasks(self) -> dict[str, int]:
        """Number of classes by class set."""
        return {TASK: self.classes}

    def bands_of(self, key: str) -> int:
        """Return the number of channels of an input."""
        return self.series_bands if key == SERIES else self.bands

    def size_of(self, key: str) -> int:
        """Return the side of an input, pixels; of a series with what lies around the image."""
        modality = get_modality(key)
        return modality.around_px or modality.patch_px
