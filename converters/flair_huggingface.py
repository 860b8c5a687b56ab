"""FLAIR#1 and FLAIR#2 as Hugging Face has them: a zip a domain, in a folder a split.

::

    data/train-val/D004_2021.zip          aerial/Z1_AN/IMG_000001.tif, labels/Z1_AN/MSK_000001.tif,
    data/flair#1-test/D012_2019.zip       and of all but flair#1-test the series of each zone
    data/flair#2-test/D015_2020.zip
    aux-data/flair_aerial_metadata.json, aux-data/flair-2_centroids_sp_to_patch.json

Inside a zip, or a folder of its name, files are known by their own names and that of their zone,
whatever folders lie between: IGN documents the zips, not what is in them.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from converters.files import RawTree, SourceFile, raw_tree
from converters.flair2 import SERIES, Flair2Tree
from converters.flair_raw import IMAGE, MASK, Part, Zone, zone_path
from flairhub.errors import InvalidIdError, SourceDataError
from flairhub.ids import DomainId, RoiId

SPLITS = ("train-val", "flair#1-test", "flair#2-test")
"""The folders of zips."""

_DATA, _TABLES = "data", "aux-data"
_RASTER = re.compile(
    r"(?:.*/)?(?P<zone>Z[0-9]+_[A-Z]{2})/(?:img/|msk/)?(?P<kind>IMG|MSK)_(?P<number>[0-9]{6})\.tif"
)
_SERIES = re.compile(
    r"(?:.*/)?SEN2_sp_(?P<domain>D[0-9]+_[0-9]{4})[-_](?P<zone>Z[0-9]+_[A-Z]{2})_"
    r"(?P<part>data\.npy|masks\.npy|products\.txt)"
)


@dataclass(frozen=True, slots=True)
class DomainFolder:
    """A domain in a split, as a zip or unpacked."""

    split: str
    domain: DomainId

    @property
    def part(self) -> str:
        """``train`` or ``test``."""
        return "test" if self.split.endswith("-test") else "train"

    @property
    def name(self) -> str:
        """Name of the folder or zip."""
        return str(self.domain).replace("-", "_")

    def __str__(self) -> str:
        """Return the path below ``data``."""
        return f"{self.split}/{self.name}"


def data_folder(tree: RawTree) -> str | None:
    """Return the path or URL of the folder of splits in a dataset; None where there is none."""
    if set(SPLITS) & set(tree.names):
        return tree.root
    if _DATA in tree.names:
        below = f"{tree.root.rstrip('/')}/{_DATA}"
        if set(SPLITS) & set(RawTree(below).names):
            return below
    return None


class FlairHuggingFaceTree(Flair2Tree):
    """The layout of Hugging Face's ``IGNF/FLAIR-1-2``, zipped or not.

    Parameters
    ----------
    root
        Path or URL, or what is open of it, of the folder that holds ``data`` and ``aux-data``.

    Raises
    ------
    SourceDataError
        If the folder does not exist, holds no splits, or something else than domains in them.
    """

    def __init__(self, root: str | os.PathLike[str] | RawTree) -> None:
        self.tree = raw_tree(root)
        self._notes, self._bad = [], {}
        data = data_folder(self.tree)
        if data is None:
            msg = f"{self.tree.root} holds none of {', '.join(SPLITS)}, nor does its folder data."
            raise SourceDataError(msg)
        names = self.tree.names if data == self.tree.root else RawTree(data).names
        self._trees = {split: RawTree(f"{data}/{split}") for split in SPLITS if split in names}
        self._domains = [
            DomainFolder(split, _domain(name, tree))
            for split, tree in self._trees.items()
            for name in tree.names
        ]

    @property
    def name(self) -> str:
        """Name of the layout, for the store's attributes."""
        return "FLAIR#1/#2"

    @cached_property
    def _zones(self) -> Mapping[str, Zone]:
        found: dict[str, Zone] = {}
        for folder, path, file in self._files(".tif"):
            name = _RASTER.fullmatch(path)
            if name is None:
                msg = (
                    f"{file} is no raster of FLAIR#1 or FLAIR#2; expected a path like "
                    "aerial/Z1_AN/IMG_000001.tif or labels/Z1_AN/MSK_000001.tif."
                )
                self._bad.setdefault(msg, IMAGE.key)
                continue
            roi = RoiId.parse(name["zone"].replace("_", "-"))
            place = zone_path(folder.domain, roi)
            zone = found.setdefault(place, Zone(folder.domain, roi))
            if folder not in zone.folders:
                zone.folders.append(folder)
            modality = IMAGE if name["kind"] == "IMG" else MASK
            zone.rasters[name["number"]][modality.key] = file
        return found

    @cached_property
    def _series(self) -> Mapping[tuple[Part, str], Mapping[str, SourceFile]]:
        found: dict[tuple[Part, str], dict[str, SourceFile]] = defaultdict(dict)
        for folder, path, file in self._files(".npy", "_products.txt"):
            name = _SERIES.fullmatch(path)
            if name is None or name["domain"] != folder.name:
                msg = (
                    f"{file} is no series of FLAIR#2; expected a name like "
                    f"SEN2_sp_{folder.name}-Z1_AN_data.npy."
                )
                self._bad.setdefault(msg, SERIES.key)
                continue
            found[folder, f"{name['domain']}/{name['zone']}"][name["part"]] = file
        return found

    def _files(self, *endings: str) -> Iterator[tuple[DomainFolder, str, SourceFile]]:
        for folder in self._domains:
            there: Mapping[str, SourceFile] = {}
            with self._noting("data"):
                there = self._trees[folder.split].files(folder.name)
            for path, file in sorted(there.items()):
                if path.endswith(endings):
                    yield folder, path, file

    def tables(self, pattern: re.Pattern[str]) -> list[SourceFile]:
        """Return the files in the root, or in ``aux-data``, whose name fits."""
        files = list(self.tree.files_here.values())
        if _TABLES in self.tree.names:
            files += self.tree.files(_TABLES).values()
        return sorted((f for f in files if pattern.fullmatch(f.name)), key=str)


def _domain(name: str, tree: RawTree) -> DomainId:
    with suppress(InvalidIdError):
        domain = DomainId.parse(name.replace("_", "-"))
        if str(domain).replace("-", "_") == name:
            return domain
    msg = f"{tree.root}/{name} is no domain; expected a zip or folder like D004_2021.zip."
    raise SourceDataError(msg)
