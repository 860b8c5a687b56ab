"""In which order windows come, and which rank reads them: pure functions of a few numbers.

Everything follows from ``(seed, epoch, rank, world size)``, whatever the number of threads or the
depth of prefetching. Over all ranks, an epoch holds each window exactly once.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from flairhub.errors import PlanError

Shuffle = bool | Literal["block"]
Numbers = npt.NDArray[np.int64]

BLOCK, MIXED = 8, 8
"""Windows of a block, which are neighbours and are read together; blocks that are mixed."""


def blocks_of(roi_index: npt.NDArray[np.integer[Any]], top: npt.NDArray[np.float64]) -> Numbers:
    """Return where blocks begin among windows in the order of a plan.

    A block has at most `BLOCK` windows of one ROI that begin at the same northing: their chunks are
    neighbours in their shards.
    """
    if not len(roi_index):
        return np.empty(0, np.int64)
    new = np.flatnonzero((np.diff(roi_index) != 0) | (np.diff(top) != 0)) + 1
    runs = np.concatenate([[0], new, [len(roi_index)]])
    in_run = np.arange(len(roi_index)) - np.repeat(runs[:-1], np.diff(runs))
    return np.flatnonzero(in_run % BLOCK == 0)


def order(
    roi_index: npt.NDArray[np.integer[Any]],
    top: npt.NDArray[np.float64],
    *,
    shuffle: Shuffle,
    seed: int,
    epoch: int,
) -> tuple[Numbers, Numbers]:
    """Return the windows of an epoch, and which are read together.

    Parameters
    ----------
    roi_index, top
        Of the plan's windows.
    shuffle
        False: in the plan's order. True: any window may follow any other. ``"block"``: blocks of
        `BLOCK` neighbours are shuffled, and the windows of `MIXED` blocks among each other; this
        needs a fraction of the requests, for batches that are less random.
    seed, epoch
        Source of chance.

    Returns
    -------
    numbers, unit
        Shape ``(windows,)``: window numbers in order, and for each the unit that it is read in.
    """
    size = len(roi_index)
    chance = np.random.default_rng((seed, epoch))
    if shuffle is True:
        return chance.permutation(size), np.arange(size)
    if shuffle is False:
        return np.arange(size), np.arange(size)
    if shuffle != "block":
        msg = f"shuffle is True, False or 'block', not {shuffle!r}."
        raise PlanError(msg)
    begins = blocks_of(roi_index, top)
    blocks = chance.permutation(len(begins))
    sizes = np.diff(np.append(begins, size))[blocks]
    units = np.repeat(blocks, sizes)
    numbers = np.arange(size) + np.repeat(begins[blocks] - (np.cumsum(sizes) - sizes), sizes)
    mixture = np.repeat(np.arange(len(blocks)) // MIXED, sizes)
    mixed = np.argsort(mixture + chance.random(size))
    return numbers[mixed], units[mixed]


def share(size: int, units: Numbers, *, rank: int, world_size: int) -> Numbers:
    """Return which positions of an epoch's order a rank reads.

    Windows are dealt one by one; those that are read together stay together, and are dealt in runs
    of equal length, so that no rank has more than one window more than another.
    """
    if not 0 <= rank < world_size:
        msg = f"There are {world_size} ranks, from 0; rank {rank} is none of them."
        raise PlanError(msg)
    if not size or np.bincount(units).max() == 1:
        return np.arange(rank, size, world_size)
    bounds = [size * part // world_size for part in (rank, rank + 1)]
    return np.arange(*bounds)


def batch_ends(
    size: int, *, batch_size: int, world_size: int, total: int, drop_last: bool
) -> Numbers:
    """Return where the batches of a rank end.

    All ranks have equally many, so that none waits for another in vain: without `drop_last` the
    rank that lacks a window leaves its last batches smaller. Where nothing is left to make smaller
    (the ranks do not divide the windows, and `batch_size` is 1 or there are fewer windows than
    ranks), some ranks have one batch more; with `drop_last` never.

    Parameters
    ----------
    size
        Windows of the rank.
    batch_size, world_size, total
        Windows of a batch, ranks, and windows of all ranks.
    drop_last
        Leave out, on every rank, what does not fill a batch everywhere.
    """
    if drop_last:
        count = total // world_size // batch_size
        return np.arange(1, count + 1) * batch_size
    most = -(-total // world_size)
    count = min(-(-most // batch_size), size)
    if count == 0:
        return np.empty(0, np.int64)
    numbers = np.arange(1, count + 1)
    return np.minimum(numbers * batch_size, size - (count - numbers))
