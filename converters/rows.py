"""What a ROI's conversion tells of it: rows of the domain's tables, taken in the same pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.files import SourceFile
from converters.rasters import Raster
from converters.receipts import Receipt, Skipped
from converters.source import RoiSource
from converters.statistics import PixelStatistics, count_classes
from flairhub.errors import SourceDataError
from flairhub.grids import RoiGrid
from flairhub.ids import PatchId
from flairhub.modalities import MODALITIES, Kind, Modality, get_modality
from flairhub.store.layout import groups
from flairhub.store.tables import (
    DATED,
    classes_column,
    date_column,
    grid_column,
    has_column,
    sha256_column,
    source_column,
    times_column,
)


@dataclass
class Outcome:
    """What the conversion of a ROI moved; the ROI's receipt lies in the work folder."""

    raw_bytes: int = 0
    source_bytes: int = 0
    files: int = 0
    patches: int = 0
    gaps: int = 0
    absent: dict[str, list[str]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)


class RoiRows:
    """Collects the rows of one ROI.

    Parameters
    ----------
    source
        The ROI.
    keep
        Modalities of it that are in the store and stay as they are.
    receipt
        What is known of those; filled by `describe`.
    """

    def __init__(self, source: RoiSource, keep: Sequence[str], receipt: Receipt) -> None:
        self.source, self.keep, self.receipt = source, keep, receipt
        self.outcome = Outcome()
        self.statistics = PixelStatistics()
        # what stays of the ROI keeps its rows
        self.patches: dict[PatchId, dict[str, Any]] = {
            PatchId.parse(row["patch_id"]): row for row in receipt.patches
        }
        for key in set(receipt.roi.get("modalities", ())) - set(keep):
            for row in self.patches.values():
                _forget(row, get_modality(key))
        for patch in source.files:
            self.patches.setdefault(patch, {"patch_id": str(patch)})

    def note(
        self, patches: Sequence[PatchId], modality: Modality, raster: Raster, file: SourceFile
    ) -> None:
        """Note what a file holds in the rows of the patches that it belongs to.

        Raises
        ------
        SourceDataError
            If it holds a class that does not exist.
        """
        counts = class_counts(raster.pixels, modality, file)
        of_source = self.source.folds.get("split", {})
        splits = {of_source.get(patch) or self.patches[patch].get("split") for patch in patches}
        split = splits.pop() if len(splits) == 1 else None
        if counts:
            self.statistics.add_classes(modality, counts, split)
        else:
            self.statistics.add(modality, raster.pixels, split)
        self.outcome.files += 1
        self.outcome.source_bytes += raster.size
        self.outcome.raw_bytes += raster.pixels.nbytes
        told = {has_column(modality.key): True, sha256_column(modality.key): raster.sha256}
        told |= {classes_column(key): found.tolist() for key, found in counts.items()}
        told |= _mask_means(raster.pixels, modality)
        for patch in patches:
            self.patches[patch] |= told

    def describe(
        self, grid: RoiGrid, written: Sequence[str], modalities: Sequence[Modality]
    ) -> None:
        """Complete the receipt: rows of patches, statistics and the ROI.

        Parameters
        ----------
        grid
            The ROI's lattice.
        written
            Modalities that were written now.
        modalities
            Those that were asked for.
        """
        self._describe_patches(grid, modalities)
        self.outcome.patches = len(self.patches)
        self.outcome.gaps = grid.rows * grid.columns - len(self.patches)
        self.receipt.patches = list(self.patches.values())
        kept = [row for row in self.receipt.statistics if row["modality"] in self.keep]
        order = list(MODALITIES)
        self.receipt.statistics = sorted(
            kept + self.statistics.rows(str(self.source.roi)),
            key=lambda row: order.index(row["modality"]),
        )
        self.receipt.roi = self._roi_row(grid, written)

    def _describe_patches(self, grid: RoiGrid, modalities: Sequence[Modality]) -> None:
        source = self.source
        ids = {"domain": str(source.domain), "roi": str(source.roi)}
        for patch, row in self.patches.items():
            extent = grid.patch_extent(patch.row, patch.column)
            row |= {**ids, "row": patch.row, "column": patch.column}
            row |= dict(zip(("left", "bottom", "right", "top"), extent.bbox, strict=True))
            told = {**source.folds, **{source_column(k): f for k, f in source.facts.items()}}
            for column, by_patch in told.items():
                row[column] = by_patch.get(patch) or row.get(column)
            for key in DATED:
                if key in source.dates:
                    day = source.dates[key].get(patch)
                    row[date_column(key)] = str(day) if day else None
            for modality in modalities:
                row.setdefault(has_column(modality.key), False)
                if not row[has_column(modality.key)]:
                    self.outcome.absent.setdefault(modality.key, []).append(str(patch))

    def _roi_row(self, grid: RoiGrid, written: Sequence[str]) -> dict[str, Any]:
        before = self.receipt.roi
        kept = set(before.get("modalities", ())) & set(self.keep)
        told = (times_column(""), grid_column(""))
        of_groups = {k: v for k, v in before.items() if k.startswith(told)}
        of_groups |= {
            times_column(key): [str(day) for day in days]
            for key, days in self.source.times.items()
            if key in groups()
        }
        of_groups |= {
            grid_column(key): [area.grid.left, area.grid.top, area.grid.height, area.grid.width]
            for key, area in self.source.areas.items()
            if key in groups()
        }
        return {
            "roi": str(self.source.roi),
            "domain": str(self.source.domain),
            "rows": grid.rows,
            "columns": grid.columns,
            "first_row": grid.first_row,
            "first_column": grid.first_column,
            **dict(zip(("left", "bottom", "right", "top"), grid.extent.bbox, strict=True)),
            "patches": len(self.patches),
            "modalities": [key for key in MODALITIES if key in kept or key in written],
            **of_groups,
        }


def _forget(row: dict[str, Any], modality: Modality) -> None:
    """Take what is told of a modality out of the row of a patch."""
    means = modality.band_names if modality.kind is Kind.MASK else ()
    columns = [has_column(modality.key), sha256_column(modality.key), date_column(modality.key)]
    columns += [classes_column(key) for key in modality.nomenclatures]
    for column in [*columns, *(_mean_column(name) for name in means)]:
        row.pop(column, None)


def _mean_column(band: str) -> str:
    return f"{band}_percent"


def class_counts(
    pixels: npt.NDArray[np.generic], modality: Modality, file: SourceFile
) -> dict[str, npt.NDArray[np.int64]]:
    """Return the pixels of every class by class set; none where there are no classes.

    Raises
    ------
    SourceDataError
        If it holds a class that does not exist.
    """
    counts = {}
    for level, key in enumerate(modality.nomenclatures, start=1):
        nomenclature = modality.nomenclature(level)
        found = count_classes(pixels[0, level - 1])
        last = int(np.flatnonzero(found)[-1])
        if last >= len(nomenclature):
            msg = (
                f"{file}: class {last} in band {level}, but {nomenclature.title} ends at "
                f"{len(nomenclature) - 1}."
            )
            raise SourceDataError(msg)
        counts[key] = found[: len(nomenclature)]
    return counts


def _mask_means(pixels: npt.NDArray[np.generic], modality: Modality) -> Mapping[str, list[float]]:
    if modality.kind is not Kind.MASK:
        return {}
    means = pixels.astype(np.float64).mean(axis=(2, 3)).round(3)
    return {
        _mean_column(name): [float(v) for v in means[:, i]]
        for i, name in enumerate(modality.band_names)
    }
