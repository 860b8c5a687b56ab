"""What CONTRIBUTING.md says of new blocks, done as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from flairhub.config import ModelConfig
from flairhub.models import build_model, factory, registry
from flairhub.training.losses import SegmentationLoss

BLOCKS = ("Strides", "MaxFusion", "SumDecoder")


def blocks(repository: Path) -> str:
    """Return the code of the section on blocks."""
    text = (repository / "CONTRIBUTING.md").read_text("utf-8")
    section = text.partition("**An encoder, a fusion or a decoder**")[2]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def test_a_block_is_one_class_and_one_line(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RASTER_ENCODERS", "FUSIONS", "DECODERS"):
        monkeypatch.setattr(registry, name, registry_copy := dict(getattr(registry, name)))
        monkeypatch.setattr(factory, name, registry_copy)
    entered: dict[str, object] = {}
    exec(blocks(repository), entered)
    torch.manual_seed(0)
    config = ModelConfig(encoder="strides", fusion="max", decoder="sum", decoder_channels=16)
    bands = {"aerial_rgbi": 4, "spot_rgbi": 4, "sentinel2_ts": 10}
    model = build_model(config, bands, bands, ["cosia"]).train()
    for name in BLOCKS:
        kind = entered[name]
        assert isinstance(kind, type)
        assert any(isinstance(module, kind) for module in model.modules())
    inputs = {
        "aerial_rgbi": torch.randn(2, 4, 256, 256),
        "spot_rgbi": torch.randn(2, 4, 32, 32),
        "sentinel2_ts": torch.randn(2, 3, 10, 5, 5),
    }
    days = {"sentinel2_ts": torch.tensor([[18000, 18100, 18200]] * 2)}
    present = {"spot_rgbi": torch.tensor([True, False])}
    labels = {"cosia": torch.randint(0, 15, (2, 256, 256)).to(torch.uint8)}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = SegmentationLoss({"cosia": [1] * 19})
    first = loss(model(inputs, days, present=present).main, labels)
    first.backward()
    optimiser.step()
    still = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert still == []
    assert loss(model(inputs, days, present=present).main, labels) < first
    alone = model.eval()({"aerial_rgbi": inputs["aerial_rgbi"]}).main["cosia"]
    assert alone.shape == (2, 19, 256, 256)
