"""Statistics of pixels against plain numpy; the command, and the file that training takes."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from converters.flairhub_tree import FlairHubTree
from converters.rasters import read_raster
from converters.statistics import PixelStatistics, statistics_table
from flairhub import cli
from flairhub.batches.datamodule import FlairDataModule
from flairhub.config import DataConfig, PreparationConfig, load_config, parse_config
from flairhub.errors import ConfigError, NotInStoreError
from flairhub.modalities import MODALITIES, Kind, Modality, dataset_modalities
from flairhub.preparation.pipeline import Preparation
from flairhub.preparation.statistics import compute_statistics, run_statistics
from flairhub.store.layout import table_name
from flairhub.store.normalisation import read_normalisation
from flairhub.store.statistics import (
    PERCENTILES,
    bins_of,
    count_classes,
    read_class_counts,
    read_statistics,
    summarise_channels,
)
from flairhub.training.run import train
from flairhub.training.task import load_task

Pixels = npt.NDArray[Any]
KINDS = ("usual", "wild", "constant", "nothing")


def draw_pixels(modality: Modality, kind: str, seed: int, dates: int = 3) -> Pixels:
    """Return pixels of a patch: as they may be, with every oddity, all alike, or no signal."""
    draw = np.random.default_rng(seed)
    shape = (dates if modality.temporal else 1, len(modality.bands), *(modality.patch_px,) * 2)
    if modality.is_label:
        sizes = [len(modality.nomenclature(level + 1)) for level in range(len(modality.bands))]
        found: Pixels = np.stack([draw.integers(0, n, shape[-2:]) for n in sizes])[None]
    elif modality.numpy_dtype.kind == "u":
        found = draw.gamma(2.0, 60.0, shape).clip(0, np.iinfo(modality.dtype).max)
        found = found * 30 if modality.dtype == "uint16" else found
    elif modality.kind is Kind.ELEVATION:
        found = draw.normal(2000, 30, shape)
    else:
        found = draw.gamma(2.0, 0.05, shape)
    if kind == "constant":
        found = np.full(shape, 7.3)
    elif kind == "nothing":
        found = np.full(shape, np.nan if modality.dtype == "float32" else 0)
    elif kind == "wild" and modality.dtype == "float32":
        for value in (np.nan, 0.0, -0.0, -3.7, -np.inf, np.inf, 1e-38, 3e38):
            found[draw.random(shape) < 0.02] = value
    elif kind == "wild" and not modality.is_label:
        for value in (0, np.iinfo(modality.dtype).max):
            found[draw.random(shape) < 0.02] = value
    return found.astype(modality.dtype)


def expected_channels(modality: Modality, pixels: Pixels) -> dict[str, Pixels]:
    """Return the values of each channel, no signal as NaN, in their own dtype."""
    names = modality.nomenclatures or modality.band_names
    found = {name: pixels[:, i].ravel() for i, name in enumerate(names)}
    if modality.key.startswith("sentinel1"):
        for name in modality.band_names:
            power = np.where(found[name] > 0, found[name], np.nan).astype(np.float32)
            found[f"{name.lower()}_db"] = np.float32(10) * np.log10(power)
    if modality.kind is Kind.ELEVATION:
        with np.errstate(invalid="ignore"):
            found["height"] = found["dsm"] - found["dtm"]
    return found


def rows_of(*parts: tuple[str, Pixels, str | None], roi: str = "AA-S1-1") -> list[dict[str, Any]]:
    statistics = PixelStatistics()
    for key, pixels, split in parts:
        statistics.add(MODALITIES[key], pixels, split)
    return statistics.rows(roi)


def frame_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as they are read from Parquet."""
    frame: pd.DataFrame = statistics_table(rows).to_pandas()
    return frame


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", [m.key for m in dataset_modalities() if not m.is_label])
def test_every_channel_is_what_numpy_says(key: str, kind: str) -> None:
    modality = MODALITIES[key]
    patches = [draw_pixels(modality, kind, seed) for seed in (1, 2)]
    frame = summarise_channels(frame_of(rows_of(*((key, p, "train") for p in patches))))
    channels = [expected_channels(modality, p) for p in patches]
    assert list(frame["channel"]) == list(channels[0])
    assert set(frame["split"]) == {"train"}
    for row in frame.to_dict("records"):
        values = np.concatenate([c[row["channel"]] for c in channels])
        valid = values[np.isfinite(values)].astype(np.float64)
        assert row["pixels"] == len(values)
        assert row["count"] == len(valid)
        assert row["nodata_share"] == pytest.approx(1 - len(valid) / len(values))
        if not len(valid):
            assert math.isnan(row["mean"])
            assert math.isnan(row["p50"])
            continue
        assert (row["minimum"], row["maximum"]) == (valid.min(), valid.max())
        assert row["mean"] == pytest.approx(valid.mean(), rel=1e-12)
        assert row["std"] == pytest.approx(valid.std(), rel=1e-9, abs=1e-12)
        for percentile in PERCENTILES:
            check_percentile(row[f"p{percentile}"], valid, percentile, modality.dtype)


def check_percentile(found: float, values: Pixels, percentile: int, dtype: str) -> None:
    """Neighbouring order statistics, each at most a bin's width away, bound an interpolated one."""
    near = [np.percentile(values, percentile, method=m) for m in ("lower", "higher")]
    slack = [0.0 if dtype == "uint8" else max(abs(v) / 128, 1e-36) for v in near]
    assert near[0] - slack[0] <= found <= near[1] + slack[1]
    if dtype == "uint8":
        assert found == pytest.approx(np.percentile(values, percentile), rel=1e-12)


def test_every_bin_is_what_its_values_are() -> None:
    pixels = draw_pixels(MODALITIES["sentinel1_asc_ts"], "wild", 3)
    for row in rows_of(("sentinel1_asc_ts", pixels, None)):
        values = expected_channels(MODALITIES["sentinel1_asc_ts"], pixels)[row["channel"]]
        bins, counts = np.unique(bins_of(values[np.isfinite(values)]), return_counts=True)
        assert row["bins"] == bins.tolist()
        assert row["counts"] == counts.tolist()
        assert row["split"] == ""
    assert len(set(bins_of(range(257)).tolist())) == 257


def test_no_signal_does_not_count_in_decibels() -> None:
    pixels = np.full((1, 2, 10, 10), 0.01, np.float32)
    pixels[0, 0, 0, :4] = (0, -1, np.nan, 1.0)
    rows = {row["channel"]: row for row in rows_of(("sentinel1_desc_ts", pixels, "test"))}
    assert rows["VV"]["count"] == 99
    assert rows["vv_db"]["count"] == 97
    assert rows["vv_db"]["nodata"] == 3
    assert rows["vv_db"]["minimum"] == pytest.approx(-20, rel=1e-6)
    assert rows["vv_db"]["maximum"] == 0.0
    assert rows["vh_db"]["count"] == 100


def test_moments_far_from_zero_keep_their_digits() -> None:
    """Squares of altitudes in float32 would lose the last centimetres."""
    draw = np.random.default_rng(0)
    pixels = (4000 + draw.normal(0, 0.05, (1, 2, 512, 512))).astype(np.float32)
    frame = summarise_channels(frame_of(rows_of(("dem_elev", pixels, "train"))))
    for row, band in zip(frame.to_dict("records"), pixels[0].astype(np.float64), strict=False):
        assert row["mean"] == pytest.approx(band.mean(), rel=1e-14)
        assert row["std"] == pytest.approx(band.std(), rel=1e-4)


def test_the_registry_says_what_is_nodata() -> None:
    for key, nodata in (("dem_elev", -9999.0), ("spot_rgbi", 0), ("aerial_rgbi", 255)):
        modality = replace(MODALITIES[key], nodata=nodata)
        pixels = draw_pixels(modality, "usual", 1).clip(1, None)
        pixels[0, 0, :2] = nodata
        statistics = PixelStatistics()
        statistics.add(modality, pixels, "train")
        row = statistics.rows("AA-S1-1")[0]
        valid = pixels[0, 0][pixels[0, 0] != nodata].astype(np.float64)
        assert row["nodata"] >= 2 * modality.patch_px
        assert row["count"] == len(valid)
        assert row["sum"] == pytest.approx(valid.sum(), rel=1e-12)
        assert (row["minimum"], row["maximum"]) == (valid.min(), valid.max())


@pytest.mark.parametrize("key", ["aerial_label_cosia", "all_label_lpis"])
def test_classes_are_counted(key: str) -> None:
    modality = MODALITIES[key]
    patches = [draw_pixels(modality, "usual", seed) for seed in (1, 2)]
    rows = rows_of(*((key, p, "train") for p in patches))
    assert [row["channel"] for row in rows] == list(modality.nomenclatures)
    assert all(row["sum"] is None for row in rows)
    frame = count_classes(frame_of(rows))
    for level, name in enumerate(modality.nomenclatures):
        mine = frame[frame["nomenclature"] == name]
        classes = modality.nomenclature(level + 1)
        pixels = np.concatenate([p[0, level].ravel() for p in patches])
        expected = np.bincount(pixels, minlength=len(classes))
        assert list(mine["pixels"]) == expected.tolist()
        assert list(mine["name"]) == list(classes.names)
        np.testing.assert_allclose(mine["share"], expected / expected.sum())
    assert summarise_channels(frame_of(rows)).empty


def test_merging_in_any_order_is_one_pass() -> None:
    keys = ("spot_rgbi", "sentinel1_asc_ts")
    patches = [
        (key, draw_pixels(MODALITIES[key], kind, seed), split)
        for seed, kind in enumerate(("usual", "wild", "constant"))
        for key in keys
        for split in ("train", "test")
    ]
    parts = [rows_of(*patches[i::3], roi=f"AA-S1-{i}") for i in range(3)]
    merged = [
        summarise_channels(frame_of(list(itertools.chain(*order))))
        for order in itertools.permutations(parts)
    ]
    for other in merged[1:]:
        pd.testing.assert_frame_equal(merged[0], other, check_exact=True)
    once = summarise_channels(frame_of(rows_of(*patches)))
    pd.testing.assert_frame_equal(merged[0], once, rtol=1e-12)


def test_pixels_in_any_layout_count_alike() -> None:
    pixels = draw_pixels(MODALITIES["aerial_rgbi"], "wild", 1)
    turned = np.asfortranarray(pixels)
    assert rows_of(("aerial_rgbi", turned, "train")) == rows_of(("aerial_rgbi", pixels, "train"))


@example([-3.3895313892515355e38])  # in the last bin before infinity
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=200)
)
def test_percentiles_are_less_than_a_bin_from_the_truth(values: list[float]) -> None:
    pixels = np.array(values, np.float32)
    patch = np.resize(pixels, (math.ceil(len(values) / 200) or 1, 2, 10, 10))
    row = summarise_channels(frame_of(rows_of(("sentinel1_asc_ts", patch, "train")))).iloc[0]
    for percentile in PERCENTILES:
        check_percentile(
            row[f"p{percentile}"], patch[:, 0].astype(np.float64).ravel(), percentile, "float32"
        )


def test_rows_are_plain_json_and_types_do_not_depend_on_them() -> None:
    pixels = draw_pixels(MODALITIES["dem_elev"], "wild", 1)
    rows = rows_of(("dem_elev", pixels, "train"))
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert statistics_table(rows).schema == statistics_table([]).schema
    assert statistics_table(rows).to_pylist() == rows


# On a store


@pytest.fixture(scope="module")
def tables(raw_tree: Path, store_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of the sample, with statistics of its raw files; not to be changed."""
    root = tmp_path_factory.mktemp("tables")
    for path in store_root.glob("*.parquet"):
        shutil.copy(path, root)
    source = FlairHubTree(raw_tree)
    for domain in source.domains():
        rows = []
        for roi in source.rois(domain, tuple(MODALITIES.values())):
            statistics = PixelStatistics()
            for patch, files in roi.files.items():
                for key, file in files.items():
                    modality = MODALITIES[key]
                    split = roi.folds["split"].get(patch)
                    statistics.add(modality, read_raster(file, modality).pixels, split)
            rows += statistics.rows(str(roi.roi))
        pq.write_table(statistics_table(rows), root / table_name(domain, "statistics"))
    return root


def raw_values(raw_tree: Path, key: str, split: str) -> Pixels:
    """Return ``(dates, bands, y, x)`` of all patches of a split."""
    source = FlairHubTree(raw_tree)
    return np.concatenate(
        [
            read_raster(files[key], MODALITIES[key]).pixels
            for domain in source.domains()
            for roi in source.rois(domain, (MODALITIES[key],))
            for patch, files in roi.files.items()
            if roi.folds["split"].get(patch) == split and key in files
        ]
    )


def test_statistics_are_merged_over_rois_and_domains(tables: Path, raw_tree: Path) -> None:
    frame = read_statistics(tables, split="train")
    rows = {(row["modality"], row["channel"]): row for row in frame.to_dict("records")}
    values = raw_values(raw_tree, "spot_rgbi", "train").astype(np.float64)
    for i, band in enumerate(MODALITIES["spot_rgbi"].band_names):
        row = rows["spot_rgbi", band]
        assert row["mean"] == pytest.approx(values[:, i].mean(), rel=1e-12)
        assert row["std"] == pytest.approx(values[:, i].std(), rel=1e-12)
    counts = read_class_counts(tables, split="train")
    labels = raw_values(raw_tree, "aerial_label_cosia", "train")
    mine = counts[counts["nomenclature"] == "cosia"]["pixels"]
    assert list(mine) == np.bincount(labels.ravel(), minlength=19).tolist()


def test_splits_and_domains_can_be_chosen(tables: Path) -> None:
    apart = read_statistics(tables)
    together = read_statistics(tables, split="all")
    assert {"train", "valid", "test"} >= set(apart["split"]) > {"train"}
    sums = apart.groupby(["modality", "channel"], sort=False)["pixels"].sum()
    assert list(sums) == list(together["pixels"])
    domains = sorted(p.name.split(".")[0] for p in tables.glob("*.statistics.parquet"))
    each = [read_statistics(tables, [d], "all")["pixels"].sum() for d in domains]
    assert sum(each) == together["pixels"].sum()
    assert 0 < each[0] < sum(each)
    with pytest.raises(NotInStoreError, match=r"'trian'.*'train'"):
        read_statistics(tables, split="trian")
    with pytest.raises(NotInStoreError, match="D099-2020"):
        read_statistics(tables, ["D099-2020"])


def test_a_domain_converted_before_says_to_convert_again(tables: Path, tmp_path: Path) -> None:
    for path in tables.glob("*.parquet"):
        if ".statistics." not in path.name:
            shutil.copy(path, tmp_path)
    with pytest.raises(NotInStoreError, match=r"has no statistics.*convert` again"):
        read_statistics(tmp_path)
    with pytest.raises(NotInStoreError, match="no complete domain"):
        read_statistics(tmp_path / "..")


def test_one_store_is_read_alone(store_root: Path, tables: Path, tmp_path: Path) -> None:
    name = sorted(store_root.glob("*.zarr"))[0].name
    (tmp_path / name).mkdir()
    for path in tables.glob("*.parquet"):
        shutil.copy(path, tmp_path)
    domain = name.removesuffix(".zarr")
    pd.testing.assert_frame_equal(
        read_statistics(tmp_path / name), read_statistics(tmp_path, [domain])
    )


def test_the_command_prints_json_for_programs_and_tables_for_people(
    tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["stats", str(tables), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["split"] == "train"
    frame = read_statistics(tables, split="train")
    assert [c["mean"] for c in found["channels"]] == frame["mean"].tolist()
    assert {c["channel"] for c in found["channels"]} >= {"vv_db", "VV", "height", "dsm", "cloud"}
    assert {c["nomenclature"] for c in found["classes"]} == {"cosia", "lpis_1", "lpis_2", "lpis_3"}
    assert cli.run(["stats", str(tables), "--split", "all"]) == 0
    shown = capsys.readouterr().out
    for text in ("Aerial image", "vv_db", "building", "sunflower", "nodata", "p50"):
        assert text in shown
    domains = found["domains"]
    assert cli.run(["stats", str(tables), "--json", "--domains", ",".join(domains)]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert cli.run(["stats", str(tables), "--split", "nowhere"]) == 1
    assert "error: " in capsys.readouterr().err


@pytest.fixture(scope="module")
def normalisation(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes for training; not to be changed."""
    path = tmp_path_factory.mktemp("normalisation") / "normalisation.json"
    assert cli.run(["stats", str(tables), "--out", str(path)]) == 0
    return path


INPUTS = ("spot_rgbi", "dem_elev", "sentinel2_ts", "sentinel2_msk_sc", "sentinel1_asc_ts")


def test_the_file_has_what_training_would_measure(normalisation: Path, store_root: Path) -> None:
    """As `compute_statistics` finds it, on all training windows."""
    config = DataConfig(root=str(store_root), modalities=INPUTS, statistics=str(normalisation))
    data = FlairDataModule(config)
    plan = data.train_plan
    keys = ["spot_rgbi", "sentinel2_ts", "sentinel1_asc_ts"]
    measured = compute_statistics(plan, keys, max_windows=len(plan))
    given = run_statistics(config, plan)
    for key in keys:
        np.testing.assert_allclose(given[key].mean, measured[key].mean, rtol=1e-6)
        np.testing.assert_allclose(given[key].std, measured[key].std, rtol=1e-5)
        assert "split train" in given[key].source
    # relief depends on the window, and masks become shares
    assert given["dem_elev"].source.startswith("measured on")
    assert "windows" in given["dem_elev"].source
    assert "sentinel2_msk_sc" not in given
    altitudes = config.model_copy(update={"preparation": PreparationConfig(elevation=("dtm",))})
    (expected,) = compute_statistics(
        plan, ["dem_elev"], altitudes.preparation, max_windows=len(plan)
    )["dem_elev"].mean
    (mean,) = run_statistics(altitudes, plan)["dem_elev"].mean
    assert mean == pytest.approx(expected, rel=1e-6)
    buffers = dict(Preparation(plan.bands, given).named_buffers())
    np.testing.assert_allclose(
        buffers["mean_spot_rgbi"].flatten(), given["spot_rgbi"].mean, rtol=1e-6
    )


def test_chosen_bands_take_their_own_figures(normalisation: Path) -> None:
    every = read_normalisation(normalisation, {"aerial_rgbi": ("red", "green", "blue", "nir")})
    some = read_normalisation(normalisation, {"aerial_rgbi": ("nir", "red")})
    mean = every["aerial_rgbi"].mean
    assert some["aerial_rgbi"].mean == (mean[3], mean[0])
    assert read_normalisation(normalisation, {"dem_elev": ("height", "relief")}) == {}


def test_the_path_starts_in_the_folder_of_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "data: {root: store, modalities: [aerial_rgbi], statistics: n.json}", encoding="utf-8"
    )
    assert load_config(path).data.statistics == str(tmp_path / "n.json")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"channels": ["red"], "mean": [1.0], "std": [1.0]}, "green, blue, nir is not among"),
        ({"mean": [1.0]}, "4 channels, 1 means"),
        ({"std": [1.0, 1.0, 1.0, 0.0]}, "std.3: Input should be greater than 0"),
        ({"mean": [1.0, 1.0, 1.0, math.nan]}, "mean.3: Input should be a finite number"),
        ({"units": "dB"}, "its units are 'dB'"),
        ({"mean": None}, "mean: Input should be a valid tuple"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    change: dict[str, Any], expected: str, normalisation: Path, tmp_path: Path
) -> None:
    found = json.loads(normalisation.read_text("utf-8"))
    found["modalities"]["aerial_rgbi"] |= change
    path = tmp_path / "other.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_normalisation(path, {"aerial_rgbi": ("red", "green", "blue", "nir")})
    for part in (str(path), "aerial_rgbi", expected, "red, green, blue, nir"):
        assert part in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other", "modalities": {}}'])
def test_another_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    with pytest.raises(ConfigError, match=r"Cannot read.*other\.json"):
        read_normalisation(path, {})
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"other\.json.*stats --out"):
        read_normalisation(path, {})


def test_a_run_is_normalised_as_the_file_says(
    normalisation: Path, store_root: Path, tmp_path: Path
) -> None:
    values = {
        "data": {
            "root": str(store_root),
            "modalities": ["spot_rgbi"],
            "window_m": 51.2,
            "batch_size": 2,
            "statistics": str(normalisation),
        },
        "model": {"encoder": "mobilenetv3_small_050", "decoder_channels": 32},
        "training": {"output": str(tmp_path / "run"), "max_steps": 1, "accelerator": "cpu"},
    }
    result = train(parse_config(values))
    given = json.loads(normalisation.read_text("utf-8"))["modalities"]["spot_rgbi"]
    mean = load_task(result.checkpoint).preparation.get_buffer("mean_spot_rgbi")
    np.testing.assert_allclose(mean.flatten(), given["mean"], rtol=1e-6)
    other = parse_config({**values, "data": {**values["data"], "statistics": None}})
    with pytest.raises(ConfigError, match=r"data\.statistics"):
        train(other, resume=True)
