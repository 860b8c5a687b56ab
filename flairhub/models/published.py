"""From the id of a published model, or options of one's own, to its network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, overload

from flairhub.models.flair.build import build_baseline
from flairhub.models.ign.network import IgnNetwork
from flairhub.models.ign.options import IgnOptions
from flairhub.models.zoo import get_card


@overload
def build(model: IgnOptions, **changes: Any) -> IgnNetwork: ...  # noqa: ANN401
@overload
def build(model: str, **changes: Any) -> Any: ...  # noqa: ANN401 - the id decides
def build(model: str | IgnOptions, **changes: Any) -> Any:
    """Build a network of IGN's form with fresh weights.

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
        If options do not fit each other.

    Examples
    --------
    >>> sum(p.numel() for p in build("LC-G").parameters())
    922487
    """
    if isinstance(model, IgnOptions):
        return IgnNetwork(replace(model, **changes))
    card = get_card(model)
    if card.family == "flair-hub":
        return IgnNetwork(IgnOptions.of(card, **changes))
    return build_baseline(card, **changes)
