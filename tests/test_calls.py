"""Calls of the own network that do not fit are refused, with what was found and expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flairhub.errors import GridError, UnknownNameError
from flairhub.models import MultimodalSegmenter
from tests.forms import FEW, alike, every_input, own

MASKS = "sentinel2_msk_sc"
SERIES = "sentinel2_ts"


@pytest.fixture(scope="module")
def model() -> MultimodalSegmenter:
    return own(*FEW)


def call(**parts: dict[str, Any]) -> dict[str, Any]:
    """Return arguments that fit, some entries changed; None takes one out."""
    found = every_input()
    found["inputs"] = {key: found["inputs"][key] for key in FEW}
    found["present"] = {}
    for part, changes in parts.items():
        merged = found[part] | changes
        found[part] = {key: value for key, value in merged.items() if value is not None}
    return found


def test_a_call_that_fits_passes(model: MultimodalSegmenter) -> None:
    scores = model(**call(lengths={MASKS: torch.tensor([4, 3])}, days={MASKS: torch.zeros(2, 4)
                                                                       .long()}))  # fmt: skip
    assert alike(scores.main["cosia"], model(**call()).main["cosia"])


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("lengths", {"SENTINEL2_TS": torch.tensor([4, 2])}, "lengths names 'SENTINEL2_TS', which"),
        ("lengths", {"sentinel2": torch.tensor([4, 2])}, "'sentinel2'.*Did you mean 'sentinel2_ts"),
        ("lengths", {"spot_rgbi": torch.tensor([4, 2])}, "'spot_rgbi', which is no series"),
        ("days", {"sentinel1_asc_ts": torch.zeros(2, 4).long()}, "days names 'sentinel1_asc_ts'"),
        ("present", {"spot": torch.ones(2).bool()}, "present names 'spot'.*mean 'spot_rgbi'"),
    ],
)
def test_names_that_the_model_was_not_built_for_are_refused(
    model: MultimodalSegmenter, part: str, changes: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(UnknownNameError, match=message):
        model(**call(**{part: changes}))


Change = Callable[[Tensor], Any]


@pytest.mark.parametrize(
    ("part", "key", "change", "message"),
    [
        ("lengths", SERIES, lambda _: torch.tensor([4, -2]), r"between 0 and 4.*\[4, -2\]"),
        ("lengths", SERIES, lambda _: torch.tensor([5, 2]), r"between 0 and 4.*\[5, 2\]"),
        ("lengths", SERIES, lambda n: n[:1], r"lengths of sentinel2_ts must have the shape \(2,\)"),
        ("lengths", SERIES, Tensor.float, "must be whole numbers; they are torch.float32"),
        ("lengths", SERIES, lambda n: n > 0, "must be whole numbers; they are torch.bool"),
        ("days", SERIES, lambda _: None, r"must have the shape \(2, 4\); they are missing"),
        ("days", SERIES, lambda d: d[:, :3], r"of sentinel2_ts .* \(2, 4\); they are \(2, 3\)"),
        ("days", SERIES, Tensor.float, "days since 1970-01-01; they are torch.float32"),
        ("inputs", MASKS, lambda _: None, "with sentinel2_msk_sc; only sentinel2_ts is given"),
        ("inputs", SERIES, lambda _: None, "with sentinel2_msk_sc; only sentinel2_msk_sc is given"),
        ("inputs", MASKS, lambda m: m[:, :3], "the same dates; found 4 and 3"),
        ("inputs", SERIES, lambda s: s[:, 0], r"\(B, T, 10, H, W\).* is \(2, 10, 5, 5\)"),
        ("inputs", "spot_rgbi", lambda i: i[:, :3], r"must have the shape \(B, 4, H, W\)"),
        ("inputs", "spot_rgbi", lambda i: i[..., :0], r"none of them 0; .* \(2, 4, 32, 0\)"),
        ("inputs", "spot_rgbi", lambda i: i[:1], "the first has 1 and sentinel2_ts 2"),
        ("inputs", "spot_rgbi", lambda i: i.to(torch.uint8), "normalised.*it is torch.uint8"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_refused(
    model: MultimodalSegmenter, part: str, key: str, change: Change, message: str
) -> None:
    with pytest.raises(GridError, match=message):
        model(**call(**{part: {key: change(call()[part][key])}}))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (torch.ones(2), "flags `present` of spot_rgbi must be bool; they are torch.float32"),
        (torch.ones(3).bool(), r"must have the shape \(2,\); they are \(3,\)"),
    ],
)
def test_flags_that_do_not_fit_are_refused(
    model: MultimodalSegmenter, flags: Tensor, message: str
) -> None:
    with pytest.raises(GridError, match=message):
        model(**call(present={"spot_rgbi": flags}))


@pytest.mark.parametrize("inputs", [(*FEW,), ("spot_rgbi",), (SERIES, MASKS)])
def test_a_batch_without_samples_or_dates_is_refused(
    model: MultimodalSegmenter, inputs: tuple[str, ...]
) -> None:
    given = call()
    for part in ("inputs", "days", "lengths"):
        given[part] = {key: value[:0] for key, value in given[part].items() if key in inputs}
    with pytest.raises(GridError, match="none of them 0"):
        model(**given)
    short = {key: call()["inputs"][key][:, :0] for key in (SERIES, MASKS)}
    with pytest.raises(GridError, match="none of them 0"):
        model(**call(inputs=short, days={SERIES: torch.zeros(2, 0).long()}, lengths={SERIES: None}))


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_in_which_nothing_is_present_is_refused(
    model: MultimodalSegmenter, training: bool
) -> None:
    none = torch.zeros(2, dtype=torch.bool)
    model.train(training)
    try:
        with pytest.raises(GridError, match="No sample has any of spot_rgbi, sentinel2_ts"):
            model(**call(present={"spot_rgbi": none}, lengths={SERIES: torch.tensor([0, 0])}))
    finally:
        model.eval()


def test_a_sample_that_has_nothing_gets_the_scores_of_any_other_such(
    model: MultimodalSegmenter,
) -> None:
    has = torch.tensor([True, False])
    given = call(present={"spot_rgbi": has, MASKS: has})
    whole = model(**given).main["cosia"]
    assert torch.equal(whole[1], model(**changed(given, 1)).main["cosia"][1])
    assert not torch.equal(whole[0], model(**changed(given, 0)).main["cosia"][0])


def changed(given: dict[str, Any], sample: int) -> dict[str, Any]:
    inputs = {key: value.clone() for key, value in given["inputs"].items()}
    for value in inputs.values():
        value[sample] += 1
    return given | {"inputs": inputs}


@pytest.mark.parametrize("lengths", [[4, -2], [9, 3]])
def test_where_numbers_are_not_looked_at_they_are_cut(
    model: MultimodalSegmenter, lengths: list[int]
) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    found = compiled(**call(lengths={SERIES: torch.tensor(lengths)})).main["cosia"]
    inside = torch.tensor(np.clip(lengths, 0, 4))
    expected = model(**call(lengths={SERIES: inside})).main["cosia"]
    assert alike(found, expected)
