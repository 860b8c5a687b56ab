"""FLAIR#2: what FLAIR#1 has, and a Sentinel-2 series of each zone and its surroundings.

::

    flair_sen_train/D004_2021/Z1_AN/sen/SEN2_sp_D004_2021-Z1_AN_data.npy      (T, 10, H, W) uint16
    flair_sen_train/D004_2021/Z1_AN/sen/SEN2_sp_D004_2021-Z1_AN_masks.npy     (T, 2, H, W) 0..100
    flair_sen_train/D004_2021/Z1_AN/sen/SEN2_sp_D004_2021-Z1_AN_products.txt  a product a date
    flair_2_aerial_test, flair_2_labels_test, flair_2_sen_test                of the test domains
    flair-2_centroids_sp_to_patch.json                     where images lie in their super-area

A super-area carries no georeference. It follows from the images: the middle of each lies in the
pixel of 10 m that the JSON names, so that each tells the corner to a pixel and all of a zone tell
it to a fraction of one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import cached_property
from math import floor
from typing import ClassVar

from converters.files import SourceFile
from converters.flair1 import Flair1Tree, read_json
from converters.flair_raw import Part, Zone, zone_path
from converters.npy import check_shape, read_shape
from converters.source import Area
from flairhub.errors import SourceDataError
from flairhub.grids import Grid
from flairhub.ids import DomainId, RoiId
from flairhub.modalities import FLAIR, MODALITIES, Modality, dataset_modalities

SERIES, MASKS = MODALITIES["flair_sentinel2_ts"], MODALITIES["flair_sentinel2_msk_sc"]

CENTROIDS_FILE = "flair-2_centroids_sp_to_patch.json"

_CENTROIDS = re.compile(r"flair.*centroids.*\.json")
_AREA = re.compile(
    r"(?P<place>(?P<domain>[^/]+)/(?P<zone>[^/]+))/sen/"
    r"SEN2_sp_(?P=domain)[-_](?P=zone)_(?P<part>data\.npy|masks\.npy|products\.txt)"
)
_ENDINGS = {"data": "npy", "masks": "npy", "products": "txt"}
_TOLERANCE_M = 1e-6
_DAY = slice(11, 19)
"""Where the day stands in a product's name: S2A_MSIL2A_20210415T105021_..."""


def area_path(domain: DomainId, zone: RoiId, part: str) -> str:
    """Return the path of a super-area's ``data``, ``masks`` or ``products`` below its folder."""
    place = zone_path(domain, zone)
    return f"{place}/sen/SEN2_sp_{place.replace('/', '-')}_{part}.{_ENDINGS[part]}"


class Flair2Tree(Flair1Tree):
    """The layout of FLAIR#2, unpacked or in IGN's zips; opened as `Flair1Tree` is."""

    validation: ClassVar[frozenset[str]] = Flair1Tree.validation - {"D070-2020"} | {"D077-2021"}

    @property
    def name(self) -> str:
        """Name of the layout, for the store's attributes."""
        return "FLAIR#2"

    @property
    def modalities(self) -> Sequence[Modality]:
        """Images of five bands, masks, and the Sentinel-2 series with their masks."""
        return dataset_modalities(FLAIR)

    def _held(self, zone: Zone) -> set[str]:
        parts = self._series.get((zone.folders[0], zone.name), {})
        return (
            super()._held(zone)
            | ({SERIES.key} if "data.npy" in parts else set())
            | ({MASKS.key} if "masks.npy" in parts else set())
        )

    def _areas(
        self, zone: Zone, grids: Mapping[str, Grid], modalities: Sequence[Modality]
    ) -> tuple[dict[str, Area], dict[str, tuple[date, ...]]]:
        parts = self._series.get((zone.folders[0], zone.name), {})
        if SERIES not in modalities or not parts:
            return {}, {}
        if missing := {"data.npy", "products.txt"} - parts.keys():
            one = next(iter(parts.values()))
            msg = f"{one} lies there without {' and '.join(sorted(missing))} of {zone.name}."
            raise SourceDataError(msg)
        days = _days(parts["products.txt"])
        shape = read_shape(parts["data.npy"], SERIES)
        check_shape(parts["data.npy"], shape, (len(days), *shape[1:]))
        grid = self._grid(zone, grids, shape[2], shape[3])
        areas = {SERIES.key: Area(parts["data.npy"], grid)}
        if "masks.npy" in parts and MASKS in modalities:
            check_shape(
                parts["masks.npy"],
                read_shape(parts["masks.npy"], MASKS),
                (len(days), len(MASKS.bands), *shape[2:]),
            )
            areas[MASKS.key] = Area(parts["masks.npy"], grid)
        return areas, dict.fromkeys(areas, days)

    def _grid(self, zone: Zone, grids: Mapping[str, Grid], height: int, width: int) -> Grid:
        """Return the grid of a super-area, from the pixels in which the zone's images lie."""
        centroids, file = self._centroids
        north, west = [], []
        for number, grid in grids.items():
            image = f"IMG_{number}.tif"
            if image not in centroids:
                continue
            row, column = _pixel(centroids[image], image, file, height, width)
            left, bottom, right, top = grid.extent.bbox
            x, y = (left + right) / 2, (bottom + top) / 2
            west.append((x - column * SERIES.resolution_m, image, (row, column), (x, y)))
            # northings fall along the rows: mirrored, so that both axes are treated alike
            north.append((-y - row * SERIES.resolution_m, image, (row, column), (x, y)))
        if not west:
            missing = file or f"{self.tree.root}/{CENTROIDS_FILE}"
            msg = f"{missing} has no image of {zone.name}: its super-area has no georeference."
            raise SourceDataError(msg)
        where = f"{file}, {zone.name}"
        return Grid(_edge(west, where), -_edge(north, where), SERIES.resolution_m, height, width)

    @cached_property
    def _centroids(self) -> tuple[Mapping[str, object], SourceFile | None]:
        files = self.tables(_CENTROIDS)
        return (read_json(files[0]), files[0]) if files else ({}, None)

    @cached_property
    def _series(self) -> Mapping[tuple[Part, str], Mapping[str, SourceFile]]:
        """The files of each super-area, by the folder of its images and its zone."""
        found: dict[tuple[Part, str], dict[str, SourceFile]] = defaultdict(dict)
        for folder in self.folders:
            if folder.kind != "sen":
                continue
            there: Mapping[str, SourceFile] = {}
            with self._noting(SERIES.key):
                there = self.tree.files(str(folder))
            for path, file in there.items():
                if not path.endswith((".npy", ".txt")):
                    continue
                with self._noting(SERIES.key):
                    name = _AREA.fullmatch(path)
                    if name is None:
                        msg = (
                            f"{file} is no series of FLAIR#2; expected a path like "
                            "D004_2021/Z1_AN/sen/SEN2_sp_D004_2021-Z1_AN_data.npy."
                        )
                        raise SourceDataError(msg)
                    found[folder.sister("aerial"), name["place"]][name["part"]] = file
        return found


_Told = tuple[float, str, tuple[int, int], tuple[float, float]]
"""Where an image puts an edge at most; its name, pixel and middle."""


def _edge(told: Sequence[_Told], where: str) -> float:
    """Return the edge of a super-area, which lies up to a pixel before where each image puts it.

    Of what all agree on the roundest number is taken: whole tens of metres, metres, decimetres.
    """
    size = SERIES.resolution_m
    first, last = min(told), max(told)
    low, high = last[0] - size, first[0]
    if high - low <= _TOLERANCE_M:
        both = " and ".join(
            f"{image} with its middle {middle[0]}, {middle[1]} at row {pixel[0]}, column {pixel[1]}"
            for _, image, pixel, middle in (first, last)
        )
        msg = (
            f"{where}: the super-area cannot have {both}: they put its edge "
            f"{last[0] - first[0]:.1f} m apart, more than its pixels of {size:g} m."
        )
        raise SourceDataError(msg)
    for step in (size, 1.0, 0.1):
        edge = round(floor((high + _TOLERANCE_M) / step) * step, 6)
        if edge > low:
            return edge
    return round((low + high) / 2, 6)


def _pixel(
    value: object, image: str, file: SourceFile | None, height: int, width: int
) -> tuple[int, int]:
    """Return the row and column of an image in its super-area."""
    if isinstance(value, list) and len(value) == 2 and all(type(v) is int for v in value):
        row, column = value
        if 0 <= row < height and 0 <= column < width:
            return row, column
    msg = (
        f"{file}: {image} is at {value!r:.60}; expected a row and a column of its super-area of "
        f"{height} x {width} pixels."
    )
    raise SourceDataError(msg)


def _days(file: SourceFile) -> tuple[date, ...]:
    """Return the day of every product, a line each."""
    try:
        lines = file.read().decode("utf-8-sig").split()
    except UnicodeDecodeError as error:
        msg = f"{file} is not a text in UTF-8: {error}."
        raise SourceDataError(msg) from error
    days = []
    for number, line in enumerate(lines, start=1):
        try:
            days.append(datetime.strptime(line[_DAY], "%Y%m%d").date())
        except ValueError as error:
            msg = (
                f"{file}, line {number}: {line!r:.80} names no day; expected a product like "
                "S2A_MSIL2A_20210415T105021_N0300_R051_T31UDP_20210415T135921."
            )
            raise SourceDataError(msg) from error
    return tuple(days)
