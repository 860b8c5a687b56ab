"""Single blocks of IGN's network against what they stand for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.straightforward import Temporal
from flairhub.models.alignment import resize
from flairhub.models.ign import attention
from flairhub.models.ign.ltae import LTAE, date_code, norm_over_dates
from flairhub.models.ign.resampling import convolve_resized, enlarge, halve_doubled
from flairhub.models.ign.upernet import UPerNet, UPerNetDecoder
from flairhub.models.ign.windows import Windows, reorder


@pytest.mark.parametrize(
    ("before", "after"), [((4, 4), (16, 16)), ((3, 5), (12, 9)), ((7, 2), (8, 64))]
)
def test_a_convolution_of_resized_maps_needs_no_resized_maps(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    maps, weight = torch.randn(2, 5, *before).double(), torch.randn(3, 5, 3, 3).double()
    expected = F.conv2d(resize(maps, after), weight, padding=1)
    torch.testing.assert_close(convolve_resized(maps, weight, after), expected)


def test_doubling_and_halving_is_a_blur() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 6, 5).double()
    torch.testing.assert_close(halve_doubled(maps), resize(resize(maps, (12, 10)), (6, 5)))


@pytest.mark.parametrize("after", [(48, 40), (64, 41), (96, 39), (7, 200)])
def test_small_maps_are_enlarged_as_torch_does(after: tuple[int, int]) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 6, 5).double().requires_grad_()
    weights = torch.randn(2, 3, *after).double()
    found, expected = enlarge(maps, after), resize(maps, after)
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad((each * weights).sum(), maps) for each in (found, expected))
    torch.testing.assert_close(*gradients)


def described(decoder: UPerNetDecoder, maps: list[Tensor], image: tuple[int, int]) -> Tensor:
    """Decode as smp 0.4.0 is described: every level resized, stacked and convolved."""
    levels = [decoder.psp(maps[-1])]
    for i, finer in enumerate(reversed(maps[:-1])):
        up = resize(levels[-1], (finer.shape[-2], finer.shape[-1]))
        levels.append(up + decoder.fpn_stages[i].skip_conv(finer))  # type: ignore[operator]
    if len(levels) == 4:
        levels.append(resize(levels[-1], (image[0] // 2, image[1] // 2)))
    size = (image[0] // 4, image[1] // 4)
    stacked = torch.cat([resize(level, size) for level in levels], dim=1)
    decoded: Tensor = decoder.fpn_bottleneck(stacked)
    return decoded


@pytest.mark.parametrize("image", [(64, 64), (96, 160), (62, 84)])
@pytest.mark.parametrize("half", [0, 8])
def test_upernet_is_that_of_smp_0_4_0(image: tuple[int, int], half: int) -> None:
    torch.manual_seed(0)
    network = UPerNet((half, 8, 16, 32, 64), 5).eval().double()
    maps = [
        torch.randn(2, n, -(-image[0] // r), -(-image[1] // r)).double()
        for n, r in zip((half, 8, 16, 32, 64), (2, 4, 8, 16, 32), strict=True)
        if n
    ]
    decoded = described(network.decoder, maps, image)
    torch.testing.assert_close(network.decoder(maps, image), decoded)
    logits = F.interpolate(
        network.segmentation_head(decoded), scale_factor=4, mode="bilinear", align_corners=True
    )
    torch.testing.assert_close(network(maps, image), logits)


def test_the_norm_of_series_is_a_group_norm_over_dates() -> None:
    torch.manual_seed(0)
    norm = nn.GroupNorm(4, 8)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    pixels = torch.randn(2, 3, 5, 8) + 3
    expected = norm(pixels.flatten(0, 1).transpose(1, 2)).transpose(1, 2).unflatten(0, (2, 3))
    torch.testing.assert_close(norm_over_dates(pixels, norm), expected, rtol=1e-5, atol=1e-5)


def test_temporal_attention_never_makes_its_values() -> None:
    torch.manual_seed(0)
    ours, described = LTAE(64).eval().double(), Temporal(64).eval().double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    described.load_state_dict(ours.state_dict())
    maps, days = torch.randn(2, 6, 64, 3, 4).double(), torch.arange(12.0).view(2, 6).double() * 20
    padding = torch.tensor([[False] * 5 + [True], [False] * 6])
    found, expected = ours(maps, days, padding), described(maps, days, padding)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1].transpose(0, 1), expected[1])
    assert not found[1][0, :, 5].any()  # padding counts nothing


def test_the_code_of_dates_is_as_described() -> None:
    code = date_code(torch.tensor([-134.0, 0.0, 230.0]), 16)
    assert code.shape == (3, 16)
    assert code[1].tolist() == [0, 1] * 8
    torch.testing.assert_close(code[2, :2], torch.tensor([230.0, 230.0]).sin().lerp(
        torch.tensor([230.0, 230.0]).cos(), torch.tensor([0.0, 1.0])
    ))  # fmt: skip
    assert code[2, 14] == pytest.approx(float(torch.tensor(230 / 1000 ** (14 / 16)).sin()))


@pytest.mark.parametrize("grid", [(8, 8), (9, 16), (4, 9), (4, 4)])
@pytest.mark.parametrize("shifted", [False, True])
def test_windows_take_every_token_once_and_give_it_back(
    grid: tuple[int, int], shifted: bool
) -> None:
    windows = Windows(grid, (4, 4), shifted=shifted)
    tokens = list(range(grid[0] * grid[1]))
    assert sorted(windows.order.tolist()) == tokens
    assert windows.order[windows.back].tolist() == tokens
    sizes = [group.windows * group.size for group in windows.groups]
    assert [group.start for group in windows.groups] == [sum(sizes[:i]) for i in range(len(sizes))]
    assert sum(sizes) == len(tokens)
    masked = [getattr(windows, f"mask_{i}") is not None for i in range(len(sizes))]
    biases = windows.biases(torch.ones(49, 1))
    assert any(side % 4 for side in grid) == any(bias.shape[1] < bias.shape[2] for bias in biases)
    if not any(side % 4 for side in grid):
        assert any(masked) == (shifted and max(grid) > 4)
    assert not masked[0]


@pytest.mark.parametrize("grid", [(8, 8), (9, 7), (3, 4)])
@pytest.mark.parametrize("shifted", [False, True])
def test_attention_has_the_gradient_of_its_plain_form(grid: tuple[int, int], shifted: bool) -> None:
    torch.manual_seed(0)
    windows = Windows(grid, (4, 4), shifted=shifted)
    tokens = torch.randn(2, grid[0] * grid[1], 3 * 10, dtype=torch.double)
    given = [tokens, torch.randn(30).double(), torch.randn(49, 5).double()]

    def attended(form: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        leaves = [tensor.clone().requires_grad_() for tensor in given]
        found = form(*leaves[:2], windows.double().biases(leaves[2]), windows.groups)
        loss = (found * torch.linspace(0, 1, 10)).sum()
        return found, *torch.autograd.grad(loss, leaves, materialize_grads=True)

    ours, plain = attended(attention.attend), attended(attention.plainly)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other)


def test_tokens_come_back_from_any_order_and_so_do_their_gradients() -> None:
    tokens = torch.randn(2, 63, 3, requires_grad=True)
    straight, shifted = (Windows((9, 7), (4, 4), shifted=shift) for shift in (False, True))
    moved = reorder(reorder(tokens, None, straight), straight, shifted)
    torch.testing.assert_close(moved, tokens[:, shifted.order])
    back = reorder(moved, shifted, None)
    assert torch.equal(back, tokens)
    weights = torch.randn_like(tokens)
    (gradient,) = torch.autograd.grad((back * weights).sum(), tokens)
    assert torch.equal(gradient, weights)
