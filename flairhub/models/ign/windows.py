"""How a map is cut into windows: the order of their tokens, and what is added to their scores.

References
----------
Liu et al. 2021, arXiv:2103.14030 (Swin); Wightman 2019, PyTorch Image Models.
"""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from flairhub.models.alignment import Size

BLOCKED = -100.0
"""Added to the scores of pairs that shifting brought together."""


class Group(NamedTuple):
    """Windows of one form, whose tokens follow each other.

    Attributes
    ----------
    start : int
        Place of the first token.
    windows : int
        How many.
    size : int
        Tokens of a window, padding left out.
    """

    start: int
    windows: int
    size: int


class Windows(nn.Module):
    """A plan for maps of one size.

    A shifted map is rolled up and left by half a window and padded below and right to whole
    windows, zeros standing for what is missing. Windows come in up to four groups: the inner ones,
    those of the last column, of the last row, and the corner. Within a group all have one mask and
    lack the same tokens. Where the sides are not multiples of the window's, timm's bounds of the
    masked parts lie where they would in the padded map, not where the image wraps; weights were
    trained with that.

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
    groups : list of Group
    order : Tensor, shape (H * W,), int64
        Token of the map that comes at each place, window by window and without padding.
    back : Tensor, shape (H * W,), int64
        Place of each token of the map.
    """

    def __init__(self, grid: Size, window: Size, *, shifted: bool) -> None:
        super().__init__()
        self.grid, self.window, self.is_shifted = grid, window, shifted
        counts = (-(-grid[0] // window[0]), -(-grid[1] // window[1]))
        lacks = (counts[0] * window[0] - grid[0], counts[1] * window[1] - grid[1])
        shift = tuple(w // 2 if shifted and g > w else 0 for g, w in zip(grid, window, strict=True))
        tokens = torch.arange(grid[0] * grid[1], device="cpu").view(grid)
        rolled = torch.roll(tokens, (-shift[0], -shift[1]), (0, 1))
        rolled = nn.functional.pad(rolled, (0, lacks[1], 0, lacks[0]), value=-1)
        cut = rolled.view(counts[0], window[0], counts[1], window[1]).permute(0, 2, 1, 3)
        labels = [_labels(c, w, s) for c, w, s in zip(counts, window, shift, strict=True)]
        positions = relative_positions(window)
        special = [s > 0 or lack > 0 for s, lack in zip(shift, lacks, strict=True)]
        self.groups: list[Group] = []
        takes: list[Tensor] = []
        for rows, columns in product(*(_parts(c, s) for c, s in zip(counts, special, strict=True))):
            windows = cut[rows, columns].flatten(2).flatten(0, 1)
            if not len(windows):
                continue
            real = windows[0] >= 0
            names = (3 * labels[0][rows][0][:, None] + labels[1][columns][0]).view(-1)
            differ = names[real][:, None] != names
            pairs = positions[real]
            size, i = len(pairs), len(takes)
            mask = torch.zeros(size, size, device="cpu").masked_fill(differ[:, real], BLOCKED)
            nothing = int(positions.max()) + 1  # the row of padding that is blocked
            padding = pairs[:, ~real].masked_fill(differ[:, ~real], nothing)
            self._keep(f"pairs_{i}", pairs[:, real].reshape(-1))
            self._keep(f"mask_{i}", mask if bool(mask.any()) else None)
            self._keep(f"padding_{i}", None if bool(real.all()) else padding.reshape(-1))
            self.groups.append(Group(sum(map(len, takes)), len(windows), size))
            takes.append(windows[:, real].reshape(-1))
        self.order: Tensor
        self.back: Tensor
        self._keep("order", torch.cat(takes))
        self._keep("back", torch.cat(takes).argsort())

    def _keep(self, name: str, tensor: Tensor | None) -> None:
        self.register_buffer(name, tensor, persistent=False)

    def biases(self, table: Tensor) -> list[Tensor]:
        """Return what is added to the scores of each group's windows.

        All padding looks the same, so it counts as one more key, whose bias stands for the sum
        over all: ``exp(score + b) + exp(score + c) = exp(score + log(exp(b) + exp(c)))``.

        Parameters
        ----------
        table : Tensor, shape (rows, heads)
            See `relative_positions`.

        Returns
        -------
        list of Tensor, shapes (heads, n, n) or (heads, n, n + 1)
            Of n tokens; the last key is padding.
        """
        found = []
        table = table.to(torch.promote_types(table.dtype, torch.float32))
        top = table.detach().amax(0)
        shares = nn.functional.pad((table - top).exp(), (0, 0, 0, 1))
        for i, group in enumerate(self.groups):
            mask, padding = (getattr(self, f"{name}_{i}") for name in ("mask", "padding"))
            bias = table.index_select(0, self.get_buffer(f"pairs_{i}")).T
            bias = bias.reshape(-1, group.size, group.size)
            if mask is not None:
                bias = bias + mask
            if padding is not None:
                each = shares.index_select(0, padding).view(group.size, -1, table.shape[1])
                total = each.sum(1).clamp(torch.finfo(table.dtype).tiny)
                bias = torch.cat([bias, (total.log() + top).T[:, :, None]], dim=-1)
            found.append(bias)
        return found

    def of(self, grid: Size) -> Windows:
        """Return the plan for maps of another size, or this one."""
        if grid == self.grid:
            return self
        return Windows(grid, self.window, shifted=self.is_shifted).to(self.back.device)


class _Reordering(Function):
    """Both ways by a gather; torch's own gradient of it scatters."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, order: Tensor, back: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(back)
        return tokens.index_select(1, order)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return gradient.index_select(1, ctx.saved_tensors[0]), None, None


def reorder(tokens: Tensor, before: Windows | None, after: Windows | None) -> Tensor:
    """Return tokens of maps in the order of other windows.

    Parameters
    ----------
    tokens : Tensor, shape (B, H * W, C)
    before, after
        Whose order they have and get; None is that of the map.

    Returns
    -------
    Tensor, shape (B, H * W, C)
    """
    if before is after:
        return tokens
    if before and after:
        order, back = before.back[after.order], after.back[before.order]
    elif after:
        order, back = after.order, after.back
    else:
        assert before is not None  # one of them is not
        order, back = before.back, before.order
    if torch.compiler.is_compiling():
        return tokens.index_select(1, order)
    found: Tensor = _Reordering.apply(tokens, order, back)  # type: ignore[no-untyped-call]
    return found


def _parts(count: int, special: bool) -> list[slice]:
    """Return all windows of an axis, or all but the last and the last."""
    return [slice(0, count - 1), slice(count - 1, count)] if special else [slice(0, count)]


def _labels(count: int, window: int, shift: int) -> Tensor:
    """Return the part that each token of an axis belongs to, shape (count, window)."""
    places = torch.arange(count * window, device="cpu")
    if not shift:
        return torch.zeros_like(places).view(count, window)
    last = (places >= (count - 1) * window).long()
    return (last + (places >= count * window - shift).long()).view(count, window)


def relative_positions(window: Size) -> Tensor:
    """Return the row of the bias table of every pair of tokens, shape (N, N), int64.

    Rows count the (2 h - 1) x (2 w - 1) differences of places, rows of the window first.
    """
    y, x = torch.meshgrid(
        torch.arange(window[0], device="cpu"), torch.arange(window[1], device="cpu"), indexing="ij"
    )
    y, x = y.reshape(-1), x.reshape(-1)
    rows = y[:, None] - y + window[0] - 1
    columns = x[:, None] - x + window[1] - 1
    return rows * (2 * window[1] - 1) + columns
