"""Swin transformer: an image to maps at 1/4, 1/8, 1/16 and 1/32, by attention within windows.

Names of parameters and numbers are those of timm's Swin with ``features_only=True``, so that its
weights and IGN's fit. What differs is the order of the work: between blocks tokens are put in the
order of the windows to come, windows that share a mask are attended together by the fused kernel,
and padding is one key more, never a token.

References
----------
Liu et al. 2021, arXiv:2103.14030 (Swin); Wightman 2019, PyTorch Image Models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from timm.layers import DropPath, trunc_normal_  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from flairhub.models.alignment import Size
from flairhub.models.ign.attention import attend
from flairhub.models.ign.windows import Windows, reorder

DROP_PATH = 0.1
"""Share of residual branches that the last block drops in training; the first drops none."""


PIECE = 2048
"""Tokens of an image that go through an MLP at once on the CPU."""


@dataclass(frozen=True, slots=True)
class SwinSize:
    """Width of the first stage; blocks and heads of every stage."""

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]


SIZES = {
    "tiny": SwinSize(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": SwinSize(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": SwinSize(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": SwinSize(192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
"""The sizes of the paper."""

NAME = r"swin_(tiny|small|base|large)_patch4_window(\d+)_\d+(\.\w+)?"
"""timm's names of them: size, window side, training size, tag of pretrained weights."""


class WindowAttention(nn.Module):
    """Self-attention within windows, with a learned bias for every relative position.

    Parameters
    ----------
    width
        Channels.
    heads
        Heads.
    window
        Height and width of a window, tokens.
    """

    def __init__(self, width: int, heads: int, window: Size) -> None:
        super().__init__()
        rows = (2 * window[0] - 1) * (2 * window[1] - 1)
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.empty(rows, heads))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, tokens: Tensor, windows: Windows) -> Tensor:
        """Attend.

        Parameters
        ----------
        tokens : Tensor, shape (B, H * W, C)
            Of one map, in the order of the windows.
        windows : Windows
            How the map is cut.

        Returns
        -------
        Tensor, shape (B, H * W, C)
        """
        biases = windows.biases(self.relative_position_bias_table)
        # zeros, which padding is, are projected to the bias
        padding = self.qkv.get_parameter("bias")
        result: Tensor = self.proj(attend(self.qkv(tokens), padding, biases, windows.groups))
        return result


class Mlp(nn.Module):
    """Two linear layers, four times as wide between, with GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) to (B, N, C)."""
        if tokens.device.type != "cpu" or torch.compiler.is_compiling():
            whole: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
            return whole
        # piece by piece what lies between stays in the processor's cache
        pieces = [self.fc2(F.gelu(self.fc1(piece))) for piece in torch.split(tokens, PIECE, dim=1)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)


class SwinBlock(nn.Module):
    """Attention and MLP, each normalised before and added to what came in."""

    def __init__(self, width: int, heads: int, window: Size, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, tokens: Tensor, windows: Windows) -> Tensor:
        """(B, H * W, C) to (B, H * W, C); see `WindowAttention.forward`."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), windows))
        result: Tensor = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return result


class PatchMerging(nn.Module):
    """Every 2 x 2 tokens to one, twice as wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, grid: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H / 2, W / 2, 2 C); odd sides are padded with zeros."""
        height, width = grid.shape[1:3]
        if height % 2 or width % 2:
            grid = F.pad(grid, (0, 0, 0, width % 2, 0, height % 2))
        # timm's order of the four: by column, then by row
        four = [grid[:, y::2, x::2] for x in (0, 1) for y in (0, 1)]
        result: Tensor = self.reduction(self.norm(torch.cat(four, dim=-1)))
        return result


class SwinStage(nn.Module):
    """Blocks at one resolution; those of odd place see windows shifted by half a side.

    Parameters
    ----------
    width, heads
        Of its blocks.
    window
        Side of the windows, tokens; smaller where the map is.
    grid
        Height and width in tokens of the map that the stage is made for.
    drop_paths
        One a block.
    merge
        Whether a `PatchMerging` comes first.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        window: int,
        grid: Size,
        drop_paths: Sequence[float],
        *,
        merge: bool,
    ) -> None:
        super().__init__()
        self.window = (min(window, grid[0]), min(window, grid[1]))
        self.downsample = PatchMerging(width // 2) if merge else nn.Identity()
        self.blocks = nn.ModuleList(
            SwinBlock(width, heads, self.window, drop) for drop in drop_paths
        )
        self.straight = Windows(grid, self.window, shifted=False)
        self.shifted = Windows(grid, self.window, shifted=True)

    def forward(self, grid: Tensor, checkpointing: bool) -> Tensor:
        """(B, H, W, C) to (B, H, W, C), after halving H and W where the stage merges."""
        grid = self.downsample(grid)
        batch, height, width, channels = grid.shape
        tokens = grid.reshape(batch, height * width, channels)
        plans = [plan.of((height, width)) for plan in (self.straight, self.shifted)]
        last = None
        for i, block in enumerate(self.blocks):
            windows = plans[i % 2]
            tokens, last = reorder(tokens, last, windows), windows
            if checkpointing:
                tokens = checkpoint(block, tokens, windows, use_reentrant=False)
            else:
                tokens = block(tokens, windows)
        return reorder(tokens, last, None).view(batch, height, width, channels)


class PatchEmbedding(nn.Module):
    """Every 4 x 4 pixels to one normalised token."""

    def __init__(self, bands: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(bands, width, 4, 4)
        self.norm = nn.LayerNorm(width)

    def forward(self, image: Tensor) -> Tensor:
        """(B, bands, H, W) to (B, H / 4, W / 4, C)."""
        result: Tensor = self.norm(self.proj(image).permute(0, 2, 3, 1))
        return result


class Swin(nn.Module):
    """The four stages.

    Parameters
    ----------
    name
        timm's, such as ``swin_base_patch4_window12_384``.
    bands
        Channels of the image.
    image
        Height and width of the images that it is made for, pixels. Tables of relative positions
        depend on it: a stage whose map is smaller than a window has windows of that size.

    Attributes
    ----------
    channels : tuple of int
        Of the four maps.
    checkpointing : bool
        In training, compute blocks again in the backward pass and keep less in memory.
    """

    def __init__(self, name: str, bands: int, image: Size) -> None:
        super().__init__()
        found = re.fullmatch(NAME, name)
        if found is None:
            msg = f"{name!r} does not match {NAME}."
            raise ValueError(msg)
        size, window = SIZES[found[1]], int(found[2])
        rates = iter(torch.linspace(0, DROP_PATH, sum(size.depths), device="cpu").tolist())
        self.channels = tuple(size.width << i for i in range(len(size.depths)))
        self.checkpointing = False
        self.patch_embed = PatchEmbedding(bands, size.width)
        for i, (heads, depth) in enumerate(zip(size.heads, size.depths, strict=True)):
            grid = (-(-image[0] // (4 << i)), -(-image[1] // (4 << i)))
            stage = SwinStage(
                self.channels[i], heads, window, grid, list(islice(rates, depth)), merge=i > 0
            )
            self.add_module(f"layers_{i}", stage)
        self.apply(_initialise)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Encode an image.

        Parameters
        ----------
        image : Tensor, shape (B, bands, H, W)
            Sides are multiples of 4, of any size.

        Returns
        -------
        list of Tensor, shapes (B, channels[i], H / 4 / 2**i, W / 4 / 2**i)
            Finest first, channels last in memory.
        """
        grid = self.patch_embed(image)
        maps = []
        for i in range(len(self.channels)):
            grid = self.get_submodule(f"layers_{i}")(grid, self.checkpointing and self.training)
            maps.append(grid.permute(0, 3, 1, 2))
        return maps


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
