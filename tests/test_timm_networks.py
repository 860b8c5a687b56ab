"""Any network of timm with a pyramid, on rasters of any size; or an error that says why not."""

from __future__ import annotations

import re

import pytest
import timm
import torch
from torch import Tensor

from flairhub.errors import ConfigError, GridError
from flairhub.models.raster_encoder import RasterEncoder
from tests.forms import own, random

PATCH_PX = 512
SIZES = [(64, 96), (320, 192), (50, 70), (PATCH_PX, PATCH_PX)]


def give_maps_of_the_size_told(name: str, sizes: list[tuple[int, int]] = SIZES) -> None:
    with torch.device("meta"):
        encoder = RasterEncoder(name, 4, image=PATCH_PX).eval()
        assert len(encoder.reductions) > 1
        for height, width in sizes:
            maps = encoder(torch.zeros(1, 4, height, width))
            assert [tuple(one.shape) for one in maps] == [
                (1, channels, -(-height // reduction), -(-width // reduction))
                for channels, reduction in zip(encoder.channels, encoder.reductions, strict=True)
            ]


@pytest.mark.parametrize(
    "name",
    [
        "test_maxvit",  # windows of 5 x 5 pixels at 1/32
        "haloregnetz_b",  # blocks of its own size
        "coatnet_pico_rw_224",  # relative positions of one size
        "visformer_tiny",  # absolute ones
        "pit_xs_224",  # without padding at the edges
        "inception_v3",  # the same, and no small images
        "dla34",  # has a level that timm leaves out
        "mobilevitv2_050",  # resizes maps of odd sides
        "hardcorenas_a",  # chooses how it gives maps
    ],
)
def test_a_network_takes_rasters_of_any_size(name: str) -> None:
    give_maps_of_the_size_told(name)


@pytest.mark.parametrize("name", ["test_maxvit", "test_efficientnet"])
def test_rasters_are_padded_to_what_the_network_takes(name: str) -> None:
    encoder = RasterEncoder(name, 3).eval()
    step = {"test_maxvit": 160, "test_efficientnet": 32}[name]
    raster = random(1, 3, 64, 96)
    padded = (-(-64 // step) * step, -(-96 // step) * step)
    rows, columns = (
        torch.arange(n).clamp(max=m - 1) for n, m in zip(padded, (64, 96), strict=True)
    )
    with torch.inference_mode():
        expected: list[Tensor] = encoder.network(raster[..., rows[:, None], columns])
        found = encoder(raster)
    for one, whole, reduction in zip(found, expected, encoder.reductions, strict=True):
        assert torch.equal(one, whole[..., : 64 // reduction, : 96 // reduction])


def test_a_network_of_one_size_says_so() -> None:
    with torch.device("meta"):
        encoder = RasterEncoder("efficientformer_l1", 4, image=PATCH_PX).eval()
        assert encoder(torch.zeros(1, 4, 64, 96))[0].shape[-2:] == (16, 24)
        message = r"'efficientformer_l1' takes rasters of 224 x 224 pixels .*got 256 x 64.*smaller"
        with pytest.raises(GridError, match=message):
            encoder(torch.zeros(1, 4, 256, 64))


def test_a_segmenter_gives_encoders_of_one_size_that_of_patches() -> None:
    with torch.device("meta"):
        model = own("aerial_rgbi", "spot_rgbi", encoder="coatnet_pico_rw_224")
        call = {"aerial_rgbi": torch.zeros(1, 4, 512, 512), "spot_rgbi": torch.zeros(1, 4, 64, 64)}
        assert model(call).main["cosia"].shape == (1, 19, 512, 512)


@pytest.mark.filterwarnings("ignore:CSATv2 is designed")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("csatv2", "'csatv2' fails on images of 4 bands, 512 x 512"),  # reads colours itself
        ("vit_tiny_patch16_224", r"no pyramid \(reductions \(16, 16, 16\)\)"),
    ],
)
def test_networks_that_cannot_are_refused_when_they_are_built(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RasterEncoder(name, 4)


SMALL = ("atto", "pico", "nano", "femto", "xxs", "xxtiny", "_s0", "tiny", "_xs", "mini", "b0",
         "_050", "_002", "small", "_s", "18", "26", "34")  # fmt: skip
"""What names of small networks have, the smallest first."""


def by_size(name: str) -> tuple[int, int]:
    return next((place for place, mark in enumerate(SMALL) if mark in name), 99), len(name)


FAMILIES = sorted(
    {
        (module, re.split(r"[_\d]", name)[0]): name
        for module in timm.list_modules()
        for name in sorted(timm.list_models(module=module), key=by_size, reverse=True)
    }.values()
)
"""A small network of every family."""


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning:timm")
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_any_size_or_says_why_not(name: str) -> None:
    assert re.search("^$|has no pyramid|on images of 4 bands|pixels alone", refusal(name))


def refusal(name: str) -> str:
    """Return what an error of ours says; nothing where there is none."""
    try:
        give_maps_of_the_size_told(name)
    except (ConfigError, GridError) as error:
        return str(error)
    return ""
