"""From the card of a baseline, or options of one's own, to its network."""

from __future__ import annotations

from typing import Any

from flairhub.models.flair.options import FlairOptions
from flairhub.models.flair.unet import FlairUnet
from flairhub.models.flair.utt import TextureTime
from flairhub.models.zoo import ModelCard


def build_baseline(card: ModelCard, **changes: Any) -> FlairUnet | TextureTime:  # noqa: ANN401
    """Build a baseline of FLAIR#1 or FLAIR#2 with fresh weights.

    Parameters
    ----------
    card
        Of the registry.
    **changes
        Fields of `FlairOptions` that differ: ``classes=19``, ``metadata="own"``.

    Returns
    -------
    FlairUnet or TextureTime
        In training mode. Under ``torch.device("meta")`` it takes no memory.

    Raises
    ------
    ConfigError
        If the model is no baseline, or options are not what they can be.
    """
    options = FlairOptions.of(card, **changes)
    return TextureTime(options) if options.series_bands else FlairUnet(options)
