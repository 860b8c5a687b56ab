"""Damaged raw files by the hundred, read in a process of its own: ``python -m tests.fuzzing``.

A reader must give what the file holds or a clean error; whatever else ends the process, or is told.
"""

from __future__ import annotations

import faulthandler
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from math import floor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from converters import rasters
from converters.dates import parse_day, parse_series, read_columns
from converters.files import RawTree, SourceFile
from converters.flair2 import CENTROIDS_FILE, MASKS, SERIES, Flair2Tree
from converters.flairhub_raw import DATE, DATES
from converters.npy import read_area, read_shape
from converters.rasters import read_grid, read_raster
from converters.source import RoiSource
from converters.splits import read_csv
from flairhub.errors import FlairHubError, SourceDataError
from flairhub.grids import Grid
from flairhub.ids import PatchId
from flairhub.modalities import MODALITIES
from flairhub.store.tables import FOLDS

SECONDS = 30
"""After which a read counts as hung."""

_EDGES = (b"\x00" * 4, b"\xff" * 4, b"\x00\x00\x00\x80", b"\x01\x00\x00\x00", b"\xff\xff\xff\x7f")


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Return a damaged copy: bits, bytes, blocks, numbers in the header, or the end."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 3, 20))):
        if not found:
            break
        # half of the damage goes where a header is
        near = min(len(found), 600) if chance.random() < 0.5 else len(found)
        at = chance.randrange(near)
        kind = chance.randrange(7)
        if kind == 0:
            found[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            found[at] = chance.randrange(256)
        elif kind == 2:
            found[at : at + 4] = chance.choice(_EDGES)
        elif kind == 3:
            del found[at : at + chance.choice((1, 2, 100, 5000))]
        elif kind == 4:
            found[at:at] = chance.randbytes(chance.choice((1, 2, 100)))
        elif kind == 5:
            size = chance.choice((16, 512, 4096))
            other = chance.randrange(len(found))
            found[at : at + size] = found[other : other + size]
        else:
            del found[max(1, at) :]
    return bytes(found)


def tiff(file: SourceFile) -> str:
    """Read a raster; what comes must be what GDAL reads of the same bytes."""
    modality = next(m for m in MODALITIES.values() if f"_{m.source_name}_" in file.name)
    raster = read_raster(file, modality)
    expected, grid = rasters._decode_any(file.read(), file, modality)
    bits = f"u{modality.numpy_dtype.itemsize}"
    same = np.array_equal(raster.pixels.reshape(expected.shape).view(bits), expected.view(bits))
    if same and raster.grid == grid == read_grid(file, modality):
        return ""
    return "other pixels or another place than GDAL's"


def geopackage(file: SourceFile) -> str:
    """Read the dates and splits of a table."""
    for name, values in read_columns(file, (DATES, DATE, *FOLDS)).items():
        for patch, value in values.items():
            if name == DATES:
                parse_series(value, file, patch)
            elif name == DATE:
                parse_day(value, file, patch)
    return ""


def table(file: SourceFile) -> str:
    """Read a split CSV."""
    return "" if all(isinstance(patch, str) for patch in read_csv(file, "/")) else "no text"


def archive(file: SourceFile) -> str:
    """Read every member of a zip."""
    tree = RawTree(Path(file.url).parent)
    for name in tree.names:
        for member in tree.files(name).values():
            member.read()
    return ""


def metadata(file: SourceFile) -> str:
    """Read the dates and places of images beside the other files of the dataset."""
    tree = Flair2Tree(Path(file.url).parent)
    rois = [roi for domain in tree.domains() for roi in tree.rois(domain, tree.modalities)]
    for problem in (roi.problem for roi in rois if roi.problem):
        raise SourceDataError(problem)
    left_out = [*tree.left_out(rois[0].domain), *(one for roi in rois for one in roi.left_out)]
    if left_out:
        raise SourceDataError(left_out[0].reason)
    table = json.loads(file.read())
    for roi in rois:
        for patch, image in roi.facts["image"].items():
            if file.name != CENTROIDS_FILE:
                day = roi.dates["flair_aerial"][patch]
                if str(day) != str(table.get(image, {}).get("date")):
                    return f"{image} has the date {day}"
            elif f"{image}.tif" in table and table[f"{image}.tif"] != _pixel(roi, patch):
                return f"{image} lies in the pixel {_pixel(roi, patch)}"
    return ""


def _pixel(roi: RoiSource, patch: PatchId) -> list[int]:
    """Return the row and column of a super-area in which the middle of a patch lies."""
    assert roi.lattice is not None
    grid = roi.areas[SERIES.key].grid
    left, bottom, right, top = roi.lattice.patch_extent(patch.row, patch.column).bbox
    south, east = grid.top - (bottom + top) / 2, (left + right) / 2 - grid.left
    return [floor(distance / grid.resolution) for distance in (south, east)]


def series(file: SourceFile) -> str:
    """Read the series of a super-area; what comes must be what NumPy loads."""
    modality = SERIES if file.name.endswith("data.npy") else MASKS
    dates, _, height, width = read_shape(file, modality)
    found = read_area(file, modality, dates, Grid(0.0, 0.0, 10.0, height, width)).pixels
    same = np.array_equal(found, np.load(file.url, allow_pickle=False))
    return "" if same else "other numbers than NumPy's"


class Reader(NamedTuple):
    """How files of a kind are found and read; `sisters`: with what lies beside them."""

    pattern: str
    read: Callable[[SourceFile], str]
    sisters: bool = False


READERS = {
    "tiff": Reader("*/*/*.tif", tiff),
    "geopackage": Reader("*/*.gpkg", geopackage),
    "csv": Reader("csv*/*.csv", table),
    "zip": Reader("zips/*.zip", archive),
    "json": Reader("flair/*.json", metadata, sisters=True),
    "npy": Reader("flair/*/*/*/sen/*.npy", series),
}


def main(kind: str, folder: str, count: int, seed: int) -> None:
    """Damage and read `count` files; print a JSON object of what came of it."""
    pattern, read, sisters = READERS[kind]
    files = sorted(Path(folder).glob(pattern))
    chance = random.Random(f"{kind} {seed}")
    outcomes = {"read": 0, "refused": 0}
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        for number in range(count):
            original = chance.choice(files)
            path = Path(place) / str(number) / original.name
            path.parent.mkdir()
            for other in original.parent.iterdir() if sisters else ():
                if other != original:
                    (path.parent / other.name).symlink_to(other)
            data = mutate(original.read_bytes(), chance)
            path.write_bytes(data)
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            try:
                fault = read(SourceFile(str(path), len(data)))
                outcomes["read"] += 1
                if fault:
                    faults.append(f"{number} {original.name}: {fault}")
            except FlairHubError as error:
                outcomes["refused"] += 1
                if path.name not in str(error):
                    faults.append(f"{number} {original.name}: the error names no file: {error}")
            except Exception as error:
                faults.append(f"{number} {original.name}: {error!r}")
            faulthandler.cancel_dump_traceback_later()
            shutil.rmtree(path.parent)
    sys.stdout.write(json.dumps({**outcomes, "faults": faults}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
