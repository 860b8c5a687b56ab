"""Networks: tensors in, class scores out. No store, no batches, no training in here.

Everything is loaded on first use, so that what only lists models does without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flairhub.lazy import attach

if TYPE_CHECKING:
    from flairhub.models.factory import build_model
    from flairhub.models.ign import IgnNetwork, IgnOptions
    from flairhub.models.loading import load
    from flairhub.models.published import build
    from flairhub.models.recognition import identify
    from flairhub.models.saving import save
    from flairhub.models.segmenter import MultimodalSegmenter
    from flairhub.models.weights import LoadReport
    from flairhub.models.zoo import CARDS, get_card

_HOMES = {
    "CARDS": "zoo",
    "IgnNetwork": "ign",
    "IgnOptions": "ign",
    "LoadReport": "weights",
    "MultimodalSegmenter": "segmenter",
    "build": "published",
    "build_model": "factory",
    "get_card": "zoo",
    "identify": "recognition",
    "load": "loading",
    "save": "saving",
}

__all__ = [
    "CARDS",
    "IgnNetwork",
    "IgnOptions",
    "LoadReport",
    "MultimodalSegmenter",
    "build",
    "build_model",
    "get_card",
    "identify",
    "load",
    "save",
]

__getattr__, __dir__ = attach(__name__, _HOMES)
