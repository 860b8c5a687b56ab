"""Which family of datasets the stores of a folder belong to: FLAIR-HUB or the older FLAIR."""

from __future__ import annotations

import json
from contextlib import suppress

from flairhub.errors import ConversionError, FlairHubError
from flairhub.ids import DomainId
from flairhub.store.access import Location
from flairhub.store.conventions import LICENCES
from flairhub.store.layout import store_name


def check_family(root: Location, dataset: str, source: str) -> None:
    """Refuse to mix families: both have domains of the same name, and neither says it is not whole.

    Parameters
    ----------
    root
        Folder of the stores; a request lists it, and one a store reads its root group.
    dataset, source
        Family of what is to be added, and the name of its layout.

    Raises
    ------
    ConversionError
        If a store of another family is there, finished or not.
    """
    for name in root.names():
        held = _family(root / name)
        if held is not None and held != dataset:
            msg = (
                f"{root / name} holds {held}, not {source}: each family of datasets needs a "
                "folder of its own."
            )
            raise ConversionError(msg)


def _family(store: Location) -> str | None:
    """Return the family that a store's attribution names; None for what is no store."""
    with suppress(FlairHubError, ValueError, LookupError, TypeError, AttributeError):
        if store.name == store_name(DomainId.parse(store.name.partition(".")[0])):
            attributes = json.loads((store / "zarr.json").read())["attributes"]
            return next(k for k, told in LICENCES.items() if told.items() <= attributes.items())
    return None
