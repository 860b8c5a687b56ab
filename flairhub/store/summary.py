"""What a store holds, in numbers, from its tables alone: no pixel and no array metadata is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from flairhub.errors import NotInStoreError
from flairhub.grids import Grid, RoiGrid
from flairhub.ids import DomainId
from flairhub.modalities import Modality, family
from flairhub.store.access import Location, Source, resolve
from flairhub.store.layout import array_specs
from flairhub.store.tables import domain_of, has_column, list_domains, read_table, times_column


@dataclass(frozen=True, slots=True)
class VariableSummary:
    """One variable, in all ROIs of a domain.

    Parameters
    ----------
    path
        Inside a ROI: ``<group>/<variable>``.
    modality
        Registry key.
    dtype
        Name of the numpy type.
    patch_sizes
        Sizes of a patch by dimension, without time.
    dates
        Fewest and most dates of a ROI, for series.
    patches
        Patches in which it is present.
    """

    path: str
    modality: str
    dtype: str
    patch_sizes: dict[str, int]
    dates: tuple[int, int] | None
    patches: int

    @property
    def name(self) -> str:
        """Name of the variable in its group."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class RoiSummary:
    """One ROI: rows and columns of its bounding rectangle, and the patches present in it."""

    roi: str
    rows: int
    columns: int
    patches: int


@dataclass(frozen=True, slots=True)
class DomainSummary:
    """One domain.

    Parameters
    ----------
    domain
        Its id.
    rois, variables
        What it consists of.
    patches
        Number of patches present.
    splits
        Patches by split of the published CSVs.
    objects, bytes
        Number and size of all objects of the store, metadata too, as its table lists them.
    """

    domain: str
    rois: tuple[RoiSummary, ...]
    variables: tuple[VariableSummary, ...]
    patches: int
    splits: dict[str, int]
    objects: int
    bytes: int

    def to_plain(self) -> dict[str, Any]:
        """Return nested dicts, lists, strings and numbers, for JSON."""
        return asdict(self)


def summarise(
    url: Source, *, storage_options: Mapping[str, Any] | None = None
) -> tuple[DomainSummary, ...]:
    """Summarise one store, or every complete domain of a folder of stores.

    Parameters
    ----------
    url
        ``<root>/D012-2019.zarr`` or ``<root>``.
    storage_options
        As in `flairhub.store.access.resolve`.

    Raises
    ------
    NotInStoreError
        If there is no complete domain at `url`.
    """
    location = resolve(url, storage_options=storage_options)
    if location.name.endswith(".zarr"):
        return (_summarise_domain(location.parent, domain_of(location)),)
    domains = list_domains(location)
    if not domains:
        msg = (
            f"{location} holds no complete domain: expected tables such as "
            "D012-2019.rois.parquet beside the stores. `flairhub convert` writes them last."
        )
        raise NotInStoreError(msg)
    return tuple(_summarise_domain(location, domain) for domain in domains)


def _summarise_domain(root: Location, domain: DomainId) -> DomainSummary:
    rois, patches, shards = (read_table(root, domain, t) for t in ("rois", "patches", "shards"))
    splits = patches["split"].value_counts().to_dict()
    return DomainSummary(
        domain=str(domain),
        rois=tuple(
            RoiSummary(row["roi"], int(row["rows"]), int(row["columns"]), int(row["patches"]))
            for row in rois.to_dict("records")
        ),
        variables=tuple(
            variable
            for modality in family(key for keys in rois["modalities"] for key in keys)
            for variable in _summarise_modality(modality, rois, patches)
        ),
        patches=len(patches),
        splits={str(name): int(number) for name, number in splits.items()},
        objects=len(shards),
        bytes=int(shards["size"].sum()),
    )


def _summarise_modality(
    modality: Modality, rois: pd.DataFrame, patches: pd.DataFrame
) -> tuple[VariableSummary, ...]:
    present = int(patches[has_column(modality.key)].sum())
    if not present:
        return ()
    dates = None
    if modality.temporal:
        counts = rois[times_column(modality.group)].map(len)
        dates = int(counts.min()), int(counts.max())
    return tuple(
        VariableSummary(
            path=spec.path,
            modality=modality.key,
            dtype=modality.dtype,
            patch_sizes={d: n for d, n in zip(spec.dims, spec.chunks, strict=True) if d != "time"},
            dates=dates,
            patches=present,
        )
        for spec in array_specs(modality, RoiGrid(0.0, 0.0, 1, 1), 1, Grid(0.0, 0.0, 1.0, 1, 1))
    )
