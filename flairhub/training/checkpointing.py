"""Files of a run: which exist, when they are written, and that none is ever seen half written.

::

    <output>/config.yaml                 the configuration with absolute paths
    <output>/model.ckpt                  the weights with the highest mean IoU on the valid split
    <output>/last.ckpt                   after every epoch and at the end; what a resumed run
                                         continues from
    <output>/log/version_0/metrics.csv   losses and scores by step
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from flairhub.config import RunConfig
from flairhub.errors import ConfigError
from flairhub.training.metrics import Scores, mean_over_labels
from flairhub.training.task import SegmentationTask


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint under another name and rename it: all of it is there, or nothing."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None
    ) -> None:
        """Save to ``<path>.partial`` beside `path`, then replace `path`."""
        partial = f"{path}.partial"
        super().save_checkpoint(checkpoint, partial, storage_options)
        os.replace(partial, path)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where the files of one run lie."""

    path: Path

    @property
    def config(self) -> Path:
        """The configuration."""
        return self.path / "config.yaml"

    @property
    def model(self) -> Path:
        """The checkpoint with the highest validation score."""
        return self.path / "model.ckpt"

    @property
    def last(self) -> Path:
        """The checkpoint that a resumed run continues from."""
        return self.path / "last.ckpt"

    def check(self, *, resume: bool) -> None:
        """Raise `ConfigError` if another run lies here that is not to be resumed."""
        if self.last.exists() and not resume:
            msg = (
                f"{self.path} holds a run already. Continue it with --resume, or choose another "
                "training.output."
            )
            raise ConfigError(msg)

    def prepare(self, config: RunConfig) -> None:
        """Make the folder and write the configuration."""
        self.path.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(config.to_plain(), sort_keys=False, allow_unicode=True)
        partial = self.config.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, self.config)


class KeepCheckpoints(Callback):
    """Save ``last.ckpt`` after every epoch and ``model.ckpt`` after every better validation.

    Parameters
    ----------
    folder
        Where to.

    Attributes
    ----------
    best_scores : dict of Scores
        Of ``model.ckpt``; empty when it was written before a resumption.
    validated_step : int
        Step of the last validation, -1 before.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.best_scores: dict[str, Scores] = {}
        self.validated_step = -1
        self._best = float("-inf")
        self._inside = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights if no earlier ones were better."""
        self.validated_step = trainer.global_step
        scores = cast("SegmentationTask", pl_module).scores
        found = mean_over_labels(scores.values())
        if not found <= self._best:  # so that NaN, of a split without labels, counts as better
            self._best, self.best_scores = found, scores
            trainer.save_checkpoint(self.folder.model)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *arguments: object
    ) -> None:
        """Keep the place where a limit ends the run: afterwards the epoch counts as complete."""
        over = cast("SegmentationTask", pl_module).is_over
        self._inside = over and cast("int", arguments[2]) + 1 < trainer.num_training_batches
        if self._inside:
            trainer.save_checkpoint(self.folder.last)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what a resumed run needs."""
        if not self._inside:
            trainer.save_checkpoint(self.folder.last)

    def state_dict(self) -> dict[str, float]:
        """Return what a resumed run must know."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Take it over."""
        self._best = state_dict["best"]
