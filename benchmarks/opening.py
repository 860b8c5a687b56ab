"""Requests that opening takes; each costs tens of milliseconds on object storage."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import xarray as xr
from zarr.storage import LocalStore, LoggingStore

from benchmarks.harness import Row, Workspace, benchmark
from flairhub.store.access import Location
from flairhub.store.layout import store_name
from flairhub.store.reading import open_domain, open_roi

_REQUESTS = ("get", "exists", "list")


def _requests(store: LoggingStore[LocalStore]) -> int:
    return sum(n for method, n in store.counter.items() if method.startswith(_REQUESTS))


@benchmark
def opening(workspace: Workspace) -> Iterator[Row]:
    """Count the requests of `open_roi` and `open_domain`, and of plain xarray."""
    roi = workspace.rois()[0]
    name = store_name(roi.domain)

    def counting(folder: Path) -> LoggingStore[LocalStore]:
        return LoggingStore(LocalStore(folder, read_only=True), log_handler=logging.NullHandler())

    ours, domain = counting(workspace.root), counting(workspace.root)
    peer = counting(workspace.root / name / str(roi.roi))
    open_roi(Location(ours, name), str(roi.roi))
    with xr.open_datatree(peer, engine="zarr"):  # type: ignore[arg-type]
        pass
    yield Row(
        "open a ROI", "requests", _requests(ours), _requests(peer), 0.1, "lower",
        "peer: xarray.open_datatree, which reads the coordinates",
    )  # fmt: skip
    open_domain(Location(domain, name))
    yield Row("open a domain", "requests", _requests(domain), None, 1, "lower", "its table of ROIs")
