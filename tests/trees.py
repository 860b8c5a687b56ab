"""Small changes to copies of trees, for tests that damage something."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from zarr.storage import MemoryStore

from converters.convert import convert
from converters.open import open_source
from flairhub.errors import SourceDataError
from flairhub.store.access import Location


def first_tiff(tree: Path, modality: str) -> Path:
    """Return the first raster of a modality by IGN's name."""
    return sorted(tree.glob(f"*_{modality}/*/*.tif"))[0]


def copy_domain(raw_tree: Path, target: Path) -> Path:
    """Copy the tree's first domain, hard-linked where nothing is changed in place."""
    first = sorted(p.name for p in raw_tree.glob("*_AERIAL_RGBI"))[0].partition("-")[0]
    target.mkdir(parents=True)
    for path in sorted(raw_tree.iterdir()):
        if (path.is_dir() and not path.name.startswith("D")) or path.name.startswith(f"{first}-"):
            shutil.copytree(path, target / path.name)
        elif path.is_file():
            shutil.copy2(path, target / path.name)
    return target


def copy_flair_domain(tree: Path, target: Path) -> Path:
    """Copy one train domain of FLAIR#1 or FLAIR#2, and the tables beside it, to be damaged."""
    for folder in sorted(tree.glob("flair_*_train")):
        shutil.copytree(folder / "D032_2019", target / folder.name / "D032_2019")
    for path in tree.glob("*.json"):
        shutil.copy(path, target)
    return target


def problem(tree: Path) -> str:
    """Convert, and return what the program says of what it cannot."""
    with pytest.raises(SourceDataError) as caught:
        convert(open_source(tree), Location(MemoryStore(), "store"))
    return str(caught.value)


def rewrite(path: Path, pixels: npt.NDArray[Any] | None = None, **profile: Any) -> None:  # noqa: ANN401
    """Write a TIFF again with other pixels or another profile."""
    with rasterio.open(path) as source:
        settings = {**source.profile, **profile}
        values = source.read() if pixels is None else pixels
    settings["count"] = len(values)
    settings["height"], settings["width"] = values.shape[-2:]
    settings.setdefault("dtype", values.dtype)
    path.unlink()
    with rasterio.open(path, "w", **settings) as target:
        target.write(values.astype(settings["dtype"]))


def read(path: Path) -> npt.NDArray[Any]:
    """Read all bands of a TIFF."""
    with rasterio.open(path) as source:
        return np.asarray(source.read())


def change_splits(tree: Path) -> None:
    """Rename the lists of patches, so that every patch is in another split."""
    after = {"TRAIN": "VALID", "VALID": "TEST", "TEST": "TRAIN"}
    lists = {path: path.read_bytes() for path in tree.rglob("*.csv")}
    for path in lists:
        path.unlink()
    for path, data in lists.items():
        (split,) = (name for name in after if name in path.name)
        path.with_name(path.name.replace(split, after[split])).write_bytes(data)


def flip_bit(path: Path, position: int) -> None:
    """Flip one bit of one byte of a file; negative positions count from its end."""
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(bytes(data))


def snapshot(root: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
