"""A model, its preparation and its loss as one Lightning module, and how to load it again."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

import flairhub
from flairhub.batches.batch import MultimodalBatch
from flairhub.config import RunConfig, parse_config
from flairhub.errors import CheckpointError, ConfigError
from flairhub.modalities import Statistics
from flairhub.models import build_model
from flairhub.models.scores import Scores as ModelScores
from flairhub.nomenclatures import get_nomenclature
from flairhub.preparation.build import build_preparation
from flairhub.preparation.symmetries import augment
from flairhub.training.losses import SegmentationLoss
from flairhub.training.metrics import (
    Scores,
    confusion_matrix,
    majority_class,
    mean_over_labels,
    score,
)
from flairhub.training.schedule import one_cycle


class SegmentationTask(LightningModule):
    """Learn class maps from batches as they are streamed.

    All arguments are plain data: they travel with the checkpoint, which therefore loads with
    ``weights_only=True`` and needs nothing else to be rebuilt. `create` takes the typed ones.

    Parameters
    ----------
    config
        `RunConfig.to_plain`.
    statistics
        Measured statistics by modality, as dicts: see `flairhub.modalities.Statistics`.
    class_counts
        Training pixels of every class, by nomenclature key.

    Attributes
    ----------
    config : RunConfig
        Of the run.
    scores : dict of Scores
        By nomenclature key, of the last validation or test; empty before.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        statistics: Mapping[str, Mapping[str, Any]],
        class_counts: Mapping[str, Sequence[int]],
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.config: RunConfig = parse_config(config)
        data, training = self.config.data, self.config.training
        measured = {key: Statistics(**values) for key, values in statistics.items()}
        self.preparation = build_preparation(data, measured)
        channels = {key: len(names) for key, names in self.preparation.channels.items()}
        self.model = build_model(self.config.model, tuple(channels), channels, data.labels)
        self.loss = SegmentationLoss(
            class_counts,
            class_balance=training.class_balance,
            task_weights=training.task_weights,
            label_smoothing=training.label_smoothing,
            auxiliary=self.config.model.auxiliary,
        )
        self.majority = {
            key: majority_class(counts, get_nomenclature(key))
            for key, counts in class_counts.items()
        }
        self.scores: dict[str, Scores] = {}
        self._matrices: dict[str, Tensor] = {}
        self._began: float | None = None
        self._elapsed_s = 0.0

    @classmethod
    def create(
        cls,
        config: RunConfig,
        statistics: Mapping[str, Statistics],
        class_counts: Mapping[str, Sequence[int]],
    ) -> SegmentationTask:
        """Build a fresh task; raises `ConfigError` if the network cannot be built."""
        plain = {
            key: {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(s).items()}
            for key, s in statistics.items()
        }
        counts = {key: list(map(int, values)) for key, values in class_counts.items()}
        return cls(config.to_plain(), plain, counts)

    def forward(self, batch: MultimodalBatch) -> dict[str, Tensor]:
        """Return scores before softmax for a batch as streamed, on this module's device.

        Returns
        -------
        dict of Tensor, shape (B, classes, H, W), float32
            By nomenclature key, at the resolution of the labels where the batch has some, else at
            that of the finest modality.
        """
        return self._classify(self.preparation(batch)).main

    def training_step(self, batch: MultimodalBatch, _batch_index: int) -> Tensor:
        """Return the loss of one batch, turned and flipped by chance."""
        if self.config.training.augment:
            batch = augment(batch, self._generator())  # before: stored pixels are fewer bytes
        ready = self.preparation(batch)
        scores = self._classify(ready)
        loss: Tensor = self.loss(scores.main, ready.labels, scores.aux, _present(ready))
        self.log("train_loss", loss.detach(), batch_size=len(batch))
        return loss

    def validation_step(self, batch: MultimodalBatch, _batch_index: int) -> None:
        """Add a batch to the scores."""
        scores = self(batch)
        loss = self.loss(scores, batch.labels)
        self.log("valid_loss", loss, batch_size=len(batch), on_epoch=True, sync_dist=True)
        self._count(scores, batch)

    def test_step(self, batch: MultimodalBatch, _batch_index: int) -> None:  # noqa: PT019
        """Add a batch to the scores."""
        self._count(self(batch), batch)

    def on_validation_epoch_start(self) -> None:
        """Forget earlier counts."""
        self._matrices = {}

    def on_test_epoch_start(self) -> None:
        """Forget earlier counts."""
        self._matrices = {}

    def on_validation_epoch_end(self) -> None:
        """Turn counts into scores and log them."""
        self._score()
        for label, scores in self.scores.items():
            self.log(f"valid_accuracy_{label}", scores.accuracy)
            self.log(f"valid_miou_{label}", scores.mean_iou)
        self.log("valid_miou", mean_over_labels(self.scores.values()))

    def on_test_epoch_end(self) -> None:
        """Turn counts into scores."""
        self._score()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return AdamW and its one cycle; norms and biases do not decay."""
        training = self.config.training
        groups = [
            {"params": list(_decaying(self.model, True)), "weight_decay": training.weight_decay},
            {"params": list(_decaying(self.model, False)), "weight_decay": 0.0},
        ]
        fused = training.precision != "16-mixed"  # a fused step unscales, so clipping comes late
        optimiser = torch.optim.AdamW(groups, lr=training.learning_rate, fused=fused)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: one_cycle(self.progress(step), training.warmup)
        )
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def progress(self, step: int) -> float:
        """Return the share of the run that is done at a step, by steps or by time."""
        steps = self.trainer.estimated_stepping_batches
        shares = [step / max(1, min(steps, self.config.training.max_steps or steps))]
        limit = self.config.training.max_minutes
        if limit is not None:
            shares.append(self.elapsed_s / (60 * limit))
        return max(shares)

    @property
    def elapsed_s(self) -> float:
        """Seconds spent in training, those before a resumption included."""
        running = 0.0 if self._began is None else time.monotonic() - self._began
        return self._elapsed_s + running

    def on_train_start(self) -> None:
        """Start the clock; do nothing more if a resumed run is over already."""
        self._began = time.monotonic()
        self.trainer.should_stop |= self.is_over

    def on_train_end(self) -> None:
        """Stop it."""
        self._elapsed_s, self._began = self.elapsed_s, None

    @property
    def is_over(self) -> bool:
        """Whether ``max_steps`` are taken or ``max_minutes`` gone.

        Lightning's own limit of steps would begin a resumed run with one step of the next epoch and
        skip its rest, where the limit had fallen on the end of an epoch.
        """
        steps, minutes = self.config.training.max_steps, self.config.training.max_minutes
        return (steps is not None and self.trainer.global_step >= steps) or (
            minutes is not None and self.elapsed_s >= 60 * minutes
        )

    def on_train_batch_end(self, *_: object) -> None:
        """Stop at a limit."""
        self.trainer.should_stop |= self.is_over

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note what a resumed run must know, and who wrote the file."""
        checkpoint["flairhub"] = {
            "version": flairhub.__version__,
            "elapsed_s": self.elapsed_s,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the time that was spent before."""
        self._elapsed_s = float(checkpoint["flairhub"]["elapsed_s"])

    def _classify(self, ready: MultimodalBatch) -> ModelScores:
        # Labels are finer than the inputs where no 20 cm raster is among these.
        sizes = {(labels.shape[-2], labels.shape[-1]) for labels in ready.labels.values()}
        present = {key: ready.present[key] for key in ready.inputs}  # labels have flags too
        found: ModelScores = self.model(
            ready.inputs, ready.days, ready.lengths, present, max(sizes, default=None)
        )
        return found

    def _count(self, scores: Mapping[str, Tensor], batch: MultimodalBatch) -> None:
        for label, found in scores.items():
            matrix = confusion_matrix(
                batch.labels[label], found.argmax(dim=1), get_nomenclature(label)
            )
            self._matrices[label] = self._matrices.get(label, torch.zeros_like(matrix)) + matrix

    def _score(self) -> None:
        self.scores = {
            label: score(
                self.trainer.strategy.reduce(matrix, reduce_op="sum").cpu().numpy(),
                get_nomenclature(label),
                self.majority[label],
            )
            for label, matrix in self._matrices.items()
        }

    def _generator(self) -> torch.Generator:
        """Return chance that depends on seed, step and device only: a resumed run repeats it."""
        entropy = (self.config.training.seed, self.global_step, self.global_rank)
        state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0]))


def _present(ready: MultimodalBatch) -> dict[str, Tensor]:
    """Return which samples have a modality; a series of no date is absent."""
    lengths = ready.lengths
    return {k: has & (lengths[k] > 0) if k in lengths else has for k, has in ready.present.items()}


def _decaying(model: nn.Module, wanted: bool) -> Iterator[nn.Parameter]:
    """Yield weights of convolutions and linear layers, or all others: those of one axis."""
    return (p for p in model.parameters() if p.requires_grad and (p.dim() > 1) is wanted)


def load_task(path: str | Path) -> SegmentationTask:
    """Rebuild a trained task from a checkpoint; runs no code that the file might hold.

    Parameters
    ----------
    path
        A checkpoint of `flairhub.training.run.train`.

    Returns
    -------
    SegmentationTask
        On the CPU, in evaluation mode.

    Raises
    ------
    CheckpointError
        If the file does not exist, is no checkpoint of ours, or does not fit its own description.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        msg = f"There is no checkpoint {path}."
        raise CheckpointError(msg) from error
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        msg = f"{path} cannot be read as a checkpoint: {error}"
        raise CheckpointError(msg) from error
    parts = ("hyper_parameters", "state_dict", "flairhub")
    missing = [p for p in parts if not isinstance(found, dict) or p not in found]
    if missing:
        msg = f"{path} is not a checkpoint of flairhub: it lacks {', '.join(missing)}."
        raise CheckpointError(msg)
    try:
        task = SegmentationTask(**_offline(found["hyper_parameters"]))
        task.load_state_dict(found["state_dict"])
    except (ConfigError, RuntimeError, TypeError) as error:
        written = found["flairhub"].get("version", "unknown")
        msg = (
            f"{path}, written by flairhub {written}, does not fit this version "
            f"({flairhub.__version__}): {error}"
        )
        raise CheckpointError(msg) from error
    return task.eval()


def _offline(hyper_parameters: dict[str, Any]) -> dict[str, Any]:
    """Do not fetch published weights that the checkpoint is about to replace."""
    config = hyper_parameters["config"]
    model = {**config["model"], "pretrained": False}
    return {**hyper_parameters, "config": {**config, "model": model}}
