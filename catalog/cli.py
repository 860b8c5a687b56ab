"""The commands ``flairhub catalog ...``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the group ``catalog`` to the command ``flairhub``."""
    group = typer.Typer(help="Catalogue the stores of a folder.", no_args_is_help=True)
    group.callback()(_group)
    group.command()(build)
    app.add_typer(group, name="catalog")


def _group() -> None:
    """Keep ``build`` a sub-command even while it is the only one."""


def build(
    root: Annotated[str, typer.Argument(help="Folder of stores, as `flairhub convert` wrote it.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the catalogue; ROOT/catalog by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Write a static STAC catalogue and one GeoParquet of all its items."""
    from catalog.build import build_catalog

    report = build_catalog(root, out)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
        return
    typer.echo(
        f"{report.items} ROIs of {len(report.domains)} domains with {report.patches} patches "
        f"-> {report.path}"
    )
