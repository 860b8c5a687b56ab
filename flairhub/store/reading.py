"""Open a ROI or a domain lazily, with as few requests as there can be.

`open_roi` makes one: the ROI's ``zarr.json``, which holds the metadata of all its arrays.
Coordinates are computed from the transform in it, dates are copied there, pixels are read when
loaded. `open_domain` makes one too: the table of ROIs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import cached_property
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
import zarr
from xarray.backends import ZarrStore

from flairhub.errors import NotInStoreError, StoreLayoutError, UnknownNameError, did_you_mean
from flairhub.ids import DomainId
from flairhub.modalities import MODALITIES, Modality
from flairhub.store import image_codec  # noqa: F401 - registers itself with Zarr
from flairhub.store.access import Location, Source, resolve
from flairhub.store.conventions import GRID_MAPPING, coordinate_attributes, grid_of
from flairhub.store.layout import DATES_ATTRIBUTE, FORMAT_VERSION, groups
from flairhub.store.tables import domain_of, read_table

log = logging.getLogger(__name__)

_COMPUTED = ("x", "y", "band", "level", "time", GRID_MAPPING)
"""Coordinates that are not read from the store's arrays on opening."""


def open_roi(
    url: Source, roi: str, *, storage_options: Mapping[str, Any] | None = None
) -> xr.DataTree:
    """Open one ROI as a tree with one Dataset a modality group, in one request.

    Parameters
    ----------
    url
        The domain's store, such as ``s3://bucket/store/D012-2019.zarr``.
    roi
        Name of the ROI, such as ``AF-S1-27``.
    storage_options
        For obstore or fsspec.

    Returns
    -------
    xarray.DataTree
        Variables are lazy and in their native dtype; dims ``(time,) band, y, x``, labels
        ``(level,) y, x``. ``.rio`` sees the CRS and the transform.

    Raises
    ------
    NotInStoreError
        If there is no such ROI, or its conversion has not finished.
    StoreLayoutError
        If the store has another format.
    """
    store = resolve(url, storage_options=storage_options)
    group = _open_group(store, roi)
    check_format(dict(group.attrs), store / roi)
    tree = {"/": xr.Dataset(attrs=dict(group.attrs))}
    children = dict(group.groups())
    for name, (modality, *_) in groups().items():
        if name in children:
            tree[name] = _open_modality(children.pop(name), modality, f"{store / roi / name}")
    for name in children:
        log.warning("%s is no modality that this version of flairhub knows", store / roi / name)
    return xr.DataTree.from_dict(tree, name=roi)


def _open_group(store: Location, roi: str) -> zarr.Group:
    try:
        return zarr.open_group(
            store.store,
            path=(store / roi).path,
            mode="r",
            zarr_format=3,
            use_consolidated=True,
        )
    except FileNotFoundError as error:
        msg = f"{store} has no ROI {roi!r}. {_near(store, roi)}"
        raise NotInStoreError(msg) from error
    except ValueError as error:
        msg = (
            f"{store / roi} cannot be opened as a ROI ({error}): its zarr.json is damaged, or "
            "flairhub did not write it. Convert it again."
        )
        raise StoreLayoutError(msg) from error


def _near(store: Location, roi: str) -> str:
    """Say which ROIs there are, or why that is not known."""
    try:
        known = list(read_table(store.parent, domain_of(store), "rois")["roi"])
    except (NotInStoreError, ValueError) as problem:
        return str(problem)
    return did_you_mean(roi, known) if roi not in known else "The table of ROIs lists it, though."


def check_format(attributes: Mapping[str, Any], place: Location) -> None:
    """Refuse a ROI of another layout; raises `StoreLayoutError`."""
    found = str(attributes.get("flairhub:format", "none"))
    if found.split(".")[0] != FORMAT_VERSION.split(".")[0]:
        msg = f"{place} has store format {found}; this version of flairhub reads {FORMAT_VERSION}."
        raise StoreLayoutError(msg)


def _open_modality(group: zarr.Group, modality: Modality, where: str) -> xr.Dataset:
    backend = ZarrStore(group, mode="r")
    dataset = xr.open_dataset(
        backend,
        drop_variables=_COMPUTED,
        decode_times=False,
        create_default_indexes=False,
    )
    attributes = dict(group.attrs)
    grid = grid_of(attributes, where)
    coordinates: dict[str, Any] = {
        "x": ("x", grid.x, coordinate_attributes("x")),
        "y": ("y", grid.y, coordinate_attributes("y")),
        GRID_MAPPING: ((), np.int32(0), dict(_array(group, GRID_MAPPING).attrs)),
    }
    if "band" in dataset.sizes:
        names = np.array(modality.band_names)
        coordinates["band"] = ("band", names, coordinate_attributes("band"))
    if "level" in dataset.sizes:
        levels = np.arange(1, dataset.sizes["level"] + 1, dtype=np.uint8)
        coordinates["level"] = ("level", levels, coordinate_attributes("level"))
    if "time" in dataset.sizes:
        # units and calendar say how days are stored; xarray shows decoded times without them
        described = coordinate_attributes("time")
        kept = {k: v for k, v in described.items() if k not in ("units", "calendar")}
        times = np.array(attributes[DATES_ATTRIBUTE], "datetime64[ns]")
        coordinates["time"] = ("time", times, kept)
    for variable in dataset.data_vars.values():
        # where xarray keeps it when it decodes coordinates itself
        variable.encoding["grid_mapping"] = variable.attrs.pop("grid_mapping", GRID_MAPPING)
    return dataset.assign_coords(coordinates)


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    found = group[name]
    if not isinstance(found, zarr.Array):
        msg = f"{group.path}/{name} is not an array; the store was not written by flairhub."
        raise StoreLayoutError(msg)
    return found


class Domain(Mapping[str, xr.DataTree]):
    """A domain's ROIs, opened one by one when asked for, and its tables.

    Parameters
    ----------
    store
        Place of the domain's store.
    rois
        Table of ROIs, a row each.
    """

    def __init__(self, store: Location, rois: pd.DataFrame) -> None:
        self.store = store
        self.rois = rois

    @property
    def id(self) -> DomainId:
        """Which domain this is."""
        return domain_of(self.store)

    @cached_property
    def patches(self) -> pd.DataFrame:
        """Table of patches (splits, dates, presence, class counts), read once, in one request."""
        return read_table(self.store.parent, self.id, "patches")

    def __getitem__(self, roi: str) -> xr.DataTree:
        """Open a ROI; raises `UnknownNameError`, a `KeyError`, naming the near match."""
        if roi not in self:
            msg = f"{self.id} has no ROI {roi!r}. {did_you_mean(roi, self)}"
            raise UnknownNameError(msg)
        return open_roi(self.store, roi)

    def __contains__(self, roi: object) -> bool:
        """Tell from the table, without a request."""
        return roi in set(self.rois["roi"])

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the ROIs."""
        return iter(self.rois["roi"].tolist())

    def __len__(self) -> int:
        """Return the number of ROIs."""
        return len(self.rois)

    def _lines(self) -> list[tuple[str, str]]:
        names = [m.title for m in MODALITIES.values() if m.key in self._modalities()]
        return [
            ("ROIs", ", ".join(f"{r.roi} ({r.rows}x{r.columns})" for r in self.rois.itertuples())),
            ("patches", f"{int(self.rois['patches'].sum()):,}"),
            ("modalities", ", ".join(names)),
        ]

    def _modalities(self) -> set[str]:
        return {key for keys in self.rois["modalities"] for key in keys}

    def __repr__(self) -> str:
        """Return what the domain holds, a line a fact."""
        facts = "".join(f"\n  {name}: {text[:200]}" for name, text in self._lines())
        return f"<flairhub.Domain {self.id}>{facts}"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th>"
            f"<td style='text-align:left'>{escape(text[:500])}</td></tr>"
            for name, text in self._lines()
        )
        return f"<b>flairhub.Domain {escape(str(self.id))}</b><table>{rows}</table>"


def open_domain(url: Source, *, storage_options: Mapping[str, Any] | None = None) -> Domain:
    """Open a domain: its table of ROIs now, in one request, and each ROI when asked for.

    Parameters
    ----------
    url
        The domain's store, such as ``/data/store/D012-2019.zarr``.
    storage_options
        For obstore or fsspec.

    Raises
    ------
    NotInStoreError
        If the domain is not there or its conversion has not finished.
    """
    store = resolve(url, storage_options=storage_options)
    return Domain(store, read_table(store.parent, domain_of(store), "rois"))
