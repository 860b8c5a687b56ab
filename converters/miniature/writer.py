"""The raw tree on disk: rasters, tables and zips as IGN lays them out."""

from __future__ import annotations

import csv
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pyogrio
from shapely import box

from converters.flairhub_raw import (
    DATE,
    DATES,
    METADATA_FOLDER,
    PATCH_ID,
    SPLIT_FILE,
    RawFile,
    csv_columns,
    csv_path,
    dates_file,
)
from converters.miniature import sensors
from converters.miniature.flair import first_numbers, write_flair_tables, write_zone
from converters.miniature.landscape import draw
from converters.miniature.terroirs import FLAIR_DOMAINS, SampleRoi, plan_rois, plan_zones
from converters.miniature.tiff import write_tiff
from converters.target import check_folder
from flairhub.errors import ConfigError, SourceDataError, did_you_mean
from flairhub.grids import CRS
from flairhub.ids import PatchId
from flairhub.modalities import MODALITIES, get_modality

_FIXED_CLOCK = "2025-06-01T00:00:00.000Z"
"""GeoPackages carry the time of writing; a fixed one keeps equal seeds equal in bytes."""


LAYOUTS = ("flair-hub", "flair-hub-zips", "flair1", "flair2")
"""In which the sample can be written."""

_Told = TypeVar("_Told")


@dataclass(frozen=True)
class SampleReport:
    """What was written: numbers of domains, ROIs, patches, files, and bytes."""

    domains: int
    rois: int
    patches: int
    files: int
    bytes: int

    def as_dict(self) -> dict[str, int]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Facts:
    """What the tables need to know of a ROI."""

    patches: tuple[PatchId, ...]
    times: Mapping[str, tuple[date, ...]]
    days: Mapping[str, str]
    split: Mapping[PatchId, str]


def write_sample(
    directory: Path,
    *,
    domains: int = 3,
    rois: int = 2,
    rows: int = 3,
    columns: int = 3,
    seed: int = 0,
    layout: str = "flair-hub",
    long_series: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SampleReport:
    """Write a miniature of a raw tree: the same land in whatever layout.

    Parameters
    ----------
    directory
        New or empty folder.
    domains, rois
        Domains, and ROIs in each.
    rows, columns
        Patches of the largest ROIs; others may be smaller by one.
    seed
        The same seed gives the same bytes, whatever the number of workers.
    layout
        One of `LAYOUTS`.
    long_series
        As many dates as real ROIs of FLAIR-HUB have, about three times those of the sample.
    workers
        Processes; one a core when absent.
    progress
        Told of every finished ROI: done, all.

    Raises
    ------
    SourceDataError
        If the folder is not empty.
    ConversionError
        If it is a file, or lies below one.
    ConfigError
        If a number is out of range, or there is no such layout.
    """
    check_folder(directory.absolute(), "the folder of a sample")
    if directory.exists() and any(directory.iterdir()):
        msg = f"{directory} is not empty; a sample is written into a new or empty folder."
        raise SourceDataError(msg)
    if layout not in LAYOUTS:
        msg = f"There is no layout {layout!r}. {did_you_mean(layout, LAYOUTS)}"
        raise ConfigError(msg)
    zones = layout in FLAIR_DOMAINS
    planned = (
        plan_zones(layout, domains, rois, rows, columns)
        if zones
        else plan_rois(domains, rois, rows, columns)
    )
    directory.mkdir(parents=True, exist_ok=True)
    if zones:
        write = partial(write_zone, layout=layout, numbers=first_numbers(layout, planned))
        told = _run(write, planned, directory, seed, workers, progress)
        write_flair_tables(directory, layout, told)
    else:
        write_roi = partial(_write_roi, long_series=long_series)
        facts = _run(write_roi, planned, directory, seed, workers, progress)
        _write_metadata(directory / METADATA_FOLDER, planned, facts, seed)
        _write_csvs(directory, facts)
    if layout == "flair-hub-zips":
        _zip_folders(directory)
    files = [path for path in directory.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    patches = sum(roi.grid.rows * roi.grid.columns for roi in planned)
    return SampleReport(domains, len(planned), patches, len(files), size)


def _run(
    write: Callable[[SampleRoi, Path, int], _Told],
    planned: Sequence[SampleRoi],
    directory: Path,
    seed: int,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> list[_Told]:
    """Write every ROI, and return what the tables need to know of them."""
    found: list[_Told] = []

    def note(one: _Told) -> None:
        found.append(one)
        if progress is not None:
            progress(len(found), len(planned))

    count = min(workers or os.cpu_count() or 1, len(planned))
    if count == 1:
        for roi in planned:
            note(write(roi, directory, seed))
        return found
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        for future in [pool.submit(write, roi, directory, seed) for roi in planned]:
            note(future.result())
    return found


def _zip_folders(directory: Path) -> None:
    """Put each folder of a modality, and that of the tables, into a zip of its name."""
    for folder in sorted(path for path in directory.iterdir() if path.is_dir()):
        if folder.name.startswith("csv_"):
            continue
        with zipfile.ZipFile(folder.with_name(f"{folder.name}.zip"), "w") as target:
            for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                # TIFFs are compressed; a date of its own would make every run differ
                name = zipfile.ZipInfo(path.relative_to(directory).as_posix())
                target.writestr(name, path.read_bytes())
        shutil.rmtree(folder)


def _write_roi(roi: SampleRoi, directory: Path, seed: int, *, long_series: bool) -> _Facts:
    rng = np.random.default_rng((seed, *roi.position))
    land = draw(roi, rng)
    satellites = sensors.Satellites(land, roi)
    year = roi.domain.year
    times = {}
    for key, every, least, most in (
        ("sentinel2_ts", 5, 28, 44),
        ("sentinel1_asc_ts", 6, 22, 34),
        ("sentinel1_desc_ts", 6, 20, 32),
    ):
        count, twin = int(rng.integers(least, most)), key == "sentinel1_desc_ts"
        if long_series:
            count, every = round(count * 91 / 35), 3
        times[key] = sensors.revisit_days(year, every, count, rng, twin=twin)
    cosia, lpis = sensors.labels(land)
    optical, masks = sensors.sentinel2(satellites, times["sentinel2_ts"], rng)
    rasters = {
        "aerial_rgbi": sensors.aerial(land, roi, rng),
        "aerial_rlt_pan": sensors.historical(land, rng),
        "dem_elev": sensors.elevation(land, rng),
        "spot_rgbi": sensors.spot(land, rng),
        "sentinel2_ts": _flat(optical),
        "sentinel2_msk_sc": _flat(masks),
        "sentinel1_asc_ts": _flat(
            sensors.sentinel1(satellites, times["sentinel1_asc_ts"], True, rng)
        ),
        "sentinel1_desc_ts": _flat(
            sensors.sentinel1(satellites, times["sentinel1_desc_ts"], False, rng)
        ),
        "aerial_label_cosia": cosia,
        "all_label_lpis": lpis,
    }
    patches = roi.patches
    for key, pixels in rasters.items():
        for patch in patches:
            modality = get_modality(key)
            write_tiff(directory / RawFile.of(patch, modality).path, roi, patch, modality, pixels)
    flown = date(year, 1, 1).replace(month=7, day=int(rng.integers(1, 28)))
    days = {
        "aerial_rgbi": flown.strftime("%Y%m%d"),
        "aerial_rlt_pan": f"{int(rng.integers(1947, 1966))}0700",  # the day is not always known
        "spot_rgbi": flown.replace(month=6).strftime("%Y%m%d"),
    }
    return _Facts(patches, {k: tuple(v) for k, v in times.items()}, days, _split(roi, patches, rng))


def _flat(series: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Lay the bands of all dates one after the other, date by date, as the files have them."""
    return series.reshape(-1, *series.shape[-2:])


def _split(
    roi: SampleRoi, patches: Sequence[PatchId], rng: np.random.Generator
) -> Mapping[PatchId, str]:
    """Test domains are test; of the others every fifth patch is valid, as IGN draws 80 to 20."""
    if roi.test:
        return dict.fromkeys(patches, "test")
    valid = set(rng.permutation(len(patches))[: max(1, len(patches) // 5)].tolist())
    if len(patches) == 1:
        valid = set()
    return {p: "valid" if i in valid else "train" for i, p in enumerate(patches)}


def _write_metadata(
    folder: Path, planned: Sequence[SampleRoi], facts: Sequence[_Facts], seed: int
) -> None:
    folder.mkdir()
    patches = [p for f in facts for p in f.patches]
    squares = [
        box(*roi.grid.patch_extent(p.row, p.column).bbox)
        for roi, f in zip(planned, facts, strict=True)
        for p in f.patches
    ]
    names = [str(p) for p in patches]
    for key in ("sentinel2_ts", "sentinel1_asc_ts", "sentinel1_desc_ts"):
        texts = [
            json.dumps({str(i): d.strftime("%Y%m%d") for i, d in enumerate(f.times[key], start=1)})
            for f in facts
            for _ in f.patches
        ]
        _write_table(folder / _file(key), {PATCH_ID: names, DATES: texts}, squares)
    for key in ("aerial_rgbi", "aerial_rlt_pan", "spot_rgbi"):
        days = [f.days[key] for f in facts for _ in f.patches]
        _write_table(folder / _file(key), {PATCH_ID: names, DATE: days}, squares)
    first = [f.split[p] for f in facts for p in f.patches]
    folds = {PATCH_ID: names, "split_1": first}
    rng = np.random.default_rng((seed, 99))
    for k in range(2, 6):
        folds[f"split_{k}"] = rng.choice(
            ["train", "valid", "test"], len(names), p=[0.64, 0.16, 0.2]
        ).tolist()
    folds["split_flairchallenge"] = first
    _write_table(folder / SPLIT_FILE, folds, squares)


def _file(key: str) -> str:
    return str(dates_file(MODALITIES[key]))


def _write_table(path: Path, columns: Mapping[str, Sequence[str]], squares: Sequence[Any]) -> None:
    frame = gpd.GeoDataFrame(dict(columns), geometry=list(squares), crs=CRS)
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _FIXED_CLOCK})
    try:
        frame.to_file(path, driver="GPKG", layer=path.stem)
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def _write_csvs(directory: Path, facts: Sequence[_Facts]) -> None:
    """IGN ships small CSVs with commas and the full ones with semicolons; the sample has both."""
    columns = csv_columns()
    by_name = {m.source_name: m for m in MODALITIES.values()}
    for folder, delimiter, prefix in (("csv_toy", ",", ""), ("csv_full", ";", "FLAIR-HUB_")):
        (directory / folder).mkdir()
        for split in ("train", "valid", "test"):
            path = directory / folder / f"{prefix}{split.upper()}.csv"
            with path.open("w", newline="", encoding="utf-8") as handle:
                table = csv.writer(handle, delimiter=delimiter, lineterminator="\n")
                table.writerow(columns)
                for patch in (p for f in facts for p in f.patches if f.split[p] == split):
                    files = [csv_path(RawFile.of(patch, by_name[n])) for n in columns[1:]]
                    table.writerow([str(patch), *files])
