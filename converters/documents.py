"""The ``zarr.json`` documents of a ROI, and the chunks of its coordinates, without a store.

Zarr writes a document for every attribute that changes and hops threads for each: a third of a
second a ROI. It is asked once for each kind of array instead; shapes and attributes are filled in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from numcodecs import VLenUTF8, Zstd
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from converters.receipts import SKIPPED_ATTRIBUTE, Skipped
from flairhub.modalities import get_modality
from flairhub.store.access import Location
from flairhub.store.codecs import codecs
from flairhub.store.conventions import LICENCES, coordinate_attributes
from flairhub.store.layout import FORMAT_VERSION, ArraySpec, fill_value

Document = dict[str, Any]

_LEVEL = 9


def group_document(attributes: Mapping[str, Any]) -> Document:
    """Return the document of a group."""
    return {"attributes": dict(attributes), "zarr_format": 3, "node_type": "group"}


def consolidated(root: Document, nodes: Mapping[str, Document]) -> Document:
    """Return a group's document with those of all its descendants, by path."""

    def inline(metadata: Mapping[str, Document]) -> Document:
        return {"kind": "inline", "must_understand": False, "metadata": dict(metadata)}

    below = {
        path: {**node, "consolidated_metadata": inline({})}
        if node["node_type"] == "group"
        else node
        for path, node in sorted(nodes.items(), key=lambda item: (item[0].count("/"), item[0]))
    }
    return {**root, "consolidated_metadata": inline(below)}


def array_document(spec: ArraySpec, profile: str, attributes: Mapping[str, Any]) -> Document:
    """Return the document of a sharded array."""
    found: Document = json.loads(_sharded(spec.modality.key, len(spec.shape), profile))
    found["shape"] = list(spec.shape)
    found["chunk_grid"]["configuration"]["chunk_shape"] = list(spec.shards)
    found["codecs"][0]["configuration"]["chunk_shape"] = list(spec.chunks)
    found["attributes"] = dict(attributes)
    found["dimension_names"] = list(spec.dims)
    return found


def coordinate(name: str, values: npt.NDArray[Any]) -> tuple[Document, bytes]:
    """Return the document of a coordinate and its only chunk."""
    text = values.dtype.kind == "U"
    found: Document = json.loads(_plain("string" if text else values.dtype.name, 1))
    found["shape"] = list(values.shape)
    found["chunk_grid"]["configuration"]["chunk_shape"] = list(values.shape)
    found["attributes"] = coordinate_attributes(name)
    found["dimension_names"] = [name]
    packed = (
        VLenUTF8().encode(values.astype(object))
        if text
        else np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    )
    return found, bytes(Zstd(level=_LEVEL).encode(packed))


def scalar_document(attributes: Mapping[str, Any]) -> Document:
    """Return the document of a scalar that is there for its attributes, a grid mapping."""
    found: Document = json.loads(_plain("int32", 0))
    found["attributes"] = dict(attributes)
    return found


def dump(document: Document) -> bytes:
    """Return the bytes of a document."""
    return json.dumps(document, indent=2).encode()


@cache
def _sharded(key: str, rank: int, profile: str) -> bytes:
    modality = get_modality(key)
    ones = (1,) * rank
    store = MemoryStore()
    zarr.create_array(
        store,
        shape=ones,
        dtype=modality.dtype,
        chunks=ones,
        shards=ones,
        fill_value=fill_value(modality),
        dimension_names=[f"d{i}" for i in range(rank)],
        **codecs(modality, profile),
    )
    return Location(store, "zarr.json").read()


@cache
def _plain(dtype: str, rank: int) -> bytes:
    store = MemoryStore()
    zarr.create_array(
        store,
        shape=(1,) * rank,
        dtype=dtype,
        chunks=(1,) * rank,
        compressors=(ZstdCodec(level=_LEVEL),) if rank else "auto",
        fill_value="" if dtype == "string" else 0,
        dimension_names=["d"] * rank,
    )
    return Location(store, "zarr.json").read()


def domain_document(
    domain: str, source: str, dataset: str, skipped: Sequence[Skipped] = ()
) -> bytes:
    """Return the ``zarr.json`` of a domain's root group.

    Parameters
    ----------
    domain, source
        Its name, and that of the layout it comes from.
    dataset
        Family of its modalities.
    skipped
        What was left out.
    """
    attributes: dict[str, Any] = {"title": f"{source} {domain}", **LICENCES[dataset]}
    attributes["flairhub:format"] = FORMAT_VERSION
    if skipped:
        attributes[SKIPPED_ATTRIBUTE] = [one.as_list() for one in skipped]
    document = {"attributes": attributes, "zarr_format": 3, "node_type": "group"}
    return json.dumps(document, indent=2).encode()
