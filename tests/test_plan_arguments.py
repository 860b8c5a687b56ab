"""What a plan is asked for: a lone name is a name, and nonsense is refused in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flairhub import PatchPlan
from flairhub.batches.datamodule import FlairDataModule
from flairhub.config import DataConfig
from flairhub.errors import FlairHubError, PlanError
from flairhub.modalities import get_modality
from tests.domain_tables import write_domain

_SERIES = get_modality("sentinel2_ts")

SQUARE = [(row, column) for row in range(1, 5) for column in range(1, 5)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of two ROIs of 4 x 4 patches."""
    folder = tmp_path_factory.mktemp("tables")
    write_domain(folder, "D001-2019", {"AF-S1-1": SQUARE, "UN-S1-2": SQUARE})
    return folder


NAN, INF = float("nan"), float("inf")

LENGTHS: list[Any] = [NAN, INF, -INF, "102.4", None, 0, -51.2, True, []]
TIMES: list[Any] = [NAN, -1, "x", None]
PERCENTAGES: list[Any] = [NAN, INF, -1, 101, "40", True, []]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        *(({"window_m": value}, "window_m must be") for value in LENGTHS),
        *(({"stride_m": value}, "stride_m must be") for value in LENGTHS if value is not None),
        *(({"max_cloud": value}, "max_cloud is a") for value in PERCENTAGES),
        *(({"retry_s": value}, "retry_s must be") for value in TIMES),
        ({"classes": {"cosia": {"vineyard": None}}}, "least share of vineyard"),
        ({"classes": {"cosia": {"vineyard": "0.1"}}}, "least share of vineyard"),
        ({"classes": {"cosia": "vineyard"}}, "classes of cosia"),
        ({"labels": None}, "labels must be"),
        ({"modalities": None}, "modalities must be"),
        ({"modalities": [1]}, "modalities must be names; 1"),
        ({"domains": [1]}, "domains must be names; 1"),
        ({"rois": 5}, "rois must be"),
        ({"bands": {"sentinel2_ts": None}}, "bands of sentinel2_ts must be"),
        ({"domains": "D024047-2021"}, "no domain 'D024047-2021'"),
        ({"rois": "UN-S2-13"}, "no ROI 'UN-S2-13'"),
        ({"modalities": "aerial_rgb"}, "aerial_rgb"),
        ({"split": None, "fold": None}, "fold"),
        ({"split": 1}, "split"),
        ({"dates": {"sentinel2_ts": "2021"}}, "dates of sentinel2_ts"),
        ({"dates": {"sentinel2_ts": ("2021-09-02", "2021-09-01")}}, "not before it"),
        ({"dates": {"sentinel2_ts": ("NaT", None)}}, "dates of sentinel2_ts"),
        ({"dates": {"sentinel1_asc_ts": ("2021", None)}}, "not among the modalities"),
        ({"dates": {"sentinel2_msk_sc": ("2019", None), "sentinel2_ts": ("2020", None)}}, "differ"),
        ({"modalities": ["aerial_rgbi"], "max_cloud": 1}, "not among the modalities"),
        (
            {"modalities": ["aerial_rgbi"], "dates": {"sentinel2_ts": ("2019", None)}},
            "not among the modalities",
        ),
    ],
    ids=str,
)
def test_nonsense_is_refused(root: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(FlairHubError) as caught:
        PatchPlan.build(root, **{"modalities": ["sentinel2_ts"], **options})
    assert words in str(caught.value)


@pytest.mark.parametrize("url", [None, 5])
def test_what_is_no_place_is_refused(url: Any) -> None:  # noqa: ANN401 - nonsense
    with pytest.raises(PlanError, match="folder of stores"):
        PatchPlan.build(url, modalities=["spot_rgbi"])


def test_a_lone_name_is_a_name(root: Path) -> None:
    one = PatchPlan.build(
        root, modalities="aerial_rgbi", labels="lpis_1", bands={"aerial_rgbi": "red"},
        domains="D001-2019", rois="UN-S1-2",
    )  # fmt: skip
    several = PatchPlan.build(
        root, modalities=["aerial_rgbi"], labels=["lpis_1"], bands={"aerial_rgbi": ["red"]},
        domains=["D001-2019"], rois=["UN-S1-2"],
    )  # fmt: skip
    assert one.fingerprint == several.fingerprint
    assert one.labels == ("lpis_1",)
    assert [roi.roi for roi in one.rois] == ["UN-S1-2"]


def days_of(plan: PatchPlan) -> list[str]:
    """Return the first window's days; the tables have one every five days from 3 January."""
    days = np.arange("2019-01-03", "2019-02-22", 5, dtype="datetime64[D]")
    window = plan.windows[0]
    kept = plan.dates_kept(plan.rois[0], _SERIES, days.astype(np.int64), window.extent)
    return [str(day) for day in days[kept]]


def test_a_month_and_a_year_end_with_their_last_day(tmp_path: Path) -> None:
    write_domain(tmp_path, "D001-2019", {"AF-S1-1": SQUARE}, dates=10)

    def planned(*period: Any, key: str = "sentinel2_ts") -> PatchPlan:  # noqa: ANN401
        return PatchPlan.build(
            tmp_path, modalities=["sentinel2_ts", "sentinel2_msk_sc"], dates={key: period}
        )

    january = [f"2019-01-{day:02d}" for day in range(3, 32, 5)]
    assert days_of(planned("2019-01", "2019-01")) == january
    assert days_of(planned("2019-01-01", "2019-01-31")) == january
    assert days_of(planned("2019-01", "2019-01-12")) == january[:2]
    assert len(days_of(planned("2019", "2019"))) == 10
    assert days_of(planned(None, np.datetime64("2019-01-12"))) == january[:2]
    # masks and their series have the same dates, whichever is named
    assert days_of(planned("2019-01", "2019-01", key="sentinel2_msk_sc")) == january
    with pytest.raises(PlanError, match="passes dates"):
        planned("2050-01-01", None, key="sentinel2_msk_sc")


def test_clouds_of_masks_alone(root: Path) -> None:
    how: dict[str, Any] = {"max_cloud": 3, "labels": ()}
    masks = PatchPlan.build(root, modalities=["aerial_rgbi", "sentinel2_msk_sc"], **how)
    series = PatchPlan.build(root, modalities=["aerial_rgbi", "sentinel2_ts"], **how)
    assert len(masks) == len(series) > 0
    np.testing.assert_array_equal(masks.rois[0].clear, series.rois[0].clear)


def test_a_complete_window_has_a_date_that_its_patches_share(root: Path) -> None:
    """Row r of the tables is (7 i + r) % 60 percent cloudy on the i-th date."""
    percent = np.array([[(7 * i + row) % 60 for i in range(5)] for row in range(1, 5)])
    for limit in (1, 2, 3, 4, 8, 30):
        how: dict[str, Any] = {"modalities": ["sentinel2_ts"], "max_cloud": limit}
        clear = percent <= limit
        pairs = [bool((clear[i] & clear[i + 1]).any()) for i in (0, 2)]
        count = 2 * 2 * sum(pairs)  # in two ROIs, two side by side
        if not count:
            with pytest.raises(PlanError, match="passes max_cloud"):
                PatchPlan.build(root, window_m=204.8, **how)
            continue
        plan = PatchPlan.build(root, window_m=204.8, **how)
        assert len(plan) == count
        for window, number in zip(plan.windows, plan.roi_index, strict=True):
            assert plan.dates_kept(plan.rois[number], _SERIES, np.arange(5), window.extent).any()  # type: ignore[union-attr]
        # dates that are clear but outside the period do not count
        late = ("2019-01-08", None)
        pairs = [bool((clear[i] & clear[i + 1])[1:].any()) for i in (0, 2)]
        if any(pairs):
            part = PatchPlan.build(root, window_m=204.8, dates={"sentinel2_ts": late}, **how)
            assert len(part) == 4 * sum(pairs)
    loose = PatchPlan.build(
        root, modalities=["sentinel2_ts"], max_cloud=1, window_m=204.8, complete=False
    )
    assert len(loose) == 8, "masked in the batch"


def test_clear_dates_that_alternate_leave_no_window(tmp_path: Path) -> None:
    write_domain(tmp_path, "D001-2019", {"AF-S1-1": SQUARE})
    path = tmp_path / "D001-2019.patches.parquet"
    table = pq.read_table(path)
    odd = [(row + column) % 2 for row, column in SQUARE]
    percent = [[0.0 if (i + k) % 2 else 90.0 for i in range(5)] for k in odd]
    at = table.column_names.index("cloud_percent")
    pq.write_table(table.set_column(at, "cloud_percent", pa.array(percent)), path)
    how: dict[str, Any] = {"modalities": ["sentinel2_ts"], "max_cloud": 10}
    assert len(PatchPlan.build(tmp_path, **how)) == 16
    with pytest.raises(PlanError, match="passes max_cloud"):
        PatchPlan.build(tmp_path, window_m=204.8, **how)
    assert len(PatchPlan.build(tmp_path, window_m=204.8, complete=False, **how)) == 4


@pytest.mark.parametrize("first", ["train", "valid"])
def test_plans_of_one_split_keep_their_strides(root: Path, first: str) -> None:
    config = DataConfig(
        root=str(root), modalities=("aerial_rgbi",), train_split="train", valid_split="train",
        stride_m=51.2,
    )  # fmt: skip
    data = FlairDataModule(config)
    plans = {"train": lambda: data.train_plan, "valid": lambda: data.plan("train")}
    sizes = {name: len(plans[name]()) for name in sorted(plans, key=lambda name: name != first)}
    how: dict[str, Any] = {"modalities": ["aerial_rgbi"], "split": "train"}
    assert sizes["train"] == len(PatchPlan.build(root, stride_m=51.2, **how))
    assert sizes["valid"] == len(PatchPlan.build(root, **how)) < sizes["train"]
    assert data.plan("train") is data.plan("train", stride_m=config.window_m)
