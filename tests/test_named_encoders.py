"""Encoders that weights do not tell: named by the user, or known to the module itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from flairhub.cli import run
from flairhub.errors import CheckpointError, ConfigError
from flairhub.models import IgnNetwork, IgnOptions, build, identify, load
from flairhub.models.opening import open_model
from tests.networks import State, make, same

NAME = "mobilenetv3_small_050"
MOBILE = IgnOptions(("spot_rgbi",), {"cosia": 19}, encoder=NAME, decoder="fpn")
SWIN_V2 = IgnOptions(
    ("aerial_rgbi",), {"cosia": 19}, encoder="swinv2_tiny_window8_256",
    decoder="fpn", sizes={"aerial_rgbi": 64},
)  # fmt: skip


@pytest.fixture(scope="module")
def mobile() -> State:
    torch.manual_seed(0)
    return build(MOBILE).state_dict()  # of usual values: it is called


@pytest.fixture
def file(mobile: State, tmp_path: Path) -> str:
    torch.save(mobile, tmp_path / "mobile.pt")
    return str(tmp_path / "mobile.pt")


def test_load_takes_the_encoder(mobile: State, file: str) -> None:
    with pytest.raises(CheckpointError, match=r"Say which it is"):
        load(file)
    for source in (mobile, file):
        model = load(source, encoder=NAME).model
        assert isinstance(model, IgnNetwork)
        assert model.options == MOBILE
        assert same(model, mobile)
    with pytest.raises(CheckpointError, match="encoder is no resnet18"):
        load(file, encoder="resnet18")


def test_commands_take_the_encoder(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "show", file]) == 1
    assert "--encoder NAME" in capsys.readouterr().err
    assert run(["models", "show", file, "--encoder", NAME, "--json", "--depth=1"]) == 0
    assert json.loads(capsys.readouterr().out)["network"]["kind"] == "IgnNetwork"
    out = Path(file).with_suffix(".pt2")
    export = ["models", "export", file, f"--out={out}", "--size=64", "--json"]
    assert run([*export, "--encoder", NAME]) == 0
    assert out.stat().st_size == json.loads(capsys.readouterr().out)["bytes"]
    assert run(["models", "show", "LC-I", "--encoder=resnet18", "--json", "--depth=0"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["network"]["parameters"] < content["parameters"]["all_no_aux"] / 4


def test_what_tells_its_encoder_takes_no_other(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    data = {"root": ".", "modalities": ["spot_rgbi"], "labels": ["cosia"], "window_m": 51.2}
    config.write_text(json.dumps({"data": data, "model": {"encoder": "resnet10t"}}))
    import flairhub.training  # noqa: F401 - registers what opens configurations

    assert open_model(str(config)).network is not None
    with pytest.raises(ConfigError, match="tells its encoder"):
        open_model(str(config), encoder=NAME)


def test_swin_v2_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has no table of biases to tell windows from."""
    state = make(SWIN_V2).state_dict()
    model = make(SWIN_V2, seed=1)
    report = load(state, model).report
    assert len(report.loaded) == len(state)
    assert same(model, state)
    with pytest.raises(CheckpointError, match="none of those that are told"):
        identify(state)
    file = tmp_path / "v2.pt"
    torch.save(state, file)
    assert run(["models", "import", str(file)]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert run(["models", "import", str(file), "--json", f"--encoder={SWIN_V2.encoder}"]) == 0
    assert json.loads(capsys.readouterr().out)["encoder"] == SWIN_V2.encoder


def test_what_is_no_file_and_no_id_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", "show", str(tmp_path / "none.pt")]) == 1
    assert "There is no file" in capsys.readouterr().err
    assert run(["models", "show", "hf://nobody"]) == 1
    assert "no address on the hub" in capsys.readouterr().err


def test_mix_transformers_are_told_and_take_no_memory() -> None:
    """Their library computes on tensors while it builds them, which the device meta cannot."""
    options = IgnOptions(("spot_rgbi",), {"cosia": 19}, encoder="mit_b1", decoder="segformer")
    with torch.device("meta"):
        state = build(options).state_dict()
    assert {tensor.device.type for tensor in state.values()} == {"meta"}
    assert identify(state).options == options
