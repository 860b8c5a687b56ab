"""Processor time of IGN's networks: forward, and forward with backward."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.harness import Row, Workspace, benchmark, interleaved
from benchmarks.straightforward import Straightforward
from flairhub.modalities import get_modality
from flairhub.models import CARDS, IgnNetwork, build
from flairhub.models.ign.options import task_name

GOALS = {"LC-A": 1.3, "LC-G": 2.0, "LC-L": 1.5}
SAMPLES = {"LC-A": 5, "LC-G": 5, "LC-L": 2}
"""Five are a batch in IGN's training; a backward pass of five of LC-L takes more than 24 GiB."""
REPEATS = 2
DIFFERENCE = 1e-4
"""Greatest difference of two networks' scores, relative to the greatest score."""

CLEAR_DATES = (40, 31, 24, 36, 18)
"""Sentinel-2 dates that a filter of clouds leaves of five patches, a batch in IGN's training."""

DATES = {"sentinel2_ts": CLEAR_DATES, "sentinel1_asc_ts": (94,) * 5, "sentinel1_desc_ts": (94,) * 5}
"""Sentinel-1 is not filtered: 94 dates a ROI and orbit on average."""


@dataclass(frozen=True)
class Contest:
    """Two networks with the same weights, and what both are given.

    Parameters
    ----------
    ours, peer
        In evaluation mode, so that no chance comes in.
    inputs, days
        By modality key, padded.
    side
        Of the scores, pixels.
    """

    ours: IgnNetwork
    peer: Straightforward
    inputs: dict[str, Tensor]
    days: dict[str, Tensor]
    side: int

    def run_ours(self) -> Tensor:
        """Return our scores."""
        scores: Tensor
        (scores,) = self.ours(self.inputs, self.days, (self.side, self.side)).main.values()
        return scores

    def run_peer(self) -> Tensor:
        """Return the peer's scores."""
        named = [{get_modality(k).source_name: v for k, v in of.items()}
                 for of in (self.inputs, self.days)]  # fmt: skip
        scores: Tensor = self.peer(*named, self.side)[0]
        return scores

    @torch.inference_mode()
    def forward(self, *, ours: bool) -> float:
        """Return the processor seconds of a forward pass."""
        return _processor_seconds(self.run_ours if ours else self.run_peer)

    def backward(self, gradient: Tensor, *, ours: bool) -> float:
        """Return the processor seconds of a forward and a backward pass."""
        run = self.run_ours if ours else self.run_peer
        seconds = _processor_seconds(lambda: torch.autograd.backward(run(), gradient))
        (self.ours if ours else self.peer).zero_grad()
        return seconds


def _processor_seconds(function: Callable[[], object]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


def prepare(name: str, samples: int) -> Contest:
    """Return the contest of a published model, for random inputs of native sizes.

    As in the published files, models of many modalities have auxiliary heads.
    """
    card, chance = CARDS[name], torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    ours = build(name, aux=card.modalities if len(card.modalities) > 1 else ()).eval()
    options = ours.options
    names = {key: get_modality(key).source_name for key in options.modalities}
    (task, classes), *_ = options.tasks.items()
    peer = Straightforward(
        {names[k]: (options.bands_of(k), options.size_of(k)) for k in options.images},
        {names[k]: options.bands_of(k) for k in options.series},
        task_name(task),
        classes,
        options.encoder,
        aux=bool(options.aux),
    ).eval()
    peer.load_state_dict(ours.state_dict())
    inputs, days = {}, {}
    for key in options.modalities:
        shape = (options.bands_of(key), *2 * (options.size_of(key),))
        if key not in options.series:
            inputs[key] = torch.randn(samples, *shape, generator=chance)
            continue
        dates = DATES[key][:samples]
        inputs[key] = torch.zeros(samples, max(dates), *shape)
        days[key] = torch.zeros(samples, max(dates))
        for sample, count in enumerate(dates):
            inputs[key][sample, :count] = torch.randn(count, *shape, generator=chance)
            days[key][sample, :count] = torch.linspace(-134, 230, count).round()
    return Contest(ours, peer, inputs, days, get_modality("aerial_label_cosia").patch_px)


@benchmark
def models(_workspace: Workspace) -> Iterator[Row]:
    """LC-A, LC-G and LC-L against the network as its description reads, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # processor time of more holds their waiting for each other
    try:
        for name, goal in GOALS.items():
            yield from rows_of(prepare(name, SAMPLES[name]), name, goal)
    finally:
        torch.set_num_threads(threads)


def rows_of(contest: Contest, name: str, goal: float) -> Iterator[Row]:
    """Check that both networks give the same scores and measure them."""
    samples = len(next(iter(contest.inputs.values())))
    with torch.inference_mode():  # warms up, and checks
        scores, expected = contest.run_ours(), contest.run_peer()
    off = float((scores - expected).abs().max() / expected.abs().max())
    if off > DIFFERENCE:
        msg = f"{name} gives other scores than its peer: they differ by {off:.1e}"
        raise AssertionError(msg)
    gradient = torch.randn(scores.shape, generator=torch.Generator().manual_seed(1))
    forward = interleaved(
        {"ours": lambda: contest.forward(ours=True), "peer": lambda: contest.forward(ours=False)},
        REPEATS,
    )
    for ours in (True, False):  # the allocator must have met the backward pass, too
        contest.backward(gradient, ours=ours)
    both = interleaved(
        {
            "ours": lambda: contest.backward(gradient, ours=True),
            "peer": lambda: contest.backward(gradient, ours=False),
        },
        REPEATS,
    )
    for what, found in (("forward", forward), ("forward and backward", both)):
        yield Row(
            f"{name} {what}", "1/s", 1 / found["ours"], 1 / found["peer"], goal, "higher",
            f"per second of one core, batch of {samples}, float32; peer: the network as its "
            f"description reads; scores differ by {off:.0e}",
        )  # fmt: skip
