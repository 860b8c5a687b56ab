"""Absent modalities: any subset will do, chances are as configured, tokens learn."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from flairhub.errors import ConfigError, GridError
from flairhub.models.absence import ModalityDropout
from tests.forms import EVERY, FEW, alike, every_input, own, published, rasters


@pytest.mark.parametrize("chances", [{}, {"spot_rgbi": 0.0, "sentinel2_ts": 0.2}])
def test_any_subset_of_the_modalities_will_do(chances: dict[str, float]) -> None:
    model = own(*EVERY, modality_dropout=chances)
    call = every_input()
    names = [("aerial_rgbi",), ("dem_elev",), ("spot_rgbi",), ("sentinel2_ts", "sentinel2_msk_sc")]
    results = []
    for size in range(1, len(names) + 1):
        for subset in itertools.combinations(names, size):
            given = {key: call["inputs"][key] for group in subset for key in group}
            with torch.inference_mode():
                results.append(model(given, call["days"], call["lengths"]).main["cosia"])
    assert all(found.shape == (2, 19, 256, 256) and found.isfinite().all() for found in results)
    assert not any(torch.equal(*pair) for pair in itertools.combinations(results, 2))
    for nothing in ({}, {"sentinel2_msk_sc": call["inputs"]["sentinel2_msk_sc"]}):
        with pytest.raises(GridError, match="at least one input of aerial_rgbi"):
            model(nothing, call["days"], call["lengths"])
    images = {key: call["inputs"][key] for key in ("aerial_rgbi", "spot_rgbi")}
    with pytest.raises(GridError, match="spot_rgbi is missing"):
        published(*images)({"aerial_rgbi": images["aerial_rgbi"]})


def drawn_as_published(chances: Mapping[str, float], samples: int) -> dict[str, Tensor]:
    """Return what stays by the rule of the public code: a chance against a chance."""
    if not any(chances.values()):
        return {key: torch.ones(samples, dtype=torch.bool) for key in chances}
    return {key: torch.rand(samples) >= torch.rand(samples) for key in chances}


def drawn_as_own(chances: Mapping[str, float], samples: int) -> dict[str, Tensor]:
    every = {key: torch.ones(samples, dtype=torch.bool) for key in chances}
    kept: dict[str, Tensor] = ModalityDropout(chances).train()(every)
    return kept


@pytest.mark.parametrize("chances", [(0.1, 0.3, 0.0), (0.4, 0.5), (0.6, 0.8, 0.2, 0.7)])
def test_modalities_are_dropped_as_often_as_configured(chances: tuple[float, ...]) -> None:
    names = dict(zip("abcd", chances, strict=False))
    for draw, honest in ((drawn_as_published, False), (drawn_as_own, True)):
        torch.manual_seed(0)
        kept = torch.stack(list(draw(names, 100_000).values())).double()
        errors = (1 - kept.mean(dim=1) - torch.tensor(chances, dtype=torch.float64)).abs()
        assert (errors.max() < 0.01) == honest
        assert bool(kept.any(dim=0).all()) == honest
        assert kept.all(dim=0).any()  # samples with everything are seen too


def test_a_sample_keeps_one_of_those_that_it_has() -> None:
    dropout = ModalityDropout({"a": 0.0, "b": 0.5, "c": 0.9})
    has = {"a": torch.zeros(5000), "b": torch.ones(5000), "c": torch.arange(5000) % 2}
    has = {key: value.bool() for key, value in has.items()}
    torch.manual_seed(0)
    kept = dropout.train()(has)
    assert (kept["b"] | kept["c"]).all()
    assert not any((kept[key] & ~has[key]).any() for key in has)
    assert kept["b"][~has["c"]].all()
    assert all(torch.equal(found, has[key]) for key, found in dropout.eval()(has).items())
    nothing = {key: torch.zeros(3, dtype=torch.bool) for key in has}
    assert not any(found.any() for found in dropout.train()(nothing).values())


def test_dropping_too_much_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"leaves 1\.00 of 2 modalities on average"):
        own("aerial_rgbi", "spot_rgbi", modality_dropout={"aerial_rgbi": 0.5, "spot_rgbi": 0.5})
    with pytest.raises(ConfigError, match="names 'sentinel2_msk_sc'"):
        own("sentinel2_ts", "sentinel2_msk_sc", modality_dropout={"sentinel2_msk_sc": 0.1})


def test_absent_modalities_have_tokens_that_learn() -> None:
    names = ("aerial_rgbi", "spot_rgbi")
    inputs = rasters(*names, batch=8)
    assert not list(own(*names).tokens.parameters())  # none that could never learn
    model = own(*names, modality_dropout={"spot_rgbi": 0.5}).train()
    assert len(list(model.tokens.parameters())) == len(model.placement["spot_rgbi"])
    torch.manual_seed(0)
    model(inputs).main["cosia"].square().mean().backward()
    before = {n: p.detach().clone() for n, p in model.tokens.named_parameters()}
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert all((p != before[n]).all() for n, p in model.tokens.named_parameters())


def test_a_token_stands_for_a_modality_wherever_it_is_absent() -> None:
    names = ("aerial_rgbi", "spot_rgbi")
    inputs = rasters(*names, batch=3)
    model = own(*names, modality_dropout={"spot_rgbi": 0.5})
    both, again = model(inputs).main["cosia"], model(inputs).main["cosia"]
    assert alike(both, again)  # nothing is dropped in evaluation
    flags = {"spot_rgbi": torch.tensor([True, False, True])}
    mixed = model(inputs, present=flags).main["cosia"]
    without = model({"aerial_rgbi": inputs["aerial_rgbi"]}).main["cosia"]
    assert alike(mixed[[0, 2]], both[[0, 2]])
    assert alike(mixed[1], without[1])
    with torch.no_grad():
        for token in model.tokens.parameters():
            token.add_(1.0)
    moved = model(inputs, present=flags).main["cosia"]
    assert alike(moved[[0, 2]], both[[0, 2]])
    assert not alike(moved[1], without[1])


def test_a_compiled_network_ignores_what_is_absent() -> None:
    model = own(*FEW, encoder="resnet10t", modality_dropout={"spot_rgbi": 0.1})
    call = every_input(batch=3)
    call["inputs"] = {key: call["inputs"][key] for key in FEW}
    call["inputs"]["sentinel2_ts"][1, 3] = torch.nan  # padding
    call["inputs"]["spot_rgbi"][0], call["inputs"]["sentinel2_ts"][2] = torch.nan, torch.nan
    present = {"spot_rgbi": torch.tensor([False, True, True])}
    present["sentinel2_ts"] = torch.tensor([True, True, False])
    torch._dynamo.reset()
    found = torch.compile(model, backend="eager", fullgraph=True)(**call, present=present)
    expected = model(**call, present=present)
    torch.testing.assert_close(found.main, expected.main, rtol=1e-4, atol=1e-5)
