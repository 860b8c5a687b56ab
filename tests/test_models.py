"""The network: shapes, presence, padding, alignment, gradients."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from flairhub.config import ModelConfig
from flairhub.errors import ConfigError, GridError, UnknownNameError
from flairhub.modalities import MODALITIES
from flairhub.models import MultimodalSegmenter, build_model
from flairhub.models.alignment import common_size, next_multiple, pad_to, resize
from flairhub.models.dates import season_code
from flairhub.models.decoders import Convolutions
from flairhub.models.fusion import MeanFusion
from flairhub.models.ltae import LTAE
from flairhub.models.raster_encoder import RasterEncoder
from flairhub.models.scores import Scores
from flairhub.nomenclatures import NOMENCLATURES

BANDS = {key: len(m.bands) for key, m in MODALITIES.items()}
RASTERS = ("aerial_rgbi", "aerial_rlt_pan", "dem_elev", "spot_rgbi")
SERIES = ("sentinel2_ts", "sentinel1_asc_ts", "sentinel1_desc_ts")
EVERYTHING = (*RASTERS, *SERIES, "sentinel2_msk_sc")
SMALL = ModelConfig(
    encoder="mobilenetv3_small_050", decoder_channels=32, series_channels=16, series_heads=4
)


@dataclass(frozen=True)
class Call:
    """The arguments of a forward pass."""

    inputs: dict[str, Tensor]
    days: dict[str, Tensor]
    lengths: dict[str, Tensor]
    present: dict[str, Tensor]

    def into(self, model: MultimodalSegmenter) -> dict[str, Tensor]:
        result: Scores = model(self.inputs, self.days, self.lengths, self.present)
        return result.main

    def without(self, *names: str) -> Call:
        kept = {key: value for key, value in self.inputs.items() if key not in names}
        return replace(self, inputs=kept)


def make_call(
    modalities: Sequence[str],
    *,
    batch: int = 2,
    height_m: float = 51.2,
    width_m: float = 51.2,
    dates: int = 5,
    seed: int = 0,
) -> Call:
    """Return random inputs of one ground; sample i of a series has ``dates - i`` dates."""
    chance = torch.Generator().manual_seed(seed)
    call = Call({}, {}, {}, {})
    for key in modalities:
        modality = MODALITIES[key]
        lead = (batch, dates) if modality.temporal else (batch,)
        size = (round(height_m / modality.resolution_m), round(width_m / modality.resolution_m))
        call.inputs[key] = torch.randn(*lead, BANDS[key], *size, generator=chance)
        call.present[key] = torch.ones(batch, dtype=torch.bool)
        if modality.temporal:
            call.days[key] = torch.randint(18000, 18366, (batch, dates), generator=chance)
            call.lengths[key] = torch.tensor([dates - i for i in range(batch)])
    return call


def make_model(
    modalities: Sequence[str], config: ModelConfig = SMALL, labels: Sequence[str] = ("cosia",)
) -> MultimodalSegmenter:
    torch.manual_seed(0)
    return build_model(config, modalities, BANDS, labels)


def assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("decoder", ["unet", "upernet"])
@pytest.mark.parametrize(
    ("modalities", "side"),
    [
        (("aerial_rgbi",), 256),
        (("spot_rgbi",), 32),
        (("aerial_rlt_pan", "sentinel1_asc_ts"), 128),
        (("dem_elev", "sentinel2_ts", "sentinel2_msk_sc"), 256),
        (("sentinel2_ts",), 5),
        (SERIES, 5),
        (EVERYTHING, 256),
    ],
)
def test_scores_have_the_size_of_the_finest_input(
    decoder: str, modalities: tuple[str, ...], side: int
) -> None:
    config = SMALL.model_copy(update={"decoder": decoder})
    model = make_model(modalities, config, ("cosia", "lpis_1")).eval()
    found = make_call(modalities).into(model)
    assert {key: tuple(scores.shape) for key, scores in found.items()} == {
        key: (2, len(NOMENCLATURES[key]), side, side) for key in ("cosia", "lpis_1")
    }
    assert all(scores.isfinite().all() for scores in found.values())


@pytest.mark.parametrize(
    ("modalities", "height_m", "width_m"),
    [
        (("aerial_rgbi",), 20.2, 13.4),
        (("aerial_rgbi", "spot_rgbi"), 14.4, 8.0),
        (("aerial_rgbi", "dem_elev", "sentinel2_ts"), 51.2, 102.4),
        (("sentinel2_ts",), 71.68, 30.72),
    ],
)
def test_rectangles_of_any_size_work(
    modalities: tuple[str, ...], height_m: float, width_m: float
) -> None:
    model = make_model(modalities).eval()
    call = make_call(modalities, height_m=height_m, width_m=width_m)
    finest = call.inputs[modalities[0]]
    assert call.into(model)["cosia"].shape[-2:] == finest.shape[-2:]


@pytest.mark.parametrize("encoder", ["resnet10t", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_other_networks_fit_too(encoder: str) -> None:
    modalities = ("aerial_rgbi", "spot_rgbi")
    model = make_model(modalities, SMALL.model_copy(update={"encoder": encoder})).eval()
    found = make_call(modalities, batch=1, height_m=12.8, width_m=19.2).into(model)
    assert found["cosia"].shape == (1, 19, 64, 96)


@pytest.mark.parametrize("decoder", ["unet", "upernet"])
@pytest.mark.parametrize("modalities", [EVERYTHING, SERIES[:1]])
def test_gradients_reach_every_parameter(decoder: str, modalities: tuple[str, ...]) -> None:
    config = SMALL.model_copy(update={"decoder": decoder})
    model = make_model(modalities, config, ("cosia", "lpis_1"))
    found = make_call(modalities).into(model)
    sum(scores.square().mean() for scores in found.values()).backward()  # type: ignore[union-attr]
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


@pytest.mark.parametrize("training", [True, False])
def test_padding_of_series_changes_nothing(training: bool) -> None:
    modalities = ("spot_rgbi", *SERIES[:2])
    model = make_model(modalities).train(training)
    call = make_call(modalities)
    expected = call.into(model)
    for key in SERIES[:2]:
        noise = torch.full_like(call.inputs[key], 1e6)
        call.inputs[key] = torch.cat([call.inputs[key], noise], dim=1)
        call.inputs[key][1, int(call.lengths[key][1])] = torch.nan
        call.days[key] = torch.cat([call.days[key], torch.full_like(call.days[key], -7)], dim=1)
    assert_same(call.into(model), expected)


def test_true_zeros_in_a_series_are_not_padding() -> None:
    model = make_model(("sentinel2_ts",)).eval()
    call = make_call(("sentinel2_ts",))
    call.inputs["sentinel2_ts"][0, -1] = 0
    with_zeros = call.into(model)["cosia"]
    call.lengths["sentinel2_ts"][0] -= 1
    assert not torch.allclose(call.into(model)["cosia"][0], with_zeros[0])


def test_order_of_dates_does_not_matter_but_the_season_does() -> None:
    model = make_model(("sentinel2_ts",)).eval()
    call = make_call(("sentinel2_ts",), batch=1)
    expected = call.into(model)
    turned = replace(
        call,
        inputs={k: v.flip(1) for k, v in call.inputs.items()},
        days={k: v.flip(1) for k, v in call.days.items()},
    )
    assert_same(turned.into(model), expected)
    later = replace(call, days={k: v + 91 for k, v in call.days.items()})
    assert not torch.allclose(later.into(model)["cosia"], expected["cosia"])


def test_the_season_runs_on_over_new_year() -> None:
    new_year = 18262  # 2020-01-01
    code = season_code(torch.tensor([new_year - 1, new_year, new_year + 1, new_year + 183]))
    step, half = (code[1] - code[0]).norm(), (code[3] - code[1]).norm()
    torch.testing.assert_close(step, (code[2] - code[1]).norm(), rtol=0.01, atol=0)
    assert half > 10 * step


@pytest.mark.parametrize("absent", ["dem_elev", "spot_rgbi", "sentinel2_ts"])
@pytest.mark.parametrize("training", [True, False])
def test_an_absent_modality_counts_as_if_it_were_not_given(absent: str, training: bool) -> None:
    modalities = ("aerial_rgbi", "dem_elev", "spot_rgbi", "sentinel2_ts")
    model = make_model(modalities).train(training)
    call = make_call(modalities)
    expected = call.without(absent).into(model)
    call.inputs[absent].fill_(torch.nan)
    call.present[absent] = torch.zeros(2, dtype=torch.bool)
    assert_same(call.into(model), expected)


def test_a_sample_without_a_modality_leaves_the_others_alone() -> None:
    modalities = ("aerial_rgbi", "dem_elev", "sentinel2_ts")
    model = make_model(modalities).eval()
    call = make_call(modalities, batch=3)
    both, neither = call.into(model)["cosia"], call.without("dem_elev").into(model)["cosia"]
    call.inputs["dem_elev"][1] = torch.nan
    call.present["dem_elev"] = torch.tensor([True, False, True])
    found = call.into(model)["cosia"]
    torch.testing.assert_close(found[[0, 2]], both[[0, 2]], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], neither[1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both[1], neither[1])


def test_a_series_of_no_date_is_absent() -> None:
    modalities = ("spot_rgbi", "sentinel1_asc_ts")
    model = make_model(modalities).eval()
    call = make_call(modalities)
    expected = call.without("sentinel1_asc_ts").into(model)
    call.lengths["sentinel1_asc_ts"] = torch.zeros(2, dtype=torch.int64)
    assert_same(call.into(model), expected)


def test_a_series_is_absent_where_its_masks_are() -> None:
    modalities = ("spot_rgbi", "sentinel2_ts", "sentinel2_msk_sc")
    model = make_model(modalities).eval()
    call = make_call(modalities)
    expected = call.without("sentinel2_ts", "sentinel2_msk_sc").into(model)
    call.present["sentinel2_msk_sc"] = torch.zeros(2, dtype=torch.bool)
    assert_same(call.into(model), expected)
    found = make_call(modalities)
    changed = make_call(modalities)
    changed.inputs["sentinel2_msk_sc"] += 1
    assert not torch.allclose(changed.into(model)["cosia"], found.into(model)["cosia"])


def test_the_finest_raster_may_be_absent() -> None:
    modalities = ("aerial_rgbi", "spot_rgbi")
    model = make_model(modalities).eval()
    found = make_call(modalities).without("aerial_rgbi").into(model)["cosia"]
    assert found.shape == (2, 19, 256, 256)
    assert found.isfinite().all()


def test_maps_meet_at_their_own_ground_resolution() -> None:
    model = make_model(("aerial_rgbi", "spot_rgbi", "sentinel2_ts"))
    assert model.levels_m == pytest.approx([0.4, 0.8, 1.6, 3.2, 6.4])
    assert list(model.placement["spot_rgbi"].values()) == [3, 4]  # 3.2 m, 6.4 m, and no further
    assert list(model.placement["sentinel2_ts"].values()) == [4]  # 10.24 m, nearest to 6.4 m
    keys = [key for places in model.placement.values() for key in places]
    assert len(keys) == len(set(keys))


def test_resampling_keeps_places_on_the_ground() -> None:
    """A field that is linear on the ground is the same field at either resolution."""

    def field(pixels: int) -> Tensor:
        centres = (torch.arange(pixels) + 0.5) * (102.4 / pixels)
        return centres.expand(1, 1, pixels, pixels).clone()

    found = resize(field(10), (512, 512))
    inside = slice(26, -26)  # half a coarse pixel at each edge has nothing to interpolate with
    expected = field(512)
    torch.testing.assert_close(found[..., inside], expected[..., inside], rtol=0, atol=1e-3)


def test_inputs_of_different_ground_are_refused() -> None:
    model = make_model(("aerial_rgbi", "spot_rgbi"))
    call = make_call(("aerial_rgbi", "spot_rgbi"))
    call.inputs["spot_rgbi"] = call.inputs["spot_rgbi"][..., :-1, :]
    with pytest.raises(GridError, match=r"51\.20 m x 51\.20 m and spot_rgbi 49\.60 m"):
        call.into(model)


def test_unknown_and_missing_inputs_are_refused() -> None:
    model = make_model(("aerial_rgbi",))
    with pytest.raises(UnknownNameError, match="not built for the input 'dem_elev'"):
        make_call(("dem_elev",)).into(model)
    with pytest.raises(GridError, match="at least one input of aerial_rgbi"):
        model({}, {}, {}, {})


def test_padding_repeats_the_edge() -> None:
    raster = torch.arange(6.0).reshape(1, 1, 2, 3)
    padded = pad_to(raster, (4, 4))
    assert padded[0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]
    series = raster.expand(2, 3, 1, 2, 3)
    assert pad_to(series, (4, 4)).shape == (2, 3, 1, 4, 4)
    assert next_multiple((64, 65), 32) == (64, 96)
    assert common_size({"a": raster}, {"a": 1.6}, 0.2) == (16, 24)


def test_fusion_is_the_mean_over_what_is_present() -> None:
    torch.manual_seed(0)
    fusion = MeanFusion({"a": 2, "b": 3}, 4).eval()
    a, b = torch.rand(2, 2, 4, 4), torch.rand(2, 3, 4, 4)
    b[0] = torch.nan
    found = fusion({"a": a, "b": b}, {"b": torch.tensor([False, True])}, 2, (4, 4))
    of_a, of_b = fusion.project["a"](a), fusion.project["b"](b)
    mean = torch.stack([of_a[0], (of_a[1] + of_b[1]) / 2])
    torch.testing.assert_close(found, fusion.norm(mean).relu())


def test_encoders_have_no_layer_past_their_last_level() -> None:
    whole, cut = RasterEncoder("resnet10t", 4), RasterEncoder("resnet10t", 4, max_reduction=4)
    assert cut.reductions == (2, 4)
    assert whole.reductions == (2, 4, 8, 16, 32)
    maps = cut(torch.randn(1, 4, 32, 64))
    assert [tuple(m.shape) for m in maps] == [
        (1, c, 32 // r, 64 // r) for c, r in zip(cut.channels, cut.reductions, strict=True)
    ]
    sizes = [sum(p.numel() for p in e.parameters()) for e in (whole, cut)]
    assert sizes[1] < sizes[0] / 10


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mobilenetv3_smal_100", "mobilenetv3_small_100"),
        ("vit_tiny_patch16_224", "no pyramid"),
    ],
)
def test_unfit_networks_are_refused(name: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        RasterEncoder(name, 3)


def test_weights_that_cannot_be_fetched_are_an_error_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create = timm.create_model

    def offline(name: str, *, pretrained: bool = False, **options: Any) -> nn.Module:  # noqa: ANN401
        if pretrained:
            reason = "no route to host"
            raise FileNotFoundError(reason)
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ConfigError, match="published weights of 'resnet10t': no route"):
        RasterEncoder("resnet10t", 3, pretrained=True)


def test_labels_alone_make_no_model() -> None:
    with pytest.raises(ConfigError, match="needs a raster or a series"):
        make_model(("aerial_label_cosia",))


def test_one_level_is_decoded_by_convolutions() -> None:
    decoder = Convolutions([8], 16)
    assert decoder([torch.randn(2, 8, 10, 10)]).shape == (2, 16, 10, 10)
    assert decoder.out_channels == 16


def test_attention_is_over_true_dates_only() -> None:
    """With equal values everywhere the weights' sum shows: it is 1 whatever the padding."""
    torch.manual_seed(0)
    encoder = LTAE(2, 8, 2).eval()
    nn.init.zeros_(encoder.attention.season.weight)
    series = torch.rand(1, 1, 2, 3, 3).expand(1, 6, 2, 3, 3)
    days = torch.arange(6)[None]
    found = [encoder(series, days, torch.tensor([n]))[0] for n in (1, 4, 6)]
    for one, other in itertools.pairwise(found):
        torch.testing.assert_close(one, other)
