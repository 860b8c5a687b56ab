"""The network against what IGN's code builds: names, shapes, counts, and three small models."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from flairhub.modalities import MODALITIES
from flairhub.models import IgnNetwork, IgnOptions, build
from flairhub.models.ign.options import task_name
from flairhub.models.zoo import CARDS

IDS = [card.id for card in CARDS.values() if card.family == "flair-hub"]
KEYS = {modality.source_name: key for key, modality in MODALITIES.items()}


def shared(repository: Path, name: str) -> Path:
    """Return what lies beside the checkout where it is available."""
    path = repository.parent / "shared" / "model" / name
    if not path.exists():
        pytest.skip(f"{name} of the reference is not available here")
    return path


def on_meta(name: str, **changes: Any) -> IgnNetwork:  # noqa: ANN401
    with torch.device("meta"):
        network: IgnNetwork = build(name, **changes)
    return network


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", IDS)
def test_every_published_model_has_its_parameters(name: str) -> None:
    card = CARDS[name]
    network = on_meta(name, aux=card.modalities)
    assert {p.device.type for p in network.parameters()} == {"meta"}
    whole, fusion = count(network), count(network.fusion_handler)
    aux = count(network.aux_decoders)
    sizes = card.parameters
    assert whole - aux == sizes.all_no_aux
    assert fusion == sizes.fusion_handler
    assert whole - aux - fusion == sizes.no_aux_without_fusion
    assert whole - fusion == sizes.all_aux_without_fusion
    published = whole - fusion - (aux if len(card.modalities) == 1 else 0)
    assert published / 1e6 == pytest.approx(sizes.published_millions, abs=0.06)
    if card.series_widths:
        series: Any = network.encoders[MODALITIES[network.options.series[0]].source_name]
        widths = [series.in_conv.conv.conv[0].out_channels]
        widths += [block.conv1.conv[0].out_channels for block in series.down_blocks]
        assert tuple(widths) == card.series_widths
        steps = [m.out_channels for m in series.out_conv.modules() if isinstance(m, nn.Conv2d)]
        assert tuple(steps) == card.series_out_widths


@pytest.mark.parametrize("name", ["LC-A", "LC-F", "LC-G", "LC-L", "LPIS-J"])
def test_names_and_shapes_are_ign_s(repository: Path, name: str) -> None:
    expected = json.loads(shared(repository, f"keys_{name}.json").read_text())
    found = {key: list(value.shape) for key, value in on_meta(name).state_dict().items()}
    assert found == expected
    if len(CARDS[name].modalities) > 1:
        extra = json.loads(shared(repository, f"keys_{name}_aux-only.json").read_text())
        network = on_meta(name, aux=CARDS[name].modalities)
        found = {key: list(value.shape) for key, value in network.state_dict().items()}
        assert found == expected | extra


@dataclass(frozen=True)
class Reference:
    """A stored model with its inputs and what it gave."""

    network: IgnNetwork
    arrays: dict[str, Tensor]
    size: tuple[int, int]

    @property
    def days(self) -> dict[str, Tensor]:
        return {"sentinel2_ts": self.arrays["in/SENTINEL2_DATES"]}

    @property
    def inputs(self) -> dict[str, Tensor]:
        return {key: self.arrays[f"in/{MODALITIES[key].source_name}"]
                for key in self.network.options.modalities}  # fmt: skip


@pytest.fixture(scope="module", params=["s2-only", "fused-aerial-s2", "swin-spot-s2-aux"])
def reference(request: pytest.FixtureRequest, repository: Path) -> Reference:
    folder = shared(repository, "oracle")
    with np.load(folder / f"{request.param}.npz") as stored:
        meta = json.loads(str(stored["meta"]))
        arrays = {key: torch.from_numpy(stored[key]) for key in stored.files if key != "meta"}
    names = {task: n for task in ("cosia", "lpis_1") if (n := task_name(task)) in meta["n_classes"]}
    options = IgnOptions(
        modalities=tuple(KEYS[name] for name in meta["mods"]),
        tasks={task: meta["n_classes"][name] for task, name in names.items()},
        sizes={KEYS[name]: side for name, side in meta["sizes"].items()},
        encoder=meta["arch"].rpartition("-")[0],
        decoder=meta["arch"].rpartition("-")[2],
        aux=tuple(KEYS[name] for name in meta["aux"]),
    )
    network = IgnNetwork(options).eval()
    weights = load_file(folder / f"{request.param}.safetensors")
    network.load_state_dict(
        {key: v.float() if v.is_floating_point() else v for key, v in weights.items()}
    )
    return Reference(network, arrays, (meta["img_size"], meta["img_size"]))


@torch.inference_mode()
def test_scores_are_those_of_the_reference(reference: Reference) -> None:
    found = reference.network(reference.inputs, reference.days, reference.size, aux=True)
    stored = {k: v for k, v in reference.arrays.items() if k.startswith(("logits/", "aux/"))}
    named = {f"logits/{task_name(task)}": scores for task, scores in found.main.items()}
    for key, scores in found.aux.items():
        modality, task = key.split("/")
        named[f"aux/aux_{MODALITIES[modality].source_name}_{task_name(task)}"] = scores
    assert named.keys() == stored.keys()
    for key, scores in named.items():
        torch.testing.assert_close(scores, stored[key], rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_maps_of_series_are_those_of_the_reference(reference: Reference) -> None:
    network: Any = reference.network.encoders["SENTINEL2_TS"]
    before: list[Tensor] = []
    norm = network.temporal_encoder.out_norm
    handle = norm.register_forward_hook(lambda _module, inputs, _output: before.append(inputs[0]))
    maps, logits = network(reference.inputs["sentinel2_ts"], reference.days["sentinel2_ts"])
    handle.remove()
    stored = [reference.arrays[f"map/S2_{i}"] for i in range(4)]
    torch.testing.assert_close(logits, reference.arrays["map/S2_logits"], rtol=1e-5, atol=1e-5)
    for one, other in zip(maps[1:], stored[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    # The deepest map leaves a norm over eight numbers of which many are 0: it divides by next to
    # nothing, and multiplies the rounding of what enters, here and in the reference.
    groups = before[0].view(len(before[0]), norm.num_groups, -1)
    gain = groups.var(2, unbiased=False, keepdim=True).add(norm.eps).rsqrt()
    gain = gain.expand_as(groups).flatten(1) * norm.weight.abs()
    gain = gain.view(2, 10, 10, -1).permute(0, 3, 1, 2).clamp(min=1)
    assert ((maps[0] - stored[0]).abs() / gain).max() < 1e-5
    assert ((maps[0] - stored[0]).abs() < 1e-5).float().mean() > 0.9
