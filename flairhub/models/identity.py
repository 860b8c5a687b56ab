"""From names and shapes alone to what a file of weights is: inputs, classes, encoder, decoder.

The state dict of a network of IGN's form tells everything that decides its names and shapes. What
it cannot tell is said too: the bands behind equally many channels, and the patch size where every
window of a Swin has its full side.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from flairhub.errors import CheckpointError, UnknownNameError
from flairhub.modalities import get_modality
from flairhub.models import names as naming
from flairhub.models.ign.options import IgnOptions, task_name
from flairhub.models.ign.swin import SIZES
from flairhub.models.zoo import BANDS, CARDS, SWIN_BASE, ModelCard
from flairhub.nomenclatures import NOMENCLATURES

Shapes = Mapping[str, tuple[int, ...]]

_CONVNEXT_V2: Mapping[tuple[int, tuple[int, ...]], str] = {
    (40, (2, 2, 6, 2)): "atto",
    (48, (2, 2, 6, 2)): "femto",
    (64, (2, 2, 6, 2)): "pico",
    (80, (2, 2, 8, 2)): "nano",
    (96, (3, 3, 9, 3)): "tiny",
    (96, (3, 3, 27, 3)): "small",
    (128, (3, 3, 27, 3)): "base",
    (192, (3, 3, 27, 3)): "large",
    (352, (3, 3, 27, 3)): "huge",
}
"""timm's sizes by width of the first stage and blocks a stage."""

_RESNET: Mapping[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
"""By whether blocks have three convolutions, and blocks a stage."""

_TRAINED_AT = {("tiny", 7): 224, ("small", 7): 224, ("base", 7): 224, ("large", 7): 224,
               ("base", 12): 384, ("large", 12): 384}  # fmt: skip
"""Image sides in timm's names of Swins, by size and window."""

_UNTOLD = "The file does not tell the bands of "


@dataclass(frozen=True)
class Identity:
    """What a file of weights fits.

    Parameters
    ----------
    options
        What `flairhub.models.build` makes the same network of.
    card
        The published model with the same inputs and class sets, or None.
    differences
        How `options` differ from those of `card`, as sentences.
    bands
        Channels by modality; empty where their number fits no known choice.
    notes
        What the file does not tell and was taken from the registry.
    """

    options: IgnOptions
    card: ModelCard | None
    differences: tuple[str, ...] = ()
    bands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        options: IgnOptions,
        bands: Mapping[str, tuple[str, ...]],
        notes: tuple[str, ...] = (),
    ) -> Identity:
        """Return what options and bands are among the published models."""
        card = _card(options)
        return cls(options, card, _differences(options, card), bands, notes)

    @property
    def id(self) -> str | None:
        """Id of the published model, or None."""
        return self.card.id if self.card else None

    def with_bands(self, bands: Mapping[str, Iterable[str]]) -> Identity:
        """Return the same with bands that the user knows.

        Raises
        ------
        UnknownNameError
            If a modality or band does not exist.
        CheckpointError
            If the file has another number of channels, or not this modality.
        """
        known = dict(self.bands)
        for name, given in bands.items():
            key, chosen = get_modality(name).key, tuple(given)
            check_bands(key, chosen)
            if key not in self.options.modalities:
                msg = (
                    f"Bands are given for {key}; the file has {', '.join(self.options.modalities)}."
                )
                raise CheckpointError(msg)
            if len(chosen) != self.options.bands_of(key):
                msg = (
                    f"The file has {self.options.bands_of(key)} channels of {key}; "
                    f"got {len(chosen)} bands: {', '.join(chosen)}."
                )
                raise CheckpointError(msg)
            known[key] = chosen
        told = tuple(f"{_UNTOLD}{get_modality(name).key}" for name in bands)
        notes = tuple(note for note in self.notes if not note.startswith(told))
        return replace(self, bands=known, notes=notes)

    def to_plain(self) -> dict[str, Any]:
        """Return dicts, lists, strings and numbers alone, for JSON."""
        options = self.options
        return {
            "id": self.id,
            "modalities": list(options.modalities),
            "tasks": dict(options.tasks),
            "bands": {key: list(found) for key, found in self.bands.items()},
            "channels": {key: options.bands_of(key) for key in options.modalities},
            "sizes": {key: options.size_of(key) for key in options.modalities},
            "encoder": options.encoder if options.images else None,
            "decoder": options.decoder if options.images else None,
            "aux": list(options.aux),
            "differences": list(self.differences),
            "notes": list(self.notes),
        }


def check_bands(key: str, bands: Iterable[str]) -> None:
    """Raise `UnknownNameError` unless all are channels of a modality; heights are computed."""
    computed = set(BANDS.get(key, ())) - set(get_modality(key).band_names)
    get_modality(key).band_indexes(band for band in bands if band not in computed)


def identify(state: Mapping[str, Tensor]) -> Identity:
    """Say which network tensors by name belong to.

    Parameters
    ----------
    state
        A state dict, with the prefix of wrappers or without; only shapes are read.

    Raises
    ------
    CheckpointError
        If it is not of IGN's form, or lacks what decides the form.
    """
    _, own = naming.unwrap(state)
    shapes = {name: tuple(state[full].shape) for name, full in own.items()}
    modalities = {name: _key_of(name) for name in naming.modalities_in(shapes)}
    tasks = _tasks(shapes)
    if not modalities or not tasks:
        raise CheckpointError(_not_ours(shapes))
    images = [name for name, key in modalities.items() if not get_modality(key).temporal]
    encoders = {name: _encoder(_under(shapes, f"encoders.{name}.seg_model.")) for name in images}
    if len({found.name for found in encoders.values()}) > 1:
        listed = ", ".join(f"{name} {found.name}" for name, found in encoders.items())
        msg = f"Encoders of images differ: {listed}. A network of IGN's form has one for all."
        raise CheckpointError(msg)
    channels = {modalities[n]: _channels(shapes, n) for n in modalities}
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
        aux=tuple(dict.fromkeys(modalities[name] for name in _auxiliary(shapes))),
        encoder=encoders[images[0]].name if images else SWIN_BASE,
        decoder=_decoder(shapes) if images else "upernet",
    )
    bands = usual_bands(channels)
    return Identity.of(options, bands, (*_untold_bands(channels, bands), *notes))


@dataclass(frozen=True, slots=True)
class _Found:
    name: str
    size: int | None = None


def _key_of(name: str) -> str:
    try:
        return get_modality(name).key
    except UnknownNameError as error:
        msg = f"The file has an encoder of {name!r}, which is no modality. {error}"
        raise CheckpointError(msg) from None


def _under(shapes: Shapes, prefix: str) -> dict[str, tuple[int, ...]]:
    return {k.removeprefix(prefix): s for k, s in shapes.items() if k.startswith(prefix)}


def _not_ours(shapes: Shapes) -> str:
    begin = sorted({name.partition(".")[0] for name in shapes})
    shown = ", ".join(begin[:8]) + (", ..." if len(begin) > 8 else "")
    return (
        "These are no weights of a network of IGN's form: expected names that begin with "
        f"encoders. and main_decoders.; found {shown or 'none'}."
    )


def _tasks(shapes: Shapes) -> dict[str, int]:
    """Return the number of classes by class set, from the last layers."""
    keys = {task_name(key): key for key in NOMENCLATURES}
    result = {}
    for task in naming.tasks_in(shapes):
        for last in ("seg_model.segmentation_head.0.weight", "weight"):
            if shape := shapes.get(f"main_decoders.{task}.{last}"):
                result[keys.get(task, task)] = shape[0]
    return result


def _auxiliary(shapes: Shapes) -> list[str]:
    return [k.split(".")[1].partition("__")[0] for k in shapes if naming.is_auxiliary(k)]


def _channels(shapes: Shapes, modality: str) -> int:
    """Return the input channels of an encoder: those of its first layer, wherever it is listed."""
    found = _under(shapes, f"encoders.{modality}.")
    for name in ("in_conv.conv.conv.0.weight", "seg_model.model.patch_embed.proj.weight",
                 "seg_model.model.stem_0.weight", "seg_model.conv1.weight"):  # fmt: skip
        if shape := found.get(name):
            return shape[1]
    first = next((s for s in found.values() if len(s) == 4), None)
    if first is None:
        msg = f"The encoder of {modality} has no convolution; is the file complete?"
        raise CheckpointError(msg)
    return first[1]


def _encoder(shapes: Shapes) -> _Found:
    """Name an image's encoder in timm's words, from its names without ``seg_model.``."""
    inner = _under(shapes, "model.")
    if "patch_embed.proj.weight" in inner:
        return _swin(inner)
    if "stem_0.weight" in inner and any(".grn." in name for name in inner):
        width = inner["stem_0.weight"][0]
        size = _CONVNEXT_V2.get((width, _depths(inner, r"stages_(\d)\.blocks\.(\d+)\.")))
        if size:
            return _Found(f"convnextv2_{size}")
    if "conv1.weight" in shapes and "layer1.0.conv1.weight" in shapes:
        deep = "layer1.0.conv3.weight" in shapes
        if name := _RESNET.get((deep, _depths(shapes, r"layer(\d)\.(\d+)\."))):
            return _Found(name)
    shown = ", ".join(list(shapes)[:3])
    msg = (
        f"The encoder is none of the known ones (Swin, ConvNeXtV2, ResNet): {shown}, ... Build the "
        "model with flairhub.models.build(encoder=...) and load the weights into it."
    )
    raise CheckpointError(msg)


def _swin(shapes: Shapes) -> _Found:
    width = shapes["patch_embed.proj.weight"][0]
    depths = _depths(shapes, r"layers_(\d)\.blocks\.(\d+)\.")
    size = next((k for k, s in SIZES.items() if (s.width, s.depths) == (width, depths)), None)
    sides = [
        (math.isqrt(shapes[f"layers_{i}.blocks.0.attn.relative_position_bias_table"][0]) + 1) // 2
        for i in range(len(depths))
    ]
    window = 7 if max(sides) <= 7 else 12
    trained = _TRAINED_AT.get((size or "", window))
    if trained is None or max(sides) > window:
        msg = f"A Swin of width {width}, blocks {depths} and windows of {max(sides)} is not known."
        raise CheckpointError(msg)
    # a stage whose map is smaller than the window has one window of the map's side
    clamped = next((4 * 2**i * side for i, side in enumerate(sides) if side < window), None)
    return _Found(f"swin_{size}_patch4_window{window}_{trained}", clamped)


def _depths(shapes: Shapes, pattern: str) -> tuple[int, ...]:
    found = {(int(m[1]), int(m[2])) for name in shapes if (m := re.match(pattern, name))}
    stages = sorted({stage for stage, _ in found})
    return tuple(sum(stage == s for s, _ in found) for stage in stages)


def _decoder(shapes: Shapes) -> str:
    found = [n.partition(".decoder.")[2] for n in shapes if naming.task_of(n) and ".decoder." in n]
    if any(name.startswith("feature_norms.") for name in found):
        msg = (
            "The decoder is UPerNet as segmentation-models-pytorch has it since 0.5; published "
            "weights have the one before (0.4.0), and neither can be converted into the other."
        )
        raise CheckpointError(msg)
    if any(name.startswith("psp.blocks.") for name in found):
        return "upernet"
    if any(re.match(r"blocks\.\d+\.conv1\.0", name) for name in found):
        return "unet"
    shown = ", ".join(found[:3]) or "nothing"
    msg = (
        f"The decoder is neither UPerNet nor Unet: {shown}, ... Build the model with "
        "flairhub.models.build(decoder=...) and load the weights into it."
    )
    raise CheckpointError(msg)


def usual_bands(channels: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """Return the bands behind so many channels: IGN's choice, or all; nothing for other numbers."""
    result = {}
    for key, number in channels.items():
        for choice in (BANDS.get(key, ()), get_modality(key).band_names):
            if len(choice) == number:
                result[key] = choice
                break
    return result


def _untold_bands(
    channels: Mapping[str, int], bands: Mapping[str, tuple[str, ...]]
) -> Iterable[str]:
    for key, number in channels.items():
        if key not in bands:
            yield f"{_UNTOLD}{key}: {number} channels are no known choice."
        elif bands[key] != get_modality(key).band_names:
            yield f"{_UNTOLD}{key}; taken as {', '.join(bands[key])}."


def _card(options: IgnOptions) -> ModelCard | None:
    for card in CARDS.values():
        same = set(card.modalities) == set(options.modalities) and set(card.tasks) == set(
            options.tasks
        )
        if card.family == "flair-hub" and same:
            return card
    return None


def _differences(options: IgnOptions, card: ModelCard | None) -> tuple[str, ...]:
    """Say how options differ from a published model's."""
    if card is None:
        return ()
    published = IgnOptions.of(card)
    found = []
    for what in ("encoder", "decoder"):
        if options.images and getattr(options, what) != getattr(published, what):
            found.append(f"{what} {getattr(options, what)} in place of {getattr(published, what)}")
    for task, number in options.tasks.items():
        if number != published.tasks[task]:
            found.append(f"{number} classes of {task} in place of {published.tasks[task]}")
    for key in options.modalities:
        for what, of in (("channels", IgnOptions.bands_of), ("px a patch", IgnOptions.size_of)):
            if of(options, key) != of(published, key):
                found.append(f"{of(options, key)} {what} of {key} in place of {of(published, key)}")
    return tuple(found)
