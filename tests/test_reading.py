"""Opening is lazy, takes one request, and gives what plain xarray gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rioxarray  # noqa: F401 - registers .rio
import xarray as xr
from zarr.storage import LocalStore

import flairhub
from flairhub.errors import NotInStoreError, StoreLayoutError, UnknownNameError
from flairhub.store.access import Location
from tests.stores import CountingStore


@pytest.fixture
def counted(store_root: Path) -> tuple[CountingStore, Location]:
    """A store that counts requests, and the place of its first domain."""
    store = CountingStore(LocalStore(store_root, read_only=True))
    return store, Location(store, sorted(p.name for p in store_root.glob("*.zarr"))[0])


def _first_roi(place: Location) -> str:
    return next(iter(flairhub.open_domain(place)))


def test_a_roi_opens_with_one_request(counted: tuple[CountingStore, Location]) -> None:
    store, place = counted
    roi = _first_roi(place)
    store.requests.clear()
    tree = flairhub.open_roi(place, roi)
    assert store.requests == [f"{place.path}/{roi}/zarr.json"]
    for group in tree.children.values():
        repr(group)
        assert group.to_dataset().rio.crs.to_epsg() == 2154
    july = tree["sentinel2_ts"].to_dataset().sel(time=slice("2000-01-01", "2100-01-01"))
    assert july.sizes["time"] > 10
    assert len(store.requests) == 1, "looking at coordinates made requests"


def test_a_domain_opens_with_one_request(counted: tuple[CountingStore, Location]) -> None:
    store, place = counted
    domain = flairhub.open_domain(place)
    assert len(store.requests) == 1
    assert len(domain) == 2
    assert "AF-S1-0" not in domain
    assert str(domain.id) in repr(domain)
    assert "<table>" in domain._repr_html_()
    assert len(store.requests) == 1
    assert len(domain.patches) == domain.rois["patches"].sum()
    assert len(domain.patches) > 0
    assert len(store.requests) == 2


def test_a_patch_is_read_with_two_requests(counted: tuple[CountingStore, Location]) -> None:
    """One for the shard's index and one for the chunk."""
    store, place = counted
    tree = flairhub.open_roi(place, _first_roi(place))
    store.requests.clear()
    tree["dem_elev"].to_dataset()["dem_elev"][..., :512, :512].load()
    assert len(store.requests) <= 2


def test_it_equals_plain_xarray(store_root: Path) -> None:
    place = sorted(store_root.glob("*.zarr"))[0]
    for roi in flairhub.open_domain(place):
        plain = xr.open_datatree(place / roi, engine="zarr", decode_coords="all")
        ours = flairhub.open_roi(place, roi)
        assert set(ours.children) == set(plain.children)
        for name in plain.children:
            expected, found = plain[name].to_dataset(), ours[name].to_dataset()
            xr.testing.assert_equal(found.load(), expected.load())
            assert found.rio.transform() == expected.rio.transform()
            assert found.rio.crs == expected.rio.crs
            for variable in expected.variables:
                assert found[variable].attrs == expected[variable].attrs, (name, variable)


def test_labels_keep_their_integers(store_root: Path) -> None:
    domain = flairhub.open_domain(sorted(store_root.glob("*.zarr"))[0])
    label = domain[next(iter(domain))]["aerial_label_cosia"]["aerial_label_cosia"]
    assert label.dtype == np.uint8
    assert label.rio.nodata is None or np.isnan(label.rio.nodata)


def test_what_is_not_there_is_named(store_root: Path, tmp_path: Path) -> None:
    place = sorted(store_root.glob("*.zarr"))[0]
    domain = flairhub.open_domain(place)
    known = next(iter(domain))
    with pytest.raises(NotInStoreError, match=known):
        flairhub.open_roi(place, known + "1")
    with pytest.raises(UnknownNameError, match=known):
        domain[known + "1"]
    with pytest.raises(NotInStoreError, match="does not exist"):
        flairhub.open_domain(tmp_path / "D012-2019.zarr")
    with pytest.raises(StoreLayoutError, match="D012-2019"):
        flairhub.open_domain(store_root)


def test_a_future_format_is_refused(store_root: Path, tmp_path: Path) -> None:
    import shutil

    place = sorted(store_root.glob("*.zarr"))[0]
    roi = next(iter(flairhub.open_domain(place)))
    shutil.copytree(place, tmp_path / place.name)
    marker = tmp_path / place.name / roi / "zarr.json"
    marker.write_text(
        marker.read_text().replace('"flairhub:format": "0.1"', '"flairhub:format": "9.0"')
    )
    with pytest.raises(StoreLayoutError, match=r"9\.0"):
        flairhub.open_roi(tmp_path / place.name, roi)
