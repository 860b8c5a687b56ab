"""Resizes that need not be carried out, because something linear follows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from flairhub.models.alignment import Size, resize

LARGE = 8
"""How many times as long the sides must become for `enlarge` to use matrices."""


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
    padded = F.pad(_matrix(before, after, like), (0, 0, 1, 1))
    return torch.stack([padded[k : k + after] for k in range(3)], dim=-1).to(like.dtype)


def _matrix(before: int, after: int, like: Tensor) -> Tensor:
    """Return the matrix of a resize along one axis, (after, before), in float32 at least."""
    exact = torch.promote_types(like.dtype, torch.float32)
    unit = torch.eye(before, dtype=exact, device=like.device)[None]
    return F.interpolate(unit, size=after, mode="linear", align_corners=False)[0].T


def enlarge(maps: Tensor, size: Size) -> Tensor:
    """Resize, on the CPU by two matrices where maps become much larger.

    torch's kernel and more so its gradient take time for every pixel of the result; products of
    matrices take next to none as long as the maps are small.

    Parameters
    ----------
    maps : Tensor, shape (B, C, h, w)
    size
        Height and width H, W to which the maps are resized, bilinearly, edges aligned.

    Returns
    -------
    Tensor, shape (B, C, H, W)
    """
    height, width = maps.shape[-2:]
    lowered = torch.is_autocast_enabled("cpu") or maps.element_size() < 4
    much = height * LARGE <= size[0] and width * LARGE <= size[1]
    if maps.device.type != "cpu" or torch.compiler.is_compiling() or lowered or not much:
        return resize(maps, size)
    wide = maps @ _matrix(width, size[1], maps).T
    result: Tensor = _matrix(height, size[0], maps) @ wide
    return result


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
