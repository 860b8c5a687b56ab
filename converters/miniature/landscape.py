"""The ground of one ROI: what covers each square decimetre, how high it is, what colour it has.

Everything is drawn at 0.4 m or finer from one random generator, so that all sensors see the same
land. Arrays are ``(y, x)``, row 0 in the north.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from converters.miniature.terroirs import SampleRoi
from flairhub.nomenclatures import NOMENCLATURES

Floats = npt.NDArray[Any]
"""Arrays of float32; numpy's stubs lose the precision in arithmetic."""

RES = 0.2
HALF = 2
"""The slow steps run at half resolution (0.4 m) and are enlarged."""

COSIA = {c.name: c.code for c in NOMENCLATURES["cosia"].classes}
LPIS3 = {c.name: c.code for c in NOMENCLATURES["lpis_3"].classes}
BACKGROUND = LPIS3["background"]


@dataclass(frozen=True)
class Landscape:
    """The land of a ROI at 0.2 m.

    Parameters
    ----------
    cosia, lpis
        Class of each pixel: COSIA, and LPIS level 3.
    dtm, dsm
        Terrain and surface, metres.
    colour
        Reflectance in summer, ``(4, y, x)``: red, green, blue, near infrared; without shadow.
    light
        Share of sunlight, 0.35 in shadow to about 1.2 on slopes that face the sun.
    old_panchromatic
        Reflectance of the same ground seventy years ago, ``(y, x)``.
    """

    cosia: npt.NDArray[Any]
    lpis: npt.NDArray[Any]
    dtm: Floats
    dsm: Floats
    colour: Floats
    light: Floats
    old_panchromatic: Floats


# red, green, blue, near infrared reflectance
_COLOURS: dict[str, tuple[float, float, float, float]] = {
    "building": (0.42, 0.27, 0.22, 0.38),
    "greenhouse": (0.62, 0.64, 0.66, 0.60),
    "swimming pool": (0.16, 0.44, 0.50, 0.08),
    "impervious surface": (0.34, 0.34, 0.35, 0.36),
    "pervious surface": (0.48, 0.43, 0.35, 0.50),
    "bare soil": (0.42, 0.33, 0.24, 0.46),
    "water": (0.07, 0.11, 0.12, 0.03),
    "snow": (0.9, 0.9, 0.92, 0.85),
    "herbaceous vegetation": (0.24, 0.32, 0.17, 0.56),
    "agricultural land": (0.38, 0.38, 0.20, 0.52),
    "plowed land": (0.36, 0.27, 0.19, 0.40),
    "vineyard": (0.34, 0.31, 0.20, 0.50),
    "deciduous": (0.11, 0.18, 0.09, 0.60),
    "coniferous": (0.07, 0.11, 0.08, 0.36),
    "brushwood": (0.22, 0.24, 0.14, 0.45),
    "clear cut": (0.35, 0.30, 0.24, 0.42),
    "ligneous": (0.15, 0.19, 0.11, 0.48),
    "mixed": (0.20, 0.22, 0.14, 0.45),
    "undefined": (0.30, 0.28, 0.26, 0.34),
}


def spectral_noise(
    rng: np.random.Generator, shape: tuple[int, int], scale_px: float, power: float = 2.0
) -> Floats:
    """Return noise with a power-law spectrum, mean 0 and deviation 1, smooth below `scale_px`."""
    step = max(1, int(scale_px // 4))
    small = tuple(-(-n // step) + 2 for n in shape)
    white = np.fft.rfft2(rng.standard_normal(small))
    fy, fx = np.fft.fftfreq(small[0])[:, None], np.fft.rfftfreq(small[1])[None]
    radius = np.hypot(fy, fx)
    cut = step / scale_px
    spectrum = white / (radius**power + (0.02) ** power) * np.exp(-((radius / cut) ** 2) / 2)
    field = np.fft.irfft2(spectrum, small)
    field = (field - field.mean()) / (field.std() + 1e-9)
    return enlarge(field.astype(np.float32), step, shape)


def enlarge(field: Floats, factor: int, shape: tuple[int, int]) -> Floats:
    """Enlarge smoothly by a whole factor and crop to `shape`."""
    if factor == 1:
        return field[: shape[0], : shape[1]]
    # cubic, since hillshading shows every crease of a linear one
    big = ndimage.zoom(field, factor, order=3, grid_mode=True, mode="nearest")
    return np.asarray(big[: shape[0], : shape[1]], np.float32)


class _Painter:
    def __init__(self, roi: SampleRoi, rng: np.random.Generator) -> None:
        grid = roi.grid.grid(RES * HALF)
        self.roi, self.rng = roi, rng
        self.shape = (grid.height, grid.width)
        self.metre = RES * HALF
        y, x = np.mgrid[: grid.height, : grid.width].astype(np.float32)
        self.y, self.x = y * self.metre, x * self.metre
        self.cosia = np.full(self.shape, COSIA["herbaceous vegetation"], np.uint8)
        self.lpis = np.full(self.shape, BACKGROUND, np.uint8)
        self.height = np.zeros(self.shape, np.float32)
        self.tint = np.ones((4, *self.shape), np.float32)

    def relief(self) -> None:
        terroir = self.roi.terroir
        hills = spectral_noise(self.rng, self.shape, 160 / self.metre)
        self.valley = self._river()
        self.dtm = terroir.altitude_m + terroir.relief_m * (
            0.5 * hills + 0.8 * np.tanh(self.valley / 220)
        )

    def _river(self) -> Floats:
        """Distance to the river's middle line, metres."""
        span = self.metre * max(self.shape)
        along, across = (self.y, self.x) if self.rng.random() < 0.5 else (self.x, self.y)
        middle = span * self.rng.uniform(0.25, 0.75)
        for k in (1, 2, 4):
            phase, size = self.rng.uniform(0, 6.28), span * 0.09 / k
            middle = middle + size * np.sin(along / span * 6.28 * k * 0.8 + phase)
        return np.asarray(np.abs(across - middle), np.float32)

    def parcels(self) -> None:
        cell = np.sqrt(self.roi.terroir.field_m2) * 1.05
        seeds = self._seeds(cell)
        angle = self.rng.uniform(0, np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        stretch = np.array([1.0, 1.8])
        wobble = 6 * spectral_noise(self.rng, self.shape, 60 / self.metre)
        points = np.stack([self.y + wobble, self.x + wobble], -1) @ turn * stretch
        tree = cKDTree(seeds @ turn * stretch)
        distance, index = tree.query(points, k=2, workers=-1)
        self.parcel = index[..., 0].astype(np.int32)
        self.edge = (distance[..., 1] - distance[..., 0]).astype(np.float32)
        self.seeds = seeds

    def _seeds(self, cell: float) -> npt.NDArray[Any]:
        ny, nx = (int(n * self.metre // cell) + 3 for n in self.shape)
        jitter = self.rng.uniform(-0.45, 0.45, (ny, nx, 2))
        base = np.moveaxis(np.mgrid[:ny, :nx], 0, -1) - 1
        return np.asarray((base + jitter).reshape(-1, 2) * cell)

    def land_use(self) -> None:
        rng, terroir, count = self.rng, self.roi.terroir, len(self.seeds)
        bias = {"crop": 1.0, "wood": 1.0, "meadow": 1.0, "vine": 0.7, "brush": 1.0, **terroir.bias}
        weights = {
            "crop": 0.36 * bias["crop"],
            "meadow": 0.12 * bias["meadow"],
            "plowed": 0.09,
            "vine": 0.09 * bias["vine"],
            "deciduous": 0.17 * bias["wood"] * (1 - terroir.conifers),
            "coniferous": 0.17 * bias["wood"] * terroir.conifers,
            "brush": 0.06 * bias["brush"],
            "soil": 0.04,
            "village": 0.11 * bias.get("urban", 1.0),
            "cut": 0.012,
            "other": 0.012,
        }
        names = list(weights)
        share = np.array(list(weights.values()))
        # neighbours share a random field, so that woods and villages are not single parcels
        where = np.clip((self.seeds / self.metre).astype(int), 0, np.array(self.shape) - 1)
        use = np.empty(count, object)
        best = np.full(count, -np.inf)
        for k, name in enumerate(names):
            noise = spectral_noise(rng, self.shape, 220 / self.metre)[where[:, 0], where[:, 1]]
            score = np.log(share[k]) + 0.9 * noise + rng.gumbel(size=count) * 0.7
            use = np.where(score > best, name, use)
            best = np.maximum(best, score)
        for name in ("village", "deciduous", "crop", "vine", "plowed", "coniferous", "soil"):
            if name not in use:
                use[rng.integers(count)] = name
        self.use = use
        crops = list(terroir.crops)
        chance = np.array([terroir.crops[c] for c in crops])
        self.crop = rng.choice(crops, count, p=chance / chance.sum())
        self.row_angle = rng.uniform(0, np.pi, count).astype(np.float32)
        self.parcel_tint = rng.normal(1, 0.09, (count, 4)).clip(0.75, 1.3).astype(np.float32)
        self._paint_parcels()

    def _mask(self, *names: str) -> npt.NDArray[Any]:
        return np.asarray(np.isin(self.use, names)[self.parcel])

    def _paint(self, mask: npt.NDArray[Any], name: str, height: float | Floats = 0.0) -> None:
        self.cosia[mask] = COSIA[name]
        self.height[mask] = height[mask] if isinstance(height, np.ndarray) else height

    def _paint_parcels(self) -> None:
        rows = self._rows()
        crop = np.array([LPIS3.get(c, BACKGROUND) for c in self.crop], np.uint8)
        grass = np.array([str(c).startswith("grasses") for c in self.crop])
        self.tint *= np.moveaxis(self.parcel_tint[self.parcel], -1, 0)
        field = self._mask("crop")
        self._paint(field, "agricultural land", 0.4)
        self.lpis[field] = crop[self.parcel][field]
        self.cosia[field & grass[self.parcel]] = COSIA["herbaceous vegetation"]
        meadow = self._mask("meadow")
        self.lpis[meadow] = LPIS3["grasses mixture"]
        self._paint(meadow, "herbaceous vegetation", 0.1)
        plowed = self._mask("plowed")
        self._paint(plowed, "plowed land")
        self.lpis[plowed] = crop[self.parcel][plowed]
        self.tint[:, plowed] *= 1 + 0.10 * np.sin(rows[plowed] * 6.28 / 1.6)
        self.tint[:, field] *= 1 + 0.05 * np.sin(rows[field] * 6.28 / 3.2)
        vine = self._mask("vine")
        stripe = np.sin(rows * 6.28 / 2.4) > 0
        self._paint(vine, "vineyard")
        self.height[vine & stripe] = 1.4
        self.lpis[vine] = LPIS3["vineyard"]
        self.tint[:3, vine & stripe] *= 0.55
        self.tint[3, vine & stripe] *= 1.05
        self.tint[:3, vine & ~stripe] *= 1.15
        self._paint(self._mask("soil"), "bare soil")
        self._paint(self._mask("cut"), "clear cut", 0.3)
        self._paint(self._mask("other"), "undefined")
        speckle = spectral_noise(self.rng, self.shape, 5 / self.metre, 0.6)
        brush = self._mask("brush")
        self._paint(brush, "brushwood", (1.0 + 0.8 * speckle).clip(0.2, 3).astype(np.float32))
        self.tint[:, brush] *= 1 + 0.28 * speckle[brush]

    def _rows(self) -> Floats:
        """Distance along the direction across each parcel's rows, metres."""
        angle = self.row_angle[self.parcel]
        return np.asarray(self.x * np.cos(angle) + self.y * np.sin(angle), np.float32)

    def woods(self) -> None:
        """Crowns: every pixel belongs to its nearest tree, and lies on that tree's dome."""
        cell = 5.5
        trees = self._seeds(cell)
        distance, index = cKDTree(trees).query(
            np.stack([self.y, self.x], -1), distance_upper_bound=6.0, workers=-1
        )
        count = len(trees) + 1
        radius = self.rng.uniform(2.2, 4.3, count).astype(np.float32)
        tall = self.rng.uniform(0.7, 1.15, count).astype(np.float32)
        shade = self.rng.normal(1, 0.14, (count, 1)).clip(0.65, 1.4).astype(np.float32)
        dome = 1 - (distance.astype(np.float32) / radius[index]) ** 2
        wood, conifer = self._mask("deciduous", "coniferous"), self._mask("coniferous")
        lone = self.rng.random(count) < 0.05
        hedge = (self.edge < 5) & (self.rng.random(len(self.seeds)) < self.roi.terroir.hedges)[
            self.parcel
        ]
        scattered = lone[index] & self._mask("meadow", "brush", "village")
        crown = (dome > 0) & (hedge | scattered)
        gap = (dome < -0.8) & wood
        inside = wood & ~gap
        size = np.where(conifer, 17.0, 13.0) * np.where(wood, 1, 0.65)
        high = (size * tall[index] * (0.55 + 0.45 * dome.clip(0))).astype(np.float32)
        leafy = (inside & ~conifer) | crown
        self._paint(leafy, "deciduous", high)
        self._paint(inside & conifer, "coniferous", high)
        self._paint(gap, "ligneous", 2.5)
        trees_here = leafy | (inside & conifer)
        self.tint[:, trees_here] = (shade[index] * (0.6 + 0.45 * dome.clip(-0.2))[..., None])[
            trees_here
        ].T
        self.lpis[trees_here | wood] = BACKGROUND

    def water(self) -> None:
        river = self.valley < self.roi.terroir.river_m / 2
        bank = (self.valley < self.roi.terroir.river_m / 2 + 6) & ~river
        where = self.seeds[self.rng.integers(len(self.seeds))]
        pond = np.hypot(self.y - where[0], self.x - where[1]) < 16 + 3 * np.sin(
            4 * np.arctan2(self.y - where[0], self.x - where[1])
        )
        self._paint(bank, "herbaceous vegetation", 0.2)
        self.lpis[bank] = BACKGROUND
        self.wet = river | pond
        self._paint(self.wet, "water")
        self.lpis[self.wet] = BACKGROUND
        self.tint[:, self.wet] = 1
        self.dtm = (self.dtm - 1.5 * self.wet).astype(np.float32)

    def roads(self) -> None:
        seeds = self._seeds(330)
        wobble = 14 * spectral_noise(self.rng, self.shape, 150 / self.metre)
        distance, _ = cKDTree(seeds).query(
            np.stack([self.y + wobble, self.x - wobble], -1), k=2, workers=-1
        )
        gap = (distance[..., 1] - distance[..., 0]) / 2
        road = gap < 3.2
        verge = (gap < 5.0) & ~road
        tracks = (self.edge < 2.6) & (self.rng.random(len(self.seeds)) < 0.22)[self.parcel]
        self._paint(tracks & ~self.wet, "pervious surface")
        self._paint(verge & ~self.wet, "herbaceous vegetation", 0.1)
        self._paint(road, "impervious surface")
        dashes = (gap < 0.2) & (np.sin((self.x + self.y) * 1.2) > 0)
        self.tint[:, road | tracks] = 1
        self.tint[:, dashes] = 1.9
        self.lpis[road | verge | tracks] = BACKGROUND
        self.paved = road
        self.road = road | verge | self.wet

    def village(self) -> None:
        places = self._seeds(21.0)
        inside = self._in_village(places)
        for place in places[inside]:
            self._house(place)

    def _in_village(self, places: npt.NDArray[Any]) -> npt.NDArray[Any]:
        pixel = (places / self.metre).astype(int)
        good = ((pixel >= 25) & (pixel < np.array(self.shape) - 25)).all(1)
        pixel = pixel.clip(0, np.array(self.shape) - 1)
        return np.asarray(good & self._mask("village")[pixel[:, 0], pixel[:, 1]])

    def _house(self, place: npt.NDArray[Any]) -> None:
        rng = self.rng
        reach = 22
        cy, cx = (int(v) for v in place / self.metre)
        box = (
            slice(max(0, cy - reach * 2), cy + reach * 2),
            slice(max(0, cx - reach * 2), cx + reach * 2),
        )
        dy, dx = self.y[box] - place[0], self.x[box] - place[1]
        angle = self.row_angle[self.parcel[cy, cx]]
        u = dx * np.cos(angle) + dy * np.sin(angle)
        v = dy * np.cos(angle) - dx * np.sin(angle)
        free = ~self.road[box]
        kind = rng.random()
        half_u, half_v = rng.uniform(5, 8.5), rng.uniform(3.6, 5.5)
        if kind < 0.10 * self.roi.terroir.bias.get("greenhouse", 1.0):
            shape = (np.abs(u) < 13) & (np.abs(v) < 5) & free
            self._put(box, shape, "greenhouse", 3.5 - 0.12 * v**2 * 0.6, (1, 1, 1, 1))
            self.tint[(slice(None), *box)][:, shape & (np.sin(u * 2.1) > 0.8)] = 0.8
            return
        yard = (np.abs(u) < half_u + 3) & (np.abs(v) < half_v + 3) & free
        name = "impervious surface" if rng.random() < 0.6 else "pervious surface"
        self._put(box, yard, name, 0.0, (1, 1, 1, 1))
        roof = (np.abs(u) < half_u) & (np.abs(v) < half_v) & free
        top = rng.uniform(4.2, 7.5)
        height = top + 0.55 * (half_v - np.abs(v))
        slate = rng.random() < self.roi.terroir.slate
        tint = np.array((0.55, 0.85, 1.15, 0.7) if slate else (1.12, 1.0, 0.92, 1.0))
        self._put(box, roof, "building", height, tuple(tint * rng.uniform(0.8, 1.2)))
        tiles = roof & (np.sin(u * 6.28 / 0.9) > 0.6)
        self.tint[(slice(None), *box)][:, tiles] *= 0.93
        if kind > 0.72:
            pool = (((u - half_u - 5.5) / 4.2) ** 2 + ((v + 1) / 2.3) ** 2 < 1) & free
            deck = (((u - half_u - 5.5) / 5.4) ** 2 + ((v + 1) / 3.4) ** 2 < 1) & free
            self._put(box, deck & ~roof, "pervious surface", 0.0, (1.2, 1.2, 1.2, 1))
            self._put(box, pool & ~roof, "swimming pool", 0.0, (1, 1, 1, 1))

    def _put(
        self,
        box: tuple[slice, slice],
        mask: npt.NDArray[Any],
        name: str,
        height: float | npt.NDArray[Any],
        tint: tuple[float, ...],
    ) -> None:
        self.cosia[box][mask] = COSIA[name]
        self.lpis[box][mask] = BACKGROUND
        self.height[box][mask] = np.broadcast_to(height, mask.shape)[mask]
        self.tint[(slice(None), *box)][:, mask] = np.array(tint, np.float32)[:, None]


def draw(roi: SampleRoi, rng: np.random.Generator) -> Landscape:
    """Draw the land of a ROI; the same generator state gives the same land."""
    painter = _Painter(roi, rng)
    painter.relief()
    painter.parcels()
    painter.land_use()
    painter.woods()
    painter.water()
    painter.roads()
    painter.village()
    shape = (painter.shape[0] * HALF, painter.shape[1] * HALF)
    cosia, lpis = _double(painter.cosia), _double(painter.lpis)
    dtm = enlarge(painter.dtm, HALF, shape)
    rough = rng.normal(0, 1, painter.shape).astype(np.float32)
    height = ndimage.gaussian_filter(painter.height, 0.6) + 0.03 * np.abs(rough)
    dsm = dtm + enlarge(height.clip(0), HALF, shape)
    palette = np.array([_COLOURS[c.name] for c in NOMENCLATURES["cosia"].classes], np.float32)
    colour = np.moveaxis(palette[cosia], -1, 0) * np.stack([_double(t) for t in painter.tint])
    colour *= _crop_tint(np.where(cosia == COSIA["plowed land"], BACKGROUND, lpis))
    grain = ndimage.gaussian_filter(rng.standard_normal(shape).astype(np.float32), 0.7)
    patchy = spectral_noise(rng, shape, 30, 1.2)
    colour *= 1 + 0.13 * grain + 0.05 * patchy
    light = _light(dsm, roi.terroir.sun_azimuth, roi.terroir.sun_elevation)
    return Landscape(cosia, lpis, dtm, dsm, colour, light, _old(painter, rng, shape, dtm))


def _double(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.repeat(HALF, 0).repeat(HALF, 1)


_CROP_COLOURS = {
    "rapeseed": (1.15, 1.2, 0.7, 1.0),
    "sunflower": (1.05, 1.1, 0.55, 1.1),
    "maize": (0.55, 0.8, 0.6, 1.15),
    "soy": (0.6, 0.9, 0.6, 1.15),
    "beetroots": (0.55, 0.85, 0.6, 1.15),
    "alfalfa": (0.6, 0.85, 0.7, 1.1),
    "winter wheat": (1.25, 1.1, 1.0, 0.85),
    "winter barley": (1.3, 1.15, 1.1, 0.85),
    "lavandin": (0.9, 0.75, 1.5, 0.9),
}


def _crop_tint(lpis: npt.NDArray[Any]) -> Floats:
    table = np.ones((len(LPIS3), 4), np.float32)
    for name, tint in _CROP_COLOURS.items():
        table[LPIS3[name]] = tint
    return np.moveaxis(table[lpis], -1, 0)


def _light(dsm: Floats, azimuth: float, elevation: float) -> Floats:
    """Hillshade of the surface, with cast shadows found by marching towards the sun."""
    az, el = np.radians(azimuth), np.radians(elevation)
    gy, gx = np.gradient(dsm, RES)
    gy, gx = gy.clip(-3, 3), gx.clip(-3, 3)
    normal = 1 / np.sqrt(gx**2 + gy**2 + 1)
    sun = np.cos(el) * (-gx * np.sin(az) + gy * np.cos(az)) + np.sin(el)
    shade = (normal * sun / np.sin(el)).clip(0.45, 1.35)
    horizon = np.full(dsm.shape, -np.inf, np.float32)
    reach = round(26 / RES)
    # the land goes on beyond the border: nothing there comes back on the other side
    around = np.pad(dsm, reach, mode="edge")
    height, width = dsm.shape
    for distance in np.arange(1.0, 26.0, 1.0):
        top = reach + round(-np.cos(az) * distance / RES)
        left = reach + round(np.sin(az) * distance / RES)
        moved = around[top : top + height, left : left + width] - distance * np.tan(el)
        np.maximum(horizon, moved, out=horizon)
    lit = ndimage.uniform_filter((dsm >= horizon - 0.15).astype(np.float32), 3)
    return np.asarray(shade * (0.38 + 0.62 * lit), np.float32)


def _old(
    painter: _Painter, rng: np.random.Generator, shape: tuple[int, int], dtm: Floats
) -> Floats:
    """Seventy years ago: the same relief, river and roads, small fields in hedges, few houses."""
    seeds = painter._seeds(np.sqrt(painter.roi.terroir.field_m2) * 0.6)
    turn = rng.uniform(0, np.pi)
    frame = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * [1.0, 2.0]
    points = np.stack([painter.y, painter.x], -1) @ frame
    distance, index = cKDTree(seeds @ frame).query(points, k=2, workers=-1)
    plot, edge = index[..., 0], distance[..., 1] - distance[..., 0]
    tone = rng.uniform(0.28, 0.6, len(seeds)).astype(np.float32)[plot]
    rough = spectral_noise(rng, painter.shape, 4 / painter.metre, 0.6)
    # a hedge wants both neighbours, so that whole borders have one or not
    hedged = (rng.random(len(seeds)) < 0.55)[index].all(-1)
    houses, count = ndimage.label(painter.cosia == COSIA["building"])
    kept = (rng.random(count + 1) < 0.4)[houses] & (houses > 0)
    wood = np.isin(painter.cosia, [COSIA[n] for n in ("deciduous", "coniferous", "ligneous")])
    wood &= painter._mask("deciduous", "coniferous")
    hedge = hedged & (edge + 1.2 * rough < 2.6) & (rough > -1.3) & ~painter.road & ~wood
    tone[~hedged & (edge < 1.2)] = 0.62
    tone *= 1 + 0.05 * rough
    tone[wood | hedge] = (0.2 * (1 + 0.16 * rough))[wood | hedge]
    tone[wood] *= painter.tint[0][wood].clip(0.6, 1.3)
    tone[painter.wet] = 0.10
    tone[painter.paved & ~painter.wet] = 0.66
    tone[kept] = 0.5
    height = np.where(wood | kept, painter.height, 0) + np.where(hedge, 3.5 + rough, 0)
    height = ndimage.gaussian_filter(height.astype(np.float32), 0.7)
    tone = enlarge(tone, HALF, shape)
    relief = _light(dtm + enlarge(height, HALF, shape), painter.roi.terroir.sun_azimuth, 48)
    return np.asarray(tone * relief * (1 + 0.08 * spectral_noise(rng, shape, 40)), np.float32)
