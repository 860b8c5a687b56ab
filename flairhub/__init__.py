"""FLAIR-HUB as cloud-native datacubes: open, plan, stream, train, predict.

Everything here is loaded on first use, so that ``import flairhub`` stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flairhub.lazy import attach

if TYPE_CHECKING:
    from flairhub.batches.batch import MultimodalBatch
    from flairhub.batches.loader import StreamLoader
    from flairhub.batches.plan import PatchPlan
    from flairhub.batches.streaming import stream
    from flairhub.errors import FlairHubError
    from flairhub.ids import DomainId, PatchId, RoiId
    from flairhub.inference.predict import predict
    from flairhub.modalities import MODALITIES, get_modality
    from flairhub.nomenclatures import NOMENCLATURES, get_nomenclature
    from flairhub.store.reading import open_domain, open_roi

__version__ = "0.1.0"

_HOMES = {
    "DomainId": "ids",
    "FlairHubError": "errors",
    "MODALITIES": "modalities",
    "MultimodalBatch": "batches.batch",
    "NOMENCLATURES": "nomenclatures",
    "PatchId": "ids",
    "PatchPlan": "batches.plan",
    "RoiId": "ids",
    "StreamLoader": "batches.loader",
    "get_modality": "modalities",
    "get_nomenclature": "nomenclatures",
    "open_domain": "store.reading",
    "open_roi": "store.reading",
    "predict": "inference.predict",
    "stream": "batches.streaming",
}

__all__ = [
    "MODALITIES",
    "NOMENCLATURES",
    "DomainId",
    "FlairHubError",
    "MultimodalBatch",
    "PatchId",
    "PatchPlan",
    "RoiId",
    "StreamLoader",
    "__version__",
    "get_modality",
    "get_nomenclature",
    "open_domain",
    "open_roi",
    "predict",
    "stream",
]

__getattr__, __dir__ = attach(__name__, _HOMES)
