"""Attention within windows, and its gradient on the processor.

References
----------
Liu et al. 2021, arXiv:2103.14030 (Swin); Dao et al. 2022, arXiv:2205.14135 (scores computed again).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from flairhub.models.ign.windows import Group

MATRICES = 16
"""Matrices of scores, one a window and head, that lie in the processor's cache at once."""


def attend(
    projected: Tensor, padding: Tensor, biases: Sequence[Tensor], groups: Sequence[Group]
) -> Tensor:
    """Attend within every window.

    Parameters
    ----------
    projected : Tensor, shape (B, T, 3 * C)
        Queries, keys and values of tokens, ordered by groups and windows.
    padding : Tensor, shape (3 * C,)
        Those of a token of padding; its query is not used.
    biases : sequence of Tensor, shapes (heads, n, n) or (heads, n, n + 1)
        What is added to the scores in each group; see `Windows.biases`.
    groups
        How tokens are grouped.

    Returns
    -------
    Tensor, shape (B, T, C)
        In the order of the tokens. On the CPU it can be differentiated once.
    """
    biases = [bias.to(projected.dtype) for bias in biases]
    padding = padding.to(projected.dtype)
    wanted = torch.is_grad_enabled() and (projected.requires_grad or biases[0].requires_grad)
    if wanted and projected.device.type == "cpu" and not torch.compiler.is_compiling():
        found: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
            projected, padding, groups, *biases
        )
        return found
    return plainly(projected, padding, biases, groups)


def plainly(
    projected: Tensor, padding: Tensor, biases: Sequence[Tensor], groups: Sequence[Group]
) -> Tensor:
    """Attend as `attend` does, differentiated by torch; every argument of the same type.

    Parameters
    ----------
    projected : Tensor, shape (B, T, 3 * C)
    padding : Tensor, shape (3 * C,)
    biases : sequence of Tensor, shapes (heads, n, n) or (heads, n, n + 1)
    groups
        See `attend`.

    Returns
    -------
    Tensor, shape (B, T, C)
    """
    batch, heads, width = projected.shape[0], biases[0].shape[0], projected.shape[-1] // 3
    attended = []
    for group, bias in zip(groups, biases, strict=True):
        tokens = projected.narrow(1, group.start, group.windows * group.size)
        cut = tokens.reshape(-1, group.size, 3, heads, width // heads)
        query, key, value = cut.permute(2, 0, 3, 1, 4)
        if bias.shape[-1] > group.size:
            last = padding.view(3, 1, heads, 1, -1).expand(-1, key.shape[0], -1, -1, -1)
            key, value = torch.cat([key, last[1]], dim=2), torch.cat([value, last[2]], dim=2)
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])
        found = found.transpose(1, 2)
        if torch.compiler.is_compiling():  # what exporters make of the kernel is laid out otherwise
            found = found.clone(memory_format=torch.contiguous_format)
        attended.append(found.reshape(batch, -1, width))
    return attended[0] if len(attended) == 1 else torch.cat(attended, dim=1)


class _Attention(Function):
    """`plainly` with a gradient of the biases, which torch's fused kernel of the CPU lacks.

    Of what lies between nothing is kept. Scores are computed again, for as many windows at a time
    as stay in the cache.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        projected: Tensor,
        padding: Tensor,
        groups: Sequence[Group],
        *biases: Tensor,
    ) -> Tensor:
        # the fused kernel is refused to biases that know of gradients, even where none are made
        ctx.save_for_backward(projected, padding, *biases)
        ctx.groups = groups
        return plainly(projected, padding, [bias.detach() for bias in biases], groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        projected, padding, *biases = ctx.saved_tensors
        heads = len(biases[0])
        d_projected, d_padding = torch.empty_like(projected), torch.zeros_like(padding)
        d_biases = [torch.zeros_like(bias) for bias in biases]
        for sample in range(len(projected)):
            for group, bias, d_bias in zip(ctx.groups, biases, d_biases, strict=True):
                part = slice(group.start, group.start + group.windows * group.size)
                shape = (group.windows, group.size, -1, heads, projected.shape[-1] // 3 // heads)
                cut, d_cut, d_out = (
                    t[sample, part].view(shape).permute(2, 0, 3, 1, 4)
                    for t in (projected, d_projected, gradient.contiguous())
                )
                step = max(1, MATRICES // heads)
                for i in range(0, group.windows, step):
                    windows = slice(i, i + step)
                    _differentiate(
                        cut[:, windows], padding, bias,
                        d_cut[:, windows], d_padding, d_bias, d_out[0, windows],
                    )  # fmt: skip
        return d_projected, d_padding, None, *d_biases


def _differentiate(
    projected: Tensor,
    padding: Tensor,
    bias: Tensor,
    d_projected: Tensor,
    d_padding: Tensor,
    d_bias: Tensor,
    d_found: Tensor,
) -> None:
    """Write or add the gradients of a few windows.

    Parameters
    ----------
    projected, d_projected : Tensor, shape (3, W, heads, n, d)
        The latter is written.
    padding, d_padding : Tensor, shape (3 * C,)
        The latter is added to.
    bias, d_bias : Tensor, shape (heads, n, m), where m is n or n + 1
        The latter is added to.
    d_found : Tensor, shape (W, heads, n, d)
    """
    _, windows, heads, size, depth = projected.shape
    keys, scale = bias.shape[-1], depth**-0.5
    both = projected.new_empty(2, windows, heads, keys, depth)
    both[..., :size, :] = projected[1:]
    if keys > size:
        both[..., size, :] = padding.view(3, 1, heads, depth)[1:]
    query = (projected[0] * scale).contiguous()
    scores = projected.new_empty(windows, heads, size, keys)
    for one, q, k in zip(scores, query, both[0], strict=True):
        torch.baddbmm(bias, q, k.transpose(1, 2), out=one)
    query, (key, value), arrived = query.flatten(0, 1), both.flatten(1, 2), d_found.flatten(0, 1)
    weights = scores.flatten(0, 1).softmax(-1)
    d_scores = torch.bmm(arrived, value.transpose(1, 2), out=scores.flatten(0, 1)).mul_(weights)
    d_scores.addcmul_(weights, d_scores.sum(-1, keepdim=True), value=-1)
    for one in scores:
        d_bias += one
    d_query = torch.bmm(d_scores, key).view(windows, heads, size, depth)
    torch.mul(d_query, scale, out=d_projected[0])
    d_key = torch.bmm(d_scores.transpose(1, 2), query).view(windows, heads, keys, depth)
    d_value = torch.bmm(weights.transpose(1, 2), arrived).view(windows, heads, keys, depth)
    d_projected[1], d_projected[2] = d_key[:, :, :size], d_value[:, :, :size]
    if keys > size:
        last = torch.stack([d_key[:, :, size], d_value[:, :, size]])
        d_padding.view(3, heads, depth)[1:] += last.sum(1)
