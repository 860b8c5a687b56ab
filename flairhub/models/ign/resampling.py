"""Resizes that need not be carried out, because something linear follows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from flairhub.models.alignment import Size


def convolve_resized(maps: Tensor, weight: Tensor, size: Size) -> Tensor:
    """Return the 3 x 3 convolution, zero padded, of maps that were resized first.

    Both are linear: channels are mixed at the small size, once for each of the nine places of the
    kernel, and two matrices a side do the rest, rows and columns apart. For a map of a quarter of
    the side this is a seventh of the multiplications.

    Parameters
    ----------
    maps : Tensor, shape (B, C, h, w)
    weight : Tensor, shape (O, C, 3, 3)
    size
        Height and width H, W to which the maps are resized, bilinearly, edges aligned.

    Returns
    -------
    Tensor, shape (B, O, H, W)
        Channels last in memory.
    """
    mixed = torch.einsum("bchw,ocyx->bhywxo", maps, weight)
    rows = shifted_resize(maps.shape[-2], size[0], maps)
    columns = shifted_resize(maps.shape[-1], size[1], maps)
    tall = torch.einsum("Hhy,bhywxo->bHwxo", rows, mixed)
    return torch.einsum("Wwx,bHwxo->bHWo", columns, tall).permute(0, 3, 1, 2)


def shifted_resize(before: int, after: int, like: Tensor) -> Tensor:
    """Return the matrices of a resize along one axis, each followed by one shift of the kernel.

    Parameters
    ----------
    before, after
        Lengths of the axis.
    like
        Whose type and device the result has.

    Returns
    -------
    Tensor, shape (after, before, 3)
        Entry ``[:, :, k]`` gives at place p what the resized axis has at ``p + k - 1``, or 0.
    """
    exact = torch.promote_types(like.dtype, torch.float32)
    unit = torch.eye(before, dtype=exact, device=like.device)[None]
    matrix = F.interpolate(unit, size=after, mode="linear", align_corners=False)[0].T
    padded = F.pad(matrix, (0, 0, 1, 1))
    return torch.stack([padded[k : k + after] for k in range(3)], dim=-1).to(like.dtype)


def halve_doubled(maps: Tensor) -> Tensor:
    """Return maps that were doubled in size and halved again, bilinearly, edges aligned.

    That is a blur with the weights (1, 6, 1) / 8 along either axis, edges repeated.

    Parameters
    ----------
    maps : Tensor, shape (B, C, H, W)

    Returns
    -------
    Tensor, shape (B, C, H, W)
    """
    line = maps.new_tensor([1 / 8, 6 / 8, 1 / 8])
    kernel = (line[:, None] * line).expand(maps.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(maps, (1, 1, 1, 1), mode="replicate"), kernel, groups=maps.shape[1])
