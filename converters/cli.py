"""The commands ``flairhub sample``, ``convert`` and ``verify``."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from converters.verify import VerificationReport

JsonOption = Annotated[bool, typer.Option("--json", help="Print a report for programs.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(sample)
    app.command()(convert)
    app.command()(verify)


def _names(text: str | None) -> list[str] | None:
    return [name.strip() for name in text.split(",") if name.strip()] if text else None


def _grid(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9][0-9]*)[xX]([1-9][0-9]*)", text)
    if found is None:
        msg = f"{text!r} is not ROWSxCOLS, such as 3x4"
        raise typer.BadParameter(msg)
    return int(found[1]), int(found[2])


@contextmanager
def _bar(title: str) -> Iterator[Callable[..., None]]:
    """Show a bar on stderr; yields a function that takes ``(name, done, total)``."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)

        def update(name: str, done: int, total: int) -> None:
            progress.update(task, description=f"{title} {name}", completed=done, total=total)

        yield update


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"


def sample(
    directory: Annotated[Path, typer.Argument(help="New or empty folder for the raw tree.")],
    domains: Annotated[int, typer.Option(min=1, max=8, help="Domains (department-years).")] = 3,
    rois: Annotated[int, typer.Option(min=1, max=20, help="ROIs in each domain.")] = 2,
    grid: Annotated[
        str, typer.Option(metavar="ROWSxCOLS", help="Patches of the largest ROIs.")
    ] = "3x3",
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write a faithful miniature of FLAIR-HUB's raw files: a synthetic landscape, seen by all."""
    from converters.miniature import write_sample

    rows, columns = _grid(grid)
    started = time.perf_counter()
    with _bar("sampling") as bar:
        report = write_sample(
            directory,
            domains=domains,
            rois=rois,
            rows=rows,
            columns=columns,
            seed=seed,
            progress=lambda done, total: bar("", done, total),
        )
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
        return
    typer.echo(
        f"{directory}: {report.domains} domains, {report.rois} ROIs, {report.patches} patches, "
        f"{report.files} files, {_megabytes(report.bytes)} in {time.perf_counter() - started:.1f} s"
    )


def convert(
    source: Annotated[Path, typer.Argument(help="Folder with the raw files.")],
    root: Annotated[str, typer.Argument(help="Folder or URL for the stores.")],
    domains: Annotated[
        str | None, typer.Option(help="Only these, such as D012-2019,D035-2020.")
    ] = None,
    modalities: Annotated[
        str | None, typer.Option(help="Only these, such as aerial_rgbi,dem_elev.")
    ] = None,
    profile: Annotated[
        str, typer.Option(help="Codecs: fast, or portable (Zarr v3 core only).")
    ] = "fast",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; one a core when absent.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Convert raw files into one Zarr store a domain; run again to finish or to add."""
    from converters.convert import convert as run
    from converters.flairhub_tree import FlairHubTree

    started = time.perf_counter()
    with _bar("converting") as bar:
        report = run(
            FlairHubTree(source),
            root,
            domains=_names(domains),
            modalities=_names(modalities),
            profile=profile,
            workers=workers,
            progress=bar,
        )
    seconds = time.perf_counter() - started
    if as_json:
        typer.echo(json.dumps({**report.as_dict(), "seconds": round(seconds, 2)}))
        return
    for note in report.notes:
        typer.echo(f"note: {note}", err=True)
    if report.rois:
        typer.echo(
            f"read {report.files} files, {_megabytes(report.source_bytes)} "
            f"({_megabytes(report.raw_bytes)} decoded), of {report.patches} patches "
            f"in {report.rois} ROIs"
        )
    kept = f", {report.kept} ROIs were complete and kept" if report.kept else ""
    typer.echo(
        f"{root}: {len(report.domains)} domains, {report.objects} objects, "
        f"{_megabytes(report.store_bytes)} in {seconds:.1f} s{kept}"
    )


def verify(
    source: Annotated[Path, typer.Argument(help="Folder with the raw files.")],
    root: Annotated[str, typer.Argument(help="Folder or URL of the stores.")],
    domains: Annotated[
        str | None, typer.Option(help="Only these, such as D012-2019,D035-2020.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare every pixel, date and georeference of the raw files with the stores."""
    from converters.flairhub_tree import FlairHubTree
    from converters.verify import verify as run

    started = time.perf_counter()
    with _bar("verifying") as bar:
        report = run(FlairHubTree(source), root, domains=_names(domains), progress=bar)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        for finding in report.findings:
            typer.echo(f"differs: {finding.where}: {finding.what}", err=True)
        typer.echo(_verdict(report, time.perf_counter() - started))
    if not report.passed:
        raise typer.Exit(1)


def _verdict(report: VerificationReport, seconds: float) -> str:
    compared = (
        f"{report.pixels:,} pixels of {report.files} files, {report.dates} dates, "
        f"{report.patches} patches in {report.rois} ROIs and {report.objects} objects "
        f"in {seconds:.1f} s"
    )
    if report.passed:
        return f"identical: {compared}"
    return f"{len(report.findings)} difference(s) in {compared}"
