"""A readable drawing of a network: its modules with the shapes of what they return, and parameters.

Nothing is computed: the network and its inputs lie on the device ``meta``, so that the largest one
is drawn in seconds and without memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from flairhub.modalities import get_modality
from flairhub.models.names import dead_parameters
from flairhub.models.published import ModelOptions, build
from flairhub.models.signatures import SAMPLES, Signature, signature_of

DATES = 12
"""Dates of the series that networks are drawn with."""


@dataclass
class Drawn:
    """One module, or several alike that follow each other.

    Attributes
    ----------
    name : str
        Under its parent: ``blocks``, ``0``, or ``2-17`` for several.
    kind : str
        Name of its class.
    shapes : list of tuple of int
        Of the tensors that it returned last; empty where it was not called as a module.
    parameters : int
        Of it and all below it; of all where it stands for several.
    weight : tuple of int or None
        Shape of its own parameter ``weight``.
    unused : bool
        Whether it has parameters and no output depends on any.
    children : list of Drawn
    """

    name: str
    kind: str
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    parameters: int = 0
    weight: tuple[int, ...] | None = None
    unused: bool = False
    children: list[Drawn] = field(default_factory=list)

    def to_plain(self) -> dict[str, Any]:
        """Return dicts, lists and numbers alone, for JSON."""
        return {
            "name": self.name,
            "kind": self.kind,
            "shapes": [list(shape) for shape in self.shapes],
            "parameters": self.parameters,
            "weight": None if self.weight is None else list(self.weight),
            "unused": self.unused,
            "children": [child.to_plain() for child in self.children],
        }

    def walk(self, level: int = 0) -> Iterator[tuple[int, Drawn]]:
        """Yield every drawn module with its level, from the top."""
        yield level, self
        for child in self.children:
            yield from child.walk(level + 1)


def draw(model: str | ModelOptions, *, depth: int = 3, batch: int = 1) -> Drawn:
    """Draw the network of an id, or that options make, at the sizes of patches and labels.

    Parameters
    ----------
    model
        As for `flairhub.models.build`.
    depth
        Levels of modules below the network.
    batch
        Samples in the shapes.
    """
    with torch.device("meta"):
        network = build(model)
    side = get_modality("aerial_label_cosia").patch_px
    return draw_network(network, signature_of(network, (side, side)), depth=depth, batch=batch)


def draw_network(
    network: nn.Module, signature: Signature | None = None, *, depth: int = 3, batch: int = 1
) -> Drawn:
    """Draw any network by calling a copy of it on ``meta``.

    Parameters
    ----------
    network
        On any device, ``meta`` too, which costs no copy.
    signature
        Its inputs, where sizes are other than the usual ones; see `signature_of`.
    depth
        Levels of modules below the network.
    batch
        Samples in the shapes.

    Raises
    ------
    ExportError
        If it is not known what the network takes.
    """
    signature = signature or signature_of(network)
    on_meta = all(one.is_meta for one in network.state_dict().values())
    model = (network if on_meta else deepcopy(network)).to("meta").eval()
    sizes = dict.fromkeys(signature.open_axes, DATES) | {SAMPLES: batch}
    arguments = signature.arguments(
        torch.empty(one.shape(sizes), dtype=one.dtype, device="meta") for one in signature.inputs
    )
    returned: dict[nn.Module, list[tuple[int, ...]]] = {}

    def remember(module: nn.Module, _: Any, output: Any) -> None:  # noqa: ANN401
        returned[module] = [tuple(found.shape) for found in _tensors(output)]

    hooks = [module.register_forward_hook(remember) for module in model.modules()]
    try:
        with torch.no_grad(), _Undecided():  # type: ignore[no-untyped-call] # torch's class
            model(**arguments)
    finally:
        for hook in hooks:
            hook.remove()
    dead = set(dead_parameters(name for name, _ in model.named_parameters()))
    return _draw("", model, returned, dead, depth)


class _Undecided(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's class
    """Answer questions about numbers that do not exist with no: no date is padding."""

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - as torch has it
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if func is torch.ops.aten._local_scalar_dense.default:
            return False
        return func(*args, **(kwargs or {}))


def _tensors(value: Any) -> Iterator[Tensor]:  # noqa: ANN401
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for one in value:
            yield from _tensors(one)


def _draw(
    path: str,
    module: nn.Module,
    returned: Mapping[nn.Module, list[tuple[int, ...]]],
    dead: set[str],
    depth: int,
) -> Drawn:
    below = dict(module.named_parameters(path))
    weight = module._parameters.get("weight")
    result = Drawn(
        path.rpartition(".")[2],
        type(module).__name__,
        returned.get(module, []),
        sum(p.numel() for p in below.values()),
        None if weight is None else tuple(weight.shape),
        bool(below) and dead.issuperset(below),
    )
    if depth:
        for name, child in module.named_children():
            inner = f"{path}.{name}" if path else name
            _append(result.children, _draw(inner, child, returned, dead, depth - 1))
    return result


def _append(siblings: list[Drawn], new: Drawn) -> None:
    """Add a module, or count it with the one before that looks the same."""
    last = siblings[-1] if siblings else None
    if last is None or not (last.name[-1].isdigit() and new.name.isdigit()):
        siblings.append(new)
        return
    first, _, end = last.name.partition("-")
    number = int(end or first) - int(first) + 1
    alike = (last.kind, last.shapes, last.weight, last.parameters) == (
        new.kind, new.shapes, new.weight, new.parameters * number,
    )  # fmt: skip
    if not alike or int(end or first) + 1 != int(new.name):
        siblings.append(new)
        return
    last.name = f"{first}-{new.name}"
    last.parameters += new.parameters
