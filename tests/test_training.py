"""Scores, losses, schedules, runs, their files and commands."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor
from torch.nn import functional as F

from flairhub.batches.batch import MultimodalBatch
from flairhub.batches.datamodule import FlairDataModule
from flairhub.batches.plan import PatchPlan, PatchWindow
from flairhub.cli import run as command
from flairhub.config import RunConfig, parse_config
from flairhub.errors import CheckpointError, ConfigError, PlanError
from flairhub.grids import Extent
from flairhub.modalities import Statistics
from flairhub.nomenclatures import get_nomenclature
from flairhub.store.access import resolve
from flairhub.store.tables import classes_column, list_domains, read_table
from flairhub.training.checkpointing import AtomicCheckpointIO
from flairhub.training.frequencies import class_counts
from flairhub.training.losses import SegmentationLoss, class_weights
from flairhub.training.metrics import class_iou, confusion_matrix, majority_class, score
from flairhub.training.run import TrainingResult, evaluate, train
from flairhub.training.schedule import END, START, one_cycle
from flairhub.training.task import SegmentationTask, load_task

COSIA = get_nomenclature("cosia")
LIGHT = {
    "encoder": "mobilenetv3_small_050",
    "decoder_channels": 32,
    "series_channels": 16,
    "series_heads": 4,
}
FEW_STEPS = {"batch_size": 2, "window_m": 51.2, "modalities": ["spot_rgbi", "sentinel2_ts"]}


def make_config(root: Path, output: Path, **changes: Mapping[str, object]) -> RunConfig:
    """Return a run of 3 steps on small inputs, with changes by section."""
    return parse_config(
        {
            "data": {"root": str(root), **FEW_STEPS, **changes.get("data", {})},
            "model": {**LIGHT, **changes.get("model", {})},
            "training": {
                "output": str(output),
                "max_steps": 3,
                "max_epochs": 10,
                "validate_every": 10,
                "accelerator": "cpu",
                **changes.get("training", {}),
            },
        }
    )


@pytest.fixture(scope="module")
def result(store_root: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """A finished run; not to be changed."""
    return train(make_config(store_root, tmp_path_factory.mktemp("run")))


# Scores


def test_scores_are_those_worked_by_hand() -> None:
    # 255 and 17 (mixed) are not scored; a prediction of 17 is wrong; class 12 is not in the truth
    truth = torch.tensor([[8, 8, 8, 8, 6], [6, 0, 0, 255, 17]], dtype=torch.uint8)
    found = torch.tensor([[8, 8, 8, 6, 6], [6, 12, 17, 8, 17]])
    matrix = confusion_matrix(truth, found, COSIA)
    assert matrix.dtype == torch.int64
    assert matrix.sum() == 8
    assert [int(matrix[t, p]) for t, p in ((8, 8), (8, 6), (6, 6), (0, 12), (0, 17))] == [
        3,
        1,
        2,
        1,
        1,
    ]
    scores = score(matrix.numpy(), COSIA, majority=8)
    assert scores.pixels == 8
    assert scores.accuracy == 5 / 8
    assert {c.name: c.iou for c in scores.classes} == {
        "building": 0.0,
        "water": 2 / 3,
        "herbaceous vegetation": 3 / 4,
    }
    assert scores.mean_iou == pytest.approx((0 + 2 / 3 + 3 / 4) / 3)
    assert scores.baseline_class == "herbaceous vegetation"
    assert scores.baseline_accuracy == 4 / 8
    assert [c.baseline_iou for c in scores.classes] == [0.0, 0.0, 4 / 8]
    assert scores.baseline_mean_iou == pytest.approx(0.5 / 3)
    assert json.loads(json.dumps(scores.to_plain()))["classes"][1]["pixels"] == 2


@given(st.integers(0, 2**32 - 1))
def test_confusion_counts_every_scored_pixel_once(seed: int) -> None:
    draw = np.random.default_rng(seed)
    truth = draw.choice([*range(len(COSIA)), 255], size=200).astype(np.uint8)
    found = draw.integers(0, len(COSIA), 200)
    expected = np.zeros((len(COSIA), len(COSIA)), np.int64)
    for t, p in zip(truth, found, strict=True):
        if t in COSIA.scored:
            expected[t, p] += 1
    counted = confusion_matrix(torch.from_numpy(truth), torch.from_numpy(found), COSIA)
    np.testing.assert_array_equal(counted.numpy(), expected)


def test_counts_do_not_overflow_or_round() -> None:
    many = np.zeros((19, 19), np.int64)
    many[8, 8], many[8, 6] = 2**40 + 1, 1  # float32 would lose the last pixel
    scores = score(many, COSIA, majority=6)
    assert scores.pixels == 2**40 + 2
    assert scores.accuracy < 1.0
    assert scores.baseline_accuracy == 0.0


def test_nothing_to_score_is_not_zero() -> None:
    scores = score(np.zeros((19, 19), np.int64), COSIA, majority=8)
    assert math.isnan(scores.accuracy)
    assert math.isnan(scores.mean_iou)
    assert scores.classes == ()
    assert np.isnan(class_iou(np.zeros((2, 2), np.int64))).all()


def test_the_majority_is_a_scored_class() -> None:
    counts = [0] * len(COSIA)
    counts[18], counts[9], counts[8] = 100, 10, 5
    assert majority_class(counts, COSIA) == 9


def test_class_counts_are_those_of_the_domain_tables(store_root: Path) -> None:
    plan = PatchPlan.build(
        store_root, modalities=["spot_rgbi"], labels=("cosia", "lpis_2"), window_m=51.2
    )
    counts = class_counts(plan)
    root = resolve(store_root)
    for key in ("cosia", "lpis_2"):
        tables = [read_table(root, domain, "patches") for domain in list_domains(root)]
        expected = sum(np.stack(t[classes_column(key)].to_list()).sum(axis=0) for t in tables)
        np.testing.assert_array_equal(counts[key], expected)
    fewer = class_counts(plan, max_windows=3)
    assert sum(fewer["cosia"]) == 3 * 256 * 256


# Losses and schedule


def random_scores(seed: int = 0) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, len(COSIA), 6, 6, generator=chance)
    return scores, torch.randint(0, 15, (2, 6, 6), generator=chance).to(torch.uint8)


@pytest.mark.parametrize(("balance", "smoothing"), [(0.0, 0.0), (0.5, 0.1)])
def test_the_loss_is_torchs_mean_cross_entropy(balance: float, smoothing: float) -> None:
    scores, labels = random_scores()
    counts = [10 * (c + 1) for c in range(len(COSIA))]
    loss = SegmentationLoss({"cosia": counts}, class_balance=balance, label_smoothing=smoothing)
    weights = class_weights(counts, COSIA, balance)
    expected = F.cross_entropy(scores, labels.long(), weights, label_smoothing=smoothing)
    torch.testing.assert_close(loss({"cosia": scores}, {"cosia": labels}), expected)


@pytest.mark.parametrize("ignored", [255, 15, 18])
def test_ignored_pixels_do_not_count(ignored: int) -> None:
    scores, labels = random_scores()
    loss = SegmentationLoss({"cosia": [1] * len(COSIA)})
    labels[:, :, 3:] = ignored
    expected = loss({"cosia": scores[..., :3]}, {"cosia": labels[..., :3]})
    torch.testing.assert_close(loss({"cosia": scores}, {"cosia": labels}), expected)
    nothing = loss({"cosia": scores.requires_grad_()}, {"cosia": torch.full_like(labels, ignored)})
    nothing.backward()
    assert nothing == 0
    assert scores.grad is not None
    assert not scores.grad.any()


def test_tasks_are_weighted() -> None:
    scores, labels = random_scores()
    lpis = torch.randn(2, 23, 6, 6)
    counts = {"cosia": [1] * 19, "lpis_1": [1] * 23}
    both = {"cosia": scores, "lpis_1": lpis}
    one = SegmentationLoss({"cosia": counts["cosia"]})(both, {"cosia": labels})
    other = SegmentationLoss({"lpis_1": counts["lpis_1"]})(both, {"lpis_1": labels})
    loss = SegmentationLoss(counts, task_weights={"lpis_1": 0.25})
    found = loss(both, {"cosia": labels, "lpis_1": labels})
    torch.testing.assert_close(found, one + 0.25 * other)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_weights_have_mean_one_and_favour_rare_classes(exponent: float) -> None:
    counts = [0, 10, 1000, *[100] * 16]
    weights = class_weights(counts, COSIA, exponent)
    shares = torch.tensor([c if i in COSIA.scored else 0 for i, c in enumerate(counts)]) / 1.0
    assert (weights * shares).sum() / shares.sum() == pytest.approx(1.0)
    assert weights[list(COSIA.ignored)].tolist() == [0.0] * 4
    assert weights[1] / weights[2] == pytest.approx(100**exponent, rel=1e-5)
    assert weights.isfinite().all()


def test_one_cycle_rises_and_falls() -> None:
    rates = [one_cycle(i / 100, 0.2) for i in range(101)]
    assert rates[0] == pytest.approx(START)
    assert rates[20] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(END)
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert one_cycle(1.7, 0.2) == pytest.approx(END)
    assert one_cycle(0.0, 0.0) == pytest.approx(1.0)
    assert one_cycle(1.0, 1.0) == pytest.approx(1.0)


# The task


def make_batch(size: int = 4) -> MultimodalBatch:
    """Return a batch whose label is a simple function of what is seen."""
    chance = torch.Generator().manual_seed(0)
    spot = torch.randint(0, 2, (size, 1, 4, 4), generator=chance).repeat_interleave(8, 2)
    spot = spot.repeat_interleave(8, 3).expand(-1, 4, -1, -1) * 800 + 100
    labels = torch.where(spot[:, 0] > 500, 8, 6).to(torch.uint8)
    labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    days = torch.arange(18000, 18360, 60).expand(size, 6)
    return MultimodalBatch(
        inputs={"spot_rgbi": spot.to(torch.uint16), "sentinel2_ts": torch.zeros(size, 6, 10, 5, 5)},
        labels={"cosia": labels},
        days={"sentinel2_ts": days},
        lengths={"sentinel2_ts": torch.tensor([6, 6, 3, 1])[:size]},
        present={
            "spot_rgbi": torch.ones(size, dtype=torch.bool),
            "sentinel2_ts": torch.tensor([True, False, True, True])[:size],
        },
        windows=(PatchWindow("D012-2019", "AF-S1-27", Extent(0, 0, 51.2, 51.2)),) * size,
    )


def make_task(tmp_path: Path) -> SegmentationTask:
    torch.manual_seed(0)
    statistics = {"sentinel2_ts": Statistics((0.0,) * 10, (1.0,) * 10, "made up")}
    counts = {"cosia": [1] * len(COSIA)}
    return SegmentationTask.create(make_config(tmp_path, tmp_path), statistics, counts)


def test_a_tiny_batch_is_learnt_by_heart(tmp_path: Path) -> None:
    task, batch = make_task(tmp_path).train(), make_batch()
    optimiser = torch.optim.AdamW(task.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = task.loss(task(batch), batch.labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10
    found = task.eval()(batch)["cosia"].argmax(dim=1)
    assert (found == batch.labels["cosia"]).float().mean() > 0.95


def test_scores_are_at_the_labels_resolution_or_the_inputs(tmp_path: Path) -> None:
    task, batch = make_task(tmp_path).eval(), make_batch()
    assert task(batch)["cosia"].shape == (4, 19, 256, 256)
    unlabelled = MultimodalBatch(
        batch.inputs, {}, batch.days, batch.lengths, batch.present, batch.windows
    )
    assert task(unlabelled)["cosia"].shape == (4, 19, 32, 32)


# Runs


def test_every_option_of_the_model_travels_with_its_checkpoint(
    store_root: Path, tmp_path: Path
) -> None:
    options = {
        "series_encoder": "utae",
        "decoder": "upernet",
        "auxiliary": 0.4,
        "modality_dropout": {"sentinel2_ts": 0.5},
    }
    config = make_config(store_root, tmp_path, model=options, training={"max_steps": 2})
    task = load_task(train(config).checkpoint)
    fresh = SegmentationTask(**task.hparams).model.state_dict()
    learnt = {k for k, v in task.model.state_dict().items() if not torch.equal(v, fresh[k])}
    assert {name.partition(".")[0] for name in learnt} >= {"auxiliary", "tokens", "series"}
    assert task.loss.auxiliary == 0.4


def test_a_run_leaves_its_files_and_scores(result: TrainingResult) -> None:
    names = {path.name for path in result.folder.iterdir()}
    assert names == {"config.yaml", "model.ckpt", "last.ckpt", "log"}
    assert result.steps == 3
    assert result.scores["cosia"].pixels > 0
    assert (result.folder / "log" / "version_0" / "metrics.csv").stat().st_size > 0
    written = yaml.safe_load((result.folder / "config.yaml").read_text("utf-8"))
    assert parse_config(written) == load_task(result.checkpoint).config


def test_a_checkpoint_gives_the_same_scores_again(result: TrainingResult) -> None:
    assert evaluate(result.checkpoint, "valid") == dict(result.scores)
    task = load_task(result.checkpoint)
    assert not task.training
    assert sum(p.numel() for p in task.model.parameters()) == result.parameters


def test_checkpoints_hold_plain_data_only(result: TrainingResult) -> None:
    for path in (result.checkpoint, result.folder / "last.ckpt"):
        found = torch.load(path, weights_only=True)
        assert found["hyper_parameters"]["config"]["data"]["labels"] == ["cosia"]


def test_training_is_repeatable(result: TrainingResult, store_root: Path, tmp_path: Path) -> None:
    again = train(make_config(store_root, tmp_path))
    assert_same_weights(again.checkpoint, result.checkpoint)
    other = train(make_config(store_root, tmp_path / "other", training={"seed": 1, "max_steps": 1}))
    with pytest.raises(AssertionError):
        assert_same_weights(other.checkpoint, result.checkpoint)


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    store_root: Path, tmp_path: Path
) -> None:
    changes = {"max_steps": None, "max_epochs": 2, "validate_every": 1}
    data = {"batch_size": 8}
    whole = train(make_config(store_root, tmp_path / "whole", data=data, training=changes))
    config = make_config(store_root, tmp_path / "cut", data=data, training=changes)

    def interrupt(_done: float, step: int, _loss: float) -> None:
        if step > whole.steps // 2:
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(config, progress=interrupt)
    with pytest.raises(ConfigError, match="holds a run already"):
        train(config)
    changed = config.model_copy(
        update={"model": config.model.model_copy(update={"decoder": "upernet"})}
    )
    with pytest.raises(ConfigError, match="other values of model"):
        train(changed, resume=True)
    resumed = train(config, resume=True)
    assert resumed.steps == whole.steps
    assert_same_weights(resumed.folder / "last.ckpt", whole.folder / "last.ckpt")
    assert resumed.scores == whole.scores


def test_a_run_that_max_steps_ended_goes_on_with_what_was_still_to_come(
    store_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Sequence[PatchWindow]] = []
    step = SegmentationTask.training_step

    def noted(self: SegmentationTask, batch: MultimodalBatch, *arguments: Any) -> Any:  # noqa: ANN401
        seen.append(batch.windows)
        return step(self, batch, *arguments)

    monkeypatch.setattr(SegmentationTask, "training_step", noted)

    def taken(name: str, steps: int, *, resume: bool = False) -> list[Sequence[PatchWindow]]:
        seen.clear()
        data = {"batch_size": 8}
        config = make_config(store_root, tmp_path / name, data=data, training={"max_steps": steps})
        assert train(config, resume=resume).steps == steps
        return list(seen)

    plan = FlairDataModule(
        make_config(store_root, tmp_path, data={"batch_size": 8}).data
    ).train_plan
    epoch = len(plan) // 8
    whole = taken("whole", 2 * epoch + 1)
    for cut in (1, epoch, epoch + 1):
        begun = taken(str(cut), cut)
        assert begun + taken(str(cut), len(whole), resume=True) == whole, cut
    assert taken("whole", len(whole), resume=True) == []


def assert_same_weights(one: Path, other: Path) -> None:
    mine, theirs = (torch.load(p, weights_only=True)["state_dict"] for p in (one, other))
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        assert torch.equal(value, theirs[key]), key


def test_minutes_end_a_run(store_root: Path, tmp_path: Path) -> None:
    limits = {"max_minutes": 0.0001, "max_steps": None, "max_epochs": 1000}
    shares: list[float] = []
    found = train(
        make_config(store_root, tmp_path, training=limits),
        progress=lambda done, _step, _loss: shares.append(done),
    )
    assert found.steps == 1
    assert shares == [1.0]


def test_a_split_without_windows_is_refused_first(store_root: Path, tmp_path: Path) -> None:
    config = make_config(store_root, tmp_path / "run", data={"window_m": 5120.0})
    with pytest.raises(PlanError):
        train(config)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_is_all_there_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, io = tmp_path / "model.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"step": 1}, path)

    def killed(_self: object, _checkpoint: object, partial: str, _options: object) -> None:
        Path(partial).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(TorchCheckpointIO, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        io.save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}


class Bomb:
    """What a hostile file would hold."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


@pytest.fixture
def bad_checkpoints(tmp_path: Path, result: TrainingResult) -> dict[str, Path]:
    paths = {
        name: tmp_path / f"{name}.ckpt" for name in ("text", "bomb", "other", "misfit", "half")
    }
    paths["text"].write_text("not a checkpoint")
    torch.save({"state_dict": Bomb()}, paths["bomb"])
    torch.save({"state_dict": {}}, paths["other"])
    found = torch.load(result.checkpoint, weights_only=True)
    found["state_dict"].popitem()
    torch.save(found, paths["misfit"])
    paths["half"].write_bytes(result.checkpoint.read_bytes()[:1000])
    return paths | {"nowhere": tmp_path / "nowhere.ckpt"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nowhere", "There is no checkpoint"),
        ("text", "cannot be read as a checkpoint"),
        ("half", "cannot be read as a checkpoint"),
        ("bomb", "cannot be read as a checkpoint"),
        ("other", "lacks hyper_parameters"),
        ("misfit", "Missing key"),
    ],
)
def test_bad_checkpoints_are_refused(
    bad_checkpoints: dict[str, Path],
    name: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=expected) as caught:
        load_task(bad_checkpoints[name])
    assert str(bad_checkpoints[name]) in str(caught.value)
    assert not Path("exploded").exists()


def test_unknown_splits_are_refused(result: TrainingResult) -> None:
    with pytest.raises(PlanError, match="'test'"):
        evaluate(result.checkpoint, "tset")


# Commands


def test_commands_train_and_evaluate(
    store_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    plain = make_config(store_root, tmp_path / "run").to_plain()
    config.write_text(yaml.safe_dump(plain), encoding="utf-8")
    assert command(["train", str(config), "--max-steps", "1", "--json"]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert trained["steps"] == 1
    assert command(["evaluate", trained["checkpoint"], "--split", "valid", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["cosia"] == trained["scores"]["cosia"]
    assert command(["evaluate", trained["checkpoint"]]) == 0
    shown = capsys.readouterr().out
    assert "mean IoU" in shown
    assert "overall accuracy" in shown
    assert command(["train", str(config)]) == 1
    assert "--resume" in capsys.readouterr().err


def test_wrong_usage_and_failures_have_their_exit_codes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("data: {root: a, modalities: [dem_elev]}\ntraining: {learnig_rate: 1}")
    assert command(["train", str(config)]) == 1
    message = capsys.readouterr().err
    assert "training.learnig_rate" in message
    assert "'learning_rate'" in message
    assert command(["train"]) == 2
    assert command(["evaluate", "x", "--split", "tset"]) == 2
    assert command(["evaluate", str(tmp_path / "nowhere.ckpt")]) == 1


# The point of it


def test_a_short_training_beats_a_map_of_one_class(store_root: Path, tmp_path: Path) -> None:
    """On a domain that training never saw; the baseline is scored on the same pixels."""
    config = make_config(
        store_root,
        tmp_path,
        data={"modalities": ["aerial_rgbi", "dem_elev"], "batch_size": 4},
        training={"max_steps": 40, "learning_rate": 4e-3},
    )
    scores = evaluate(train(config).checkpoint, "test")["cosia"]
    assert scores.accuracy > scores.baseline_accuracy + 0.15
    assert scores.mean_iou > 2 * scores.baseline_mean_iou
