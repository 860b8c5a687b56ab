"""``flairhub models``: tables and JSON of the registry, drawings, imports, and loading by id."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file

from flairhub.cli import run
from flairhub.errors import CheckpointError, WeightsSourceError
from flairhub.models import CARDS, IgnOptions, build, load
from flairhub.models.drawing import Drawn, draw, draw_network
from flairhub.models.hub import fetch
from flairhub.models.zoo import HubWeights, ModelCard
from tests.forms import FEW, own
from tests.hub_stand_in import Hub, Repository, commit_of, serve
from tests.networks import ALONE, SERIES, State, make, same
from tests.processes import run as run_process


@pytest.fixture(scope="module")
def series() -> State:
    return make(SERIES).state_dict()


@pytest.fixture
def weights(tmp_path: Path, series: State) -> Path:
    file = tmp_path / "last.ckpt"
    content = {f"model.{name}": tensor for name, tensor in series.items()}
    content["criterion.AERIAL_LABEL-COSIA.weight"] = torch.ones(19)
    torch.save({"state_dict": content, "pytorch-lightning_version": "2.6.6"}, file)
    return file


def test_the_list_holds_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "list"]) == 0
    table = capsys.readouterr().out
    for card in CARDS.values():
        (line,) = (x for x in table.splitlines() if x.split()[:1] == [card.id])
        assert f"{card.miou:.1f}" in line
        assert "etalab-2.0" in line
        parts = line.split()
        assert card.parameters.all_no_aux is None or any(p in parts for p in _millions(card))


def _millions(card: ModelCard) -> tuple[str, ...]:
    sizes = card.parameters
    return tuple(f"{n:.1f}" for n in (sizes.published_millions, (sizes.all_no_aux or 0) / 1e6) if n)


def test_the_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in listed] == list(CARDS)
    first = listed[0]
    assert first["modalities"] == ["aerial_rgbi"]
    assert first["parameters"]["published_millions"] == 89.4
    assert first["scores"][0]["miou"] == 64.1
    assert first["weights"][1]["bands"] == {"aerial_rgbi": ["red", "green", "blue"]}


def test_the_list_needs_no_torch() -> None:
    code = (
        "import sys; from flairhub.cli import run; code = run(['models', 'list']);"
        "found = {'torch', 'timm', 'huggingface_hub'} & set(sys.modules);"
        "sys.exit(code or ', '.join(found) or None)"
    )
    done = run_process(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == ""


def test_show_tells_what_disagrees_and_draws(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "show", "lpis-f", "--depth", "2"]) == 0
    text = capsys.readouterr().out
    assert "mIoU 23.8, OA 85.3 (IGNF/FLAIR-HUB README" in " ".join(text.split())
    assert "SENTINEL2_TS" in text
    assert "926,661" in text  # all parameters, as the card has them
    assert "1×23×512×512" in text
    assert run(["models", "show", "FLAIR2-UTT", "--depth", "1"]) == 0
    text = capsys.readouterr().out
    assert "57.58 with cloud filter" in " ".join(text.split())
    assert "1×64×40×40" in text  # of the series
    assert "27,227,852" in text  # with the auxiliary head


def test_show_as_json_holds_card_and_modules(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "show", "LC-G", "--json", "--depth", "1"]) == 0
    content = json.loads(capsys.readouterr().out)
    network = content["network"]
    assert content["id"] == "LC-G"
    assert network["parameters"] == content["parameters"]["all_no_aux"]
    assert network["shapes"] == [[1, 19, 512, 512]]
    names = [child["name"] for child in network["children"]]
    assert names == ["encoders", "fusion_handler", "main_decoders", "aux_decoders"]
    unused = {child["name"] for child in network["children"] if child["unused"]}
    assert unused == {"fusion_handler", "main_decoders"}


@pytest.mark.parametrize("name", ["FLAIR1-UNET", "FLAIR1-UNET-MTD"])
def test_show_draws_baselines(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "show", name, "--json", "--depth", "1"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["network"]["parameters"] == content["parameters"]["all_no_aux"]
    assert content["network"]["shapes"] == [[1, 13, 512, 512]]
    shapes = {child["name"]: child["shapes"] for child in content["network"]["children"]}
    assert shapes.get("enc") == ([[1, 512, 16, 16]] if name.endswith("MTD") else None)


def test_show_draws_what_a_configuration_would_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    modalities = ["spot_rgbi", "sentinel2_ts", "sentinel2_msk_sc"]
    data = {"root": ".", "modalities": modalities, "labels": ["cosia", "lpis_1"], "window_m": 51.2}
    model = {"encoder": "resnet10t", "series_encoder": "utae", "auxiliary": 0.4}
    config.write_text(json.dumps({"data": data, "model": model}))
    assert run(["models", "show", str(config), "--json", "--depth", "2"]) == 0
    network = json.loads(capsys.readouterr().out)["network"]
    assert network["kind"] == "MultimodalSegmenter"
    assert network["shapes"] == [[1, 19, 32, 32], [1, 23, 32, 32]]
    assert {"rasters", "series", "auxiliary"} <= {child["name"] for child in network["children"]}
    assert run(["models", "show", str(config)]) == 0
    assert "Multimodal" in capsys.readouterr().out
    assert run(["models", "export", str(config), "--out", str(tmp_path / "x.pt2")]) == 1
    assert "no weights to write" in capsys.readouterr().err


def test_drawing_leaves_a_network_as_it_is() -> None:
    network = own(*FEW).train()
    drawn = draw_network(network, depth=0)
    assert drawn.parameters == sum(p.numel() for p in network.parameters())
    assert drawn.shapes == [(1, 19, 64, 64)]
    assert network.training
    assert next(network.parameters()).device.type == "cpu"


def test_an_unknown_model_is_exit_code_1_with_advice(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "show", "LC-GG"]) == 1
    assert "Did you mean 'LC-G'" in capsys.readouterr().err


def test_drawings_have_the_shapes_of_a_real_call() -> None:
    drawn = draw(ALONE, depth=8)
    model = make(ALONE)
    seen: dict[str, list[tuple[int, ...]]] = {}

    def note(name: str, found: object) -> None:
        if isinstance(found, torch.Tensor):
            seen[name] = [tuple(found.shape)]

    for name, module in model.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: note(name, out))
    with torch.no_grad():
        model({"spot_rgbi": torch.rand(1, 3, 64, 64)}, size=(512, 512))
    compared = 0
    for path, one in paths(drawn):
        if path in seen:
            assert one.shapes == seen[path], path
            compared += 1
    assert compared > 50
    assert drawn.parameters == sum(p.numel() for p in model.parameters())


def paths(drawn: Drawn, above: str = "") -> Iterator[tuple[str, Drawn]]:
    """Yield drawn modules by full name; of several alike the first."""
    name = drawn.name.partition("-")[0] if drawn.name[:1].isdigit() else drawn.name
    path = f"{above}.{name}" if above else name
    yield path, drawn
    for child in drawn.children:
        yield from paths(child, path)


def test_modules_alike_are_drawn_once() -> None:
    drawn = draw(ALONE, depth=6)
    by_path = dict(paths(drawn))
    blocks = by_path["encoders.SPOT_RGBI.seg_model.model.stages_2"].children[-1]
    assert blocks.name == "blocks"
    whole = draw(ALONE, depth=7)
    (six,) = dict(paths(whole))["encoders.SPOT_RGBI.seg_model.model.stages_2.blocks"].children
    assert six.name == "0-5"
    assert six.parameters == blocks.parameters


def test_import_says_what_a_file_fits(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "import", str(weights)]) == 0
    text = capsys.readouterr().out
    assert "fits LC-G" in text
    assert "19 classes" in text
    assert [p.name for p in weights.parent.iterdir()] == ["last.ckpt"]


def test_import_writes_what_load_reads(
    weights: Path, series: State, capsys: pytest.CaptureFixture[str]
) -> None:
    out = weights.parent / "new" / "mine.safetensors"
    assert run(["models", "import", str(weights), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["id"], told["differences"]) == ("LC-G", [])
    assert list(told["left_over"]) == ["criterion.AERIAL_LABEL-COSIA.weight"]
    assert same(load(told["weights"]).model, series)
    item = json.loads(Path(told["item"]).read_text("utf-8"))
    assert item["properties"]["mlm:name"] == "mine"
    assert {"license", "mlm:pretrained"} & item["properties"].keys() == set()  # the user's own
    assert item["assets"]["model"]["href"] == "./mine.safetensors"
    assert str(weights) in item["properties"]["description"]


def test_import_takes_bands_from_the_user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "rgb.pt", tmp_path / "rgb.safetensors"
    torch.save(make(ALONE).state_dict(), file)
    colours = "--bands=spot_rgbi=red,green,blue"
    assert run(["models", "import", str(file), colours, f"--out={out}"]) == 0
    assert "red, green, blue" in capsys.readouterr().out
    assert run(["models", "import", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bands"] == {"spot_rgbi": ["red", "green", "blue"]}
    assert told["notes"] == []
    assert run(["models", "import", str(file), "--bands=red"]) == 2
    assert run(["models", "import", str(file), "--bands=spot_rgbi=red,green"]) == 1
    assert "3 channels of spot_rgbi; got 2" in capsys.readouterr().err


def test_import_recognises_baselines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "utt.ckpt"
    state = build("FLAIR2-UTT").half().state_dict()
    torch.save({"state_dict": {f"model.{name}": t for name, t in state.items()}}, file)
    assert run(["models", "import", str(file)]) == 0
    text = capsys.readouterr().out
    assert "fits FLAIR2-UTT" in text
    assert "flair_sentinel2_ts" in text


def test_export_writes_weights_and_says_what_they_take(
    tmp_path: Path, series: State, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "g.pt", tmp_path / "g.pt2"
    torch.save(series, file)
    assert run(["models", "export", str(file), "--out", str(out), "--size=64", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == str(out)
    assert [(one["name"], one["axes"]) for one in told["inputs"]] == [
        ("sentinel2_ts", ["samples", "dates_sentinel2_ts", 10, 10, 10]),
        ("sentinel2_ts_days", ["samples", "dates_sentinel2_ts"]),
    ]
    assert told["outputs"] == [{"name": "cosia", "axes": ["samples", 19, 64, 64]}]
    assert told["difference"] < 1e-5
    assert out.stat().st_size == told["bytes"]
    assert run(["models", "export", str(file), "--out", str(tmp_path / "g.tf")]) == 1
    assert "must end in .onnx or .pt2" in capsys.readouterr().err


# By id, through the hub


@pytest.fixture
def hub(series: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with weights of LC-G, where the registry knows them to be."""
    content = save(series)
    files = {"model.safetensors": content}
    with serve() as found:
        found.repositories["IGNF/g"] = Repository(
            {commit_of(files): files}, {"main": commit_of(files)}
        )
        here = partial(fetch, endpoint=found.endpoint)
        monkeypatch.setattr("flairhub.models.loading.fetch", here)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        know(monkeypatch, "LC-G", HubWeights("IGNF/g"))
        yield found


def know(monkeypatch: pytest.MonkeyPatch, name: str, entry: HubWeights) -> None:
    """Let the registry know weights."""
    cards = {**CARDS, name: replace(CARDS[name], weights=(entry,))}
    for module in ("zoo", "hub", "identity"):
        monkeypatch.setattr(f"flairhub.models.{module}.CARDS", cards)


def test_weights_come_by_id(hub: Hub, series: State) -> None:
    model, report = load("LC-G")
    assert same(model, series)
    commit = hub.repositories["IGNF/g"].references["main"]
    assert report.revision == commit
    assert report.sha256 is not None
    assert report.source == f"hf://IGNF/g@{commit}/model.safetensors"
    hub.requests.clear()
    assert same(load("LC-G", offline=True).model, series)
    assert hub.requests == []
    assert same(load("hf://IGNF/g", revision=commit, sha256=report.sha256).model, series)
    with pytest.raises(WeightsSourceError, match="no revision 'v7'"):
        load("LC-G", revision="v7")
    with pytest.raises(WeightsSourceError, match="not the file expected"):
        load("LC-G", sha256="0" * 64)
    with pytest.raises(
        WeightsSourceError, match="No repository with weights of LC-G with resnet18"
    ):
        load("LC-G", encoder="resnet18")


def test_what_is_imported_from_the_registry_has_its_licence(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "g.safetensors"
    assert run(["models", "import", "hf://IGNF/g", f"--out={out}", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = json.loads(Path(told["item"]).read_text("utf-8"))["properties"]
    assert (found["mlm:name"], found["license"]) == ("LC-G", "etalab-2.0")
    assert found["mlm:pretrained"] is True
    with safe_open(out, "pt") as file:
        assert json.loads(file.metadata()["mlm"])["license"] == "etalab-2.0"


def test_what_is_imported_again_keeps_what_it_said_of_itself(hub: Hub, tmp_path: Path) -> None:
    first, again, own = (tmp_path / f"{name}.safetensors" for name in ("first", "again", "own"))
    assert run(["models", "import", "hf://IGNF/g", f"--out={first}"]) == 0
    with safe_open(first, "pt") as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    before = json.loads(header["mlm"])
    before["mlm:input"][0]["value_scaling"] = [{"type": "z-score", "mean": 1.0, "stddev": 2.0}] * 10
    before["providers"] = [{"name": "a surveyor"}]
    save_file(tensors, first, {**header, "mlm": json.dumps(before)})
    assert run(["models", "import", str(first), f"--out={again}"]) == 0
    with safe_open(again, "pt") as file:
        assert json.loads(file.metadata()["mlm"]) == before
    found = json.loads(again.with_suffix(".json").read_text("utf-8"))["properties"]
    assert (found["mlm:name"], found["license"]) == ("LC-G", "etalab-2.0")
    assert "hf://IGNF/g@" in found["description"]
    bands = "--bands=sentinel2_ts=B12,B02,B03,B04,B05,B06,B07,B08,B8A,B11"
    given = [bands, "--name=mine", "--licence=CC-BY-4.0"]
    assert run(["models", "import", str(again), f"--out={own}", *given]) == 0
    found = json.loads(own.with_suffix(".json").read_text("utf-8"))["properties"]
    assert (found["mlm:name"], found["license"]) == ("mine", "CC-BY-4.0")
    assert found["mlm:input"][0]["bands"][0] == "sentinel2_ts/B12"
    assert "value_scaling" not in found["mlm:input"][0]  # of bands in another order
    assert run(["models", "import", str(again), "--licence=CC-BY-4.0"]) == 2  # nothing is written


@pytest.mark.parametrize("text", ["{", "[]"])
def test_damaged_descriptions_are_refused(
    text: str, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = weights.with_suffix(".safetensors")
    assert run(["models", "import", str(weights), f"--out={out}"]) == 0
    with safe_open(out, "pt") as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, out, {**header, "mlm": text})
    assert run(["models", "import", str(out)]) == 1
    assert "header 'mlm' of the file is damaged" in capsys.readouterr().err


def test_the_registrys_digest_counts(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, "LC-G", HubWeights("IGNF/g", sha256="f" * 64))
    with pytest.raises(WeightsSourceError, match=f"expected {'f' * 64}"):
        load("LC-G")
    assert hub.requests


def test_a_repository_that_holds_another_model_is_refused(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    know(monkeypatch, "LPIS-F", HubWeights("IGNF/g"))
    with pytest.raises(CheckpointError, match="should hold LPIS-F but fits LC-G"):
        load("hf://IGNF/g")
    assert hub.requests


def test_the_registry_tells_the_bands(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three channels of the weights for red, green and blue are not near infrared first."""
    state = make(
        IgnOptions(("aerial_rgbi",), {"cosia": 19}, encoder="convnextv2_atto")
    ).state_dict()
    files = {"rgb.safetensors": save(state)}
    hub.repositories["IGNF/rgb"] = Repository({commit_of(files): files}, {"main": commit_of(files)})
    colours = {"aerial_rgbi": ("red", "green", "blue")}
    know(monkeypatch, "LC-A", HubWeights("IGNF/rgb", "convnextv2_atto", colours))
    model, report = load("LC-A")
    assert same(model, state)
    assert report.notes == ()
    with pytest.raises(CheckpointError, match="found kernels for red, green, blue"):
        load("LC-A", build(IgnOptions(("aerial_rgbi",), {"cosia": 19}, encoder="convnextv2_atto")))


def test_export_refuses_a_name_before_it_fetches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # no such repository is asked for: the message is about the name
    out = tmp_path / "lc-a.txt"
    assert run(["models", "export", "hf://nobody/nothing", "--out", str(out)]) == 1
    assert "must end in .onnx or .pt2" in capsys.readouterr().err
    assert not out.exists()
