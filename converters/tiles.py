"""Where the pixels of a raster go: arrays, shards of an array, inner chunks of a shard."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from flairhub.grids import Window
from flairhub.modalities import Kind
from flairhub.store.layout import ArraySpec


def as_stored(pixels: npt.NDArray[np.generic], spec: ArraySpec) -> npt.NDArray[np.generic]:
    """Return raw pixels ``(dates, bands, y, x)`` with the dimensions of a store array."""
    first, last = spec.bands[0], spec.bands[-1]
    # bands that follow each other are all that there are: no copy
    chosen = pixels[:, first : last + 1]
    if "time" not in spec.dims:
        chosen = chosen[0]
    if spec.modality.kind is Kind.MASK or (spec.modality.is_label and len(spec.bands) == 1):
        chosen = chosen[..., 0, :, :]
    return chosen


def blocks(spec: ArraySpec) -> Iterator[tuple[tuple[int, int], Window]]:
    """Yield the shards of an array: number, and the pixels that each covers."""
    (height, width), (rows, columns) = spec.shape[-2:], spec.shards[-2:]
    for i, row in enumerate(range(0, height, rows)):
        for j, column in enumerate(range(0, width, columns)):
            block = Window(row, column, min(rows, height - row), min(columns, width - column))
            yield (i, j), block


def tiles(
    pixels: npt.NDArray[np.generic], block: Window, spec: ArraySpec
) -> Iterator[tuple[tuple[int, ...], npt.NDArray[np.generic]]]:
    """Yield the inner chunks of a shard: position in it, and pixels, filled up where they end."""
    lead = (0,) * (len(spec.shape) - 2)
    rows, columns = spec.chunks[-2:]
    inside = pixels[(..., *block.slices)]
    for i, row in enumerate(range(0, block.height, rows)):
        for j, column in enumerate(range(0, block.width, columns)):
            part = inside[..., row : row + rows, column : column + columns]
            tile = np.full(spec.chunks, spec.fill_value, part.dtype)
            tile[..., : part.shape[-2], : part.shape[-1]] = part
            yield (*lead, i, j), tile


def lies_in(window: Window, block: Window) -> bool:
    """Tell whether a patch lies in a shard."""
    rows = block.row <= window.row < block.row + block.height
    return rows and block.column <= window.column < block.column + block.width
