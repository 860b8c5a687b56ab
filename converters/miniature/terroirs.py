"""The domains of the sample: where they lie, what grows there, how their ROIs are named and sized.

Domain names are real ones of FLAIR-HUB, and ``test`` follows IGN's first fold. Soils, crops and
relief are caricatures of the departments, different enough to tell domains apart on a map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from flairhub.errors import ConfigError
from flairhub.grids import PATCH_SIDE_M, RoiGrid
from flairhub.ids import DomainId, PatchId, RoiId


@dataclass(frozen=True)
class Terroir:
    """What the landscape of one domain is made of.

    Parameters
    ----------
    easting, northing
        About where the ROIs lie, metres in EPSG:2154.
    altitude_m, relief_m
        Height of the valley floor, and of the hills above it.
    soil
        Shares of the light and the red soil; the rest is dark soil.
    crops
        LPIS level-3 names with their share of the arable land.
    field_m2
        Usual size of a field.
    conifers
        Share of conifers in the woods.
    slate
        Share of slate roofs; the rest is tile, and some sheet metal.
    hedges
        Share of field edges with a hedge.
    river_m
        Width of the river.
    sun_azimuth, sun_elevation
        Degrees, at the moment of the aerial image.
    aerial_day
        Day of the year of the aerial image.
    late_days
        By how much vegetation is later than in the plains of the south.
    bias
        What this domain has more or less of: factors by land use.
    haze
        Brightness that the air adds to the aerial image, in reflectance.
    """

    easting: float
    northing: float
    altitude_m: float
    relief_m: float
    soil: tuple[float, float]
    crops: Mapping[str, float]
    field_m2: float
    conifers: float
    slate: float
    hedges: float
    river_m: float
    sun_azimuth: float
    sun_elevation: float
    aerial_day: int
    late_days: int
    bias: Mapping[str, float]
    haze: float = 0.01


@dataclass(frozen=True)
class SampleDomain:
    """One domain-year of the sample.

    Parameters
    ----------
    name
        Domain id.
    terroir
        Its landscape.
    strata
        Where in the cycle of ROI strata this domain starts.
    counter
        Running number of its first ROI.
    lettered
        Whether ROI numbers carry a letter, as in D032.
    test
        Whether the domain is in the test set of fold 1.
    """

    name: str
    terroir: Terroir
    strata: int
    counter: int
    lettered: bool = False
    test: bool = False


_VALLEY = Terroir(
    easting=506_000, northing=6_395_000, altitude_m=64, relief_m=22, soil=(0.55, 0.2),
    crops={"winter wheat": 3, "maize": 3, "sunflower": 2, "rapeseed": 1.5, "soy": 1,
           "winter barley": 1, "alfalfa": 1, "grasses mixture": 2, "fruits and vegetables": 0.7},
    field_m2=4200, conifers=0.25, slate=0.05, hedges=0.35, river_m=15,
    sun_azimuth=152, sun_elevation=56, aerial_day=187, late_days=0,
    bias={"vine": 1.5, "nut": 1, "fruit": 1.2, "greenhouse": 1.2},
)  # fmt: skip
_UPLAND = Terroir(
    easting=665_600, northing=6_372_000, altitude_m=870, relief_m=42, soil=(0.25, 0.35),
    crops={"grasses mixture": 4, "winter triticale": 1.5, "winter wheat": 2, "maize": 1.5,
           "winter barley": 1.5, "alfalfa": 1, "rapeseed": 1, "sunflower": 0.7,
           "grasses monoculture": 1},
    field_m2=4600, conifers=0.4, slate=0.35, hedges=0.5, river_m=8,
    sun_azimuth=146, sun_elevation=52, aerial_day=191, late_days=14,
    bias={"wood": 1.15, "meadow": 1.2, "vine": 0.6, "brush": 1.2, "greenhouse": 0.8},
    haze=0.006,
)  # fmt: skip
_HILLS = Terroir(
    easting=498_000, northing=6_283_000, altitude_m=152, relief_m=28, soil=(0.75, 0.1),
    crops={"sunflower": 3, "winter wheat": 3, "maize": 2.5, "soy": 1.5, "rapeseed": 1.5,
           "winter durum wheat": 1, "sorghum": 1, "winter barley": 1, "alfalfa": 1,
           "grasses mixture": 1.5},
    field_m2=5600, conifers=0.3, slate=0.12, hedges=0.3, river_m=9,
    sun_azimuth=160, sun_elevation=60, aerial_day=182, late_days=-4,
    bias={"vine": 1.1},
    haze=0.014,
)  # fmt: skip
_ALPS = Terroir(
    easting=973_000, northing=6_372_000, altitude_m=1540, relief_m=95, soil=(0.45, 0.1),
    crops={"grasses mixture": 5, "grasses monoculture": 2, "winter rye": 1, "spring barley": 1,
           "alfalfa": 1.5, "potatoes": 0.5},
    field_m2=3600, conifers=0.75, slate=0.5, hedges=0.15, river_m=10,
    sun_azimuth=140, sun_elevation=50, aerial_day=196, late_days=28,
    bias={"wood": 1.4, "meadow": 1.4, "vine": 0.1, "brush": 1.6, "urban": 0.7, "snow": 1},
    haze=0.003,
)  # fmt: skip
_PLAIN = Terroir(
    easting=652_000, northing=6_982_000, altitude_m=58, relief_m=9, soil=(0.4, 0.0),
    crops={"winter wheat": 4, "beetroots": 2, "potatoes": 2, "rapeseed": 1.5, "fiber flax": 1.2,
           "maize": 1, "spring barley": 1, "winter barley": 1, "spring peas": 0.7,
           "grasses mixture": 1},
    field_m2=9000, conifers=0.1, slate=0.45, hedges=0.12, river_m=11,
    sun_azimuth=158, sun_elevation=53, aerial_day=180, late_days=12,
    bias={"crop": 1.4, "vine": 0.2, "wood": 0.7, "brush": 0.5},
    haze=0.012,
)  # fmt: skip
_BOCAGE = Terroir(
    easting=352_000, northing=6_794_000, altitude_m=42, relief_m=16, soil=(0.3, 0.05),
    crops={"maize": 4, "winter wheat": 3, "grasses mixture": 3, "grasses monoculture": 1,
           "winter barley": 1, "rapeseed": 1, "winter oat": 0.6, "buckwheat": 0.4},
    field_m2=3200, conifers=0.15, slate=0.9, hedges=0.85, river_m=7,
    sun_azimuth=150, sun_elevation=55, aerial_day=193, late_days=8,
    bias={"meadow": 1.4, "vine": 0.2, "wood": 0.9},
)  # fmt: skip
_PROVENCE = Terroir(
    easting=872_000, northing=6_334_000, altitude_m=210, relief_m=46, soil=(0.6, 0.35),
    crops={"winter durum wheat": 2, "lavandin": 2, "sunflower": 1, "sorghum": 1, "alfalfa": 1,
           "fruits and vegetables": 1, "grasses mixture": 1},
    field_m2=3400, conifers=0.55, slate=0.0, hedges=0.4, river_m=12,
    sun_azimuth=155, sun_elevation=61, aerial_day=185, late_days=-8,
    bias={"vine": 2, "olive": 2, "fruit": 1.5, "brush": 1.5, "crop": 0.7, "greenhouse": 1.4},
    haze=0.008,
)  # fmt: skip
_RHINE = Terroir(
    easting=1_041_000, northing=6_846_000, altitude_m=148, relief_m=20, soil=(0.5, 0.05),
    crops={"maize": 5, "winter wheat": 3, "beetroots": 1.5, "soy": 1, "grasses mixture": 1.5,
           "potatoes": 0.5, "hemp/tobacco": 0.4},
    field_m2=4000, conifers=0.35, slate=0.15, hedges=0.2, river_m=13,
    sun_azimuth=165, sun_elevation=57, aerial_day=190, late_days=5,
    bias={"vine": 0.9, "crop": 1.2},
)  # fmt: skip

SAMPLE_DOMAINS: tuple[SampleDomain, ...] = (
    SampleDomain("D024047-2021", _VALLEY, strata=0, counter=8),
    SampleDomain("D012-2019", _UPLAND, strata=2, counter=27, test=True),
    SampleDomain("D032-2019", _HILLS, strata=3, counter=9, lettered=True),
    SampleDomain("D004-2021", _ALPS, strata=4, counter=2),
    SampleDomain("D080-2017", _PLAIN, strata=5, counter=3),
    SampleDomain("D080-2021", _PLAIN, strata=1, counter=4),
    SampleDomain("D084-2021", _PROVENCE, strata=0, counter=11, test=True),
    SampleDomain("D035-2020", _BOCAGE, strata=2, counter=6),
    SampleDomain("D067-2021", _RHINE, strata=1, counter=5),
)
"""Every domain that a sample can have, in the order in which they are taken."""

_STRATA = ("NV", "UA", "AF", "UN", "FN", "AA", "NU", "FA")
_SMALLER = ((0, 0), (1, 1), (0, 1), (1, 0))
_ROI_SPACING = 47
"""Patches between the corners of neighbouring ROIs (4.8 km)."""


@dataclass(frozen=True)
class SampleRoi:
    """One ROI to be drawn.

    Parameters
    ----------
    domain, roi
        Its ids.
    terroir
        Its landscape.
    grid
        Its patches, on the lattice of Lambert-93.
    position
        0-based numbers of the domain and of the ROI in it: with the seed, they fix every pixel.
    test
        Whether it belongs to a test domain of fold 1.
    """

    domain: DomainId
    roi: RoiId
    terroir: Terroir
    grid: RoiGrid
    position: tuple[int, int]
    test: bool

    @property
    def patches(self) -> tuple[PatchId, ...]:
        """All its patches, row by row."""
        return tuple(
            PatchId(self.domain, self.roi, row, column)
            for row in range(1, self.grid.rows + 1)
            for column in range(1, self.grid.columns + 1)
        )


def plan_rois(domains: int, rois: int, rows: int, columns: int) -> tuple[SampleRoi, ...]:
    """Return the ROIs of a sample; the first of a domain has the full size, others may be smaller.

    Raises
    ------
    ConfigError
        If a number is below 1, or there are not so many domains to choose from.
    """
    for name, value in (("domains", domains), ("rois", rois), ("rows", rows), ("columns", columns)):
        if value < 1:
            msg = f"A sample needs {name} of at least 1; got {value}."
            raise ConfigError(msg)
    if domains > len(SAMPLE_DOMAINS):
        msg = f"A sample has at most {len(SAMPLE_DOMAINS)} domains; asked for {domains}."
        raise ConfigError(msg)
    return tuple(
        _plan_roi(domain, (d, k), rows, columns)
        for d, domain in enumerate(SAMPLE_DOMAINS[:domains])
        for k in range(rois)
    )


FLAIR_DOMAINS = {
    "flair1": ("D032-2019", "D012-2019", "D004-2021", "D080-2021", "D035-2020", "D067-2021"),
    "flair2": ("D032-2019", "D084-2021", "D004-2021", "D080-2021", "D035-2020", "D067-2021"),
}
"""The domains of `SAMPLE_DOMAINS` that FLAIR#1 and FLAIR#2 have: train, test, validation first."""

_OFF_LATTICE_M = (12.8, -25.6)
"""FLAIR#1's zones lie on lattices of their own, not on that of Lambert-93."""


def plan_zones(
    layout: str, domains: int, rois: int, rows: int, columns: int
) -> tuple[SampleRoi, ...]:
    """Return the zones of a sample of FLAIR#1 or FLAIR#2: the land of the same domains' ROIs.

    Parameters
    ----------
    layout
        ``flair1`` or ``flair2``.
    domains, rois, rows, columns
        As for `plan_rois`.

    Raises
    ------
    ConfigError
        As `plan_rois`.
    """
    names = FLAIR_DOMAINS[layout]
    if domains > len(names):
        msg = f"A sample of {layout} has at most {len(names)} domains; asked for {domains}."
        raise ConfigError(msg)
    of_domain: dict[str, list[SampleRoi]] = {}
    for roi in plan_rois(len(SAMPLE_DOMAINS), rois, rows, columns):
        of_domain.setdefault(str(roi.domain), []).append(roi)
    east, north = _OFF_LATTICE_M
    return tuple(
        replace(
            roi,
            roi=RoiId(roi.roi.strata, None, str(number)),
            grid=replace(
                roi.grid, left=round(roi.grid.left + east, 6), top=round(roi.grid.top + north, 6)
            ),
        )
        for name in names[:domains]
        for number, roi in enumerate(of_domain[name], start=1)
    )


def _plan_roi(
    domain: SampleDomain, position: tuple[int, int], rows: int, columns: int
) -> SampleRoi:
    k = position[1]
    less_rows, less_columns = _SMALLER[k % len(_SMALLER)]
    strata = _STRATA[(domain.strata + 3 * k) % len(_STRATA)]
    letter = {"U": "U", "N": "N"}.get(strata[0], "V") if domain.lettered else ""
    roi = RoiId(strata, 1 + k % 2, f"{letter}{domain.counter + 5 * k}")
    east = round(domain.terroir.easting / PATCH_SIDE_M) + _ROI_SPACING * k
    north = round(domain.terroir.northing / PATCH_SIDE_M) + _ROI_SPACING * (k % 3)
    grid = RoiGrid(
        round(east * PATCH_SIDE_M, 6),
        round(north * PATCH_SIDE_M, 6),
        max(1, rows - less_rows),
        max(1, columns - less_columns),
    )
    name = DomainId.parse(domain.name)
    return SampleRoi(name, roi, domain.terroir, grid, position, domain.test)
