"""What every network returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Scores(NamedTuple):
    """Scores before softmax, each (B, classes, H, W).

    Attributes
    ----------
    main
        By class set.
    aux
        By modality and class set, ``"spot_rgbi/cosia"``; empty where not asked for.
    """

    main: dict[str, Tensor]
    aux: dict[str, Tensor]
