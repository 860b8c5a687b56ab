"""The command ``flairhub``: assembles the sub-commands and turns errors into exit codes.

Every package adds its commands through the entry-point group ``flairhub.commands``, so that this
package need not know `converters` or `catalog`. Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import json
import logging
import sys
from importlib.metadata import entry_points
from typing import Annotated, Any

import click
import typer
from rich.console import Console
from rich.table import Table

import flairhub
from flairhub.errors import FlairHubError

_EXTRAS = {
    **dict.fromkeys(("rasterio", "pyogrio", "scipy"), "convert"),
    **dict.fromkeys(("pystac", "stac_geoparquet"), "catalog"),
    **dict.fromkeys(
        ("torch", "timm", "lightning", "segmentation_models_pytorch", "torchvision"), "train"
    ),
    **dict.fromkeys(("matplotlib", "rioxarray", "geopandas"), "explore"),
}
"""Which extra brings a package that a command may miss."""


def build_app() -> typer.Typer:
    """Return the command with all installed sub-commands."""
    app = typer.Typer(
        name="flairhub",
        help="FLAIR-HUB as Zarr datacubes: convert, verify, catalogue, train, predict.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for entry in sorted(entry_points(group="flairhub.commands"), key=lambda e: e.name):
        entry.load()(app)
    app.command()(info)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(flairhub.__version__)
        raise typer.Exit


def _options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log to stderr, show tracebacks.")
    ] = False,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")


def info(
    url: Annotated[str, typer.Argument(help="A folder of stores, or one store (…/D012-2019.zarr).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Say what a store, or a folder of stores, holds."""
    from flairhub.store.summary import summarise

    rows = [row.as_dict() for row in summarise(url)]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(title=f"{url}: {len(rows)} domain(s)")
    for name in ("domain", "ROIs", "patches", "splits", "modalities", "objects", "MB"):
        table.add_column(name, justify="left" if name in ("domain", "splits") else "right")
    for row in rows:
        splits = ", ".join(f"{k} {n}" for k, n in row["splits"].items()) or "-"
        table.add_row(
            row["domain"], str(row["rois"]), str(row["patches"]), splits,
            str(len(row["modalities"])), str(row["objects"]), f"{row['bytes'] / 1e6:.1f}",
        )  # fmt: skip
    Console().print(table)


def _missing_extra(error: ImportError) -> str | None:
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    if extra is None:
        return None
    return f"this command needs {package!r}: pip install 'flairhub[{extra}]'"


def run(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code; the only place that catches errors.

    Parameters
    ----------
    arguments
        Without the program's name; those of the process when absent.
    """
    words = sys.argv[1:] if arguments is None else arguments
    verbose = "--verbose" in words or "-v" in words
    try:
        result: Any = build_app()(words, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        typer.echo("interrupted", err=True)
        return 130
    except FlairHubError as error:
        if verbose:
            raise
        typer.echo(f"error: {error}", err=True)
        return 1
    except ImportError as error:
        message = _missing_extra(error)
        if message is None or verbose:
            raise
        typer.echo(f"error: {message}", err=True)
        return 1
    return result if isinstance(result, int) else 0


def main() -> None:
    """Entry point of the command."""
    sys.exit(run())
