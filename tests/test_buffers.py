"""Memory of batches is used again, but never while anybody holds any part of it."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from flairhub.batches.buffers import ArrayPool


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int64"])
def test_memory_comes_back_when_the_last_view_of_a_tensor_is_gone(dtype: str) -> None:
    pool = ArrayPool()
    first = pool.empty((3, 5, 7), dtype)
    assert first.shape == (3, 5, 7)
    assert first.dtype == dtype
    assert first.flags.c_contiguous
    place = first.ctypes.data
    first[...] = 7
    part = torch.from_numpy(first)[1, 2:]
    del first
    gc.collect()
    others = [pool.empty((3, 5, 7), dtype) for _ in range(3)]
    for other in others:
        assert other.ctypes.data != place
        other[...] = 1
    assert bool((part == 7).all())
    del part
    gc.collect()
    assert pool.empty((3, 5, 7), dtype).ctypes.data == place


def test_series_of_like_lengths_share_memory() -> None:
    pool = ArrayPool()
    places = set()
    for dates in range(57, 64):
        places.add(pool.empty((16, dates, 10, 10, 10), np.uint16).ctypes.data)
    assert len(places) <= 3
    empty = pool.empty((4, 0, 10), np.uint16)
    assert empty.shape == (4, 0, 10)
