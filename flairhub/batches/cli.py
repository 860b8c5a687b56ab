"""The command ``bench``."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from flairhub.batches.probe import Probe


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(bench)


def bench(
    url: Annotated[str, typer.Argument(help="A folder of stores, or one store, local or remote.")],
    modalities: Annotated[
        str | None, typer.Option(help="Inputs, such as aerial_rgbi,dem_elev; all when absent.")
    ] = None,
    labels: Annotated[str, typer.Option(help="Class sets.")] = "cosia",
    domains: Annotated[
        str | None, typer.Option(help="Only these, such as D012-2019,D004-2021.")
    ] = None,
    window_m: Annotated[float, typer.Option(help="Side of a window, metres.")] = 102.4,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    windows: Annotated[int, typer.Option(min=1, help="Windows to read for each setting.")] = 128,
    threads: Annotated[int, typer.Option(min=1, help="Threads that decode.")] = 4,
    block: Annotated[bool, typer.Option("--block", help="Shuffle blocks of neighbours.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Measure how fast a store streams to this machine, and say what to set."""
    from flairhub.batches.plan import PatchPlan
    from flairhub.batches.probe import probe
    from flairhub.modalities import dataset_modalities

    keys = [m.key for m in dataset_modalities() if not (m.is_label or m.is_area)]
    log = Console(stderr=True, highlight=False)

    def make_plan() -> PatchPlan:
        return PatchPlan.build(
            url,
            modalities=keys if modalities is None else _names(modalities),
            labels=_names(labels),
            domains=None if domains is None else _names(domains),
            window_m=window_m,
            complete=modalities is not None,
        )

    found = probe(
        make_plan,
        batch_size=batch_size,
        windows=windows,
        threads=threads,
        shuffle="block" if block else True,
        note=lambda text: log.print(f"measuring {text} ..."),
    )
    if as_json:
        typer.echo(json.dumps(_plain(asdict(found)), indent=2))
        return
    console = Console(highlight=False)
    console.print(_table(found))
    console.print(
        f"plan of {found.planned:,} windows: {found.plan_s:.2f} s; "
        f"first batch after {found.first_batch_s:.2f} s"
    )
    for line in found.advice:
        console.print(line, soft_wrap=True)


def _table(found: Probe) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("prefetch", "windows/s", "MB/s", "reads/window"):
        table.add_column(name, justify="right")
    for name in ("p50 ms", "p90 ms", "p99 ms", "retries", "CPU"):
        table.add_column(name, justify="right")
    for one in found.depths:
        table.add_row(
            str(one.prefetch),
            f"{one.per_second:.1f}",
            f"{one.megabytes_per_second:.1f}",
            f"{one.requests_per_window:.2f}",
            *("" if math.isnan(ms) else f"{ms:.0f}" for ms in one.latency_ms),
            str(one.retries),
            f"{one.busy:.0%}",
        )
    return table


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _plain(value: object) -> object:
    """Return JSON values, null for what is not known."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
