"""First layers of our own form for other bands, by the rule of IGN's form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flairhub.config import ModelConfig
from flairhub.errors import UnknownNameError
from flairhub.models import MultimodalSegmenter, build_model, load
from flairhub.models.weights import WeightsError
from tests.checkpoints import write_checkpoint
from tests.forms import random
from tests.test_opening import task_of

SPOT = "rasters.spot_rgbi.network.model.conv1.0.weight"
SERIES = {
    "ltae": "series.sentinel2_ts.embed.0.weight",
    "utae": "series.sentinel2_ts.stem.first.0.weight",
}
COLOURS = {"spot_rgbi": ("red", "green", "blue")}


def make(encoder: str = "resnet10t", series: str = "ltae", **bands: int) -> MultimodalSegmenter:
    torch.manual_seed(0)
    config = ModelConfig(
        encoder=encoder, decoder_channels=16, series_channels=16, series_encoder=series
    )
    return build_model(config, tuple(bands), bands, ["cosia"]).eval()


def image(raster: Tensor, *places: int) -> Mapping[str, Tensor]:
    return {"spot_rgbi": raster[:, list(places)]}


def test_bands_keep_their_kernels_wherever_they_stand() -> None:
    old, new = make(spot_rgbi=3), make(spot_rgbi=4)
    bands = {"spot_rgbi": ("nir", "red", "green", "blue")}
    with pytest.raises(WeightsError, match=r"kernels for red, green, blue, expected nir.*adapt_b"):
        load(old.state_dict(), new, file_bands=COLOURS, bands=bands)
    report = load(old.state_dict(), new, adapt_bands=True, file_bands=COLOURS, bands=bands).report
    assert report.adapted == {SPOT: "bands: red, green, blue to nir, red, green, blue"}
    before, after = old.state_dict()[SPOT], new.state_dict()[SPOT]
    assert torch.equal(after[:, 1:], before)
    assert not after[:, 0].any()
    raster = random(2, 4, 64, 64)
    with torch.inference_mode():
        expected = old(image(raster, 0, 1, 2)).main["cosia"]
        found = new(image(raster, 3, 0, 1, 2)).main["cosia"]
    torch.testing.assert_close(found, expected)


def test_as_many_bands_as_a_modality_has_are_all_of_them() -> None:
    old, new = make(spot_rgbi=3).state_dict(), make(spot_rgbi=4)
    with pytest.raises(WeightsError, match="say which bands they are with bands= and file_bands="):
        load(old, new, adapt_bands=True)
    load(old, new, file_bands=COLOURS, adapt_bands=True)  # red, green, blue, infrared
    assert not new.state_dict()[SPOT][:, 3].any()
    assert new.state_dict()[SPOT][:, :3].any()


def test_bands_that_only_one_side_tells_are_refused() -> None:
    old = make(spot_rgbi=3).state_dict()
    with pytest.raises(WeightsError, match="of 3 channels, are not known: give them by bands="):
        load(old, make(spot_rgbi=3), file_bands=COLOURS)
    with pytest.raises(WeightsError, match="give them by file_bands="):
        load(old, make(spot_rgbi=3), bands=COLOURS)
    assert not load(old, make(spot_rgbi=3)).report.adapted  # nothing is told of either
    with pytest.raises(UnknownNameError, match="has no band 'infrared'"):
        load(old, make(spot_rgbi=3), file_bands={"spot_rgbi": ("red", "green", "infrared")})


def test_equal_numbers_of_other_bands_are_not_silently_taken() -> None:
    file, others = make(spot_rgbi=3).state_dict(), {"spot_rgbi": ("nir", "red", "green")}
    with pytest.raises(WeightsError, match="for red, green, blue, expected nir, red, green"):
        load(file, make(spot_rgbi=3), file_bands=COLOURS, bands=others)


@pytest.mark.parametrize("series", SERIES)
def test_series_take_other_bands_and_masks_too(series: str) -> None:
    old = make(series=series, sentinel2_ts=10).state_dict()
    new = make(series=series, sentinel2_ts=4, sentinel2_msk_sc=2)
    bands = {"sentinel2_ts": ("B08", "B04", "B03", "B02")}
    report = load(old, new, bands=bands, adapt_bands=True).report
    (name,) = report.adapted
    assert name == SERIES[series]
    assert "B08, B04, B03, B02, sentinel2_msk_sc/" in report.adapted[name]
    found = new.state_dict()[name]
    assert torch.equal(found[:, :4], old[name][:, [6, 2, 1, 0]])  # of the ten
    assert not found[:, 4:].any()


def test_wrappers_are_looked_into() -> None:
    wrapped = nn.Module()
    wrapped.model = make(spot_rgbi=4)
    file = {f"model.{name}": t for name, t in make(spot_rgbi=3).state_dict().items()}
    file["preparation.mean_spot_rgbi"] = torch.ones(3)  # as `flairhub train` writes
    report = load(file, wrapped, file_bands=COLOURS, adapt_bands=True).report
    assert list(report.adapted) == [SPOT]
    assert list(report.left_over) == ["preparation.mean_spot_rgbi"]


def test_what_training_leaves_behind_starts_a_model_of_other_bands(tmp_path: Path) -> None:
    task = task_of(["spot_rgbi"])
    path = write_checkpoint(task, tmp_path / "last.ckpt")
    new, bands = make(spot_rgbi=2), {"spot_rgbi": ("nir", "red")}
    report = load(path, new, bands=bands, adapt_bands=True).report
    assert list(report.adapted) == [SPOT]
    assert all(name.startswith("preparation.") for name in report.left_over)
    assert torch.equal(new.state_dict()[SPOT], task.model.state_dict()[SPOT][:, [3, 0]])


def test_layers_without_a_kernel_a_band_are_refused() -> None:
    """A stem that packs 4 x 4 pixels into channels first."""
    old, new = make("tresnet_m", spot_rgbi=3), make("tresnet_m", spot_rgbi=4)
    bands = {"spot_rgbi": ("red", "green", "blue", "nir")}
    with pytest.raises(WeightsError, match=r"of 3 and 4 bands: this layer has no kernel a band"):
        load(old.state_dict(), new, file_bands=COLOURS, bands=bands, adapt_bands=True)
