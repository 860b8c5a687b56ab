"""From names and shapes of tensors to the options of a network of IGN's form.

The state dict tells everything that decides its names and shapes. What it cannot tell is said too:
the patch size where every window of a Swin has its full side.
"""

from __future__ import annotations

from flairhub.errors import CheckpointError, UnknownNameError
from flairhub.modalities import get_modality
from flairhub.models import names
from flairhub.models.ign.candidates import Shapes, tell_decoder, tell_encoder, tell_fusion
from flairhub.models.ign.options import IgnOptions, map_channels, task_name
from flairhub.models.zoo import BANDS, SWIN_BASE
from flairhub.nomenclatures import NOMENCLATURES


def recognise(
    shapes: Shapes, encoder: str | None = None, fusion: str | None = None
) -> tuple[IgnOptions, tuple[str, ...]]:
    """Return options, and notes on what the tensors do not tell.

    Parameters
    ----------
    shapes
        Of a state dict's tensors, by name without wrappers.
    encoder, fusion
        Of the images, and of all modalities, where they are known.

    Raises
    ------
    CheckpointError
        If they lack what decides the form, or it is none that is known.
    """
    modalities = {name: _key_of(name) for name in names.modalities_in(shapes)}
    tasks = _tasks(shapes)
    if not tasks:
        msg = "The file lacks the last layers of main_decoders; is it complete?"
        raise CheckpointError(msg)
    images = [name for name, key in modalities.items() if not get_modality(key).temporal]
    encoders = {
        name: tell_encoder(
            _under(shapes, f"encoders.{name}."), get_modality(modalities[name]).patch_px, encoder
        )
        for name in images
    }
    if len({found.name for found in encoders.values()}) > 1:
        listed = ", ".join(f"{name} {found.name}" for name, found in encoders.items())
        msg = f"Encoders of images differ: {listed}. A network of IGN's form has one for all."
        raise CheckpointError(msg)
    channels = {
        modalities[n]: encoders[n].bands if n in encoders else _series_bands(shapes, n)
        for n in modalities
    }
    told = {modalities[name]: found.size for name, found in encoders.items() if found.size}
    notes = [
        f"The file does not tell the patch size of {modalities[name]}; "
        f"taken as {get_modality(modalities[name]).patch_px} px."
        for name, found in encoders.items()
        if found.size is None and found.name.startswith("swin")
    ]
    options = IgnOptions(
        modalities=tuple(modalities.values()),
        tasks=tasks,
        bands={k: n for k, n in channels.items() if n != len(BANDS.get(k, ()))},
        sizes={k: n for k, n in told.items() if n != get_modality(k).patch_px},
        aux=tuple(dict.fromkeys(modalities[n] for n in _auxiliary(shapes) if n in modalities)),
        encoder=encoders[images[0]].name if images else SWIN_BASE,
        decoder=_decoder(shapes, encoders[images[0]].channels) if images else "upernet",
    )
    found = {modalities[name]: one.channels for name, one in encoders.items()}
    reference = options.images[0] if images else None
    fusion = tell_fusion(shapes, map_channels(options, found), reference, fusion)
    return options.changed(fusion=fusion), tuple(notes)


def _key_of(name: str) -> str:
    try:
        return get_modality(name).key
    except UnknownNameError as error:
        msg = f"The file has an encoder of {name!r}, which is no modality. {error}"
        raise CheckpointError(msg) from None


def _under(shapes: Shapes, prefix: str) -> dict[str, tuple[int, ...]]:
    return {k.removeprefix(prefix): s for k, s in shapes.items() if k.startswith(prefix)}


def _tasks(shapes: Shapes) -> dict[str, int]:
    """Return the number of classes by class set, from the last layers."""
    keys = {task_name(key): key for key in NOMENCLATURES}
    result = {}
    for task in names.tasks_in(shapes):
        for last in ("seg_model.segmentation_head.0.weight", "weight"):
            if shape := shapes.get(f"main_decoders.{task}.{last}"):
                result[keys.get(task, task)] = shape[0]
    return result


def _auxiliary(shapes: Shapes) -> list[str]:
    return [k.split(".")[1].partition("__")[0] for k in shapes if names.is_auxiliary(k)]


def _series_bands(shapes: Shapes, modality: str) -> int:
    name = f"encoders.{modality}.in_conv.conv.conv.0.weight"
    if name not in shapes:
        msg = f"The file lacks the first layer of {modality}, {name}; is it complete?"
        raise CheckpointError(msg)
    return shapes[name][1]


def _decoder(shapes: Shapes, channels: tuple[int, ...]) -> str:
    task = next(name for name in names.tasks_in(shapes))
    return tell_decoder(_under(shapes, f"main_decoders.{task}."), channels)
