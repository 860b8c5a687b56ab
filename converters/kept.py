"""What stays of a ROI that is in the store while another part of it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from converters.documents import Document
from converters.receipts import GROUP_SIGNATURE, SKIPPED_ATTRIBUTE, Receipt, signatures
from flairhub.grids import RoiGrid
from flairhub.modalities import get_modality
from flairhub.store.layout import array_names, groups


def in_nodes(key: str, nodes: Mapping[str, Any]) -> bool:
    """Tell whether a ROI's metadata hold the arrays of a modality."""
    modality = get_modality(key)
    return all(f"{modality.group}/{name}" in nodes for name in array_names(modality))


class KeptPart:
    """The metadata and objects of some modalities of a ROI.

    Parameters
    ----------
    keep
        Modalities that stay, by key; none of a ROI that is new, or made anew.
    receipt, before
        What is known of the ROI: rows of the tables, and its ``zarr.json``; empty without one.
    """

    def __init__(self, keep: Sequence[str], receipt: Receipt, before: Mapping[str, Any]) -> None:
        self._keep, self._receipt, self._before = keep, receipt, before
        self._every = before.get("consolidated_metadata", {}).get("metadata", {})

    def nodes(self) -> dict[str, Document]:
        """Return the metadata of the groups and arrays that stay, by path in the ROI."""
        kept = {path: dict(node) for path, node in self._every.items() if self._stays(path)}
        held = {key for key in self._receipt.roi.get("modalities", ()) if key not in self._keep}
        for node in kept.values():
            node.pop("consolidated_metadata", None)
            if made := signatures(node["attributes"]):
                # what is made anew is not what it was made of any more
                made = {key: value for key, value in made.items() if key not in held}
                node["attributes"] = {**node["attributes"], GROUP_SIGNATURE: made}
        return kept

    def objects(self) -> dict[str, dict[str, Any]]:
        """Return the rows of the objects that stay, by key."""
        rows = {row["key"]: row for row in self._receipt.shards}
        return {key: row for key, row in rows.items() if self._stays(key.partition("/")[2])}

    def document(self) -> Document:
        """Return the ROI's ``zarr.json`` with nothing in it but what stays."""
        return {**self._before, "consolidated_metadata": {"metadata": self.nodes()}}

    def lattice(self) -> RoiGrid | None:
        """Return where the ROI lies, None where nothing of it stays."""
        if not self._keep:
            return None
        names = ("left", "top", "rows", "columns", "first_row", "first_column")
        return RoiGrid(*(self._receipt.roi[name] for name in names))

    def left_out(self) -> set[tuple[str, str]]:
        """Return what earlier runs could not read: patch or ROI, and modality."""
        return {
            (where, key)
            for node in self._every.values()
            for where, key, _ in node.get("attributes", {}).get(SKIPPED_ATTRIBUTE, ())
        }

    def _stays(self, path: str) -> bool:
        """Tell whether a node or an object of the ROI belongs to what stays."""
        group, _, inside = path.partition("/")
        members = groups().get(group, ())
        dropped = [m for m in members if m.key not in self._keep]
        arrays = {array for modality in dropped for array in array_names(modality)}
        return len(dropped) < len(members) and inside.partition("/")[0] not in arrays
