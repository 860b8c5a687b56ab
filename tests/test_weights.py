"""Weights into models: every form of file, every rule, and nothing without a reason."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pystac
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flairhub.errors import CheckpointError, UnknownNameError
from flairhub.models import IgnNetwork, IgnOptions, build, identify, load, save
from flairhub.models.adapt import rearrange_bands, resize_window
from flairhub.models.identity import Identity
from flairhub.models.weights import WeightsError
from tests.test_zoo import shared

State = dict[str, Tensor]
FUSED = IgnOptions(("spot_rgbi", "sentinel2_ts"), {"cosia": 19}, encoder="convnextv2_atto")
SERIES = IgnOptions(("sentinel2_ts",), {"cosia": 19})
SWIN = IgnOptions(("spot_rgbi",), {"cosia": 19}, encoder="swin_tiny_patch4_window7_224")
ALONE = IgnOptions(("spot_rgbi",), {"cosia": 19}, encoder="convnextv2_atto")
FIRST = "encoders.SPOT_RGBI.seg_model.model.stem_0.weight"
DEEP = "encoders.SENTINEL2_TS.in_conv.conv.conv.0.weight"
HEAD = "main_decoders.AERIAL_LABEL-COSIA.seg_model.segmentation_head.0"


def make(options: IgnOptions, seed: int = 0) -> IgnNetwork:
    """Build a network of which no tensor has its usual value."""
    torch.manual_seed(seed)
    model = build(options).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return model


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


def same(model: nn.Module, state: State) -> bool:
    found = model.state_dict()
    return found.keys() == state.keys() and all(torch.equal(found[k], state[k]) for k in state)


# The forms of files


def as_safetensors(state: State, path: Path) -> None:
    save_file(state, path)


def as_state_dict(state: State, path: Path) -> None:
    torch.save(state, path)


def as_lightning(state: State, path: Path) -> None:
    torch.save(
        {
            "state_dict": state,
            "pytorch-lightning_version": "2.6.6",
            "epoch": 3,
            "hyper_parameters": {"learning_rate": 5e-5},
            "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}}],
        },
        path,
    )


@pytest.mark.parametrize("prefix", ["", "model.", "model._orig_mod.", "module."])
@pytest.mark.parametrize("write", [as_safetensors, as_state_dict, as_lightning])
def test_every_form_of_file_loads(
    tmp_path: Path, series: State, write: Callable[[State, Path], None], prefix: str
) -> None:
    file = tmp_path / "weights.bin"  # its ending says nothing
    content = {prefix + name: tensor for name, tensor in series.items()}
    if prefix:
        content["criterion.AERIAL_LABEL-COSIA.weight"] = torch.ones(19)
        content["criterion.aux_SPOT_RGBI_AERIAL_LABEL-COSIA.weight"] = torch.ones(19)
    write(content, file)
    model, report = load(file)
    assert same(model, series)
    assert not model.training
    assert len(report.loaded) == len(series)
    assert report.prefix == prefix
    assert {**report.adapted, **report.fresh} == {}
    assert set(report.left_over) == {n for n in content if n.startswith("criterion.")}


def test_a_module_with_a_prefix_of_its_own_takes_bare_weights(series: State) -> None:
    wrapped = nn.Module()
    wrapped.model = make(SERIES, seed=1)
    report = load(series, wrapped).report
    assert same(wrapped.model, series)
    assert len(report.loaded) == len(series)


def test_half_precision_is_widened_and_told(series: State) -> None:
    half = {k: t.half() if t.is_floating_point() else t for k, t in series.items()}
    model, report = load(half)
    assert model.state_dict()[DEEP].dtype == torch.float32
    assert torch.equal(model.state_dict()[DEEP], half[DEEP].float())
    assert report.converted == {
        "float16 to float32": sum(t.is_floating_point() for t in series.values())
    }


class Odd:
    """Something that a pickle can hold."""


def test_a_pickle_with_objects_is_refused(tmp_path: Path, series: State) -> None:
    file = tmp_path / "odd.ckpt"
    torch.save({"state_dict": series, "hyper_parameters": {"config": Odd()}}, file)
    with pytest.raises(CheckpointError, match=r"tests\.test_weights\.Odd.*write the tensors alone"):
        load(file)


class Trap:
    """What runs code when a careless loader reads it."""

    ran = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (setattr, (Trap, "ran", True))


def test_nothing_in_a_pickle_runs(tmp_path: Path) -> None:
    file = tmp_path / "trap.pt"
    torch.save({"a": Trap()}, file)
    with pytest.raises(CheckpointError, match="only code in the file could rebuild"):
        load(file)
    assert not Trap.ran
    torch.load(file, weights_only=False)  # the trap does work
    assert Trap.ran


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "pointer of Git LFS"),
        (b"GIF89a......", "begins with b'GIF89a"),
        (b"PK\x03\x04 no zip", "damaged"),
        (b"\x80\x02 no pickle at all", "only code|damaged"),
        (b"\x10\0\0\0\0\0\0\0{no json", "is damaged"),
    ],
)
def test_other_files_are_named_for_what_they_are(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=expected):
        load(file)


@pytest.mark.parametrize("share", [0.3, 0.999])
@pytest.mark.parametrize("write", [as_safetensors, as_state_dict])
def test_cut_off_files_are_refused(
    tmp_path: Path, alone: State, write: Callable[[State, Path], None], share: float
) -> None:
    file = tmp_path / "cut"
    write(alone, file)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match="damaged"):
        load(file)


def test_safetensors_that_begin_like_a_pickle(tmp_path: Path) -> None:
    """The first byte is the low one of the header's length: 0x80 for one in 32 files."""
    file = tmp_path / "weights.safetensors"
    state = make(SERIES).state_dict()
    for more in range(0, 256, 8):
        save_file(state, file, {"note": "x" * more})
        if file.read_bytes()[:1] == b"\x80":
            break
    assert file.read_bytes()[:1] == b"\x80"
    assert same(load(file).model, state)


def test_missing_files_and_unknown_ids_differ(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no file .*none\.ckpt"):
        load(str(tmp_path / "none.ckpt"))
    with pytest.raises(CheckpointError, match="No such file"):
        load(tmp_path / "none.ckpt")
    with pytest.raises(UnknownNameError, match="Did you mean 'LC-A'"):
        load("LC-AA")


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {"state_dict": {}}, {"model": {"a": 1}}])
def test_what_is_no_state_dict_is_told(tmp_path: Path, content: object) -> None:
    file = tmp_path / "x.pt"
    torch.save(content, file)
    with pytest.raises(CheckpointError, match="expected tensors by name"):
        load(file)


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


def test_where_no_band_is_known_a_grey_image_answers_as_before() -> None:
    kernels = torch.rand(8, 3, 4, 4)
    found = rearrange_bands(kernels, ("red", "green", "blue"), ("pan", "nir"))
    grey = torch.rand(1, 1, 8, 8)
    before = nn.functional.conv2d(grey.expand(1, 3, 8, 8), kernels)
    assert torch.allclose(before, nn.functional.conv2d(grey.expand(1, 2, 8, 8), found), atol=1e-5)


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
    ],
)  # fmt: skip
def test_names_and_shapes_tell_the_options(options: IgnOptions) -> None:
    with torch.device("meta"):
        state = build(options).state_dict()
    assert identify({f"model.{name}": t for name, t in state.items()}).options == options


@pytest.mark.parametrize("name", ["LC-A", "LC-I", "LC-G", "LPIS-J"])
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
    newer = {
        **alone,
        "main_decoders.AERIAL_LABEL-COSIA.seg_model.decoder.feature_norms.0.weight": torch.ones(40),
    }
    with pytest.raises(CheckpointError, match=r"since 0\.5.*neither can be converted"):
        identify(newer)
    with pytest.raises(CheckpointError, match="encoder of 'SONAR', which is no modality"):
        identify({name.replace("SPOT_RGBI", "SONAR"): t for name, t in alone.items()})
    other = {name.replace("stem_0", "stem"): t for name, t in alone.items()}
    with pytest.raises(CheckpointError, match="none of the known ones"):
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
    described = {band["name"] for band in properties["bands"]}
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


# The reference models


@pytest.mark.parametrize("name", ["fused-aerial-s2", "s2-only", "swin-spot-s2-aux"])
def test_the_reference_weights_load_without_a_remark(name: str) -> None:
    file = shared(f"model/oracle/{name}.safetensors")
    model, report = load(file)
    assert len(report.loaded) == len(model.state_dict()) == len(load_file(file))
    assert {**report.adapted, **report.fresh, **report.left_over} == {}
    assert isinstance(model, IgnNetwork)


def test_reference_keys_are_identified() -> None:
    for name in ("LC-A", "LC-F", "LC-G", "LC-L", "LPIS-J"):
        shapes = json.loads(shared(f"model/keys_{name}.json").read_text("utf-8"))
        state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
        found: Identity = identify(state)
        assert (found.id, found.differences) == (name, ())
