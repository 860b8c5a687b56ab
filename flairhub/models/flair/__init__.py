"""Baselines of FLAIR#1 and FLAIR#2, one block a module; sources in ``docs/flair-baselines.md``."""

from flairhub.models.flair.classes import CLASS_VALUES, class_indices, class_values
from flairhub.models.flair.metadata import encode_metadata
from flairhub.models.flair.options import FlairOptions
from flairhub.models.flair.unet import FlairUnet
from flairhub.models.flair.utt import TextureTime

__all__ = [
    "CLASS_VALUES",
    "FlairOptions",
    "FlairUnet",
    "TextureTime",
    "class_indices",
    "class_values",
    "encode_metadata",
]
