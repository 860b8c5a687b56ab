"""Which windows and dates a plan takes, told from the domain tables alone.

Everything is a table of patches ``(rows, columns)`` of a ROI; a window takes what holds for all the
patches that it touches.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import SupportsFloat

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flairhub.errors import PlanError, did_you_mean
from flairhub.modalities import MODALITIES, get_modality
from flairhub.nomenclatures import get_nomenclature
from flairhub.store.tables import DATED, classes_column, date_column

CLOUD_COLUMN, CLOUDED = "cloud_percent", "sentinel2_ts"
"""Column of ``patches`` with the mean cloud percentage of each date, and of which series."""

_DAY = "datetime64[D]"

Period = tuple[date | str | None, date | str | None]


@dataclass(frozen=True)
class Filters:
    """What a plan leaves out.

    Parameters
    ----------
    dates
        By modality, the first and the last day taken; a month or a year stands for all of its
        days, None leaves an end open. Windows of
        single-date imagery are taken or left; of series, dates are, and windows without any.
    max_cloud
        Largest mean cloud percentage (0 to 100) of a date of Sentinel-2 over each patch.
    classes
        By class set, the least share (0 to 1) of each named class among all pixels of a patch.

    Raises
    ------
    PlanError
        If a name does not exist or a number is out of its range.
    """

    dates: Mapping[str, Period] = field(default_factory=dict)
    max_cloud: float | None = None
    classes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check names and numbers."""
        dated = [*DATED, *(m.key for m in MODALITIES.values() if m.temporal)]
        for key in self.dates:
            if get_modality(key).key not in dated:
                msg = f"IGN publishes no date of {key}. {did_you_mean(key, dated)}"
                raise PlanError(msg)
            self.period(key)
        if self.max_cloud is not None and not _within(self.max_cloud, 100):
            msg = f"max_cloud is a percentage from 0 to 100, not {self.max_cloud!r}."
            raise PlanError(msg)
        for label, shares in self.classes.items():
            if not isinstance(shares, Mapping):
                msg = f"classes of {label} are shares by name, such as {{'vineyard': 0.1}}."
                raise PlanError(msg)
            known = [c.name for c in get_nomenclature(label).classes]
            for name, share in shares.items():
                if name not in known:
                    msg = f"{label} has no class {name!r}. {did_you_mean(name, known)}"
                    raise PlanError(msg)
                if not _within(share, 1):
                    msg = f"The least share of {name} is a number from 0 to 1, not {share!r}."
                    raise PlanError(msg)

    def period(self, modality: str) -> tuple[np.datetime64, np.datetime64] | None:
        """Return the first and the last day of a modality; None where all are taken."""
        if modality not in self.dates:
            return None
        try:
            first, last = self.dates[modality]
            low = np.datetime64("1000-01-01" if first is None else str(first)).astype(_DAY)
            # a year or a month ends with the day before the next one
            end = np.datetime64("3000-01-01" if last is None else str(last))
            whole = np.datetime_data(end.dtype)[0] in ("Y", "M")
            high = (end + 1).astype(_DAY) - 1 if whole else end.astype(_DAY)
        except (TypeError, ValueError) as error:
            raise PlanError(self._no_period(modality)) from error
        if not low <= high:  # nor is "not a time" at most anything
            raise PlanError(self._no_period(modality))
        return low, high

    def _no_period(self, modality: str) -> str:
        return (
            f"dates of {modality} must be a first day and a last one, not before it, such as "
            f"('2021-04-01', '2021-09-30'), not {self.dates[modality]!r}."
        )

    def touches(self, series: str) -> bool:
        """Whether some of a series' dates may be left out."""
        return series in self.dates or (self.max_cloud is not None and series == CLOUDED)

    def in_period(self, series: str, days: npt.NDArray[np.datetime64]) -> npt.NDArray[np.bool_]:
        """Return which days of a series are taken."""
        period = self.period(series)
        if period is None:
            return np.ones(len(days), bool)
        return (days >= period[0]) & (days <= period[1])

    def columns(self, groups: Collection[str]) -> list[str]:
        """Return the columns of ``patches`` that are needed, where these groups are read."""
        wanted = [date_column(key) for key in self.dates if key in DATED]
        wanted += [classes_column(label) for label in self.classes]
        if self.max_cloud is not None and CLOUDED in groups:
            wanted += [CLOUD_COLUMN]
        return wanted

    def usable(self, patches: pa.Table) -> npt.NDArray[np.bool_]:
        """Return which patches are taken, shape ``(patches,)``."""
        found = np.ones(len(patches), bool)
        for key in self.dates:
            period = self.period(key)
            if key in DATED and period is not None:
                days = patches.column(date_column(key)).to_numpy().astype(_DAY)
                found &= (days >= period[0]) & (days <= period[1])
        for label, shares in self.classes.items():
            names = [c.name for c in get_nomenclature(label).classes]
            counts = _matrix(patches.column(classes_column(label)), len(names))
            total = np.maximum(counts.sum(axis=1), 1)
            for name, share in shares.items():
                part = counts[:, names.index(name)]
                found &= (part > 0) & (part >= share * total)
        return found

    def clear(self, percentages: pa.ChunkedArray, dates: int) -> npt.NDArray[np.bool_]:
        """Return which dates are clear over which patches, shape ``(patches, dates)``.

        Parameters
        ----------
        percentages
            Cloud percentages of each date, by patch; of another number of dates, none is clear.
        dates
            How many there are.
        """
        percent = _matrix(percentages, dates, absent=np.nan)
        return percent <= (100.0 if self.max_cloud is None else self.max_cloud)


def _within(value: object, highest: float) -> bool:
    """Whether a value is a number from 0 to `highest`."""
    if isinstance(value, bool) or not isinstance(value, SupportsFloat):
        return False
    return 0 <= float(value) <= highest


def _matrix(lists: pa.ChunkedArray, width: int, *, absent: float = 0.0) -> npt.NDArray[np.float64]:
    """Return lists as rows; one of another length than `width`, or none, is all `absent`."""
    column = lists.combine_chunks()
    lengths = column.value_lengths().fill_null(0).to_numpy()
    fits = lengths == width
    found = np.full((len(column), width), absent)
    found[fits] = (
        column.flatten().to_numpy(zero_copy_only=False)[np.repeat(fits, lengths)].reshape(-1, width)
    )
    return found


NO_FILTERS = Filters()
