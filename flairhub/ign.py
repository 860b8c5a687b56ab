"""What the loader of IGN's published networks feeds them: bands, statistics, reference day.

The default configuration of IGNF/FLAIR-HUB (``config_modalities.yaml``). The statistics belong to
channels by their position; where they are not those of the band, that is what the weights saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from flairhub.modalities import Statistics

_SOURCE = "IGNF/FLAIR-HUB, config_modalities.yaml"

BANDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"aerial_rgbi": ("nir", "red", "green"), "spot_rgbi": ("nir", "red", "green")}
)
"""Bands in the order of the networks' channels; of other modalities all, in file order."""

ELEVATIONS = (("dsm", "height"), ("height",), ("dsm", "dtm"))
"""Channels that IGN's loader can make of elevation; the first is its default."""

STATISTICS: Mapping[str, Statistics] = MappingProxyType(
    {
        "aerial_rgbi": Statistics((106.59, 105.66, 111.35), (39.78, 52.23, 45.62), _SOURCE),
        "aerial_rlt_pan": Statistics((125.92,), (38.45,), _SOURCE),
        "dem_elev": Statistics((311.06, 311.06), (537.55, 537.55), _SOURCE),
        # listed for red, green, blue, near infrared and used for the first three channels
        "spot_rgbi": Statistics((433.26, 508.75, 467.77), (312.76, 284.61, 226.02), _SOURCE),
    }
)
"""By channel, after elevation's channels are made. Series are not normalised."""

REFERENCE_DAY = (5, 15)
"""Month and day from which dates are counted, in each date's own year."""
