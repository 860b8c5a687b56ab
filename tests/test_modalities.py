from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from flairhub.errors import FlairHubError, UnknownNameError
from flairhub.grids import PATCH_SIDE_M
from flairhub.modalities import (
    FLAIR_HUB,
    MODALITIES,
    Band,
    Kind,
    Modality,
    Statistics,
    dataset_modalities,
    family,
    get_modality,
)
from flairhub.nomenclatures import NOMENCLATURES, LandClass, Nomenclature, get_nomenclature

each_modality = pytest.mark.parametrize("modality", MODALITIES.values(), ids=list(MODALITIES))
each_nomenclature = pytest.mark.parametrize(
    "classes", NOMENCLATURES.values(), ids=list(NOMENCLATURES)
)


def test_all_ten_rasters_of_the_dataset_are_registered() -> None:
    assert {m.source_name for m in dataset_modalities(FLAIR_HUB)} == {
        "AERIAL_RGBI",
        "AERIAL-RLT_PAN",
        "DEM_ELEV",
        "SPOT_RGBI",
        "SENTINEL2_TS",
        "SENTINEL2_MSK-SC",
        "SENTINEL1-ASC_TS",
        "SENTINEL1-DESC_TS",
        "AERIAL_LABEL-COSIA",
        "ALL_LABEL-LPIS",
    }


@pytest.mark.parametrize(
    ("key", "bands", "dtype", "patch_px"),
    [
        ("aerial_rgbi", "red green blue nir", "uint8", 512),
        ("aerial_rlt_pan", "pan", "uint8", 256),
        ("dem_elev", "dsm dtm", "float32", 512),
        ("spot_rgbi", "red green blue nir", "uint16", 64),
        ("sentinel2_ts", "B02 B03 B04 B05 B06 B07 B08 B8A B11 B12", "uint16", 10),
        ("sentinel2_msk_sc", "snow cloud", "uint16", 10),
        ("sentinel1_asc_ts", "VV VH", "float32", 10),
        ("flair_aerial", "red green blue nir elevation", "uint8", 512),
        ("flair_sentinel2_ts", "B02 B03 B04 B05 B06 B07 B08 B8A B11 B12", "uint16", 0),
        ("flair_sentinel2_msk_sc", "snow cloud", "uint16", 0),
        ("sentinel1_desc_ts", "VV VH", "float32", 10),
    ],
)
def test_bands_stand_in_file_order(key: str, bands: str, dtype: str, patch_px: int) -> None:
    modality = MODALITIES[key]
    assert (" ".join(modality.band_names), modality.dtype) == (bands, dtype)
    assert modality.patch_px == patch_px


@each_modality
def test_an_entry_is_consistent(modality: Modality) -> None:
    assert MODALITIES[modality.key] is modality
    assert re.fullmatch(r"[a-z][a-z0-9_]*", modality.key)
    assert modality.source_name.count("_") == 1  # what the grammar of file names relies on
    side = modality.resolution_m * modality.patch_px
    assert modality.is_area or side == pytest.approx(PATCH_SIDE_M, rel=1e-12)
    assert len(set(modality.band_names)) == len(modality.bands) > 0
    assert MODALITIES[modality.group].dataset == modality.dataset
    assert modality.temporal == (modality.kind in (Kind.SERIES, Kind.MASK))
    assert modality.is_label == bool(modality.nomenclatures)
    assert np.dtype(modality.dtype) == modality.numpy_dtype
    assert modality.title
    assert modality.long_name
    assert all(b.description for b in modality.bands)


def test_a_family_is_told_from_any_of_its_modalities() -> None:
    assert {m.key for m in family(["flair_mask"])} == {
        "flair_aerial", "flair_mask", "flair_sentinel2_ts", "flair_sentinel2_msk_sc"
    }  # fmt: skip
    assert family(["dem_elev", "flair_mask"]) == tuple(MODALITIES.values())
    assert family([]) == ()


def test_published_statistics_fit_the_bands() -> None:
    published = [m for m in MODALITIES.values() if m.statistics is not None]
    assert {m.key for m in published} >= {"aerial_rgbi", "aerial_rlt_pan", "dem_elev", "spot_rgbi"}
    for modality in published:
        assert modality.statistics is not None
        assert len(modality.statistics.mean) == len(modality.statistics.std) == len(modality.bands)
        assert min(modality.statistics.std) > 0
        assert modality.statistics.source


@pytest.mark.parametrize("key", ["spot_rgbi", "sentinel2_ts"])
def test_optical_bands_have_wavelengths(key: str) -> None:
    for band in MODALITIES[key].bands:
        assert band.centre_um is not None
        assert band.width_um is not None
        assert 0.4 < band.centre_um - band.width_um / 2 < band.centre_um + band.width_um / 2 < 2.5


def test_sentinel_1_is_a_c_band_radar() -> None:
    speed_of_light = 299_792.458  # micrometres times GHz
    centres = {b.centre_um for o in ("asc", "desc") for b in MODALITIES[f"sentinel1_{o}_ts"].bands}
    assert [speed_of_light / c for c in centres if c] == [pytest.approx(5.405, abs=1e-3)]


def test_a_mask_lives_with_its_series() -> None:
    mask, series = MODALITIES["sentinel2_msk_sc"], MODALITIES["sentinel2_ts"]
    assert mask.group == series.group == series.key
    assert mask.dates_name == series.dates_name


def test_the_registry_cannot_be_changed() -> None:
    registry: Any = MODALITIES
    with pytest.raises(TypeError):
        registry["dem_elev"] = None
    entry: Any = MODALITIES["dem_elev"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        entry.dtype = "uint8"
    classes: Any = NOMENCLATURES["cosia"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        classes.ignored = ()


def test_an_entry_that_breaks_the_lattice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"500 px of 0\.2 m are not 102\.4 m"):
        dataclasses.replace(MODALITIES["aerial_rgbi"], patch_px=500)
    with pytest.raises(ValueError, match="one value a band"):
        dataclasses.replace(MODALITIES["spot_rgbi"], statistics=Statistics((1.0,), (1.0,), "-"))
    with pytest.raises(ValueError, match="one nomenclature a band"):
        dataclasses.replace(
            MODALITIES["aerial_label_cosia"], bands=(Band("a", "a"), Band("b", "b"))
        )


def test_modalities_are_found_by_both_names_and_near_matches_are_named() -> None:
    assert get_modality("DEM_ELEV") is get_modality("dem_elev") is MODALITIES["dem_elev"]
    with pytest.raises(UnknownNameError, match=r"'dem_elv'.*Did you mean 'dem_elev'"):
        get_modality("dem_elv")
    with pytest.raises(KeyError):
        get_modality("lidar")


def test_bands_are_found_by_name_in_the_order_asked() -> None:
    assert MODALITIES["aerial_rgbi"].band_indexes(["nir", "red"]) == (3, 0)
    with pytest.raises(FlairHubError, match="has no band 'NIR'"):
        MODALITIES["aerial_rgbi"].band_indexes(["NIR"])


def test_label_levels_name_their_class_sets() -> None:
    lpis = MODALITIES["all_label_lpis"]
    assert [lpis.nomenclature(level).key for level in (1, 2, 3)] == ["lpis_1", "lpis_2", "lpis_3"]
    with pytest.raises(UnknownNameError, match="asked for level 4"):
        lpis.nomenclature(4)


@pytest.mark.parametrize(
    ("key", "count"),
    [("cosia", 19), ("lpis_1", 23), ("lpis_2", 31), ("lpis_3", 46), ("flair", 20)],
)
def test_class_sets_have_their_published_sizes(key: str, count: int) -> None:
    assert len(get_nomenclature(key)) == count


@each_nomenclature
def test_a_class_set_is_consistent(classes: Nomenclature) -> None:
    assert [c.code for c in classes.classes] == list(range(len(classes)))
    assert all(re.fullmatch(r"#[0-9a-f]{6}", c.colour) for c in classes.classes)
    assert len(set(classes.names)) == len(classes)
    assert all(c.name and c.name_fr for c in classes.classes)
    assert set(classes.ignored) < set(range(len(classes)))
    assert set(classes.scored) == set(range(len(classes))) - set(classes.ignored)
    assert classes.palette.shape == (len(classes), 3)
    assert classes.palette.dtype == np.uint8
    assert classes.source


@each_nomenclature
def test_parents_exist_and_are_all_used(classes: Nomenclature) -> None:
    parents = [c.parent for c in classes.classes]
    if classes.parent is None:
        assert set(parents) == {None}
        return
    upper = get_nomenclature(classes.parent)
    assert sorted({p for p in parents if p is not None}) == [c.code for c in upper.classes]
    assert None not in parents
    for child in classes.classes:
        if child.name in upper.names:
            assert child.parent == upper.names.index(child.name)


def test_cosia_is_numbered_and_coloured_as_ign_publishes_it() -> None:
    cosia = get_nomenclature("cosia")
    assert cosia.names[0] == "building"
    assert cosia.names[6] == "water"
    assert cosia.classes[13] == LandClass(13, "coniferous", "conifère", "#194a26")
    assert cosia.palette[6].tolist() == [0x15, 0x53, 0xAE]
    assert cosia.ignored == (15, 16, 17, 18)


def test_background_ends_every_lpis_level() -> None:
    ends = {key: NOMENCLATURES[key].names[-2:] for key in ("lpis_1", "lpis_2", "lpis_3")}
    assert set(ends.values()) == {("mixed crops", "background")}


def test_codes_that_do_not_count_up_are_refused() -> None:
    with pytest.raises(ValueError, match="must count up from 0"):
        Nomenclature("x", "x", (LandClass(1, "a", "a", "#000000"),), "-")
    with pytest.raises(UnknownNameError, match="Did you mean 'cosia'"):
        get_nomenclature("cosai")
