"""IGN's network beyond the published models: other parts, other sizes, and nothing done in vain."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from benchmarks.straightforward import Straightforward
from flairhub.modalities import MODALITIES
from flairhub.models import IgnNetwork
from flairhub.models.ign import swin
from flairhub.models.ign.decoder import DECODERS
from flairhub.models.ign.encoder import ENCODERS, MonoEncoder
from flairhub.models.ign.fusion import FUSIONS
from flairhub.models.ign.options import fitted_widths
from tests.ign_networks import TINY, arguments, made, options

SPOT_AND_SERIES = ("spot_rgbi", "sentinel2_ts", "sentinel1_asc_ts")


@pytest.fixture
def small_swin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the tiny Swin tinier."""
    monkeypatch.setitem(swin.SIZES, "tiny", swin.SwinSize(24, (2, 1, 1, 2), (1, 2, 4, 8)))


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [
        (TINY, "upernet"),
        (TINY, "unet"),
        ("convnextv2_atto", "fpn"),
        ("convnextv2_atto", "segformer"),
        ("resnet34", "upernet"),
        ("resnet34", "unet"),
        ("resnet18", "unetplusplus"),
        ("resnet18", "manet"),
        ("resnet18", "linknet"),
        ("resnet18", "pan"),
        ("resnet18", "pspnet"),
        ("mobilenetv3_small_050", "upernet"),
        ("mit_b0", "upernet"),
    ],
)
@pytest.mark.usefixtures("small_swin")
def test_encoders_and_decoders_fit_each_other(encoder: str, decoder: str) -> None:
    sizes = {"spot_rgbi": 256 if decoder == "pan" else 64}  # it pools 1/32 three times
    given = options("spot_rgbi", "sentinel2_ts", encoder=encoder, decoder=decoder, sizes=sizes)
    network = made(given)
    with torch.inference_mode():
        found = network(*arguments(network), size=(48, 80)).main["cosia"]
    assert found.shape == (2, 19, 48, 80)
    assert found.isfinite().all()


@pytest.mark.parametrize(
    "encoder",
    [
        TINY,
        "swin_small_patch4_window7_224",
        "swin_base_patch4_window12_384.ms_in22k",
        "swin_large_patch4_window12_384",
        *(f"convnextv2_{size}" for size in ("nano", "tiny", "base", "large")),
        "resnet34",
    ],
)
def test_every_encoder_of_ign_has_the_names_of_its_library(encoder: str) -> None:
    with torch.device("meta"):
        network = MonoEncoder(encoder, 3, (512, 512))
        if encoder == "resnet34":
            expected = timm.create_model(encoder).state_dict()
            found = network.seg_model.state_dict()
            theirs = {k: v.shape for k, v in expected.items() if not k.startswith("fc.")}
        else:
            options: dict[str, Any] = {} if "convnext" in encoder else {"img_size": 512}
            found = network.seg_model.get_submodule("model").state_dict()
            whole = timm.create_model(encoder, features_only=True, **options)
            theirs = {k: v.shape for k, v in whole.state_dict().items()}
    assert {k: v.shape for k, v in found.items()} == theirs


@pytest.mark.parametrize("image", [(64, 64), (96, 160)])
def test_swin_gives_the_numbers_and_gradients_of_timm(image: tuple[int, int]) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(TINY, features_only=True, img_size=image, in_chans=3).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.05)
    ours = swin.Swin(TINY, 3, image).eval()
    ours.load_state_dict(theirs.state_dict())
    pixels = torch.randn(2, 3, *image)
    expected = [maps.permute(0, 3, 1, 2) for maps in theirs(pixels)]
    with torch.no_grad():
        for one, other in zip(ours(pixels), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    pixels, _, _ = pixels.double(), ours.double(), theirs.double()
    expected = [maps.permute(0, 3, 1, 2) for maps in theirs(pixels)]
    found = ours(pixels)
    upstream = [torch.randn_like(maps) for maps in found]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    torch.autograd.backward(expected, upstream)
    torch.autograd.backward(found, upstream)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert other.grad is not None
        scale = float(other.grad.abs().max())
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-10 * scale, msg=name)


@pytest.mark.usefixtures("small_swin")
def test_swin_takes_other_sizes_than_it_was_made_for() -> None:
    torch.manual_seed(0)
    made_for, given = swin.Swin(TINY, 3, (256, 256)).eval(), swin.Swin(TINY, 3, (288, 352)).eval()
    given.load_state_dict(made_for.state_dict())
    pixels = torch.randn(1, 3, 288, 352)
    with torch.inference_mode():
        for one, other in zip(made_for(pixels), given(pixels), strict=True):
            torch.testing.assert_close(one, other)


def peer_of(network: IgnNetwork) -> Straightforward:
    """Return the network as its description reads, with the same weights."""
    given, names = network.options, {k: m.source_name for k, m in MODALITIES.items()}
    peer = Straightforward(
        {names[k]: (given.bands_of(k), given.size_of(k)) for k in given.images},
        {names[k]: given.bands_of(k) for k in given.series},
        "AERIAL_LABEL-COSIA",
        given.classes,
        given.encoder,
        aux=bool(given.aux),
    ).eval()
    peer.load_state_dict(network.state_dict())
    return peer


@pytest.mark.parametrize(
    "modalities",
    [
        ("spot_rgbi",),
        ("sentinel2_ts",),
        ("sentinel2_ts", "sentinel1_asc_ts"),
        ("aerial_rgbi", "spot_rgbi", "sentinel2_ts", "sentinel1_desc_ts"),
    ],
)
def test_numbers_and_gradients_are_those_of_the_description(modalities: Sequence[str]) -> None:
    network = made(options(*modalities, aux=tuple(modalities))).double()
    peer, (inputs, days) = peer_of(network).double(), arguments(network)
    inputs, days = ({k: v.double() for k, v in of.items()} for of in (inputs, days))
    found = network(inputs, days, (96, 96), aux=True)
    named = [{MODALITIES[k].source_name: v for k, v in of.items()} for of in (inputs, days)]
    expected, expected_aux = peer(*named, 96)
    ours, theirs = [found.main["cosia"]], [expected]
    for key, scores in found.aux.items():
        name = MODALITIES[key.removesuffix("/cosia")].source_name
        ours.append(scores)
        theirs.append(expected_aux[f"{name}__AERIAL_LABEL-COSIA"])
    upstream = [torch.randn_like(expected) for _ in ours]
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    torch.autograd.backward(ours, upstream)
    torch.autograd.backward(theirs, upstream)
    gradients = {name: p.grad for name, p in peer.named_parameters()}
    for name, parameter in network.named_parameters():
        one, other = (
            g if g is not None else torch.zeros(()) for g in (parameter.grad, gradients[name])
        )
        torch.testing.assert_close(
            one.abs().max(), other.abs().max(), rtol=1e-6, atol=1e-9, msg=name
        )
        if one.any():
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9, msg=name)


def calls(network: IgnNetwork, **call: Any) -> Counter[str]:  # noqa: ANN401
    """Return how often each module ran in one call."""
    found: Counter[str] = Counter()
    for name, module in network.named_modules():
        if any(True for _ in module.parameters()):
            module.register_forward_hook(lambda *_, name=name: found.update([name]))
    with torch.inference_mode():
        network(*arguments(network), **call)
    return found


@pytest.mark.usefixtures("small_swin")
def test_nothing_is_computed_in_vain() -> None:
    network = made(options(*SPOT_AND_SERIES, aux=SPOT_AND_SERIES))
    found = calls(network)
    assert max(found.values()) == 1  # no pass only to learn a shape
    assert not any(re.search(r"aux_decoders|SENTINEL.*out_conv|fpn_stages\.4", n) for n in found)
    with_aux = calls(made(network.options), aux=True)
    assert sum(name.endswith("COSIA") for name in with_aux) == 4
    assert with_aux["encoders.SENTINEL2_TS.out_conv"] == 1
    alone = calls(made(options("spot_rgbi")))
    assert not any(name.startswith("fusion_handler") for name in alone)


def test_padding_costs_nothing() -> None:
    network = made(options("sentinel2_ts"))
    (inputs, days), seen = arguments(network), []
    inputs["sentinel2_ts"][1, 1:] = 0
    encoder = network.encoders["SENTINEL2_TS"].get_submodule("in_conv")
    encoder.register_forward_hook(lambda _m, given, _o: seen.append(len(given[0])))
    with torch.inference_mode():
        network(inputs, days)
    assert seen == [3 + 1]


def test_what_a_lone_image_or_a_series_beside_images_leaves_idle_is_known() -> None:
    network = made(options("spot_rgbi", "sentinel2_ts", aux=("sentinel2_ts",)))
    network(*arguments(network), aux=False).main["cosia"].mean().backward()
    idle = {
        re.sub(r"(fpn_stages\.4|out_conv|aux_decoders).*", r"\1", name)
        for name, parameter in network.named_parameters()
        if parameter.grad is None
    }
    assert idle == {
        "aux_decoders",
        "main_decoders.AERIAL_LABEL-COSIA.seg_model.decoder.fpn_stages.4",
        "encoders.SENTINEL2_TS.out_conv",
    }


@pytest.mark.usefixtures("small_swin")
@pytest.mark.parametrize("training", [False, True])
def test_the_forward_pass_compiles_as_one_graph(training: bool) -> None:
    given = options("spot_rgbi", "sentinel2_ts", aux=("spot_rgbi", "sentinel2_ts"))
    network = made(given).train(training)
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    found = compiled(*arguments(network))
    if training:  # chance and norms over few numbers: only that gradients come through
        found.main["cosia"].mean().backward()
        first = network.get_parameter("encoders.SPOT_RGBI.seg_model.model.patch_embed.proj.weight")
        assert first.grad is not None
        assert first.grad.any()
    else:
        expected = network(*arguments(network))
        torch.testing.assert_close(found.main, expected.main, rtol=1e-4, atol=1e-5)
    assert found.aux.keys() == ({"spot_rgbi/cosia", "sentinel2_ts/cosia"} if training else set())


@pytest.mark.usefixtures("small_swin")
@pytest.mark.parametrize("encoder", [TINY, "convnextv2_atto"])
def test_checkpointing_keeps_less_and_changes_nothing(encoder: str) -> None:
    results, kept = [], []
    for checkpointing in (False, True):
        network = made(
            options("spot_rgbi", "sentinel2_ts", encoder=encoder, checkpointing=checkpointing)
        )
        network.train()
        saved: dict[int, int] = {}

        def pack(tensor: Tensor, saved: dict[int, int] = saved) -> Tensor:
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = network(*arguments(network)).main["cosia"].square().mean()
        loss.backward()
        kept.append(sum(saved.values()))
        results.append(
            {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        )
    assert kept[1] < 0.8 * kept[0]
    assert results[0].keys() == results[1].keys()
    for name, gradient in results[0].items():
        torch.testing.assert_close(gradient, results[1][name], msg=name)


@pytest.mark.usefixtures("small_swin")
def test_tasks_have_heads_of_their_own() -> None:
    for modalities in (("spot_rgbi", "sentinel2_ts"), ("sentinel2_ts", "sentinel1_asc_ts")):
        network = made(options(*modalities, tasks={"cosia": 19, "lpis_1": 23, "ours": 3}))
        assert set(network.main_decoders) == {"AERIAL_LABEL-COSIA", "ALL_LABEL-LPIS", "ours"}
        with torch.inference_mode():
            found = network(*arguments(network)).main
        assert {key: scores.shape[1] for key, scores in found.items()} == network.options.tasks
        assert found["cosia"].shape[-2:] == ((64, 64) if network.reference else (10, 10))


def test_widths_of_series_follow_the_levels_of_images() -> None:
    assert fitted_widths((64, 64, 64, 128), 4) == (64, 64, 128, 128)
    assert fitted_widths((64, 64, 64, 128), 6) == (64, 64, 64, 128, 128, 128)
    with torch.device("meta"):
        network = IgnNetwork(options("aerial_rgbi", "sentinel2_ts", encoder="resnet34"))
    convolutions: Any = network.fusion_handler.conv_f
    shapes = [tuple(conv.weight.shape[:2]) for conv in convolutions]
    image, series = (3, 64, 64, 128, 256, 512), (128, 128, 128, 64, 64, 64)
    assert shapes == [(n, n + m) for n, m in zip(image, series, strict=True)]
    half = network.state_dict()[
        "main_decoders.AERIAL_LABEL-COSIA.seg_model.decoder.fpn_stages.3.skip_conv.0.weight"
    ]
    assert half.shape == (256, 64, 1, 1)


def test_names_of_the_unet_are_those_of_the_weights() -> None:
    with torch.device("meta"):
        network = IgnNetwork(options("aerial_rgbi", decoder="unet"))
    decoder = network.main_decoders["AERIAL_LABEL-COSIA"].state_dict()
    expected = {"seg_model.segmentation_head.0.weight": (19, 16, 3, 3)}
    widths = zip((768 + 384, 256 + 192, 128 + 96, 64, 32), (256, 128, 64, 32, 16), strict=True)
    for i, (before, after) in enumerate(widths):
        for conv, channels in ((1, before), (2, after)):
            expected[f"seg_model.decoder.blocks.{i}.conv{conv}.0.weight"] = (after, channels, 3, 3)
    assert {k: tuple(v.shape) for k, v in decoder.items() if v.dim() == 4} == expected


class Halves(nn.Module):
    """An encoder of one's own: five strided convolutions."""

    def __init__(self, name: str, bands: int, image: tuple[int, int], pretrained: bool) -> None:
        super().__init__()
        self.out_channels = (8, 8, 16, 16, 32)
        widths = zip((bands, *self.out_channels), self.out_channels, strict=False)
        self.steps = nn.ModuleList(nn.Conv2d(*pair, 3, 2, 1) for pair in widths)

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = [image]
        for step in self.steps:
            maps.append(step(maps[-1]).relu())
        return maps[1:]


class First(nn.Module):
    """A fusion of one's own: the reference alone."""

    def __init__(self, channels: Mapping[str, Sequence[int]], reference: str | None) -> None:
        super().__init__()
        self.reference = reference or ""

    def forward(self, maps: Mapping[str, Sequence[Tensor]]) -> list[Tensor]:
        return list(maps[self.reference])


class Linear(nn.Module):
    """A decoder of one's own: one convolution of the finest map."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(channels[0], classes, 1)

    def forward(self, maps: Sequence[Tensor], image: tuple[int, int]) -> Tensor:
        found: Tensor = self.head(maps[0])
        return found


def test_parts_of_one_s_own_take_a_class_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODERS, "halves", Halves)
    monkeypatch.setitem(FUSIONS, "first", First)
    monkeypatch.setitem(DECODERS, "linear", Linear)
    mine = options("spot_rgbi", "sentinel2_ts", encoder="halves", fusion="first", decoder="linear")
    network = made(mine)
    assert network(*arguments(network)).main["cosia"].shape == (2, 19, 64, 64)


@pytest.mark.usefixtures("small_swin")
@pytest.mark.parametrize("exact_days", [True, False])
@pytest.mark.parametrize("kind", [torch.half, torch.bfloat16, torch.double])
def test_networks_work_in_other_types_of_numbers(kind: torch.dtype, exact_days: bool) -> None:
    network = made(options("spot_rgbi", "sentinel2_ts"))
    inputs, days = arguments(network)
    expected = network(inputs, days).main["cosia"]
    inputs = {key: value.to(kind) for key, value in inputs.items()}
    if not exact_days:  # whole numbers that all types hold
        days = {key: value.clamp(-128, 128).to(kind) for key, value in days.items()}
        expected = network.float()(*({k: v.float() for k, v in of.items()}
                                     for of in (inputs, days))).main["cosia"]  # fmt: skip
    with torch.inference_mode():
        found = network.to(kind)(inputs, days).main["cosia"]
    assert found.dtype == kind
    error = (found.float() - expected).abs().max() / expected.abs().max()
    assert error < {torch.half: 0.02, torch.bfloat16: 0.15, torch.double: 1e-4}[kind]
