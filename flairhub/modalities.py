"""The registry of modalities: the only home of bands, types, sizes, units and statistics.

Folders, stores, samples, tables, batches and help texts are all made from `MODALITIES`; adding a
modality is adding an entry here.

Sources: sizes, types and band order follow IGN's FLAIR-HUB README and data paper (Garioud et al.
2025, arXiv:2506.07080); those of FLAIR#1 and FLAIR#2 IGN's FLAIR-1 and FLAIR-2 code and dataset
card; Sentinel-2 band centres and widths are those of the MSI on Sentinel-2A (ESA
Sentinel-2 spectral response functions); SPOT bands those of the SPOT 6/7 user guide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType

import numpy as np

from flairhub.errors import UnknownNameError, did_you_mean
from flairhub.grids import PATCH_SIDE_M
from flairhub.nomenclatures import NOMENCLATURES, Nomenclature

FLAIR_HUB = "FLAIR-HUB"
FLAIR = "FLAIR#1/#2"
"""Families of datasets: a store, and a folder of stores, holds modalities of one of them."""


class Kind(StrEnum):
    """What the pixels mean, which decides codec, attributes and preparation."""

    IMAGE = "image"
    ELEVATION = "elevation"
    SERIES = "series"
    MASK = "mask"
    LABEL = "label"


@dataclass(frozen=True, slots=True)
class Band:
    """One band.

    Parameters
    ----------
    name
        Short name, the value of the ``band`` coordinate.
    description
        What it measures.
    common_name
        Name in the STAC electro-optical extension, where one exists.
    centre_um, width_um
        Centre wavelength and full width, micrometres, where known.
    """

    name: str
    description: str
    common_name: str | None = None
    centre_um: float | None = None
    width_um: float | None = None


@dataclass(frozen=True, slots=True)
class Statistics:
    """Published mean and standard deviation per band, in raw units, and where they stand."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str


@dataclass(frozen=True)
class Modality:
    """One raster of a patch, as IGN publishes it and as the store holds it.

    Parameters
    ----------
    key
        Name in Python and in the store: group and variable (``aerial_rgbi``).
    source_name
        Name in IGN's folders and files (``AERIAL_RGBI``).
    title
        Name for people.
    kind
        What the pixels mean.
    bands
        Bands in file order; of one date for a series, and levels for a multi-level label.
    dtype
        Name of the numpy type of the pixels.
    units
        Unit of the raw numbers (UDUNITS; ``1`` for none).
    resolution_m
        Pixel side, metres.
    patch_px
        Pixels along each side of a patch; 0 for a raster of a whole ROI on a grid of its own, which
        is not cut in patches.
    long_name
        CF long name of the variable.
    standard_name
        CF standard name where one fits.
    nodata
        Value that marks missing pixels in the raw files, if one is known.
    temporal
        True when a patch has a stack of dates.
    statistics
        Published normalisation, or None.
    group
        Store group; differs from `key` only for masks, which live with their series.
    source_year
        Year token of the raw folder where it is not the domain's year (``195X``).
    dates_name
        Sensor part of the GeoPackage with the acquisition dates, if IGN ships one.
    nomenclatures
        Keys of the class sets, one a band, for labels.
    dataset
        Which family publishes it: `FLAIR_HUB`, or `FLAIR` for FLAIR#1 and FLAIR#2.
    around_px
        Of a raster that is not cut in patches, the side of the square of its pixels that is read
        for a window, the window's middle in it; see `Grid.around`.
    """

    key: str
    source_name: str
    title: str
    kind: Kind
    bands: tuple[Band, ...]
    dtype: str
    units: str
    resolution_m: float
    patch_px: int
    long_name: str
    standard_name: str | None = None
    nodata: float | None = None
    temporal: bool = False
    statistics: Statistics | None = None
    group: str = ""
    source_year: str | None = None
    dates_name: str | None = None
    nomenclatures: tuple[str, ...] = ()
    dataset: str = FLAIR_HUB
    around_px: int = 0

    def __post_init__(self) -> None:
        """Check what the rest of the project relies on."""
        if not self.group:
            object.__setattr__(self, "group", self.key)
        if self.patch_px and round(self.resolution_m * self.patch_px, 6) != PATCH_SIDE_M:
            side = f"{self.patch_px} px of {self.resolution_m} m"
            msg = f"{self.key}: {side} are not {PATCH_SIDE_M} m."
            raise ValueError(msg)
        if self.is_area != bool(self.around_px):
            msg = f"{self.key}: rasters that are not cut in patches, and no others, have around_px."
            raise ValueError(msg)
        if self.statistics and len(self.statistics.mean) != len(self.bands):
            msg = f"{self.key}: statistics need one value a band."
            raise ValueError(msg)
        if self.nomenclatures and len(self.nomenclatures) != len(self.bands):
            msg = f"{self.key}: labels need one nomenclature a band."
            raise ValueError(msg)

    @cached_property
    def numpy_dtype(self) -> np.dtype[np.generic]:
        """The pixels' numpy type."""
        return np.dtype(self.dtype)

    @cached_property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands in file order."""
        return tuple(b.name for b in self.bands)

    @property
    def is_area(self) -> bool:
        """True for a raster of a whole ROI on a grid of its own, not cut in patches."""
        return not self.patch_px

    @property
    def is_label(self) -> bool:
        """True for class rasters."""
        return self.kind is Kind.LABEL

    def band_indexes(self, names: Iterable[str]) -> tuple[int, ...]:
        """Return 0-based positions of bands given by name; raises `UnknownNameError`."""
        return tuple(self._band_index(n) for n in names)

    def _band_index(self, name: str) -> int:
        try:
            return self.band_names.index(name)
        except ValueError:
            msg = f"{self.key} has no band {name!r}. {did_you_mean(name, self.band_names)}"
            raise UnknownNameError(msg) from None

    def nomenclature(self, level: int = 1) -> Nomenclature:
        """Return the class set of one label level (1-based); raises `UnknownNameError`."""
        if not 1 <= level <= len(self.nomenclatures):
            msg = f"{self.key} has {len(self.nomenclatures)} label levels; asked for level {level}."
            raise UnknownNameError(msg)
        return NOMENCLATURES[self.nomenclatures[level - 1]]


_PAPER = "Garioud et al. 2025, arXiv:2506.07080, p. 16"

_RGBI = (
    Band("red", "red", "red"),
    Band("green", "green", "green"),
    Band("blue", "blue", "blue"),
    Band("nir", "near infrared", "nir"),
)

_SPOT = (
    Band("red", "red", "red", 0.660, 0.070),
    Band("green", "green", "green", 0.560, 0.060),
    Band("blue", "blue", "blue", 0.490, 0.070),
    Band("nir", "near infrared", "nir", 0.825, 0.130),
)

_MSI = (
    Band("B02", "blue", "blue", 0.4924, 0.066),
    Band("B03", "green", "green", 0.5598, 0.036),
    Band("B04", "red", "red", 0.6646, 0.031),
    Band("B05", "red edge 1", "rededge071", 0.7041, 0.015),
    Band("B06", "red edge 2", "rededge075", 0.7405, 0.015),
    Band("B07", "red edge 3", "rededge078", 0.7828, 0.020),
    Band("B08", "near infrared", "nir", 0.8328, 0.106),
    Band("B8A", "narrow near infrared", "nir08", 0.8647, 0.021),
    Band("B11", "short-wave infrared 1", "swir16", 1.6137, 0.091),
    Band("B12", "short-wave infrared 2", "swir22", 2.2024, 0.175),
)

_C_BAND_UM = 55465.8
"""Wavelength of Sentinel-1's 5.405 GHz carrier."""

_SAR = (
    Band("VV", "vertical transmit, vertical receive", None, _C_BAND_UM),
    Band("VH", "vertical transmit, horizontal receive", None, _C_BAND_UM),
)


def _sentinel1(orbit: str, title: str) -> Modality:
    return Modality(
        key=f"sentinel1_{orbit}_ts",
        source_name=f"SENTINEL1-{orbit.upper()}_TS",
        title=f"Sentinel-1 series, {title} orbits",
        kind=Kind.SERIES,
        bands=_SAR,
        dtype="float32",
        units="1",
        resolution_m=10.24,
        patch_px=10,
        long_name=f"Sentinel-1 C-band sigma0 in linear power, {title} orbits",
        standard_name="surface_backwards_scattering_coefficient_of_radar_wave",
        temporal=True,
        dates_name=f"SENTINEL1-{orbit.upper()}",
    )


def _sentinel2(
    key: str,
    source_names: tuple[str, str],
    texts: tuple[str, str],
    *,
    resolution_m: float,
    patch_px: int,
    around_px: int = 0,
    dates_name: str | None = None,
    dataset: str = FLAIR_HUB,
) -> tuple[Modality, Modality]:
    """Return a series and its masks, which share a group; `texts` hold title and long name."""
    title, long_name = (text.format for text in texts)
    series = Modality(
        key=f"{key}_ts",
        source_name=source_names[0],
        title=title("Sentinel-2 series"),
        kind=Kind.SERIES,
        bands=_MSI,
        dtype="uint16",
        units="1e-4",
        resolution_m=resolution_m,
        patch_px=patch_px,
        around_px=around_px,
        long_name=long_name("Sentinel-2 surface reflectance times 10000"),
        temporal=True,
        dates_name=dates_name,
        dataset=dataset,
    )
    masks = replace(
        series,
        key=f"{key}_msk_sc",
        source_name=source_names[1],
        title=title("Sentinel-2 snow and cloud masks"),
        kind=Kind.MASK,
        bands=(Band("snow", "snow probability"), Band("cloud", "cloud probability")),
        units="percent",
        long_name=long_name("Sentinel-2 snow and cloud probability"),
        group=series.group,
    )
    return series, masks


_FLAIR_1 = "IGNF/FLAIR-1, baseline configuration"

MODALITIES: Mapping[str, Modality] = MappingProxyType(
    {
        m.key: m
        for m in (
            Modality(
                key="aerial_rgbi",
                source_name="AERIAL_RGBI",
                title="Aerial image",
                kind=Kind.IMAGE,
                bands=_RGBI,
                dtype="uint8",
                units="1",
                resolution_m=0.2,
                patch_px=512,
                long_name="BD ORTHO aerial image, 20 cm",
                statistics=Statistics(
                    (105.35, 111.31, 102.09, 106.12), (52.36, 45.63, 44.39, 40.01), _PAPER
                ),
                dates_name="AERIAL",
            ),
            Modality(
                key="aerial_rlt_pan",
                source_name="AERIAL-RLT_PAN",
                title="Historical aerial image",
                kind=Kind.IMAGE,
                bands=(Band("pan", "panchromatic", "pan"),),
                dtype="uint8",
                units="1",
                resolution_m=0.4,
                patch_px=256,
                long_name="BD ORTHO Historique panchromatic image, 1947-1965, 40 cm",
                statistics=Statistics((125.92,), (38.69,), _PAPER),
                source_year="195X",
                dates_name="AERIAL-RLT",
            ),
            Modality(
                key="dem_elev",
                source_name="DEM_ELEV",
                title="Elevation",
                kind=Kind.ELEVATION,
                bands=(
                    Band("dsm", "surface model, with buildings and trees"),
                    Band("dtm", "terrain model, bare ground"),
                ),
                dtype="float32",
                units="m",
                resolution_m=0.2,
                patch_px=512,
                long_name="Surface and terrain elevation above sea level, 20 cm",
                statistics=Statistics((326.43, 322.42), (535.41, 535.75), _PAPER),
            ),
            Modality(
                key="spot_rgbi",
                source_name="SPOT_RGBI",
                title="SPOT image",
                kind=Kind.IMAGE,
                bands=_SPOT,
                dtype="uint16",
                units="1e-4",
                resolution_m=1.6,
                patch_px=64,
                long_name="SPOT 6/7 reflectance times 10000, 1.6 m",
                statistics=Statistics(
                    (432.03, 507.34, 466.75, 1126.26), (324.70, 300.28, 239.36, 535.28), _PAPER
                ),
                dates_name="SPOT",
            ),
            *_sentinel2(
                "sentinel2",
                ("SENTINEL2_TS", "SENTINEL2_MSK-SC"),
                ("{}", "{}"),
                resolution_m=10.24,
                patch_px=10,
                dates_name="SENTINEL2",
            ),
            _sentinel1("asc", "ascending"),
            _sentinel1("desc", "descending"),
            Modality(
                key="aerial_label_cosia",
                source_name="AERIAL_LABEL-COSIA",
                title="Land-cover labels",
                kind=Kind.LABEL,
                bands=(Band("cosia", "COSIA land-cover class"),),
                dtype="uint8",
                units="1",
                resolution_m=0.2,
                patch_px=512,
                long_name="COSIA land-cover class, 20 cm",
                nomenclatures=("cosia",),
            ),
            Modality(
                key="all_label_lpis",
                source_name="ALL_LABEL-LPIS",
                title="Crop labels",
                kind=Kind.LABEL,
                bands=(
                    Band("level_1", "LPIS crop group"),
                    Band("level_2", "LPIS crop"),
                    Band("level_3", "LPIS crop variety"),
                ),
                dtype="uint8",
                units="1",
                resolution_m=0.2,
                patch_px=512,
                long_name="LPIS crop class at three levels, 20 cm",
                nomenclatures=("lpis_1", "lpis_2", "lpis_3"),
            ),
            Modality(
                key="flair_aerial",
                source_name="FLAIR_IMG",
                title="Aerial image and height",
                kind=Kind.IMAGE,
                bands=(*_RGBI, Band("elevation", "height above ground, 0.2 m a step")),
                dtype="uint8",
                units="1",
                resolution_m=0.2,
                patch_px=512,
                long_name="FLAIR BD ORTHO aerial image and height above ground, 20 cm",
                statistics=Statistics(
                    (105.08, 110.87, 101.82, 106.38, 53.26),
                    (52.17, 45.38, 44.0, 39.69, 79.3),
                    _FLAIR_1,
                ),
                dates_name="AERIAL",
                dataset=FLAIR,
            ),
            *_sentinel2(
                "flair_sentinel2",
                ("FLAIR_SEN2-DATA", "FLAIR_SEN2-MASKS"),
                ("{} of the super-area", "FLAIR {}, super-area"),
                resolution_m=10.0,
                patch_px=0,
                around_px=40,  # IGNF/FLAIR-2, flair-2-config.yml
                dataset=FLAIR,
            ),
            Modality(
                key="flair_mask",
                source_name="FLAIR_MSK",
                title="Land-cover labels",
                kind=Kind.LABEL,
                bands=(Band("flair", "FLAIR land-cover class, from 1"),),
                dtype="uint8",
                units="1",
                resolution_m=0.2,
                patch_px=512,
                long_name="FLAIR land-cover class, 20 cm",
                nomenclatures=("flair",),
                dataset=FLAIR,
            ),
        )
    }
)
"""Every modality of every family, by key, in the order in which they are read and batched."""


def dataset_modalities(dataset: str = FLAIR_HUB) -> tuple[Modality, ...]:
    """Return the modalities of one family of datasets, in registry order."""
    return tuple(m for m in MODALITIES.values() if m.dataset == dataset)


def family(keys: Iterable[str]) -> tuple[Modality, ...]:
    """Return every modality of the families that some modalities belong to, in registry order."""
    datasets = {MODALITIES[key].dataset for key in keys}
    return tuple(m for m in MODALITIES.values() if m.dataset in datasets)


_ALIASES: Mapping[str, str] = MappingProxyType({m.source_name: m.key for m in MODALITIES.values()})


def get_modality(name: str) -> Modality:
    """Return a modality by key (``dem_elev``) or by IGN's name (``DEM_ELEV``).

    Raises
    ------
    UnknownNameError
        Naming the near match.
    """
    try:
        return MODALITIES[_ALIASES.get(name, name)]
    except KeyError:
        msg = f"Unknown modality {name!r}. {did_you_mean(name, [*MODALITIES, *_ALIASES])}"
        raise UnknownNameError(msg) from None


def get_label(nomenclature: str) -> tuple[Modality, int]:
    """Return the label raster that holds a class set, and its 1-based level there.

    Raises
    ------
    UnknownNameError
        Naming the near match.
    """
    for modality in MODALITIES.values():
        if nomenclature in modality.nomenclatures:
            return modality, modality.nomenclatures.index(nomenclature) + 1
    known = [key for m in MODALITIES.values() for key in m.nomenclatures]
    msg = f"No label raster holds {nomenclature!r}. {did_you_mean(nomenclature, known)}"
    raise UnknownNameError(msg)
