"""Tensors into models, and the report of what became of each.

Every tensor of the file and of the model is accounted for. What has no reason is an error that
lists the names, and the model is left as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from flairhub.errors import CheckpointError
from flairhub.models.matching import Bands, Plan, Rules, match
from flairhub.models.names import unwrap

_LISTED = 40


class WeightsError(CheckpointError):
    """Weights do not fit a model.

    Attributes
    ----------
    missing, unexpected : tuple of str
        Names that the model alone has, and that the file alone has.
    unfit : dict of str
        What is wrong with tensors that both have, by name.
    """

    def __init__(self, message: str, plan: Plan | None = None) -> None:
        super().__init__(message)
        self.missing = tuple(plan.missing) if plan else ()
        self.unexpected = tuple(plan.unexpected) if plan else ()
        self.unfit = dict(plan.unfit) if plan else {}


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor, by name without wrappers.

    Parameters
    ----------
    source
        Where the weights come from.
    loaded
        Taken as they are.
    adapted, fresh, left_over
        Changed to fit; not in the file, so initialised or drawn anew; in the file and not used:
        each with the reason.
    converted
        Number of tensors whose precision changed, by change (``float16 to float32``).
    prefix
        What wrappers had put before the file's names.
    revision, sha256
        Commit on the hub, for weights from there; digest of the file, where it was compared.
    notes
        What the file does not tell and was assumed.
    """

    source: str
    loaded: tuple[str, ...]
    adapted: Mapping[str, str] = field(default_factory=dict)
    fresh: Mapping[str, str] = field(default_factory=dict)
    left_over: Mapping[str, str] = field(default_factory=dict)
    converted: Mapping[str, int] = field(default_factory=dict)
    prefix: str = ""
    revision: str | None = None
    sha256: str | None = None
    notes: tuple[str, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """Return dicts, lists and strings alone, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """Return a few lines: numbers, and the reasons with how often each stands."""
        lines = [f"{self.source}: {len(self.loaded)} tensors loaded"]
        for what, found in (
            ("adapted", self.adapted),
            ("freshly initialised", self.fresh),
            ("left over", self.left_over),
        ):
            lines += [f"  {n} {what}: {reason}" for reason, n in Counter(found.values()).items()]
        lines += [f"  {n} converted: {change}" for change, n in self.converted.items()]
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)


def load_state(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    rules: Rules | None = None,
    *,
    file_bands: Bands | None = None,
    model_bands: Bands | None = None,
    source: str = "the state dict",
) -> LoadReport:
    """Put tensors into a model, all or none, and say what became of each.

    Parameters
    ----------
    model
        Any module; wrapped or not (Lightning's ``model.``), on any device but ``meta``.
    tensors
        By name, wrapped or not.
    rules
        What may be changed; nothing when absent.
    file_bands, model_bands
        Bands in the order of the channels, by IGN's name of the modality, where known.
    source
        Name of the tensors in messages.

    Raises
    ------
    WeightsError
        If a tensor of either side has no counterpart and no reason to lack one, if shapes differ,
        or if numbers are not finite.
    """
    prefix, file_names = unwrap(tensors)
    _, model_names = unwrap(model.state_dict())
    state = model.state_dict()
    file = {name: tensors[full] for name, full in file_names.items()}
    targets = {name: state[full] for name, full in model_names.items()}
    _check_numbers(file, targets, source)
    plan = match(file, targets, rules or Rules(), file_bands=file_bands, model_bands=model_bands)
    fit_or_raise(plan, source)
    converted: dict[str, int] = {}
    with torch.no_grad():
        for name, value in plan.values.items():
            given, target = value(), targets[name]
            if name in file and file[name].dtype != target.dtype:
                change = f"{_type(file[name])} to {_type(target)}"
                converted[change] = converted.get(change, 0) + 1
            target.copy_(given)
    return LoadReport(
        source=source,
        loaded=tuple(plan.loaded),
        adapted=plan.adapted,
        fresh=plan.fresh,
        left_over=plan.left_over,
        converted=converted,
        prefix=prefix,
    )


def fit_or_raise(plan: Plan, source: str) -> None:
    """Raise `WeightsError`, with every name, unless a plan accounts for everything."""
    if not plan.fits:
        raise WeightsError(_describe(plan, source), plan)


def _check_numbers(file: Mapping[str, Tensor], targets: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that no model can use, and models that hold no numbers."""
    empty = [name for name, tensor in targets.items() if tensor.is_meta]
    if empty:
        msg = (
            f"The model has no memory for {len(empty)} tensors ({empty[0]}, ...): it is on the "
            "device 'meta'. Build it on the CPU."
        )
        raise WeightsError(msg)
    unread = [f"{n} ({why})" for n, t in file.items() if (why := _unreadable(t))]
    if unread:
        msg = (
            f"{source} holds tensors that no network of this package takes: {_list(unread)}. Write "
            "them as plain numbers, such as float32."
        )
        raise WeightsError(msg)
    broken = [n for n, t in file.items() if t.is_floating_point() and not _is_finite(t)]
    if broken:
        msg = f"{source} holds numbers that are not finite: {_list(broken)}. Training diverged?"
        raise WeightsError(msg)


def _unreadable(tensor: Tensor) -> str:
    """Say why a tensor holds no numbers that could be copied; nothing where it does."""
    if tensor.is_meta:
        return "without memory, on the device 'meta'"
    if tensor.layout != torch.strided or tensor.is_quantized:
        return "sparse or quantised"
    if tensor.is_floating_point() and "x2" in _type(tensor):  # several numbers in a byte
        return _type(tensor)
    return ""


def _is_finite(tensor: Tensor) -> bool:
    """Tell whether all numbers are finite; those of a byte are not asked in their own precision."""
    return bool((tensor if tensor.element_size() > 1 else tensor.float()).isfinite().all())


def _describe(plan: Plan, source: str) -> str:
    """Say everything that does not fit, by name."""
    total = len(plan.loaded) + len(plan.adapted)
    lines = [f"{source} does not fit the model ({total} tensors would); nothing was loaded."]
    if plan.unfit:
        lines.append("  " + _list([f"{name}: {why}" for name, why in plan.unfit.items()], "\n  "))
    if plan.missing:
        lines.append(f"Missing in the file: {_list(plan.missing)}.")
    if plan.unexpected:
        lines.append(f"In the file alone: {_list(plan.unexpected)}.")
    if plan.missing or plan.unexpected:
        lines.append(
            "What is to keep its starting values, or to be left out, is named by fresh= and drop=."
        )
    return "\n".join(lines)


def _list(names: Sequence[str], between: str = ", ") -> str:
    more = len(names) - _LISTED
    shown = between.join(names[:_LISTED])
    return f"{shown} and {more} more (all are attributes of the error)" if more > 0 else shown


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
