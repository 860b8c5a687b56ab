"""How a map is cut into windows: which token goes where, and which windows share a mask."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor, nn

from flairhub.models.alignment import Size

BLOCKED = -100.0
"""Added to the scores of pairs that shifting brought together."""


class Windows(nn.Module):
    """A plan for maps of one size.

    A shifted map is rolled up and left by half a window and padded below and right to whole
    windows, zeros standing for what is missing. Windows come in up to four groups: the inner ones,
    those of the last column, of the last row, and the corner. Within a group all have one mask.
    Where the sides are not multiples of the window's, timm's bounds of the masked parts lie where
    they would in the padded map, not where the image wraps; weights were trained with that.

    Parameters
    ----------
    grid
        Height and width of the map, tokens.
    window
        Height and width of a window, tokens.
    shifted
        Whether windows are shifted, along the axes where there is more than one.

    Attributes
    ----------
    size : int
        Tokens of a window, N.
    padded : bool
        Whether the map is padded. Index H * W then stands for a token of padding.
    back : Tensor, shape (H * W,), int64
        Where each token of the map is found after the groups were concatenated.
    """

    def __init__(self, grid: Size, window: Size, *, shifted: bool) -> None:
        super().__init__()
        self.grid, self.window, self.is_shifted = grid, window, shifted
        self.size = window[0] * window[1]
        counts = (-(-grid[0] // window[0]), -(-grid[1] // window[1]))
        self.padded = (counts[0] * window[0], counts[1] * window[1]) != grid
        shift = tuple(w // 2 if shifted and g > w else 0 for g, w in zip(grid, window, strict=True))
        tokens = torch.arange(grid[0] * grid[1], device="cpu").view(grid)
        rolled = torch.roll(tokens, (-shift[0], -shift[1]), (0, 1))
        below, right = (c * w - g for c, w, g in zip(counts, window, grid, strict=True))
        rolled = nn.functional.pad(rolled, (0, right, 0, below), value=grid[0] * grid[1])
        cut = rolled.view(counts[0], window[0], counts[1], window[1]).permute(0, 2, 1, 3)
        labels = [_labels(c, w, s) for c, w, s in zip(counts, window, shift, strict=True)]
        takes, self._masked = [], []
        for rows, columns in product(*(_parts(c, s) for c, s in zip(counts, shift, strict=True))):
            takes.append(cut[rows, columns].reshape(-1))
            names = 3 * labels[0][rows][0][:, None] + labels[1][columns][0]
            differ = names.view(-1, 1) != names.view(1, -1)
            mask = torch.zeros(differ.shape, device="cpu").masked_fill(differ, BLOCKED)
            self._masked.append(bool(differ.any()))
            self._keep(f"take_{len(takes) - 1}", takes[-1])
            self._keep(f"mask_{len(takes) - 1}", mask)
        self.back: Tensor
        self._keep("back", torch.cat(takes).argsort(stable=True)[: grid[0] * grid[1]])

    def _keep(self, name: str, tensor: Tensor) -> None:
        self.register_buffer(name, tensor, persistent=False)

    def groups(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield, of each group, the tokens of its windows and what is added to their scores.

        Yields
        ------
        take : Tensor, shape (windows * N,), int64
        mask : Tensor, shape (N, N), or None where nothing is masked
        """
        for i, masked in enumerate(self._masked):
            take = self.get_buffer(f"take_{i}")
            yield take, self.get_buffer(f"mask_{i}") if masked else None

    def of(self, grid: Size) -> Windows:
        """Return the plan for maps of another size, or this one."""
        if grid == self.grid:
            return self
        return Windows(grid, self.window, shifted=self.is_shifted).to(self.back.device)


def _parts(count: int, shift: int) -> list[slice]:
    """Return all windows of an axis, or all but the last and the last."""
    return [slice(0, count - 1), slice(count - 1, count)] if shift else [slice(0, count)]


def _labels(count: int, window: int, shift: int) -> Tensor:
    """Return the part that each token of an axis belongs to, shape (count, window)."""
    places = torch.arange(count * window, device="cpu")
    if not shift:
        return torch.zeros_like(places).view(count, window)
    last = (places >= (count - 1) * window).long()
    return (last + (places >= count * window - shift).long()).view(count, window)


def relative_positions(window: Size) -> Tensor:
    """Return the row of the bias table of every pair of tokens, shape (N * N,), int64.

    Rows count the (2 h - 1) x (2 w - 1) differences of places, rows of the window first.
    """
    y, x = torch.meshgrid(
        torch.arange(window[0], device="cpu"), torch.arange(window[1], device="cpu"), indexing="ij"
    )
    y, x = y.reshape(-1), x.reshape(-1)
    rows = y[:, None] - y + window[0] - 1
    columns = x[:, None] - x + window[1] - 1
    return (rows * (2 * window[1] - 1) + columns).reshape(-1)
