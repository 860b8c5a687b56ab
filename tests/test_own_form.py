"""What the network of the published models gets wrong, and that ours does not: both are tried."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flairhub.config import ModelConfig
from flairhub.errors import ConfigError, GridError
from flairhub.modalities import MODALITIES
from flairhub.models import IgnNetwork, IgnOptions, MultimodalSegmenter, build_model
from flairhub.models.absence import ModalityDropout
from flairhub.training.losses import SegmentationLoss

BANDS = {key: len(m.bands) for key, m in MODALITIES.items()}
SMALL = ModelConfig(
    encoder="mobilenetv3_small_050", decoder_channels=32, series_channels=16, series_heads=4
)
COUNTS = {"cosia": [1] * 19}
SERIES_ENCODERS = ("ltae", "utae")


def own(*modalities: str, **changes: Any) -> MultimodalSegmenter:  # noqa: ANN401
    torch.manual_seed(0)
    return build_model(SMALL.model_copy(update=changes), modalities, BANDS, ["cosia"]).eval()


def published(*modalities: str, **changes: Any) -> IgnNetwork:  # noqa: ANN401
    torch.manual_seed(0)
    options: dict[str, Any] = {"tasks": {"cosia": 19}, "bands": {}, **changes}
    options["bands"] = {key: BANDS[key] for key in modalities}
    return IgnNetwork(IgnOptions(modalities, encoder="resnet18", **options)).eval()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rasters(*modalities: str, batch: int = 2, side_m: float = 25.6) -> dict[str, Tensor]:
    """Return random images of one ground."""
    return {
        key: random(
            batch, BANDS[key], *[round(side_m / MODALITIES[key].resolution_m)] * 2, seed=place
        )
        for place, key in enumerate(modalities)
    }


def every_input(batch: int = 2) -> dict[str, Any]:
    """Return images, a series of 4 and 3 dates and its masks on 51.2 m of ground."""
    inputs = rasters("aerial_rgbi", "dem_elev", "spot_rgbi", batch=batch, side_m=51.2)
    inputs["sentinel2_ts"] = random(batch, 4, 10, 5, 5)
    inputs["sentinel2_msk_sc"] = random(batch, 4, 2, 5, 5)
    days = torch.arange(18000, 18400, 100).expand(batch, 4)
    return {
        "inputs": inputs,
        "days": {"sentinel2_ts": days},
        "lengths": {"sentinel2_ts": torch.tensor([4, *[3] * (batch - 1)])},
    }


EVERY = tuple(every_input()["inputs"])


# Series: what counts as a date

Classify = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From a series of Sentinel-2 (B, T, 10, 10, 10), days (B, T) and lengths (B,) to scores."""


def classify_as_published() -> Classify:
    network = published("sentinel2_ts")

    def classify(series: Tensor, days: Tensor, lengths: Tensor) -> Tensor:
        offsets = (days - 18397).float()  # of 15 May 2020
        for row, length in enumerate(lengths):
            series[row, length:], offsets[row, length:] = 0, 0
        scores: Tensor = network({"sentinel2_ts": series}, {"sentinel2_ts": offsets}).main["cosia"]
        return scores

    return classify


def classify_as_own(name: str) -> Classify:
    model = own("sentinel2_ts", series_encoder=name)

    def classify(series: Tensor, days: Tensor, lengths: Tensor) -> Tensor:
        given = [{"sentinel2_ts": one} for one in (series, days, lengths)]
        scores: Tensor = model(*given).main["cosia"]
        return scores

    return classify


@dataclass(frozen=True)
class Series:
    """Arguments of `Classify`."""

    values: Tensor
    days: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, *lengths: int, longest: int = 6) -> Series:
        values = random(len(lengths), longest, 10, 10, 10)
        days = torch.arange(18300, 18300 + 40 * longest, 40).repeat(len(lengths), 1)
        return cls(values, days, torch.tensor(lengths))

    def into(self, classify: Classify) -> Tensor:
        with torch.inference_mode():
            return classify(self.values.clone(), self.days, self.lengths)


def alike(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def a_date_of_zeros_counts(classify: Classify) -> bool:
    """Whether it matters when an image of zeros was taken."""
    series = Series.of(6)
    series.values[0, 2] = 0
    before = series.into(classify)
    series.days[0, 2] += 20
    return not alike(series.into(classify), before)


def padding_counts(classify: Classify) -> bool:
    """Whether a sample's scores depend on how far it is padded."""
    return not alike(Series.of(3, longest=3).into(classify), _cut(3, 9).into(classify))


def neighbours_count(classify: Classify) -> bool:
    """Whether a sample's scores depend on another sample of the batch, which has more dates."""
    both = Series.of(3, 6)
    alone = Series(both.values[:1, :3], both.days[:1, :3], both.lengths[:1])
    return not alike(both.into(classify)[:1], alone.into(classify))


def _cut(length: int, longest: int) -> Series:
    """Return the series of `length` dates, padded."""
    short, long = Series.of(length, longest=length), Series.of(length, longest=longest)
    long.values[:, :length], long.days[:, :length] = short.values, short.days
    return long


def test_a_date_of_zeros_is_a_date() -> None:
    assert not a_date_of_zeros_counts(classify_as_published())
    assert all(a_date_of_zeros_counts(classify_as_own(name)) for name in SERIES_ENCODERS)


@pytest.mark.parametrize("matters", [padding_counts, neighbours_count])
def test_a_sample_depends_on_nothing_but_itself(matters: Callable[[Classify], bool]) -> None:
    assert matters(classify_as_published())
    assert not any(matters(classify_as_own(name)) for name in SERIES_ENCODERS)


def test_padding_changes_nothing_in_training_either() -> None:
    model = own("sentinel2_ts", series_encoder="utae").train()
    scores = []
    for longest in (4, 7):
        given = _cut(4, longest)
        call = [{"sentinel2_ts": one} for one in (given.values, given.days, given.lengths)]
        scores.append(model(*call).main["cosia"])
    assert alike(*scores)


def test_scores_can_be_negative() -> None:
    assert (Series.of(4).into(classify_as_published()) >= 0).all()
    for name in SERIES_ENCODERS:
        assert (Series.of(4).into(classify_as_own(name)) < 0).any()


# The pyramid of series


def unfit_places(model: nn.Module, fusions: list[nn.Module], inputs: Mapping[str, Tensor]) -> float:
    """Return the largest ratio of the resolutions of a map of the series and of its level."""
    worst = []

    def look(_module: nn.Module, arguments: tuple[Any, ...], levels: Tensor | list[Tensor]) -> None:
        for place, level in enumerate([levels] if isinstance(levels, Tensor) else levels):
            for key, found in arguments[0].items():
                if key.startswith("sentinel2"):
                    one = found if isinstance(found, Tensor) else found[place - len(levels)]
                    ratio = one.shape[-1] / level.shape[-1]
                    worst.append(max(ratio, 1 / ratio))

    for fusion in fusions:
        fusion.register_forward_hook(look)
    days = torch.zeros(inputs["sentinel2_ts"].shape[:2], dtype=torch.int64)
    with torch.inference_mode():
        model(inputs, {"sentinel2_ts": days})
    return max(worst)


def test_maps_of_series_enter_where_their_resolution_is() -> None:
    inputs = rasters("spot_rgbi", side_m=102.4) | {"sentinel2_ts": random(2, 4, 10, 10, 10)}
    old, new = published(*inputs), own(*inputs, series_encoder="utae")
    assert unfit_places(old, [old.fusion_handler], inputs) > 3
    # by metres no map is further than sqrt(2); the sides 10, 5, 3 meet 8, 4, 2 pixels
    assert unfit_places(new, list(new.fusions), inputs) == 1.5
    assert list(new.placement["sentinel2_ts"].values()) == [2, 3, 4]


@pytest.mark.parametrize(("height", "width"), [(10, 10), (5, 7), (1, 2)])
def test_a_series_has_a_pyramid_at_any_size(height: int, width: int) -> None:
    encoder = own("sentinel2_ts", series_encoder="utae").series["sentinel2_ts"]
    series = random(2, 4, 10, height, width)
    sizes = [tuple(m.shape[-2:]) for m in encoder(series, torch.zeros(2, 4, dtype=torch.int64))]
    assert sizes == [(-(-height // r), -(-width // r)) for r in (1, 2, 4)]
    flat = published("sentinel2_ts").encoders["SENTINEL2_TS"]
    maps = flat(random(2, 4, 10, 10, 10), torch.zeros(2, 4)).maps
    assert {tuple(m.shape[-2:]) for m in maps} == {(10, 10)}


# Absent modalities


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


# What learns


def auxiliary_as_published(scores: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> Tensor:
    """Look for the auxiliary scores of a task as the public code does: under the task's name."""
    found = [F.cross_entropy(scores[task], labels[task]) for task in labels if task in scores]
    return torch.stack(found).mean() if found else torch.zeros(())


def test_auxiliary_heads_learn() -> None:
    names = ("spot_rgbi", "dem_elev")
    inputs, labels = rasters(*names), {"cosia": torch.randint(0, 15, (2, 128, 128))}
    old = published(*names, aux=names).train()
    scores = old(inputs)
    main = F.cross_entropy(scores.main["cosia"], labels["cosia"])
    loss = main + auxiliary_as_published(scores.aux, labels)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in old.aux_decoders.parameters())

    model = own(*names, auxiliary=0.3).train()
    loss = SegmentationLoss(COUNTS, auxiliary=0.3)(*_for_loss(model, inputs, labels))
    loss.backward()
    heads = list(model.auxiliary.parameters())
    assert heads
    assert all(p.grad is not None and p.grad.any() for p in heads)
    assert not model.eval()(inputs).aux
    assert not list(own(*names).auxiliary.parameters())


def _for_loss(
    model: MultimodalSegmenter, inputs: Mapping[str, Tensor], labels: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], Mapping[str, Tensor], dict[str, Tensor]]:
    scores = model(inputs)
    return scores.main, {key: value.to(torch.uint8) for key, value in labels.items()}, scores.aux


def test_auxiliary_scores_count_with_their_weight_where_there_is_a_modality() -> None:
    labels = {"cosia": torch.randint(0, 15, (3, 8, 8)).to(torch.uint8)}
    main, a, b = (random(3, 19, 8, 8, seed=seed) for seed in range(3))
    plain = SegmentationLoss(COUNTS)
    truth = labels["cosia"]
    parts = [plain({"cosia": one}, labels) for one in (main, a)]
    parts.append(plain({"cosia": b[1:]}, {"cosia": truth[1:]}))  # the first sample lacks it
    loss = SegmentationLoss(COUNTS, auxiliary=0.4, task_weights={"cosia": 2.0})
    aux = {"dem_elev/cosia": a, "spot_rgbi/cosia": b}
    found = loss({"cosia": main}, labels, aux, {"spot_rgbi": torch.tensor([False, True, True])})
    torch.testing.assert_close(found, 2 * (parts[0] + 0.4 * (parts[1] + parts[2]) / 2))


def dead(model: nn.Module) -> list[str]:
    """Return parameters without a gradient, or of ours with nothing but rounding in it.

    timm's and smp's networks have biases in front of norms that take them away again.
    """
    return [
        name
        for name, p in model.named_parameters()
        if p.grad is None
        or not p.grad.any()
        or (name.startswith(OWN_BLOCKS) and p.grad.abs().max() < 1e-12)
    ]


OWN_BLOCKS = ("series", "fusions", "tokens", "auxiliary", "heads")


OPTIONS: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (("aerial_rgbi",), {}),
    (("aerial_rgbi",), {"decoder": "upernet", "auxiliary": 0.5}),
    (("sentinel2_ts",), {"series_encoder": "utae"}),
    (("sentinel2_ts",), {"series_encoder": "utae", "decoder": "upernet"}),
    (("sentinel2_ts", "sentinel1_asc_ts"), {"auxiliary": 0.5}),
    (("aerial_rgbi", "sentinel2_ts"), {"series_encoder": "utae", "auxiliary": 0.5}),
    (EVERY, {"modality_dropout": {"dem_elev": 0.5, "sentinel2_ts": 0.5}, "auxiliary": 0.5}),
    (EVERY, {"series_encoder": "utae", "decoder": "upernet", "encoder": "convnext_atto"}),
]


@pytest.mark.parametrize(("modalities", "changes"), OPTIONS)
def test_every_parameter_learns(modalities: tuple[str, ...], changes: dict[str, Any]) -> None:
    model = own(*modalities, **changes).double().train()
    call = every_input(batch=4)
    call["inputs"]["sentinel1_asc_ts"] = random(4, 4, 2, 5, 5)
    call["days"]["sentinel1_asc_ts"] = call["days"]["sentinel2_ts"]
    call["inputs"] = {key: call["inputs"][key].double() for key in modalities}
    scores = model(**call)
    labels = {"cosia": torch.randint(0, 15, scores.main["cosia"][:, 0].shape).to(torch.uint8)}
    loss = SegmentationLoss(COUNTS, auxiliary=changes.get("auxiliary", 0.0))
    loss(scores.main, labels, scores.aux).backward()
    assert dead(model) == []


def test_the_published_network_has_parameters_that_never_learn() -> None:
    old = published("aerial_rgbi").train()
    old(rasters("aerial_rgbi")).main["cosia"].square().mean().backward()
    assert {name.split(".")[0] for name in dead(old)} >= {"fusion_handler"}
    assert any("fpn_stages.4" in name for name in dead(old))


# Sizes, graphs, names


@pytest.mark.parametrize("size", [(40, 72), (128, 128), (300, 200)])
def test_scores_have_the_size_asked_for(size: tuple[int, int]) -> None:
    model = own("aerial_rgbi", "spot_rgbi")
    inputs = rasters("aerial_rgbi", "spot_rgbi")
    plain = model(inputs).main["cosia"]
    found = model(inputs, size=size).main["cosia"]
    assert found.shape == (2, 19, *size)
    expected = F.interpolate(plain, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected)


FEW = ("spot_rgbi", "sentinel2_ts", "sentinel2_msk_sc")


@pytest.mark.parametrize(
    ("training", "encoder", "decoder"), [(True, "ltae", "unet"), (False, "utae", "upernet")]
)
def test_a_compiled_network_is_one_graph(training: bool, encoder: str, decoder: str) -> None:
    changes = {"series_encoder": encoder, "decoder": decoder, "auxiliary": 0.1}
    model = own(*FEW, encoder="resnet10t", **changes).train(training)
    call = every_input()
    call["inputs"] = {key: call["inputs"][key] for key in FEW}
    if training:  # lengths make shapes depend on data; without them all dates are true
        del call["lengths"]
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    found, expected = compiled(**call), model(**call)
    torch.testing.assert_close(found.main, expected.main, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.aux, expected.aux, rtol=1e-4, atol=1e-5)


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


@pytest.mark.parametrize(
    ("key", "name", "near"),
    [("decoder", "upernt", "'upernet'"), ("fusion", "men", "'mean'"),
     ("series_encoder", "ltea", "'ltae'")],
)  # fmt: skip
def test_unknown_blocks_are_refused(key: str, name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.{key}: there is no '{name}'.*{near}"):
        own("sentinel2_ts", **{key: name})
