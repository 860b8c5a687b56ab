"""What is measured on a GPU, carried out on the processor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import device
from benchmarks.harness import Workspace
from benchmarks.models import Contest
from benchmarks.straightforward import Straightforward
from flairhub.models import IgnNetwork, IgnOptions, build
from tests.networks import FUSED, make

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "STEPS", 2)
    monkeypatch.setattr(device, "WARMUP", 0)


@pytest.fixture
def contest() -> Contest:
    network = make(replace(FUSED, sizes={"spot_rgbi": 32}))
    assert isinstance(network, IgnNetwork)
    chance = torch.Generator().manual_seed(0)
    inputs = {
        "spot_rgbi": torch.randn(2, 3, 32, 32, generator=chance),
        "sentinel2_ts": torch.randn(2, 3, 10, 10, 10, generator=chance),
    }
    days = {"sentinel2_ts": torch.tensor([[-100.0, 0.0, 100.0]] * 2)}
    nobody = torch.nn.Module()
    assert not isinstance(nobody, Straightforward)  # the peer takes no part here
    return Contest(network, nobody, inputs, days, 64)  # type: ignore[arg-type]


def test_there_are_no_rows_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    workspace = Workspace(tmp_path, tmp_path, tmp_path)
    assert [*device.device_models(workspace), *device.device_streaming(workspace)] == []


def test_every_setting_takes_the_same_step(contest: Contest) -> None:
    chosen = [replace(one, bfloat16=False) for one in (device.EAGER, *device.SETTINGS)]
    chosen = [replace(one, compiler=one.compiler and "eager") for one in chosen]
    losses = [_loss(contest, setting) for setting in (*chosen, device.LOWERED)]
    exact = pytest.approx([losses[0]] * len(chosen), rel=1e-3)
    assert losses[:-1] == exact
    assert losses[-1] != losses[0]
    assert losses[-1] == pytest.approx(losses[0], rel=0.1)


def _loss(contest: Contest, setting: device.Setting) -> float:
    torch.manual_seed(1)  # of the targets, and of dropout
    return float(device.training_step(contest, CPU, setting)())


def test_rows_compare_with_eager_float32(contest: Contest) -> None:
    rows = list(device.step_rows(contest, "small", CPU, (device.LOWERED,), peak=1e12))
    assert [row.name for row in rows] == ["small training, bfloat16", "small memory, bfloat16"]
    assert rows[0].peer is not None
    assert min(rows[0].ours, rows[0].peer) > 0
    assert device.product_rate(CPU, side=64) > 0


def test_the_wait_is_a_share_of_the_time(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "epochs", lambda plan: plan.subset(torch.arange(4).numpy()))
    monkeypatch.setattr(device, "BATCH", 2)
    network = build(IgnOptions(("aerial_rgbi",), {"cosia": 19}, encoder="convnextv2_atto"))
    before = [p.clone() for p in network.parameters()]
    speed, wait = device.waiting_rows(store_root, CPU, network, device.EAGER)
    assert speed.ours > 0
    assert 0 < wait.ours < 100
    after = network.parameters()
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
