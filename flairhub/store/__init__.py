"""The store: how a domain lies in Zarr, and how it is opened. Written by :mod:`converters`."""

import warnings

# Zarr says at every opening that consolidated metadata and numcodecs codecs go beyond version 3 of
# its specification. Both are choices of this format (the `portable` profile avoids the second).
for _message in ("Consolidated metadata is currently not part", "Numcodecs codecs are not in the"):
    warnings.filterwarnings("ignore", message=_message, category=UserWarning)
