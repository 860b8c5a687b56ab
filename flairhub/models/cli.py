"""The commands ``flairhub models list``, ``show``, ``import`` and ``export``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flairhub.models.zoo import CARDS, ModelCard, get_card

if TYPE_CHECKING:
    from flairhub.models.drawing import Drawn
    from flairhub.models.identity import Identity

Encoder = Annotated[
    str | None, typer.Option(help="Encoder of the images where the weights do not tell.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    models = typer.Typer(
        name="models", help="Models: list, draw, import weights, export.", no_args_is_help=True
    )
    models.command("list")(list_models)
    models.command("show")(show)
    models.command("import")(import_weights)
    models.command("export")(export_model)
    app.add_typer(models)


def list_models(as_json: AsJson = False) -> None:
    """List the published models: inputs, parameters, published scores, licence."""
    if as_json:
        typer.echo(json.dumps([_plain(card) for card in CARDS.values()], indent=2))
        return
    table = Table(box=None)
    table.add_column("id", no_wrap=True)
    table.add_column("predicts")
    table.add_column("from", min_width=17)
    for name in ("million", "OA %", "mIoU %"):
        table.add_column(name, justify="right")
    table.add_column("licence", no_wrap=True)
    for card in CARDS.values():
        exact = card.parameters.all_no_aux
        millions = card.parameters.published_millions or (exact / 1e6 if exact else None)
        table.add_row(
            card.id,
            ", ".join(card.tasks),
            ", ".join(card.modalities),
            _number(millions),
            _number(card.oa),
            _number(card.miou),
            card.licence,
        )
    console = Console(highlight=False)
    console.print(table)
    console.print("Scores as published; `flairhub models show ID` says where, and what disagrees.")


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A published model, such as LC-A; or weights (hf://... too), a checkpoint or a "
            "configuration.",
        ),
    ],
    depth: Annotated[int, typer.Option(min=0, max=12, help="Levels of modules.")] = 3,
    encoder: Encoder = None,
    as_json: AsJson = False,
) -> None:
    """Show a model: what is published of it, and its modules with shapes and parameters."""
    from flairhub.models.drawing import draw, draw_network
    from flairhub.models.published import options_of

    card = None
    if Path(name).is_file() or Path(name).suffix or "/" in name:  # no id has either
        from flairhub.models.opening import open_model

        opened = open_model(name, encoder=encoder)
        drawn = draw_network(opened.network, opened.signature, depth=depth)
    else:
        card = get_card(name)
        drawn = draw(options_of(card, **({"encoder": encoder} if encoder else {})), depth=depth)
    if as_json:
        about = _plain(card) if card else {"source": name}
        typer.echo(json.dumps({**about, "network": drawn.to_plain()}, indent=2))
        return
    console = Console(highlight=False)
    if card:
        _print_card(console, card)
    console.print(_drawing(drawn))


def export_model(
    source: Annotated[
        str,
        typer.Argument(help="A checkpoint of `train`, weights, a published id, or hf://..."),
    ],
    out: Annotated[Path, typer.Option(help="NAME.onnx, or NAME.pt2 for torch.export.load.")],
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Side of the scores in pixels; else that of the finest input."),
    ] = None,
    encoder: Encoder = None,
    as_json: AsJson = False,
) -> None:
    """Write a model for other programs: any number of samples and dates; run and compare it."""
    from flairhub.models.export import check_path, export
    from flairhub.models.opening import open_model

    check_path(out)  # before anything is fetched
    opened = open_model(source, encoder=encoder)
    sized = replace(opened.signature, size=(size, size) if size else None)
    written = export(opened.network, out, sized)
    if as_json:
        typer.echo(json.dumps(written.to_plain(), indent=2))
        return
    console = Console(highlight=False, markup=False)
    plain = written.to_plain()
    grid = Table.grid(padding=(0, 2))
    for kind, what in (("takes", "inputs"), ("gives", "outputs")):
        for one in plain[what]:
            axes = " × ".join(map(str, one["axes"]))
            grid.add_row(kind, one["name"], axes, one.get("dtype"), one.get("meaning", "scores"))
    console.print(grid)
    console.print(
        f"{written.path}: {written.path.stat().st_size / 1e6:,.1f} MB; scores of other numbers of "
        f"samples and dates differ from the model's by {written.difference:.1e} of the greatest",
        soft_wrap=True,
    )


def import_weights(
    file: Annotated[
        str, typer.Argument(help="Safetensors, a Lightning checkpoint or state dict, or hf://...")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Write them here in our format: NAME.safetensors.")
    ] = None,
    bands: Annotated[
        list[str] | None,
        typer.Option(help="Bands of a modality where the file does not tell: KEY=red,green,blue."),
    ] = None,
    encoder: Encoder = None,
    fusion: Annotated[
        str | None, typer.Option(help="Fusion where several have such names and shapes.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the weights are called.")] = None,
    licence: Annotated[str | None, typer.Option(help="Their licence, such as etalab-2.0.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say which published model and options weights fit; write them with their metadata."""
    from flairhub.models.loading import open_source
    from flairhub.models.saving import save

    opened = open_source(file)
    identity = opened.identify(encoder, fusion).with_bands(_parse_bands(bands or []))
    if (name or licence) and not out:
        msg = "they are written with the weights: give --out"
        raise typer.BadParameter(msg, param_hint="--name, --licence")
    about: dict[str, Any] = {"source": opened.name, "published": opened.card}
    saved = (
        save(opened.tensors, out, identity, name=name, licence=licence, **about) if out else None
    )
    if as_json:
        content = identity.to_plain()
        if saved:
            content |= {
                "weights": str(saved.weights),
                "item": str(saved.item),
                "left_over": saved.plan.left_over,
                "fresh": saved.plan.fresh,
            }
        typer.echo(json.dumps(content, indent=2))
        return
    console = Console(highlight=False)
    _print_identity(console, opened.name, identity)
    if saved:
        console.print(f"{len(saved.plan.loaded)} tensors: {saved.weights}", soft_wrap=True)
        for name, why in saved.plan.left_over.items():
            console.print(f"  left out {name}: {why}", soft_wrap=True)
        console.print(f"STAC item: {saved.item}", soft_wrap=True)


def _parse_bands(texts: list[str]) -> dict[str, list[str]]:
    result = {}
    for text in texts:
        key, sign, names = text.partition("=")
        if not sign or not names:
            msg = f"expected KEY=BAND,BAND; got {text!r}"
            raise typer.BadParameter(msg, param_hint="--bands")
        result[key] = names.split(",")
    return result


def _plain(card: ModelCard) -> dict[str, Any]:
    """Return a card as JSON has it."""
    sizes, scores = card.parameters, card.scores
    return {
        "id": card.id,
        "family": card.family,
        "modalities": list(card.modalities),
        "source_names": list(card.source_names),
        "tasks": dict(zip(card.tasks, card.classes, strict=True)),
        "bands": {key: list(names) for key, names in card.bands.items()},
        "encoder": card.encoder,
        "decoder": card.decoder,
        "parameters": {name: getattr(sizes, name) for name in sizes.__slots__},
        "scores": [{name: getattr(s, name) for name in s.__slots__} for s in scores],
        "weights": [
            {
                "repository": w.repository,
                "encoder": w.encoder,
                "bands": {key: list(names) for key, names in w.bands.items()},
                "revision": w.revision,
                "sha256": w.sha256,
            }
            for w in card.weights
        ],
        "notes": list(card.notes),
        "licence": card.licence,
    }


def _print_card(console: Console, card: ModelCard) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_row("[bold]" + card.id, f"{card.family}, {card.licence}")
    for key in card.modalities:
        grid.add_row(key, ", ".join(card.bands[key]))
    for task, classes in zip(card.tasks, card.classes, strict=True):
        grid.add_row(f"to {task}", f"{classes} classes")
    if card.encoder:
        grid.add_row("network", f"{card.encoder}, {card.decoder}")
    exact = card.parameters.all_no_aux
    published = card.parameters.published_millions
    sizes = [f"{published} million published"] if published else []
    sizes += [f"{exact:,} without auxiliary decoders"] if exact else []
    grid.add_row("parameters", "; ".join(sizes) or "not published")
    for score in card.scores:
        figures = [f"mIoU {score.miou}" + (f" ± {score.spread}" if score.spread else "")]
        figures += [f"OA {score.oa}"] if score.oa is not None else []
        setting = f" {score.setting}" if score.setting else ""
        grid.add_row(score.test_set, f"{', '.join(figures)}{setting} ({score.source})")
    for weights in card.weights:
        grid.add_row("weights", f"hf://{weights.repository} ({weights.encoder})")
    for note in card.notes:
        grid.add_row("note", note)
    console.print(grid)


def _print_identity(console: Console, name: str, identity: Identity) -> None:
    plain = identity.to_plain()
    console.print(f"{name} fits [bold]{identity.id or 'no published model'}[/bold]", soft_wrap=True)
    for difference in identity.differences:
        console.print(f"  {difference}")
    grid = Table.grid(padding=(0, 2))
    for key in plain["modalities"]:
        told = ", ".join(plain["bands"].get(key, ())) or f"{plain['channels'][key]} channels"
        grid.add_row(f"  {key}", f"{told}; {plain['sizes'][key]} px")
    for task, classes in plain["tasks"].items():
        grid.add_row(f"  to {task}", f"{classes} classes")
    if plain["encoder"]:
        grid.add_row("  network", f"{plain['encoder']}, {plain['decoder']}")
    if plain["fusion"] and len(plain["modalities"]) > 1:
        grid.add_row("  fusion", plain["fusion"])
    if plain["aux"]:
        grid.add_row("  auxiliary", ", ".join(plain["aux"]))
    console.print(grid)
    for note in identity.notes:
        console.print(f"  {note}")


def _drawing(drawn: Drawn) -> Table:
    """Return a drawing as a table, a row a module."""
    table = Table(box=None)
    rows = [("  " * level + (one.name or "network"), one) for level, one in drawn.walk()]
    table.add_column("module", min_width=max(len(name) for name, _ in rows))
    for name in ("kind", "weight", "returns"):
        table.add_column(name, overflow="fold")
    table.add_column("parameters", justify="right", no_wrap=True)
    for name, one in rows:
        table.add_row(
            name,
            one.kind,
            _shape(one.weight) if one.weight else "",
            "unused" if one.unused else ", ".join(map(_shape, one.shapes)),
            f"{one.parameters:,}" if one.parameters else "",
        )
    return table


def _shape(sizes: tuple[int, ...]) -> str:
    return "×".join(map(str, sizes))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
