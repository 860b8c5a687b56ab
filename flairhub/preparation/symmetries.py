"""Flips and quarter turns, alike in all modalities and labels of a sample."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from flairhub.batches.batch import MultimodalBatch

SYMMETRIES = (
    (False, ()), (True, (-2,)), (False, (-2, -1)), (True, (-1,)),
    (False, (-1,)), (True, (-2, -1)), (False, (-2,)), (True, ()),
)  # fmt: skip
"""Whether rows and columns change places, and which axes are flipped after: no, one, two and three
quarter turns, counter-clockwise, and those flipped from left to right."""


def augment(batch: MultimodalBatch, generator: torch.Generator) -> MultimodalBatch:
    """Flip and turn each sample by one of the eight symmetries of the square.

    All modalities and labels of a sample are turned alike; dates do not change. Windows are square.

    Parameters
    ----------
    batch
        As streamed (cheaper: fewer bytes) or prepared.
    generator
        Source of chance, on the CPU.
    """
    choices = torch.randint(0, len(SYMMETRIES), (len(batch),), generator=generator).tolist()

    def turn(tensor: Tensor) -> Tensor:
        # torch turns no unsigned 16-bit numbers; their bits do not mind another name
        bits = tensor.view(torch.int16) if tensor.dtype == torch.uint16 else tensor
        turned = torch.empty_like(bits)
        # one by one: on a CPU, half the time of gathering and scattering samples that turn alike
        for out, sample, choice in zip(turned, bits, choices, strict=True):
            swap, flips = SYMMETRIES[choice]
            out.copy_((sample.mT if swap else sample).flip(flips))
        return turned.view(tensor.dtype)

    inputs = {key: turn(value) for key, value in batch.inputs.items()}
    labels = {key: turn(value) for key, value in batch.labels.items()}
    return replace(batch, inputs=inputs, labels=labels)
