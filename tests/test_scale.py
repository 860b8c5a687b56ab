"""The whole of FLAIR-HUB, from names alone: what a conversion would do, in a minute and 2 GB."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import planning
from converters.files import SourceFile
from converters.flairhub_raw import METADATA_FOLDER, RawFolder, dates_file
from converters.flairhub_tree import FlairHubTree
from converters.plan import ConversionPlan, plan
from flairhub.ids import DomainId, RoiId
from flairhub.modalities import dataset_modalities

ROIS, PATCHES = 2822, 241_100

# Counts of single files' bytes are about those of the published volume, 3.1 MB a patch.
_SIZES = {
    "aerial_rgbi": 1_100_000, "dem_elev": 1_500_000, "sentinel2_ts": 190_000,
    "sentinel2_msk_sc": 20_000, "sentinel1_asc_ts": 75_000, "sentinel1_desc_ts": 75_000,
    "spot_rgbi": 30_000, "aerial_rlt_pan": 60_000, "aerial_label_cosia": 20_000,
    "all_label_lpis": 10_000,
}  # fmt: skip


def layout() -> dict[DomainId, list[tuple[RoiId, int, int]]]:
    """Return 74 domains with 2,822 ROIs of 241,100 patches in all: rows and columns of each."""
    found: dict[DomainId, list[tuple[RoiId, int, int]]] = {}
    left = PATCHES
    for number in range(ROIS):
        domain = DomainId(f"{1 + number % 74:03d}", 2019)
        rest = ROIS - number
        # whole rectangles, most of 10 x 10 and the others smaller, until all patches have a place
        rows, columns = next(
            (r, c)
            for r, c in ((10, 10), (10, 7), (10, 5), (5, 5), (5, 2), (1, 1))
            if left - r * c >= (rest - 1) * 1 and (r * c <= 100 * left / (85 * rest) or r * c == 1)
        )
        if rest == 1:
            rows, columns = 1, left
        left -= rows * columns
        found.setdefault(domain, []).append((RoiId("AF", 1, str(number)), rows, columns))
    assert left == 0
    return found


class NamesOnly:
    """A raw tree that consists of names: `converters.files.RawTree` without a disk."""

    root = "s3://somewhere/FLAIR-HUB"
    requests = 0

    def __init__(self) -> None:
        self.layout = layout()
        self.files_here: dict[str, SourceFile] = {}
        self.folders = {
            str(RawFolder.of(domain, modality)): (domain, modality)
            for domain in self.layout
            for modality in dataset_modalities("FLAIR-HUB")
        }  # the historical folder of a department, too, since each has one domain here

    @property
    def names(self) -> list[str]:
        return [*self.folders, METADATA_FOLDER]

    def files(self, folder: str) -> dict[str, SourceFile]:
        if folder == METADATA_FOLDER:
            names = {dates_file(m) for m in dataset_modalities("FLAIR-HUB")} - {None}
            return {str(name): SourceFile(f"{self.root}/{folder}/{name}", 10**9) for name in names}
        domain, modality = self.folders[folder]
        return {
            path: SourceFile(f"{self.root}/{folder}/{path}", _SIZES[modality.key])
            for roi, rows, columns in self.layout[domain]
            for row in range(1, rows + 1)
            for column in range(1, columns + 1)
            if (path := f"{roi}/{folder}_{roi}_{row}-{column}.tif")
        }


class EveryPatch(dict[str, str]):
    """A table of dates that says the same of every patch."""

    def __init__(self, dates: int) -> None:
        super().__init__()
        days = {str(n + 1): f"2019{1 + n // 28:02d}{1 + n % 28:02d}" for n in range(dates)}
        self.text = json.dumps(days)

    def get(self, *_: Any) -> str:  # noqa: ANN401
        return self.text


def whole_dataset() -> FlairHubTree:
    source = object.__new__(FlairHubTree)
    tree: Any = NamesOnly()
    source.tree = tree
    source._folders = [f for name in tree.names if (f := RawFolder.parse(name))]
    source._notes, source._left_out = [], {}
    for modality in dataset_modalities("FLAIR-HUB"):
        if modality.dates_name:
            table = EveryPatch(91) if modality.temporal else {}
            source._tables[str(dates_file(modality))] = table
    return source


def measure(root: str) -> tuple[ConversionPlan, float, float]:
    started = time.process_time()
    found = plan(whole_dataset(), root)
    # not ru_maxrss, which begins with what the process had that started this one
    status = Path("/proc/self/status").read_text("utf-8")
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return found, time.process_time() - started, peak / 1e6


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What a process of its own found, and what it took."""
    root = str(tmp_path_factory.mktemp("nothing") / "store")
    command = [sys.executable, "-m", "tests.test_scale", root]
    found = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1]
    )
    assert found.returncode == 0, found.stderr
    yield json.loads(found.stdout)
    assert not Path(root).exists(), "a plan writes nothing"


@pytest.mark.long
def test_the_whole_dataset_is_planned_from_names(measured: dict[str, Any]) -> None:
    total = measured["total"]
    assert (total["rois"], total["patches"], total["files"]) == (ROIS, PATCHES, 10 * PATCHES)
    assert total["objects"] < 290_000
    assert 1.0e12 < total["raw_bytes"] < 1.2e12
    assert measured["gigabytes"] < 2


if __name__ == "__main__":
    planned, seconds, gigabytes = measure(sys.argv[1])
    facts = {"total": planned.as_dict()["total"], "seconds": seconds, "gigabytes": gigabytes}
    sys.stdout.write(json.dumps(facts) + "\n")


@pytest.mark.long
def test_all_of_flairhub_is_planned_in_little_memory(store_root: Path, tmp_path: Path) -> None:
    planning.write_volume(store_root, tmp_path)
    _, memory, windows = planning.measure(tmp_path, "none")
    assert windows == planning.PATCHES
    assert memory < 500
    _, memory, windows = planning.measure(tmp_path, "all")
    assert 0 < windows < planning.PATCHES
    assert memory < 500
