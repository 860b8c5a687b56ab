"""The server that streaming is measured and tested against does what it is told to do."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path

import boto3
import obstore
import pytest
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

import flairhub
from benchmarks.objectserver import BUCKET, KINDS, SECRET, Faults, ObjectServer

DATA = os.urandom(300_000)
KEY = "a/c/0/shard"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("objects")
    (root / "a/c/0").mkdir(parents=True)
    (root / KEY).write_bytes(DATA)
    (root / "a/zarr.json").write_bytes(b"{}")
    (root / "empty").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[ObjectServer]:
    with ObjectServer(folder) as server:
        yield server


@pytest.fixture
def server(running: ObjectServer) -> ObjectServer:
    running.set(latency_s=0.0, bandwidth=None, total_bandwidth=None, faults=Faults())
    running.reset()
    return running


@pytest.fixture
def store(server: ObjectServer) -> ObjectStore:
    return from_url(server.url, retry_config={"max_retries": 0}, **server.storage_options)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    body: bytes


class Client:
    """Asks over one connection, without retries or checks of its own."""

    def __init__(self, server: ObjectServer) -> None:
        self.connection = HTTPConnection("127.0.0.1", server.port, timeout=0.5)

    def ask(
        self, key: str = KEY, span: str = "bytes=100-199", method: str = "GET", if_match: str = ""
    ) -> Answer:
        given = {"Range": span, "If-Match": if_match}
        sent = {name: value for name, value in given.items() if value}
        self.connection.request(method, f"/{BUCKET}/{key}", headers=sent)
        with self.connection.getresponse() as reply:
            return Answer(reply.status, reply.headers, reply.read())

    def close(self) -> None:
        self.connection.close()


def ask(server: ObjectServer, span: str = "bytes=100-199") -> Answer:
    with closing(Client(server)) as client:
        return client.ask(span=span)


@pytest.fixture
def client(server: ObjectServer) -> Iterator[Client]:
    with closing(Client(server)) as found:
        yield found


@pytest.mark.parametrize(
    ("span", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=100-199", slice(100, 200)),
        ("bytes=299990-", slice(299_990, None)),
        ("bytes=299990-999999", slice(299_990, None)),
        ("bytes=-4", slice(-4, None)),
        ("bytes=-999999", slice(None)),
    ],
)
def test_ranges(client: Client, span: str, part: slice) -> None:
    reply = client.ask(span=span)
    start, stop, _ = part.indices(len(DATA))
    assert reply.status == 206
    assert reply.body == DATA[part]
    assert reply.headers.get("Content-Range") == f"bytes {start}-{stop - 1}/{len(DATA)}"


def test_whole_objects_conditions_and_what_is_not_there(client: Client) -> None:
    reply = client.ask(span="")
    assert (reply.status, reply.body) == (200, DATA)
    etag = reply.headers["ETag"]
    assert client.ask(if_match=etag).body == DATA[100:200]
    for status, found in (
        (412, client.ask(if_match='"other"')),
        (416, client.ask(span="bytes=300000-")),
        (404, client.ask("none")),
        (404, client.ask("a")),  # a folder
        (404, client.ask("../secret")),
        (501, client.ask(method="DELETE")),
    ):
        assert found.status == status
        assert b"<Code>" in found.body
    head = client.ask(span="", method="HEAD")
    assert (head.headers["Content-Length"], head.body) == (str(len(DATA)), b"")
    assert client.ask("empty", span="").body == b""


def test_obstore_lists_and_reads(store: ObjectStore, folder: Path) -> None:
    assert bytes(obstore.get_range(store, KEY, start=5, end=50)) == DATA[5:50]
    assert bytes(obstore.get(store, KEY).bytes()) == DATA
    assert bytes(obstore.get(store, KEY, options={"range": {"suffix": 10}}).bytes()) == DATA[-10:]
    assert obstore.head(store, KEY)["size"] == len(DATA)
    with pytest.raises(FileNotFoundError):
        obstore.head(store, "none")
    assert [o["path"] for o in obstore.list(store).collect()] == [KEY, "a/zarr.json", "empty"]
    below = obstore.list_with_delimiter(store, "a")
    assert (below["common_prefixes"], [o["path"] for o in below["objects"]]) == (
        ["a/c"],
        ["a/zarr.json"],
    )
    many = folder / "many"
    many.mkdir()
    for number in range(1203):
        (many / f"{number:04}").touch()
    assert len(obstore.list(store, "many").collect()) == 1203, "more than a page"


def test_boto_reads(server: ObjectServer) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id="reader",
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )
    assert client.get_object(Bucket=BUCKET, Key=KEY, Range="bytes=1-9")["Body"].read() == DATA[1:10]
    assert client.list_objects_v2(Bucket=BUCKET, Prefix="a/")["KeyCount"] == 2


def test_stores_stream_from_it(store_root: Path) -> None:
    with ObjectServer(store_root) as server:
        plans = [
            flairhub.PatchPlan.build(url, modalities=["spot_rgbi"], storage_options=options)
            for url, options in ((store_root, {}), (server.url, server.storage_options))
        ]
        batches = [list(flairhub.stream(plan, batch_size=3)) for plan in plans]
        counts = server.counts()
    for ours, theirs in zip(*batches, strict=True):
        assert ours.inputs["spot_rgbi"].equal(theirs.inputs["spot_rgbi"])
        assert ours.labels["cosia"].equal(theirs.labels["cosia"])
    assert counts.requests_of("/c/") >= 2 * len(plans[1].rois), "an index a raster and ROI"
    assert not counts.faults


def test_everything_is_counted(server: ObjectServer, client: Client) -> None:
    for _ in range(3):
        client.ask()
    client.ask("a/zarr.json", span="")
    counts = server.counts()
    assert counts.requests == {KEY: 3, "a/zarr.json": 1}
    assert counts.sent == {KEY: 300, "a/zarr.json": 2}
    assert (counts.total, counts.total_bytes, counts.requests_of("/c/")) == (4, 302, 3)
    assert len(counts.seconds) == 4
    assert 0 < counts.percentile(50) <= counts.percentile(100) == max(counts.seconds)
    assert counts.most_at_once == 1
    server.reset()
    assert server.counts().total == 0


def test_latency_counts_once_for_requests_at_the_same_time(server: ObjectServer) -> None:
    server.set(latency_s=0.2)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: ask(server).body, range(16)))
    counts = server.counts()
    assert min(counts.seconds) >= 0.2
    assert counts.most_at_once > 8
    assert sum(counts.seconds) > 16 * 0.2


@pytest.mark.parametrize(
    ("name", "at_once", "least"), [("bandwidth", 2, 0.3), ("total_bandwidth", 2, 0.5)]
)
def test_bandwidth_is_kept(server: ObjectServer, name: str, at_once: int, least: float) -> None:
    server.set(**{name: 1e6})
    with ThreadPoolExecutor(at_once) as pool:
        found = list(pool.map(lambda _: ask(server, "").body, range(at_once)))
    assert found == [DATA] * at_once
    assert server.counts().percentile(100) >= least


def test_statuses(server: ObjectServer, client: Client) -> None:
    for kind, status, code in (
        ("500", 500, b"InternalError"),
        ("503", 503, b"ServiceUnavailable"),
        ("slow_down", 503, b"SlowDown"),
        ("429", 429, b"TooManyRequests"),
        ("403", 403, b"ExpiredToken"),
        ("404", 404, b"NoSuchKey"),
    ):
        server.set(faults=Faults({kind: 1.0}))
        reply = client.ask()
        assert reply.status == status
        assert b"<Code>%s</Code>" % code in reply.body
    kinds = ("500", "503", "slow_down", "429", "403", "404")
    assert server.counts().faults == dict.fromkeys(kinds, 1)


def test_bodies_that_end_early(server: ObjectServer) -> None:
    for kind, error in (("cut", ConnectionResetError), ("short", IncompleteRead)):
        server.set(faults=Faults({kind: 1.0}))
        server.reset()
        with pytest.raises((error, IncompleteRead)):
            ask(server, "bytes=0-")
        assert server.counts().sent[KEY] < len(DATA), kind
    server.set(faults=Faults({"fewer": 1.0}))
    reply = ask(server)
    assert reply.headers["Content-Range"] == f"bytes 100-199/{len(DATA)}"
    assert (reply.headers.get("Content-Length"), reply.body) == ("66", DATA[100:166])


def test_no_answer_at_all(server: ObjectServer, client: Client) -> None:
    server.set(faults=Faults({"timeout": 1.0}))
    with pytest.raises(TimeoutError):
        client.ask()
    assert server.counts().faults == {"timeout": 1}


def test_other_bytes_than_were_asked_for(server: ObjectServer, client: Client) -> None:
    server.set(faults=Faults({"wrong_range": 1.0}))
    reply = client.ask()
    assert reply.headers.get("Content-Range") == f"bytes 151-250/{len(DATA)}"
    assert reply.body == DATA[151:251]
    server.set(faults=Faults({"wrong_bytes": 1.0}))
    reply = client.ask()
    assert reply.headers.get("Content-Range") == f"bytes 100-199/{len(DATA)}"
    assert reply.body == DATA[151:251]
    for span in ("bytes=299900-299999", "bytes=-1", "bytes=1-299999"):
        assert client.ask(span=span).body not in (DATA[-100:], DATA[-1:], DATA[1:]), span
    assert client.ask(span="bytes=0-").body == DATA, "there is no other range of this length"
    server.set(faults=Faults({"whole": 1.0}))
    reply = client.ask()
    assert (reply.status, reply.body) == (200, DATA)


def test_objects_that_change(server: ObjectServer, client: Client, folder: Path) -> None:
    reply = client.ask()
    etag, right = reply.headers["ETag"], reply.body
    server.set(faults=Faults({"changed": 1.0}))
    reply = client.ask()
    assert reply.headers.get("ETag") != etag
    other = reply.body
    assert len(other) == len(right)
    assert other != right
    reply = client.ask(if_match=etag)
    assert reply.status == 412
    server.set(faults=Faults())
    (folder / "new").write_bytes(DATA)
    (folder / "new").replace(folder / KEY)
    reply = client.ask()
    assert reply.headers.get("ETag") != etag, "a file that is replaced is another object"
    assert reply.body == right


def test_the_network_is_lost_for_a_while(
    server: ObjectServer, store: ObjectStore, client: Client
) -> None:
    client.ask()
    server.lose(0.5)
    with pytest.raises((ConnectionError, OSError)):
        client.ask()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)
    with pytest.raises(BaseError):
        obstore.get_range(store, KEY, start=0, end=10)
    for _ in range(100):
        try:
            assert ask(server).body == DATA[100:200]
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    else:
        pytest.fail("the server did not come back")


def test_faults_are_a_function_of_the_request(server: ObjectServer, client: Client) -> None:
    faults = Faults({"500": 0.1, "503": 0.1}, seed=3, only="/c/")
    server.set(faults=faults)
    spans = [f"bytes={start}-{start + 9}" for start in range(500)]

    def statuses(order: list[str]) -> dict[str, int]:
        found = {}
        for span in order:
            found[span] = client.ask(span=span).status
        return found

    first = statuses(spans)
    second = statuses(spans)
    server.set(faults=faults)
    assert statuses(spans[::-1]) == first, "the order does not matter"
    assert second != first, "asking again may help"
    assert {list(first.values()).count(status) // 25 for status in (500, 503)} <= {1, 2}
    assert all(client.ask("a/zarr.json", span="").body == b"{}" for _ in range(30))


@pytest.mark.parametrize("shares", [{"fire": 0.1}, {"500": -0.1}, {"500": 0.6, "503": 0.6}])
def test_faults_that_are_none_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"no fault 'fire'|from 0 to 1"):
        Faults(shares)
    assert len(set(KINDS)) == len(KINDS)


def test_the_process_ends_with_its_block(folder: Path) -> None:
    with ObjectServer(folder) as server:
        process = server._process
        with pytest.raises(TypeError, match="no setting 'delay'"):
            server.set(delay=1)
    assert process is not None
    assert process.returncode == 0
    with pytest.raises(RuntimeError, match="with block"):
        server.counts()
