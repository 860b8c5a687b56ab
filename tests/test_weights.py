"""Weights into models: the rules that change them, and nothing without a reason."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from flairhub.errors import UnknownNameError
from flairhub.models import IgnNetwork, IgnOptions, build, load
from flairhub.models.adapt import rearrange_bands, resize_window
from flairhub.models.weights import WeightsError
from tests.networks import ALONE, FUSED, SERIES, SWIN, State, make, same
from tests.test_zoo import shared

FIRST = "encoders.SPOT_RGBI.seg_model.model.stem_0.weight"
HEAD = "main_decoders.AERIAL_LABEL-COSIA.seg_model.segmentation_head.0"


@pytest.fixture(scope="module")
def fused() -> State:
    return make(FUSED).state_dict()


@pytest.fixture(scope="module")
def series() -> State:
    return make(SERIES).state_dict()


@pytest.fixture(scope="module")
def swin() -> State:
    return make(SWIN).state_dict()


@pytest.fixture(scope="module")
def alone() -> State:
    return make(ALONE).state_dict()


# Nothing without a reason


def test_a_missing_tensor_is_an_error_that_names_it(fused: State) -> None:
    model = make(FUSED, seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    less = {name: tensor for name, tensor in fused.items() if name != f"{HEAD}.bias"}
    with pytest.raises(
        WeightsError, match=f"Missing in the file: {re.escape(HEAD)}.bias"
    ) as raised:
        load(less, model)
    assert raised.value.missing == (f"{HEAD}.bias",)
    assert same(model, before)


def test_a_tensor_too_many_is_an_error_that_names_it(series: State) -> None:
    with pytest.raises(
        WeightsError, match=r"In the file alone: encoders\.SENTINEL2_TS\.more"
    ) as raised:
        load({**series, "encoders.SENTINEL2_TS.more": torch.ones(1)}, make(SERIES))
    assert raised.value.unexpected == ("encoders.SENTINEL2_TS.more",)


def test_a_shape_that_differs_names_tensor_and_shapes(fused: State) -> None:
    name = "main_decoders.AERIAL_LABEL-COSIA.seg_model.decoder.fpn_bottleneck.0.weight"
    wrong = {**fused, name: torch.ones(32, 1280, 3, 3)}
    with pytest.raises(
        WeightsError, match=rf"{name}: found 32 × 1280 × 3 × 3, expected 64 × 1280 × 3 × 3"
    ) as raised:
        load(wrong, make(FUSED), adapt_heads=True, adapt_windows=True, adapt_bands=True)
    assert list(raised.value.unfit) == [name]


def test_every_name_of_many_is_in_the_error(fused: State, alone: State) -> None:
    with pytest.raises(WeightsError, match=r"and \d+ more") as raised:
        load(alone, make(FUSED))
    wanted = set(fused) - set(alone)
    assert set(raised.value.missing) | set(raised.value.unfit) >= {
        n for n in wanted if not n.endswith("num_batches_tracked")
    }


def test_numbers_that_are_not_finite_are_refused(fused: State) -> None:
    broken = {**fused, f"{HEAD}.bias": torch.full((19,), torch.nan)}
    with pytest.raises(WeightsError, match=f"not finite: {re.escape(HEAD)}.bias"):
        load(broken)


def test_integers_are_no_weights(fused: State) -> None:
    wrong = {**fused, f"{HEAD}.bias": torch.zeros(19, dtype=torch.int64)}
    with pytest.raises(WeightsError, match=r"found torch\.int64, expected torch\.float32"):
        load(wrong)


def test_a_model_without_memory_is_refused(series: State) -> None:
    with torch.device("meta"):
        model = build(SERIES)
    with pytest.raises(WeightsError, match="device 'meta'"):
        load(series, model)


def test_options_are_not_for_modules(series: State) -> None:
    with pytest.raises(TypeError, match="aux"):
        load(series, make(SERIES), aux=())


# What may be absent


def test_auxiliary_decoders_may_be_in_either(fused: State) -> None:
    with_aux = make(replace(FUSED, aux=("spot_rgbi", "sentinel2_ts"))).state_dict()
    model, report = load(with_aux, aux=())
    assert set(report.left_over) == set(with_aux) - set(fused)
    assert same(model, {name: with_aux[name] for name in fused})
    model, report = load(fused, aux=("spot_rgbi", "sentinel2_ts"))
    assert set(report.fresh) == set(with_aux) - set(fused)
    assert same(load(with_aux).model, with_aux)


def test_dead_parameters_may_be_absent(alone: State) -> None:
    dead = {n for n in alone if n.startswith("fusion_handler.") or ".fpn_stages.4." in n}
    assert len(dead) == 8 + 6
    less = {name: tensor for name, tensor in alone.items() if name not in dead}
    model, report = load(less)
    assert set(report.fresh) == dead
    assert {why.partition(":")[0] for why in report.fresh.values()} == {"unused"}
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        got = model({"spot_rgbi": image}).main["cosia"]
        assert torch.equal(got, load(alone).model({"spot_rgbi": image}).main["cosia"])


def test_dead_parameters_of_series_alone_may_be_absent() -> None:
    state = make(SERIES).state_dict()
    dead = {n for n in state if n.startswith(("fusion_handler.", "main_decoders."))}
    model, report = load({n: t for n, t in state.items() if n not in dead}, "LC-G")
    assert set(report.fresh) == dead
    assert isinstance(model, IgnNetwork)


def test_fusion_is_not_dead_where_there_is_something_to_fuse(fused: State) -> None:
    less = {n: t for n, t in fused.items() if not n.startswith("fusion_handler.")}
    with pytest.raises(WeightsError, match=r"fusion_handler\.conv_f\.0\.weight"):
        load(less, make(FUSED))


def test_names_that_the_user_gives_are_left(fused: State, alone: State) -> None:
    """From one image to image and series: encoder and decoder start trained, the rest fresh."""
    model = make(FUSED, seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    new = ("encoders.SENTINEL2_TS.", "fusion_handler.")
    report = load(alone, model, fresh=new).report
    for name, tensor in model.state_dict().items():
        wanted = before if name.startswith(new) else alone
        assert torch.equal(tensor, wanted[name]), name
    assert set(report.fresh.values()) == {"as asked"}
    report = load(
        fused, make(ALONE), fresh=["fusion_handler."], drop=["encoders.SENTINEL2_TS."]
    ).report
    assert all(n.startswith("encoders.SENTINEL2_TS.") for n in report.left_over)


# The rules


def test_windows_are_adapted_only_where_asked(swin: State) -> None:
    with pytest.raises(WeightsError, match=r"found 49 × 12, expected 169 × 12: .*adapt_windows"):
        load(swin, sizes={"spot_rgbi": 512})
    model, report = load(swin, sizes={"spot_rgbi": 512}, adapt_windows=True)
    assert len(report.adapted) == 8  # six blocks of the third stage, two of the fourth
    assert all(name.endswith("relative_position_bias_table") for name in report.adapted)
    name = "encoders.SPOT_RGBI.seg_model.model.layers_3.blocks.1.attn.relative_position_bias_table"
    assert model.state_dict()[name].shape == (169, 24)
    with torch.no_grad():
        scores = model({"spot_rgbi": torch.rand(1, 3, 128, 128)}, size=(64, 64)).main["cosia"]
    assert scores.isfinite().all()


def test_windows_keep_a_smooth_field() -> None:
    """Biases that are a plane over offsets stay that plane, but for the border of the bicubic."""
    old, new = 23, 13
    grid = torch.arange(old, dtype=torch.float32)
    table = (grid[:, None] + 2 * grid[None, :]).reshape(-1, 1)
    found = resize_window(table, new**2)
    assert found is not None
    at = (torch.arange(new) + 0.5) * old / new - 0.5
    wanted = at[:, None] + 2 * at[None, :]
    inner = slice(2, -2)
    assert torch.allclose(found.reshape(new, new)[inner, inner], wanted[inner, inner], atol=0.2)
    same_size = resize_window(table, old**2)
    assert same_size is not None
    assert torch.equal(same_size, table)
    assert resize_window(torch.ones(12, 1), 9) is None
    assert resize_window(torch.ones(9, 1), 16) is None


def test_heads_are_adapted_only_where_asked(fused: State) -> None:
    with pytest.raises(WeightsError, match=r"found 19 × 64 × 1 × 1, expected 7 × 64.*adapt_heads"):
        load(fused, tasks={"cosia": 7})
    model, report = load(fused, tasks={"cosia": 7}, adapt_heads=True)
    head = model.state_dict()[f"{HEAD}.weight"]
    assert head.shape == (7, 64, 1, 1)
    limit = (6 / (7 + 64)) ** 0.5  # Glorot's
    assert 0 < head.abs().max() <= limit
    assert torch.equal(model.state_dict()[f"{HEAD}.bias"], torch.zeros(7))
    drawn = {n for n, why in report.fresh.items() if why.startswith("last layer drawn anew")}
    series = "encoders.SENTINEL2_TS.out_conv.conv.conv"
    assert {f"{HEAD}.weight", f"{HEAD}.bias", f"{series}.6.weight"} <= drawn
    kept = set(fused) & set(model.state_dict()) - drawn
    assert all(torch.equal(model.state_dict()[n], fused[n]) for n in kept)
    assert report.left_over == {}


def test_another_task_starts_from_the_decoder_that_is_there(fused: State) -> None:
    with pytest.raises(WeightsError, match=r"main_decoders\.ALL_LABEL-LPIS"):
        load(fused, tasks={"lpis_1": 23})
    model, report = load(fused, tasks={"lpis_1": 23}, adapt_heads=True)
    name = "seg_model.decoder.fpn_bottleneck.0.weight"
    got = model.state_dict()[f"main_decoders.ALL_LABEL-LPIS.{name}"]
    assert torch.equal(got, fused[f"main_decoders.AERIAL_LABEL-COSIA.{name}"])
    assert f"main_decoders.AERIAL_LABEL-COSIA.{name}" in report.left_over
    assert "started from the decoder of AERIAL_LABEL-COSIA" in set(report.adapted.values())
    both, report = load(fused, tasks={"cosia": 19, "lpis_1": 23}, adapt_heads=True)
    assert torch.equal(both.state_dict()[f"{HEAD}.weight"], fused[f"{HEAD}.weight"])
    assert not any("decoder of AERIAL" in why for why in report.left_over.values())


def test_from_more_classes_to_fewer_layers() -> None:
    crops = make(IgnOptions(("sentinel2_ts",), {"lpis_1": 23})).state_dict()
    report = load(crops, "LC-G", adapt_heads=True).report
    assert {w for n, w in report.left_over.items() if "out_conv" in n and "tracked" not in n} == {
        "last layer for other classes"
    }


def test_bands_are_adapted_only_where_asked(alone: State) -> None:
    four = {"spot_rgbi": ("red", "green", "blue", "nir")}
    with pytest.raises(WeightsError, match=r"expected red, green, blue, nir; .*adapt_bands"):
        load(alone, bands=four)
    model, report = load(alone, bands=four, adapt_bands=True)
    assert list(report.adapted) == [FIRST]
    old, new = alone[FIRST], model.state_dict()[FIRST]
    for place, band in enumerate(four["spot_rgbi"]):
        wanted = old[:, ("nir", "red", "green").index(band)] if band != "blue" else 0 * old[:, 0]
        assert torch.equal(new[:, place], wanted)
    image = torch.rand(2, 4, 64, 64)  # red, green, blue, nir
    with torch.no_grad():
        before = load(alone).model({"spot_rgbi": image[:, [3, 0, 1]]}).main["cosia"]
        after = model({"spot_rgbi": image}).main["cosia"]
    assert torch.allclose(before, after, rtol=1e-5, atol=1e-5)


def test_equal_shapes_of_other_bands_are_not_silently_taken(alone: State) -> None:
    """Three channels fit three channels: only names tell infrared from blue."""
    colours = {"spot_rgbi": ("red", "green", "blue")}
    with pytest.raises(
        WeightsError, match="found kernels for nir, red, green, expected red, green"
    ):
        load(alone, make(ALONE), bands=colours)
    assert same(load(alone, make(ALONE), bands=colours, file_bands=colours).model, alone)
    model = load(alone, make(ALONE), bands=colours, adapt_bands=True).model
    assert torch.equal(model.state_dict()[FIRST][:, 0], alone[FIRST][:, 1])


def test_unknown_bands_must_be_told(alone: State) -> None:
    two = make(replace(ALONE, bands={"spot_rgbi": 2})).state_dict()
    with pytest.raises(WeightsError, match="say which bands"):
        load(two, make(ALONE), adapt_bands=True)
    told = {"spot_rgbi": ("red", "nir")}
    model = load(two, make(ALONE), file_bands=told, adapt_bands=True).model
    assert torch.equal(model.state_dict()[FIRST][:, 0], two[FIRST][:, 1])
    with pytest.raises(UnknownNameError, match="Did you mean 'red'"):
        load(two, make(ALONE), file_bands={"spot_rgbi": ("redd", "nir")})


def test_fusion_of_the_input_level_follows_the_bands_and_decides_nothing() -> None:
    """ResNets fuse the images themselves too, in a layer as wide as their bands that none reads."""
    options = IgnOptions(("dem_elev", "spot_rgbi"), {"cosia": 19}, encoder="resnet18")
    state = make(options).state_dict()
    four = {"spot_rgbi": ("red", "green", "blue", "nir")}
    report = load(state, bands=four, adapt_bands=True).report
    assert list(report.adapted) == ["encoders.SPOT_RGBI.seg_model.conv1.weight"]
    assert list(report.fresh) == ["fusion_handler.conv_f.0.weight"]


def test_where_no_band_is_known_a_grey_image_answers_as_before() -> None:
    kernels = torch.rand(8, 3, 4, 4)
    found = rearrange_bands(kernels, ("red", "green", "blue"), ("pan", "nir"))
    grey = torch.rand(1, 1, 8, 8)
    before = nn.functional.conv2d(grey.expand(1, 3, 8, 8), kernels)
    assert torch.allclose(before, nn.functional.conv2d(grey.expand(1, 2, 8, 8), found), atol=1e-5)


# The reference models


@pytest.mark.parametrize("name", ["fused-aerial-s2", "s2-only", "swin-spot-s2-aux"])
def test_the_reference_weights_load_without_a_remark(name: str) -> None:
    file = shared(f"model/oracle/{name}.safetensors")
    model, report = load(file)
    assert len(report.loaded) == len(model.state_dict()) == len(load_file(file))
    assert {**report.adapted, **report.fresh, **report.left_over} == {}
    assert isinstance(model, IgnNetwork)
