"""The command ``flairhub``: assembles the sub-commands and turns errors into exit codes.

Every package adds its commands through the entry-point group ``flairhub.commands``, so that this
package need not know `converters` or `catalog`. Exit codes: 0 done, 1 failed, 2 wrong usage, 130
interrupted.
"""

from __future__ import annotations

import json
import logging
import re
import signal
import sys
import traceback
from importlib.metadata import EntryPoint, entry_points, requires
from itertools import takewhile
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

import flairhub
from flairhub.errors import FlairHubError

if TYPE_CHECKING:
    from flairhub.store.summary import DomainSummary

_GROUP = "flairhub.commands"
_EXTRA_OF = {"converters": "convert", "catalog": "catalog", "flairhub": "train"}
"""The extra that a package of ours needs to run."""


def build_app() -> typer.Typer:
    """Return the command with all installed sub-commands."""
    app = typer.Typer(
        name="flairhub",
        help="FLAIR-HUB as Zarr datacubes: convert, verify, catalogue, train, predict.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for entry in sorted(entry_points(group=_GROUP), key=lambda e: e.name):
        _add_commands(app, entry)
    app.command()(info)
    return app


def _add_commands(app: typer.Typer, entry: EntryPoint) -> None:
    """Let a package add its commands; one that cannot be imported must not disable the others."""
    try:
        entry.load()(app)
    except ImportError as error:
        problem = error  # the name `error` ends with this block

        def unavailable() -> None:
            raise problem

        reason = _missing_extra(error) or str(error)
        app.command(
            entry.name,
            help=f"Not available: {reason}.",
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        )(unavailable)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(flairhub.__version__)
        raise typer.Exit


def _options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log to stderr, show tracebacks.")
    ] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")


def info(
    url: Annotated[
        str, typer.Argument(help="A folder of stores, or one store (…/D012-2019.zarr).")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Say what a store, or a folder of stores, holds; reads tables and metadata, no pixels."""
    from flairhub.store.summary import summarise

    domains = summarise(url)
    if as_json:
        typer.echo(json.dumps([d.to_plain() for d in domains], indent=2))
        return
    for domain in domains:
        _print_domain(domain)


def _print_domain(domain: DomainSummary) -> None:
    splits = ", ".join(f"{name} {n}" for name, n in domain.splits.items()) or "no split"
    console = Console(highlight=False)
    console.print(
        f"[bold]{domain.domain}[/bold]: {len(domain.rois)} ROIs, {domain.patches} patches "
        f"({splits}), {domain.bytes / 1e6:,.1f} MB in {domain.objects} data objects"
    )
    table = Table("variable", "dtype", "a patch", "dates", "patches", box=None)
    for variable in domain.variables:
        sizes = " × ".join(f"{name} {n}" for name, n in variable.patch_sizes.items())
        dates = "–".join(map(str, sorted(set(variable.dates or ()))))
        table.add_row(variable.name, variable.dtype, sizes, dates, str(variable.patches))
    console.print(table)


def _missing_extra(error: ImportError) -> str | None:
    """Say which extra brings the package that is missing; None where no extra does."""
    package = (error.name or "").partition(".")[0].replace("_", "-")
    declared = re.compile(rf"{re.escape(package)}\b[^;]*;.*extra == ['\"](\w+)['\"]", re.IGNORECASE)
    found = (declared.match(r.replace("_", "-")) for r in requires("flairhub") or ())
    extras = [m[1] for m in found if m]
    if not package or not extras:
        return None
    wanted = _extra_of(error.__traceback__)
    extra = wanted if wanted in extras else extras[0]
    return f"this needs the package {package}: pip install 'flairhub[{extra}]'"


def _extra_of(trace: TracebackType | None) -> str | None:
    """Return the extra of the innermost package of ours that a traceback passes through."""
    packages = [f.f_globals["__name__"].partition(".")[0] for f, _ in traceback.walk_tb(trace)]
    return next((_EXTRA_OF[p] for p in reversed(packages) if p in _EXTRA_OF), None)


def _describe(error: Exception) -> str:
    """Return one line for the user; errors that nobody raised on purpose keep their type."""
    if isinstance(error, FlairHubError):
        return str(error)
    if isinstance(error, ImportError) and (advice := _missing_extra(error)):
        return advice
    kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
    return f"{kind}{error} (flairhub --verbose ... shows where)"


def run(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code; the only place that catches every error.

    Parameters
    ----------
    arguments
        Without the program's name; those of the process when absent.
    """
    words = sys.argv[1:] if arguments is None else arguments
    options = list(takewhile(lambda word: word[:1] == "-", words))
    verbose = "-v" in options or "--verbose" in options
    try:
        build_app()(words, prog_name="flairhub")
    except SystemExit as end:  # typer ends every command so, after reporting wrong usage
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        return 130
    except Exception as error:
        if verbose:
            traceback.print_exc()
        typer.echo(f"error: {_describe(error)}", err=True)
        return 1
    return 0


def main() -> None:
    """Entry point of the command."""
    # processes that were started are sent home, as at Ctrl-C
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run())


def _terminate(number: int, _frame: object) -> None:
    sys.exit(128 + number)
