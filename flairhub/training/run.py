"""A whole run: from a configuration to a checkpoint and its scores."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from flairhub.batches.datamodule import FlairDataModule
from flairhub.batches.streaming import stream
from flairhub.config import RunConfig
from flairhub.errors import ConfigError, PlanError, did_you_mean
from flairhub.preparation.statistics import run_statistics
from flairhub.training.checkpointing import AtomicCheckpointIO, KeepCheckpoints, RunFolder
from flairhub.training.frequencies import class_counts
from flairhub.training.metrics import Scores, summary
from flairhub.training.task import SegmentationTask, load_task

logger = logging.getLogger(__name__)

_BARE: dict[str, Any] = {
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}
"""What Lightning does by default and this module does itself, or not."""

Progress = Callable[[float, int, float], None]
"""Called after every step with the share of the run that is done, the step, and the loss."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a run leaves behind.

    Parameters
    ----------
    checkpoint
        The best one: for `load_task`, `evaluate` and prediction.
    folder
        Of the run.
    scores
        Of that checkpoint on the validation split, by nomenclature key.
    steps
        Optimiser steps taken, those before a resumption included.
    seconds
        Spent in training steps and validation, without reading statistics before.
    parameters
        Trainable numbers of the model.
    """

    checkpoint: Path
    folder: Path
    scores: Mapping[str, Scores]
    steps: int
    seconds: float
    parameters: int


def train(
    config: RunConfig, *, resume: bool = False, progress: Progress | None = None
) -> TrainingResult:
    """Train a model as a configuration says.

    The order of windows, their augmentation and the initial weights follow from the seed. A run
    that was stopped goes on from its last epoch with `resume`, one that ``max_steps`` or
    ``max_minutes`` ended from where it was, with the windows that were still to come. It gives what
    it would have given, if those limits, which the learning rate follows, are the same.

    Parameters
    ----------
    config
        From `flairhub.config.load_config`.
    resume
        Continue the run in ``training.output`` if there is one.
    progress
        Called after every step.

    Raises
    ------
    ConfigError
        If the output folder holds another run, a network does not exist, or the file of
        statistics does not fit.
    PlanError, NotInStoreError
        If the data do not fit the configuration.
    """
    training = config.training
    folder = RunFolder(Path(training.output))
    data = FlairDataModule(config.data, seed=training.seed)
    continued = resume and folder.last.exists()
    folder.check(resume=resume)
    data.val_dataloader()  # a split without windows is to be refused before anything is computed
    task = _resumed(folder.last, config) if continued else _fresh(config, data)
    folder.prepare(config)
    keep = KeepCheckpoints(folder)
    callbacks: list[Callback] = [keep]
    if progress is not None:
        callbacks.append(_Report(progress))
    with _quiet():
        trainer = Trainer(
            accelerator=training.accelerator,
            devices=training.devices,
            precision=training.precision,
            max_epochs=training.max_epochs,
            gradient_clip_val=training.gradient_clip,
            check_val_every_n_epoch=training.validate_every,
            log_every_n_steps=1,
            logger=CSVLogger(folder.path, name="log"),
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            **_BARE,
        )
        start = str(folder.last) if continued else None
        trainer.fit(task, datamodule=data, ckpt_path=start, weights_only=True)
        seconds = task.elapsed_s
        if keep.validated_step != trainer.global_step:
            trainer.validate(task, datamodule=data, verbose=False)
    scores = keep.best_scores or evaluate(folder.model, "valid")
    logger.info("%s after %d steps: %s", folder.model, trainer.global_step, summary(scores))
    return TrainingResult(
        checkpoint=folder.model,
        folder=folder.path,
        scores=scores,
        steps=trainer.global_step,
        seconds=seconds,
        parameters=sum(p.numel() for p in task.model.parameters() if p.requires_grad),
    )


def evaluate(
    checkpoint: str | Path,
    split: str = "test",
    *,
    root: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Scores]:
    """Score a checkpoint on one split of its data, beside a map of the most frequent class.

    Parameters
    ----------
    checkpoint
        Of `train`.
    split
        ``train``, ``valid`` or ``test``, as the configuration maps them.
    root
        Where the stores lie now; where they lay in training when absent.
    progress
        Called after every batch with the share done, the batch, and NaN.

    Returns
    -------
    dict of Scores
        By nomenclature key.

    Raises
    ------
    CheckpointError
        If the checkpoint cannot be loaded.
    PlanError, NotInStoreError
        If the split has no windows, or the stores are gone.
    """
    task = load_task(checkpoint)
    config = task.config
    where = config.data if root is None else config.data.model_copy(update={"root": root})
    names = {"train": where.train_split, "valid": where.valid_split, "test": where.test_split}
    if split not in names:
        msg = f"There is no split {split!r}. {did_you_mean(split, names)}"
        raise PlanError(msg)
    plan = FlairDataModule(where).plan(names[split])
    batches = stream(plan, batch_size=where.batch_size, threads=where.threads)
    callbacks: list[Callback] = [] if progress is None else [_Report(progress)]
    with _quiet():
        trainer = Trainer(
            accelerator="cpu" if config.training.accelerator == "cpu" else "auto",
            devices=1,
            precision=config.training.precision,
            logger=False,
            callbacks=callbacks,
            **_BARE,
        )
        trainer.test(task, dataloaders=batches, verbose=False)
    logger.info("%s on %s: %s", checkpoint, split, summary(task.scores))
    return task.scores


def _fresh(config: RunConfig, data: FlairDataModule) -> SegmentationTask:
    """Measure what the task needs to know of the training split, and build it."""
    # first: a wrong file is to be refused at once
    statistics = run_statistics(config.data, data.train_plan)
    counts = class_counts(data.train_plan)
    seed_everything(config.training.seed, verbose=False)
    return SegmentationTask.create(config, statistics, counts)


def _resumed(checkpoint: Path, config: RunConfig) -> SegmentationTask:
    """Rebuild the task of an interrupted run, with the limits of today's configuration."""
    earlier = load_task(checkpoint)
    fixed = (
        "modalities", "bands", "statistics", "preparation", "labels", "window_m", "stride_m",
        "batch_size",
    )  # fmt: skip
    changed = [
        f"data.{k}" for k in fixed if getattr(earlier.config.data, k) != getattr(config.data, k)
    ]
    changed += ["model"] if earlier.config.model != config.model else []
    if changed:
        msg = (
            f"{checkpoint} was trained with other values of {', '.join(changed)}. Restore them to "
            "continue, or choose another training.output."
        )
        raise ConfigError(msg)
    parts = {k: earlier.hparams[k] for k in ("statistics", "class_counts")}
    return SegmentationTask(config.to_plain(), **parts)


class _Report(Callback):
    """Tell the caller how far a run is."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, *_: object
    ) -> None:
        task, loss = cast("SegmentationTask", pl_module), cast("dict[str, Tensor]", outputs)["loss"]
        done = min(1.0, task.progress(trainer.global_step))
        self.progress(done, trainer.global_step, float(loss))

    def on_test_batch_end(self, trainer: Trainer, *arguments: object) -> None:
        done = cast("int", arguments[3]) + 1
        self.progress(done / sum(trainer.num_test_batches), done, math.nan)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning from advertising itself; its warnings of substance still come through."""
    loud = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [one.level for one in loud]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated")  # Lightning's use of torch
        for one in loud:
            one.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for one, level in zip(loud, levels, strict=True):
                one.setLevel(level)
