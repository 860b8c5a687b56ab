"""Worker processes around a stream: each rank's own batches, resumed, and never a hang."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import lightning
import pytest
from torch.utils.data import DataLoader

import flairhub
from benchmarks.objectserver import ObjectServer
from flairhub import PatchPlan, StreamLoader
from flairhub.batches.batch import MultimodalBatch
from flairhub.batches.streaming import PatchStream
from flairhub.errors import PlanError
from tests.test_resume import Recorder, Seen, train_on


@pytest.fixture(scope="module")
def plan(store_root: Path) -> PatchPlan:
    return PatchPlan.build(store_root, modalities=["spot_rgbi"], window_m=51.2, labels=())


def _stream(plan: PatchPlan, **how: object) -> PatchStream:
    return flairhub.stream(plan, batch_size=8, shuffle=True, seed=2, **how)  # type: ignore[arg-type]


def _seen(batches: list[MultimodalBatch]) -> Seen:
    return [batch.windows for batch in batches]


RANK = """
import json, os, sys
import torch
import flairhub
from torch.utils.data import DataLoader

def main():
    torch.distributed.init_process_group("gloo")
    plan = flairhub.PatchPlan.build(sys.argv[1], modalities=["spot_rgbi"], labels=())
    stream = flairhub.stream(plan, batch_size=2)
    how = {"batch_size": None, "multiprocessing_context": "spawn"}
    loader = DataLoader(stream, num_workers=1, **how)
    seen = [(w.roi, w.extent.left, w.extent.top) for batch in loader for w in batch.windows]
    with open(f"{sys.argv[2]}/{torch.distributed.get_rank()}", "w") as file:
        json.dump(seen, file)

if __name__ == "__main__":
    main()
"""


def test_workers_read_for_the_rank_that_starts_them(store_root: Path, tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    known = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(store_root), str(tmp_path)],
            env=os.environ | known | {"RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    seen = [tuple(w) for r in "01" for w in json.loads((tmp_path / r).read_text())]
    plan = PatchPlan.build(store_root, modalities=["spot_rgbi"], labels=())
    assert len(seen) == len(set(seen)) == len(plan)


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_a_loader_resumes_and_hears_of_epochs(plan: PatchPlan) -> None:
    whole = [_seen(list(_stream(plan, epoch=epoch))) for epoch in range(2)]
    first = StreamLoader(_stream(plan), num_workers=2)
    batches = iter(first)
    begun = _seen([next(batches) for _ in range(3)])
    state = first.state_dict()
    batches.close()  # type: ignore[attr-defined]
    assert state["batches"] == 3, "what the workers have read ahead was not given yet"
    second = StreamLoader(_stream(plan), num_workers=1)
    second.load_state_dict(state)
    assert begun + _seen(list(second)) == whole[0]
    assert second.state_dict()["batches"] == len(second) == len(whole[0])
    second.set_epoch(1)
    assert _seen(list(second)) == whole[1]


@pytest.mark.filterwarnings("ignore")  # Lightning's advice, and torch's on Lightning
def test_lightning_resumes_through_a_loader(plan: PatchPlan, tmp_path: Path) -> None:
    whole = Recorder()
    train_on(StreamLoader(_stream(plan)), whole, tmp_path, every=5, max_epochs=2)
    batches = _stream(plan)
    first = _seen(list(batches))
    batches.set_epoch(1)
    assert whole.seen == first + _seen(list(batches)), "every epoch has its order"
    resumed = Recorder()
    start = tmp_path / "step=5.ckpt"
    train_on(StreamLoader(_stream(plan)), resumed, tmp_path, max_epochs=1, ckpt_path=start)
    assert whole.seen[:5] + resumed.seen == first


def test_torchs_own_loader_says_what_it_lacks(
    plan: PatchPlan, capfd: pytest.CaptureFixture[str]
) -> None:
    batches = _stream(plan)
    expected = _seen(list(batches))
    how = {"batch_size": None, "multiprocessing_context": "spawn"}
    loader = DataLoader(batches, num_workers=2, persistent_workers=True, **how)  # type: ignore[arg-type]
    assert _seen(list(loader)) == expected
    assert capfd.readouterr().err.count("use flairhub.StreamLoader") == 1
    batches.set_epoch(1)
    with pytest.raises(PlanError, match="leave out persistent_workers"):
        list(loader)


def test_a_fork_on_object_storage_is_refused_and_does_not_hang(store_root: Path) -> None:
    with ObjectServer(store_root) as server:
        remote = PatchPlan.build(
            server.url, modalities=["spot_rgbi"], storage_options=server.storage_options
        )
        batches = flairhub.stream(remote, batch_size=2)
        assert list(batches)
        loader = DataLoader(batches, batch_size=None, num_workers=2, multiprocessing_context="fork")
        workers = iter(loader)
        with pytest.raises(PlanError, match="do not survive a fork"):
            next(workers)
        workers._shutdown_workers()  # type: ignore[attr-defined]  # they hold the pipes of the server
        # also where the stream is made in the child
        context = multiprocessing.get_context("fork")
        told = context.SimpleQueue()
        child = context.Process(target=_read, args=(remote, told))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        assert "do not survive a fork" in told.get()


def _read(plan: PatchPlan, told: multiprocessing.queues.SimpleQueue[str]) -> None:
    try:
        list(flairhub.stream(plan))
    except PlanError as error:
        told.put(str(error))


@pytest.mark.filterwarnings("ignore:torch's DataLoader")  # the worker inherits that it is an error
def test_files_are_read_after_a_fork(plan: PatchPlan) -> None:
    batches = _stream(plan)
    expected = _seen(list(batches))
    loader = DataLoader(batches, batch_size=None, num_workers=1, multiprocessing_context="fork")
    assert _seen(list(loader)) == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"persistent_workers": True}, "persistent_workers"),
        ({"multiprocessing_context": "fork"}, "'spawn'"),
        ({"batch_size": 4}, "flairhub.stream"),
    ],
)
def test_options_that_would_mislead_are_refused(
    plan: PatchPlan, options: dict[str, object], said: str
) -> None:
    with pytest.raises(PlanError, match=said):
        StreamLoader(_stream(plan), **options)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="not a PatchPlan"):
        StreamLoader(plan)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")  # Lightning's advice, and torch's on Lightning
def test_without_workers_a_loader_is_the_stream(plan: PatchPlan) -> None:
    loader = StreamLoader(_stream(plan), num_workers=0)
    expected = _seen(list(_stream(plan)))
    batches = iter(loader)
    begun = _seen([next(batches)])
    assert loader.state_dict()["batches"] == 1
    assert begun + _seen(list(batches)) == expected
    predicted = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    ).predict(Recorder(), loader)
    assert predicted is not None
    assert len(predicted) == len(expected)
