"""Planning all of FLAIR-HUB: seconds and memory of a plan of 241,100 patches."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import Row, Workspace, benchmark
from flairhub.grids import PATCH_SIDE_M
from flairhub.ids import DomainId
from flairhub.nomenclatures import get_nomenclature
from flairhub.store.access import resolve
from flairhub.store.layout import table_name
from flairhub.store.tables import classes_column, list_domains, read_table

PATCHES, ROIS, DOMAINS = 241_100, 2_822, 74
"""Of the published dataset."""

_COLUMNS = 10
"""Patches of a row of a ROI; the last row is not full."""

_MODALITIES = ["aerial_rgbi", "dem_elev", "spot_rgbi", "sentinel2_ts", "sentinel2_msk_sc"]


def write_volume(root: Path, target: Path) -> None:
    """Write the tables of a dataset of the size of FLAIR-HUB, of the rows of one that there is.

    Parameters
    ----------
    root
        Stores whose first domain's ``patches`` and ``rois`` are repeated.
    target
        Folder for the tables. ROIs lie side by side; four of five are of the split ``train``.
    """
    domain = list_domains(resolve(root))[0]
    patches, rois = (pq.read_table(root / table_name(domain, name)) for name in ("patches", "rois"))
    # the dates of one ROI: all patches need percentages for as many
    first = rois.column("roi")[0].as_py()
    patches = patches.filter(pa.compute.equal(patches.column("roi"), first))
    sizes = np.full(ROIS, PATCHES // ROIS)
    sizes[: PATCHES % ROIS] += 1
    for number, several in enumerate(np.array_split(sizes, DOMAINS)):
        tables = _domain(patches, rois.slice(0, 1), several)
        for name, table in zip(("patches", "rois"), tables, strict=True):
            path = target / table_name(DomainId(f"{number + 1:03d}", domain.year), name)
            pq.write_table(table, path)


def _domain(
    patches: pa.Table, roi: pa.Table, sizes: npt.NDArray[np.int64]
) -> tuple[pa.Table, pa.Table]:
    count = len(sizes)
    number = np.repeat(np.arange(count), sizes)
    cell = np.concatenate([np.arange(size) for size in sizes])
    names = np.array([f"AF-S1-{i + 1}" for i in range(count)])
    split = np.where(np.arange(count) % 5 < 4, "train", "valid")
    wide = _COLUMNS * PATCH_SIDE_M
    return (
        _changed(
            patches.take(np.arange(len(cell)) % len(patches)),
            roi=names[number],
            row=cell // _COLUMNS + 1,
            column=cell % _COLUMNS + 1,
            split=split[number],
        ),
        _changed(
            roi.take(np.zeros(count, np.int64)),
            roi=names,
            rows=-(-sizes // _COLUMNS),
            columns=np.minimum(sizes, _COLUMNS),
            first_row=np.ones(count),
            first_column=np.ones(count),
            left=roi.column("left")[0].as_py() + wide * np.arange(count),
        ),
    )


def _changed(table: pa.Table, **columns: npt.NDArray[np.generic]) -> pa.Table:
    for name, values in columns.items():
        at = table.column_names.index(name)
        kind = table.schema.field(name)
        table = table.set_column(at, kind, pa.array(values.tolist()).cast(kind.type))
    return table


@benchmark
def planning(workspace: Workspace) -> Iterator[Row]:
    """Plan a volume of the published size, plainly and with every kind of filter."""
    folder = workspace.scratch / "volume"
    folder.mkdir()
    write_volume(workspace.root, folder)
    for name, filters, goal in (("plain", "none", None), ("all filters", "all", 10.0)):
        seconds, memory, windows = measure(folder, filters)
        what = f"{PATCHES:,} patches of {ROIS:,} ROIs, {windows:,.0f} windows planned"
        yield Row(f"plan, {name}", "s", seconds, None, goal, "lower", what)
        limit = None if goal is None else 500
        yield Row(
            f"memory of a plan, {name}", "MB", memory, None, limit, "lower",
            f"peak above the imports; {what}",
        )  # fmt: skip


def measure(folder: Path, filters: str) -> tuple[float, float, float]:
    """Return seconds, MB above the imports, and windows of a plan; ``none`` or ``all`` filters.

    In a process of its own, which alone tells its memory, on one core.
    """
    classes = {label: {_commonest(folder, label): 0.01} for label in ("cosia", "lpis_1")}
    command = [sys.executable, "-c", _FRESH, str(folder), filters, json.dumps(classes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, memory, windows = map(float, done.stdout.split())
    return seconds, memory, windows


def _commonest(folder: Path, label: str) -> str:
    """Return the class of most pixels in the first domain."""
    root = resolve(folder)
    found = read_table(root, list_domains(root)[0], "patches", [classes_column(label)])
    counts = np.stack(found[classes_column(label)].to_list()).sum(axis=0)
    return get_nomenclature(label).classes[int(counts.argmax())].name


_FRESH = f"""
import json, os, sys, time
os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
import flairhub, flairhub.batches.streaming
from benchmarks.remote import memory_mb
filters = dict(
    split="train",
    max_cloud=60,
    dates={{"aerial_rgbi": ("2000-01-01", None), "sentinel2_ts": ("2000-04-01", None)}},
    classes=json.loads(sys.argv[3]),
)
imported = memory_mb("VmRSS")
started = time.perf_counter()
plan = flairhub.PatchPlan.build(
    sys.argv[1],
    modalities={_MODALITIES},
    labels=["cosia", "lpis_1"],
    **(filters if sys.argv[2] == "all" else {{}}),
)
print(time.perf_counter() - started, memory_mb("VmHWM") - imported, len(plan))
"""
