"""From the id of a published model, or options of one's own, to its network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flairhub.models.ign.network import IgnNetwork
from flairhub.models.ign.options import IgnOptions
from flairhub.models.zoo import get_card


def build(model: str | IgnOptions, **changes: Any) -> IgnNetwork:  # noqa: ANN401
    """Build a network of IGN's form with fresh weights.

    Parameters
    ----------
    model
        Id of a published model, such as ``LC-A``, or the options of any other.
    **changes
        Options that differ, by name: ``encoder="resnet34"``, ``aux=("aerial_rgbi",)``.

    Returns
    -------
    IgnNetwork
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
    return IgnNetwork(IgnOptions.of(get_card(model), **changes))
