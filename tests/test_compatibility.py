"""The preparation of mode ign against what IGN's loader made of the same TIFFs."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from flairhub import PatchPlan
from flairhub import ign as ign_facts
from flairhub.batches.batch import MultimodalBatch
from flairhub.batches.streaming import stream
from flairhub.config import CloudFilter, PreparationConfig
from flairhub.errors import PlanError
from flairhub.modalities import Statistics, dataset_modalities, get_modality
from flairhub.preparation.compatibility import IgnPreparation, day_offsets
from tests import plain_preparation as plain

INPUTS = [m.key for m in dataset_modalities() if not m.is_label]
SERIES = ("sentinel2_ts", "sentinel1_asc_ts", "sentinel1_desc_ts")
VARIANTS = ("default", "monthly", "semi-monthly")
LABELS = {"cosia": "AERIAL_LABEL-COSIA", "lpis_1": "ALL_LABEL-LPIS"}


@pytest.fixture(scope="module")
def reference(repository: Path) -> Path:
    """What IGN's loader made, which lies beside the checkout where it is available."""
    path = repository.parent / "shared" / "loader-reference"
    if not path.exists():
        pytest.skip("the tensors of IGN's loader are not available here")
    return path


@pytest.fixture(scope="module")
def streamed(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> MultimodalBatch:
    """Its TIFFs, converted and streamed: four windows, in the order of the patches."""
    from converters.convert import convert
    from converters.flairhub_tree import FlairHubTree

    root = tmp_path_factory.mktemp("reference") / "store"
    convert(FlairHubTree(reference / "raw"), str(root), workers=1)
    plan = PatchPlan.build(root, modalities=INPUTS, labels=list(LABELS), bands=ign_facts.BANDS)
    (batch,) = stream(plan, batch_size=4)
    return batch


def options(config: Mapping[str, Any]) -> PreparationConfig:
    """Say in our words what a configuration of IGN's loader says."""
    how = config["modalities"]["pre_processings"]
    clouds = CloudFilter(
        max_cloud=how["filter_sentinel2_max_cloud"],
        max_snow=how["filter_sentinel2_max_snow"],
        max_share=how["filter_sentinel2_max_frac_cover"],
    )
    elevation: tuple[str, ...] = ("dsm", "dtm")
    if how["calc_elevation"]:
        elevation = ("dsm", "height") if how["calc_elevation_stack_dsm"] else ("height",)
    periods = {key: how[f"temporal_average_{key[:9]}"] for key in SERIES}
    return PreparationConfig.model_validate(
        {
            "mode": "ign",
            "elevation": elevation,
            "clouds": clouds if how["filter_sentinel2"] else None,
            "composites": {key: period for key, period in periods.items() if period},
        }
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_tiff_to_store_to_batch_gives_what_igns_loader_gives(
    variant: str, reference: Path, streamed: MultimodalBatch
) -> None:
    """Every tensor of every patch, to a relative error of 1e-6; days and classes exactly."""
    expected = dict(np.load(reference / f"{variant}.npz"))
    config = options(json.loads(str(expected.pop("config"))))
    bands = {key: ign_facts.BANDS.get(key, get_modality(key).band_names) for key in INPUTS}
    found = IgnPreparation(bands, config)(streamed)
    compared = set()
    for i, patch in enumerate(sorted({name.split("/")[0] for name in expected})):
        assert patch.startswith(f"{found.windows[i].domain}_{found.windows[i].roi}_")
        for key, pixels in found.inputs.items():
            source = get_modality(key).source_name
            one = pixels[i]
            if key in SERIES:
                size = int(found.lengths[key][i])
                offsets = day_offsets(found.days[key], found.lengths[key])[i]
                name = f"{patch}/{source.replace('_TS', '_DATES')}"
                np.testing.assert_array_equal(offsets[:size], expected[name])
                assert not offsets[size:].any()
                assert not one[size:].any()
                one = one[:size]
                compared.add(name)
            if (name := f"{patch}/{source}") in expected:
                np.testing.assert_allclose(one, expected[name], rtol=1e-6, atol=0, err_msg=name)
                compared.add(name)
        for key, source in LABELS.items():
            if (name := f"{patch}/{source}") in expected:
                np.testing.assert_array_equal(found.labels[key][i], expected[name])
                compared.add(name)
    assert compared == set(expected)
    assert found.inputs.keys() == set(INPUTS) - {"sentinel2_msk_sc"}


def one_window(
    days: list[int], hidden: list[tuple[int, int]], *, values: npt.NDArray[Any] | None = None
) -> MultimodalBatch:
    """Return a Sentinel-2 series of one window; of each date (snow, cloud) pixels of 100 hidden."""
    rng = np.random.default_rng(len(days))
    shape = (len(days), 10, 10, 10)
    series = rng.integers(1, 10000, shape).astype(np.uint16) if values is None else values
    masks = np.zeros((len(days), 2, 100), np.uint16)
    for mask, counts in zip(masks, hidden, strict=True):
        for band, count in zip(mask, counts, strict=True):
            band[:count] = 2
    return plain.batch_of(
        {"sentinel2_ts": [series], "sentinel2_msk_sc": [masks.reshape(-1, 2, 10, 10)]},
        {"sentinel2_ts": [days], "sentinel2_msk_sc": [days]},
    )


BANDS = {key: get_modality(key).band_names for key in ("sentinel2_ts", "sentinel2_msk_sc")}


def test_a_date_is_kept_while_95_of_100_pixels_are_clear() -> None:
    batch = one_window([17900, 17950, 18000, 18050], [(0, 5), (5, 3), (0, 6), (6, 0)])
    found = IgnPreparation(BANDS)(batch)
    assert found.days["sentinel2_ts"].tolist() == [[17900, 17950]]
    expected = batch.inputs["sentinel2_ts"][:, :2].float()
    assert torch.equal(found.inputs["sentinel2_ts"], expected)


def test_where_none_is_clear_snow_alone_counts() -> None:
    found = IgnPreparation(BANDS)(one_window([17900, 17950], [(0, 90), (6, 0)]))
    assert found.days["sentinel2_ts"].tolist() == [[17900]]


def test_where_none_is_without_snow_the_series_is_absent() -> None:
    """IGN's loader cannot collate it; here its length says so."""
    batch = one_window([17900, 17950], [(50, 90), (60, 0)])
    monthly = PreparationConfig(
        mode="ign", clouds=CloudFilter(), composites={"sentinel2_ts": "monthly"}
    )
    for config in (None, monthly):
        found = IgnPreparation(BANDS, config)(batch)
        assert found.lengths["sentinel2_ts"].tolist() == [0]
        assert not found.inputs["sentinel2_ts"].any()


def test_the_year_of_composites_is_that_of_the_first_clear_date() -> None:
    """Semi-monthly, other years are left out; monthly, they count for their month."""
    days = [plain.number(dt.date(*d)) for d in ((2019, 12, 30), (2020, 3, 2), (2020, 3, 9))]
    batch = one_window(days, [(0, 99), (0, 0), (0, 0)])
    for period, size in (("monthly", 12), ("semi-monthly", 24)):
        config = PreparationConfig.model_validate(
            {"mode": "ign", "clouds": CloudFilter(), "composites": {"sentinel2_ts": period}}
        )
        found = IgnPreparation(BANDS, config)(batch)
        offsets = day_offsets(found.days["sentinel2_ts"], found.lengths["sentinel2_ts"])[0]
        march = 2 if period == "monthly" else 4
        assert offsets.tolist() == [0.0] * march + [(-61.0, -68.0)[size > 12]] * (size - march)
        mean = batch.inputs["sentinel2_ts"][0, 1:].double().mean(0).float()
        assert torch.equal(found.inputs["sentinel2_ts"][0, march], mean)
        assert torch.equal(found.inputs["sentinel2_ts"][0, -1], mean)
        assert not found.inputs["sentinel2_ts"][0, :march].any()


def test_no_signal_is_zero_and_radar_stays_linear() -> None:
    values = torch.tensor([0.01, 1.0, 0.0, torch.nan]).reshape(1, 1, 2, 2)
    batch = plain.batch_of(
        {"sentinel1_asc_ts": [values[None, 0].numpy()]}, {"sentinel1_asc_ts": [[18000]]}
    )
    found = IgnPreparation({"sentinel1_asc_ts": ("VV",)})(batch)
    assert found.inputs["sentinel1_asc_ts"].flatten().tolist() == pytest.approx([0.01, 1, 0, 0])
    assert batch.inputs["sentinel1_asc_ts"].isnan().any()  # the batch itself stays as it is


def test_other_bands_need_their_own_statistics() -> None:
    bands = {"aerial_rgbi": ("red", "green")}
    with pytest.raises(PlanError, match=r"aerial_rgbi.*\[nir, red, green\].*statistics"):
        IgnPreparation(bands)
    given = {"aerial_rgbi": Statistics((100.0, 50.0), (10.0, 20.0), "another network")}
    found = IgnPreparation(bands, statistics=given)(
        plain.batch_of({"aerial_rgbi": [np.full((2, 4, 4), 90, np.uint8)]})
    )
    assert found.inputs["aerial_rgbi"][0, :, 0, 0].tolist() == [-1.0, 2.0]
    with pytest.raises(PlanError, match="'own'"):
        IgnPreparation(bands, PreparationConfig())
