"""The run configuration: one YAML file with ``data``, ``model``, ``training``, checked first."""

from flairhub.config.loading import load_config, parse_config
from flairhub.config.preparation import CloudFilter, PreparationConfig
from flairhub.config.sections import DataConfig, ModelConfig, RunConfig, TrainingConfig

__all__ = [
    "CloudFilter",
    "DataConfig",
    "ModelConfig",
    "PreparationConfig",
    "RunConfig",
    "TrainingConfig",
    "load_config",
    "parse_config",
]
