"""Networks: tensors in, class scores out. No store, no batches, no training in here."""

from flairhub.models.build import build_model
from flairhub.models.segmenter import MultimodalSegmenter

__all__ = ["MultimodalSegmenter", "build_model"]
