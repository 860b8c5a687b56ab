"""Preparation against plain numpy: normalisation, decibels, height, symmetry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from flairhub import PatchPlan
from flairhub.batches.batch import MultimodalBatch
from flairhub.batches.prepare import Preparation, augment, compute_statistics
from flairhub.batches.streaming import stream
from flairhub.errors import PlanError
from flairhub.modalities import MODALITIES, Statistics, dataset_modalities

INPUTS = [m.key for m in dataset_modalities() if not m.is_label]


@pytest.fixture(scope="module")
def plan(store_root: Path) -> PatchPlan:
    """All modalities of the training patches."""
    return PatchPlan.build(store_root, modalities=INPUTS, split="train")


@pytest.fixture(scope="module")
def batch(plan: PatchPlan) -> MultimodalBatch:
    """The first windows, as stored."""
    return next(iter(stream(plan, batch_size=3)))


def test_published_statistics_are_applied(batch: MultimodalBatch, plan: PatchPlan) -> None:
    found = Preparation(plan.bands, compute_statistics(plan))(batch)
    published = MODALITIES["aerial_rgbi"].statistics
    assert published is not None
    mean, std = (np.array(v)[:, None, None] for v in (published.mean, published.std))
    expected = (batch.inputs["aerial_rgbi"].numpy().astype(np.float64) - mean) / std
    np.testing.assert_allclose(found.inputs["aerial_rgbi"], expected, rtol=1e-5, atol=1e-5)
    assert {t.dtype for t in found.inputs.values()} == {torch.float32}
    assert found.labels is batch.labels


def test_elevation_becomes_height_and_relief(batch: MultimodalBatch, plan: PatchPlan) -> None:
    one = Statistics((0.0, 0.0), (1.0, 1.0), "identity")
    bands = {"dem_elev": plan.bands["dem_elev"]}
    alone = MultimodalBatch(
        {"dem_elev": batch.inputs["dem_elev"]}, {}, {}, {}, batch.present, batch.windows
    )
    found = Preparation(bands, {"dem_elev": one})(alone).inputs["dem_elev"].numpy()
    dsm, dtm = np.moveaxis(batch.inputs["dem_elev"].numpy().astype(np.float64), 1, 0)
    np.testing.assert_allclose(found[:, 0], dsm - dtm, atol=1e-3)
    np.testing.assert_allclose(found[:, 1], dtm - dtm.mean((1, 2), keepdims=True), atol=1e-2)


def test_radar_becomes_decibels_and_silence_zero() -> None:
    values = torch.tensor([0.01, 1.0, 0.0, torch.nan]).reshape(1, 1, 1, 2, 2)
    batch = MultimodalBatch(
        {"sentinel1_asc_ts": values},
        {},
        {"sentinel1_asc_ts": torch.ones(1, 1)},
        {"sentinel1_asc_ts": torch.ones(1)},
        {"sentinel1_asc_ts": torch.ones(1, dtype=torch.bool)},
        (),
    )
    statistics = {"sentinel1_asc_ts": Statistics((-10.0,), (5.0,), "by hand")}
    found = Preparation({"sentinel1_asc_ts": ("VV",)}, statistics)(batch)
    expected = torch.tensor([-2.0, 2.0, 0.0, 0.0])
    torch.testing.assert_close(found.inputs["sentinel1_asc_ts"].flatten(), expected)


def test_measured_statistics_are_those_of_the_pixels(plan: PatchPlan) -> None:
    measured = compute_statistics(plan, ["sentinel2_ts"], max_windows=len(plan))["sentinel2_ts"]
    pixels = []
    for batch in stream(plan.only(["sentinel2_ts"]), batch_size=1):
        pixels.append(batch.inputs["sentinel2_ts"][0].numpy().astype(np.float64))
    every = np.concatenate(pixels)
    np.testing.assert_allclose(measured.mean, every.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(measured.std, every.std((0, 2, 3)), rtol=1e-5)


def test_statistics_travel_in_the_state(plan: PatchPlan) -> None:
    statistics = compute_statistics(plan, max_windows=2)
    first = Preparation(plan.bands, statistics)
    blank = {
        k: Statistics((0.0,) * len(s.mean), (1.0,) * len(s.std), "") for k, s in statistics.items()
    }
    second = Preparation(plan.bands, blank)
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers(), strict=True))


def test_missing_statistics_are_asked_for(plan: PatchPlan) -> None:
    with pytest.raises(PlanError, match="compute_statistics"):
        Preparation({"sentinel2_ts": plan.bands["sentinel2_ts"]})
    wrong = {"sentinel2_ts": Statistics((0.0,), (1.0,), "one band")}
    with pytest.raises(PlanError, match="10"):
        Preparation({"sentinel2_ts": plan.bands["sentinel2_ts"]}, wrong)


def test_all_modalities_and_labels_turn_alike(batch: MultimodalBatch) -> None:
    """Every sample is one of numpy's eight symmetries, the same in all rasters."""
    seen = set()
    for seed in range(6):
        turned = augment(batch, torch.Generator().manual_seed(seed))
        for i in range(len(batch)):
            match = [
                k
                for k in range(8)
                if np.array_equal(
                    _symmetry(batch.labels["cosia"][i].numpy(), k), turned.labels["cosia"][i]
                )
            ]
            assert len(match) == 1
            seen.add(match[0])
            for key, pixels in batch.inputs.items():
                expected = _symmetry(pixels[i].numpy(), match[0])
                np.testing.assert_array_equal(turned.inputs[key][i], expected, err_msg=key)
        assert turned.days is batch.days
    assert len(seen) > 4


def _symmetry(array: npt.NDArray[Any], k: int) -> npt.NDArray[Any]:
    turned = np.rot90(array, k % 4, (-2, -1))
    return turned[..., ::-1] if k >= 4 else turned


def test_augmentation_repeats_with_its_seed(batch: MultimodalBatch) -> None:
    one, two = (augment(batch, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one.inputs["aerial_rgbi"], two.inputs["aerial_rgbi"])
