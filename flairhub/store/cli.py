"""The command ``stats``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

_WIDE = 120
"""Columns of a terminal that holds every percentile; in others there are three."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(stats)


def stats(
    root: Annotated[
        str, typer.Argument(help="A folder of stores, or one store (…/D012-2019.zarr).")
    ],
    domains: Annotated[
        str | None, typer.Option(help="Only these, such as D012-2019,D004-2021.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Pixels of which split: train, valid, test, or all together.")
    ] = "train",
    out: Annotated[
        Path | None,
        typer.Option(help="Write mean and standard deviation for training (data.statistics)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Print what the pixels of each band are like, and how frequent each class is.

    Measured in conversion; no pixel is read. The file for training leaves elevation out: training
    measures height and relief on its own windows.
    """
    from flairhub.errors import ConfigError
    from flairhub.modalities import MODALITIES
    from flairhub.nomenclatures import NOMENCLATURES
    from flairhub.store.normalisation import normalisation
    from flairhub.store.statistics import count_classes, read_rows, summarise_channels

    wanted = None if domains is None else [name.strip() for name in domains.split(",")]
    rows = read_rows(root, wanted, split)
    names = sorted(set(rows["domain"]))
    channels, classes = summarise_channels(rows), count_classes(rows)
    if out is not None:
        text = json.dumps(normalisation(channels, names, split), indent=2)
        try:
            out.write_text(f"{text}\n", encoding="utf-8")
        except OSError as error:
            msg = (
                f"--out {out} cannot be written ({error.strerror}); expected a file in a folder "
                "that exists."
            )
            raise ConfigError(msg) from error
    if as_json:
        plain = {
            "domains": names,
            "split": split,
            "channels": _plain(channels.drop(columns="split")),
            "classes": _plain(classes.drop(columns="split")),
        }
        typer.echo(json.dumps(plain, indent=2))
        return
    console = Console(highlight=False)
    console.print(f"[bold]{', '.join(names)}[/bold], split {split}")
    for key, part in channels.groupby("modality", sort=False):
        title, size = MODALITIES[str(key)].title, part["pixels"].max()
        console.print(f"\n[bold]{title}[/bold], {size:,} pixels a channel")
        console.print(_channels_table(part, wide=console.width >= _WIDE))
    for key, part in classes.groupby("nomenclature", sort=False):
        console.print(f"\n[bold]{NOMENCLATURES[str(key)].title}[/bold]")
        console.print(_classes_table(part))
    if out is not None:
        console.print(f"normalisation: {out}", soft_wrap=True)


def _channels_table(rows: pd.DataFrame, *, wide: bool) -> Table:
    from flairhub.store.statistics import PERCENTILES

    percentiles = [f"p{p}" for p in (PERCENTILES if wide else (1, 50, 99))]
    columns = ["mean", "std", "minimum", *percentiles, "maximum"]
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("channel", no_wrap=True)
    for name in ("nodata", *columns):
        heading = {"minimum": "min", "maximum": "max"}.get(name, name)
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows.to_dict("records"):
        numbers = (_number(row[column]) for column in columns)
        table.add_row(row["channel"], f"{row['nodata_share']:.2%}", *numbers)
    return table


def _classes_table(rows: pd.DataFrame) -> Table:
    table = Table("class", box=None, padding=(0, 1, 0, 0))
    for name in ("code", "pixels", "share"):
        table.add_column(name, justify="right")
    for row in rows.to_dict("records"):
        table.add_row(row["name"], str(row["code"]), f"{row['pixels']:,}", f"{row['share']:.2%}")
    return table


def _number(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as JSON values, null for what is not known."""
    return [
        {str(k): None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        for row in frame.to_dict("records")
    ]
