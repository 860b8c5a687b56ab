"""The command ``flairhub predict``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from flairhub.training.metrics import Scores


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(predict)


def predict(
    checkpoint: Annotated[Path, typer.Argument(help="Trained model, written by flairhub train.")],
    store: Annotated[str, typer.Argument(help="Store of the domain (…/D012-2019.zarr).")],
    roi: Annotated[str, typer.Argument(help="ROI to map, such as AF-S1-27.")],
    out: Annotated[Path, typer.Option(help="Folder of the maps.")] = Path("maps"),
    label: Annotated[str, typer.Option(help="Class set to map, of those of the model.")] = "cosia",
    window_m: Annotated[
        float | None, typer.Option(help="Side of a window in metres; else that of training.")
    ] = None,
    overlap: Annotated[
        float, typer.Option(min=0, max=0.95, help="Share of a window that the next covers again.")
    ] = 0.5,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows at a time.")] = 4,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Map one ROI with overlapping windows; write the map as Zarr and as COG, and score it."""
    from flairhub.inference.predict import predict as run

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"predicting {roi}", total=None)
        result = run(
            checkpoint,
            store,
            roi,
            out,
            label=label,
            window_m=window_m,
            overlap=overlap,
            batch_size=batch_size,
            device=device,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        typer.echo(json.dumps(result.to_plain()))
        return
    overlapping = f"overlapping by {result.overlap:.0%}"
    typer.echo(f"{result.domain} {result.roi}: {result.windows} windows, {overlapping}")
    typer.echo(f"  Zarr {result.zarr}\n  COG  {result.cog}")
    if result.scores is not None:
        typer.echo(_summary(result.scores))


def _summary(scores: Scores) -> str:
    return (
        f"  against its labels: overall accuracy {scores.accuracy:.1%}, "
        f"mean IoU {scores.mean_iou:.1%}\n"
        f"  a map of {scores.baseline_class} alone: {scores.baseline_accuracy:.1%}, "
        f"{scores.baseline_mean_iou:.1%}"
    )
