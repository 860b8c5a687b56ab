"""A raw tree that this project did not make: no folds, no aerial dates, patches not from 1-1 on."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray as xr

from converters.convert import convert
from converters.flairhub_tree import FlairHubTree
from converters.verify import verify
from flairhub.store.reading import open_domain


@pytest.fixture(scope="module")
def foreign(repository: Path) -> Path:
    """The tree, which lies beside the checkout where it is available."""
    path = repository.parent / "shared" / "loader-reference" / "raw"
    if not path.exists():
        pytest.skip("the foreign tree is not available here")
    return path


def test_it_converts_and_verifies(foreign: Path, tmp_path: Path) -> None:
    source = FlairHubTree(foreign)
    report = convert(source, str(tmp_path), workers=1)
    assert (report.rois, report.patches, report.files) == (2, 4, 40)
    assert verify(source, str(tmp_path)).findings == []
    domain = open_domain(tmp_path / "D012-2019.zarr")
    assert list(domain) == ["AF-S1-27"]
    row = domain.rois.iloc[0]
    assert (row["rows"], row["columns"], row["first_row"], row["first_column"]) == (1, 2, 5, 10)
    assert domain.patches["patch_id"].tolist() == [
        "D012-2019_AF-S1-27_5-10",
        "D012-2019_AF-S1-27_5-11",
    ]
    assert domain.patches["split"].tolist() == ["test", "test"]
    assert domain.patches["split_1"].isna().all()
    assert domain.patches["date_aerial_rgbi"].isna().all()
    tree = xr.open_datatree(tmp_path / "D012-2019.zarr" / "AF-S1-27", engine="zarr")
    assert tree["sentinel2_ts"].sizes["time"] == 12
    assert tree["sentinel1_asc_ts"].sizes["time"] == 9
