"""Networks as files that other programs run: ``torch.export`` and ONNX.

The number of samples and the length of every series stay open; sizes of images are fixed. What was
exported takes and gives flat tensors, whose names, shapes and types the network's `Signature`
tells: inputs by modality, days of a series as ``<key>_days``, scores by class set.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from flairhub.errors import ExportError
from flairhub.models.signatures import SAMPLES, Input, Signature, signature_of

LARGEST = 1024
"""Bound of the open axes."""

SUFFIXES = (".onnx", ".pt2")

_LIMIT = 1_900_000_000


class Output(NamedTuple):
    """One tensor that a file gives.

    Attributes
    ----------
    name
        Class set.
    axes
        Sizes, and the name of the open one.
    """

    name: str
    axes: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Exported:
    """What `export` wrote.

    Parameters
    ----------
    path
        The file.
    inputs, outputs
        In the order in which it takes and gives them.
    difference
        What `difference` says.
    """

    path: Path
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    difference: float

    def to_plain(self) -> dict[str, Any]:
        """Return dicts, lists, strings and numbers alone, for JSON."""
        return {
            "path": str(self.path),
            "bytes": self.path.stat().st_size,
            "inputs": [
                {
                    "name": one.name,
                    "axes": list(one.axes),
                    "dtype": str(one.dtype).removeprefix("torch."),
                    "meaning": one.meaning,
                }
                for one in self.inputs
            ],
            "outputs": [{"name": one.name, "axes": list(one.axes)} for one in self.outputs],
            "difference": self.difference,
        }


Run = Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]
"""From inputs by name to scores in the order of a signature's outputs."""


class Flat(nn.Module):
    """A network with flat inputs and outputs.

    Parameters
    ----------
    network
        Any that `signature_of` knows, or whose signature is given.
    signature
        Of the network, with sizes other than the usual ones for instance.
    """

    def __init__(self, network: nn.Module, signature: Signature | None = None) -> None:
        super().__init__()
        self.network = network
        self.signature = signature or signature_of(network)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Take tensors in the order of the signature's inputs; return scores in that of outputs."""
        scores = self.network(**self.signature.arguments(tensors)).main
        return tuple(scores[task] for task in self.signature.outputs)

    def run(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Return scores in evaluation mode, on the CPU; the network's mode stays as it is."""
        device, was_training = _device(self.network), self.network.training
        try:
            with torch.inference_mode():
                found = self.eval()(*(tensor.to(device) for tensor in inputs.values()))
        finally:
            self.network.train(was_training)
        return tuple(scores.cpu() for scores in found)


def export_program(network: nn.Module, signature: Signature | None = None) -> ExportedProgram:
    """Return the graph of a network in evaluation mode, for any batch and series of any length.

    Parameters
    ----------
    network
        Any, on any device; its mode stays as it is.
    signature
        Its inputs and outputs, where sizes are other than the usual ones; see `signature_of`.

    Returns
    -------
    torch.export.ExportedProgram
        Of `Flat`.

    Raises
    ------
    ExportError
        If it is not known what the network takes.
    """
    was_training, flat = network.training, Flat(network, signature)
    inputs = flat.signature.inputs
    dims = {axis: Dim(axis, min=1, max=LARGEST) for axis in flat.signature.open_axes}
    axes = tuple(
        {place: dims[axis] for place, axis in enumerate(one.axes) if isinstance(axis, str)}
        for one in inputs
    )
    device = _device(network)
    tensors = tuple(tensor.to(device) for tensor in flat.signature.examples().values())
    try:
        return torch.export.export(flat.eval(), tensors, dynamic_shapes=(axes,))
    finally:
        network.train(was_training)


def export(
    network: nn.Module,
    path: str | Path,
    signature: Signature | None = None,
    *,
    program: ExportedProgram | None = None,
    tolerance: float = 1e-4,
) -> Exported:
    """Write a network as a file, run the file, and compare it with the network.

    Parameters
    ----------
    network
        Any; its mode stays as it is.
    path
        Where the file goes: ``NAME.onnx``, or ``NAME.pt2`` for ``torch.export.load``. Weights of
        more than 2 GB, the limit of ONNX, go to a second file beside it.
    signature
        Its inputs and outputs, where sizes are other than the usual ones; see `signature_of`.
    program
        What `export_program` gave for the same network and signature, to save making it again.
    tolerance
        Greatest difference that is accepted, relative to the greatest score.

    Returns
    -------
    Exported

    Raises
    ------
    ExportError
        If the name has another ending; if the network has no weights; if onnx, onnxscript or
        onnxruntime are needed and not installed; if it is not known what the network takes; or if
        the scores differ by more: the file is then left for inspection.
    """
    path = Path(path)
    check_path(path)
    if _device(network).type == "meta":
        msg = "The network has no weights to write: it is on the device 'meta'. Train it first."
        raise ExportError(msg)
    flat = Flat(network, signature)
    path.parent.mkdir(parents=True, exist_ok=True)
    program = program or export_program(network, flat.signature)
    if path.suffix == ".pt2":
        torch.export.save(program, path)
    else:
        _write_onnx(program, path, flat)
    found = difference(network, path, flat.signature)
    if not found <= tolerance:  # NaN too
        msg = (
            f"{path} gives other scores than the network: they differ by {found:.1e} of the "
            f"greatest score, {tolerance:.1e} was allowed."
        )
        raise ExportError(msg)
    return Exported(path, flat.signature.inputs, _outputs(program, flat.signature), found)


def difference(
    network: nn.Module, path: str | Path, signature: Signature | None = None, *, samples: int = 3
) -> float:
    """Return how far a file's scores of random inputs are from a network's.

    Inputs have other numbers of samples and dates than the file was made with.

    Parameters
    ----------
    network
        What the file was made of.
    path
        Run by onnxruntime where it ends in ``.onnx``, else by ``torch.export``.
    signature
        As given when the file was made.
    samples
        Samples of the inputs.

    Returns
    -------
    float
        Greatest difference, relative to the greatest score.
    """
    path = Path(path)
    check_path(path)
    flat = Flat(network, signature)
    examples = flat.signature.examples(samples, dates=samples + 4, seed=1)
    run = _onnx_runner(path, flat.signature) if path.suffix == ".onnx" else _program_runner(path)
    pairs = zip(run(examples), flat.run(examples), strict=True)
    return float(torch.stack([(a - b).abs().max() / b.abs().max() for a, b in pairs]).max())


def _outputs(program: ExportedProgram, signature: Signature) -> tuple[Output, ...]:
    """Return the scores that a program gives."""
    nodes = {node.name: node for node in program.graph.nodes}
    found = (nodes[str(name)].meta["val"].shape for name in program.graph_signature.user_outputs)
    return tuple(
        Output(name, (SAMPLES, *map(int, shape[1:])))
        for name, shape in zip(signature.outputs, found, strict=True)
    )


def _write_onnx(program: ExportedProgram, path: Path, flat: Flat) -> None:
    large = sum(p.numel() * p.element_size() for p in flat.network.parameters()) > _LIMIT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about itself
        torch.onnx.export(
            program,
            f=str(path),
            input_names=[one.name for one in flat.signature.inputs],
            output_names=list(flat.signature.outputs),
            external_data=large,
            dynamo=True,
            verbose=False,
        )


def _onnx_runner(path: Path, signature: Signature) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        return tuple(map(torch.from_numpy, session.run(list(signature.outputs), arrays)))

    return run


def _program_runner(path: Path) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about its way of reading
        module = torch.export.load(path).module()

    def run(inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        device = _device(module)
        with torch.inference_mode():
            found = module(*(tensor.to(device) for tensor in inputs.values()))
        return tuple(scores.cpu() for scores in found)

    return run


def check_path(path: Path) -> None:
    """Refuse what cannot be written or read.

    Raises
    ------
    ExportError
        If the name has another ending than `SUFFIXES`, or a package that it needs is missing.
    """
    if path.suffix not in SUFFIXES:
        msg = f"{path} must end in {' or '.join(SUFFIXES)}."
        raise ExportError(msg)
    needed = ("onnx", "onnxruntime", "onnxscript") if path.suffix == ".onnx" else ()
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        msg = f"ONNX needs {', '.join(missing)}: pip install 'flairhub[export]'."
        raise ExportError(msg)


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
