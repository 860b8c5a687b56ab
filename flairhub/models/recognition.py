"""From names and shapes alone to what a file of weights is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flairhub.errors import CheckpointError
from flairhub.models import names as naming
from flairhub.models.flair import recognition as flair
from flairhub.models.identity import Identity, untold_bands, usual_bands
from flairhub.models.ign import recognition as ign
from flairhub.models.published import ModelOptions
from flairhub.models.registry import import_own_blocks
from flairhub.models.weight_files import tensors_in


def identify(
    state: Mapping[str, Any], *, encoder: str | None = None, fusion: str | None = None
) -> Identity:
    """Say which network tensors by name belong to.

    Parameters
    ----------
    state
        A state dict, with the prefix of wrappers or without, or an opened checkpoint that holds
        one; only shapes are read.
    encoder
        Of the images of a network of IGN's form, where names and shapes do not tell: networks of
        timm whose padding alone differs have the same.
    fusion
        Of a network of IGN's form, where several that are registered have such names and shapes.

    Raises
    ------
    CheckpointError
        If it is neither of IGN's form nor a baseline of FLAIR#1 or FLAIR#2, or lacks what decides
        the form, or has another encoder or fusion, or one that is not known.
    """
    import_own_blocks()
    tensors = tensors_in(state, "the state dict")
    _, own = naming.unwrap(tensors)
    shapes = {name: tuple(tensors[full].shape) for name, full in own.items()}
    options: ModelOptions
    notes: tuple[str, ...] = ()
    if naming.modalities_in(shapes) and naming.tasks_in(shapes):
        options, notes = ign.recognise(shapes, encoder, fusion)
    elif flair.is_baseline(shapes):
        options = flair.recognise(shapes)
    else:
        raise CheckpointError(_not_ours(shapes))
    channels = {key: options.bands_of(key) for key in options.modalities}
    bands = usual_bands(channels)
    return Identity.of(options, bands, (*untold_bands(channels, bands), *notes))


def _not_ours(shapes: Mapping[str, tuple[int, ...]]) -> str:
    if found := naming.modalities_in(shapes):
        return (
            f"The file has encoders ({', '.join(found)}) but no main_decoders., so that it does "
            "not tell its class sets: give the model that it is to fit, by id, options or module."
        )
    begin = sorted({name.partition(".")[0] for name in shapes})
    shown = ", ".join(begin[:8]) + (", ..." if len(begin) > 8 else "")
    own = any(name.startswith(("rasters.", "series.", "fusions.")) for name in shapes)
    hint = (
        " They look like those of `flairhub train`, whose checkpoints hold all that is needed: "
        "evaluate, predict and `models export` take them."
    )
    return (
        "These are no weights of a network of IGN's form or of a baseline of FLAIR: expected names "
        f"that begin with encoders. and main_decoders., or seg_model.; found {shown or 'none'}."
        f"{hint if own else ''}"
    )
