"""The options of ``data.preparation``: what is refused, and that training and maps share them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from flairhub.batches.plan import PatchPlan
from flairhub.batches.streaming import stream
from flairhub.config import CloudFilter, DataConfig, PreparationConfig, RunConfig, parse_config
from flairhub.errors import ConfigError
from flairhub.inference.predict import predict
from flairhub.modalities import Statistics
from flairhub.preparation.build import build_preparation
from flairhub.preparation.compatibility import IgnPreparation
from flairhub.preparation.pipeline import Preparation
from flairhub.training.run import train
from flairhub.training.task import load_task

EVERYTHING = ["aerial_rgbi", "dem_elev", "sentinel2_ts", "sentinel2_msk_sc"]
NIR_FIRST = {"aerial_rgbi": ["nir", "red", "green"]}


def run_config(preparation: object, **data: object) -> RunConfig:
    return parse_config(
        {"data": {"root": "r", "modalities": EVERYTHING, "preparation": preparation, **data}}
    )


@pytest.mark.parametrize(
    ("preparation", "data", "expected"),
    [
        ({"mode": "igm"}, {}, "'own' or 'ign'"),
        ({"elevations": ["dsm"]}, {}, "'elevation'"),
        ({"window_m": 51.2}, {}, "'data.window_m'"),
        ({"clouds": {"max_clouds": 1}}, {}, "'max_cloud'"),
        ({"clouds": {"max_cloud": 101}}, {}, "data.preparation.clouds.max_cloud"),
        ({"clouds": {"max_share": 5}}, {}, "less than or equal to 1"),
        ({"clouds": {}}, {"modalities": ["sentinel2_ts"]}, "add 'sentinel2_msk_sc'"),
        ({"clouds": {}}, {"bands": {"sentinel2_msk_sc": ["snow"]}}, "bands snow and cloud"),
        ({"elevation": []}, {}, "at least 1 item"),
        ({"elevation": ["slope"]}, {}, "'relief'"),
        ({"elevation": ["dsm", "dsm"]}, {}, "more than once"),
        ({"elevation": ["dsm"]}, {"modalities": ["aerial_rgbi"]}, "add 'dem_elev'"),
        ({"elevation": ["height"]}, {"bands": {"dem_elev": ["dsm"]}}, "needs the band 'dtm'"),
        ({"composites": {"sentinel2": "monthly"}}, {}, "'sentinel2_ts'"),
        ({"composites": {"dem_elev": "monthly"}}, {}, "no series"),
        ({"composites": {"sentinel2_ts": "weekly"}}, {}, "'monthly' or 'semi-monthly'"),
        ({"mode": "ign"}, {}, "aerial_rgbi': [nir, red, green]"),
        ({"mode": "ign", "elevation": ["relief"]}, {"bands": NIR_FIRST}, "dsm, height; height"),
        ({"mode": "ign"}, {"bands": NIR_FIRST, "statistics": "n.json"}, "leave one of them out"),
        ({"mode": "ign"}, {"modalities": ["flair_aerial"]}, "no statistics of 'flair_aerial'"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    preparation: object, data: dict[str, object], expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        run_config(preparation, **data)
    assert expected in str(caught.value)


def test_options_are_those_of_the_file() -> None:
    options = {
        "mode": "ign",
        "elevation": ["height"],
        "clouds": {"max_cloud": 20, "max_share": 0.1},
        "composites": {"sentinel2_ts": "monthly"},
    }
    config = run_config(options, bands=NIR_FIRST)
    assert parse_config(config.to_plain()) == config
    found = build_preparation(config.data)
    assert isinstance(found, IgnPreparation)
    assert found.config == PreparationConfig(
        mode="ign",
        elevation=("height",),
        clouds=CloudFilter(max_cloud=20, max_snow=1, max_share=0.1),
        composites={"sentinel2_ts": "monthly"},
    )
    assert found.channels["dem_elev"] == ("height",)
    assert "sentinel2_msk_sc" not in found.channels


def test_without_options_elevation_is_height_and_relief() -> None:
    assert PreparationConfig().elevation_of(("dsm", "dtm")) == ("height", "relief")
    assert PreparationConfig().elevation_of(("dsm",)) == ("relief",)
    assert PreparationConfig(mode="ign").elevation_of(("dsm", "dtm")) == ("dsm", "height")


OWN = {
    "elevation": ["dtm", "height"],
    "clouds": {"max_share": 0.3},
    "composites": {"sentinel2_ts": "monthly"},
}


@pytest.mark.parametrize(
    ("options", "bands", "kind"),
    [(OWN, {}, Preparation), ({"mode": "ign", "clouds": {}}, NIR_FIRST, IgnPreparation)],
)
def test_training_and_maps_prepare_alike(
    options: dict[str, Any],
    bands: dict[str, Any],
    kind: type[Preparation],
    store_root: Path,
    tmp_path: Path,
) -> None:
    """A checkpoint brings its preparation along: the map is of tensors prepared as in training."""
    values = {
        "data": {
            "root": str(store_root),
            "modalities": ["spot_rgbi", *EVERYTHING[1:]],
            "bands": {"spot_rgbi": bands["aerial_rgbi"]} if bands else {},
            "preparation": options,
            "batch_size": 2,
        },
        "model": {
            "encoder": "mobilenetv3_small_050",
            "decoder_channels": 16,
            "series_channels": 16,
        },
        "training": {
            "output": str(tmp_path / "run"),
            "max_steps": 1,
            "validate_every": 10,
            "accelerator": "cpu",
        },
    }
    config = parse_config(values)
    result = train(config)
    task = load_task(result.checkpoint)
    assert type(task.preparation) is kind
    assert task.preparation.config == config.data.preparation
    data = config.data
    plan = PatchPlan.build(
        store_root, modalities=data.modalities, bands=data.bands, domains=["D012-2019"]
    )
    batch = next(iter(stream(plan, batch_size=2)))
    given = {key: Statistics(**one) for key, one in task.hparams["statistics"].items()}
    fresh = build_preparation(data, given)(batch)
    found = task.preparation(batch)
    assert found.inputs.keys() == fresh.inputs.keys()
    for key, pixels in found.inputs.items():
        torch.testing.assert_close(pixels, fresh.inputs[key], rtol=0, atol=0)
    roi = plan.rois[0]
    mapped = predict(result.checkpoint, store_root / f"{roi.domain}.zarr", roi.roi, tmp_path)
    assert mapped.scores is not None
    changed = {**values, "data": {**values["data"], "preparation": {**options, "clouds": None}}}
    with pytest.raises(ConfigError, match=r"data\.preparation"):
        train(parse_config(changed), resume=True)


def test_a_configuration_without_options_is_what_it_was() -> None:
    data = DataConfig(root="r", modalities=("aerial_rgbi",))
    assert data.preparation == PreparationConfig()
    assert type(build_preparation(data)) is Preparation
