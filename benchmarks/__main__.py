"""``python -m benchmarks``: run them, print the table, write ``bench.json``."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import (
    coding,
    converting,
    device,
    models,
    opening,
    planning,
    remote,
    startup,
    streaming,
)
from benchmarks.harness import BENCHMARKS, Row, Workspace
from converters.convert import convert
from converters.flairhub_tree import FlairHubTree
from converters.miniature import write_sample

MODULES = (startup, opening, planning, converting, coding, streaming, remote, models, device)
"""Importing them registers their benchmarks."""


def table_of(rows: list[Row]) -> Table:
    """Return the rows as people read them."""
    table = Table("", "ours", "peer", "unit", "ratio", "goal", "", "what", title="flairhub")
    for row in rows:
        goal, sign = row.goal, "≤" if row.better == "lower" else "≥"
        table.add_row(
            row.name,
            f"{row.ours:.3g}",
            "" if row.peer is None else f"{row.peer:.3g}",
            row.unit,
            "" if row.ratio is None else f"{row.ratio:.2f}",
            "" if goal is None else f"{'ours' if row.peer is None else 'ratio'} {sign} {goal:g}",
            "" if goal is None else "met" if row.met else "missed",
            row.note,
        )
    return table


def plain(row: Row) -> dict[str, object]:
    """Return a row as it stands in ``bench.json``."""
    return asdict(row) | {"ratio": row.ratio, "met": row.met}


app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def main(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Only these of: {', '.join(BENCHMARKS)}.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the rows go.")] = Path("bench.json"),
    raw: Annotated[
        Path | None, typer.Option(help="A raw tree to measure on; a sample when absent.")
    ] = None,
    grid: Annotated[int, typer.Option(min=1, help="Rows and columns of a ROI of the sample.")] = 5,
) -> None:
    """Measure flairhub against what people would use otherwise, on this machine."""
    for name in names or ():
        if name not in BENCHMARKS:
            msg = f"{name!r} is none of {', '.join(BENCHMARKS)}"
            raise typer.BadParameter(msg)
    log = Console(stderr=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="flairhub-bench-") as folder:
        place = Path(folder)
        workspace = Workspace(raw or place / "raw", place / "root", place / "scratch")
        workspace.scratch.mkdir()
        if raw is None:
            log.print("writing the sample ...")
            write_sample(
                workspace.raw, domains=1, rois=2, rows=grid, columns=grid, seed=0, long_series=True
            )
        log.print("converting it ...")
        convert(FlairHubTree(workspace.raw), str(workspace.root))
        for name in names or BENCHMARKS:
            log.print(f"measuring {name} ...")
            rows.extend(BENCHMARKS[name](workspace))
            # what is measured stays, should the rest be stopped
            text = json.dumps([plain(row) for row in rows], indent=2) + "\n"
            out.write_text(text, encoding="utf-8")
    Console(width=None if sys.stdout.isatty() else 160).print(table_of(rows))


if __name__ == "__main__":
    app()
