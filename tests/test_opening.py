"""What `flairhub train` leaves behind, in the commands ``flairhub models show`` and ``export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from flairhub.cli import run
from flairhub.config import parse_config
from flairhub.errors import CheckpointError
from flairhub.modalities import Statistics
from flairhub.models.opening import open_model
from flairhub.training.opening import open_run
from flairhub.training.task import SegmentationTask
from tests.checkpoints import write_checkpoint


def task_of(modalities: list[str], **model: Any) -> SegmentationTask:  # noqa: ANN401
    """Return a network with random weights for windows of half a patch."""
    torch.manual_seed(0)
    data = {"root": ".", "modalities": modalities, "window_m": 51.2}
    small = {"encoder": "resnet10t", "decoder_channels": 16, "series_channels": 16, **model}
    statistics = {
        "spot_rgbi": Statistics((400.0,) * 4, (300.0,) * 4, "made up"),
        "sentinel2_ts": Statistics((1500.0,) * 10, (800.0,) * 10, "made up"),
    }
    config = parse_config({"data": data, "model": small})
    return SegmentationTask.create(config, statistics, {"cosia": [1] * 19}).eval()


def test_checkpoints_are_exported_at_the_size_of_their_windows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    task = task_of(["spot_rgbi"])
    path, out = write_checkpoint(task, tmp_path / "model.ckpt"), tmp_path / "model.onnx"
    assert run(["models", "export", str(path), "--out", str(out)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "takes spot_rgbi samples × 4 × 32 × 32 float32 prepared as for training" in text
    assert "takes spot_rgbi_present samples bool whether a sample has spot_rgbi" in text
    assert "gives cosia samples × 19 × 32 × 32" in text
    assert f"{out}: " in text
    image = torch.randn(5, 4, 32, 32)
    session = onnxruntime.InferenceSession(str(out))
    (found,) = session.run(None, {"spot_rgbi": image.numpy(), "spot_rgbi_present": np.ones(5, "?")})
    with torch.no_grad():
        expected = task.model({"spot_rgbi": image}).main["cosia"]
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)


def test_checkpoints_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = task_of(["spot_rgbi", "sentinel2_ts"], modality_dropout={"sentinel2_ts": 0.2})
    path = write_checkpoint(task, tmp_path / "model.ckpt")
    assert run(["models", "show", str(path), "--json", "--depth", "1"]) == 0
    network = json.loads(capsys.readouterr().out)["network"]
    assert network["parameters"] == sum(p.numel() for p in task.model.parameters())
    assert network["shapes"] == [[1, 19, 32, 32]]


def test_other_files_are_left_to_others(tmp_path: Path) -> None:
    other = tmp_path / "other.ckpt"
    torch.save({"state_dict": {"encoder.weight": torch.ones(1)}}, other)
    assert open_run(other) is None
    text = tmp_path / "notes.txt"
    text.write_text("no weights")
    assert open_run(text) is None
    with pytest.raises(CheckpointError, match="expected safetensors"):
        open_model(str(text))
    with pytest.raises(CheckpointError, match="There is no file"):
        open_model(str(tmp_path / "gone.ckpt"))


def test_damaged_checkpoints_of_ours_are_told(tmp_path: Path) -> None:
    task = task_of(["spot_rgbi"])
    path = write_checkpoint(task, tmp_path / "model.ckpt")
    content = torch.load(path, weights_only=True)
    del content["state_dict"]["model.heads.cosia.bias"]
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="does not fit this version"):
        open_model(str(path))
