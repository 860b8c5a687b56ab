"""The map of a ROI, from a store, by models whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import rasterio
import torch
import xarray as xr
from torch import Tensor
from typer.testing import CliRunner

from flairhub.batches.batch import MultimodalBatch
from flairhub.cli import build_app, run
from flairhub.config import RunConfig, parse_config
from flairhub.errors import CheckpointError, NotInStoreError, PlanError, UnknownNameError
from flairhub.inference import predict as module
from flairhub.inference.predict import PredictionResult, predict
from flairhub.inference.scoring import read_labels
from flairhub.nomenclatures import NOMENCLATURES
from flairhub.store.reading import Domain, open_domain
from flairhub.training.task import SegmentationTask
from tests.checkpoints import write_checkpoint

COSIA = NOMENCLATURES["cosia"]
MODALITIES = ["aerial_rgbi", "dem_elev", "sentinel2_ts", "sentinel1_asc_ts"]


def make_config(root: Path, **data: Any) -> RunConfig:  # noqa: ANN401
    section = {"root": str(root), "modalities": MODALITIES, **data}
    model = {"decoder_channels": 16, "fusion_channels": 16, "series_channels": 16}
    return parse_config({"data": section, "model": model})


class BandTask:
    """Stands in for a trained task: the class of a pixel is its red value in steps of 32."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.majority = {"cosia": 3}
        self.seen: list[int] = []

    def to(self, _device: str) -> BandTask:
        return self

    def __call__(self, batch: MultimodalBatch) -> dict[str, Tensor]:
        self.seen.append(len(batch))
        classes = (batch.inputs["aerial_rgbi"][:, :1] // 32).long()
        shape = (len(batch), len(COSIA), *classes.shape[2:])
        return {"cosia": torch.zeros(shape).scatter_(1, classes, 20.0)}


@pytest.fixture
def domain(store_root: Path) -> Domain:
    return open_domain(min(store_root.glob("*.zarr")))


@pytest.fixture
def roi(domain: Domain) -> str:
    """The smallest ROI with at least two patches along each side."""
    table = domain.rois[domain.rois[["rows", "columns"]].min(axis=1) >= 2]
    return str(table.sort_values("patches")["roi"].iloc[0])


@pytest.fixture
def band_task(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> BandTask:
    task = BandTask(make_config(store_root))
    monkeypatch.setattr(module, "load_task", lambda _: task)
    return task


def read_map(result: PredictionResult) -> npt.NDArray[np.uint8]:
    with rasterio.open(result.cog) as source:
        return np.asarray(source.read(1))


def red_steps(domain: Domain, roi: str) -> npt.NDArray[np.uint8]:
    red = domain[roi]["aerial_rgbi"]["aerial_rgbi"].isel(band=0).to_numpy()
    return np.asarray(red // 32, np.uint8)


@pytest.mark.parametrize(("overlap", "batch_size"), [(0.0, 1), (0.5, 3)])
def test_the_map_is_the_models_whatever_windows_and_batches(
    domain: Domain, roi: str, band_task: BandTask, tmp_path: Path, overlap: float, batch_size: int
) -> None:
    steps: list[tuple[int, int]] = []
    result = predict(
        "model.ckpt", domain.store, roi, tmp_path,
        overlap=overlap, batch_size=batch_size, progress=lambda *done: steps.append(done),
    )  # fmt: skip
    np.testing.assert_array_equal(read_map(result), red_steps(domain, roi))
    assert steps == [(n, result.windows) for n in range(1, result.windows + 1)]
    assert max(band_task.seen) <= batch_size
    patches = (domain.patches["roi"] == roi).sum()
    assert (result.windows > patches) == (overlap > 0)


def test_windows_of_one_lattice_step_are_widened_until_they_overlap(
    domain: Domain, roi: str, band_task: BandTask, store_root: Path, tmp_path: Path
) -> None:
    band_task.config = make_config(store_root, window_m=51.2)
    result = predict("model.ckpt", domain.store, roi, tmp_path)
    assert result.overlap == 0.5
    np.testing.assert_array_equal(read_map(result), red_steps(domain, roi))
    narrow = predict("model.ckpt", domain.store, roi, tmp_path, overlap=0, window_m=51.2)
    assert narrow.windows == 4 * (domain.patches["roi"] == roi).sum()
    np.testing.assert_array_equal(read_map(narrow), red_steps(domain, roi))


def test_windows_that_cannot_overlap_are_reported(
    domain: Domain, roi: str, band_task: BandTask, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert band_task
    assert predict("model.ckpt", domain.store, roi, tmp_path, window_m=51.2).overlap == 0
    assert "windows of 51.2 m do not overlap" in caplog.text
    caplog.clear()
    assert predict("model.ckpt", domain.store, roi, tmp_path).overlap == 0.5
    assert "overlap" not in caplog.text


def test_a_window_off_the_lattice_is_refused(
    domain: Domain, roi: str, band_task: BandTask, tmp_path: Path
) -> None:
    assert band_task
    with pytest.raises(PlanError, match=r"window_m=60 .* such as 51\.2 or 102\.4"):
        predict("model.ckpt", domain.store, roi, tmp_path, window_m=60)
    assert not list(tmp_path.iterdir())


def test_zarr_and_cog_hold_the_same_and_nothing_else_is_left(
    domain: Domain, roi: str, band_task: BandTask, tmp_path: Path
) -> None:
    assert band_task
    result = predict("model.ckpt", domain.store, roi, tmp_path / "new" / "maps")
    stem = f"{domain.id}_{roi}_cosia"
    names = sorted(p.name for p in (tmp_path / "new" / "maps").iterdir())
    assert names == [f"{stem}.{end}" for end in ("qml", "tif", "tif.aux.xml", "zarr")]
    with xr.open_zarr(result.zarr, chunks=None) as dataset:
        np.testing.assert_array_equal(dataset.classes, read_map(result))
        assert (dataset.confidence == 100).all()
        assert dataset.attrs["flairhub:inputs"] == MODALITIES
    aerial = domain[roi]["aerial_rgbi"]
    with rasterio.open(result.cog) as source:
        assert list(source.transform)[:6] == aerial.attrs["spatial:transform"]


def test_scores_are_those_of_a_plain_count(
    domain: Domain, roi: str, band_task: BandTask, tmp_path: Path
) -> None:
    scores = predict("model.ckpt", domain.store, roi, tmp_path).scores
    labels = read_labels(domain[roi], COSIA)
    assert labels is not None
    assert scores is not None
    truth, found = labels.to_numpy(), red_steps(domain, roi)
    counted = np.isin(truth, COSIA.scored)
    assert scores.pixels == counted.sum()
    assert scores.accuracy == pytest.approx((truth == found)[counted].mean())
    assert scores.baseline_accuracy == pytest.approx((truth[counted] == 3).mean())
    present = [c for c in COSIA.scored if (truth == c).any()]
    iou = [
        ((truth == c) & (found == c)).sum() / (counted & ((truth == c) | (found == c))).sum()
        for c in present
    ]
    assert scores.mean_iou == pytest.approx(np.mean(iou))
    assert band_task.majority["cosia"] == COSIA.names.index(scores.baseline_class)


def test_an_absent_patch_is_nodata(
    domain: Domain,
    roi: str,
    band_task: BandTask,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert band_task
    patches = domain.patches.copy()
    mine = patches["roi"] == roi
    north_west = mine & (patches["row"] == patches.loc[mine, "row"].min())
    north_west &= patches["column"] == patches.loc[mine, "column"].min()
    patches.loc[north_west, ["has_aerial_rgbi", "has_dem_elev"]] = False
    monkeypatch.setattr(Domain, "patches", patches)
    result = predict("model.ckpt", domain.store, roi, tmp_path)
    expected = red_steps(domain, roi)
    expected[:512, :512] = 255
    np.testing.assert_array_equal(read_map(result), expected)
    assert "lack aerial_rgbi and dem_elev" in caplog.text


def test_a_roi_without_the_finest_rasters_is_refused(
    domain: Domain,
    roi: str,
    band_task: BandTask,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert band_task
    gone: pd.DataFrame = domain.patches.assign(has_aerial_rgbi=False, has_dem_elev=False)
    monkeypatch.setattr(Domain, "patches", gone)
    with pytest.raises(PlanError, match="filled by aerial_rgbi or dem_elev"):
        predict("model.ckpt", domain.store, roi, tmp_path)


def test_what_does_not_exist_is_named(
    domain: Domain, roi: str, band_task: BandTask, store_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotInStoreError, match=r"no ROI 'XX-S1-1'"):
        predict("model.ckpt", domain.store, "XX-S1-1", tmp_path)
    with pytest.raises(UnknownNameError, match="does not map 'lpis_1'"):
        predict("model.ckpt", domain.store, roi, tmp_path, label="lpis_1")
    band_task.config = make_config(store_root, window_m=5120.0)
    with pytest.raises(PlanError, match=r"less than the model's window of 5120 m"):
        predict("model.ckpt", domain.store, roi, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def checkpoint(store_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with random weights."""
    torch.manual_seed(0)
    from flairhub.modalities import Statistics

    config = make_config(store_root)
    statistics = {
        "dem_elev": Statistics((0.0, 0.0), (5.0, 5.0), "made up"),
        "sentinel2_ts": Statistics((1500.0,) * 10, (800.0,) * 10, "made up"),
        "sentinel1_asc_ts": Statistics((-12.0, -18.0), (4.0, 4.0), "made up"),
    }
    task = SegmentationTask.create(config, statistics, {"cosia": [1] * len(COSIA)})
    return write_checkpoint(task, tmp_path_factory.mktemp("model") / "random.ckpt")


def test_a_networks_map_does_not_depend_on_the_batch_size(
    checkpoint: Path, domain: Domain, roi: str, tmp_path: Path
) -> None:
    maps = [
        read_map(predict(checkpoint, domain.store, roi, tmp_path / str(n), batch_size=n))
        for n in (1, 4)
    ]
    # sums in another order may tip pixels on which two classes are equally likely
    assert (maps[0] == maps[1]).mean() > 0.999


def test_command_line(
    checkpoint: Path,
    domain: Domain,
    roi: str,
    store_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = str(store_root / f"{domain.id}.zarr")
    arguments = ["predict", str(checkpoint), store, roi, "--out", str(tmp_path), "--overlap", "0"]
    done = CliRunner().invoke(build_app(), [*arguments, "--json"])
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert Path(report["cog"]).exists()
    assert report["scores"]["label"] == "cosia"
    assert run(arguments) == 0
    printed = capsys.readouterr().out
    assert report["zarr"] in printed.replace("\n", "")
    assert "a map of building alone" in printed
    assert run([*arguments[:1], str(tmp_path / "no.ckpt"), *arguments[2:]]) == 1
    assert "There is no checkpoint" in capsys.readouterr().err
    with pytest.raises(CheckpointError):
        predict(tmp_path, domain.store, roi, tmp_path)
