"""Options and inputs that networks of IGN's form cannot have are refused, and why is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from flairhub.errors import ConfigError, GridError, UnknownNameError
from flairhub.models import IgnNetwork, IgnOptions, build
from flairhub.models.zoo import CARDS
from tests.ign_networks import arguments, made, options


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"encoder": "swin_tiny_patch4_window7_225x"}, "timm has no network"),
        ({"encoder": "vit_tiny_patch16_224"}, "a pyramid has them at"),
        ({"decoder": "upernett"}, "There is no decoder 'upernett'. Did you mean 'upernet'"),
        ({"fusion": "concatt"}, "There is no fusion 'concatt'. Did you mean 'concat'"),
        ({"tasks": {}}, "class sets of at least one class"),
        ({"aux": ("dem_elev",)}, r"\['dem_elev'\] are set but are no inputs"),
        ({"tasks": ["cosia"]}, r"tasks are numbers of classes .* got \['cosia'\]"),
        ({"tasks": {"cosia": 19, "AERIAL_LABEL-COSIA": 5}}, "'AERIAL_LABEL-COSIA' are one class"),
        ({"tasks": {"a.b": 2}}, "have no dot; got 'a.b'"),
        ({"tasks": {"items": 2}}, "cannot be called 'items'"),
        ({"tasks": {"cosia": 2.5}}, "at least one class"),
        ({"sizes": {"spot_rgbi": (64, 32)}}, r"sizes of spot_rgbi must be a whole .* \(64, 32\)"),
        ({"sizes": {"spot_rgbi": 0}}, "sizes of spot_rgbi must be a whole number of at least 1"),
        ({"bands": {"spot_rgbi": -1}}, "bands of spot_rgbi must be a whole number of at least 1"),
        ({"bands": {"spot_rgbi": 0}}, "bands of spot_rgbi must be a whole number of at least 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        IgnNetwork(options("spot_rgbi", **changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"series_widths": (64, 32)}, r"must be as many .* \(64, 32\) and \(32, 32, 64, 128\)"),
        ({"series_decoder_widths": (64,)}, "must be as many and have the same last"),
        ({"series_widths": (64, 64, 64, 120)}, "must be as many and have the same last"),
        (
            {"series_widths": (32, 40), "series_decoder_widths": (32, 40)},
            r"multiples of 16; got \(32, 40\)",
        ),
        ({"series_out_widths": ()}, r"series_out_widths must be whole numbers .* got \(\)"),
        ({"series_widths": (64, 0)}, r"series_widths must be whole numbers .* got \(64, 0\)"),
    ],
)
def test_widths_of_series_that_do_not_fit_are_refused(
    changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        options("sentinel2_ts", **changes)


def test_models_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"takes the id of a published model.* got None"):
        build(None)  # type: ignore[call-overload]
    with pytest.raises(UnknownNameError, match="Did you mean 'LC-A'"):
        build("LC-AA")
    with pytest.raises(ConfigError, match="FLAIR1-UNET is a model of flair-1"):
        IgnOptions.of(CARDS["FLAIR1-UNET"])
    with pytest.raises(ConfigError, match="needs images or series"):
        options("aerial_label_cosia")
    assert build(IgnOptions.of(CARDS["LC-G"]), tasks={"ours": 2}).options.out_widths == (32, 19, 2)


def test_inputs_that_do_not_fit_are_refused() -> None:
    network = made(options("sentinel2_ts"))
    inputs, days = arguments(network)
    with pytest.raises(GridError, match="sentinel2_ts is missing"):
        network({}, days)
    with pytest.raises(GridError, match="must have 5 axes and 10 channels"):
        network({"sentinel2_ts": inputs["sentinel2_ts"][:, :, :3]}, days)
    with pytest.raises(GridError, match=r"days of sentinel2_ts must have the shape \(2, 4\)"):
        network(inputs, {})
    for part in (slice(0, 0), (slice(None), slice(0, 0))):
        with pytest.raises(GridError, match="none be 0; its shape is"):
            network(*({key: value[part] for key, value in of.items()} for of in (inputs, days)))


def test_inputs_of_other_numbers_of_samples_are_refused() -> None:
    network = made(options("spot_rgbi", "sentinel2_ts"))
    inputs, days = arguments(network)
    with pytest.raises(GridError, match="same number of samples; spot_rgbi has 1 and sentinel2_ts"):
        network(inputs | {"spot_rgbi": inputs["spot_rgbi"][:1]}, days)
    with pytest.raises(GridError, match="none be 0; its shape is"):
        network(inputs | {"spot_rgbi": inputs["spot_rgbi"][:0]}, days)


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [
        *(("resnet18", name) for name in ("unetplusplus", "manet", "linknet", "fpn")),
        *(("convnextv2_atto", name) for name in ("unetplusplus", "fpn")),
    ],
)
def test_sizes_that_a_decoder_does_not_take_are_refused(encoder: str, decoder: str) -> None:
    network = made(options("spot_rgbi", encoder=encoder, decoder=decoder))
    expected = rf"'{decoder}' does not take images of 50 x 70 pixels.*multiples of 32"
    with pytest.raises(GridError, match=expected), torch.inference_mode():
        network({"spot_rgbi": torch.randn(1, 3, 50, 70)})
    with torch.inference_mode():
        found = network({"spot_rgbi": torch.randn(1, 3, 32, 96)}).main["cosia"]
    assert found.shape == (1, 19, 32, 96)


def test_a_decoder_that_pools_says_how_large_images_must_be() -> None:
    network = made(options("spot_rgbi", encoder="resnet18", decoder="pan")).eval()
    with pytest.raises(GridError, match=r"does not take images of 224 x 256.*Sides must be 256"):
        network({"spot_rgbi": torch.randn(1, 3, 224, 256)})
    with torch.inference_mode():
        network({"spot_rgbi": torch.randn(1, 3, 256, 256)})


@pytest.mark.parametrize("encoder", ["swinv2_tiny_window8_256", "hiera_tiny_224"])
def test_sizes_that_an_encoder_does_not_take_are_refused(encoder: str) -> None:
    network = made(options("spot_rgbi", encoder=encoder))
    with pytest.raises(GridError, match=f"{encoder}' fails on images of 50 x 70.*made for 64 x 64"):
        network({"spot_rgbi": torch.randn(1, 3, 50, 70)})
    with torch.inference_mode():
        found = network({"spot_rgbi": torch.randn(1, 3, 64, 64)}).main["cosia"]
    assert found.shape == (1, 19, 64, 64)
