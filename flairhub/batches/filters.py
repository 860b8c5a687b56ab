"""Which windows and dates a plan takes, told from the domain tables alone.

Everything is a table of patches ``(rows, columns)`` of a ROI; a window takes what holds for all the
patches that it touches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import numpy.typing as npt
import pandas as pd

from flairhub.errors import PlanError, did_you_mean
from flairhub.modalities import MODALITIES, get_modality
from flairhub.nomenclatures import get_nomenclature
from flairhub.store.tables import DATED, classes_column, date_column, has_column

CLOUD_COLUMN, CLOUDED = "cloud_percent", "sentinel2_ts"
"""Column of ``patches`` with the mean cloud percentage of each date, and of which series."""

Period = tuple[date | str | None, date | str | None]


@dataclass(frozen=True)
class Filters:
    """What a plan leaves out.

    Parameters
    ----------
    dates
        By modality, the first and the last day taken; None leaves an end open. Windows of
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
        if self.max_cloud is not None and not 0 <= self.max_cloud <= 100:
            msg = f"max_cloud is a percentage from 0 to 100, not {self.max_cloud:g}."
            raise PlanError(msg)
        for label, shares in self.classes.items():
            known = [c.name for c in get_nomenclature(label).classes]
            for name, share in shares.items():
                if name not in known:
                    msg = f"{label} has no class {name!r}. {did_you_mean(name, known)}"
                    raise PlanError(msg)
                if not 0 <= share <= 1:
                    msg = f"The least share of {name} is a number from 0 to 1, not {share:g}."
                    raise PlanError(msg)

    def period(self, modality: str) -> tuple[np.datetime64, np.datetime64] | None:
        """Return the first and the last day of a modality; None where all are taken."""
        if modality not in self.dates:
            return None
        try:
            first, last = self.dates[modality]
            low = np.datetime64("1000-01-01" if first is None else str(first), "D")
            high = np.datetime64("3000-01-01" if last is None else str(last), "D")
        except (TypeError, ValueError) as error:
            msg = (
                f"dates of {modality} must be a first and a last day such as "
                f"('2021-04-01', '2021-09-30'), not {self.dates[modality]!r}."
            )
            raise PlanError(msg) from error
        return low, high

    def touches(self, series: str) -> bool:
        """Whether some of a series' dates may be left out."""
        return series in self.dates or (self.max_cloud is not None and series == CLOUDED)

    def in_period(self, series: str, days: npt.NDArray[np.datetime64]) -> npt.NDArray[np.bool_]:
        """Return which days of a series are taken."""
        period = self.period(series)
        if period is None:
            return np.ones(len(days), bool)
        return (days >= period[0]) & (days <= period[1])

    def columns(self, modalities: Sequence[str]) -> list[str]:
        """Return the columns of ``patches`` that are needed."""
        wanted = [date_column(key) for key in self.dates if key in DATED]
        wanted += [classes_column(label) for label in self.classes]
        if self.max_cloud is not None and CLOUDED in modalities:
            wanted += [CLOUD_COLUMN, has_column(CLOUDED)]
        return wanted

    def usable(self, patches: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Return which patches are taken, shape ``(patches,)``."""
        found = np.ones(len(patches), bool)
        for key in self.dates:
            period = self.period(key)
            if key in DATED and period is not None:
                days = patches[date_column(key)].to_numpy().astype("datetime64[D]")
                found &= (days >= period[0]) & (days <= period[1])
        for label, shares in self.classes.items():
            names = [c.name for c in get_nomenclature(label).classes]
            counts = patches[classes_column(label)]
            known = counts.notna().to_numpy()
            table = np.zeros((len(patches), len(names)))
            if known.any():
                table[known] = np.stack(counts[known].to_list())
            total = np.maximum(table.sum(axis=1), 1)
            for name, share in shares.items():
                part = table[:, names.index(name)]
                found &= (part > 0) & (part >= share * total)
        return found

    def clear(self, patches: pd.DataFrame, dates: int) -> npt.NDArray[np.bool_]:
        """Return which dates are clear over which patches, shape ``(patches, dates)``."""
        found = np.zeros((len(patches), dates), bool)
        for row, percent in zip(found, patches[CLOUD_COLUMN], strict=True):
            if percent is not None and len(percent) == dates:
                row[:] = np.asarray(percent) <= self.max_cloud
        return found


NO_FILTERS = Filters()
