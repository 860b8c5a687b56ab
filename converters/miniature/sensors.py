"""What each sensor sees of a landscape: aerial cameras, SPOT, a year of Sentinel-1 and -2.

All arrays are whole ROIs ``(bands, y, x)`` or ``(dates, bands, y, x)`` in the registry's dtypes.
"""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import csr_array

from converters.miniature.landscape import LPIS3, RES, Floats, Landscape, spectral_noise
from converters.miniature.terroirs import SampleRoi
from flairhub.grids import Grid
from flairhub.modalities import MODALITIES
from flairhub.nomenclatures import NOMENCLATURES

Pixels = npt.NDArray[np.generic]

MSI = MODALITIES["sentinel2_ts"].band_names

# reflectance of bare ground and of full leaves in the ten Sentinel-2 bands, times 10000
_SOIL = np.array([900, 1150, 1450, 1650, 1800, 1950, 2100, 2250, 2900, 2500], np.float32)
_LEAF = np.array([280, 520, 320, 950, 2900, 3500, 3700, 3900, 1900, 900], np.float32)
_NEEDLE = np.array([220, 350, 250, 600, 1500, 1800, 1950, 2050, 900, 420], np.float32)
_DRY = np.array([800, 1100, 1500, 1800, 2200, 2500, 2700, 2850, 3300, 2600], np.float32)
_BUILT = np.array([1300, 1450, 1600, 1750, 1850, 1900, 2000, 2050, 2300, 2150], np.float32)
_ROAD = np.array([1050, 1150, 1250, 1300, 1350, 1400, 1450, 1450, 1600, 1550], np.float32)
_WATER = np.array([520, 480, 330, 280, 220, 200, 180, 160, 90, 60], np.float32)
_CLOUD = np.array([6000, 5900, 5900, 6000, 6100, 6200, 6300, 6300, 4200, 3200], np.float32)
_SNOW = np.array([8200, 8300, 8200, 8100, 7900, 7700, 7400, 7200, 900, 700], np.float32)

# crop: (day of greening, day of the peak, day of harvest, height of the peak)
_SEASONS: dict[str, tuple[float, float, float, float]] = {
    "winter wheat": (60, 130, 190, 0.95),
    "winter durum wheat": (55, 125, 182, 0.9),
    "winter barley": (55, 120, 172, 0.92),
    "winter triticale": (60, 132, 195, 0.9),
    "winter oat": (60, 130, 190, 0.85),
    "winter rye": (55, 125, 185, 0.85),
    "spring barley": (95, 150, 200, 0.88),
    "rapeseed": (35, 105, 180, 0.98),
    "maize": (140, 205, 275, 0.97),
    "sorghum": (145, 210, 270, 0.9),
    "sunflower": (130, 185, 245, 0.88),
    "soy": (140, 205, 265, 0.95),
    "beetroots": (125, 200, 300, 0.95),
    "potatoes": (120, 180, 240, 0.92),
    "alfalfa": (60, 160, 310, 0.85),
    "lavandin": (90, 180, 205, 0.6),
    "vineyard": (110, 190, 290, 0.55),
}


def aerial(land: Landscape, roi: SampleRoi, rng: np.random.Generator) -> Pixels:
    """Return the BD ORTHO image: ``(4, y, x)`` uint8, red, green, blue, near infrared."""
    sky = np.array([0.02, 0.035, 0.05, 0.01], np.float32)[:, None, None] + roi.terroir.haze
    seen = land.colour * land.light + sky * (1.2 - 0.2 * land.light)
    noise = ndimage.gaussian_filter(
        rng.standard_normal(seen.shape).astype(np.float32), (0, 0.5, 0.5)
    )
    encoded = 255 * (seen.clip(0, 1.3) * np.float32(0.9)) ** np.float32(0.6) + 2.0 * noise
    return np.asarray(encoded.clip(0, 255).round().astype(np.uint8))


def historical(land: Landscape, rng: np.random.Generator) -> Pixels:
    """Return the panchromatic image of the 1950s at 0.4 m: ``(1, y, x)`` uint8."""
    seen = block_mean(land.old_panchromatic, 2)
    seen = ndimage.gaussian_filter(seen, 1.1)
    grain = ndimage.gaussian_filter(rng.standard_normal(seen.shape).astype(np.float32), 0.8)
    image = 275 * seen**0.75 + 16 * grain + 5 * spectral_noise(rng, seen.shape, 120)
    y, x = np.mgrid[-1 : 1 : seen.shape[0] * 1j, -1 : 1 : seen.shape[1] * 1j]
    image *= 1 - 0.10 * (x**2 + y**2)
    for _ in range(3):
        column, lean = rng.integers(seen.shape[1]), rng.uniform(-0.2, 0.2)
        rows = np.arange(seen.shape[0])
        columns = (column + lean * rows).astype(int) % seen.shape[1]
        image[rows, columns] += 60 * (rng.random(len(rows)) < 0.5)
    return np.asarray(image.clip(0, 255).round().astype(np.uint8))[None]


def elevation(land: Landscape, rng: np.random.Generator) -> Pixels:
    """Return surface and terrain: ``(2, y, x)`` float32, metres."""
    noise = rng.normal(0, 0.04, land.dsm.shape).astype(np.float32)
    # photogrammetry matches to about a centimetre; a terrain model is smooth
    dsm = np.maximum(land.dsm + np.abs(noise), land.dtm)
    return np.round(np.stack([dsm, land.dtm]), 3).astype(np.float32)


def spot(land: Landscape, rng: np.random.Generator) -> Pixels:
    """Return the SPOT image at 1.6 m: ``(4, y, x)`` uint16, reflectance times 10000."""
    seen = np.stack([block_mean(c * land.light, 8) for c in land.colour])
    gain = np.array([2300, 2350, 2500, 2700], np.float32)[:, None, None]
    shape = seen.shape
    noise = rng.normal(1, 0.02, shape)
    return np.asarray((seen * gain * noise + 60).clip(0, 10000).round().astype(np.uint16))


def labels(land: Landscape) -> tuple[Pixels, Pixels]:
    """Return COSIA ``(1, y, x)`` and LPIS levels 1-3 ``(3, y, x)``, uint8."""
    to_2 = np.array([c.parent for c in NOMENCLATURES["lpis_3"].classes], np.uint8)
    to_1 = np.array([c.parent for c in NOMENCLATURES["lpis_2"].classes], np.uint8)
    two = to_2[land.lpis]
    return land.cosia[None], np.stack([to_1[two], two, land.lpis])


def block_mean(image: Floats, size: int) -> Floats:
    """Average blocks of ``size`` x ``size`` pixels."""
    y, x = image.shape
    return np.asarray(image.reshape(y // size, size, x // size, size).mean((1, 3)), np.float32)


def area_weights(length: int, cells: int) -> csr_array:
    """Return a matrix ``(cells, length)`` that averages pixels into larger, unaligned cells.

    Sparse products add in one order; those of a BLAS depend on its number of threads, and the same
    seed must give the same bytes.
    """
    edges = np.linspace(0, length, cells + 1)
    pixel = np.arange(length)
    over = np.minimum(pixel + 1, edges[1:, None]) - np.maximum(pixel, edges[:-1, None])
    return csr_array((over.clip(0) / (length / cells)).astype(np.float32))


class Satellites:
    """Covers of the cells of a grid, and what Sentinel-1 and -2 measure of them by day.

    Parameters
    ----------
    land, roi
        What there is.
    grid
        Of the satellites; that of the ROI at 10.24 m when absent. Beyond the ROI the land is
        mirrored; the grid's edges must be 0.4 m pixels of the ROI, as far as they go.
    """

    def __init__(self, land: Landscape, roi: SampleRoi, grid: Grid | None = None) -> None:
        self.roi = roi
        own = roi.grid.grid(MODALITIES["sentinel2_ts"].resolution_m)
        margins = _margins(own, grid or own)
        grid = grid or own
        self.shape = (grid.height, grid.width)
        cosia, lpis, dtm = (
            np.pad(layer[::2, ::2], margins, mode="reflect")
            for layer in (land.cosia, land.lpis, land.dtm)
        )
        coarse = (cosia, lpis)
        down = area_weights(coarse[0].shape[0], grid.height)
        across = area_weights(coarse[0].shape[1], grid.width)
        keys = coarse[0].astype(np.int32) * len(LPIS3) + coarse[1]
        self.covers: list[tuple[str, str, Floats]] = []
        names = [c.name for c in NOMENCLATURES["cosia"].classes]
        crops = [c.name for c in NOMENCLATURES["lpis_3"].classes]
        for key in np.unique(keys):
            share = (across @ (down @ (keys == key).astype(np.float32)).T).T
            self.covers.append((names[key // len(LPIS3)], crops[key % len(LPIS3)], share))
        self.altitude = (across @ (down @ dtm).T).T
        slope = np.gradient(self.altitude, grid.resolution)[1]
        self.slope = np.asarray(slope, np.float32)

    def reflectance(self, day: int) -> Floats:
        """Return clear-sky Sentinel-2 reflectance times 10000, ``(10, y, x)``."""
        total = np.zeros((len(MSI), *self.shape), np.float32)
        for cosia, crop, share in self.covers:
            spectrum = _spectrum(cosia, crop, day - self.roi.terroir.late_days)
            total += spectrum[:, None, None] * share
        return total

    def backscatter(self, day: int, ascending: bool) -> Floats:
        """Return sigma0 in linear power without speckle, ``(2, y, x)``: VV, VH."""
        total = np.zeros((2, *self.shape), np.float32)
        for cosia, crop, share in self.covers:
            total += np.array(_sigma0(cosia, crop, day), np.float32)[:, None, None] * share
        look = 1 if ascending else -1
        return np.asarray(total * np.exp(look * 1.5 * self.slope).clip(0.3, 3), np.float32)


def _margins(inner: Grid, outer: Grid) -> list[tuple[int, int]]:
    """Return how many 0.4 m pixels the outer grid has more in the north, south, west and east."""
    step, a, b = 2 * RES, inner.extent, outer.extent
    north, south = round((b.top - a.top) / step), round((a.bottom - b.bottom) / step)
    west, east = round((a.left - b.left) / step), round((b.right - a.right) / step)
    return [(north, south), (west, east)]


_PLOWED_DAY = 165
"""Fields that the aerial image shows plowed were plowed before it, and stay bare."""


def _leaves(cosia: str, crop: str, day: float) -> float:
    """Share of green leaves on a day of the year."""
    if cosia == "plowed land" and day > _PLOWED_DAY:
        return 0.03
    if crop in _SEASONS:
        start, peak, end, top = _SEASONS[crop]
        rise = 1 / (1 + np.exp(-(day - (start + peak) / 2) / 11))
        fall = 1 / (1 + np.exp((day - end) / 7))
        return float(0.08 + top * rise * fall)
    wave = np.cos((day - 190) / 365 * 2 * np.pi)
    if cosia == "deciduous":
        return float(0.15 + 0.8 / (1 + np.exp(-(day - 110) / 9)) / (1 + np.exp((day - 305) / 10)))
    if cosia == "coniferous":
        return 0.85
    if cosia in ("herbaceous vegetation", "agricultural land"):
        summer = 0.15 * np.exp(-(((day - 215) / 30) ** 2))
        return float(0.62 + 0.22 * wave - summer)
    return float({"brushwood": 0.5, "ligneous": 0.6, "mixed": 0.55}.get(cosia, 0.0) + 0.1 * wave)


def _spectrum(cosia: str, crop: str, day: float) -> Floats:
    leaves = float(np.clip(_leaves(cosia, crop, day), 0, 1))
    ground = {
        "water": _WATER, "swimming pool": _WATER * 2,
        "building": _BUILT, "greenhouse": _BUILT * 1.4,
        "impervious surface": _ROAD, "pervious surface": _SOIL * 1.15, "bare soil": _SOIL * 1.1,
    }  # fmt: skip
    if cosia in ground:
        return ground[cosia]
    leaf = _NEEDLE if cosia == "coniferous" else _LEAF
    cut = crop in _SEASONS and day > _SEASONS[crop][2] and cosia != "plowed land"
    under = _DRY if cut else _SOIL
    spectrum = leaves * leaf + (1 - leaves) * under
    if crop == "rapeseed" and 95 < day < 125:
        spectrum = spectrum + np.array([0, 500, 550, 400, 0, 0, 0, 0, 0, 0], np.float32)
    return np.asarray(spectrum, np.float32)


def _sigma0(cosia: str, crop: str, day: float) -> tuple[float, float]:
    """VV and VH in linear power."""
    fixed = {
        "building": (0.45, 0.06), "greenhouse": (0.25, 0.03), "water": (0.008, 0.001),
        "swimming pool": (0.01, 0.001), "impervious surface": (0.05, 0.006),
        "pervious surface": (0.06, 0.008), "bare soil": (0.07, 0.008), "plowed land": (0.11, 0.012),
        "deciduous": (0.14, 0.036), "coniferous": (0.13, 0.034), "brushwood": (0.11, 0.025),
    }  # fmt: skip
    if cosia in fixed and crop == "background":
        return fixed[cosia]
    leaves = _leaves(cosia, crop, day)
    broad = crop in ("maize", "sunflower", "rapeseed", "beetroots", "sorghum", "soy", "potatoes")
    return 0.08 + (0.07 if broad else -0.03) * leaves, 0.009 + (0.03 if broad else 0.012) * leaves


def sentinel2(
    satellites: Satellites, days: list[date], rng: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """Return the series ``(T, 10, y, x)`` and its masks ``(T, 2, y, x)``: snow, cloud; uint16."""
    shape = satellites.shape
    images = np.zeros((len(days), len(MSI), *shape), np.float32)
    masks = np.zeros((len(days), 2, *shape), np.float32)
    snowy = satellites.roi.terroir.altitude_m
    for t, day in enumerate(days):
        number = day.timetuple().tm_yday
        image = satellites.reflectance(number) * rng.normal(1, 0.02)
        winter = np.cos((number - 20) / 365 * 2 * np.pi)
        line = 900 + 900 * (1 - winter) + rng.normal(0, 200)
        snow = 1 / (1 + np.exp(-(satellites.altitude - line) / 60)) * (winter > 0.2) * (snowy > 500)
        image += (_SNOW[:, None, None] - image) * (0.85 * snow)
        cover = rng.beta(0.35, 0.55)
        field = spectral_noise(rng, shape, max(4.0, min(shape) / 2.5), 2.2)
        cloud = (1 / (1 + np.exp(-(field - 1.2 + 2.6 * cover) * 4))) if cover > 0.08 else 0 * field
        cloud = np.where(cloud < 0.02, 0, cloud)
        shadow = np.roll(cloud, (-2, 1), (0, 1)) * (1 - cloud)
        image *= 1 - 0.55 * shadow
        image += (_CLOUD[:, None, None] * rng.uniform(0.8, 1.2) - image) * np.minimum(
            1, 1.2 * cloud
        )
        images[t] = image * rng.normal(1, 0.015, image.shape) + rng.normal(0, 18, image.shape)
        masks[t] = 100 * snow, 100 * np.minimum(1, 1.15 * cloud)
    pixels = images.clip(1, 16000).round().astype(np.uint16)
    return pixels, masks.clip(0, 100).round().astype(np.uint16)


def sentinel1(
    satellites: Satellites, days: list[date], ascending: bool, rng: np.random.Generator
) -> Pixels:
    """Return the series ``(T, 2, y, x)`` float32, sigma0 in linear power with speckle."""
    looks = 4.4
    clean = np.stack([satellites.backscatter(d.timetuple().tm_yday, ascending) for d in days])
    wet = rng.normal(1, 0.12, (len(days), 1, 1, 1)).clip(0.7, 1.4)
    return np.asarray(clean * wet * rng.gamma(looks, 1 / looks, clean.shape), np.float32)


def revisit_days(
    year: int, every: int, count: int, rng: np.random.Generator, *, twin: bool = False
) -> list[date]:
    """Return acquisition days: some of those on which the satellite passes, in order.

    Real ROIs have about 91 Sentinel-2 dates and 94 of each Sentinel-1 orbit; the sample has fewer.
    """
    passes = np.arange(rng.integers(every), 365, every)
    chosen = np.sort(rng.choice(passes, min(count, len(passes)), replace=False))
    if twin:  # two tiles of one pass may both be kept
        chosen = np.sort(np.append(chosen[:-1], chosen[len(chosen) // 2]))
    return [date(year, 1, 1) + timedelta(days=int(day)) for day in chosen]
