"""Which tensor of a file goes where in a model; nothing is taken or left without a reason.

A plan is made before anything is written, so that a model into which a file does not fit stays as
it was.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from flairhub.errors import ConfigError, UnknownNameError, did_you_mean
from flairhub.models import names as naming
from flairhub.models.adapt import fresh_class_layer, rearrange_bands, resize_window

Bands = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Rules:
    """What the user allows.

    Parameters
    ----------
    windows, heads, bands
        The rules of `flairhub.models.adapt`.
    fresh
        Beginnings of names in the model that keep what the model holds.
    drop
        Beginnings of names in the file that are left over.
    """

    windows: bool = False
    heads: bool = False
    bands: bool = False
    fresh: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


@dataclass
class Plan:
    """The fate of every tensor, by name without wrappers.

    Attributes
    ----------
    loaded : list of str
        Taken as they are.
    adapted, fresh, left_over : dict of str
        Changed to fit; not in the file; not in the model: each with the reason.
    missing, unexpected : list of str
        In the model alone, in the file alone, for no known reason.
    unfit : dict of str
        In both, and not to be brought together: what was found, what expected, what to do.
    values : dict of Callable
        For each tensor that is written, what gives its value.
    """

    loaded: list[str] = field(default_factory=list)
    adapted: dict[str, str] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)
    left_over: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    unfit: dict[str, str] = field(default_factory=dict)
    values: dict[str, Callable[[], Tensor]] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """True if everything is explained."""
        return not (self.missing or self.unexpected or self.unfit)


def match(
    file: Mapping[str, Tensor],
    model: Mapping[str, Tensor],
    rules: Rules,
    *,
    file_bands: Bands | None = None,
    model_bands: Bands | None = None,
) -> Plan:
    """Decide what becomes of every tensor of a file and of a model.

    Parameters
    ----------
    file, model
        Tensors by name without wrappers; the model's in the order of its modules.
    rules
        What may be changed.
    file_bands, model_bands
        Bands of modalities, by IGN's name, where they are known.

    Raises
    ------
    ConfigError
        If bands are given for a modality that has no first layer.
    UnknownNameError
        If no tensor begins as `Rules.fresh` or `Rules.drop` say.
    """
    _check_beginnings("fresh", rules.fresh, model, "the model has no tensor that begins so")
    surplus = [name for name in file if name not in model]
    _check_beginnings("drop", rules.drop, surplus, "no tensor of the file alone begins so")
    return _Matching(file, model, rules, file_bands or {}, model_bands or {}).plan


class _Matching:
    """One run of `match`."""

    def __init__(
        self,
        file: Mapping[str, Tensor],
        model: Mapping[str, Tensor],
        rules: Rules,
        file_bands: Bands,
        model_bands: Bands,
    ) -> None:
        self.file, self.model, self.rules = file, model, rules
        self.bands = {
            key: (tuple(file_bands[key]), tuple(wanted))
            for key, wanted in model_bands.items()
            if key in file_bands
        }
        first = _first_layers(model, "model", model_bands)
        _first_layers(file, "file", file_bands)
        self.first_layers = set(first.values())
        # each by its own names: a layer that lies idle in a file may be at work in the model
        self.dead_in_file = naming.dead_parameters(file)
        self.dead = naming.dead_parameters(model)
        self.file_tasks = naming.tasks_in(file)
        self.model_tasks = naming.tasks_in(model)
        # one that both have is loaded whole
        self.shared_aux = {naming.decoder_of(n) for n in file if naming.is_auxiliary(n)} & {
            naming.decoder_of(n) for n in model
        }
        self.other_classes = self._layers_of_other_classes()
        self.plan = Plan()
        for name, target in model.items():
            self._settle(name, target)
        for name in file:
            if name not in model:
                self._settle_surplus(name)

    def _layers_of_other_classes(self) -> frozenset[str]:
        """Return the class layers that are not those of the file, whatever their shapes.

        Widths and number of those of a series follow from the classes of all tasks, so that the
        last of one side may have the shape of one before the last of the other. The head of a model
        of series with one task was never trained.
        """
        known = self.file_tasks and self.model_tasks
        others = bool(known) and set(self.file_tasks) != set(self.model_tasks)
        old, new = naming.series_classes(self.file), naming.series_classes(self.model)
        idle = self.dead_in_file.keys() - self.dead.keys()
        found = {name for name in idle if naming.is_class_layer(name)}
        for modality in old.keys() & new.keys():
            kernels = [
                [(n, side[n].shape) for n in names if side[n].ndim == 4]
                for side, names in ((self.file, old[modality]), (self.model, new[modality]))
            ]
            if others or sorted(kernels[0]) != sorted(kernels[1]):
                found.update(new[modality])
        return frozenset(found)

    def _settle(self, name: str, target: Tensor) -> None:
        """Decide about a tensor of the model."""
        plan, found = self.plan, self.file.get(name)
        if naming.is_criterion(name):
            return
        if name.startswith(self.rules.fresh or "\0"):
            plan.fresh[name] = "as asked"
        elif found is None:
            self._settle_missing(name, target)
        elif found.is_floating_point() != target.is_floating_point():
            plan.unfit[name] = f"found {found.dtype}, expected {target.dtype}"
        elif name in self.first_layers:
            self._settle_bands(name, found, target)
        elif name in self.other_classes:
            self._settle_classes(name, _shapes(found, target), target)
        elif found.shape == target.shape:
            plan.loaded.append(name)
            plan.values[name] = partial(_as_is, found)
        elif name in self.dead:
            plan.fresh[name] = f"{_shapes(found, target)}; unused: {self.dead[name]}"
        elif naming.is_window_table(name) and found.shape[1:] == target.shape[1:]:
            self._settle_window(name, found, target)
        elif naming.is_class_layer(name):
            self._settle_classes(name, _shapes(found, target), target)
        else:
            idle = self.dead_in_file.get(name)
            hint = (
                f": idle in the file ({idle}); name it in fresh= to start it anew" if idle else ""
            )
            plan.unfit[name] = _shapes(found, target) + hint

    def _settle_missing(self, name: str, target: Tensor) -> None:
        """Decide about a tensor that the file lacks."""
        plan, task = self.plan, naming.task_of(name)
        if reason := self._needless(name, self.dead):
            plan.fresh[name] = reason
        elif self.rules.heads and naming.is_class_layer(name):
            self._settle_classes(name, "not in the file", target)
        elif self.rules.heads and task and task not in self.file_tasks and self.file_tasks:
            self._settle_decoder(name, task, target)
        else:
            plan.missing.append(name)

    def _needless(self, name: str, dead: Mapping[str, str]) -> str:
        """Say why one side may lack a tensor of the other; nothing where it may not."""
        if name in dead:
            return f"unused: {dead[name]}"
        if naming.is_recomputed(name):
            return "follows from sizes, or counts batches"
        if naming.is_auxiliary(name) and naming.decoder_of(name) not in self.shared_aux:
            return "auxiliary decoder, for training alone"
        return ""

    def _settle_decoder(self, name: str, task: str, target: Tensor) -> None:
        """Start the decoder of a task that the file lacks from that of the file's first task."""
        origin = name.replace(f".{task}.", f".{self.file_tasks[0]}.", 1)
        found = self.file.get(origin)
        if found is None or found.shape != target.shape:
            self.plan.missing.append(name)
            return
        self.plan.adapted[name] = f"started from the decoder of {self.file_tasks[0]}"
        self.plan.values[name] = partial(_as_is, found)

    def _settle_window(self, name: str, found: Tensor, target: Tensor) -> None:
        resized = resize_window(found, len(target)) if self.rules.windows else None
        if resized is None:
            self.plan.unfit[name] = (
                f"{_shapes(found, target)}: biases of another window; build the model with the "
                "file's patch size, or allow adapt_windows"
            )
            return
        self.plan.adapted[name] = f"window: {_shapes(found, target)}"
        self.plan.values[name] = partial(_as_is, resized)

    def _settle_classes(self, name: str, why: str, target: Tensor) -> None:
        if not self.rules.heads:
            self.plan.unfit[name] = f"{why}: other classes; allow adapt_heads to draw them anew"
            return
        self.plan.fresh[name] = f"last layer drawn anew: {why}"
        self.plan.values[name] = partial(fresh_class_layer, name, target)

    def _settle_bands(self, name: str, found: Tensor, target: Tensor) -> None:
        """Decide about a first convolution: kernels of equal shape may still be of other bands."""
        plan = self.plan
        old, new = self.bands.get(naming.modality_of(name) or "", ((), ()))
        if found.shape == target.shape and old == new:
            plan.loaded.append(name)
            plan.values[name] = partial(_as_is, found)
            return
        why = _shapes(found, target)
        rest_differs = (found.shape[0], *found.shape[2:]) != (target.shape[0], *target.shape[2:])
        if rest_differs or (len(old), len(new)) != (found.shape[1], target.shape[1]):
            if not (old and new):
                why += "; say which bands they are with bands= and file_bands="
            elif not rest_differs:
                why += (
                    f"; of {len(old)} and {len(new)} bands: this layer has no kernel a band that "
                    "adapt_bands could bring elsewhere; name it in fresh= to start it anew"
                )
            plan.unfit[name] = why
        elif not self.rules.bands:
            plan.unfit[name] = (
                f"found kernels for {', '.join(old)}, expected {', '.join(new)}; "
                "build the model with the file's bands, or allow adapt_bands"
            )
        else:
            plan.adapted[name] = f"bands: {', '.join(old)} to {', '.join(new)}"
            plan.values[name] = partial(rearrange_bands, found, old, new)

    def _settle_surplus(self, name: str) -> None:
        """Decide about a tensor that only the file has."""
        plan, task = self.plan, naming.task_of(name)
        if name.startswith(self.rules.drop or "\0"):
            plan.left_over[name] = "as asked"
        elif naming.is_criterion(name):
            plan.left_over[name] = "class weights of the loss"
        elif naming.is_preparation(name):
            plan.left_over[name] = "statistics of the inputs, which the network does not hold"
        elif reason := self._needless(name, self.dead_in_file):
            plan.left_over[name] = reason
        elif self.rules.heads and task and task not in self.model_tasks:
            plan.left_over[name] = f"decoder of {task}, which the model does not predict"
        elif self.rules.heads and naming.is_class_layer(name):
            plan.left_over[name] = "last layer for other classes"
        else:
            plan.unexpected.append(name)


def _check_beginnings(
    option: str, given: Iterable[str], names: Collection[str], reason: str
) -> None:
    """Refuse beginnings of names that have no effect, as a misspelt one has."""
    for one in given:
        if not any(name.startswith(one) for name in names):
            parts = [name.split(".") for name in names]
            depth = max((len(part) for part in parts), default=0)
            near = dict.fromkeys(
                ".".join(part[:n]) + "." * (n < len(part))
                for n in range(1, depth + 1)
                for part in parts
                if n <= len(part)
            )
            hint = did_you_mean(one, near) if near else "There is none."
            msg = f"{option}={one!r}: {reason}. {hint}"
            raise UnknownNameError(msg)


def _first_layers(tensors: Mapping[str, Tensor], what: str, bands: Bands) -> dict[str, str]:
    """Return names of first layers by modality; bands of none of them would tell nothing."""
    found = naming.first_layers({name: tuple(t.shape) for name, t in tensors.items()})
    if stray := bands.keys() - found.keys():
        msg = (
            f"Bands are given for {', '.join(sorted(stray))}; the {what} has first layers of "
            f"{', '.join(found) or 'no modality that is known'}."
        )
        raise ConfigError(msg)
    return found


def _as_is(value: Tensor) -> Tensor:
    return value


def _shapes(found: Tensor, target: Tensor) -> str:
    return f"found {_shape(found.shape)}, expected {_shape(target.shape)}"


def _shape(sizes: Collection[int]) -> str:
    return " × ".join(map(str, sizes)) or "a number"
