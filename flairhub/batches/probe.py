"""How fast a store streams to this machine, and which settings suit: what `flairhub bench` prints.

Every depth of prefetching reads other windows, so that no server answers from what it was just
asked for; the first batch is timed from nothing, the tables included.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from flairhub.batches.order import Shuffle
from flairhub.batches.plan import PatchPlan
from flairhub.batches.streaming import PatchStream
from flairhub.errors import PlanError

DEPTHS = (1, 4, 16, 64)
_ENOUGH = 0.9
"""Share of the best rate from which a smaller depth is preferred."""

_ENOUGH_OF_FILES = 0.75
"""The same for files: they are read at once, and what one depth gains over another is noise."""

_BUSY = 0.8
"""Share of the processors' time from which they, not the storage, set the pace."""


@dataclass(frozen=True, slots=True)
class DepthResult:
    """What one depth of prefetching gave.

    Parameters
    ----------
    prefetch
        Windows read ahead.
    windows
        Windows that were read.
    per_second
        Windows a second.
    megabytes_per_second
        Compressed bytes a second, millions.
    requests_per_window
        Ranged reads, metadata and indexes included.
    latency_ms
        Percentiles 50, 90 and 99 of a request; NaN for files.
    retries
        Requests that were asked again.
    busy
        Share of the processors' time that this process took.
    """

    prefetch: int
    windows: int
    per_second: float
    megabytes_per_second: float
    requests_per_window: float
    latency_ms: tuple[float, float, float]
    retries: int
    busy: float


@dataclass(frozen=True, slots=True)
class Probe:
    """What `probe` found.

    Parameters
    ----------
    planned
        Windows of the plan.
    plan_s, first_batch_s
        Seconds to read the tables, and from there to the first batch of a cold start.
    depths
        Results by depth, rising.
    advice
        What to set, in sentences.
    """

    planned: int
    plan_s: float
    first_batch_s: float
    depths: tuple[DepthResult, ...]
    advice: tuple[str, ...]


def probe(
    make_plan: Callable[[], PatchPlan],
    *,
    batch_size: int = 8,
    windows: int = 128,
    threads: int = 4,
    shuffle: Shuffle = True,
    depths: Sequence[int] = DEPTHS,
    note: Callable[[str], None] = lambda _: None,
) -> Probe:
    """Measure how fast a plan streams to this machine.

    Parameters
    ----------
    make_plan
        Builds the plan; timed.
    batch_size, threads, shuffle
        As for `flairhub.stream`.
    windows
        Read for each depth, at most.
    depths
        Settings of `prefetch` to try.
    note
        Told what begins.

    Raises
    ------
    PlanError
        If the plan has too few windows to give each depth its own.
    """
    started = time.perf_counter()
    plan = make_plan()
    plan_s = time.perf_counter() - started
    count = min(windows, len(plan) // len(depths))
    if count < 1:
        msg = f"The plan has {len(plan)} windows; measuring needs at least {len(depths)}."
        raise PlanError(msg)
    order = plan.order(shuffle=shuffle, seed=0, epoch=0)
    note("first batch")
    started = time.perf_counter()
    first = PatchStream(plan.subset(order[:batch_size]), batch_size=batch_size, threads=threads)
    next(iter(first))
    first_batch_s = time.perf_counter() - started
    found = []
    for number, depth in enumerate(depths):
        note(f"prefetch {depth}")
        part = np.sort(order[number * count : (number + 1) * count])
        stream = PatchStream(
            plan.subset(part),
            batch_size=min(batch_size, count),
            shuffle=shuffle,
            prefetch=depth,
            threads=threads,
        )
        found.append(_measure(stream, depth))
    return Probe(len(plan), plan_s, first_batch_s, tuple(found), _advice(found, shuffle))


def _measure(stream: PatchStream, depth: int) -> DepthResult:
    wall, busy = time.perf_counter(), time.process_time()
    size = sum(len(batch) for batch in stream)
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    traffic = stream.traffic
    seconds = traffic.seconds or [float("nan")]
    low, high, most = (float(p) for p in 1000 * np.percentile(seconds, (50, 90, 99)))
    return DepthResult(
        prefetch=depth,
        windows=size,
        per_second=size / wall,
        megabytes_per_second=traffic.bytes / wall / 1e6,
        requests_per_window=traffic.requests / size,
        latency_ms=(low, high, most),
        retries=traffic.retries,
        busy=busy / wall / (len(os.sched_getaffinity(0))),
    )


def _advice(found: Sequence[DepthResult], shuffle: Shuffle) -> tuple[str, ...]:
    best = max(found, key=lambda one: one.per_second)
    remote = not math.isnan(best.latency_ms[0])
    enough = _ENOUGH if remote else _ENOUGH_OF_FILES
    chosen = next(one for one in found if one.per_second >= enough * best.per_second)
    lines = [f"Set prefetch to {chosen.prefetch}: {chosen.per_second:.3g} windows a second."]
    if best.busy >= _BUSY:
        lines.append(
            "The processors are busy decoding: more of them, fewer modalities or bands, or the "
            "profile 'fast' make it faster; more prefetching does not."
        )
    elif remote and best is found[-1] and len(found) > 1:
        lines.append("The deepest prefetching was the fastest: deeper may be faster still.")
    if shuffle is True and remote and best.requests_per_window > 1 and best.busy < _BUSY:
        lines.append(
            "shuffle='block' asks for a fraction of these "
            f"{best.requests_per_window:.1f} ranges a window, for batches that are less random."
        )
    if best.retries:
        lines.append(f"{best.retries} requests had to be repeated: the storage pushes back.")
    return tuple(lines)
