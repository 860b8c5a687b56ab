"""The three rules by which weights of one shape start a model of another.

Each is off until the user switches it on, and what it did is in the report.

windows
    The relative position biases of a Swin block are a square grid of offsets a head; another window
    takes the grid resized bicubically (as IGN's loader does). A smaller patch has smaller windows:
    a stage whose map is not larger than a window has one window of the map's size.
bands
    The first convolution has a kernel a band. A band that the file knows keeps its kernel, wherever
    it stands now; a band that it does not know starts at zero, so that the model answers as before
    until it has learned to use it. Where no band is known, all get the sum of the old kernels
    divided by their number: a grey image is answered as before.
heads
    A last layer for another number of classes is drawn anew: uniform after Glorot, bias zero (as
    IGN's loader does). The decoder of a task that the file lacks starts as the file's first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def resize_window(table: Tensor, rows: int) -> Tensor | None:
    """Return relative position biases for another window.

    Parameters
    ----------
    table
        ``((2 w - 1)², heads)``.
    rows
        ``(2 v - 1)²`` for the new window ``v``.

    Returns
    -------
    Tensor or None
        ``(rows, heads)``; None if either is not the square of an odd number.
    """
    old, new = math.isqrt(len(table)), math.isqrt(rows)
    if old**2 != len(table) or new**2 != rows or not (old % 2 and new % 2):
        return None
    grid = table.float().T.reshape(1, -1, old, old)
    resized = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return resized.reshape(-1, rows).T


def rearrange_bands(kernels: Tensor, found: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Return the kernels of a first convolution for other bands.

    Parameters
    ----------
    kernels
        ``(out, len(found), k, k)``.
    found
        The bands of the file, in the order of its kernels.
    wanted
        The bands of the model, in order.

    Returns
    -------
    Tensor
        ``(out, len(wanted), k, k)``.
    """
    if not set(found) & set(wanted):
        shared = kernels.float().sum(1, keepdim=True) / len(wanted)
        return shared.expand(-1, len(wanted), -1, -1)
    result = kernels.new_zeros((kernels.shape[0], len(wanted), *kernels.shape[2:]))
    for place, band in enumerate(wanted):
        if band in found:
            result[:, place] = kernels[:, found.index(band)]
    return result


def fresh_class_layer(name: str, like: Tensor) -> Tensor:
    """Return starting values of a tensor of a last layer, of the shape of `like`.

    Kernels are uniform after Glorot and Bengio (2010); biases and running means are 0, scales and
    running variances of a normalisation 1.
    """
    result = torch.empty_like(like)
    if like.ndim > 1:
        return nn.init.xavier_uniform_(result)
    return result.fill_(float(name.endswith(("weight", "running_var"))))
