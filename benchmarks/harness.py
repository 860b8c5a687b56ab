"""What a measurement is, how it is repeated, and the list of all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal, TypeVar

from converters.flairhub_tree import FlairHubTree
from converters.source import RoiSource
from flairhub.modalities import dataset_modalities

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement.

    Parameters
    ----------
    name
        What is measured.
    unit
        Of `ours` and `peer`.
    ours
        Our number.
    peer
        The number of what people would use otherwise, measured in the same run; None without one.
    goal
        What the ratio must reach, or `ours` where there is no peer; None where nothing is promised.
    better
        Whether lower or higher numbers are better.
    note
        What the peer is, and on what both ran.
    """

    name: str
    unit: str
    ours: float
    peer: float | None
    goal: float | None
    better: Literal["lower", "higher"]
    note: str

    @property
    def ratio(self) -> float | None:
        """`ours` over `peer`."""
        return self.ours / self.peer if self.peer else None

    @property
    def met(self) -> bool:
        """Whether the goal is reached, if there is one."""
        if self.goal is None:
            return True
        value = self.ours if self.peer is None else self.ours / self.peer
        return value <= self.goal if self.better == "lower" else value >= self.goal


@dataclass(frozen=True, slots=True)
class Workspace:
    """The data of a run: a raw tree, the stores made of it, and room for more."""

    raw: Path
    root: Path
    scratch: Path

    def rois(self) -> list[RoiSource]:
        """Return every ROI of the raw tree."""
        tree = FlairHubTree(self.raw)
        every = dataset_modalities()
        return [roi for domain in tree.domains() for roi in tree.rois(domain, every)]


Benchmark = Callable[[Workspace], Iterable[Row]]
BENCHMARKS: dict[str, Benchmark] = {}
"""Every benchmark by name, in the order of the table."""


def benchmark(function: Benchmark) -> Benchmark:
    """Register a function that measures something and returns rows."""
    BENCHMARKS[function.__name__] = function
    return function


def interleaved(
    contestants: Mapping[str, Callable[[], float]], repeats: int = 5
) -> dict[str, float]:
    """Return the median of each contestant's numbers.

    They take turns, so that whatever else the machine does hits all of them alike.
    """
    numbers: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, measure in contestants.items():
            numbers[name].append(measure())
    return {name: median(found) for name, found in numbers.items()}


def timed(function: Callable[[], T]) -> tuple[float, T]:
    """Return the seconds that a call takes, and its result."""
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result
