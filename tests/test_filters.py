"""Plans take the windows and dates that the tables say, and the stream gives just these."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import flairhub
from flairhub import PatchPlan
from flairhub.batches.streaming import stream
from flairhub.errors import PlanError

S2 = ["sentinel2_ts", "sentinel2_msk_sc"]


def _days(batch_days: object, length: object) -> np.ndarray:
    return np.asarray(batch_days)[: int(length)].astype("datetime64[D]")  # type: ignore[call-overload]


def test_series_are_cut_to_a_period(store_root: Path) -> None:
    whole = PatchPlan.build(store_root, modalities=[*S2, "sentinel1_asc_ts"], labels=())
    plan = PatchPlan.build(
        store_root, modalities=[*S2, "sentinel1_asc_ts"], labels=(),
        dates={"sentinel2_ts": ("2000-04-01", None)},
    )  # fmt: skip
    assert len(plan) == len(whole)
    days = np.concatenate(
        [_days(b.days[S2[0]][0], b.lengths[S2[0]][0]) for b in stream(whole, batch_size=1)]
    )
    first = np.sort(days)[len(days) // 2]
    part = PatchPlan.build(
        store_root, modalities=[*S2, "sentinel1_asc_ts"], labels=(), complete=False,
        dates={"sentinel2_ts": (str(first), None)},
    )  # fmt: skip
    for a, b in zip(stream(whole, batch_size=1), stream(part, batch_size=1), strict=True):
        every = _days(a.days[S2[0]][0], a.lengths[S2[0]][0])
        kept = every >= first
        for key in S2:
            np.testing.assert_array_equal(
                _days(b.days[key][0], b.lengths[key][0]), every[kept], err_msg=key
            )
            found = b.inputs[key][0, : int(b.lengths[key][0])]
            np.testing.assert_array_equal(found, a.inputs[key][0, : len(every)][kept])
            assert bool(b.present[key][0]) == kept.any()
        assert int(b.lengths["sentinel1_asc_ts"][0]) == int(a.lengths["sentinel1_asc_ts"][0])


@pytest.mark.parametrize("window_m", [102.4, 204.8])
def test_cloudy_dates_are_left_out_for_all_patches(store_root: Path, window_m: float) -> None:
    limit = 40.0
    how = {"modalities": S2, "labels": (), "window_m": window_m, "complete": False}
    whole = PatchPlan.build(store_root, **how)  # type: ignore[arg-type]
    clear = PatchPlan.build(store_root, max_cloud=limit, **how)  # type: ignore[arg-type]
    left_out = 0
    for a, b in zip(stream(whole, batch_size=1), stream(clear, batch_size=1), strict=True):
        (window,) = a.windows
        box = window.extent
        patches = flairhub.open_domain(store_root / f"{window.domain}.zarr").patches
        inside = patches[
            (patches["roi"] == window.roi)
            & (patches["left"] >= box.left - 1e-3) & (patches["right"] <= box.right + 1e-3)
            & (patches["top"] <= box.top + 1e-3) & (patches["bottom"] >= box.bottom - 1e-3)
        ]  # fmt: skip
        assert len(inside) == round(window_m / 102.4) ** 2
        kept = (np.stack(inside["cloud_percent"].to_list()) <= limit).all(axis=0)
        days = _days(a.days[S2[0]][0], a.lengths[S2[0]][0])
        np.testing.assert_array_equal(_days(b.days[S2[0]][0], b.lengths[S2[0]][0]), days[kept])
        left_out += int((~kept).sum())
    assert left_out


def test_images_of_other_days_are_not_planned(store_root: Path) -> None:
    whole = PatchPlan.build(store_root, modalities=["aerial_rgbi"])
    domains = sorted({roi.domain for roi in whole.rois})
    days = {
        (domain, p["roi"], p["left"], p["top"]): p["date_aerial_rgbi"]
        for domain in domains
        for p in flairhub.open_domain(store_root / f"{domain}.zarr").patches.to_dict("records")
    }
    limit = sorted(days.values())[len(days) // 2]
    part = PatchPlan.build(
        store_root, modalities=["aerial_rgbi"], dates={"aerial_rgbi": (None, limit)}
    )
    kept = {w for w in whole.windows if days[w.domain, w.roi, w.extent.left, w.extent.top] <= limit}
    assert set(part.windows) == kept
    assert 0 < len(part) <= len(whole)


def test_windows_of_classes(store_root: Path) -> None:
    whole = PatchPlan.build(store_root, modalities=["aerial_rgbi"])
    share = 0.15
    part = PatchPlan.build(
        store_root, modalities=["aerial_rgbi"], classes={"cosia": {"herbaceous vegetation": share}}
    )
    code = [c.name for c in flairhub.get_nomenclature("cosia").classes].index(
        "herbaceous vegetation"
    )
    kept = [
        window
        for batch in stream(whole, batch_size=1)
        for window in batch.windows
        if float((batch.labels["cosia"] == code).float().mean()) >= share
    ]
    assert list(part.windows) == kept
    assert 0 < len(kept) < len(whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dates": {"dem_elev": (None, None)}}, "no date of dem_elev"),
        ({"dates": {"aerial_rgbi": ("soon", None)}}, "not \\('soon', None\\)"),
        ({"max_cloud": 120.0}, "from 0 to 100"),
        ({"classes": {"cosia": {"vineyards": 0.1}}}, "Did you mean 'vineyard'"),
        ({"classes": {"cosia": {"vineyard": 5}}}, "from 0 to 1"),
        ({"classes": {"cosia": {"greenhouse": 0.99}}}, "passes classes"),
    ],
)
def test_bad_filters_say_what_is_wrong(
    store_root: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        PatchPlan.build(store_root, modalities=["aerial_rgbi"], **options)  # type: ignore[arg-type]
