"""Where, how high, when and by which camera an image was taken, as 45 numbers.

=======  ==================================================================
columns  what
=======  ==================================================================
0-31     position: sines and cosines of x (16), then of y (16), in turn
32       altitude of the ground, as a share of the highest in the dataset
33-34    camera: UCE, any other
35-38    year: 2018, 2019, 2020, 2021
39-44    sine and cosine of the month, of the day of the month, of the time,
         each brought from -1 .. 1 to 0 .. 1
=======  ==================================================================

In the form ``ign`` the numbers are those of IGN's code (IGNF/FLAIR-1, src/flair/tasks_utils.py), of
which two say nothing: the month's angle is ``2 pi (month - 1/12)``, the same in every month; and
coordinates are divided by 1e8 m before waves of 1 to 1e7 are laid over them, so that two places in
France are nowhere more than 0.012 apart. The form ``own`` repairs both.

References
----------
Garioud et al. 2022, arXiv:2211.12979 (FLAIR#1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date
from typing import Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flairhub.errors import ConfigError, SourceDataError, did_you_mean

WIDTH = 45
"""Numbers that an image's metadata become."""

HIGHEST_M = 3164.9099121094
"""Altitude that IGN divides by."""

YEARS = (2018, 2019, 2020, 2021)

WAVES = 8
"""Wavelengths of the position, a sine and a cosine each for x and for y."""

LONGEST_M = 2_048_000.0
"""Longest wavelength of the position in the form ``own``; each next one is half of it."""

UNKNOWN = frozenset({"", "None", "nan", "NaT", "<NA>"})
"""How values that a table does not have are written."""

_SCALE_M = 1e8
_TIME = re.compile(r"([01]?[0-9]|2[0-3])h([0-5][0-9])")

Floats = npt.NDArray[np.float64]
Value = TypeVar("Value")
Form = Literal["ign", "own"]


def encode_metadata(
    *,
    x_m: Sequence[float] | Floats,
    y_m: Sequence[float] | Floats,
    altitude_m: Sequence[float | str | None] | Floats,
    dates: Sequence[str | date | None],
    times: Sequence[str | None],
    cameras: Sequence[str | None],
    form: Form = "ign",
) -> Tensor:
    """Encode the metadata of images, one in each place of every sequence.

    Of a store they are columns of the table of patches: the middle of ``left`` and ``right``, and
    of ``bottom`` and ``top``; ``source_altitude``, ``date_flair_aerial``, ``source_time`` and
    ``source_camera``.

    What is unknown (None, NaN, an empty text) counts as sea level, as no camera and no year, and as
    0.5 in columns of months, days and times, which no known one has both of.

    Parameters
    ----------
    x_m, y_m
        Middle of the image in EPSG:2154, metres.
    altitude_m
        Of the ground in that place, metres.
    dates
        Days, such as ``2021-05-28``.
    times
        Hour and minute, such as ``08h06``.
    cameras
        Names, such as ``UCE-M3-f120-s07``.
    form
        ``ign`` or ``own``, as `FlairOptions.metadata` has it; see above.

    Returns
    -------
    Tensor, shape (N, 45), float32

    Raises
    ------
    ConfigError
        If there is no such form.
    SourceDataError
        If sequences are empty or differ in length, a position is unknown, or a date or time cannot
        be read.
    """
    if form not in get_args(Form):
        msg = f"form={form!r} is no form of metadata. {did_you_mean(str(form), get_args(Form))}"
        raise ConfigError(msg)
    columns = {
        "x_m": x_m,
        "y_m": y_m,
        "altitude_m": altitude_m,
        "dates": dates,
        "times": times,
        "cameras": cameras,
    }
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        msg = f"Metadata need one value an image in every column; their lengths are {found}."
        raise SourceDataError(msg)
    if not len(x_m):
        msg = "Metadata need at least one image; all columns are empty."
        raise SourceDataError(msg)
    days = _read(dates, "date", "a day such as 2021-05-28", _day)
    minutes = _read(times, "time", "hour and minute such as 08h06", _minutes)
    altitudes = _read(altitude_m, "altitude", "metres", float)
    altitude = np.array([0.0 if metres is None else metres for metres in altitudes], dtype=float)
    parts = [
        _position(np.asarray(x_m, dtype=float), "x_m", form),
        _position(np.asarray(y_m, dtype=float), "y_m", form),
        altitude[:, None] / HIGHEST_M,
        np.array([_camera(name) for name in cameras], dtype=float).reshape(-1, 2),
        np.array([[day is not None and day.year == y for y in YEARS] for day in days], float)
        .reshape(-1, len(YEARS)),
        _cycle([None if day is None else _month_turns(day.month, form) for day in days]),
        _cycle([None if day is None else day.day / 31 for day in days]),
        _cycle([None if minute is None else minute / (24 * 60) for minute in minutes]),
    ]  # fmt: skip
    return torch.from_numpy(np.concatenate(parts, axis=1).astype(np.float32))


def _position(metres: Floats, name: str, form: str) -> Floats:
    """Return sines and cosines in turn, (N, 2 * WAVES)."""
    if not np.isfinite(metres).all():
        place = int(np.flatnonzero(~np.isfinite(metres))[0])
        msg = f"Image {place} has {name} {metres[place]}; expected metres in EPSG:2154."
        raise SourceDataError(msg)
    steps = np.arange(WAVES)
    if form == "ign":
        angles = metres[:, None] / _SCALE_M / _SCALE_M ** (steps / WAVES)
    else:
        angles = 2 * np.pi * metres[:, None] / LONGEST_M * 2.0**steps
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(len(metres), -1)


def _month_turns(month: int, form: str) -> float:
    """Return the angle of a month, in turns."""
    return month - 1 / 12 if form == "ign" else (month - 1) / 12


def _cycle(turns: Sequence[float | None]) -> Floats:
    """Return sine and cosine of angles in turns, from 0 to 1; 0.5 where unknown: (N, 2)."""
    angles = 2 * np.pi * np.array([0.0 if turn is None else turn for turn in turns], dtype=float)
    known = np.array([turn is not None for turn in turns], dtype=bool)
    waves = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    return np.where(known[:, None], (waves + 1) / 2, 0.5)


def _camera(name: str | None) -> tuple[float, float]:
    """Return which of IGN's two groups of cameras this one is in."""
    if name is None or _unknown(name):
        return (0.0, 0.0)
    return (1.0, 0.0) if "UCE" in name else (0.0, 1.0)


def _read(
    column: Sequence[object] | Floats, name: str, expected: str, reader: Callable[[str], Value]
) -> list[Value | None]:
    """Read the texts of a column; None where unknown."""
    found: list[Value | None] = []
    for place, value in enumerate(column):
        try:
            found.append(None if _unknown(value) else reader(str(value)))
        except ValueError as error:
            msg = f"Image {place} has the {name} {value!r}; expected {expected}."
            raise SourceDataError(msg) from error
    return found


def _day(text: str) -> date:
    return date.fromisoformat(text[:10])


def _minutes(text: str) -> int:
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return 60 * int(found[1]) + int(found[2])


def _unknown(value: object) -> bool:
    return str(value) in UNKNOWN
