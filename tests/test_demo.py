"""The whole way in one command, once: what a newcomer gets from ``make demo``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from matplotlib import image
from rio_cogeo.cogeo import cog_validate

from flairhub.cli import run
from flairhub.nomenclatures import NOMENCLATURES


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a demo that is shorter than the default, and its figures."""
    folder = tmp_path_factory.mktemp("whole") / "demo"
    assert run(["demo", str(folder), "--steps", "60"]) == 0
    return folder, json.loads((folder / "demo.json").read_text())


def test_the_model_beats_the_majority_map_on_a_domain_it_never_saw(
    demo: tuple[Path, dict[str, Any]],
) -> None:
    scores = demo[1]["test"]
    assert scores["pixels"] > 1_000_000
    assert scores["accuracy"] > scores["baseline_accuracy"] + 0.1
    assert scores["mean_iou"] > 3 * scores["baseline_mean_iou"]
    # not even the one class that happens to fit this domain best comes near
    assert scores["accuracy"] > 0.1 + max(c["pixels"] for c in scores["classes"]) / scores["pixels"]


def test_every_step_is_timed_and_weighed(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, facts = demo
    steps = ["sample", "convert", "verify", "catalog", "train", "evaluate", "predict"]
    assert list(facts["bytes"]) == steps
    assert list(facts["seconds"]) == [*steps, "total"]
    assert sum(facts["seconds"][s] for s in steps) <= facts["seconds"]["total"] + 0.5
    raw = sum(p.stat().st_size for p in (folder / "raw").rglob("*") if p.is_file())
    assert facts["bytes"]["sample"] == raw


def test_the_store_is_proved_and_smaller(demo: tuple[Path, dict[str, Any]]) -> None:
    _, facts = demo
    assert facts["verified"]["passed"]
    assert facts["verified"]["files"] == facts["files"]
    assert facts["store_bytes"] < 0.8 * facts["tiff_bytes"]


def test_the_map_is_a_valid_cog_and_equals_the_zarr(demo: tuple[Path, dict[str, Any]]) -> None:
    found = demo[1]["map"]
    assert cog_validate(found["cog"], strict=True) == (True, [], [])
    with rasterio.open(found["cog"]) as cog, xr.open_zarr(found["zarr"]) as mapped:
        assert cog.crs.to_epsg() == 2154
        assert cog.nodata == 255
        assert cog.overviews(1)
        red, green, blue, _ = cog.colormap(1)[6]
        assert (red, green, blue) == tuple(NOMENCLATURES["cosia"].palette[6])
        np.testing.assert_array_equal(cog.read(1), mapped["classes"].to_numpy())


def test_the_picture_is_drawn(demo: tuple[Path, dict[str, Any]]) -> None:
    picture = demo[0] / "demo.png"
    assert 100_000 < picture.stat().st_size < 3_000_000
    height, width, _ = image.imread(picture).shape
    assert width > 1200
    assert height > 400


def test_the_catalogue_lists_every_region(demo: tuple[Path, dict[str, Any]]) -> None:
    items = list((demo[0] / "store" / "catalog" / "items").rglob("*.json"))
    assert len(items) == demo[1]["verified"]["rois"]


def test_a_folder_of_something_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("two years of work")
    assert run(["demo", str(tmp_path)]) == 1
    assert "new or empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
