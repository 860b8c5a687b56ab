"""From a path or URL to the source that reads its layout: the list of all layouts."""

from __future__ import annotations

import os

from converters.flairhub_tree import FlairHubTree
from converters.source import Source


def open_source(place: str | os.PathLike[str]) -> Source:
    """Return the raw dataset at a path or URL.

    Raises
    ------
    SourceDataError
        If it has none of the known layouts.
    """
    return FlairHubTree(place)
