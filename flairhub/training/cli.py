"""The commands ``train`` and ``evaluate``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from flairhub.models.opening import OPENERS

if TYPE_CHECKING:
    from flairhub.models.opening import Opened
    from flairhub.training.metrics import Scores
    from flairhub.training.run import Progress as Report


class SplitName(StrEnum):
    """The splits that a configuration maps."""

    TRAIN = "train"
    VALID = "valid"
    TEST = "test"


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(train)
    app.command()(evaluate)
    OPENERS["runs"] = _open_run


def _open_run(path: Path) -> Opened | None:
    """Open checkpoints and configurations for `flairhub models`."""
    from flairhub.training.opening import open_run

    return open_run(path)


def train(
    config: Annotated[Path, typer.Argument(help="YAML file: data, model, training.")],
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps at most; overrides the file.")
    ] = None,
    max_minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Minutes at most; overrides the file.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the run; overrides the file.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in its folder, if there is one.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Train a model, and score it on the validation split beside a map of one class."""
    from flairhub.config import load_config
    from flairhub.training.run import train as run

    given = {
        "max_steps": max_steps,
        "max_minutes": max_minutes,
        "output": None if output is None else str(output.absolute()),
    }
    changes = {key: value for key, value in given.items() if value is not None}
    found = load_config(config)
    found = found.model_copy(update={"training": found.training.model_copy(update=changes)})
    with _bar("training") as report:
        result = run(found, resume=resume, progress=report)
    if as_json:
        plain = {
            "checkpoint": str(result.checkpoint),
            "steps": result.steps,
            "seconds": round(result.seconds, 1),
            "parameters": result.parameters,
            "scores": {key: scores.to_plain() for key, scores in result.scores.items()},
        }
        typer.echo(json.dumps(plain, indent=2))
        return
    console = Console(highlight=False)
    console.print(
        f"{result.parameters:,} parameters, {result.steps} steps in {result.seconds:.0f} s"
    )
    for scores in result.scores.values():
        console.print(scores_table(scores, title=f"{scores.label}, validation"))
    console.print(f"checkpoint: {result.checkpoint}", soft_wrap=True)


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint that `train` wrote.")],
    split: Annotated[SplitName, typer.Option(help="Which split to score.")] = SplitName.TEST,
    root: Annotated[
        str | None, typer.Option(help="Folder or URL of the stores, where it is another now.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Score a checkpoint on one split, class by class, beside a map of one class."""
    from flairhub.training.run import evaluate as run

    with _bar("evaluating") as report:
        found = run(checkpoint, split.value, root=root, progress=report)
    if as_json:
        typer.echo(json.dumps({key: scores.to_plain() for key, scores in found.items()}, indent=2))
        return
    console = Console(highlight=False)
    for scores in found.values():
        console.print(scores_table(scores, title=f"{scores.label}, {split}"))


def scores_table(scores: Scores, *, title: str) -> Table:
    """Return a table of one label set: a row a class, model beside baseline, in percent."""
    table = Table("class", title=title, box=None, title_justify="left")
    for name in ("pixels", "model IoU", f"all '{scores.baseline_class}' IoU"):
        table.add_column(name, justify="right")
    for one in scores.classes:
        shares = (_percent(one.iou), _percent(one.baseline_iou))
        table.add_row(one.name, f"{one.pixels:,}", *shares)
    table.add_section()
    for name, mine, baseline in (
        ("mean IoU", scores.mean_iou, scores.baseline_mean_iou),
        ("overall accuracy", scores.accuracy, scores.baseline_accuracy),
    ):
        table.add_row(
            f"[bold]{name}[/bold]", f"{scores.pixels:,}", _percent(mine), _percent(baseline)
        )
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


@contextmanager
def _bar(what: str) -> Iterator[Report]:
    """Show a bar on stderr while a run reports to the function given."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        line = bar.add_task(what, total=1.0, state="reading")

        def report(done: float, step: int, loss: float) -> None:
            state = f"step {step}" if loss != loss else f"step {step}, loss {loss:.3f}"
            bar.update(line, completed=done, state=state)

        yield report
