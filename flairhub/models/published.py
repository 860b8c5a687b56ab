"""From the id of a published model, or options of one's own, to its network."""

from __future__ import annotations

from typing import Any, overload

from flairhub.errors import ConfigError
from flairhub.models.flair.options import FlairOptions
from flairhub.models.flair.unet import FlairUnet
from flairhub.models.flair.utt import TextureTime
from flairhub.models.ign.network import IgnNetwork
from flairhub.models.ign.options import IgnOptions
from flairhub.models.registry import import_own_blocks
from flairhub.models.zoo import ModelCard, get_card

ModelOptions = IgnOptions | FlairOptions
"""Everything that decides the names, shapes and numbers of a published network, or one like it."""


def options_of(card: ModelCard, **changes: Any) -> ModelOptions:  # noqa: ANN401
    """Return the options of a published model, some of them changed; see `build`."""
    return (IgnOptions if card.family == "flair-hub" else FlairOptions).of(card, **changes)


@overload
def build(model: IgnOptions, **changes: Any) -> IgnNetwork: ...  # noqa: ANN401
@overload
def build(model: FlairOptions, **changes: Any) -> FlairUnet | TextureTime: ...  # noqa: ANN401
@overload
def build(model: str, **changes: Any) -> Any: ...  # noqa: ANN401 - the id decides
def build(model: str | ModelOptions, **changes: Any) -> Any:
    """Build a network of IGN's form, or a baseline of FLAIR#1 or FLAIR#2, with fresh weights.

    Parameters
    ----------
    model
        Id of a published model, such as ``LC-A``, or the options of any other.
    **changes
        Options that differ, by name: ``encoder="resnet34"``, ``aux=("aerial_rgbi",)``; of the
        baselines of FLAIR#1 and FLAIR#2 those of `flairhub.models.flair.FlairOptions`.

    Returns
    -------
    IgnNetwork, FlairUnet or TextureTime
        In training mode. Under ``torch.device("meta")`` it takes no memory.

    Raises
    ------
    UnknownNameError
        If there is no such model or modality.
    ConfigError
        If there is no such option, or options do not fit each other.

    Examples
    --------
    >>> sum(p.numel() for p in build("LC-G").parameters())
    922487
    """
    import_own_blocks()
    given = options_of(get_card(model)) if isinstance(model, str) else model
    if not isinstance(given, ModelOptions):
        msg = f"build takes the id of a published model, IgnOptions or FlairOptions; got {model!r}."
        raise ConfigError(msg)
    options = given.changed(**changes)
    if isinstance(options, IgnOptions):
        return IgnNetwork(options)
    return TextureTime(options) if options.series_bands else FlairUnet(options)
