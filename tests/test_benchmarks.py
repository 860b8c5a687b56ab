from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import coding, converting, models, opening
from benchmarks.__main__ import plain, table_of
from benchmarks.harness import BENCHMARKS, Row, Workspace, interleaved


def row(**changes: object) -> Row:
    values = {"name": "a", "unit": "s", "ours": 1.0, "peer": 4.0, "goal": 0.5, "better": "lower"}
    return Row(**{**values, "note": "", **changes})  # type: ignore[arg-type]


def test_the_ratio_is_ours_over_the_peers() -> None:
    assert row().ratio == 0.25
    assert row(peer=None).ratio is None


@pytest.mark.parametrize(
    ("changes", "met"),
    [
        ({}, True),
        ({"ours": 3.0}, False),
        ({"better": "higher"}, False),
        ({"better": "higher", "ours": 3.0}, True),
        ({"peer": None}, False),  # then the goal is for our own number
        ({"peer": None, "ours": 0.4}, True),
        ({"goal": None}, True),  # nothing is promised
    ],
)
def test_a_goal_is_met_in_its_own_direction(changes: dict[str, object], met: bool) -> None:
    assert row(**changes).met is met


def test_contestants_take_turns_and_the_median_counts() -> None:
    turns: list[str] = []

    def measure(name: str, numbers: list[float]) -> float:
        turns.append(name)
        return numbers.pop()

    first, second = [1.0, 9.0, 2.0], [4.0, 4.0, 7.0]
    found = interleaved(
        {"a": lambda: measure("a", first), "b": lambda: measure("b", second)}, repeats=3
    )
    assert turns == ["a", "b"] * 3
    assert found == {"a": 2.0, "b": 4.0}


def test_rows_are_written_for_programs_and_shown_to_people() -> None:
    written = json.loads(json.dumps(plain(row())))
    assert {"name", "ours", "peer", "ratio", "goal"} <= written.keys()
    assert (written["ratio"], written["met"]) == (0.25, True)
    assert table_of([row(), row(peer=None), row(goal=None)]).row_count == 3


def test_every_promise_has_a_benchmark() -> None:
    storing = {"conversion", "processes", "size", "coding"}
    reading = {"planning", "streaming", "remote"}
    on_gpus = {"device_models", "device_streaming"}
    assert set(BENCHMARKS) == {"startup", "opening", *storing, *reading, "models", *on_gpus}


def test_networks_that_give_other_scores_are_not_measured() -> None:
    contest = models.prepare("LC-G", samples=1)
    assert contest.run_ours().shape == (1, 19, 512, 512)
    with torch.no_grad():
        bias = "SENTINEL2_TS.out_conv.conv.conv.4.bias"
        contest.peer.encoders.get_parameter(bias).add_(1)
    with pytest.raises(AssertionError, match="LC-G gives other scores than its peer"):
        list(models.rows_of(contest, "LC-G", goal=2.0))


@pytest.fixture
def workspace(raw_tree: Path, store_root: Path, tmp_path: Path) -> Workspace:
    return Workspace(raw_tree, store_root, tmp_path)


def test_opening_takes_the_promised_requests(workspace: Workspace) -> None:
    rows = list(opening.opening(workspace))
    assert [r.name for r in rows] == ["open a ROI", "open a domain"]
    assert [r.met for r in rows] == [True, True]
    assert rows[0].peer is not None
    assert rows[0].peer > 20  # what plain xarray asks for: the count works


def test_the_store_is_smaller_than_its_files_in_few_objects(workspace: Workspace) -> None:
    rows = {r.name: r for r in converting.size(workspace)}
    assert rows["bytes"].met
    assert rows["objects of a ROI"].met


def test_profiles_are_as_small_as_promised(workspace: Workspace) -> None:
    rows = [row for row in coding.coding(workspace) if row.unit == "MB"]
    assert {"fast, sample/deflate", "fast, sample/LZW"} <= {row.name for row in rows}
    assert all(row.met for row in rows), [row for row in rows if not row.met]
