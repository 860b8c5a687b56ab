"""What CONTRIBUTING.md says of new blocks, done as it stands there, in fresh processes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flairhub.errors import ConfigError
from flairhub.models.registry import OWN_BLOCKS, import_own_blocks

TRAIN = """
import sys

import torch

from flairhub.cli import run
from flairhub.config import ModelConfig
from flairhub.models import build_model
from flairhub.training.losses import SegmentationLoss

torch.manual_seed(0)
config = ModelConfig(encoder="strides", fusion="max", decoder="sum", decoder_channels=16)
bands = {"aerial_rgbi": 4, "spot_rgbi": 4, "sentinel2_ts": 10}
model = build_model(config, bands, bands, ["cosia"]).train()
kinds = {type(module).__name__: type(module).__module__ for module in model.modules()}
assert {kinds[name] for name in ("Strides", "MaxFusion", "SumDecoder")} == {sys.argv[1]}, kinds
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
assert still == [], still
assert loss(model(inputs, days, present=present).main, labels) < first
alone = model.eval()({"aerial_rgbi": inputs["aerial_rgbi"]}).main["cosia"]
assert alone.shape == (2, 19, 256, 256)
sys.exit(run(["models", "show", "config.yaml"]))
"""
"""Build a network of the new blocks, train it for a step, leave inputs out, show it."""

CONFIG = """
data: {root: ., modalities: [aerial_rgbi, spot_rgbi, sentinel2_ts]}
"""


def told(repository: Path, language: str) -> list[str]:
    """Return what is to be typed: the blocks of a language in the section on network blocks."""
    text = (repository / "CONTRIBUTING.md").read_text("utf-8")
    section = text.partition("**An encoder, a fusion or a decoder**")[2]
    section = section.partition("**A codec profile**")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def edited(text: str, diff: str) -> str:
    """Apply a diff that has no line numbers: every known line stands once in the text."""
    lines, place = text.splitlines(), 0
    for sign, line in ((entry[0], entry[1:]) for entry in diff.splitlines()):
        if sign == "+":
            lines.insert(place, line)
            place += 1
            continue
        assert lines.count(line) == 1, line
        place = lines.index(line) + (sign == " ")
        if sign == "-":
            del lines[place]
    return "\n".join(lines) + "\n"


def works(module: str, folder: Path, **environment: str) -> None:
    """Train new blocks of a module, and show a configuration that names them."""
    ready = {**os.environ, "COLUMNS": "160", **environment}
    (folder / "train.py").write_text(TRAIN)
    done = subprocess.run(
        [sys.executable, "train.py", module],
        cwd=folder, env=ready, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "SumDecoder" in done.stdout
    assert "MaxFusion" in done.stdout


def test_a_block_in_the_package_is_one_class_and_one_line(repository: Path, tmp_path: Path) -> None:
    package = shutil.copytree(
        repository / "flairhub", tmp_path / "flairhub", ignore=shutil.ignore_patterns("__pycache__")
    )
    models = package / "models"
    (models / "mine.py").write_text(told(repository, "python")[0])
    (diff,) = told(repository, "diff")
    registry = models / "registry.py"
    registry.write_text(edited(registry.read_text("utf-8"), diff))
    (tmp_path / "config.yaml").write_text(CONFIG + told(repository, "yaml")[0])
    works("flairhub.models.mine", tmp_path, PYTHONPATH=str(tmp_path))


def test_a_block_in_a_file_of_one_s_own_needs_no_change(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "my_blocks.py").write_text("\n\n".join(told(repository, "python")))
    (tmp_path / "config.yaml").write_text(CONFIG + told(repository, "yaml")[0])
    command = re.search(r"\$ (\w+)=(\S+) flairhub models show", told(repository, "console")[0])
    assert command is not None
    works("my_blocks", tmp_path, **{command[1]: command[2]})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("missing.py", None, r"names .*missing\.py, which is no Python file"),
        ("faulty_blocks.py", "raise ValueError('no')", "cannot be imported: ValueError: no"),
        ("json.py", "", "there is a module 'json'; rename the file"),
    ],
)
def test_a_file_that_holds_no_blocks_is_refused(
    name: str, text: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv(OWN_BLOCKS, str(path))
    with pytest.raises(ConfigError, match=message):
        import_own_blocks()
