"""What a file of weights is: told from names and shapes, or from the header that we wrote."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pystac
import pystac.validation
import pytest
import torch
from pystac.extensions.mlm import MLMExtension
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from flairhub.errors import CheckpointError
from flairhub.models import IgnNetwork, IgnOptions, build, identify, load, save
from flairhub.models.flair import FlairOptions, FlairUnet
from flairhub.models.ign.decoder import DECODERS
from flairhub.models.published import ModelOptions
from flairhub.models.weights import WeightsError
from tests.networks import ALONE, FUSED, SERIES, State, make, same
from tests.test_zoo import shared


@pytest.fixture(scope="module")
def series() -> State:
    return make(SERIES).state_dict()


@pytest.fixture(scope="module")
def alone() -> State:
    return make(ALONE).state_dict()


# What a file is


@pytest.mark.parametrize(
    "options",
    [
        IgnOptions(("sentinel2_ts",), {"lpis_1": 23}),
        IgnOptions(("sentinel1_asc_ts", "sentinel1_desc_ts"), {"cosia": 19, "lpis_1": 23}),
        IgnOptions(("aerial_rgbi",), {"cosia": 19}, encoder="swin_large_patch4_window12_384"),
        IgnOptions(("dem_elev", "spot_rgbi"), {"cosia": 19},
                   encoder="swin_small_patch4_window7_224",
                   bands={"dem_elev": 1, "spot_rgbi": 4}, sizes={"spot_rgbi": 128}),
        IgnOptions(("aerial_rgbi", "spot_rgbi"), {"cosia": 19}, encoder="resnet34", decoder="unet"),
        IgnOptions(("aerial_rlt_pan",), {"mine": 5}, encoder="convnextv2_tiny",
                   aux=("aerial_rlt_pan",)),
        IgnOptions(("spot_rgbi", "sentinel2_ts"), {"lpis_1": 23}, encoder="resnet50",
                   aux=("spot_rgbi", "sentinel2_ts")),
        IgnOptions(("spot_rgbi",), {"cosia": 19}, encoder="se_resnext50_32x4d", decoder="fpn"),
        IgnOptions(("spot_rgbi", "sentinel2_ts"), {"cosia": 19}, encoder="densenet121",
                   decoder="manet", bands={"spot_rgbi": 4}),
        FlairOptions(),
        FlairOptions(bands=3, classes=19, metadata="ign"),
        FlairOptions(series_bands=10),
        FlairOptions(series_bands=4, classes=15, metadata="own"),
    ],
)  # fmt: skip
def test_names_and_shapes_tell_the_options(options: ModelOptions) -> None:
    with torch.device("meta"):
        state = build(options).state_dict()
    state = dict(sorted(state.items()))  # some writers sort
    assert identify({f"model.{name}": t for name, t in state.items()}).options == options


@pytest.mark.parametrize("decoder", sorted(DECODERS))
def test_every_decoder_is_told(decoder: str) -> None:
    options = IgnOptions(("spot_rgbi",), {"cosia": 19}, encoder="resnet18", decoder=decoder)
    with torch.device("meta"):
        state = build(options).state_dict()
    needless = [n for n in state if "fpn_stages.4" in n or n.startswith("fusion_handler.")]
    for name in needless:  # files may lack these
        del state[name]
    assert identify(state).options == options


def test_other_encoders_are_named_by_the_user() -> None:
    """Networks of timm may differ in their padding alone."""
    options = IgnOptions(("spot_rgbi",), {"cosia": 19}, encoder="tf_efficientnetv2_b0",
                         decoder="unet", bands={"spot_rgbi": 4})  # fmt: skip
    with torch.device("meta"):
        state = build(options).state_dict()
    with pytest.raises(CheckpointError, match=r"none of those that are told.*--encoder NAME"):
        identify(state)
    assert identify(state, encoder="tf_efficientnetv2_b0").options == options
    with pytest.raises(CheckpointError, match=r"no resnet34: seg_model\.bn1.bias is missing"):
        identify(state, encoder="resnet34")
    with pytest.raises(
        CheckpointError, match=r"'resnet99' cannot be built for images of 64 px: .*resnet99"
    ):
        identify(state, encoder="resnet99")


@pytest.mark.parametrize(
    "name", ["LC-A", "LC-I", "LC-G", "LPIS-J", "FLAIR1-UNET", "FLAIR1-UNET-MTD", "FLAIR2-UTT"]
)
def test_published_models_are_recognised(name: str) -> None:
    with torch.device("meta"):
        found = identify(build(name).state_dict())
    assert (found.id, found.differences) == (name, ())


def test_differences_to_the_published_model_are_told(alone: State) -> None:
    found = identify(alone)
    assert found.id == "LC-I"
    assert found.differences == (
        "encoder convnextv2_atto in place of swin_base_patch4_window12_384",
    )
    assert found.notes == (
        "The file does not tell the bands of spot_rgbi; taken as nir, red, green.",
    )
    assert found.with_bands({"SPOT_RGBI": ["red", "green", "blue"]}).notes == ()
    with pytest.raises(CheckpointError, match="3 channels of spot_rgbi; got 1"):
        found.with_bands({"spot_rgbi": ["red"]})
    with pytest.raises(CheckpointError, match=r"given for dem_elev; the file has spot_rgbi"):
        found.with_bands({"dem_elev": ["dsm", "height"]})


def test_networks_of_another_form_are_told(alone: State) -> None:
    with pytest.raises(CheckpointError, match=r"begin with encoders.*found conv1, layer1"):
        identify({"conv1.weight": torch.ones(1), "layer1.0.weight": torch.ones(1)})
    with pytest.raises(CheckpointError, match=r"like those of `flairhub train`"):
        identify({"model.rasters.spot_rgbi.network.conv1.weight": torch.ones(1)})
    with torch.device("meta"):
        unet = build("FLAIR1-UNET").state_dict()
    with pytest.raises(CheckpointError, match="encoder of the image is not resnet34"):
        identify({name: t for name, t in unet.items() if ".layer3.5." not in name})
    with pytest.raises(CheckpointError, match=r"has seg_model\.segmentation_head.*complete"):
        identify({name: t for name, t in unet.items() if "head" not in name})
    newer = {
        **alone,
        "main_decoders.AERIAL_LABEL-COSIA.seg_model.decoder.feature_norms.0.weight": torch.ones(40),
    }
    with pytest.raises(CheckpointError, match=r"since 0\.5.*neither can be converted"):
        identify(newer)
    with pytest.raises(CheckpointError, match="encoder of 'SONAR', which is no modality"):
        identify({name.replace("SPOT_RGBI", "SONAR"): t for name, t in alone.items()})
    other = {name.replace("stem_0", "stem"): t for name, t in alone.items()}
    with pytest.raises(CheckpointError, match="none of those that are told"):
        identify(other)
    assert same(load(alone, make(ALONE, seed=1)).model, alone)


# Our format


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    options = replace(FUSED, bands={"spot_rgbi": 4}, aux=("sentinel2_ts",))
    state = make(options).state_dict()
    bands = {"spot_rgbi": ("nir", "red", "green", "blue")}
    identity = identify(state).with_bands(bands)
    content = {f"model.{k}": t for k, t in state.items()} | {"criterion.x.weight": torch.ones(3)}
    saved = save(content, tmp_path / "mine.safetensors", identity, source="a test")
    assert set(load_file(saved.weights)) == set(state)
    model, report = load(saved.weights)
    assert same(model, state)
    assert isinstance(model, IgnNetwork)
    assert model.options == options
    assert report.notes == ()  # nothing had to be assumed
    with pytest.raises(WeightsError, match="found kernels for nir, red, green, blue"):
        load(saved.weights, make(options))  # whose four channels are red, green, blue, nir
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_items_describe_inputs_outputs_and_the_file(tmp_path: Path) -> None:
    state = make(FUSED).state_dict()
    saved = save(state, tmp_path / "mine.safetensors", identify(state), source="a test")
    item = pystac.Item.from_file(str(saved.item))
    core = item.to_dict(include_self_link=False) | {"stac_extensions": []}  # others lie on the web
    pystac.validation.validate_dict(core, pystac.STACObjectType.ITEM)
    model = MLMExtension.ext(item)
    assert [found.name for found in model.input] == ["spot_rgbi", "sentinel2_ts"]
    assert [(found.name, len(found.classes or ())) for found in model.output] == [("cosia", 19)]
    properties: dict[str, Any] = json.loads(saved.item.read_text("utf-8"))["properties"]
    image, series = properties["mlm:input"]
    assert image["input"] == {
        "shape": [-1, 3, 64, 64],
        "dim_order": ["batch", "bands", "height", "width"],
        "data_type": "float32",
    }
    assert image["bands"] == ["spot_rgbi/nir", "spot_rgbi/red", "spot_rgbi/green"]
    assert [s["type"] for s in image["value_scaling"]] == ["z-score"] * 3
    assert series["input"]["shape"] == [-1, -1, 10, 10, 10]
    described = {band["name"] for band in item.assets["model"].extra_fields["bands"]}
    assert described == {*image["bands"], *series["bands"]}
    (output,) = properties["mlm:output"]
    assert len(output["classification:classes"]) == 19
    assert output["classification:classes"][0]["color_hint"] == "DB0E9A"
    assert properties["mlm:total_parameters"] == sum(p.numel() for p in make(FUSED).parameters())
    asset = item.assets["model"]
    content = saved.weights.read_bytes()
    assert asset.extra_fields["file:size"] == len(content)
    assert asset.extra_fields["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.-]+[a-zA-Z0-9]", properties["mlm:name"])


@pytest.mark.parametrize(
    ("file", "name"), [("mine v2", "mine-v2"), ("1", "model-1"), ("a", "model-a"), ("é", "model-0")]
)
def test_weights_of_ones_own_are_called_as_their_file(
    tmp_path: Path, series: State, file: str, name: str
) -> None:
    saved = save(series, tmp_path / f"{file}.safetensors", identify(series))
    properties = json.loads(saved.item.read_text("utf-8"))["properties"]
    assert properties["mlm:name"] == name
    assert {"license", "mlm:pretrained"} & properties.keys() == set()


def test_baselines_are_saved_and_read_back(tmp_path: Path) -> None:
    options = FlairOptions(classes=19, metadata="own")
    state = make(options).state_dict()
    identity = identify(state)
    assert identity.id == "FLAIR1-UNET-MTD"
    assert identity.differences == (
        "19 classes of flair in place of 13",
        "metadata of the form own in place of ign",
    )
    saved = save(state, tmp_path / "unet.safetensors", identity)
    model, report = load(saved.weights)
    assert same(model, state)
    assert isinstance(model, FlairUnet)
    assert model.options == options
    assert len(report.loaded) == len(state)
    properties = json.loads(saved.item.read_text("utf-8"))["properties"]
    assert [one["name"] for one in properties["mlm:input"]] == ["flair_aerial", "metadata"]
    baseline = identify(build("FLAIR1-UNET").state_dict())
    saved = save(build("FLAIR1-UNET").state_dict(), tmp_path / "other.safetensors", baseline)
    (output,) = json.loads(saved.item.read_text("utf-8"))["properties"]["mlm:output"]
    names = [one["name"] for one in output["classification:classes"]]
    assert (len(names), names[0], names[-1]) == (13, "building", "other")


def test_what_does_not_fit_is_not_saved(tmp_path: Path, series: State) -> None:
    wrong = {**series, "more": torch.ones(1)}
    with pytest.raises(WeightsError, match="In the file alone: more"):
        save(wrong, tmp_path / "x.safetensors", identify(series))
    with pytest.raises(CheckpointError, match=r"must end in \.safetensors"):
        save(series, tmp_path / "x.pt", identify(series))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d | {"format": 2}, "of format 2; this flairhub reads up to 1"),
        (lambda d: d | {"options": {**d["options"], "wings": 2}}, "damaged.*wings"),
        (lambda d: {"format": 1}, "damaged"),
        (lambda d: d | {"bands": {"spot_rgbi": ["grue"]}}, "damaged.*grue"),
    ],
)
def test_damaged_headers_are_refused(
    tmp_path: Path, series: State, change: Callable[[dict[str, Any]], dict[str, Any]], expected: str
) -> None:
    saved = save(series, tmp_path / "x.safetensors", identify(series))
    with safe_open(saved.weights, "pt") as file:
        header = json.loads(file.metadata()["flairhub"])
    save_file(series, saved.weights, {"flairhub": json.dumps(change(header))})
    with pytest.raises(CheckpointError, match=expected):
        load(saved.weights)


def test_reference_keys_are_identified() -> None:
    for name in ("LC-A", "LC-F", "LC-G", "LC-L", "LPIS-J"):
        shapes = json.loads(shared(f"model/keys_{name}.json").read_text("utf-8"))
        state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
        found = identify(state)
        assert (found.id, found.differences) == (name, ())
