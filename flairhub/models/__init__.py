"""Networks: tensors in, class scores out. No store, no batches, no training in here."""

from flairhub.models.factory import build_model
from flairhub.models.ign import IgnNetwork, IgnOptions
from flairhub.models.published import build
from flairhub.models.segmenter import MultimodalSegmenter

__all__ = ["IgnNetwork", "IgnOptions", "MultimodalSegmenter", "build", "build_model"]
