"""Writes the static catalogue of a folder of stores, from its domain tables alone."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from catalog.collection import collection, root_catalog
from catalog.facts import read_facts
from catalog.families import FAMILIES
from catalog.geoparquet import write_items
from catalog.items import roi_item
from catalog.terms import CATALOG_FILE, COLLECTION_FILE, TABLE_FILE, Json, item_file
from flairhub.errors import CatalogError, NotInStoreError
from flairhub.ids import DomainId
from flairhub.store.access import Location, resolve
from flairhub.store.tables import list_domains, read_table

logger = logging.getLogger(__name__)

_FOLDER = "catalog"


@dataclass(frozen=True, slots=True)
class CatalogReport:
    """What was written: the folder, its domains, the number of items and of their patches."""

    path: Path
    domains: tuple[str, ...]
    items: int
    patches: int

    def as_dict(self) -> Json:
        """Return JSON for programs."""
        return {
            "catalog": str(self.path / CATALOG_FILE),
            "geoparquet": str(self.path / TABLE_FILE),
            "domains": list(self.domains),
            "items": self.items,
            "patches": self.patches,
        }


def build_catalog(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> CatalogReport:
    """Write a static STAC catalogue and its GeoParquet twin for all complete domains of a folder.

    All addresses are relative, so the folder moves with the stores. The same tables give the same
    bytes. The whole catalogue is written beside its place and takes it at the end: one that exists
    is replaced by a complete one or not at all.

    Parameters
    ----------
    root
        Folder of stores, a path or URL.
    out
        Local folder for the catalogue; ``<root>/catalog`` when absent. It belongs to this function:
        whatever else lies in it goes when the catalogue is replaced.
    storage_options
        For a URL, as in `flairhub.store.access.resolve`.

    Raises
    ------
    NotInStoreError
        If `root` does not exist or holds no complete domain.
    CatalogError
        If `out` holds anything but a catalogue, or is missing where `root` is not local.
    StoreLayoutError
        If the tables of a domain are damaged or do not fit together.
    """
    place = resolve(root, storage_options=storage_options)
    target = _target(os.fspath(root), out)
    domains = list_domains(place)
    if not domains:
        msg = (
            f"{os.fspath(root)} holds no complete domain (no file like D012-2019.rois.parquet); "
            "give the folder that `flairhub convert SRC ROOT` wrote, and let it finish first."
        )
        raise NotInStoreError(msg)
    items = [item for domain in domains for item in _items(place, domain, os.fspath(root), target)]
    with _replacing(target) as folder:
        _write(items, folder)
    patches = sum(item["properties"]["flairhub:patches"] for item in items)
    return CatalogReport(target, tuple(map(str, domains)), len(items), patches)


def _items(place: Location, domain: DomainId, root: str, target: Path) -> list[Json]:
    facts = read_facts(
        domain, read_table(place, domain, "rois"), read_table(place, domain, "patches")
    )
    logger.info("%s: %d ROIs", domain, len(facts))
    return [
        roi_item(f, _relative(root, (target / item_file(str(domain), f.name)).parent))
        for f in facts
    ]


def _local(root: str) -> Path | None:
    if "://" not in root:
        return Path(root).expanduser().resolve()
    parts = urlsplit(root)
    return Path(parts.path).resolve() if parts.scheme == "file" else None


def _relative(root: str, folder: Path) -> str:
    """Address of the stores as seen from a folder of the catalogue; a URL stays as it is."""
    path = _local(root)
    return root.rstrip("/") if path is None else Path(os.path.relpath(path, folder)).as_posix()


def _target(root: str, out: str | os.PathLike[str] | None) -> Path:
    path = _local(root)
    if out is not None:
        target = Path(out).expanduser().resolve()
    elif path is not None:
        target = path / _FOLDER
    else:
        msg = f"{root} is not a local folder; say with --out where the catalogue is to be written."
        raise CatalogError(msg)
    if not _replaceable(target):
        msg = (
            f"{target} exists and is not a catalogue of flairhub, so it is not replaced; give "
            "another folder with --out."
        )
        raise CatalogError(msg)
    return target


def _replaceable(target: Path) -> bool:
    """Tell whether nothing is lost when the folder goes: it is absent, empty, or one of ours."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return True
    try:
        found = json.loads((target / CATALOG_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("id") in {
        one.catalog_id for one in FAMILIES.values()
    }


def _write(items: list[Json], folder: Path) -> None:
    for item in items:
        path = folder / item_file(item["properties"]["flairhub:domain"], item["id"])
        path.parent.mkdir(parents=True, exist_ok=True)
        _dump(item, path)
    whole = collection(items)
    write_items(items, whole, folder / TABLE_FILE)
    _dump(whole, folder / COLLECTION_FILE)
    _dump(root_catalog(items), folder / CATALOG_FILE)


def _dump(document: Json, path: Path) -> None:
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    path.write_text(text + "\n", encoding="utf-8")


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Give a new folder that takes the place of `target` when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(4)
    new, old = (target.with_name(f".{target.name}.{token}.{end}") for end in ("new", "old"))
    new.mkdir()
    try:
        yield new
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)
