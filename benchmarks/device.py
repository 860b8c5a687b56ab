"""IGN's networks and the stream on a GPU: what a training step costs there, and how long it waits.

There are no rows where there is no GPU. Steps are a forward pass, cross entropy and a backward
pass, all modalities' auxiliary heads included; they are timed from an idle device to an idle
device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import Row, Workspace, benchmark
from benchmarks.models import Contest, prepare
from benchmarks.streaming import epochs, realistic
from flairhub import ign
from flairhub.batches.batch import IGNORE_INDEX, MultimodalBatch
from flairhub.batches.plan import PatchPlan
from flairhub.batches.streaming import stream
from flairhub.models import build
from flairhub.preparation.compatibility import IgnPreparation

NAMES = ("LC-A", "LC-G", "LC-L")
BATCH = 5
"""IGN's training takes five patches at a time."""
STEPS, WARMUP = 10, 3
SIDE = 8192
"""Of the matrices whose product says what the device can do at most."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How a training step is computed.

    Parameters
    ----------
    name
        In words.
    bfloat16
        Under autocast; else float32, in which torch does not lower products of matrices.
    channels_last
        Weights and images with channels innermost.
    compiler
        Backend of ``torch.compile``; without graph breaks. Eager where None.
    checkpointing
        Activations of the encoders are computed again in the backward pass.
    """

    name: str
    bfloat16: bool = False
    channels_last: bool = False
    compiler: str | None = None
    checkpointing: bool = False


EAGER = Setting("eager, float32")
LOWERED = Setting("bfloat16", bfloat16=True)
SETTINGS = (
    LOWERED,
    Setting("bfloat16, channels last", bfloat16=True, channels_last=True),
    Setting("bfloat16, channels last, compiled", True, True, "inductor"),
    Setting("bfloat16, checkpoints", bfloat16=True, checkpointing=True),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of a step, and the most memory that was taken, bytes; 0 where nobody counts it."""

    seconds: float
    memory: int


def gpu() -> torch.device | None:
    """Return the GPU, None without one."""
    return torch.device("cuda") if torch.cuda.is_available() else None


@benchmark
def device_models(_workspace: Workspace) -> Iterator[Row]:
    """LC-A, LC-G and LC-L: images a second and memory, against eager float32."""
    if (device := gpu()) is None:
        return
    peak = product_rate(device)
    for name in NAMES:
        yield from step_rows(prepare(name, BATCH), name, device, SETTINGS, peak)


def product_rate(device: torch.device, side: int = SIDE) -> float:
    """Return the floating-point operations a second of a product of bfloat16 matrices."""
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / measure(lambda: left @ right, device).seconds


def step_rows(
    contest: Contest, name: str, device: torch.device, settings: tuple[Setting, ...], peak: float
) -> Iterator[Row]:
    """Measure training steps in every setting.

    Parameters
    ----------
    contest
        Ours is measured.
    name
        Of the model.
    device
        Where.
    settings
        Against `EAGER`.
    peak
        From `product_rate`.
    """
    with FlopCounterMode(display=False) as counter:
        training_step(contest, device, EAGER)()
    work, count = counter.get_total_flops(), len(next(iter(contest.inputs.values())))
    eager = measure(training_step(contest, device, EAGER), device)
    for setting in settings:
        found = measure(training_step(contest, device, setting), device)
        share = work / found.seconds / peak
        yield Row(
            f"{name} training, {setting.name}", "1/s", count / found.seconds,
            count / eager.seconds, None, "higher",
            f"images a second, batch of {count}, {share:.0%} of what a product of bfloat16 "
            "matrices reaches; peer: the same network, eager, float32",
        )  # fmt: skip
        yield Row(
            f"{name} memory, {setting.name}", "MB", found.memory / 1e6, eager.memory / 1e6, None,
            "lower", "most that the device held in a step; peer: eager, float32",
        )  # fmt: skip


def training_step(contest: Contest, device: torch.device, setting: Setting) -> Callable[[], Tensor]:
    """Return a function that takes a training step of our network and returns its loss."""
    options = replace(contest.ours.options, checkpointing=setting.checkpointing)
    network: nn.Module = build(options)
    network.load_state_dict(contest.ours.state_dict())
    network = network.to(device).train()
    order = torch.channels_last if setting.channels_last else torch.contiguous_format
    network = network.to(memory_format=order)  # type: ignore[call-overload]
    inputs = {
        key: value.to(device, memory_format=order) if value.dim() == 4 else value.to(device)
        for key, value in contest.inputs.items()
    }
    days = {key: value.to(device) for key, value in contest.days.items()}
    if setting.compiler is not None:
        network.compile(backend=setting.compiler, fullgraph=True)
    classes = next(iter(options.tasks.values()))
    size = (contest.side, contest.side)
    count = len(next(iter(inputs.values())))
    target = torch.randint(classes, (count, *size), device=device)
    return partial(_step, network, setting, inputs, days, target)


def _step(
    network: nn.Module,
    setting: Setting,
    inputs: Mapping[str, Tensor],
    days: Mapping[str, Tensor],
    target: Tensor,
) -> Tensor:
    with _precision(target.device, setting):
        scores = network(inputs, days, (target.shape[-2], target.shape[-1]))
        every = [*scores.main.values(), *scores.aux.values()]
        losses = [F.cross_entropy(one.float(), target, ignore_index=IGNORE_INDEX) for one in every]
        loss = torch.stack(losses).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    network.zero_grad(set_to_none=True)
    return loss.detach()


def _precision(device: torch.device, setting: Setting) -> AbstractContextManager[object]:
    if not setting.bfloat16:
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def measure(step: Callable[[], object], device: torch.device) -> Cost:
    """Return the median of some steps, after some that are not counted."""
    cuda = device.type == "cuda"
    for _ in range(WARMUP):
        step()
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(STEPS):
        started = time.perf_counter()
        step()
        if cuda:
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return Cost(median(seconds), torch.cuda.max_memory_allocated(device) if cuda else 0)


@benchmark
def device_streaming(workspace: Workspace) -> Iterator[Row]:
    """Batches that reach the device, and how long a step waits for its batch."""
    if (device := gpu()) is not None:
        yield from waiting_rows(realistic(workspace).root, device, build("LC-A"), LOWERED)


def waiting_rows(
    root: Path, device: torch.device, network: nn.Module, setting: Setting
) -> Iterator[Row]:
    """Stream aerial images and labels to the device, alone and with a training step on each."""
    bands = {"aerial_rgbi": ign.BANDS["aerial_rgbi"]}
    whole = PatchPlan.build(root, modalities=["aerial_rgbi"], bands=bands, labels=["cosia"])
    plan = epochs(whole)
    network = network.to(device).train()
    preparation = IgnPreparation(bands).to(device)

    def train(batch: MultimodalBatch) -> None:
        (labels,) = batch.labels.values()
        _step(network, setting, preparation(batch).inputs, {}, labels.long()).item()

    rate, _ = _run(plan, device, lambda _: None)
    yield Row(
        "batches into the device", "1/s", rate, None, None, "higher",
        f"aerial images and labels of {BATCH} patches, local, warm, no training",
    )  # fmt: skip
    rate, waited = _run(plan, device, train)
    yield Row(
        "wait of a training step", "%", 100 * waited, None, None, "lower",
        f"share of its time that passes before its batch is there; {setting.name}, "
        f"{rate:.2g} steps of {BATCH} patches a second",
    )  # fmt: skip


def _run(
    plan: PatchPlan, device: torch.device, work: Callable[[MultimodalBatch], None]
) -> tuple[float, float]:
    """Return batches a second, and the share of the time that was spent waiting for them."""
    batches = iter(stream(plan, batch_size=BATCH, device=device))
    waited, count, started = 0.0, 0, time.perf_counter()
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        waited += time.perf_counter() - asked
        if batch is None:
            break
        work(batch)
        count += 1
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - started
    return count / seconds, waited / seconds
