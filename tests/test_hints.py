"""What errors suggest: near spellings, longer names, and no endless lists."""

from __future__ import annotations

import pytest

from flairhub.errors import ConfigError, did_you_mean
from flairhub.models import IgnOptions, build

MANY = [f"name{i}" for i in range(100)]


def test_hints_are_short() -> None:
    assert did_you_mean("dem_elv", ["dem_elev", "other"]) == "Did you mean 'dem_elev'?"
    assert did_you_mean("x", ["a", "b"]) == "Known: a, b."
    listed = did_you_mean("x", MANY)
    assert listed.endswith("name39 and 60 more.")
    assert "name40" not in listed


def test_the_beginning_of_a_long_name_is_a_hint() -> None:
    options = IgnOptions(("spot_rgbi",), {"cosia": 19}, encoder="swin_tiny")
    with pytest.raises(ConfigError, match=r"'swin_tiny_patch4_window7_224'") as raised:
        build(options)
    assert len(str(raised.value)) < 300
