"""What the names in a state dict of IGN's networks mean.

::

    encoders.<MODALITY>.*                    seg_model.* of images, U-TAE of series
    fusion_handler.conv_f.<level>.*          1x1 convolutions over all modalities' maps
    main_decoders.<TASK>.*                   decoder and head; without images one 1x1 convolution
    aux_decoders.<MODALITY>__<TASK>.*        the same for one modality, for training alone
    criterion.<TASK>.weight                  class weights of the loss, not of the network

Baselines of FLAIR#1 and FLAIR#2 have ``seg_model.*`` (U-Net), ``enc.*`` (metadata), and with a
series ``texture.*`` (these two), ``time.*``, ``cropped.*``, ``collapsed.*`` and ``aux_head.*``.

Wrappers put a prefix before all of them: ``model.`` (Lightning's module), ``module.`` (distributed
training), ``_orig_mod.`` (compiled modules).

Our own form has ``rasters.<key>.*`` and ``series.<key>.*``, by key of the modality, ``fusions.*``,
``tokens.*``, ``decoder.*``, ``heads.*`` and ``auxiliary.*``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from flairhub.errors import UnknownNameError
from flairhub.modalities import get_modality

WRAPPERS = ("model.", "module.", "_orig_mod.")

_ENCODER = re.compile(r"encoders\.([^.]+)\.")
_OWN_ENCODER = re.compile(r"(?:rasters|series)\.([^.]+)\.")
_TASK = re.compile(r"main_decoders\.([^.]+)\.")
_BASELINE_ENCODERS = {
    get_modality("flair_aerial").source_name: re.compile(r"(texture\.)?seg_model\.encoder\."),
    get_modality("flair_sentinel2_ts").source_name: re.compile(r"time\."),
}
_LAST_LAYER = re.compile(
    r"(main|aux)_decoders\.[^.]+\.(seg_model\.segmentation_head\.0\.)?(weight|bias)"
    r"|heads\.[^.]+\.(weight|bias)"  # of our own form, whose decoder serves every class set
    r"|((texture\.)?seg_model\.segmentation_head\.0|aux_head)\.(weight|bias)"
)
_SERIES_CLASSES = re.compile(r"encoders\.([^.]+)\.out_conv\.conv\.conv\.(?![01]\.)\d+\.\w+")
_UNUSED_LEVEL = re.compile(r"(main|aux)_decoders\..*\.fpn_stages\.4\.skip_conv\.")
_BARE_LAYER = re.compile(r"main_decoders\.[^.]+\.(weight|bias)")
_RECOMPUTED = ("relative_position_index", "attn_mask", "num_batches_tracked")


def unwrap(names: Iterable[str]) -> tuple[str, dict[str, str]]:
    """Return the prefix that all names share because of wrappers, and names by name without it.

    Those of the loss (``criterion.``) and of our preparation (``preparation.``) lie beside the
    network in Lightning's module, so that they carry no prefix; they count for none and keep their
    names.
    """
    found = list(names)
    network = [name for name in found if not _is_beside(name)]
    prefix = ""
    while network:
        more = next((w for w in WRAPPERS if all(n.startswith(prefix + w) for n in network)), None)
        if more is None:
            break
        prefix += more
    return prefix, {name if _is_beside(name) else name.removeprefix(prefix): name for name in found}


def is_own_form(names: Iterable[str]) -> bool:
    """Tell whether they are of `flairhub.models.MultimodalSegmenter`, wrapped or not."""
    return any(_OWN_ENCODER.match(name) for name in unwrap(names)[1])


def is_criterion(name: str) -> bool:
    """Tell whether a loss keeps it: class weights."""
    return name.startswith("criterion.")


def is_preparation(name: str) -> bool:
    """Tell whether it normalises inputs before the network, in what `flairhub train` wrote."""
    return name.startswith("preparation.")


def _is_beside(name: str) -> bool:
    return is_criterion(name) or is_preparation(name)


def is_auxiliary(name: str) -> bool:
    """Tell whether it is of a decoder of one modality, which serves training alone."""
    return name.startswith(("aux_decoders.", "aux_head."))


def decoder_of(name: str) -> str:
    """Return the beginning that the tensors of an auxiliary decoder share."""
    return ".".join(name.split(".")[: 2 if name.startswith("aux_decoders.") else 1])


def is_recomputed(name: str) -> bool:
    """Tell whether it is a buffer that decides no output: follows from sizes, counts batches."""
    return name.endswith(_RECOMPUTED)


def is_window_table(name: str) -> bool:
    """Tell whether it holds the relative position biases of a Swin block."""
    return name.endswith("relative_position_bias_table")


def is_class_layer(name: str) -> bool:
    """Tell whether its shape follows from the number of classes: last layers, also of a series."""
    return bool(_LAST_LAYER.fullmatch(name) or _SERIES_CLASSES.fullmatch(name))


def series_classes(names: Iterable[str]) -> dict[str, list[str]]:
    """Return by modality the layers of a series whose shapes follow from the number of classes."""
    result: dict[str, list[str]] = {}
    for name in names:
        if not is_recomputed(name) and (found := _SERIES_CLASSES.fullmatch(name)):
            result.setdefault(found[1], []).append(name)
    return result


def modalities_in(names: Iterable[str]) -> tuple[str, ...]:
    """Return IGN's names of the modalities that have an encoder, in the order of first mention."""
    return tuple(dict.fromkeys(m[1] for name in names if (m := _ENCODER.match(name))))


def tasks_in(names: Iterable[str]) -> tuple[str, ...]:
    """Return the tasks that have a main decoder, in the order of first mention."""
    return tuple(dict.fromkeys(m[1] for name in names if (m := _TASK.match(name))))


def modality_of(name: str) -> str | None:
    """Return the modality that a tensor encodes, by IGN's name, or None."""
    if found := _ENCODER.match(name):
        return found[1]
    if found := _OWN_ENCODER.match(name):
        return _source_name(found[1])
    return next((key for key, form in _BASELINE_ENCODERS.items() if form.match(name)), None)


def task_of(name: str) -> str | None:
    """Return the task of a main decoder's tensor, or None."""
    found = _TASK.match(name)
    return found[1] if found else None


def first_layers(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Return the name of each modality's first convolution, by IGN's name of the modality.

    Names must come in the order of the network's modules.
    """
    result: dict[str, str] = {}
    for name, shape in shapes.items():
        modality = modality_of(name)
        if modality and len(shape) == 4 and name.endswith("weight"):  # tables of positions do not
            result.setdefault(modality, name)
    return result


def dead_parameters(names: Iterable[str]) -> dict[str, str]:
    """Return the parameters that no output depends on, with the reason.

    They exist because IGN's code builds them in every model; files may hold them or not.
    """
    found = list(names)
    modalities = modalities_in(found)
    images = [m for m in modalities if not _is_series(m)]
    reasons: dict[str, str] = {}
    for name in found:
        if _UNUSED_LEVEL.match(name):
            reasons[name] = "a level of the decoder's pyramid that its forward pass skips"
        elif name.startswith("fusion_handler."):
            if modalities and (not images or len(modalities) == 1):
                reasons[name] = "fusion layers, with nothing to fuse"
            elif name.startswith("fusion_handler.conv_f.0.") and _has_input_level(found):
                reasons[name] = "fusion of the input level, which decoders skip"
        elif _BARE_LAYER.fullmatch(name) and modalities and len(tasks_in(found)) == 1:
            reasons[name] = "head of a model of series with one task, whose scores are the series'"
    return reasons


def _has_input_level(names: list[str]) -> bool:
    """Tell whether maps of all six levels are fused, as with ResNets: the first is the input."""
    return any(name.startswith("fusion_handler.conv_f.5.") for name in names)


def _source_name(key: str) -> str | None:
    try:
        return get_modality(key).source_name
    except UnknownNameError:
        return None


def _is_series(modality: str) -> bool:
    try:
        return get_modality(modality).temporal
    except UnknownNameError:
        return False
