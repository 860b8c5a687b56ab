"""Patches a second from object storage that takes its time, and what that asks of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from benchmarks.harness import Row, Workspace, benchmark, interleaved
from benchmarks.objectserver import SECRET, ObjectServer
from benchmarks.peers import litdata_copy
from benchmarks.peers.content import AERIAL, ALL, WORKERS
from benchmarks.streaming import BATCH, EPOCHS, THREADS, best, epochs, rate, realistic
from flairhub.batches.streaming import stream

LATENCY_S = 0.03
DEPTH = 64
"""Windows in flight: at 30 ms, enough for what the decoders take."""

GOALS = {("all modalities", "global"): 10.3, ("aerial and labels", "global"): 2.1}
GOALS |= {("all modalities", "block"): 2.5, ("aerial and labels", "block"): 0.6}


@benchmark
def remote(workspace: Workspace) -> Iterator[Row]:
    """Shuffled epochs from a server of ranged reads on this machine."""
    workspace = realistic(workspace)
    with ObjectServer(workspace.root) as server:
        yield from _requests(server)
        yield from _throughput(server, workspace)
        server.set(latency_s=LATENCY_S)
        yield from _fresh(server)


def _requests(server: ObjectServer) -> Iterator[Row]:
    for name, content in (("all modalities", ALL), ("aerial and labels", AERIAL)):
        plan = content.plan(server.url, server.storage_options)
        for order in ("global", "block"):
            server.reset()
            batches = stream(
                plan,
                batch_size=BATCH,
                shuffle=True if order == "global" else "block",
                threads=THREADS,
                prefetch=DEPTH,
            )
            count = sum(map(len, batches))
            yield Row(
                f"reads, {name}, {order}", "requests", server.counts().requests_of("/c/") / count,
                None, GOALS[name, order], "lower",
                f"ranged reads a patch of one epoch of {count} patches, shard indexes included",
            )  # fmt: skip


def _throughput(server: ObjectServer, workspace: Workspace) -> Iterator[Row]:
    copies = workspace.scratch / "litdata-zstd"
    litdata_copy.write(workspace.root, ALL, copies, copies=EPOCHS, compression="zstd")
    plan = ALL.plan(server.url, server.storage_options)
    read = partial(stream, batch_size=BATCH, threads=THREADS, prefetch=DEPTH)
    batches, blocks = read(epochs(plan)), read(plan, shuffle="block")

    def ours(latency_s: float) -> float:
        server.set(latency_s=latency_s)
        return rate(batches)

    def in_blocks() -> float:
        server.set(latency_s=LATENCY_S)
        return rate(batch for _ in range(EPOCHS) for batch in blocks)

    spawn = get_context("spawn")
    with (
        ObjectServer(copies, latency_s=LATENCY_S) as other,
        # it forks its workers, which a process whose client has started its threads must not do
        ProcessPoolExecutor(1, spawn) as alone,
        ProcessPoolExecutor(1, spawn) as shared,
    ):
        options = {
            "endpoint_url": other.endpoint,
            "aws_access_key_id": "reader",
            "aws_secret_access_key": SECRET,
            "region_name": "us-east-1",
        }

        def litdata(workers: int) -> float:
            pool = shared if workers else alone
            return pool.submit(
                litdata_copy.remote_rate, other.url, options, workspace.scratch, BATCH, workers
            ).result()

        contestants: dict[str, Callable[[], float]] = {"blocks": in_blocks}
        contestants |= {"at once": partial(ours, 0.0), "at 30 ms": partial(ours, LATENCY_S)}
        contestants |= {f"litdata {workers}": partial(litdata, workers) for workers in WORKERS}
        for measure in contestants.values():
            measure()  # opens ROIs and connections, imports
        found = interleaved(contestants, repeats=3)
    peer, words = best(found, "litdata")
    orders = (
        ("in blocks", "blocks", 1.5, "neighbours are shuffled together, as in litdata's chunks"),
        ("any order", "at 30 ms", None, "our patches come in any order, litdata's chunk by chunk"),
    )
    for order, name, goal, note in orders:
        yield Row(
            f"stream/litdata, 30 ms, {order}", "patches/s", found[name], peer, goal, "higher",
            f"all modalities, 30 ms a request; {note}; peer: litdata over a copy with zstd, its "
            f"cache empty, {words}",
        )  # fmt: skip
    yield Row(
        "stream, 30 ms/0 ms", "patches/s", found["at 30 ms"], found["at once"], 0.9, "higher",
        f"all modalities, {DEPTH} windows read ahead; peer: the same without latency",
    )  # fmt: skip


def _fresh(server: ObjectServer) -> Iterator[Row]:
    """Measure what only a process of its own tells."""
    command = [sys.executable, "-c", _FRESH, server.endpoint]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, peak = map(float, done.stdout.split())
    yield Row(
        "memory of a stream", "MB", peak, None, 400, "lower",
        "peak above the imports over an epoch, all modalities, batches of 16, 16 windows ahead",
    )  # fmt: skip
    yield Row(
        "first batch", "s", first, None, None, "lower",
        "from planning to 16 patches of all modalities, 30 ms a request, nothing open or cached",
    )  # fmt: skip


_FRESH = """
import sys, time
import flairhub.batches.streaming, obstore.store
from benchmarks.objectserver import ObjectServer
from benchmarks.peers.content import ALL
from benchmarks.remote import memory_mb
imported = memory_mb("VmRSS")
server = ObjectServer(".")
server.port = int(sys.argv[1].rpartition(":")[2])
started = time.perf_counter()
plan = ALL.plan(server.url, server.storage_options)
first = None
for batch in flairhub.stream(plan, batch_size=16, shuffle=True, prefetch=16):
    first = first or time.perf_counter() - started
print(first, memory_mb("VmHWM") - imported)
"""


def memory_mb(kind: str) -> float:
    """Return this process's memory now (``VmRSS``), or the most that it ever had (``VmHWM``)."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(kind)) / 1e3
