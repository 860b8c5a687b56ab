"""Raw GeoTIFFs to stores: speed, bytes, and number of objects."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
import zarr

from benchmarks.harness import Row, Workspace, benchmark, interleaved, timed
from converters.convert import convert
from converters.flairhub_tree import FlairHubTree
from converters.source import RoiSource
from flairhub.grids import RoiGrid
from flairhub.modalities import dataset_modalities
from flairhub.store.codecs import codecs
from flairhub.store.layout import array_specs, store_name


@benchmark
def conversion(workspace: Workspace) -> Iterator[Row]:
    """Speed of ``flairhub convert`` against reading and writing the same arrays, unchecked."""
    raw_bytes = 0

    def ours() -> float:
        nonlocal raw_bytes
        with tempfile.TemporaryDirectory(dir=workspace.scratch) as root:
            source = FlairHubTree(workspace.raw)
            seconds, report = timed(lambda: convert(source, root, workers=1))
            raw_bytes = report.raw_bytes
        return seconds

    def peer() -> float:
        with tempfile.TemporaryDirectory(dir=workspace.scratch) as root:
            seconds, _ = timed(lambda: _copy_all(workspace.rois(), Path(root)))
        return seconds

    found = interleaved({"ours": ours, "peer": peer}, repeats=3)
    yield Row(
        "conversion", "MB/s", raw_bytes / found["ours"] / 1e6, raw_bytes / found["peer"] / 1e6,
        0.7, "higher",
        "decoded pixels, one process; peer: rasterio reads and Zarr writes the same arrays, "
        "without checks, checksums, tables or commit",
    )  # fmt: skip


def _copy_all(rois: list[RoiSource], root: Path) -> None:
    for roi in rois:
        _copy(roi, root)


def _copy(roi: RoiSource, root: Path) -> None:
    """Do as a careful script: the same arrays, chunks, shards and codecs, and nothing else."""
    rows = [patch.row for patch in roi.files]
    columns = [patch.column for patch in roi.files]
    lattice = RoiGrid(
        0.0, 0.0, max(rows) - min(rows) + 1, max(columns) - min(columns) + 1,
        min(rows), min(columns),
    )  # fmt: skip
    group = zarr.open_group(root / str(roi.domain) / str(roi.roi), mode="w")
    for modality in dataset_modalities():
        dates = len(roi.times.get(modality.key, ()))
        specs = array_specs(modality, lattice, dates)
        buffers = [np.full(spec.shape, spec.fill_value, modality.dtype) for spec in specs]
        for patch, files in roi.files.items():
            if modality.key not in files:
                continue
            with rasterio.open(files[modality.key].url) as dataset:
                pixels = dataset.read()
            y, x = lattice.patch_window(patch.row, patch.column, modality.resolution_m).slices
            if modality.temporal:
                pixels = pixels.reshape(-1, len(modality.bands), *pixels.shape[1:])
            for spec, buffer in zip(specs, buffers, strict=True):
                one = (
                    spec.bands[0] if "band" not in spec.dims and "level" not in spec.dims else None
                )
                buffer[..., y, x] = pixels if one is None else pixels[..., one, :, :]
        for spec, buffer in zip(specs, buffers, strict=True):
            array = group.create_array(
                spec.path, shape=spec.shape, dtype=modality.dtype, chunks=spec.chunks,
                shards=spec.shards, fill_value=spec.fill_value, **codecs(modality),
            )  # fmt: skip
            array[...] = buffer


@benchmark
def size(workspace: Workspace) -> Iterator[Row]:
    """Bytes of everything that is written, and objects of a ROI, against the raw files."""
    tiffs = [path.stat().st_size for path in workspace.raw.rglob("*.tif")]
    objects = [path.stat().st_size for path in workspace.root.rglob("*") if path.is_file()]
    yield Row(
        "bytes", "MB", sum(objects) / 1e6, sum(tiffs) / 1e6, 1.0, "lower",
        "stores with metadata and tables; peer: the raw GeoTIFFs",
    )  # fmt: skip
    rois = workspace.rois()
    places = [workspace.root / store_name(roi.domain) / str(roi.roi) for roi in rois]
    most = max(sum(path.is_file() for path in place.rglob("*")) for place in places)
    yield Row(
        "objects of a ROI", "objects", most, None, 100, "lower",
        f"data, coordinates and metadata; its raw files are {len(tiffs) / len(rois):.0f}",
    )  # fmt: skip
