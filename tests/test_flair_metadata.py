"""Metadata and class numbers of FLAIR#1 and FLAIR#2, as their baselines take them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import geopandas as gpd
import pytest
import torch

from flairhub.errors import ConfigError, SourceDataError, UnknownNameError
from flairhub.models.flair import CLASS_VALUES, class_indices, class_values, encode_metadata
from flairhub.nomenclatures import get_nomenclature

TOLD: dict[
    str, list[Any]
] = {  # two images of IGN's published toy metadata, and one that nothing is known of
    "x_m": [924009.6, 808908.8, 650000.0],
    "y_m": [6339451.2, 6402816.0, 6800000.0],
    "altitude_m": [1661.9399414062, 584.3800048828, None],
    "dates": ["2021-05-28", "2020-07-09", None],
    "times": ["08h06", "11h42", None],
    "cameras": ["UCE-M3-f120-s07", "CAMERA#034", None],
}


def plain_code(told: dict[str, Any], place: int, form: str) -> list[float]:
    """IGN's numbers of one image, or the repaired ones, said once more without arrays."""
    code = []
    for metres in (told["x_m"][place], told["y_m"][place]):
        for wave in range(8):
            angle = metres / 1e8 / 1e8 ** (2 * wave / 16)
            if form == "own":
                angle = 2 * math.pi * metres / (2048e3 / 2**wave)
            code += [math.sin(angle), math.cos(angle)]
    code.append(told["altitude_m"][place] / 3164.9099121094)
    code += [1, 0] if "UCE" in told["cameras"][place] else [0, 1]
    year, month, day = map(int, told["dates"][place].split("-"))
    code += [float(year == known) for known in (2018, 2019, 2020, 2021)]
    hours, minutes = map(int, told["times"][place].split("h"))
    turns = month - 1 / 12 if form == "ign" else (month - 1) / 12
    for turn in (turns, day / 31, (hours * 3600 + minutes * 60) / 86400):
        code += [(math.sin(2 * math.pi * turn) + 1) / 2, (math.cos(2 * math.pi * turn) + 1) / 2]
    return code


@pytest.mark.parametrize("form", ["ign", "own"])
def test_metadata_are_the_numbers_of_ign(form: Literal["ign", "own"]) -> None:
    found = encode_metadata(**TOLD, form=form)
    assert found.shape == (3, 45)
    assert found.dtype == torch.float32
    for place in range(2):
        want = torch.tensor(plain_code(TOLD, place, form), dtype=torch.float32)
        torch.testing.assert_close(found[place], want, atol=1e-6, rtol=0)
    unknown = found[2, 32:]
    assert unknown.tolist() == [0] * 7 + [0.5] * 6


def test_own_metadata_tell_months_and_places_apart() -> None:
    one: dict[str, Any] = {key: values[:1] * 2 for key, values in TOLD.items()}
    months = {**one, "dates": ["2021-05-28", "2021-11-28"]}
    places = {**one, "x_m": [100e3, 1100e3], "y_m": [6.1e6, 7.1e6]}
    for told, least in ((months, 0.4), (places, 0.5)):
        ign, own = (encode_metadata(**told, form=form).diff(dim=0).abs() for form in ("ign", "own"))
        assert ign.max() < 0.012, "IGN's form has changed"
        assert own.max() > least


def test_years_that_ign_does_not_know_are_no_year() -> None:
    told: dict[str, Any] = {key: values[:1] for key, values in TOLD.items()}
    found = encode_metadata(**{**told, "dates": ["2022-05-28"]})
    assert not found[0, 35:39].any()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("dates", "28/05/2021", r"Image 0 has the date '28/05/2021'; expected a day such as"),
        ("times", "8:06", r"Image 0 has the time '8:06'; expected hour and minute"),
        ("altitude_m", "high", r"Image 0 has the altitude 'high'; expected metres"),
        ("x_m", math.nan, r"Image 0 has x_m nan"),
    ],
)
def test_bad_metadata_are_refused(column: str, value: object, message: str) -> None:
    told: dict[str, Any] = {key: values[:1] for key, values in TOLD.items()} | {column: [value]}
    with pytest.raises(SourceDataError, match=message):
        encode_metadata(**told)


def test_columns_must_be_as_long_as_each_other() -> None:
    told: dict[str, Any] = {**TOLD, "y_m": [1.0, 2.0]}
    with pytest.raises(SourceDataError, match="x_m 3, y_m 2"):
        encode_metadata(**told)


def test_other_forms_and_no_images_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"form='owm' is no form of metadata\. Did .* 'own'"):
        encode_metadata(**TOLD, form="owm")  # type: ignore[arg-type]
    with pytest.raises(SourceDataError, match="at least one image"):
        encode_metadata(x_m=[], y_m=[], altitude_m=[], dates=[], times=[], cameras=[])


def test_columns_of_a_store_are_all_it_takes(flair1_tree: Path, flair1_store: Path) -> None:
    table = json.loads((flair1_tree / "flair-1_metadata_aerial.json").read_text("utf-8"))
    seen = 0
    for path in flair1_store.glob("*.patches.parquet"):
        patches = gpd.read_parquet(path)
        found = encode_metadata(
            x_m=(patches.left + patches.right).to_numpy() / 2,
            y_m=(patches.bottom + patches.top).to_numpy() / 2,
            altitude_m=list(patches.source_altitude),
            dates=list(patches.date_flair_aerial),
            times=list(patches.source_time),
            cameras=list(patches.source_camera),
        )
        told = [table[image] for image in patches.source_image]
        want = encode_metadata(
            x_m=[t["patch_centroid_x"] for t in told],
            y_m=[t["patch_centroid_y"] for t in told],
            altitude_m=[t["patch_centroid_z"] for t in told],
            dates=[t["date"] for t in told],
            times=[t["time"] for t in told],
            cameras=[t["camera"] for t in told],
        )
        torch.testing.assert_close(found, want)
        seen += len(told)
    assert seen == len(table)


def test_classes_are_numbered_as_published() -> None:
    masks = torch.arange(21, dtype=torch.uint8)  # 0 and 20 are no values
    nothing = [255]
    assert class_indices(masks, 19).tolist() == nothing + list(range(19)) + nothing
    assert class_indices(masks, 13).tolist() == nothing + list(range(12)) + [12] * 7 + nothing
    assert class_indices(masks, 12).tolist() == nothing + list(range(12)) + nothing * 8
    names = [c.name for c in get_nomenclature("flair").classes]
    fifteen = [names[values[0]] for values in CLASS_VALUES[15]]
    assert fifteen[12:] == ["swimming pool", "snow", "greenhouse"]
    assert get_nomenclature("flair").ignored[1:] == CLASS_VALUES[13][12]  # not scored: other
    for classes in CLASS_VALUES:
        indices = torch.arange(classes)
        values = class_values(indices, classes)
        assert class_indices(values, classes).tolist() == indices.tolist()
    with pytest.raises(UnknownNameError, match="no numbering of 14 classes"):
        class_indices(masks, 14)
