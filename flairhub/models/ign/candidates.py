"""Which encoder and decoder tensors belong to, by comparing them with those that can be built.

Swin, ConvNeXtV2 and ResNets are guessed from their sizes. Any other encoder is looked for among
those of segmentation-models-pytorch: one of every family is built on the device ``meta``, and all
of the families whose names are near. timm's are too many for that (minutes) and often differ in
padding alone (``efficientnet_b0``, ``tf_efficientnet_b0``): the user names them, and they are
compared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from torch import nn

from flairhub.errors import CheckpointError, ConfigError
from flairhub.models import names
from flairhub.models.ign.decoder import DECODERS, MapDecoder
from flairhub.models.ign.encoder import MonoEncoder
from flairhub.models.ign.fusion import FUSIONS
from flairhub.models.ign.swin import SIZES

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

_NEAR = 0.5
"""Share of names, numbers aside, that families have in common with a file to be looked into."""

_BY_HAND = (
    "Say which it is: identify(..., encoder=NAME), or `flairhub models import --encoder NAME`; or "
    "build the model with flairhub.models.build(encoder=...) and load the weights into it."
)


@dataclass(frozen=True, slots=True)
class Found:
    """An encoder of an image.

    Parameters
    ----------
    name
        As `flairhub.models.ign.options.IgnOptions` has it.
    bands
        Channels of the image.
    channels
        Of its maps, as `MonoEncoder` has them.
    size
        Side of the images that it is made for, pixels, where its tensors tell.
    """

    name: str
    bands: int
    channels: tuple[int, ...]
    size: int | None = None


def tell_encoder(shapes: Shapes, side: int, name: str | None = None) -> Found:
    """Say which encoder an image's tensors belong to.

    Parameters
    ----------
    shapes
        Of the tensors, by name below the modality's: ``seg_model.*``.
    side
        Of patches of the modality, pixels, which shapes of some networks depend on.
    name
        Of the encoder, where it is known.

    Raises
    ------
    CheckpointError
        If no encoder has such tensors, or more than one, or not the one named.
    """
    guess, size = _guess({n.removeprefix("seg_model."): s for n, s in shapes.items()})
    chosen = name or guess
    made = _make(chosen, size or side, named=name is not None) if chosen else None
    if chosen and made and (found := _compare(shapes, chosen, made, size)):
        return found
    if name and made:
        msg = f"The file's encoder is no {name}: {_first_difference(shapes, made)}. {_BY_HAND}"
        raise CheckpointError(msg)
    fitting = list(_search(shapes, side))
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        listed = ", ".join(found.name for found in fitting)
        msg = f"The encoder is one of {listed}, of the same names and shapes. {_BY_HAND}"
        raise CheckpointError(msg)
    shown = ", ".join([n.removeprefix("seg_model.") for n in shapes][:3])
    msg = (
        "The encoder is none of those that are told by themselves (Swin, ConvNeXtV2, all of "
        f"segmentation-models-pytorch): {shown}, ... {_BY_HAND}"
    )
    raise CheckpointError(msg)


def tell_decoder(shapes: Shapes, channels: tuple[int, ...]) -> str:
    """Say which decoder tensors belong to.

    Parameters
    ----------
    shapes
        Of the tensors of one class set, by name below its own: ``seg_model.*``.
    channels
        Of the encoder's maps.

    Raises
    ------
    CheckpointError
        If it is none that can be built.
    """
    if any(name.startswith("seg_model.decoder.feature_norms.") for name in shapes):
        msg = (
            "The decoder is UPerNet as segmentation-models-pytorch has it since 0.5; published "
            "weights have the one before (0.4.0), and neither can be converted into the other."
        )
        raise CheckpointError(msg)
    given = _essential(shapes)
    classes = next((s[0] for n, s in given.items() if "segmentation_head" in n), 1)
    for name in DECODERS:
        try:
            with torch.device("meta"):
                expected = _shapes_of(MapDecoder(name, channels, classes))
        except ConfigError:  # not on such maps
            continue
        full = {f"main_decoders.X.{n}": n for n in expected}
        unused = {full[n] for n in names.dead_parameters(full)}  # files may lack these
        if given == {n: s for n, s in expected.items() if n in given or n not in unused}:
            return name
    shown = ", ".join([n for n in shapes if ".decoder." in n][:3]) or "nothing"
    msg = (
        f"The decoder, on maps of {channels} channels, is none of {', '.join(DECODERS)}: {shown}, "
        "... One of your own must be entered in flairhub.models.ign.decoder.DECODERS before."
    )
    raise CheckpointError(msg)


def tell_fusion(
    shapes: Shapes, channels: Mapping[str, tuple[int, ...]], reference: str | None, name: str | None
) -> str:
    """Say which fusion tensors belong to.

    Parameters
    ----------
    shapes
        Of all tensors, by name without wrappers.
    channels, reference
        See `flairhub.models.ign.fusion.FusionMaker`.
    name
        Of the fusion, where it is known.

    Raises
    ------
    CheckpointError
        If none that is registered has such tensors, or more than one, or not the one named.
    """
    given = {n: s for n, s in shapes.items() if n.startswith("fusion_handler.")}
    fitting = []
    for one, make in FUSIONS.items():
        try:
            with torch.device("meta"):
                made = _shapes_of(make(channels, reference))
        except Exception:  # each one's own, that is only tried
            continue
        expected = {f"fusion_handler.{n}": s for n, s in made.items()}
        unused = names.dead_parameters([*shapes, *expected])  # files may lack these
        if _essential(given) == {
            n: s for n, s in expected.items() if n in given or n not in unused
        }:
            fitting.append(one)
    if name is None and (len(channels) == 1 or reference is None):  # it lies idle
        return (*fitting, "concat")[0]
    for one in fitting:
        if one == name or (name is None and len(fitting) == 1):
            return one
    shown = ", ".join(list(given)[:3]) or "no tensors"
    known = f"those registered are {', '.join(FUSIONS)}"
    if name is not None:
        what = f"The file's fusion is not {name!r}: {shown}; {known}."
    elif fitting:
        what = f"The fusion is one of {', '.join(fitting)}, of the same names and shapes."
    else:
        what = f"The file's fusion is not known: {shown}; {known}."
    msg = (
        f"{what} Say which it is by identify(..., fusion=NAME) or `flairhub models import --fusion "
        "NAME`; enter one of your own in flairhub.models.ign.fusion.FUSIONS before, as the file "
        "that FLAIRHUB_BLOCKS names can."
    )
    raise CheckpointError(msg)


def _guess(shapes: Shapes) -> tuple[str | None, int | None]:
    """Guess the encoders that IGN offers from widths and depths; also the size of their images."""
    inner = {n.removeprefix("model."): s for n, s in shapes.items() if n.startswith("model.")}
    if "patch_embed.proj.weight" in inner and "layers_0.blocks.0.attn.qkv.weight" in inner:
        return _swin(inner)
    if "stem_0.weight" in inner and any(".grn." in name for name in inner):
        width = inner["stem_0.weight"][0]
        size = _CONVNEXT_V2.get((width, _depths(inner, r"stages_(\d)\.blocks\.(\d+)\.")))
        return (f"convnextv2_{size}" if size else None), None
    deep = "layer1.0.conv3.weight" in shapes
    return _RESNET.get((deep, _depths(shapes, r"layer(\d)\.(\d+)\."))), None


def _swin(shapes: Shapes) -> tuple[str | None, int | None]:
    width = shapes["patch_embed.proj.weight"][0]
    depths = _depths(shapes, r"layers_(\d)\.blocks\.(\d+)\.")
    size = next((k for k, s in SIZES.items() if (s.width, s.depths) == (width, depths)), None)
    tables = [
        shapes.get(f"layers_{i}.blocks.0.attn.relative_position_bias_table")
        for i in range(len(depths))
    ]
    if not all(tables):  # Swin V2 computes its biases
        return None, None
    sides = [(math.isqrt(table[0]) + 1) // 2 for table in tables if table]
    window = 7 if max(sides) <= 7 else 12
    trained = _TRAINED_AT.get((size or "", window))
    if trained is None or max(sides) > window:
        return None, None
    # a stage whose map is smaller than the window has one window of the map's side
    clamped = next((4 * 2**i * side for i, side in enumerate(sides) if side < window), None)
    return f"swin_{size}_patch4_window{window}_{trained}", clamped


def _depths(shapes: Shapes, pattern: str) -> tuple[int, ...]:
    found = {(int(m[1]), int(m[2])) for name in shapes if (m := re.match(pattern, name))}
    stages = sorted({stage for stage, _ in found})
    return tuple(sum(stage == s for s, _ in found) for stage in stages)


def _search(shapes: Shapes, side: int) -> Iterator[Found]:
    """Yield every encoder of smp that has tensors of these names and shapes."""
    mine = _patterns(_essential(shapes))
    families: dict[type, list[str]] = {}
    for name, entry in smp_encoders.items():
        families.setdefault(entry["encoder"], []).append(name)
    for family in families.values():
        first = next((made for name in family if (made := _make(name, side))), None)
        theirs = set() if first is None else _patterns(_shapes_of(first))
        if len(mine & theirs) < _NEAR * len(mine | theirs):
            continue
        for name in family:
            made = _make(name, side)
            if made and (found := _compare(shapes, name, made)):
                yield found


def _make(name: str, side: int, *, named: bool = False) -> MonoEncoder | None:
    """Build an encoder without memory.

    None where it has no pyramid or takes no such images; an error if the user named it.
    """
    try:
        with torch.device("meta"):
            return MonoEncoder(name, 3, (side, side))
    except Exception as error:  # each library's own, of networks that are only tried
        if not named:
            return None
        msg = f"The encoder {name!r} cannot be built for images of {side} px: {error} {_BY_HAND}"
        raise CheckpointError(msg) from error


def _compare(shapes: Shapes, name: str, made: MonoEncoder, size: int | None = None) -> Found | None:
    """Return what was found if tensors are those of an encoder but for the image's channels."""
    expected, given = _shapes_of(made), _essential(shapes)
    first = next((n for n, shape in expected.items() if len(shape) == 4), "")
    if given.keys() != expected.keys() or len(given.get(first, ())) != 4:
        return None
    bands = given[first][1]
    given[first] = (given[first][0], expected[first][1], *given[first][2:])
    return Found(name, bands, made.channels, size) if given == expected else None


def _first_difference(shapes: Shapes, made: MonoEncoder) -> str:
    expected, given = _shapes_of(made), _essential(shapes)
    name = next(n for n in sorted({*expected, *given}) if expected.get(n) != given.get(n))
    return f"{name} is {given.get(name, 'missing')}, expected {expected.get(name, 'none')}"


def _shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return _essential({name: tuple(tensor.shape) for name, tensor in module.state_dict().items()})


def _essential(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in shapes.items() if not names.is_recomputed(name)}


def _patterns(found: Iterable[str]) -> set[str]:
    return {re.sub(r"\d+", "#", name) for name in found}
