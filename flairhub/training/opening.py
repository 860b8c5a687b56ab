"""Runs for `flairhub.models.opening`: checkpoints, and configurations before any training."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch

from flairhub.config import DataConfig, RunConfig, load_config
from flairhub.modalities import Kind, get_modality
from flairhub.models import MultimodalSegmenter, build_model
from flairhub.models.opening import Opened
from flairhub.models.signatures import signature_of
from flairhub.preparation.physical import channel_names
from flairhub.training.task import load_task


def open_run(path: Path) -> Opened | None:
    """Open a checkpoint of `flairhub train`, or the network that it would build.

    Parameters
    ----------
    path
        A checkpoint; or a configuration (``.yaml``), whose network is on ``meta``.

    Returns
    -------
    Opened or None
        At the size of the windows of training; None for other files.

    Raises
    ------
    CheckpointError, ConfigError
        If a file of ours is damaged.
    """
    if path.suffix in (".yaml", ".yml"):
        config = load_config(path)
        channels = _channels(config.data)
        model = config.model.model_copy(update={"pretrained": False})
        with torch.device("meta"):
            network = build_model(model, tuple(channels), channels, config.data.labels).eval()
        return _opened(network, config)
    if not _is_ours(path):
        return None
    task = load_task(path)
    return _opened(task.model, task.config)


def _channels(data: DataConfig) -> dict[str, int]:
    """Return the number of prepared channels by modality; needs no statistics."""
    masks = data.preparation.mode != "ign"  # else they choose dates and are no input
    return {
        key: len(channel_names(key, data.bands_of(key), data.preparation))
        for key in data.modalities
        if masks or get_modality(key).kind is not Kind.MASK
    }


def _opened(network: MultimodalSegmenter, config: RunConfig) -> Opened:
    sides = {key: round(config.data.window_m / get_modality(key).resolution_m)
             for key in network.bands}  # fmt: skip
    return Opened(network, signature_of(network, sizes={k: (n, n) for k, n in sides.items()}))


def _is_ours(path: Path) -> bool:
    """Tell whether a file says that `flairhub train` wrote it; reads no weights."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError):
        return False
    return isinstance(found, dict) and "flairhub" in found
