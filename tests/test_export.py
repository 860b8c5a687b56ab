"""Networks in the hands of other programs: any batch, series of any length, the same scores."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from flairhub.errors import ExportError
from flairhub.models import IgnNetwork, IgnOptions
from flairhub.models.export import Flat, difference, export_onnx, export_program
from flairhub.models.ign import swin

SWIN = "swin_tiny_patch4_window7_224"


@pytest.fixture(autouse=True)
def small_swin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the tiny Swin tinier."""
    monkeypatch.setitem(swin.SIZES, "tiny", swin.SwinSize(24, (2, 1, 1, 1), (1, 2, 4, 8)))


def made(*modalities: str, **changes: Any) -> IgnNetwork:  # noqa: ANN401
    torch.manual_seed(0)
    sizes = {key: 64 for key in modalities if not key.endswith("_ts")}
    values: dict[str, Any] = {"tasks": {"cosia": 19}, "sizes": sizes, "encoder": SWIN}
    return IgnNetwork(IgnOptions(modalities, **(values | changes)))


def case(name: str, *modalities: str, long: bool = True, **changes: Any) -> Any:  # noqa: ANN401
    marks = [pytest.mark.long] if long else []
    return pytest.param(modalities, changes, id=name, marks=marks)


UNET: dict[str, Any] = {"decoder": "unet", "tasks": {"cosia": 19, "lpis_1": 23}}
NETWORKS = [
    case("swin", "spot_rgbi", long=False),
    case("series", "sentinel2_ts", long=False),
    case("swin-fused", "spot_rgbi", "sentinel2_ts", "sentinel1_asc_ts"),
    case("resnet-unet", "aerial_rgbi", "spot_rgbi", encoder="resnet34", **UNET),
    case("convnext-unet", "aerial_rgbi", "dem_elev", encoder="convnextv2_atto", **UNET),
    case("two-series", "sentinel2_ts", "sentinel1_asc_ts", tasks={"cosia": 19, "lpis_1": 23}),
]


@pytest.mark.parametrize(("modalities", "changes"), NETWORKS)
def test_programs_and_onnx_give_the_scores_of_the_network(
    modalities: tuple[str, ...], changes: dict[str, Any], tmp_path: Path
) -> None:
    network = made(*modalities, **changes)
    size = (48, 80)
    program = export_program(network, size)
    flat = Flat(network, size).eval()
    for samples, dates in ((1, 2), (5, 9)):
        examples = flat.examples(samples, dates, seed=2)
        with torch.inference_mode():
            found, expected = (run(*examples.values()) for run in (program.module(), flat))
        assert len(found) == len(network.options.tasks)
        for one, other in zip(found, expected, strict=True):
            assert one.shape == (samples, one.shape[1], *size)
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    network.train()
    assert export_onnx(network, tmp_path / "model.onnx", size, program=program) < 5e-5
    assert network.training


def test_a_file_of_another_network_is_told_by_its_scores(tmp_path: Path) -> None:
    network = made("spot_rgbi", encoder="resnet18", decoder="linknet")
    with pytest.raises(ExportError, match="gives other scores than the network"):
        export_onnx(network, tmp_path / "model.onnx", tolerance=-1)
    assert difference(network, tmp_path / "model.onnx") < 5e-5
    bias = "main_decoders.AERIAL_LABEL-COSIA.seg_model.segmentation_head.0.bias"
    with torch.no_grad():
        network.get_parameter(bias).add_(1)
    assert difference(network, tmp_path / "model.onnx") > 0.1


def test_onnx_asks_for_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "flairhub.models.export.find_spec", lambda n: None if n == "onnxscript" else find(n)
    )
    with pytest.raises(ExportError, match=r"needs onnxscript: pip install 'flairhub\[export\]'"):
        export_onnx(made("spot_rgbi"), tmp_path / "model.onnx")
