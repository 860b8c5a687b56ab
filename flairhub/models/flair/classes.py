"""Which values of the masks each class of a baseline stands for.

The masks of FLAIR#1 and FLAIR#2 hold 1 to 19 (`flairhub.nomenclatures`, ``flair``); networks count
classes from 0, and most of them know fewer.

- 19 classes: every value.
- 15: of the FLAIR-INC models (card of IGNF/FLAIR-INC_rgbi_15cl_resnet34-unet): swimming pool, snow
  and greenhouse beside the twelve.
- 13: of the published baselines (IGNF/FLAIR-2, src/dataset.py): whatever is above 12 is other.
- 12: of the FLAIR-INC models (card of IGNF/FLAIR-INC_rgbie_12cl_resnet34-unet), and those that the
  published scores are means over.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from flairhub.errors import UnknownNameError
from flairhub.nomenclatures import FLAIR_BASELINE_OTHER, get_nomenclature

_LAST = len(get_nomenclature("flair")) - 1
_SCORED = tuple((value,) for value in range(1, FLAIR_BASELINE_OTHER))
_POOL, _SNOW, _GREENHOUSE = 13, 14, 18

CLASS_VALUES: Mapping[int, tuple[tuple[int, ...], ...]] = MappingProxyType(
    {
        12: _SCORED,
        13: (*_SCORED, tuple(range(FLAIR_BASELINE_OTHER, _LAST + 1))),
        15: (*_SCORED, (_POOL,), (_SNOW,), (_GREENHOUSE,)),
        19: tuple((value,) for value in range(1, _LAST + 1)),
    }
)
"""By number of classes: the values of the masks that each class stands for."""


def class_indices(masks: Tensor, classes: int, ignore: int = 255) -> Tensor:
    """Return the classes of masks, numbered as a baseline does.

    Parameters
    ----------
    masks : Tensor, any shape, integers
        Values of the masks, 1 to 19.
    classes
        12, 13, 15 or 19.
    ignore
        What becomes of values that have no class there, and of any that are no values.

    Returns
    -------
    Tensor, shape of `masks`, int64
        0 to ``classes - 1``, or `ignore`.

    Raises
    ------
    UnknownNameError
        If there is no such numbering.
    """
    table = torch.full((256,), ignore, dtype=torch.int64)
    for index, values in enumerate(_values(classes)):
        table[list(values)] = index
    whole = masks.long()
    inside = (whole >= 0) & (whole < len(table))
    return table.to(masks.device)[whole.where(inside, 0)].where(inside, ignore)


def class_values(indices: Tensor, classes: int) -> Tensor:
    """Return the values that masks would have: the inverse of `class_indices`.

    A class of many values has the first, so that other is 13.

    Parameters
    ----------
    indices : Tensor, any shape, integers
        0 to ``classes - 1``, as the largest of the scores gives them.
    classes
        12, 13, 15 or 19.

    Returns
    -------
    Tensor, shape of `indices`, uint8

    Raises
    ------
    UnknownNameError
        If there is no such numbering.
    """
    table = torch.tensor([values[0] for values in _values(classes)], dtype=torch.uint8)
    return table.to(indices.device)[indices.long()]


def _values(classes: int) -> tuple[tuple[int, ...], ...]:
    try:
        return CLASS_VALUES[classes]
    except KeyError:
        known = ", ".join(map(str, CLASS_VALUES))
        msg = f"FLAIR#1 and FLAIR#2 have no numbering of {classes} classes. Known: {known}."
        raise UnknownNameError(msg) from None
