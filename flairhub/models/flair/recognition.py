"""From names and shapes of tensors to the options of a baseline of FLAIR#1 or FLAIR#2.

Names are those of `FlairUnet` and `TextureTime`.
"""

from __future__ import annotations

from collections.abc import Mapping

from flairhub.errors import CheckpointError
from flairhub.models.flair.conditioning import ROWS
from flairhub.models.flair.options import ENCODER, FlairOptions, Form

_UNET, _SERIES = "seg_model.encoder.", "time.in_conv.conv.conv.0.weight"


def is_baseline(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether names are those of a baseline's image encoder."""
    return any(name.startswith((_UNET, f"texture.{_UNET}")) for name in shapes)


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> FlairOptions:
    """Return the options of a baseline.

    Parameters
    ----------
    shapes
        Of a state dict's tensors, by name without wrappers.

    Raises
    ------
    CheckpointError
        If tensors that decide are missing, or the image's encoder is another.
    """
    series = any(name.startswith("texture.") for name in shapes)
    image = "texture." if series else ""

    def shape_of(name: str) -> tuple[int, ...]:
        if name not in shapes:
            msg = f"A baseline of FLAIR has {name}, which the file lacks; is it complete?"
            raise CheckpointError(msg)
        return shapes[name]

    blocks = {n.split(".layer3.")[1].partition(".")[0] for n in shapes if ".layer3." in n}
    if len(blocks) != 6 or any(".conv3." in name for name in shapes):
        msg = f"The encoder of the image is not {ENCODER}, which baselines of FLAIR have."
        raise CheckpointError(msg)
    return FlairOptions(
        bands=shape_of(f"{image}{_UNET}conv1.weight")[1],
        classes=shape_of(f"{image}seg_model.segmentation_head.0.weight")[0],
        series_bands=shape_of(_SERIES)[1] if series else 0,
        metadata=_metadata(shapes, f"{image}enc.enc_mlp.6.weight"),
    )


def _metadata(shapes: Mapping[str, tuple[int, ...]], last_layer: str) -> Form:
    if last_layer not in shapes:
        return "none"
    return "ign" if shapes[last_layer][0] == ROWS else "own"
