"""A stream goes on exactly where it was: other threads, other depth, another process."""

from __future__ import annotations

import asyncio
import json
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from benchmarks.objectserver import Faults, ObjectServer
from flairhub import PatchPlan
from flairhub.batches.batch import MultimodalBatch
from flairhub.batches.datamodule import FlairDataModule
from flairhub.batches.order import Shuffle
from flairhub.batches.plan import PatchWindow
from flairhub.batches.streaming import PatchStream, stream
from flairhub.config import DataConfig
from flairhub.errors import PlanError
from tests.processes import run

Seen = list[tuple[PatchWindow, ...]]


@pytest.fixture(scope="module")
def plan(store_root: Path) -> PatchPlan:
    return PatchPlan.build(store_root, modalities=["spot_rgbi"], window_m=51.2, labels=())


def _windows(batches: Sequence[MultimodalBatch]) -> Seen:
    return [batch.windows for batch in batches]


@pytest.mark.parametrize("shuffle", [False, True, "block"])
@pytest.mark.parametrize("world_size", [1, 3])
def test_resumes_at_any_batch(plan: PatchPlan, shuffle: Shuffle, world_size: int) -> None:
    read: list[PatchWindow] = []
    for rank in range(world_size):
        ranks = {"rank": rank, "world_size": world_size}
        how: dict[str, Any] = {"batch_size": 5, "shuffle": shuffle, **ranks}
        whole = _windows(list(stream(plan, **how, seed=3, epoch=2)))
        read += [window for batch in whole for window in batch]
        for stop in {1, len(whole) // 2, len(whole) - 1}:
            first = stream(plan, **how, seed=3, epoch=2, prefetch=3, threads=1)
            batches = iter(first)
            begun = _windows([next(batches) for _ in range(stop)])
            state = pickle.loads(pickle.dumps(first.state_dict()))
            batches.close()  # type: ignore[attr-defined]
            second = stream(plan, **how, seed=3, prefetch=40, threads=3)
            second.load_state_dict(state)
            assert begun + _windows(list(second)) == whole
            second.set_epoch(3)
            other = _windows(list(stream(plan, **how, seed=3, epoch=3)))
            assert _windows(list(second)) == other, "the next epoch is whole"
    assert len(read) == len(set(read)) == len(plan)


def test_ranks_may_change_between_epochs(plan: PatchPlan) -> None:
    alone = stream(plan, batch_size=4, shuffle=True, rank=0, world_size=1)
    next(iter(alone))
    state = alone.state_dict()
    with pytest.raises(PlanError, match="world_size was 1 and is 2"):
        stream(plan, batch_size=4, shuffle=True, rank=0, world_size=2).load_state_dict(state)
    list(alone)
    complete = alone.state_dict()
    alone.set_epoch(1)
    for state in (complete, alone.state_dict()):
        read = []
        for rank in range(2):
            part = stream(plan, batch_size=4, shuffle=True, rank=rank, world_size=2)
            part.load_state_dict(state)
            if state is complete:
                assert not list(part), "nothing was still to come"
            part.set_epoch(1)
            read += [w for batch in part for w in batch.windows]
        assert len(read) == len(set(read)) == len(plan)


def test_each_iteration_has_its_own_place(plan: PatchPlan) -> None:
    batches = stream(plan, batch_size=4, shuffle=True)
    whole = _windows(list(batches))
    outer = iter(batches)
    begun = _windows([next(outer) for _ in range(4)])
    next(iter(batches))
    assert batches.state_dict()["batches"] == 4, "a peek is no progress"
    resumed = stream(plan, batch_size=4, shuffle=True)
    resumed.load_state_dict(batches.state_dict())
    assert begun + _windows(list(resumed)) == whole
    kept = iter(batches)
    next(kept)
    begun += _windows([next(outer)])
    assert batches.state_dict()["batches"] == 5
    assert begun + _windows(list(outer)) == whole
    for number, _ in enumerate(zip(batches, batches, strict=True), start=1):
        assert batches.state_dict()["batches"] == number
    assert batches.state_dict()["batches"] == len(whole)
    for _ in batches:
        break
    assert batches.state_dict()["batches"] == 1, "another pass begins from the first"


def test_an_iteration_belongs_to_the_epoch_that_it_began_in(plan: PatchPlan) -> None:
    batches = stream(plan, batch_size=4, shuffle=True)
    begun = iter(batches)
    next(begun)
    batches.set_epoch(1)
    assert batches.state_dict()["batches"] == 0
    next(begun)
    state = batches.state_dict()
    assert (state["epoch"], state["batches"]) == (0, 2)


def test_another_plan_or_order_is_refused(plan: PatchPlan, store_root: Path) -> None:
    state = stream(plan, shuffle=True).state_dict()
    other = PatchPlan.build(store_root, modalities=["aerial_rgbi"], window_m=51.2, labels=())
    with pytest.raises(PlanError, match="plan was"):
        stream(other, shuffle=True).load_state_dict(state)
    with pytest.raises(PlanError, match="seed was 0 and is 1"):
        stream(plan, shuffle=True, seed=1).load_state_dict(state)


def test_workers_of_a_dataloader_share_the_batches(plan: PatchPlan) -> None:
    whole = stream(plan, batch_size=16, shuffle=True, seed=2)
    expected = _windows(list(whole))
    loader = DataLoader(
        whole, batch_size=None, num_workers=2, multiprocessing_context="spawn", collate_fn=_same
    )
    assert _windows(list(loader)) == expected


def _same(batch: Any) -> Any:  # noqa: ANN401 - as torch has it
    return batch


class Recorder(lightning.LightningModule):
    """Learns nothing, and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: Seen = []

    def training_step(self, batch: MultimodalBatch, number: int) -> torch.Tensor:
        self.seen.append(batch.windows)
        return self.layer(torch.ones(1, 1)).sum()  # type: ignore[no-any-return]

    def validation_step(self, batch: MultimodalBatch, number: int) -> None:
        """Read, as runs do between epochs."""

    def predict_step(self, batch: MultimodalBatch, number: int) -> int:
        return len(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train_on(
    batches: Any,  # noqa: ANN401 - a stream or a loader
    model: Recorder,
    folder: Path,
    *,
    every: int = 1000,
    ckpt_path: Path | None = None,
    **limits: int,
) -> lightning.Trainer:
    """Fit with nothing but checkpoints, every so many steps."""
    saved = ModelCheckpoint(folder, every_n_train_steps=every, save_top_k=-1, filename="{step}")
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[saved],
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        **limits,  # type: ignore[arg-type]
    )
    trainer.fit(model, batches, ckpt_path=ckpt_path, weights_only=False)
    return trainer


def _trainer(folder: Path, every: int) -> lightning.Trainer:
    saved = ModelCheckpoint(folder, every_n_train_steps=every, save_top_k=-1, filename="{step}")
    return lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        callbacks=[saved],
        enable_progress_bar=False,
        enable_model_summary=False,
    )


class Scheduled(Recorder):
    """Asks for the length of the run, as schedules do: Lightning then forgets loaders' states."""

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - as Lightning has it
        steps = int(self.trainer.estimated_stepping_batches)
        optimiser = torch.optim.SGD(self.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=steps)
        return [optimiser], [{"scheduler": schedule, "interval": "step"}]


@pytest.mark.filterwarnings("ignore")  # Lightning's advice, and torch's on Lightning
@pytest.mark.parametrize(("every", "recorder"), [(2, Recorder), (3, Recorder), (3, Scheduled)])
def test_lightning_resumes_inside_an_epoch(
    store_root: Path, tmp_path: Path, every: int, recorder: type[Recorder]
) -> None:
    config = DataConfig(
        root=str(store_root), modalities=("spot_rgbi",), batch_size=4, window_m=51.2
    )
    whole = recorder()
    _trainer(tmp_path / "whole", every).fit(whole, FlairDataModule(config, seed=4))
    per_epoch = len(whole.seen) // 3
    assert per_epoch > 3
    assert len({*whole.seen}) > per_epoch, "epochs differ"
    for checkpoint in (tmp_path / "whole").glob("step=*.ckpt"):
        step = int(checkpoint.stem.removeprefix("step="))
        resumed = recorder()
        _trainer(tmp_path / "more", 1000).fit(
            resumed, FlairDataModule(config, seed=4), ckpt_path=str(checkpoint), weights_only=False
        )
        assert whole.seen[:step] + resumed.seen == whole.seen, checkpoint.name


@pytest.mark.filterwarnings("ignore")  # Lightning's advice, and torch's on Lightning
def test_looking_at_a_checkpoint_moves_no_later_run(store_root: Path, tmp_path: Path) -> None:
    config = DataConfig(
        root=str(store_root), modalities=("spot_rgbi",), batch_size=4, window_m=51.2
    )
    whole, again = Recorder(), Recorder()
    data = FlairDataModule(config, seed=4)
    _trainer(tmp_path, 2).fit(whole, data)
    trainer = _trainer(tmp_path / "more", 1000)
    trainer.validate(whole, data, ckpt_path=str(tmp_path / "step=2.ckpt"), verbose=False)
    trainer.fit(again, data)
    assert again.seen == whole.seen


@pytest.mark.filterwarnings("ignore")  # Lightning's advice, and torch's on Lightning
def test_a_run_that_max_steps_ended_goes_on_inside_its_epoch(
    plan: PatchPlan, tmp_path: Path
) -> None:
    def made() -> PatchStream:
        return stream(plan, batch_size=8, shuffle=True, seed=5)

    per_epoch, last = len(made()), tmp_path / "last.ckpt"
    whole = Recorder()
    train_on(made(), whole, tmp_path, max_steps=3 * per_epoch)
    seen: Seen = []
    start = None
    # cut in the second epoch, again in the third, in which Lightning already counts the fourth
    for steps in (per_epoch + 3, 2 * per_epoch + 2, 3 * per_epoch):
        part = Recorder()
        batches = made()
        if start is None:
            trainer = train_on(batches, part, tmp_path, max_steps=steps)
        else:
            with pytest.warns(UserWarning, match=r"after [23] of \d+ batches of epoch [12]"):
                trainer = train_on(batches, part, tmp_path, max_steps=steps, ckpt_path=start)
        trainer.save_checkpoint(last)
        start = last
        seen += part.seen
    assert seen == whole.seen


KILLED = """
import os, signal, sys, warnings
from pathlib import Path
import lightning, torch
from lightning.pytorch.callbacks import ModelCheckpoint
from flairhub.batches.datamodule import FlairDataModule
from flairhub.config import DataConfig

warnings.simplefilter("ignore")
root, folder, log, stop = sys.argv[1], Path(sys.argv[2]), open(sys.argv[3], "a"), int(sys.argv[4])

class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, number):
        if self.global_step == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        print(self.global_step, *(w.extent.bbox for w in batch.windows), file=log, flush=True)
        return self.layer(torch.ones(1, 1)).sum()

    def validation_step(self, batch, number):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

last = folder / "last.ckpt"
config = DataConfig(root=root, modalities=("spot_rgbi",), batch_size=4, window_m=51.2)
lightning.Trainer(
    max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False,
    callbacks=[ModelCheckpoint(folder, every_n_train_steps=3, save_last=True)],
).fit(Model(), FlairDataModule(config, seed=9), ckpt_path=last if last.exists() else None,
      weights_only=False)
"""


def test_a_killed_run_sees_the_same_batches(store_root: Path, tmp_path: Path) -> None:
    def train(name: str, stop: int) -> int:
        command = [sys.executable, "-c", KILLED, str(store_root), str(tmp_path / name)]
        return run(*command, str(tmp_path / f"{name}.log"), str(stop)).returncode

    assert train("whole", -1) == 0
    whole = (tmp_path / "whole.log").read_text().splitlines()
    assert len(whole) > 12
    for stop in (5, len(whole) - 4):
        assert train("killed", stop) == -signal.SIGKILL
    assert train("killed", -1) == 0
    # what was read after the last checkpoint is read again; nothing else is
    seen = (tmp_path / "killed.log").read_text().splitlines()
    assert set(seen) == set(whole)
    by_step = {line.split()[0]: line for line in seen}
    assert list(by_step.values()) == whole
    assert len(whole) < len(seen) <= len(whole) + 2 * 3


INTERRUPTED = """
import sys, time
from flairhub import PatchPlan, stream
plan = PatchPlan.build(sys.argv[1], modalities=["spot_rgbi", "aerial_rgbi"])
batches = stream(plan, batch_size=1)
print("ready", flush=True)
while True:
    for batch in batches:
        time.sleep(0.01)
"""


def test_ctrl_c_ends_it(store_root: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(store_root)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130, 1)
    assert said.rstrip().endswith("KeyboardInterrupt")


LEFT = """
import json, sys, threading
from flairhub import PatchPlan, stream

options = json.loads(sys.argv[2])
plan = PatchPlan.build(sys.argv[1], modalities=["aerial_rgbi"], storage_options=options)
batches = stream(plan, batch_size=1, prefetch=4)
given = 0
try:
    while True:
        for batch in batches:
            given += 1
            if given == 2:
                print("ready", flush=True)
except KeyboardInterrupt:
    left = [t.name for t in threading.enumerate() if t.name.startswith("flairhub-")]
    print(left, flush=True)
    raise
"""


def test_ctrl_c_ends_an_epoch_on_object_storage(store_root: Path) -> None:
    with ObjectServer(store_root, latency_s=0.05) as server:
        options = json.dumps(server.storage_options)
        command = [sys.executable, "-c", LEFT, server.url, options]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            server.set(faults=Faults({"timeout": 1.0}))  # no answer may be waited for
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            out, said = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130, 1)
    assert out == "[]\n", "threads are left"
    assert said.rstrip().endswith("KeyboardInterrupt")


def test_a_stream_is_read_inside_a_running_event_loop(plan: PatchPlan, store_root: Path) -> None:
    """As in a cell of Jupyter, on files and on object storage."""

    async def cell(batches: PatchStream) -> Seen:
        return _windows(list(batches))

    with ObjectServer(store_root) as server:
        remote = PatchPlan.build(
            server.url,
            modalities=["spot_rgbi"],
            window_m=51.2,
            labels=(),
            storage_options=server.storage_options,
        )
        expected = _windows(list(stream(plan, batch_size=8)))
        for one in (plan, remote):
            assert asyncio.run(cell(stream(one, batch_size=8))) == expected


def test_streams_travel_to_other_processes(plan: PatchPlan) -> None:
    first = stream(plan, batch_size=8, shuffle=True)
    expected = _windows(list(first))
    copy: PatchStream = pickle.loads(pickle.dumps(first))
    assert _windows(list(copy)) == expected
