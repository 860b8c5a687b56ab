"""Networks in the hands of other programs: any batch, series of any length, the same scores."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flairhub.errors import ExportError, UnknownNameError
from flairhub.models import IgnNetwork, IgnOptions, build
from flairhub.models.export import Flat, difference, export, export_program
from flairhub.models.ign import swin
from flairhub.models.ign.decoder import DECODERS
from flairhub.models.scores import Scores
from flairhub.models.signatures import Input, Signature, Sizes, signature_of
from tests.forms import FEW, own

SWIN = "swin_tiny_patch4_window7_224"
OUT = (48, 80)


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the tiny Swin tinier, and baselines of FLAIR#1 and FLAIR#2 too."""
    monkeypatch.setitem(swin.SIZES, "tiny", swin.SwinSize(24, (2, 1, 1, 1), (1, 2, 4, 8)))
    monkeypatch.setattr("flairhub.models.flair.unet.ENCODER", "resnet18")


def made(*modalities: str, **changes: Any) -> IgnNetwork:  # noqa: ANN401
    torch.manual_seed(0)
    sizes = {key: 64 for key in modalities if not key.endswith("_ts")}
    values: dict[str, Any] = {"tasks": {"cosia": 19}, "sizes": sizes, "encoder": SWIN}
    return IgnNetwork(IgnOptions(modalities, **(values | changes)))


def baseline(name: str, **changes: Any) -> nn.Module:  # noqa: ANN401
    torch.manual_seed(0)
    network: nn.Module = build(name, **changes)
    return network


def case(name: str, make: Callable[[], nn.Module], *, long: bool = True, **sizes: Any) -> Any:  # noqa: ANN401
    return pytest.param(make, sizes, id=name, marks=[pytest.mark.long] if long else [])


LAND_AND_CROPS = {"cosia": 19, "lpis_1": 23}
UNET: dict[str, Any] = {"decoder": "unet", "tasks": LAND_AND_CROPS}
GROUND = {"spot_rgbi": (32, 64), "sentinel2_ts": (5, 10), "sentinel2_msk_sc": (5, 10)}
NETWORKS = [
    case("swin", partial(made, "spot_rgbi"), long=False),
    case("series", partial(made, "sentinel2_ts"), long=False),
    case("swin-fused", partial(made, "spot_rgbi", "sentinel2_ts", "sentinel1_asc_ts")),
    case("resnet-unet", partial(made, "aerial_rgbi", "spot_rgbi", encoder="resnet34", **UNET)),
    case("convnext-unet",
         partial(made, "aerial_rgbi", "dem_elev", encoder="convnextv2_atto", **UNET)),
    case("two-series",
         partial(made, "sentinel2_ts", "sentinel1_asc_ts", tasks=LAND_AND_CROPS)),
    *(case(name, partial(made, "spot_rgbi", encoder="resnet18", decoder=name,
                         sizes={"spot_rgbi": 256 if name == "pan" else 64}))  # it pools the 1/32
      for name in DECODERS if name != "unet"),
    case("own", partial(own, *FEW, encoder="resnet10t", auxiliary=0.4,
                        modality_dropout={"spot_rgbi": 0.2, "sentinel2_ts": 0.3}),
         long=False, **GROUND),
    case("own-utae-upernet", partial(own, "spot_rgbi", "sentinel2_ts", "sentinel1_asc_ts",
                                     series_encoder="utae", decoder="upernet")),
    case("own-series-alone", partial(own, "sentinel2_ts", "sentinel2_msk_sc")),
    case("FLAIR1-UNET", partial(baseline, "FLAIR1-UNET"), flair_aerial=(64, 96)),
    case("FLAIR1-UNET-MTD", partial(baseline, "FLAIR1-UNET-MTD"), flair_aerial=(80, 64)),
    case("FLAIR2-UTT", partial(baseline, "FLAIR2-UTT"), long=False,
         flair_aerial=(64, 96), flair_sentinel2_ts=(16, 24)),
    case("FLAIR2-UTT-metadata", partial(baseline, "FLAIR2-UTT", metadata="own", classes=19),
         flair_aerial=(64, 64), flair_sentinel2_ts=(16, 16)),
]  # fmt: skip


@pytest.mark.parametrize(("make", "sizes"), NETWORKS)
def test_programs_and_onnx_give_the_scores_of_the_network(
    make: Callable[[], nn.Module], sizes: Sizes, tmp_path: Path
) -> None:
    network = make().eval()
    signature = signature_of(network, OUT, sizes)
    program = export_program(network, signature)
    flat = Flat(network, signature)
    for samples, dates in ((1, 2), (5, 9)):
        examples = signature.examples(samples, dates, seed=2)
        with torch.inference_mode():
            found = program.module()(*examples.values())
        assert len(found) == len(signature.outputs)
        for one, other in zip(found, flat.run(examples), strict=True):
            assert one.shape == (samples, one.shape[1], *OUT)
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    network.train()
    assert export(network, tmp_path / "model.onnx", signature, program=program).difference < 5e-5
    assert network.training


def test_files_of_programs_are_read_back(tmp_path: Path) -> None:
    network = own("spot_rgbi")
    path = tmp_path / "new" / "model.pt2"
    assert export(network, path).difference < 1e-6
    with torch.no_grad():
        next(network.heads.children()).get_parameter("bias").add_(1)
    assert difference(network, path) > 0.1


def test_a_file_of_another_network_is_told_by_its_scores(tmp_path: Path) -> None:
    network = made("spot_rgbi", encoder="resnet18", decoder="linknet")
    with pytest.raises(ExportError, match="gives other scores than the network"):
        export(network, tmp_path / "model.onnx", tolerance=-1)
    assert difference(network, tmp_path / "model.onnx") < 5e-5
    bias = "main_decoders.AERIAL_LABEL-COSIA.seg_model.segmentation_head.0.bias"
    with torch.no_grad():
        network.get_parameter(bias).add_(1)
    assert difference(network, tmp_path / "model.onnx") > 0.1


# What a network takes


def test_signatures_say_what_forward_takes() -> None:
    assert list(map(str, signature_of(own(*FEW)).inputs)) == [
        "spot_rgbi (samples, 4, 64, 64) float32",
        "sentinel2_ts (samples, dates_sentinel2_ts, 10, 10, 10) float32",
        "sentinel2_msk_sc (samples, dates_sentinel2_ts, 2, 10, 10) float32",
        "sentinel2_ts_days (samples, dates_sentinel2_ts) int64",
        "sentinel2_ts_lengths (samples) int64",
        "spot_rgbi_present (samples) bool",
    ]
    with torch.device("meta"):
        told, utt = build("FLAIR1-UNET-MTD"), build("FLAIR2-UTT")
    assert [one.name for one in signature_of(told).inputs] == ["flair_aerial", "metadata"]
    assert [one.axes[-1] for one in signature_of(utt).inputs[:2]] == [512, 40]
    assert signature_of(utt).open_axes == ("samples", "dates_flair_sentinel2_ts")
    network = made("spot_rgbi", "sentinel2_ts", encoder="convnextv2_atto")
    names = [one.name for one in signature_of(network).inputs]
    assert names == ["spot_rgbi", "sentinel2_ts", "sentinel2_ts_days"]
    with pytest.raises(UnknownNameError, match="'spot_rgb', which is no input"):
        signature_of(network, sizes={"spot_rgb": (9, 9)})


def test_examples_have_padding_and_gaps() -> None:
    examples = signature_of(own(*FEW)).examples(samples=5, dates=3, seed=1)
    lengths = examples["sentinel2_ts_lengths"]
    assert lengths[0] == 3
    assert 0 <= int(lengths.min()) < 3
    assert examples["spot_rgbi_present"][0]
    assert not examples["spot_rgbi_present"].all()
    padded = signature_of(made("sentinel2_ts")).examples()
    assert not padded["sentinel2_ts"][0, -1].any()
    assert padded["sentinel2_ts"][:, :-1].any()


class Brightness(nn.Module):
    """A network of somebody else."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Conv2d(1, 2, 1)

    def forward(self, inputs: dict[str, Tensor]) -> Scores:
        """Classify how bright a date is."""
        return Scores({"mine": self.classify(inputs["grey"].mean(1, keepdim=True))}, {})


def test_other_networks_are_written_once_they_say_what_they_take(tmp_path: Path) -> None:
    network = Brightness()
    with pytest.raises(ExportError, match=r"what a Brightness takes; known are .*TextureTime"):
        export_program(network)
    signature = Signature((Input("inputs", "grey", ("samples", "dates", 8, 8)),), ("mine",))
    assert export(network, tmp_path / "bright.pt2", signature).difference < 1e-6


def test_files_that_cannot_be_written_are_told_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    network = made("spot_rgbi")
    with pytest.raises(ExportError, match=r"must end in \.onnx or \.pt2"):
        export(network, tmp_path / "model.tflite")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "flairhub.models.export.find_spec", lambda n: None if n == "onnxscript" else find(n)
    )
    with pytest.raises(ExportError, match=r"needs onnxscript: pip install 'flairhub\[export\]'"):
        export(network, tmp_path / "model.onnx")
