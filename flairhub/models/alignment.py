"""Where maps lie on the ground: sizes of common ground, padding, resampling, levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from flairhub.errors import GridError

_TOLERANCE_M = 1e-3

Size = tuple[int, int]
"""Height and width in pixels."""


def common_size(
    inputs: Mapping[str, Tensor], resolutions_m: Mapping[str, float], finest_m: float
) -> Size:
    """Return the size that the inputs' common ground has at the finest resolution.

    Parameters
    ----------
    inputs : mapping of Tensor, shape (..., H, W)
        At least one, by modality.
    resolutions_m
        Pixel side of every modality, metres.
    finest_m
        Pixel side of the result, metres.

    Raises
    ------
    GridError
        If two inputs do not cover the same ground, or there is none.
    """
    grounds = {
        name: tuple(side * resolutions_m[name] for side in raster.shape[-2:])
        for name, raster in inputs.items()
    }
    if not grounds:
        msg = f"The model needs at least one input of {', '.join(resolutions_m)}; got none."
        raise GridError(msg)
    first, ground = next(iter(grounds.items()))
    for name, other in grounds.items():
        if any(abs(a - b) > _TOLERANCE_M for a, b in zip(other, ground, strict=True)):
            msg = (
                f"Inputs must cover the same ground; {first} covers {_metres(ground)} and "
                f"{name} {_metres(other)} (height x width)."
            )
            raise GridError(msg)
    return round(ground[0] / finest_m), round(ground[1] / finest_m)


def _metres(ground: tuple[float, ...]) -> str:
    return " x ".join(f"{side:.2f} m" for side in ground)


def next_multiple(size: Size, multiple: int) -> Size:
    """Return the smallest size that is not below `size` and has multiples as sides."""
    return size[0] + -size[0] % multiple, size[1] + -size[1] % multiple


def pad_to(raster: Tensor, size: Size) -> Tensor:
    """Repeat the last row and column of (..., C, H, W) until it has `size`.

    Repeated pixels look like more of the same ground; zeros would look like an edge.
    """
    below, right = size[0] - raster.shape[-2], size[1] - raster.shape[-1]
    if not below and not right:
        return raster
    flat = raster.reshape(-1, *raster.shape[-3:])
    padded = F.pad(flat, (0, right, 0, below), mode="replicate")
    return padded.reshape(*raster.shape[:-2], *size)


def resize(maps: Tensor, size: Size) -> Tensor:
    """Resample (B, C, h, w) to (B, C, *size) so that the outer edges coincide.

    Bilinear with ``align_corners=False``: pixels are squares of ground, which is exact for grids
    of any ratio, 10 pixels against 512 too.
    """
    if tuple(maps.shape[-2:]) == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def nearest_level(level_sizes_m: Sequence[float], size_m: float) -> int:
    """Return the position of the level whose pixel side is nearest to `size_m` by ratio."""
    return int(np.abs(np.log(np.asarray(level_sizes_m) / size_m)).argmin())
