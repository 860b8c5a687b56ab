"""The sample as FLAIR#1 and FLAIR#2: five-band images, masks from 1, metadata, super-areas."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.flair1 import METADATA_FILE
from converters.flair2 import CENTROIDS_FILE, area_path
from converters.flair_raw import IMAGE, MASK, FlairFolder, raster_path, zone_path
from converters.miniature import sensors
from converters.miniature.landscape import Landscape, draw
from converters.miniature.terroirs import SampleRoi
from converters.miniature.tiff import write_tiff
from flairhub.grids import Grid
from flairhub.ids import PatchId
from flairhub.modalities import MODALITIES
from flairhub.nomenclatures import FLAIR_TO_COSIA

_FIRST_NUMBER = {"train": 1, "flair1": 61_713, "flair2": 77_413}
"""Number of the first image: of the train folder, and of each dataset's test folder."""

_STEP_M = 0.2
"""Metres of height that a step of the fifth band stands for."""

_MARGIN_M = 150.0
"""By how much a super-area is wider than its zone, at least."""


@dataclass(frozen=True)
class ZoneFacts:
    """What the tables of a zone say: by image name, its metadata and its place in the super-area.

    Parameters
    ----------
    metadata
        As in the JSON of the metadata.
    centroids
        Row and column in the super-area; empty for FLAIR#1.
    """

    metadata: Mapping[str, Mapping[str, Any]]
    centroids: Mapping[str, list[int]]


def first_numbers(layout: str, zones: Sequence[SampleRoi]) -> dict[tuple[int, int], int]:
    """Return the number of the first image of every zone, by its position in the sample."""
    following = dict(_FIRST_NUMBER)
    found = {}
    for zone in zones:
        part = layout if zone.test else "train"
        found[zone.position] = following[part]
        following[part] += len(zone.patches)
    return found


def write_zone(
    zone: SampleRoi,
    directory: Path,
    seed: int,
    *,
    layout: str,
    numbers: Mapping[tuple[int, int], int],
) -> ZoneFacts:
    """Write the rasters and the series of one zone.

    Parameters
    ----------
    zone, directory, seed
        What to draw, where, and how.
    layout
        ``flair1`` or ``flair2``.
    numbers
        As from `first_numbers`.
    """
    rng = np.random.default_rng((seed, *zone.position))
    land = draw(zone, rng)
    stem = "flair" if not zone.test else {"flair1": "flair_1", "flair2": "flair_2"}[layout]
    folder = FlairFolder(stem, "aerial", "test" if zone.test else "train")
    first = numbers[zone.position]
    # the numbers of a zone say nothing about its rows and columns
    order = (first + rng.permutation(len(zone.patches))).tolist()
    numbered = dict(zip(order, zone.patches, strict=True))
    rasters = {IMAGE: _image(land, zone, rng), MASK: _mask(land)}
    for modality, pixels in rasters.items():
        below = directory / str(folder.sister("aerial" if modality is IMAGE else "labels"))
        for number, patch in numbered.items():
            path = below / raster_path(modality, zone.domain, zone.roi, number)
            write_tiff(path, zone, patch, modality, pixels)
    metadata = _metadata(zone, land, numbered, rng)
    if layout == "flair1":
        return ZoneFacts(metadata, {})
    grid = _super_area(zone)
    _write_series(directory / str(folder.sister("sen")), land, zone, grid, rng)
    return ZoneFacts(metadata, _centroids(zone, grid, numbered))


def write_flair_tables(directory: Path, layout: str, zones: Sequence[ZoneFacts]) -> None:
    """Write the metadata of all images, and for FLAIR#2 their places in the super-areas."""
    metadata = {image: told for zone in zones for image, told in zone.metadata.items()}
    name = METADATA_FILE if layout == "flair1" else "flair_aerial_metadata.json"
    (directory / name).write_text(json.dumps(metadata), "utf-8")
    centroids = {image: place for zone in zones for image, place in zone.centroids.items()}
    if centroids:
        (directory / CENTROIDS_FILE).write_text(json.dumps(centroids), "utf-8")


def _image(land: Landscape, zone: SampleRoi, rng: np.random.Generator) -> npt.NDArray[Any]:
    height = ((land.dsm - land.dtm) / _STEP_M).round().clip(0, 255).astype(np.uint8)
    return np.concatenate([sensors.aerial(land, zone, rng), height[None]])


def _mask(land: Landscape) -> npt.NDArray[Any]:
    table = np.zeros(len(FLAIR_TO_COSIA), np.uint8)
    for value, code in FLAIR_TO_COSIA.items():
        table[code] = value
    return np.asarray(table[land.cosia])[None]


def _metadata(
    zone: SampleRoi, land: Landscape, numbered: Mapping[int, PatchId], rng: np.random.Generator
) -> dict[str, dict[str, Any]]:
    domain, name = zone_path(zone.domain, zone.roi).split("/")
    flown = date(zone.domain.year, 7, int(rng.integers(1, 28)))
    clock = f"{int(rng.integers(8, 16)):02d}h{int(rng.integers(60)):02d}"
    camera = str(rng.choice(["UCE-M3-f120-s06", "UCE-M3-f120-s07", "CAMERA#030"]))
    found = {}
    for number, patch in sorted(numbered.items()):
        x, y = _centre(zone, patch)
        window = zone.grid.patch_window(patch.row, patch.column, IMAGE.resolution_m)
        middle = (window.row + window.height // 2, window.column + window.width // 2)
        found[f"IMG_{number:06d}"] = {
            "domain": domain,
            "zone": name,
            "patch_centroid_x": x,
            "patch_centroid_y": y,
            "patch_centroid_z": round(float(land.dtm[middle]), 2),
            "date": str(flown),
            "time": clock,
            "camera": camera,
        }
    return found


def _centre(zone: SampleRoi, patch: PatchId) -> tuple[float, float]:
    left, bottom, right, top = zone.grid.patch_extent(patch.row, patch.column).bbox
    return round((left + right) / 2, 2), round((bottom + top) / 2, 2)


def _super_area(zone: SampleRoi) -> Grid:
    """Return the grid of a zone's series: whole tens of metres, well beyond the zone."""
    size = MODALITIES["flair_sentinel2_ts"].resolution_m
    inner = zone.grid.extent
    left = floor((inner.left - _MARGIN_M) / size)
    top = ceil((inner.top + _MARGIN_M) / size)
    width = ceil((inner.right + _MARGIN_M) / size) - left
    height = top - floor((inner.bottom - _MARGIN_M) / size)
    return Grid(left * size, top * size, size, height, width)


def _centroids(
    zone: SampleRoi, grid: Grid, numbered: Mapping[int, PatchId]
) -> dict[str, list[int]]:
    found = {}
    for number, patch in sorted(numbered.items()):
        x, y = _centre(zone, patch)
        row, column = (grid.top - y) / grid.resolution, (x - grid.left) / grid.resolution
        found[f"IMG_{number:06d}.tif"] = [floor(row), floor(column)]
    return found


def _write_series(
    folder: Path, land: Landscape, zone: SampleRoi, grid: Grid, rng: np.random.Generator
) -> None:
    days = sensors.revisit_days(zone.domain.year, 5, int(rng.integers(14, 22)), rng)
    satellites = sensors.Satellites(land, zone, grid)
    images, masks = sensors.sentinel2(satellites, days, rng)
    products = [
        f"S2A_MSIL2A_{day:%Y%m%d}T105021_N0300_R051_T31TCJ_{day:%Y%m%d}T135921" for day in days
    ]
    path = folder / area_path(zone.domain, zone.roi, "data")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, images)
    np.save(folder / area_path(zone.domain, zone.roi, "masks"), masks.astype(np.uint8))
    text = "".join(f"{name}\n" for name in products)
    (folder / area_path(zone.domain, zone.roi, "products")).write_text(text, "utf-8")
