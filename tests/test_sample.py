"""The miniature: names, georeferences, dates and labels as in the raw data; learnable pixels."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pytest
import rasterio

from converters.flairhub_raw import RawFile, RawFolder, csv_columns
from converters.flairhub_tree import FlairHubTree
from converters.miniature import write_sample
from flairhub.cli import run
from flairhub.errors import ConfigError, ConversionError, SourceDataError
from flairhub.grids import PATCH_SIDE_M
from flairhub.ids import DomainId, PatchId
from flairhub.modalities import MODALITIES, dataset_modalities
from flairhub.nomenclatures import NOMENCLATURES
from tests.trees import read, snapshot

GPKG = "GLOBAL_ALL_MTD/GLOBAL_{}_MTD_DATES.gpkg"


def test_every_name_follows_the_grammar(raw_tree: Path) -> None:
    seen = set()
    for path in raw_tree.rglob("*.tif"):
        file = RawFile.parse(path.name)
        assert path == raw_tree / file.path
        seen.add(file.folder.modality.key)
    assert seen == {m.key for m in dataset_modalities()}
    folders = [RawFolder.parse(path.name) for path in raw_tree.glob("D*")]
    assert {f.year for f in folders if f and f.modality.key == "aerial_rlt_pan"} == {"195X"}
    assert DomainId("024047", 2021) in [f.domain for f in folders if f]


def test_rasters_are_what_the_registry_says(raw_tree: Path) -> None:
    for modality in dataset_modalities():
        for path in raw_tree.glob(f"*_{modality.source_name}/*/*_1-2.tif"):
            with rasterio.open(path) as source:
                assert set(source.dtypes) == {modality.dtype}
                assert source.shape == (modality.patch_px, modality.patch_px)
                assert source.crs.to_epsg() == 2154
                assert source.count % len(modality.bands) == 0
                assert modality.temporal or source.count == len(modality.bands)
                for edge in (source.bounds.left, source.bounds.top):
                    assert abs(edge / PATCH_SIDE_M - round(edge / PATCH_SIDE_M)) < 1e-6


def test_rows_grow_southward_and_columns_eastward(raw_tree: Path) -> None:
    far = next(raw_tree.glob("*_DEM_ELEV/*/*_2-3.tif"))
    corner = Path(str(far).replace("_2-3", "_1-1"))
    with rasterio.open(corner) as source:
        left, top = source.bounds.left, source.bounds.top
    with rasterio.open(far) as source:
        assert source.bounds.left == pytest.approx(left + 2 * PATCH_SIDE_M)
        assert source.bounds.top == pytest.approx(top - PATCH_SIDE_M)


def test_rois_differ_in_size_and_in_dates(raw_tree: Path) -> None:
    tree = FlairHubTree(raw_tree)
    rois = [r for d in tree.domains() for r in tree.rois(d, tuple(MODALITIES.values()))]
    assert len({len(roi.files) for roi in rois}) > 1
    for key in ("sentinel2_ts", "sentinel1_asc_ts", "sentinel1_desc_ts"):
        assert len({roi.times[key] for roi in rois}) == len(rois)
    for roi in rois:
        assert len(roi.times["sentinel1_asc_ts"]) != len(roi.times["sentinel1_desc_ts"])
    twins = [roi for roi in rois if len(set(days := roi.times["sentinel1_desc_ts"])) < len(days)]
    assert twins, "no series has two images of one day"


def test_dates_are_json_in_band_order(raw_tree: Path) -> None:
    for name, key in (("SENTINEL2", "sentinel2_ts"), ("SENTINEL1-DESC", "sentinel1_desc_ts")):
        frame = gpd.read_file(raw_tree / GPKG.format(name)).set_index("patch_id")
        for text in frame.index[::5]:
            listed = json.loads(frame.loc[text, "acquisition_dates"])
            assert list(listed) == [str(i) for i in range(1, len(listed) + 1)]
            path = raw_tree / RawFile.of(PatchId.parse(text), MODALITIES[key]).path
            with rasterio.open(path) as source:
                assert source.count == len(listed) * len(MODALITIES[key].bands)
                assert frame.loc[text].geometry.bounds == pytest.approx(tuple(source.bounds))


def test_csvs_in_both_delimiters_agree(raw_tree: Path) -> None:
    tables: dict[str, dict[str, list[list[str]]]] = {}
    for path in sorted(raw_tree.rglob("*.csv")):
        text = path.read_text()
        delimiter = ";" if ";" in text else ","
        rows = list(csv.reader(text.splitlines(), delimiter=delimiter))
        assert tuple(rows[0]) == csv_columns()
        split = path.stem.removeprefix("FLAIR-HUB_").lower()
        tables.setdefault(delimiter, {})[split] = rows[1:]
        for row in rows[1:]:
            assert (path.parent / row[1]).exists()
    assert set(tables) == {",", ";"}
    assert tables[","] == tables[";"]
    assert set(tables[","]) == {"train", "valid", "test"}
    assert len({r[0] for rows in tables[","].values() for r in rows}) == len(
        list(raw_tree.glob("*_AERIAL_RGBI/*/*.tif"))
    )


def test_test_patches_are_whole_domains(raw_tree: Path) -> None:
    frame = gpd.read_file(raw_tree / "GLOBAL_ALL_MTD/GLOBAL_ALL_MTD_SPLIT.gpkg")
    domains = frame["patch_id"].str.split("_").str[0]
    of_test = set(domains[frame["split_1"] == "test"])
    assert of_test
    assert not of_test & set(domains[frame["split_1"] != "test"])
    assert {f"split_{k}" for k in range(1, 6)} <= set(frame.columns)


def test_labels_are_consistent(raw_tree: Path) -> None:
    seen = set()
    for path in raw_tree.glob("*_ALL_LABEL-LPIS/*/*.tif"):
        one, two, three = read(path)
        parents_3 = np.array([c.parent for c in NOMENCLATURES["lpis_3"].classes])
        parents_2 = np.array([c.parent for c in NOMENCLATURES["lpis_2"].classes])
        assert (parents_3[three] == two).all()
        assert (parents_2[two] == one).all()
        file = RawFile.parse(path.name)
        patch = file.patch(file.folder.domain)  # type: ignore[arg-type]
        cosia = read(raw_tree / RawFile.of(patch, MODALITIES["aerial_label_cosia"]).path)[0]
        seen |= set(np.unique(cosia).tolist())
        background = NOMENCLATURES["lpis_1"].names.index("background")
        built = np.isin(cosia, [0, 3, 6])
        assert (one[built] == background).all(), "a crop grows on a roof, a road or water"
    assert len(seen) >= 10
    assert max(seen) <= 18


def test_surface_lies_on_the_terrain(raw_tree: Path) -> None:
    for path in raw_tree.glob("*_DEM_ELEV/*/*_1-1.tif"):
        dsm, dtm = read(path)
        assert (dsm >= dtm).all()
        assert (dsm - dtm).max() > 3, "nothing stands on the ground"


def test_clouds_are_bright_and_masked(raw_tree: Path) -> None:
    checked = 0
    for path in raw_tree.glob("*_SENTINEL2_TS/*/*_1-1.tif"):
        blue = read(path).reshape(-1, 10, 10, 10)[:, 0].astype(float)
        mask = path.parents[2] / path.parents[1].name.replace("_TS", "_MSK-SC") / path.parent.name
        cloud = read(mask / path.name.replace("_TS_", "_MSK-SC_")).reshape(-1, 2, 10, 10)[:, 1]
        assert cloud.max() <= 100
        if (cloud > 90).any() and (cloud == 0).any():
            assert blue[cloud > 90].mean() > 3 * blue[cloud == 0].mean()
            checked += 1
    assert checked


def test_crops_have_seasons(raw_tree: Path) -> None:
    """Winter cereals are greener in May than in August, maize the other way round."""
    from datetime import date

    from converters.miniature.sensors import _spectrum

    def ndvi(crop: str, day: date) -> float:
        spectrum = _spectrum("agricultural land", crop, day.timetuple().tm_yday)
        return float((spectrum[6] - spectrum[2]) / (spectrum[6] + spectrum[2]))

    may, august = date(2020, 5, 10), date(2020, 8, 10)
    assert ndvi("winter wheat", may) > ndvi("winter wheat", august) + 0.2
    assert ndvi("maize", august) > ndvi("maize", may) + 0.2


def test_a_field_that_looks_plowed_is_bare_from_space() -> None:
    from converters.miniature.sensors import _spectrum

    for crop in ("maize", "winter wheat", "background"):
        plowed = _spectrum("plowed land", crop, 205)
        assert (plowed[6] - plowed[2]) / (plowed[6] + plowed[2]) < 0.3


def test_shadows_do_not_reach_round_the_border() -> None:
    from converters.miniature.landscape import _light

    ground = np.zeros((300, 300), np.float32)
    ground[:, :20] = 20  # a cliff in the west, the sun in the south-east
    light = _light(ground, 150, 50)
    assert light[:, 40:].min() == pytest.approx(light[150, 150], abs=1e-6)
    assert light[:, :20].min() > 0.4


def _features(raw_tree: Path, domain: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    features, labels = [], []
    for path in sorted(raw_tree.glob(f"{domain}_AERIAL_RGBI/*/*.tif")):
        other = {
            name: read(Path(str(path).replace("AERIAL_RGBI", name)))
            for name in ("DEM_ELEV", "AERIAL_LABEL-COSIA")
        }
        height = other["DEM_ELEV"][0] - other["DEM_ELEV"][1]
        image = read(path).astype(float) / 60
        stacked = np.concatenate([image, height[None].clip(0, 12) / 3])
        features.append(stacked[:, ::16, ::16].reshape(5, -1))
        labels.append(other["AERIAL_LABEL-COSIA"][0, ::16, ::16].ravel())
    return np.concatenate(features, 1).T, np.concatenate(labels)


def test_pixels_are_learnable_across_domains(raw_tree: Path) -> None:
    """Nearest neighbours in colour and height, from one domain, beat the majority on another."""
    from scipy.spatial import cKDTree

    domains = sorted({p.name.split("_")[0] for p in raw_tree.glob("*_AERIAL_RGBI")})
    (known, truth), (asked, expected) = (_features(raw_tree, d) for d in domains[:2])
    _, nearest = cKDTree(known).query(asked, k=1)
    majority = np.bincount(truth).argmax()
    baseline = (expected == majority).mean()
    assert (truth[nearest] == expected).mean() > baseline + 0.1


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_sample(tmp_path / name, domains=2, rois=1, rows=1, columns=1, seed=seed, workers=1)
    a, b, c = (snapshot(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert a != c


def test_workers_do_not_change_a_byte(tmp_path: Path) -> None:
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        write_sample(folder, domains=1, rois=2, rows=1, columns=1, workers=workers)
    assert snapshot(tmp_path / "1") == snapshot(tmp_path / "2")


def test_what_cannot_be_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SourceDataError, match="not empty"):
        write_sample(tmp_path)
    with pytest.raises(ConversionError, match=r"new cannot be .* of a sample: .*file is a file"):
        write_sample(tmp_path / "file" / "new")
    with pytest.raises(ConfigError, match="at most"):
        write_sample(tmp_path / "new", domains=99)
    assert run(["sample", str(tmp_path / "new"), "--grid", "3by4"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "Invalid value for '--grid': '3by4' is not ROWSxCOLS" in error
