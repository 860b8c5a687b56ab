"""Order, ranks and batches are pure arithmetic: each window once, whoever reads it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flairhub.batches.order import BLOCK, MIXED, Shuffle, batch_ends, blocks_of, order, share
from flairhub.errors import PlanError

SHUFFLES: tuple[Shuffle, ...] = (False, True, "block")
rows = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 4)), min_size=1, max_size=12)


def _plan(shape: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Windows of ROIs of so many columns and rows, in the order of a plan."""
    index = [i for i, (width, height) in enumerate(shape) for _ in range(width * height)]
    top = [-float(row) for width, height in shape for row in range(height) for _ in range(width)]
    return np.array(index), np.array(top)


@given(shape=rows, shuffle=st.sampled_from(SHUFFLES), seed=st.integers(0, 9))
def test_an_epoch_holds_each_window_once(
    shape: list[tuple[int, int]], shuffle: Shuffle, seed: int
) -> None:
    index, top = _plan(shape)
    numbers, units = order(index, top, shuffle=shuffle, seed=seed, epoch=3)
    assert sorted(numbers) == list(range(len(index)))
    again = order(index, top, shuffle=shuffle, seed=seed, epoch=3)
    assert (numbers == again[0]).all()
    assert (units == again[1]).all()
    for unit in np.unique(units):
        together = np.sort(numbers[units == unit])
        assert (np.diff(together) == 1).all()
        assert len(set(zip(index[together], top[together], strict=True))) == 1
        assert len(together) <= (BLOCK if shuffle == "block" else 1)


@given(shape=rows)
def test_blocks_are_neighbours_in_a_row(shape: list[tuple[int, int]]) -> None:
    index, top = _plan(shape)
    begins = blocks_of(index, top)
    expected = sum(height * -(-width // BLOCK) for width, height in shape)
    assert len(begins) == expected


def test_blocks_are_mixed_with_others_only_nearby() -> None:
    index, top = _plan([(BLOCK, 40)])
    _, units = order(index, top, shuffle="block", seed=0, epoch=0)
    length = BLOCK * MIXED
    groups = [set(units[i : i + length]) for i in range(0, len(units), length)]
    assert all(len(group) <= MIXED for group in groups)
    assert sum(map(len, groups)) == 40, "a block belongs to one mixture"
    assert len(set(units[:BLOCK])) > 1, "the windows of blocks come mixed"


@given(
    total=st.integers(0, 300),
    world_size=st.integers(1, 9),
    batch_size=st.integers(1, 20),
    shuffle=st.sampled_from(SHUFFLES),
    drop_last=st.booleans(),
)
def test_ranks_share_an_epoch(
    total: int, world_size: int, batch_size: int, shuffle: Shuffle, drop_last: bool
) -> None:
    index, top = _plan([(10, 1)] * (total // 10) + [(total % 10, 1)] * bool(total % 10))
    numbers, units = order(index, top, shuffle=shuffle, seed=1, epoch=0)
    read: list[int] = []
    counts = []
    for rank in range(world_size):
        mine = numbers[share(total, units, rank=rank, world_size=world_size)]
        ends = batch_ends(
            len(mine),
            batch_size=batch_size,
            world_size=world_size,
            total=total,
            drop_last=drop_last,
        )
        sizes = np.diff(np.concatenate([[0], ends]))
        assert ((sizes > 0) & (sizes <= batch_size)).all()
        if drop_last:
            assert (sizes == batch_size).all()
        else:
            assert (ends[-1] if len(ends) else 0) == len(mine)
        counts.append(len(ends))
        read += list(mine[: ends[-1]] if len(ends) else ())
    assert len(set(read)) == len(read)
    if not drop_last:
        assert len(read) == total
    differ = not drop_last and total % world_size and (batch_size == 1 or total < world_size)
    # else a rank would wait for another in vain
    assert max(counts) - min(counts) == bool(differ)


def test_one_rank_is_all_ranks_interleaved() -> None:
    index, top = _plan([(10, 10)])
    numbers, units = order(index, top, shuffle=True, seed=5, epoch=2)
    parts = [numbers[share(100, units, rank=r, world_size=4)] for r in range(4)]
    assert list(itertools.chain(*zip(*parts, strict=True))) == list(numbers)


def test_what_is_no_order_is_refused() -> None:
    index, top = _plan([(2, 2)])
    with pytest.raises(PlanError, match="'blocks'"):
        order(index, top, shuffle="blocks", seed=0, epoch=0)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="rank 4"):
        share(10, np.arange(10), rank=4, world_size=4)
