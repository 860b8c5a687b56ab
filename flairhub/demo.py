"""``flairhub demo``: the whole way on the sample, as the commands that a user would type.

Each step is a command line, printed before it runs; nothing here does their work. What belongs to
the demo alone is the configuration it writes, the picture, and ``demo.json`` with all figures.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flairhub.errors import FlairHubError

LABEL = "cosia"
_MARKER = "demo.json"
_PARTS = ("raw", "store", "run", "maps", "config.yaml", "demo.png", _MARKER)

_CONFIG = """\
# Written by `flairhub demo`: a light model of three modalities, for two minutes on two CPU cores.
data:
  root: store
  modalities: [aerial_rgbi, dem_elev, sentinel2_ts]
  labels: [cosia]
  batch_size: 2
model:
  encoder: mobilenetv3_small_100
  decoder: unet
training:
  output: run
  max_epochs: 1000
  max_steps: {steps}
  validate_every: 1000
  learning_rate: 0.005
  class_balance: 0.5
  accelerator: cpu
"""


class DemoError(FlairHubError, RuntimeError):
    """A step of the demo failed, or its folder holds something else."""


@dataclass
class _Demo:
    directory: Path
    console: Console
    seconds: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)

    def run(self, *words: str, makes: Path | None = None) -> None:
        """Type one command, and note its time and the size of what it makes."""
        self._typed(words, words, makes)

    def ask(self, *words: str, makes: Path | None = None) -> Any:  # noqa: ANN401 - of any shape
        """Type one command with ``--json`` and return its answer."""
        answer = io.StringIO()
        with redirect_stdout(answer):
            self._typed((*words, "--json"), words, makes)
        return json.loads(answer.getvalue())

    def _typed(self, words: tuple[str, ...], shown: tuple[str, ...], makes: Path | None) -> None:
        from flairhub.cli import run

        self.console.print(f"\n[bold]$ flairhub {' '.join(shown)}[/bold]", soft_wrap=True)
        started = time.perf_counter()
        code = run(list(words))
        if code != 0:
            msg = f"`flairhub {' '.join(words)}` ended with exit code {code}."
            raise DemoError(msg)
        name = words[0]
        self.seconds[name] = round(time.perf_counter() - started, 1)
        self.bytes[name] = 0 if makes is None else _size(makes)
        made = f", {_megabytes(self.bytes[name])} in {makes}" if makes else ""
        self.console.print(f"[dim]{self.seconds[name]:.1f} s{made}[/dim]", soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(demo)


def demo(
    directory: Annotated[Path, typer.Argument(help="Folder of all that it makes.")] = Path("demo"),
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 140,
    grid: Annotated[str, typer.Option(metavar="ROWSxCOLS", help="Patches of a ROI.")] = "3x3",
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
) -> None:
    """Go the whole way on a sample: TIFFs, store, catalogue, model, map, picture."""
    console = Console(file=sys.stderr, highlight=False)
    started = time.perf_counter()
    _clear(directory)
    raw, store, run, maps = (directory / name for name in ("raw", "store", "run", "maps"))
    config = directory / "config.yaml"
    go = _Demo(directory, console)
    go.run("sample", str(raw), "--grid", grid, "--seed", str(seed), makes=raw)
    converted = go.ask("convert", str(raw), str(store), makes=store)
    verified = go.ask("verify", str(raw), str(store))
    console.print(f"identical: {verified['pixels']:,} pixels of {verified['files']} files")
    go.run("catalog", "build", str(store), makes=store / "catalog")
    config.write_text(_CONFIG.format(steps=steps), encoding="utf-8")
    go.run("train", str(config), makes=run)
    checkpoint = run / "model.ckpt"
    scores = go.ask("evaluate", str(checkpoint), "--split", "test")[LABEL]
    domain, roi = _held_out(store)
    place = str(store / f"{domain}.zarr")
    predicted = go.ask("predict", str(checkpoint), place, roi, "--out", str(maps), makes=maps)
    picture = directory / "demo.png"
    _draw(place, roi, Path(predicted["zarr"]), picture, predicted)
    total = time.perf_counter() - started
    facts = {
        "seconds": {**go.seconds, "total": round(total, 1)},
        "bytes": go.bytes,
        "files": converted["files"],
        "objects": converted["objects"],
        "tiff_bytes": converted["source_bytes"],
        "raw_bytes": converted["raw_bytes"],
        "store_bytes": converted["store_bytes"],
        "verified": verified,
        "test": scores,
        "map": predicted,
    }
    (directory / _MARKER).write_text(json.dumps(facts, indent=2), encoding="utf-8")
    _report(facts, directory)


def _clear(directory: Path) -> None:
    """Empty a folder that an earlier demo made; refuse any other that is not empty."""
    directory.mkdir(parents=True, exist_ok=True)
    marker = directory / _MARKER
    others = sorted({path.name for path in directory.iterdir()} - set(_PARTS))
    if others or (any(directory.iterdir()) and not marker.exists()):
        found = ", ".join(others[:3]) or "files without a demo.json"
        msg = f"{directory} holds {found}; give the demo a new or empty folder."
        raise DemoError(msg)
    for name in _PARTS[:-1]:
        path = directory / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    marker.write_text("{}", encoding="utf-8")  # until the end: this folder is a demo's


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def _held_out(store: Path) -> tuple[str, str]:
    """Return the largest ROI of the test split."""
    from flairhub.store.access import resolve
    from flairhub.store.tables import list_domains, read_table

    root = resolve(store)
    found = []
    for domain in list_domains(root):
        patches = read_table(root, domain, "patches")
        counts = patches[patches["split"] == "test"].groupby("roi").size()
        found += [(int(count), str(domain), str(roi)) for roi, count in counts.items()]
    if not found:
        msg = f"No ROI of {store} is in the test split; use a larger sample."
        raise DemoError(msg)
    _, domain_name, roi = max(found)
    return domain_name, roi


def _draw(
    url: str, roi: str, prediction: Path, picture: Path, predicted: Mapping[str, Any]
) -> None:
    import xarray as xr

    from flairhub.figures import comparison_figure
    from flairhub.modalities import get_label
    from flairhub.nomenclatures import get_nomenclature
    from flairhub.store.reading import open_roi

    tree = open_roi(url, roi)
    raster, _ = get_label(LABEL)
    image = tree["aerial_rgbi"].to_dataset()["aerial_rgbi"].sel(band=["red", "green", "blue"])
    label = tree[raster.group].to_dataset()[raster.key]
    with xr.open_zarr(prediction) as mapped:
        classes = mapped["classes"].to_numpy()
    scores = predicted["scores"]
    figure = comparison_figure(
        image.to_numpy(),
        label.to_numpy(),
        classes,
        get_nomenclature(LABEL),
        resolution_m=raster.resolution_m,
        title="Land cover of a region that the model has never seen",
        subtitle=(
            f"Synthetic sample, {Path(url).stem} {roi}  ·  "
            f"overall accuracy {scores['accuracy']:.0%}, mean IoU {scores['mean_iou']:.0%}  ·  "
            f"a map of {scores['baseline_class']} alone: {scores['baseline_accuracy']:.0%}, "
            f"{scores['baseline_mean_iou']:.0%}"
        ),
    )
    figure.savefig(picture, pil_kwargs={"optimize": True})


def _report(facts: Mapping[str, Any], directory: Path) -> None:
    console = Console(highlight=False)
    scores = facts["test"]
    table = Table(
        "class", title="\nScores on the test domain, never seen in training", box=None,
        title_justify="left",
    )  # fmt: skip
    for name in ("model", f"all {scores['baseline_class']}"):
        table.add_column(f"{name}, %", justify="right")
    for one in scores["classes"]:
        shares = (f"{100 * one[key]:.1f}" for key in ("iou", "baseline_iou"))
        table.add_row(f"IoU {one['name']}", *shares)
    for name, key in (("mean IoU", "mean_iou"), ("overall accuracy", "accuracy")):
        table.add_row(name, *(f"{100 * scores[k]:.1f}" for k in (key, f"baseline_{key}")))
    console.print(table)
    console.print(
        f"\n{facts['files']} TIFFs, {_megabytes(facts['tiff_bytes'])} "
        f"-> {facts['objects']} objects, {_megabytes(facts['store_bytes'])} "
        f"({facts['store_bytes'] / facts['tiff_bytes']:.2f})"
    )
    for what, path in (
        ("raw files", directory / "raw"),
        ("stores", directory / "store"),
        ("catalogue", directory / "store" / "catalog"),
        ("configuration", directory / "config.yaml"),
        ("model", directory / "run" / "model.ckpt"),
        ("map, Zarr", facts["map"]["zarr"]),
        ("map, COG", facts["map"]["cog"]),
        ("picture", directory / "demo.png"),
        ("all figures", directory / _MARKER),
    ):
        console.print(f"  {what:<14} {path}", soft_wrap=True)
    console.print(f"\nThe whole way took {facts['seconds']['total']:.0f} s.")
