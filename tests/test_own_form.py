"""What the network of the published models gets wrong, and that ours does not: both are tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.straightforward import Straightforward
from flairhub.errors import ConfigError
from flairhub.models import MultimodalSegmenter
from flairhub.training.losses import SegmentationLoss
from tests.forms import COUNTS, EVERY, FEW, alike, every_input, own, published, random, rasters

SERIES_ENCODERS = ("ltae", "utae")


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
    (FEW, {"series_encoder": "utae", "decoder": "upernet", "encoder": "convnext_atto"}),
]


@pytest.mark.parametrize(("modalities", "changes"), OPTIONS)
def test_every_parameter_learns(modalities: tuple[str, ...], changes: dict[str, Any]) -> None:
    model = own(*modalities, **changes).double().train()
    call = every_input(batch=4)
    call["inputs"]["sentinel1_asc_ts"] = random(4, 4, 2, 5, 5)
    call["days"]["sentinel1_asc_ts"] = call["days"]["sentinel2_ts"]
    for part, tensors in call.items():
        call[part] = {key: tensors[key] for key in modalities if key in tensors}
    call["inputs"] = {key: pixels.double() for key, pixels in call["inputs"].items()}
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


def test_the_network_as_described_knows_one_square() -> None:
    swin = "swin_tiny_patch4_window7_224"
    shape, key = {"SPOT_RGBI": (4, 64)}, "AERIAL_LABEL-COSIA"
    described = Straightforward(shape, {}, key, 19, swin, aux=False).eval()
    scores, _ = described({"SPOT_RGBI": random(1, 4, 64, 64)}, {}, 64)
    assert scores.shape == (1, 19, 64, 64)
    rectangle = random(1, 4, 64, 96)
    with pytest.raises(AssertionError, match=r"Input width \(96\) doesn't match"):
        described({"SPOT_RGBI": rectangle}, {}, 64)
    model = own("spot_rgbi", encoder="swin_tiny_patch4_window7_224")
    assert model({"spot_rgbi": rectangle}).main["cosia"].shape == (1, 19, 64, 96)


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


@pytest.mark.parametrize(
    ("key", "name", "near"),
    [("decoder", "upernt", "'upernet'"), ("fusion", "men", "'mean'"),
     ("series_encoder", "ltea", "'ltae'")],
)  # fmt: skip
def test_unknown_blocks_are_refused(key: str, name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.{key}: there is no '{name}'.*{near}"):
        own("sentinel2_ts", **{key: name})
