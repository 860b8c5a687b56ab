"""Damaged raw files by the hundred, read in a process of its own: ``python -m tests.fuzzing``.

A reader must give what the file holds or a clean error; whatever else ends the process, or is told.
"""

from __future__ import annotations

import faulthandler
import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from converters import rasters
from converters.dates import parse_day, parse_series, read_columns
from converters.files import RawTree, SourceFile
from converters.flairhub_raw import DATE, DATES
from converters.rasters import read_raster
from converters.splits import read_csv
from flairhub.errors import FlairHubError
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
    return "" if same and raster.grid == grid else "other pixels or another place than GDAL's"


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
    return "" if all(isinstance(patch, str) for patch in read_csv(file)) else "no text"


def archive(file: SourceFile) -> str:
    """Read every member of a zip."""
    tree = RawTree(Path(file.url).parent)
    for name in tree.names:
        for member in tree.files(name).values():
            member.read()
    return ""


READERS: dict[str, tuple[str, Callable[[SourceFile], str]]] = {
    "tiff": ("*/*/*.tif", tiff),
    "geopackage": ("*/*.gpkg", geopackage),
    "csv": ("csv*/*.csv", table),
    "zip": ("zips/*.zip", archive),
}


def main(kind: str, folder: str, count: int, seed: int) -> None:
    """Damage and read `count` files; print a JSON object of what came of it."""
    pattern, read = READERS[kind]
    files = sorted(Path(folder).glob(pattern))
    chance = random.Random(f"{kind} {seed}")
    outcomes = {"read": 0, "refused": 0}
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        for number in range(count):
            original = chance.choice(files)
            path = Path(place) / str(number) / original.name
            path.parent.mkdir()
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
            path.unlink()
    sys.stdout.write(json.dumps({**outcomes, "faults": faults}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
