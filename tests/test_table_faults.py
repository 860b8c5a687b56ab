"""Storage fails while tables are read: ridden out, or one clear error that keeps secrets."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flairhub
from benchmarks.objectserver import SECRET, Faults, ObjectServer
from flairhub import PatchPlan
from flairhub.cli import run
from flairhub.errors import FlairHubError, NotInStoreError, ReadError, StoreLayoutError
from flairhub.store.access import resolve
from flairhub.store.tables import list_domains, read_table

PASSWORD = "hunter2"
NOWHERE = f"http://bob:{PASSWORD}@127.0.0.1:9/stores"
"""Nobody listens there."""

PASSING = ("500", "503", "slow_down", "429", "timeout", "cut", "short")
"""Faults of requests for whole objects that asking again overcomes."""


@pytest.fixture
def server(object_server: ObjectServer) -> ObjectServer:
    return object_server


def impatient(server: ObjectServer) -> dict[str, Any]:
    """Return options with which obstore gives up early, and leaves asking again to us."""
    options = server.storage_options
    options["client_options"] |= {"timeout": "1s"}
    options["retry_config"] = {"max_retries": 0}
    return options


def build(server: ObjectServer, **options: Any) -> PatchPlan:  # noqa: ANN401 - PatchPlan.build's
    return PatchPlan.build(
        server.url, modalities=["spot_rgbi"], storage_options=impatient(server), **options
    )


def refused(action: Callable[[], object]) -> str:
    """Return the one error that an action ends with, which tells no secret and is short."""
    with pytest.raises(FlairHubError) as caught:
        action()
    message = str(caught.value)
    assert len(message.splitlines()) <= 2
    assert len(message) < 700
    told = "".join(traceback.format_exception(caught.value))
    assert PASSWORD not in told
    assert SECRET not in told
    return message


@pytest.mark.parametrize("kind", PASSING)
def test_what_passes_is_ridden_out(server: ObjectServer, store_root: Path, kind: str) -> None:
    expected = PatchPlan.build(store_root, modalities=["spot_rgbi"]).fingerprint
    for seed in range(20):
        server.set(faults=Faults({kind: 0.4}, seed=seed, only=".parquet"))
        assert build(server).fingerprint == expected
        if server.counts().faults.get(kind, 0) >= 2:
            return
    pytest.fail("the server did not fail")


def test_the_network_comes_back(server: ObjectServer, store_root: Path) -> None:
    server.lose(2.0)
    assert len(build(server)) == len(PatchPlan.build(store_root, modalities=["spot_rgbi"]))


@pytest.mark.long
def test_the_network_comes_back_after_ten_seconds(server: ObjectServer, store_root: Path) -> None:
    server.lose(10.0)
    assert len(build(server)) == len(PatchPlan.build(store_root, modalities=["spot_rgbi"]))


@pytest.mark.parametrize("kind", PASSING)
def test_what_does_not_pass_is_one_clear_error(server: ObjectServer, kind: str) -> None:
    server.set(faults=Faults({kind: 1.0}, only=".parquet"))
    message = refused(lambda: build(server, retry_s=0.3))
    assert "s3://bucket/D" in message
    assert "within 0.3 s" in message
    assert "retry_s" in message


def test_a_refusal_is_not_asked_again(server: ObjectServer) -> None:
    server.set(faults=Faults({"403": 1.0}, only=".parquet"))
    assert "s3://bucket/D" in refused(lambda: build(server))
    assert server.counts().requests_of(".parquet") <= 2, "one a domain"


def test_a_network_that_does_not_come_back_is_given_up(store_root: Path) -> None:
    with ObjectServer(store_root) as server:
        server.lose(1000.0)
        assert "s3://bucket could not be read" in refused(lambda: build(server, retry_s=0.3))


def test_a_missing_bucket_says_so(server: ObjectServer) -> None:
    options = server.storage_options
    for url in ("s3://no-such/stores", "s3://no-such/stores/D001-2019.zarr"):
        message = refused(
            lambda url=url: PatchPlan.build(  # type: ignore[misc]
                url, modalities=["spot_rgbi"], storage_options=options
            )
        )
        assert "s3://no-such/stores" in message
        assert "NoSuchBucket" in message


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (NOWHERE, "127.0.0.1:9/stores"),
        (f"{NOWHERE}/D024047-2021.zarr", "127.0.0.1:9/stores/D024047-2021"),
        (f"https://a.fr/D024047-2021.zarr?sig={PASSWORD}", "query"),
        (f"s3://bucket/stores?X-Amz-Signature={PASSWORD}", "query"),
        (f"foo://bob:{PASSWORD}@host/stores", "foo://host/stores"),
        (f"foo://bob:{PASSWORD}@{PASSWORD}@host/stores", "foo://host/stores"),
        (f"ftp://bob:{PASSWORD}@127.0.0.1:9/a/stores", "ftp://127.0.0.1:9/a/stores"),
        ("s3://", "s3://"),
    ],
)
def test_no_url_tells_its_secrets(url: str, words: str) -> None:
    message = refused(lambda: PatchPlan.build(url, modalities=["spot_rgbi"], retry_s=0.3))
    assert words in message


@pytest.mark.parametrize("command", ["bench", "info"])
def test_no_command_tells_them_either(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"https://a.invalid/D024047-2021.zarr?sig={PASSWORD}"
    assert run([command, url]) == 1
    said = capsys.readouterr()
    assert "query" in said.err
    assert PASSWORD not in said.err + said.out


def test_a_web_server_that_lists_nothing(store_root: Path) -> None:
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(store_root)))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{http.server_port}"
    options = {"retry_config": {"max_retries": 0}}
    try:
        with pytest.raises(ReadError, match=r"give the URLs of the stores"):
            list_domains(resolve(f"{url}/", storage_options=options))
        domain = sorted(store_root.glob("*.zarr"))[0]
        how: dict[str, Any] = {"modalities": ["spot_rgbi"], "storage_options": options}
        remote = PatchPlan.build(f"{url}/{domain.name}", **how)
        assert remote.fingerprint == PatchPlan.build(domain, modalities=["spot_rgbi"]).fingerprint
        with pytest.raises(NotInStoreError, match=r"D001-1999.*Complete domains: not known"):
            PatchPlan.build(f"{url}/D001-1999.zarr", **how)
    finally:
        http.shutdown()
        http.server_close()


def test_a_damaged_table_is_named(store_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    for path in store_root.glob("*.parquet"):
        shutil.copy(path, root)
    path = sorted(root.glob("*.patches.parquet"))[0]
    whole = path.read_bytes()
    middle = len(whole) // 2
    overwritten = b"\xff" * middle + whole[middle:]
    for damaged in (b"", whole[:middle], whole[:-40] + bytes(40), overwritten):
        path.write_bytes(damaged)
        with pytest.raises(StoreLayoutError, match=f"{path.name} is damaged"):
            PatchPlan.build(root, modalities=["spot_rgbi"])


def test_a_table_without_a_column_says_which(store_root: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    for path in store_root.glob("*.parquet"):
        table = pq.read_table(path)
        if path.name.endswith(".patches.parquet"):
            table = table.drop_columns(["cloud_percent"])
        pq.write_table(table, tmp_path / path.name)
    with pytest.raises(StoreLayoutError, match=r"has no column cloud_percent") as caught:
        PatchPlan.build(tmp_path, modalities=["sentinel2_ts"], max_cloud=40)
    assert len(str(caught.value)) < 300


_INTERRUPTED = """
import sys, flairhub
from benchmarks.objectserver import ObjectServer
server = ObjectServer(".")
server.port = int(sys.argv[1])
print("planning", flush=True)
flairhub.PatchPlan.build(
    server.url, modalities=["spot_rgbi"], storage_options=server.storage_options, retry_s=600
)
"""


def test_a_plan_is_interrupted_while_storage_is_silent(server: ObjectServer) -> None:
    server.set(faults=Faults({"timeout": 1.0}, only=".parquet"))
    command = [sys.executable, "-c", _INTERRUPTED, str(server.port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"planning\n"
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        # generous; nobody may wait for answers, which would be minutes
        _, said = process.communicate(timeout=20)
    assert said.rstrip().endswith(b"KeyboardInterrupt")


def test_tables_are_read_in_one_request_each(server: ObjectServer) -> None:
    build(server)
    assert server.counts().requests_of(".parquet") == 4
    store = resolve(server.url, storage_options=server.storage_options)
    domain = list_domains(store)[0]
    server.reset()
    assert len(read_table(store, domain, "rois")) == 2
    assert server.counts().total == 1


def test_opening_a_domain_rides_out_too(server: ObjectServer) -> None:
    server.set(faults=Faults({"503": 0.5}, seed=2, only=".parquet"))
    for domain in list_domains(resolve(server.url, storage_options=impatient(server))):
        found = flairhub.open_domain(
            f"{server.url}/{domain}.zarr", storage_options=impatient(server)
        )
        assert len(found.patches) == found.rois["patches"].sum()
    assert server.counts().faults.get("503")
