"""Checkpoints without training."""

from __future__ import annotations

from pathlib import Path

import torch

import flairhub
from flairhub.training.task import SegmentationTask


def write_checkpoint(task: SegmentationTask, path: Path) -> Path:
    """Write a task as `flairhub train` does."""
    content = {
        "state_dict": task.state_dict(),
        "hyper_parameters": dict(task.hparams),
        "flairhub": {"version": flairhub.__version__, "elapsed_s": 0.0},
    }
    torch.save(content, path)
    return path
