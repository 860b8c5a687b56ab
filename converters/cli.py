"""The commands ``flairhub sample``, ``convert`` and ``verify``."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from converters.checksums import VerificationReport
    from converters.selection import Selection

JsonOption = Annotated[bool, typer.Option("--json", help="Print a report for programs.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(sample)
    app.command()(convert)
    app.command()(verify)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _grid(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9][0-9]*)[xX]([1-9][0-9]*)", text)
    if found is None:
        msg = f"{text!r} is not ROWSxCOLS, such as 3x4"
        raise typer.BadParameter(msg, param_hint="'--grid'")
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


class Layout(StrEnum):
    """A raw dataset that the sample can imitate."""

    FLAIR_HUB = "flair-hub"
    FLAIR_HUB_ZIPS = "flair-hub-zips"
    FLAIR_1 = "flair1"
    FLAIR_2 = "flair2"


def sample(
    directory: Annotated[Path, typer.Argument(help="New or empty folder for the raw tree.")],
    domains: Annotated[int, typer.Option(min=1, max=8, help="Domains (department-years).")] = 3,
    rois: Annotated[int, typer.Option(min=1, max=20, help="ROIs in each domain.")] = 2,
    grid: Annotated[
        str, typer.Option(metavar="ROWSxCOLS", help="Patches of the largest ROIs.")
    ] = "3x3",
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    layout: Annotated[Layout, typer.Option(help="Which dataset to imitate.")] = Layout.FLAIR_HUB,
    as_json: JsonOption = False,
) -> None:
    """Write a faithful miniature of IGN's raw files: a synthetic landscape, seen by all sensors."""
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
            layout=layout,
            progress=lambda done, total: bar("", done, total),
        )
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
        return
    typer.echo(
        f"{directory}: {report.domains} domains, {report.rois} ROIs, {report.patches} patches, "
        f"{report.files} files, {_megabytes(report.bytes)} in {time.perf_counter() - started:.1f} s"
    )


SourceArgument = Annotated[
    str, typer.Argument(help="Folder or URL of the raw files, unpacked or in IGN's zips.")
]
RootArgument = Annotated[str, typer.Argument(help="Folder or URL of the stores.")]
DomainsOption = Annotated[str | None, typer.Option(help="Only these, such as D012-2019,D035-2020.")]
YearsOption = Annotated[str | None, typer.Option(help="Only domains of these, such as 2019,2021.")]
RoisOption = Annotated[
    str | None, typer.Option(help="Only these, such as AF-S1-27 or D012-2019/AF-S1-27.")
]
SplitsOption = Annotated[
    str | None, typer.Option(help="Only ROIs with patches in these: train, valid, test.")
]
ModalitiesOption = Annotated[
    str | None, typer.Option(help="Only these, such as aerial_rgbi,dem_elev.")
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Local processes; one a core when absent.")
]
SchedulerOption = Annotated[
    str | None, typer.Option(help="A Dask cluster instead: tcp://10.0.0.1:8786.")
]


class OnError(StrEnum):
    """What to do about raw data that cannot be converted."""

    STOP = "stop"
    SKIP = "skip"


def _selection(
    domains: str | None,
    years: str | None,
    rois: str | None,
    modalities: str | None,
    splits: str | None,
) -> Selection:
    from converters.selection import Selection

    wanted = _names(years)
    try:
        numbers = None if wanted is None else [int(year) for year in wanted]
    except ValueError:
        msg = f"{years!r} is not a list of years, such as 2019,2021"
        raise typer.BadParameter(msg, param_hint="'--years'") from None
    return Selection(_names(domains), numbers, _names(rois), _names(modalities), _names(splits))


def convert(
    source: SourceArgument,
    root: RootArgument,
    domains: DomainsOption = None,
    years: YearsOption = None,
    rois: RoisOption = None,
    modalities: ModalitiesOption = None,
    splits: SplitsOption = None,
    profile: Annotated[
        str, typer.Option(help="Codecs: fast, portable (Zarr v3 core only) or archive (smallest).")
    ] = "fast",
    on_error: Annotated[
        OnError, typer.Option(help="Stop at raw data that are bad, or skip and name them.")
    ] = OnError.STOP,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be read and written; write nothing.")
    ] = False,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Convert raw files into one Zarr store a domain; run again to finish or to add.

    Exit code 3: done, but some raw data were skipped.
    """
    from converters.convert import convert as run
    from converters.open import open_source
    from converters.plan import plan

    selection = _selection(domains, years, rois, modalities, splits)
    if dry_run:
        with _bar("looking") as bar:
            planned = plan(open_source(source), root, selection, profile=profile, progress=bar)
        typer.echo(json.dumps(planned.as_dict(), indent=2) if as_json else str(planned))
        if planned.total.problems:
            raise typer.Exit(3 if on_error is OnError.SKIP else 1)
        return
    started = time.perf_counter()
    with _bar("converting") as bar:
        report = run(
            open_source(source),
            root,
            selection,
            profile=profile,
            skip=on_error is OnError.SKIP,
            workers=workers,
            scheduler=scheduler,
            progress=bar,
        )
    seconds = time.perf_counter() - started
    if as_json:
        typer.echo(json.dumps({**report.as_dict(), "seconds": round(seconds, 2)}))
    else:
        for note in report.notes:
            typer.echo(f"note: {note}", err=True)
        for one in report.skipped:
            typer.echo(f"skipped: {one}", err=True)
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
    if report.skipped:
        raise typer.Exit(3)


def verify(
    places: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE ROOT", help="Raw files and stores; with --checksums ROOT."),
    ],
    domains: DomainsOption = None,
    years: YearsOption = None,
    rois: RoisOption = None,
    splits: SplitsOption = None,
    checksums: Annotated[
        bool, typer.Option("--checksums", help="Only hold every object against its checksum.")
    ] = False,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Part of the patches to compare, drawn at random.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of that draw.")] = 0,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare every pixel, date and georeference of the raw files with the stores.

    With --checksums no raw files are needed: it shows that the stores are what was written.
    """
    from converters.checksums import verify_checksums
    from converters.open import open_source
    from converters.verify import verify as run

    expected = 1 if checksums else 2
    if len(places) != expected:
        msg = f"expected {'ROOT' if checksums else 'SOURCE ROOT'}, got {', '.join(places)}"
        raise typer.BadParameter(msg, param_hint="'SOURCE ROOT'")
    if checksums and share != 1:
        msg = "every object is held against its checksum; share is of comparisons with raw files"
        raise typer.BadParameter(msg, param_hint="'--share'")
    selection = _selection(domains, years, rois, None, splits)
    started = time.perf_counter()
    with _bar("verifying") as bar:
        if checksums:
            report = verify_checksums(
                places[0], selection, workers=workers, scheduler=scheduler, progress=bar
            )
        else:
            report = run(
                open_source(places[0]),
                places[1],
                selection,
                share=share,
                seed=seed,
                workers=workers,
                scheduler=scheduler,
                progress=bar,
            )
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        for finding in report.findings:
            typer.echo(f"differs: {finding.where}: {finding.what}", err=True)
        typer.echo(_verdict(report, time.perf_counter() - started, checksums))
    if not report.passed:
        raise typer.Exit(1)


def _verdict(report: VerificationReport, seconds: float, checksums: bool) -> str:
    objects = f"{report.objects} objects, {_megabytes(report.bytes)}"
    if checksums:
        compared = f"{objects} in {seconds:.1f} s"
    else:
        part = "" if report.share >= 1 else f" ({report.share:.0%} of the patches, at random)"
        compared = (
            f"{report.pixels:,} pixels of {report.files} files{part}, {report.dates} dates, "
            f"{report.patches} patches in {report.rois} ROIs and {objects} in {seconds:.1f} s"
        )
    left_out = f"; {report.skipped} items were skipped by the conversion" if report.skipped else ""
    if report.passed:
        return f"identical: {compared}{left_out}"
    return f"{len(report.findings)} difference(s) in {compared}{left_out}"
