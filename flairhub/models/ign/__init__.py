"""The network of FLAIR-HUB in IGN's form, one block a module: its weights fit unchanged."""

from flairhub.models.ign.network import IgnNetwork
from flairhub.models.ign.options import IgnOptions

__all__ = ["IgnNetwork", "IgnOptions"]
