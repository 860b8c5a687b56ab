"""``flairhub bench`` measures what the user has, and its advice follows from the figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.objectserver import ObjectServer
from flairhub import PatchPlan
from flairhub.batches.probe import DEPTHS, DepthResult, _advice, probe
from flairhub.cli import run
from flairhub.errors import PlanError


def test_object_storage_is_measured(store_root: Path) -> None:
    with ObjectServer(store_root, latency_s=0.02) as server:
        options = server.storage_options

        def make_plan() -> PatchPlan:
            return PatchPlan.build(
                server.url, modalities=["spot_rgbi"], window_m=51.2, storage_options=options
            )

        found = probe(make_plan, batch_size=2, windows=12, depths=(1, 8))
        asked = server.counts().total
    assert found.planned == len(make_plan_locally(store_root))
    assert [one.prefetch for one in found.depths] == [1, 8]
    measured = sum(one.requests_per_window * one.windows for one in found.depths)
    assert 0 < measured < asked, "tables and the first batch are asked for as well"
    for one in found.depths:
        assert one.windows == 12
        low, high, most = one.latency_ms
        assert 20 <= low <= high <= most
        assert one.per_second > 0
        assert one.megabytes_per_second > 0
        assert one.retries == 0
    assert found.advice[0].startswith("Set prefetch to ")
    assert found.plan_s > 0
    assert found.first_batch_s > 0.02


def make_plan_locally(store_root: Path) -> PatchPlan:
    return PatchPlan.build(store_root, modalities=["spot_rgbi"], window_m=51.2)


def test_the_command_prints_a_table_and_advice(
    store_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bench", str(store_root), "--modalities", "spot_rgbi", "--window-m", "51.2"]
    assert run([*command, "--windows", "8"]) == 0
    said = capsys.readouterr()
    assert "windows/s" in said.out
    assert "Set prefetch to" in said.out
    assert "measuring prefetch 64" in said.err
    assert run([*command, "--windows", "8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["prefetch"] for one in found["depths"]] == list(DEPTHS)
    assert found["depths"][0]["latency_ms"] == [None, None, None], "files are not asked"


def test_too_few_windows_are_refused(store_root: Path) -> None:
    plan = PatchPlan.build(store_root, modalities=["spot_rgbi"])
    part = plan.subset(plan.order(shuffle=False, seed=0, epoch=0)[:3])
    with pytest.raises(PlanError, match="has 3 windows; measuring needs at least 4"):
        probe(lambda: part)


def test_files_need_few_windows_ahead() -> None:
    """The deepest was the fastest by chance: no wait is hidden by reading further ahead."""

    def measured(ms: float) -> list[DepthResult]:
        rates = (60.0, 88.0, 93.0, 105.0)
        return [
            DepthResult(depth, 128, rate, 50.0, 8.0, (ms, ms, ms), 0, 0.5)
            for depth, rate in zip(DEPTHS, rates, strict=True)
        ]

    files = " ".join(_advice(measured(float("nan")), shuffle=True))
    assert "prefetch to 4" in files
    assert "deeper" not in files
    remote = " ".join(_advice(measured(30.0), shuffle=True))
    assert "prefetch to 64" in remote
    assert "deeper may be faster" in remote
