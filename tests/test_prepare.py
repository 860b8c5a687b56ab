"""Preparation of whole batches against plain numpy: normalisation, elevation, symmetry, absence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flairhub import PatchPlan
from flairhub.batches.batch import MultimodalBatch
from flairhub.batches.streaming import stream
from flairhub.config import CloudFilter, DataConfig, PreparationConfig
from flairhub.config.preparation import ELEVATION_NEEDS
from flairhub.errors import PlanError
from flairhub.modalities import MODALITIES, Kind, Statistics, dataset_modalities, get_modality
from flairhub.preparation.elevation import elevate
from flairhub.preparation.pipeline import Preparation
from flairhub.preparation.statistics import compute_statistics, run_statistics
from flairhub.preparation.symmetries import SYMMETRIES, augment
from tests import plain_preparation as plain

INPUTS = [m.key for m in dataset_modalities() if not m.is_label]
SERIES = [key for key in INPUTS if MODALITIES[key].temporal]


@pytest.fixture(scope="module")
def plan(store_root: Path) -> PatchPlan:
    """All modalities of the training patches."""
    return PatchPlan.build(store_root, modalities=INPUTS, split="train")


@pytest.fixture(scope="module")
def batch(plan: PatchPlan) -> MultimodalBatch:
    """The first windows, as stored."""
    return next(iter(stream(plan, batch_size=3)))


def random_statistics(rng: np.random.Generator, channels: int) -> Statistics:
    mean, std = rng.normal(0, 200, channels), rng.uniform(0.5, 300, channels)
    return Statistics(tuple(mean.tolist()), tuple(std.tolist()), "at random")


def random_pixels(rng: np.random.Generator, key: str, *lead: int) -> npt.NDArray[Any]:
    """Pixels ``(*lead, band, 4, 4)`` in the store's type; some have no signal."""
    modality = get_modality(key)
    shape = (*lead, len(modality.bands), 4, 4)
    if modality.dtype.startswith("uint"):
        top = 101 if modality.kind is Kind.MASK else 2 ** (8 * modality.numpy_dtype.itemsize)
        return rng.integers(0, top, shape).astype(modality.numpy_dtype)
    pixels = rng.lognormal(0, 2, shape)
    silent = rng.random(shape) < 0.1
    nothing = [np.nan, 0.0] if modality.temporal else [np.nan]
    pixels[silent] = rng.choice(nothing, int(silent.sum()))
    return pixels.astype(modality.numpy_dtype)


def random_batch(rng: np.random.Generator) -> MultimodalBatch:
    """Return three samples of all modalities; each modality may be absent from some."""
    inputs: dict[str, list[npt.NDArray[Any]]] = {}
    days: dict[str, list[list[int]]] = {}
    absent = {key: np.flatnonzero(rng.random(3) < 0.3).tolist() for key in INPUTS}
    for key in INPUTS:
        if key not in SERIES:
            inputs[key] = list(random_pixels(rng, key, 3))
            continue
        of = "sentinel2_ts" if key == "sentinel2_msk_sc" else key
        if of == key:
            days[key] = [sorted(rng.integers(17800, 18400, n)) for n in rng.integers(0, 9, 3)]
        days[key] = days[of]
        inputs[key] = [random_pixels(rng, key, len(d)) for d in days[key]]
    absent["sentinel2_msk_sc"] = sorted({*absent["sentinel2_msk_sc"], *absent["sentinel2_ts"]})
    return plain.batch_of(inputs, days, absent)


@settings(max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.sampled_from([None, "monthly", "semi-monthly"]),
    st.sampled_from([("height", "relief"), ("dsm",), ("dtm", "dsm", "height"), ("relief", "dtm")]),
)
def test_a_batch_is_prepared_as_said(
    seed: int, clouds: bool, period: str | None, elevation: tuple[str, ...]
) -> None:
    """All modalities at once, some absent: dates, values, padding, absence."""
    rng = np.random.default_rng(seed)
    raw = random_batch(rng)
    before = raw.map(torch.Tensor.clone)
    config = PreparationConfig.model_validate(
        {
            "elevation": elevation,
            "clouds": CloudFilter(max_cloud=50, max_snow=80, max_share=0.6) if clouds else None,
            "composites": {key: period for key in SERIES if period and "msk" not in key},
        }
    )
    bands = {key: MODALITIES[key].band_names for key in INPUTS}
    sizes = {key: len(names) for key, names in bands.items()} | {"dem_elev": len(elevation)}
    statistics = {key: random_statistics(rng, size) for key, size in sizes.items()}
    found = Preparation(bands, statistics, config)(raw)
    for key, pixels in raw.inputs.items():
        torch.testing.assert_close(pixels, before.inputs[key], rtol=0, atol=0, equal_nan=True)
        mean, std = statistics[key].mean, statistics[key].std
        for i in range(3):
            one = found.inputs[key][i].numpy()
            if not raw.present[key][i]:
                assert not one.any()
                continue
            values = pixels[i].numpy()
            if key in SERIES:
                size = int(raw.lengths[key][i])
                values, days = dates_of(raw, key, i, config)
                size = int(found.lengths[key][i])
                assert found.days[key][i].tolist() == days + [0] * (one.shape[0] - len(days))
                assert size == len(days)
                assert not one[size:].any()
                one = one[:size]
                if not size:
                    continue
            if key.startswith("sentinel1"):
                with np.errstate(divide="ignore"):
                    values = 10 * np.log10(values.astype(np.float64))
            if key == "dem_elev":
                values = plain.elevate(values, ("dsm", "dtm"), elevation)
            expected = plain.normalise(values, mean, std)
            np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-4, err_msg=key)
    assert {t.dtype for t in found.inputs.values()} == {torch.float32}
    assert list(found.inputs) == list(raw.inputs)
    assert found.inputs["sentinel2_ts"].shape[1] == found.inputs["sentinel2_msk_sc"].shape[1]


def dates_of(
    raw: MultimodalBatch, key: str, i: int, config: PreparationConfig
) -> tuple[npt.NDArray[Any], list[int]]:
    """Return one sample's values and days after clouds and composites, by plain numpy."""
    size = int(raw.lengths[key][i])
    values, days = raw.inputs[key][i, :size].numpy(), raw.days[key][i, :size].tolist()
    series = "sentinel2_ts" if key == "sentinel2_msk_sc" else key
    if config.clouds and series == "sentinel2_ts" and raw.present["sentinel2_msk_sc"][i]:
        kept = plain.clear(raw.inputs["sentinel2_msk_sc"][i, :size].numpy(), config.clouds)
        values, days = values[kept], [days[t] for t in kept]
    if series in config.composites and days:
        return plain.composite(values, days, config.composites[series])
    return values, days


def test_published_statistics_are_applied(batch: MultimodalBatch, plan: PatchPlan) -> None:
    found = Preparation(plan.bands, compute_statistics(plan))(batch)
    published = MODALITIES["aerial_rgbi"].statistics
    assert published is not None
    pixels = batch.inputs["aerial_rgbi"].numpy()
    expected = plain.normalise(pixels, published.mean, published.std)
    np.testing.assert_allclose(found.inputs["aerial_rgbi"], expected, rtol=1e-5, atol=1e-5)
    assert found.labels is batch.labels


@given(st.integers(0, 2**32 - 1), st.permutations(["dsm", "dtm"]), st.integers(1, 2), st.data())
def test_channels_of_elevation(seed: int, bands: list[str], size: int, data: st.DataObject) -> None:
    bands = bands[:size]
    possible = [c for c, needs in ELEVATION_NEEDS.items() if needs <= set(bands)]
    channels = data.draw(st.lists(st.sampled_from(possible), min_size=1, unique=True))
    pixels = np.random.default_rng(seed).uniform(-5, 4800, (2, size, 5, 5)).astype(np.float32)
    pixels[0, 0, 0, 0] = np.nan
    found = elevate(torch.from_numpy(pixels), bands, channels)
    for one, raster in zip(found, pixels, strict=True):
        np.testing.assert_allclose(one, plain.elevate(raster, bands, channels), atol=2e-3)


def test_elevation_has_statistics_of_each_channel(plan: PatchPlan) -> None:
    """IGN's of altitudes, measured ones of what is made of them."""
    config = DataConfig(
        root="store",
        modalities=("dem_elev",),
        preparation=PreparationConfig(elevation=("dtm", "height", "dsm")),
    )
    found = run_statistics(config, plan)["dem_elev"]
    published = MODALITIES["dem_elev"].statistics
    assert published is not None
    assert (found.mean[0], found.mean[2]) == (published.mean[1], published.mean[0])
    assert (found.std[0], found.std[2]) == (published.std[1], published.std[0])
    heights = [
        (b.inputs["dem_elev"][:, 0] - b.inputs["dem_elev"][:, 1]).numpy()
        for b in stream(plan.only(["dem_elev"]), batch_size=4)
    ]
    every = np.concatenate(heights).astype(np.float64)
    np.testing.assert_allclose(found.mean[1], every.mean(), rtol=1e-5)
    np.testing.assert_allclose(found.std[1], every.std(), rtol=1e-4)
    alone = config.model_copy(update={"preparation": PreparationConfig(elevation=("dsm",))})
    assert run_statistics(alone, plan) == {}


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


def test_options_that_do_not_fit_the_bands_are_refused() -> None:
    config = PreparationConfig(elevation=("height",))
    with pytest.raises(PlanError, match=r"'height'.*'dtm'"):
        Preparation({"dem_elev": ("dsm",)}, {}, config)


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


def test_the_symmetries_are_numpys() -> None:
    square = torch.arange(9).reshape(3, 3)
    for k, (swap, flips) in enumerate(SYMMETRIES):
        found = (square.mT if swap else square).flip(flips)
        np.testing.assert_array_equal(found, _symmetry(square.numpy(), k))


def test_turning_before_preparing_is_turning_after(batch: MultimodalBatch, plan: PatchPlan) -> None:
    preparation = Preparation(plan.bands, compute_statistics(plan, max_windows=2))
    before = preparation(augment(batch, torch.Generator().manual_seed(2)))
    after = augment(preparation(batch), torch.Generator().manual_seed(2))
    for key, pixels in before.inputs.items():
        torch.testing.assert_close(pixels, after.inputs[key], rtol=1e-5, atol=1e-5)


def _symmetry(array: npt.NDArray[Any], k: int) -> npt.NDArray[Any]:
    turned = np.rot90(array, k % 4, (-2, -1))
    return turned[..., ::-1] if k >= 4 else turned


def test_augmentation_repeats_with_its_seed(batch: MultimodalBatch) -> None:
    one, two = (augment(batch, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one.inputs["aerial_rgbi"], two.inputs["aerial_rgbi"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_prepares_as_the_cpu_does() -> None:
    raw = random_batch(np.random.default_rng(7))
    config = PreparationConfig(clouds=CloudFilter(max_share=0.9))
    bands = {key: MODALITIES[key].band_names for key in INPUTS}
    rng = np.random.default_rng(8)
    statistics = {key: random_statistics(rng, len(names)) for key, names in bands.items()}
    preparation = Preparation(bands, statistics, config)
    here = augment(preparation(raw), torch.Generator().manual_seed(1))
    moved = augment(preparation.cuda()(raw.to("cuda")), torch.Generator().manual_seed(1))
    for key, pixels in here.inputs.items():
        torch.testing.assert_close(moved.inputs[key].cpu(), pixels, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("key", ["aerial_rgbi", "sentinel2_ts"])
def test_batches_of_other_bands_are_refused(
    batch: MultimodalBatch, plan: PatchPlan, key: str
) -> None:
    keys = ["aerial_rgbi", "sentinel2_ts"]
    batch = replace(batch, inputs={name: batch.inputs[name] for name in keys})
    rng = np.random.default_rng(1)

    def prepare(bands: dict[str, tuple[str, ...]], pixels: MultimodalBatch) -> MultimodalBatch:
        statistics = {name: random_statistics(rng, len(several)) for name, several in bands.items()}
        found: MultimodalBatch = Preparation(bands, statistics)(pixels)
        return found

    bands = {name: plan.bands[name] for name in keys}
    assert prepare(bands, batch).inputs.keys() == set(keys)
    for other in (bands[key][:1], bands[key][:-1]):
        with pytest.raises(PlanError, match=rf"{key} of the batch has the shape .* {len(other)} b"):
            prepare(bands | {key: other}, batch)
    with pytest.raises(PlanError, match=f"The batch has {key}; this preparation is of"):
        prepare({name: names for name, names in bands.items() if name != key}, batch)
    flat = replace(batch, inputs=dict(batch.inputs) | {key: batch.inputs[key].flatten(1)})
    with pytest.raises(PlanError, match=f"{key} of the batch has the shape"):
        prepare(bands, flat)
