"""A fusion of one's own for IGN's form: weights with it are told as such, or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flairhub.cli import run
from flairhub.errors import CheckpointError
from flairhub.models import IgnNetwork, IgnOptions, build, identify, load, save
from flairhub.models.alignment import resize
from flairhub.models.ign.fusion import FUSIONS, ConcatFusion
from tests.networks import FUSED, State, make, same

ADDED = IgnOptions(FUSED.modalities, FUSED.tasks, encoder=FUSED.encoder, fusion="added")
ALIKE = IgnOptions(FUSED.modalities, FUSED.tasks, encoder=FUSED.encoder, fusion="alike")


class AddedFusion(nn.Module):
    """The reference's maps, and a projection of the others' deepest added to the last."""

    def __init__(self, channels: Mapping[str, Sequence[int]], reference: str | None) -> None:
        super().__init__()
        self.reference = reference
        own = channels[reference] if reference else (1,)
        self.project = nn.ModuleDict(
            {k: nn.Conv2d(n[0], own[-1], 1) for k, n in channels.items() if k != reference}
        )

    def forward(self, maps: Mapping[str, Sequence[Tensor]]) -> list[Tensor]:
        *finer, last = maps[self.reference]  # type: ignore[index]
        size = (last.shape[-2], last.shape[-1])
        more: list[Any] = [resize(conv(maps[k][0]), size) for k, conv in self.project.items()]
        return [*finer, torch.stack([last, *more]).sum(0)]


class Alike(ConcatFusion):
    """Another network with the names and shapes of IGN's."""

    def forward(self, maps: Mapping[str, Sequence[Tensor]]) -> list[Tensor]:
        return [one.relu() for one in super().forward(maps)]


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> State:
    monkeypatch.setitem(FUSIONS, "added", AddedFusion)
    return make(ADDED).state_dict()


def test_a_registered_fusion_is_told_by_names_and_shapes(added: State, tmp_path: Path) -> None:
    found = identify(added)
    assert found.options == ADDED
    torch.save(added, tmp_path / "last.pt")
    model = load(tmp_path / "last.pt").model
    assert isinstance(model, IgnNetwork)
    assert isinstance(model.fusion_handler, AddedFusion)
    assert same(model, added)


def test_a_fusion_that_is_not_registered_is_an_error(
    added: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, ours = tmp_path / "last.pt", tmp_path / "ours.safetensors"
    torch.save(added, file)
    save(added, ours, identify(added))
    del FUSIONS["added"]
    assert run(["models", "import", str(file)]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "fusion is not known: fusion_handler.project.sentinel2_ts.weight" in told
    assert "those registered are concat." in told
    assert run(["models", "import", str(ours)]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "has a fusion 'added', which is not known here. Known: concat." in told
    for source in (file, ours):
        with pytest.raises(CheckpointError, match="not known"):
            load(source)


def test_fusions_alike_are_told_by_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(FUSIONS, "alike", Alike)
    state = make(ALIKE).state_dict()
    file, ours = tmp_path / "last.pt", tmp_path / "ours.safetensors"
    torch.save(state, file)
    with pytest.raises(CheckpointError, match=r"one of concat, alike, of the same names"):
        load(file)
    assert identify(state, fusion="alike").options == ALIKE
    model = load(file, fusion="alike").model
    assert isinstance(model, IgnNetwork)
    assert isinstance(model.fusion_handler, Alike)
    with pytest.raises(CheckpointError, match="fusion is not 'added'"):
        load(file, fusion="added")
    told = ["models", "import", str(file), "--fusion=alike", f"--out={ours}", "--json"]
    assert run(told) == 0
    assert json.loads(capsys.readouterr().out)["fusion"] == "alike"
    again = load(ours).model  # its header tells
    assert isinstance(again, IgnNetwork)
    assert isinstance(again.fusion_handler, Alike)
    with pytest.raises(CheckpointError, match="'concat' cannot take their place"):
        load(ours, fusion="concat")


def test_a_model_may_have_another_fusion_than_the_file(added: State) -> None:
    state = make(FUSED).state_dict()
    report = load(
        state, "LC-I", modalities=FUSED.modalities, encoder=FUSED.encoder, fusion="added",
        fresh="fusion_handler.", drop="fusion_handler.",
    ).report  # fmt: skip
    assert all(name.startswith("fusion_handler.project.") for name in report.fresh)
    assert all(name.startswith("fusion_handler.conv_f.") for name in report.left_over)


def test_commands_know_the_fusions_of_a_file_of_one_s_own(
    added: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    del FUSIONS["added"]
    blocks = tmp_path / "fusion_blocks.py"
    blocks.write_text(
        "from flairhub.models.ign.fusion import FUSIONS\n"
        "from tests.test_own_fusions import AddedFusion\n"
        "FUSIONS['added'] = AddedFusion\n"
    )
    torch.save(added, tmp_path / "last.pt")
    monkeypatch.setenv("FLAIRHUB_BLOCKS", str(blocks))
    assert run(["models", "import", str(tmp_path / "last.pt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fusion"] == "added"


def test_idle_fusions_of_one_modality_decide_nothing() -> None:
    with torch.device("meta"):
        state = build("LC-I", encoder="resnet18").state_dict()
    bare = {name: t for name, t in state.items() if not name.startswith("fusion_handler.")}
    for found in (identify(state), identify(bare)):
        assert getattr(found.options, "fusion", None) == "concat"
