"""How batches become the numbers that a network sees: the options of ``data.preparation``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field, field_validator

from flairhub import ign
from flairhub.config.section import Fraction, Section, refuse, without_repeats
from flairhub.errors import did_you_mean
from flairhub.modalities import Kind, get_modality

ElevationChannel = Literal["dsm", "dtm", "height", "relief"]
Period = Literal["monthly", "semi-monthly"]
Percent = Annotated[float, Field(ge=0, le=100)]

ELEVATION_NEEDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "dsm": frozenset({"dsm"}),
        "dtm": frozenset({"dtm"}),
        "height": frozenset({"dsm", "dtm"}),
        "relief": frozenset(),
    }
)
"""Bands from which each channel of elevation is made; relief takes the lowest there is."""


class CloudFilter(Section):
    """Which dates of a window are clear enough; the defaults are IGN's."""

    max_cloud: Percent = Field(
        default=1, description="Cloud probability, percent, above which a pixel is hidden."
    )
    max_snow: Percent = Field(
        default=1, description="Snow probability, percent, above which a pixel is hidden."
    )
    max_share: Fraction = Field(
        default=0.05, description="Share of a window's pixels that may be hidden."
    )


class PreparationConfig(Section):
    """How batches are prepared on the device (docs/preparation.md)."""

    mode: Literal["own", "ign"] = Field(
        default="own",
        description="Whose rules hold where they differ: `own`, or `ign` for networks that were "
        "trained behind IGN's loader.",
    )
    elevation: tuple[ElevationChannel, ...] | None = Field(
        default=None,
        min_length=1,
        description="Channels made of elevation: dsm, dtm, height (their difference), relief "
        "(terrain minus its mean over the window). When absent height and relief (relief alone "
        "where bands name one of the two), or dsm and height in mode ign.",
    )
    clouds: CloudFilter | None = Field(
        default=None,
        description="Leave out dates of series that have masks; all dates are kept when absent.",
    )
    composites: dict[str, Period] = Field(
        default_factory=dict,
        description="Means by series, monthly or semi-monthly; every date where absent.",
    )

    @field_validator("elevation")
    @classmethod
    def _check_elevation(cls, channels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if channels is None else without_repeats(channels)

    def elevation_of(self, bands: Sequence[str]) -> tuple[str, ...]:
        """Return the channels that are made of an elevation raster's bands."""
        if self.elevation is not None:
            return self.elevation
        if self.mode == "ign":
            return ign.ELEVATIONS[0]
        return ("height", "relief") if {"dsm", "dtm"} <= set(bands) else ("relief",)

    def check(self, bands: Mapping[str, Sequence[str]]) -> None:
        """Raise `ValueError` if these options do not fit the bands that are read, by modality."""
        modalities = {key: get_modality(key) for key in bands}
        for key, modality in modalities.items():
            if modality.kind is Kind.ELEVATION:
                self._check_bands(key, bands[key])
        if self.elevation is not None and not any(
            m.kind is Kind.ELEVATION for m in modalities.values()
        ):
            refuse("preparation.elevation is given, but no elevation is read: add 'dem_elev'.")
        series = [key for key, m in modalities.items() if m.kind is Kind.SERIES]
        for key in self.composites:
            if key not in series:
                hint = did_you_mean(key, series)
                refuse(f"preparation.composites names {key!r}, which is no series read. {hint}")
        masks = [key for key, m in modalities.items() if m.kind is Kind.MASK]
        if self.clouds is not None and not masks:
            refuse("preparation.clouds needs snow and cloud masks: add 'sentinel2_msk_sc'.")
        for key in masks if self.clouds is not None else ():
            if not {"snow", "cloud"} <= set(bands[key]):
                refuse(f"preparation.clouds needs the bands snow and cloud of {key!r}.")
        if self.mode == "ign" and self.elevation not in (None, *ign.ELEVATIONS):
            known = "; ".join(", ".join(one) for one in ign.ELEVATIONS)
            refuse(f"preparation.elevation of mode ign is one of: {known}.")

    def _check_bands(self, key: str, bands: Sequence[str]) -> None:
        for channel in self.elevation_of(bands):
            if lacking := ELEVATION_NEEDS[channel] - set(bands):
                refuse(
                    f"preparation.elevation has {channel!r}, which needs the band "
                    f"{' and '.join(map(repr, sorted(lacking)))} of {key!r}."
                )


def check_ign_bands(bands: Mapping[str, Sequence[str]]) -> None:
    """Raise `ValueError` if IGN's statistics are not of these bands, by modality."""
    for key, names in bands.items():
        if get_modality(key).kind is Kind.IMAGE and key not in ign.STATISTICS:
            refuse(f"preparation.mode ign knows no statistics of {key!r}.")
        if key in ign.BANDS and tuple(names) != ign.BANDS[key]:
            wanted = ", ".join(ign.BANDS[key])
            refuse(f"preparation.mode ign needs bands of {key!r}: [{wanted}], in this order.")
