"""The raw tree on disk: rasters, GeoPackages and CSVs as IGN lays them out."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pyogrio
import rasterio
from affine import Affine
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
from converters.miniature.landscape import draw
from converters.miniature.terroirs import SampleRoi, plan_rois
from flairhub.errors import SourceDataError
from flairhub.grids import CRS
from flairhub.ids import PatchId
from flairhub.modalities import MODALITIES, get_modality

_FIXED_CLOCK = "2025-06-01T00:00:00.000Z"
"""GeoPackages carry the time of writing; a fixed one keeps equal seeds equal in bytes."""


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
    long_series: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SampleReport:
    """Write a miniature of FLAIR-HUB's raw tree.

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
    long_series
        As many dates as real ROIs have, about three times those of the sample.
    workers
        Processes; one a core when absent.
    progress
        Told of every finished ROI: done, all.

    Raises
    ------
    SourceDataError
        If the folder is not empty.
    ConfigError
        If a number is out of range.
    """
    if directory.exists() and any(directory.iterdir()):
        msg = f"{directory} is not empty; a sample is written into a new or empty folder."
        raise SourceDataError(msg)
    planned = plan_rois(domains, rois, rows, columns)
    directory.mkdir(parents=True, exist_ok=True)
    facts: list[_Facts] = []
    for done, found in enumerate(_run(planned, directory, seed, long_series, workers), start=1):
        facts.append(found)
        if progress is not None:
            progress(done, len(planned))
    _write_metadata(directory / METADATA_FOLDER, planned, facts, seed)
    _write_csvs(directory, facts)
    files = [path for path in directory.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    patches = sum(len(f.patches) for f in facts)
    return SampleReport(domains, len(planned), patches, len(files), size)


def _run(
    planned: Sequence[SampleRoi],
    directory: Path,
    seed: int,
    long_series: bool,
    workers: int | None,
) -> Iterable[_Facts]:
    count = min(workers or os.cpu_count() or 1, len(planned))
    if count == 1:
        yield from (_write_roi(roi, directory, seed, long_series) for roi in planned)
        return
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_write_roi, roi, directory, seed, long_series) for roi in planned]
        for future in futures:
            yield future.result()


def _write_roi(roi: SampleRoi, directory: Path, seed: int, long_series: bool) -> _Facts:
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
    patches = tuple(
        PatchId(roi.domain, roi.roi, row, column)
        for row in range(1, roi.grid.rows + 1)
        for column in range(1, roi.grid.columns + 1)
    )
    for key, pixels in rasters.items():
        for patch in patches:
            _write_tiff(directory, roi, patch, key, pixels)
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


def _write_tiff(
    directory: Path, roi: SampleRoi, patch: PatchId, key: str, pixels: npt.NDArray[Any]
) -> None:
    modality = get_modality(key)
    window = roi.grid.patch_window(patch.row, patch.column, modality.resolution_m)
    grid = roi.grid.grid(modality.resolution_m).crop(window)
    path = directory / RawFile.of(patch, modality).path
    path.parent.mkdir(parents=True, exist_ok=True)
    values = pixels[(..., *window.slices)]
    profile = {
        "driver": "GTiff", "count": len(values), "height": grid.height, "width": grid.width,
        "dtype": modality.dtype, "crs": CRS, "transform": Affine(*grid.transform),
        "interleave": "pixel", "compress": "lzw",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        target.write(values)


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
