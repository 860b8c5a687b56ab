"""No load is partial without a word: what a model uses comes from the file, or is asked for."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from flairhub.config import ModelConfig
from flairhub.errors import CheckpointError, ConfigError, UnknownNameError
from flairhub.modalities import get_modality
from flairhub.models import IgnOptions, build, build_model, load
from flairhub.models.weights import WeightsError
from tests.networks import State, make, same

COSIA, BOTH = {"cosia": 19}, {"cosia": 19, "lpis_1": 23}
AERIAL = IgnOptions(("aerial_rgbi",), COSIA, encoder="resnet18")
DEM = IgnOptions(("aerial_rgbi", "dem_elev"), COSIA, encoder="resnet18")
SERIES = IgnOptions(("aerial_rgbi", "sentinel2_ts"), COSIA, encoder="resnet18")
LC_G = IgnOptions(("sentinel2_ts",), COSIA)
SPOT = IgnOptions(("spot_rgbi",), COSIA, encoder="convnextv2_atto")
LPIS_F = IgnOptions(("sentinel2_ts",), {"lpis_1": 23})
HEAD = "main_decoders.AERIAL_LABEL-COSIA"
LAST = "encoders.SENTINEL2_TS.out_conv.conv.conv"


@pytest.fixture(scope="module")
def aerial() -> State:
    return make(AERIAL).state_dict()


@pytest.fixture(scope="module")
def lc_g() -> State:
    return make(LC_G).state_dict()


@pytest.mark.parametrize(("options", "new"), [(DEM, "DEM_ELEV"), (SERIES, "SENTINEL2_TS")])
def test_idle_fusion_of_a_file_is_no_excuse_for_live_fusion(
    aerial: State, options: IgnOptions, new: str
) -> None:
    """Weights of one modality hold fusion layers of other widths, which nothing used."""
    assert "fusion_handler.conv_f.2.weight" in aerial
    model = make(options, seed=1)
    with pytest.raises(WeightsError, match=r"fusion_handler\.conv_f\.2\.weight: found 64 × 64"):
        load(aerial, model, fresh=[f"encoders.{new}."])
    report = load(aerial, model, fresh=[f"encoders.{new}.", "fusion_handler."]).report
    assert set(report.fresh.values()) == {"as asked"}


def test_the_same_by_id(aerial: State) -> None:
    with pytest.raises(WeightsError, match=r"fusion_handler\.conv_f\.5\.weight"):
        load(aerial, "LC-B", encoder="resnet18", fresh=["encoders.DEM_ELEV."])


def test_the_idle_fusion_of_a_model_may_have_other_shapes(aerial: State) -> None:
    fused = make(DEM).state_dict()
    report = load(fused, build(AERIAL), drop=["encoders.DEM_ELEV."]).report
    assert "unused: fusion layers, with nothing to fuse" in report.fresh[
        "fusion_handler.conv_f.2.weight"
    ]  # fmt: skip


def test_an_idle_head_of_a_file_is_no_excuse_for_a_live_one() -> None:
    """The 1 x 1 convolution of a model of series decides scores where there are several tasks."""
    file, model = make(LC_G).state_dict(), make(IgnOptions(("sentinel2_ts",), BOTH), seed=1)
    with pytest.raises(WeightsError, match=rf"{re.escape(HEAD)}\.weight: found 19 × 19 × 1 × 1"):
        load(file, model)
    report = load(file, model, adapt_heads=True).report
    assert report.fresh[f"{HEAD}.weight"].startswith("last layer drawn anew")
    assert torch.equal(model.state_dict()[f"{HEAD}.bias"], torch.zeros(19))


@pytest.mark.parametrize(
    "tasks", [{"lpis_1": 23}, BOTH, {"lpis_1": 19}, {"cosia": 7}], ids=lambda t: "+".join(t)
)
def test_the_last_layers_of_a_series_belong_to_its_classes(tasks: dict[str, int]) -> None:
    """A narrow layer before the classes of one file has the shape of the last of another's."""
    file = make(IgnOptions(("sentinel2_ts",), tasks)).state_dict()
    with pytest.raises(WeightsError, match=r"allow adapt_heads"):
        load(file, build(LC_G))
    model, report = load(file, "LC-G", adapt_heads=True)
    drawn = {name for name, why in report.fresh.items() if why.startswith("last layer drawn")}
    norm = ("weight", "bias", "running_mean", "running_var")
    assert drawn == {f"{LAST}.{n}" for n in ("3.weight", "3.bias", *(f"4.{one}" for one in norm))}
    assert torch.equal(model.state_dict()[f"{LAST}.3.bias"], torch.zeros(19))
    assert torch.equal(model.state_dict()[f"{LAST}.0.weight"], file[f"{LAST}.0.weight"])


def test_the_last_layers_of_a_series_stay_with_their_classes() -> None:
    file = make(LPIS_F).state_dict()
    report = load(file, build(LPIS_F), adapt_heads=True).report
    assert {**report.fresh, **report.adapted, **report.left_over} == {}


# What the user names is what is meant


def test_a_lone_beginning_of_names_is_one() -> None:
    file = make(AERIAL).state_dict()
    model = make(SERIES, seed=1)
    new = ["encoders.SENTINEL2_TS.", "fusion_handler."]
    listed = load(file, model, fresh=new).report
    less = {n: t for n, t in make(SERIES).state_dict().items() if not n.startswith(new[0])}
    alone = load(less, model, fresh=new[0]).report
    assert set(alone.fresh) == {n for n in listed.fresh if n.startswith(new[0])}
    fused = make(SERIES).state_dict()
    report = load(fused, make(AERIAL), fresh="fusion_handler.", drop=new[0]).report
    assert set(report.left_over) == {n for n in fused if n.startswith(new[0])}


@pytest.mark.parametrize(
    ("option", "name", "message"),
    [
        ("fresh", "encoders.SENTINEL_TS.", r"the model has no .*mean 'encoders\.SENTINEL2_TS\.'"),
        ("fresh", "main_decoderz", "Did you mean 'main_decoders.'"),
        ("fresh", "zzz", r"fresh='zzz': .*Known: encoders\., fusion_handler\., main_decoders\."),
        (
            "drop",
            "encoders.SENTINEL2_TS.",
            "no tensor of the file alone begins so",
        ),
        ("drop", "aux_decoder.", "Did you mean 'aux_decoders.'"),
    ],
)
def test_beginnings_of_names_that_have_no_effect_are_refused(
    option: str, name: str, message: str, lc_g: State
) -> None:
    file = {**lc_g, "aux_decoders.X.weight": torch.ones(1)}
    model = build(LC_G)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(UnknownNameError, match=message):
        load(file, model, **{option: ["main_decoders." if option == "fresh" else "aux", name]})  # type: ignore[arg-type]
    assert same(model, before)


@pytest.mark.parametrize("option", ["fresh", "drop"])
@pytest.mark.parametrize("given", ["", [""], [3], 3])
def test_beginnings_are_texts(option: str, given: Any, lc_g: State) -> None:  # noqa: ANN401
    """An empty one would begin every name."""
    with pytest.raises(ConfigError, match=f"{option}= is a beginning of names"):
        load(lc_g, **{option: given})


@pytest.mark.parametrize(
    ("bands", "error", "message"),
    [
        ({"sentinel2_ts": ["B8", "B4"]}, UnknownNameError, "sentinel2_ts has no band 'B8'"),
        ({"sentinel2_ts": ["B04", "purple"]}, UnknownNameError, "no band 'purple'"),
        ({"sentinel2_tss": ["B04"]}, UnknownNameError, "Did you mean 'sentinel2_ts'"),
        ({"sentinel2_ts": []}, ConfigError, r"at least one; got \[\]"),
        ({"sentinel2_ts": ["B04", "B04"]}, ConfigError, "different names"),
        ({"sentinel2_ts": 4}, ConfigError, "got 4"),
        ({"sentinel2_ts": [1, 2]}, ConfigError, r"got \[1, 2\]"),
        ({"dem_elev": ["dsm"]}, (ConfigError, CheckpointError), "dem_elev|DEM_ELEV"),
        (4, ConfigError, "names by modality.*got 4"),
    ],
)
@pytest.mark.parametrize("side", ["bands", "file_bands"])
def test_bands_are_checked(
    bands: Any,  # noqa: ANN401
    error: type[Exception],
    message: str,
    side: str,
    lc_g: State,
) -> None:
    model = build(LC_G)
    for target in (None, "LC-G", model):
        with pytest.raises(error, match=message):
            load(lc_g, target, adapt_bands=True, **{side: bands})


def test_a_lone_band_is_one(lc_g: State) -> None:
    model = load(lc_g, bands={"sentinel2_ts": "B04"}, adapt_bands=True).model
    name = "encoders.SENTINEL2_TS.in_conv.conv.conv.0.weight"
    place = get_modality("sentinel2_ts").band_names.index("B04")
    assert torch.equal(model.state_dict()[name][:, 0], lc_g[name][:, place])


def test_bands_of_modules_whose_layers_are_not_known_are_refused() -> None:
    class Other(nn.Linear): ...

    model = Other(2, 2)
    with pytest.raises(ConfigError, match="first layers of no modality"):
        load(dict(model.state_dict()), model, bands={"spot_rgbi": ["red"]})


def test_options_of_a_model_that_is_built_come_before_its_bands() -> None:
    both = ("aerial_rgbi", "dem_elev")
    report = load(
        make(DEM).state_dict(), "LC-A", modalities=both, encoder="resnet18",
        bands={"dem_elev": ("dsm",)}, adapt_bands=True,
    ).report  # fmt: skip
    assert list(report.adapted) == ["encoders.DEM_ELEV.seg_model.conv1.weight"]


def test_bands_are_compared_inside_of_wrappers() -> None:
    """Kernels for red, green, blue have the shape of those for near infrared, red, green."""

    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = make(SPOT, seed=1)

    colours = {"spot_rgbi": ("red", "green", "blue")}
    with pytest.raises(WeightsError, match="found kernels for red, green, blue, expected nir"):
        load(make(SPOT).state_dict(), Wrapper(), file_bands=colours)
    assert load(make(SPOT).state_dict(), Wrapper()).report.adapted == {}


@pytest.mark.parametrize("side", ["file", "model"])
def test_an_auxiliary_decoder_loads_whole_or_not_at_all(side: str) -> None:
    options = replace(SPOT, aux=("spot_rgbi",))
    file = make(options).state_dict()
    name = "aux_decoders.SPOT_RGBI__AERIAL_LABEL-COSIA.seg_model.decoder.fpn_bottleneck.0.weight"
    if side == "file":
        with pytest.raises(WeightsError, match=f"Missing in the file: {name}"):
            load({n: t for n, t in file.items() if n != name}, make(options))
    else:
        with pytest.raises(WeightsError, match=f"In the file alone: {name}2"):
            load({**file, f"{name}2": torch.ones(1)}, make(options))


def test_a_file_without_heads_asks_for_the_model(lc_g: State) -> None:
    bare = {n: t for n, t in lc_g.items() if not n.startswith("main_decoders.")}
    with pytest.raises(CheckpointError, match=r"encoders \(SENTINEL2_TS\) but no main_decoders"):
        load(bare)
    assert set(load(bare, "LC-G").report.fresh) == lc_g.keys() - bare.keys()


# Our own form


def own_form(label: str) -> nn.Module:
    torch.manual_seed(0)
    config = ModelConfig(encoder="resnet10t", decoder_channels=16)
    return build_model(config, ["spot_rgbi"], {"spot_rgbi": 3}, [label])


def test_heads_of_our_own_form_are_adapted() -> None:
    file = own_form("cosia").state_dict()
    with pytest.raises(WeightsError, match=r"Missing in the file: heads\.lpis_1\.weight"):
        load(file, own_form("lpis_1"))
    model, report = load(file, own_form("lpis_1"), adapt_heads=True)
    assert set(report.fresh) == {"heads.lpis_1.weight", "heads.lpis_1.bias"}
    assert set(report.left_over) == {"heads.cosia.weight", "heads.cosia.bias"}
    assert torch.equal(model.state_dict()["heads.lpis_1.bias"], torch.zeros(23))
