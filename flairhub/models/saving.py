"""Weights in the project's format: safetensors that tell what they are, and an item beside them.

The header of the file holds, as JSON texts, ``flairhub`` (the options of the network and the bands
behind its channels, which `flairhub.models.load` reads back) and ``mlm`` (the fields of the STAC
extension for models). ``NAME.json`` beside ``NAME.safetensors`` is a STAC item with the same.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flairhub.errors import CheckpointError, UnknownNameError, did_you_mean
from flairhub.models import names as naming
from flairhub.models.flair.options import FlairOptions
from flairhub.models.identity import Identity, check_bands
from flairhub.models.ign.decoder import DECODERS
from flairhub.models.ign.fusion import FUSIONS
from flairhub.models.ign.options import IgnOptions
from flairhub.models.matching import Plan, Rules, match
from flairhub.models.mlm import describe, item, valid_name
from flairhub.models.published import ModelOptions, build
from flairhub.models.registry import import_own_blocks
from flairhub.models.weight_files import write_weights
from flairhub.models.weights import fit_or_raise
from flairhub.models.zoo import ModelCard

FORMAT = 1
"""Version of the header; readers refuse newer ones."""

_FORMS: Mapping[str, type[IgnOptions] | type[FlairOptions]] = {
    "flair-hub": IgnOptions,
    "flair": FlairOptions,
}
_OF_TRAINING = ("checkpointing", "pretrained")


@dataclass(frozen=True)
class Saved:
    """What `save` wrote.

    Parameters
    ----------
    weights, item
        The two files.
    plan
        What became of the tensors; those that no network has are not in the file.
    """

    weights: Path
    item: Path
    plan: Plan


def save(
    tensors: Mapping[str, Tensor],
    path: str | Path,
    identity: Identity,
    *,
    source: str | None = None,
    published: ModelCard | None = None,
    name: str | None = None,
    licence: str | None = None,
) -> Saved:
    """Write weights with what they are, after checking that they fit it.

    Parameters
    ----------
    tensors
        A state dict, with the prefix of wrappers or without; class weights of a loss are left out.
    path
        Where to, ``NAME.safetensors``; the item becomes ``NAME.json``.
    identity
        What the weights are.
    source
        Where they come from, as people should read it.
    published
        The published model that they are known to be, whose id and licence they then have; weights
        of one's own that only fit it have neither.
    name, licence
        What the weights are called and their licence (an SPDX id), in place of what `identity` or
        `published` tells; without any the name is that of the file.

    Raises
    ------
    WeightsError
        If the tensors are not those of the network that `identity` says.
    CheckpointError
        If `path` does not end in ``.safetensors``.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        msg = f"{path} must end in .safetensors."
        raise CheckpointError(msg)
    _, own = naming.unwrap(tensors)
    file = {name: tensors[full] for name, full in own.items()}
    with torch.device("meta"):
        model = build(identity.options)
    plan = match(file, model.state_dict(), Rules())
    fit_or_raise(plan, source or "the state dict")
    parameters = sum(p.numel() for p in model.parameters())
    properties = describe(
        identity, name=path.stem, parameters=parameters, source=source, published=published
    )
    properties |= {"mlm:name": valid_name(name)} if name else {}
    properties |= {"license": licence} if licence else {}
    header = {
        "format": "pt",
        "flairhub": json.dumps({"format": FORMAT, **_plain(identity)}),
        "mlm": json.dumps(properties),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_weights(path, {name: file[name] for name in plan.loaded}, header)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    beside = path.with_suffix(".json")
    content = item(path.stem, properties, path.name, path.stat().st_size, digest)
    partial = beside.with_name(f".{beside.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
    partial.replace(beside)
    return Saved(path, beside, plan)


def read_header(metadata: Mapping[str, str]) -> Identity | None:
    """Return what a file of the project's format says it is; None for other files.

    Raises
    ------
    CheckpointError
        If the header is damaged, or of a newer version.
    """
    text = metadata.get("flairhub")
    if text is None:
        return None
    try:
        content = json.loads(text)
        if content["format"] > FORMAT:
            msg = (
                f"The file is of format {content['format']}; this flairhub reads up to {FORMAT}. "
                "Install a newer one."
            )
            raise CheckpointError(msg)
        given: dict[str, Any] = content["options"]
        frozen: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        form = _FORMS[content.get("form", "flair-hub")]
        options: ModelOptions = form(**frozen)
        _check_blocks(options)
        bands = {key: tuple(found) for key, found in content["bands"].items()}
        for key, found in bands.items():
            check_bands(key, found)
    except (ValueError, KeyError, TypeError, AttributeError, UnknownNameError) as error:
        if isinstance(error, CheckpointError):
            raise
        msg = f"The header 'flairhub' of the file is damaged: {error}."
        raise CheckpointError(msg) from error
    return replace(Identity.of(options, bands), described=_described(metadata))


def _described(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of the extension for models in a header; none where it lacks them."""
    try:
        content = json.loads(metadata.get("mlm", "{}"))
    except ValueError as error:
        msg = f"The header 'mlm' of the file is damaged: {error}."
        raise CheckpointError(msg) from error
    if not isinstance(content, dict):
        msg = f"The header 'mlm' of the file is damaged: expected fields, got {content!r}."
        raise CheckpointError(msg)
    return content


def _check_blocks(options: ModelOptions) -> None:
    """Refuse blocks of the user's own that are not registered here."""
    import_own_blocks()
    for what, known in (("fusion", FUSIONS), ("decoder", DECODERS)):
        name = getattr(options, what, None)
        if isinstance(options, IgnOptions) and name not in known:
            msg = (
                f"The network of the file has a {what} {name!r}, which is not known here. "
                f"{did_you_mean(str(name), known)} Enter it in flairhub.models.ign.{what}."
                f"{what.upper()}S before, as the file that FLAIRHUB_BLOCKS names can."
            )
            raise CheckpointError(msg)


def _plain(identity: Identity) -> dict[str, Any]:
    """Return what the header keeps: what `build` needs, and the bands."""
    options = {
        f.name: dict(value) if isinstance(value, Mapping) else value
        for f in fields(identity.options)
        if f.name not in _OF_TRAINING
        for value in [getattr(identity.options, f.name)]
    }
    (form,) = (name for name, kind in _FORMS.items() if isinstance(identity.options, kind))
    return {"form": form, "options": options, "bands": dict(identity.bands)}
