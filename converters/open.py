"""From a path or URL to the source that reads its layout: the list of all layouts."""

from __future__ import annotations

import os

from converters.files import RawTree
from converters.flair1 import Flair1Tree
from converters.flair2 import Flair2Tree
from converters.flair_huggingface import FlairHuggingFaceTree, data_folder
from converters.flair_raw import FlairFolder
from converters.flairhub_raw import RawFolder
from converters.flairhub_tree import FlairHubTree
from converters.source import Source
from flairhub.errors import SourceDataError


def open_source(place: str | os.PathLike[str]) -> Source:
    """Return the raw dataset at a path or URL, told by the names of its folders and zips.

    Raises
    ------
    SourceDataError
        If it has none of the known layouts; the message names them.
    """
    tree = RawTree(place)
    names = tree.names
    hub = [name for name in names if RawFolder.parse(name)]
    flair = [folder for name in names if (folder := FlairFolder.parse(name))]
    if hub and flair:
        msg = f"{place} holds {hub[0]} of FLAIR-HUB beside {flair[0]}; give each a folder."
        raise SourceDataError(msg)
    if hub:
        return FlairHubTree(tree)
    if any(folder.stem.startswith("flair_2") or folder.kind == "sen" for folder in flair):
        return Flair2Tree(tree)
    if flair:
        return Flair1Tree(tree)
    if data_folder(tree):
        return FlairHuggingFaceTree(tree)
    msg = (
        f"{place} has no layout that is known. FLAIR-HUB has folders or zips like "
        "D012-2019_AERIAL_RGBI; FLAIR#1 like flair_aerial_train, flair_1_aerial_test; FLAIR#2 "
        "like flair_aerial_train, flair_sen_train, flair_2_aerial_test; both, from Hugging Face, "
        "like data/train-val. Found "
        f"{', '.join(names[:5]) or 'no folder at all'}.{_hint(tree)}"
    )
    raise SourceDataError(msg)


def _hint(tree: RawTree) -> str:
    """Say what else a folder is, where that can be told; or nothing."""
    name = tree.root.rpartition("/")[2]
    if any(one.endswith(".zarr") for one in tree.names):
        return " Those are stores: raw files come first, ROOT second."
    if RawFolder.parse(name) or FlairFolder.parse(name):
        return " Give the folder above, which holds it and its sisters."
    return ""
