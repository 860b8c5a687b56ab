"""Networks as files that other programs run: ``torch.export`` and ONNX.

The number of samples and the length of every series stay open; sizes of images are fixed. What was
exported takes and gives flat tensors: inputs by key, days of a series as ``<key>_days``, scores by
class set.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from flairhub.errors import ExportError
from flairhub.models.alignment import Size
from flairhub.models.ign.network import IgnNetwork

MAX_SAMPLES = 1024
MAX_DATES = 1024
"""Bounds of the open axes."""

_LIMIT = 1_900_000_000


class Flat(nn.Module):
    """A network with flat inputs and outputs.

    Parameters
    ----------
    network
        What is exported.
    size
        Height and width of the scores; see `IgnNetwork.forward`.

    Attributes
    ----------
    inputs, outputs : tuple of str
        Their names in order.
    """

    def __init__(self, network: IgnNetwork, size: Size | None = None) -> None:
        super().__init__()
        options = network.options
        self.network, self.size = network, size
        self.series = options.series
        self.inputs = (*options.modalities, *(f"{key}_days" for key in options.series))
        self.outputs = tuple(options.tasks)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Take tensors in the order of `inputs`; return scores in the order of `outputs`."""
        given = dict(zip(self.inputs, tensors, strict=True))
        days = {key: given.pop(f"{key}_days") for key in self.series}
        scores = self.network(given, days, self.size, aux=False).main
        return tuple(scores[task] for task in self.outputs)

    def examples(self, samples: int = 2, dates: int = 3, seed: int = 0) -> dict[str, Tensor]:
        """Return random inputs by name; the last date of the first sample is padding."""
        chance = torch.Generator().manual_seed(seed)
        options, found = self.network.options, {}
        for place, key in enumerate(options.modalities):
            lead = (samples, dates + place) if key in self.series else (samples,)
            shape = (*lead, options.bands_of(key), *2 * (options.size_of(key),))
            found[key] = torch.randn(shape, generator=chance)
            if key in self.series:
                days = torch.randint(-134, 231, lead, generator=chance).float()
                found[key][0, -1], days[0, -1] = 0, 0
                found[f"{key}_days"] = days
        return {name: found[name] for name in self.inputs}


def export_program(network: IgnNetwork, size: Size | None = None) -> ExportedProgram:
    """Return the graph of a network in evaluation mode, for any batch and series of any length.

    Parameters
    ----------
    network
        Any, on any device; its mode stays as it is.
    size
        Height and width of the scores; see `IgnNetwork.forward`.

    Returns
    -------
    torch.export.ExportedProgram
        Of `Flat`.
    """
    was_training, flat = network.training, Flat(network, size)
    device = next(network.parameters()).device
    batch = Dim("samples", min=1, max=MAX_SAMPLES)
    dates = {key: Dim(f"dates_{key}", min=1, max=MAX_DATES) for key in flat.series}
    axes = tuple(
        {0: batch, 1: dates[key]} if (key := name.removesuffix("_days")) in dates else {0: batch}
        for name in flat.inputs
    )
    try:
        tensors = tuple(tensor.to(device) for tensor in flat.examples().values())
        return torch.export.export(flat.eval(), tensors, dynamic_shapes=(axes,))
    finally:
        network.train(was_training)


def export_onnx(
    network: IgnNetwork,
    path: str | Path,
    size: Size | None = None,
    *,
    program: ExportedProgram | None = None,
    tolerance: float = 1e-4,
) -> float:
    """Write a network as an ONNX file and compare it with the network.

    Weights of more than 2 GB, the limit of the format, go to a second file beside it.

    Parameters
    ----------
    network
        Any; its mode stays as it is.
    path
        Where the file goes.
    size
        Height and width of the scores; see `IgnNetwork.forward`.
    program
        What `export_program` gave for the same network and size, to save making it again.
    tolerance
        Greatest difference that is accepted, relative to the greatest score.

    Returns
    -------
    float
        Greatest difference between onnxruntime's scores and the network's, for other numbers of
        samples and dates than it was exported with, relative to the greatest score.

    Raises
    ------
    ExportError
        If onnx, onnxscript or onnxruntime are not installed, or the scores differ by more; the
        file is then left for inspection.
    """
    _need_onnx()
    flat = Flat(network, size)
    program = program or export_program(network, size)
    large = sum(p.numel() * p.element_size() for p in network.parameters()) > _LIMIT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about itself
        torch.onnx.export(
            program,
            f=str(path),
            input_names=list(flat.inputs),
            output_names=list(flat.outputs),
            external_data=large,
            dynamo=True,
            verbose=False,
        )
    found = difference(network, path, size)
    if found > tolerance:
        msg = (
            f"{path} gives other scores than the network: they differ by {found:.1e} of the "
            f"greatest score, {tolerance:.1e} was allowed."
        )
        raise ExportError(msg)
    return found


def difference(
    network: IgnNetwork, path: str | Path, size: Size | None = None, *, samples: int = 3
) -> float:
    """Return how far onnxruntime's scores of random inputs are from a network's.

    Parameters
    ----------
    network
        What the file was made of.
    path
        An ONNX file.
    size
        Height and width of the scores, as given when the file was made.
    samples
        Samples of the inputs; series get more dates than the file was made with.

    Returns
    -------
    float
        Greatest difference, relative to the greatest score.
    """
    _need_onnx()
    import onnxruntime

    flat, was_training = Flat(network, size), network.training
    device = next(network.parameters()).device
    examples = flat.examples(samples, dates=samples + 4, seed=1)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(list(flat.outputs), {k: v.numpy() for k, v in examples.items()})
    try:
        with torch.inference_mode():
            expected = flat.eval()(*(tensor.to(device) for tensor in examples.values()))
    finally:
        network.train(was_training)
    pairs = [(torch.from_numpy(a), b.cpu()) for a, b in zip(found, expected, strict=True)]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def _need_onnx() -> None:
    missing = [n for n in ("onnx", "onnxruntime", "onnxscript") if find_spec(n) is None]
    if missing:
        msg = f"ONNX needs {', '.join(missing)}: pip install 'flairhub[export]'."
        raise ExportError(msg)
