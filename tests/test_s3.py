"""Converting to, verifying on and reading from a real S3 API, which sometimes fails."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from email.message import Message
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import boto3
import pytest

import flairhub
from converters import lock
from converters.checksums import verify_checksums
from converters.convert import convert
from converters.flairhub_tree import FlairHubTree
from converters.lock import domain_lock
from converters.plan import plan
from converters.verify import verify
from flairhub.cli import run
from flairhub.errors import ConversionError, SourceDataError
from flairhub.store.access import resolve
from tests.trees import snapshot

BUCKET = "cubes"

Client = Any
"""boto3 is untyped."""


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of an empty bucket, and the environment that every S3 tool reads."""
    use(monkeypatch, s3_server)
    client = boto3.client("s3", endpoint_url=s3_server)
    client.create_bucket(Bucket=BUCKET)
    yield client
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for one in page.get("Contents", []):
            client.delete_object(Bucket=BUCKET, Key=one["Key"])
    client.delete_bucket(Bucket=BUCKET)


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)


def contents(client: Client, prefix: str = "") -> dict[str, bytes]:
    found = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
        for one in page.get("Contents", []):
            body = client.get_object(Bucket=BUCKET, Key=one["Key"])["Body"].read()
            found[one["Key"].removeprefix(prefix)] = body
    return found


def test_the_whole_way_on_s3(domain_tree: Path, domain_store: dict[str, bytes], s3: Client) -> None:
    root = f"s3://{BUCKET}/flair/store"
    assert run(["convert", str(domain_tree), root, "--workers", "2"]) == 0
    assert contents(s3, "flair/store/") == domain_store
    assert run(["verify", str(domain_tree), root, "--workers", "1"]) == 0
    domain = flairhub.open_domain(f"{root}/{FlairHubTree(domain_tree).domains()[0]}.zarr")
    name = next(iter(domain))
    assert domain[name]["spot_rgbi"]["spot_rgbi"].isel(band=0).to_numpy().any()
    again = convert(FlairHubTree(domain_tree), root)
    assert (again.rois, again.kept) == (0, 2)


def test_large_objects_go_in_parts(s3: Client) -> None:
    data = os.urandom(12 * 2**20)
    (resolve(f"s3://{BUCKET}/large", read_only=False) / "shard").write(data)
    found = s3.get_object(Bucket=BUCKET, Key="large/shard")
    assert found["Body"].read() == data
    assert found["ETag"].strip('"').endswith("-3")


def test_raw_files_are_read_from_s3(
    domain_tree: Path,
    domain_store: dict[str, bytes],
    s3: Client,
    tmp_path: Path,
) -> None:
    for path in sorted(p for p in domain_tree.rglob("*") if p.is_file()):
        s3.upload_file(str(path), BUCKET, f"raw/{path.relative_to(domain_tree)}")
    source = FlairHubTree(f"s3://{BUCKET}/raw")
    convert(source, str(tmp_path / "store"), workers=1)
    assert snapshot(tmp_path / "store") == domain_store
    with pytest.raises(SourceDataError, match="s3://cubes/none is not a folder"):
        FlairHubTree(f"s3://{BUCKET}/none")


def test_rot_on_s3_is_named(domain_tree: Path, s3: Client) -> None:
    root = f"s3://{BUCKET}/rot"
    convert(FlairHubTree(domain_tree), root, workers=1)
    key = next(k for k in contents(s3, "rot/") if "spot_rgbi/c/" in k)
    data = bytearray(s3.get_object(Bucket=BUCKET, Key=f"rot/{key}")["Body"].read())
    data[100] ^= 1
    s3.put_object(Bucket=BUCKET, Key=f"rot/{key}", Body=bytes(data))
    assert [finding.where for finding in verify_checksums(root).findings] == [key]


def test_a_wrong_bucket_says_so_at_once(
    domain_tree: Path,
    s3: Client,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert s3
    started = time.monotonic()
    assert run(["convert", str(domain_tree), "s3://no-such-bucket/store", "--workers", "1"]) == 1
    error = capsys.readouterr().err
    assert "no-such-bucket" in error
    assert "NoSuchBucket" in error or "not found" in error.lower()
    assert "testing" not in error, "no credentials in messages"
    assert "is kept" not in error, "nothing was finished"
    assert time.monotonic() - started < 60


def test_the_second_converter_is_refused(domain_tree: Path, s3: Client) -> None:
    root = f"s3://{BUCKET}/locked"
    source = FlairHubTree(domain_tree)
    (domain,) = source.domains()
    message = f"{domain} is being converted.*{os.getpid()}"
    with (
        domain_lock(resolve(root, read_only=False), domain),
        pytest.raises(ConversionError, match=message),
    ):
        convert(source, root, workers=1)
    assert not contents(s3, "locked/"), "the lease is given back"


def test_a_dead_owners_lease_is_taken_over(domain_tree: Path, s3: Client) -> None:
    import socket

    source = FlairHubTree(domain_tree)
    (domain,) = source.domains()
    dead = {"host": socket.gethostname(), "pid": 2**22 + 1, "token": "x"}
    s3.put_object(Bucket=BUCKET, Key=f"left/.{domain}.lock", Body=json.dumps(dead).encode())
    assert convert(source, f"s3://{BUCKET}/left", workers=1).rois == 2
    assert f".{domain}.lock" not in contents(s3, "left/")


class Flaky(BaseHTTPRequestHandler):
    """Passes requests on to a server; every n-th gets an error or no answer at all."""

    behind = ""
    every = 7
    requests = 0
    failed = 0
    late = 0.0
    modes: ClassVar[tuple[int, ...]] = (500, 503, 0)
    lock = threading.Lock()

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        with Flaky.lock:
            Flaky.requests += 1
            number = Flaky.requests
            broken = self.every and number % self.every == 0
            Flaky.failed += bool(broken)
        if broken and self.late:
            time.sleep(self.late)
        elif broken:
            mode = self.modes[(number // self.every) % len(self.modes)]
            if mode:
                self.send_response(mode)
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self.close_connection = True
                self.connection.close()
            return
        host = urlsplit(self.behind).netloc
        connection = HTTPConnection(host, timeout=30)
        headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
        connection.request(self.command, self.path, body, headers)
        found = connection.getresponse()
        self._reply(found.status, found.headers, found.read())
        connection.close()

    def _reply(self, status: int, headers: Message, body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else len(body)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):  # who asked may have given up
                self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def flaky(s3_server: str) -> Iterator[str]:
    Flaky.behind, Flaky.requests, Flaky.failed = s3_server, 0, 0
    Flaky.every, Flaky.late = 7, 0.0
    found = ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
    found.daemon_threads = True
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_port}"
    found.shutdown()
    found.server_close()


def test_errors_of_the_server_are_ridden_out(
    domain_tree: Path,
    domain_store: dict[str, bytes],
    s3: Client,
    flaky: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(monkeypatch, flaky)
    root = f"s3://{BUCKET}/flaky"
    convert(FlairHubTree(domain_tree), root, workers=1)
    assert Flaky.failed > 30, "the server did not fail"
    assert verify(FlairHubTree(domain_tree), root).passed
    assert contents(s3, "flaky/") == domain_store


def test_a_dry_run_counts_every_request_that_writes(
    domain_tree: Path, s3: Client, flaky: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert s3
    use(monkeypatch, flaky)
    Flaky.every = 0
    puts = []

    def put(handler: Flaky) -> None:
        puts.append(handler.path)
        handler.answer()

    monkeypatch.setattr(Flaky, "do_PUT", put)
    monkeypatch.setattr(lock, "RENEWED_EVERY_S", 1e6)
    source, root = FlairHubTree(domain_tree), f"s3://{BUCKET}/planned"
    planned = plan(source, root).total.puts
    assert not puts
    convert(source, root, workers=1)
    assert planned == len(puts)


def test_a_server_that_answers_late_is_asked_again(
    domain_tree: Path,
    domain_store: dict[str, bytes],
    s3: Client,
    flaky: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(monkeypatch, flaky)
    monkeypatch.setenv("AWS_TIMEOUT", "600ms")
    Flaky.every, Flaky.late = 40, 1.5
    root = f"s3://{BUCKET}/late"
    convert(FlairHubTree(domain_tree), root, workers=1)
    assert Flaky.failed > 4, "the server was never late"
    monkeypatch.undo()
    assert contents(s3, "late/") == domain_store


def test_a_server_that_never_answers_is_given_up(
    domain_tree: Path, s3: Client, flaky: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert s3
    use(monkeypatch, flaky)
    Flaky.every, Flaky.late = 1, 1.0
    soon = timedelta(milliseconds=10)
    backoff = {"init_backoff": soon, "max_backoff": 5 * soon, "base": 2}
    place = resolve(
        f"s3://{BUCKET}/never",
        storage_options={
            "client_options": {"timeout": "200ms", "allow_http": True},
            "retry_config": {"max_retries": 3, "backoff": backoff},
        },
        read_only=False,
    )
    with pytest.raises(ConversionError, match=r"after 3 retries.*run the same command again"):
        convert(FlairHubTree(domain_tree), place)
    assert Flaky.requests == 4, "asked once, and three times again"


@pytest.fixture
def guarded(s3_server: str) -> Iterator[None]:
    """The server knows nobody: every key is wrong."""

    def allow(actions: str) -> None:
        url, headers = f"{s3_server}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        urlopen(Request(url, actions.encode(), headers, method="POST")).close()

    allow("0")
    yield
    allow("inf")


@pytest.mark.usefixtures("s3")
def test_a_wrong_key_says_so_at_once(
    domain_tree: Path,
    flaky: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    request.getfixturevalue("guarded")
    use(monkeypatch, flaky)
    Flaky.every = 0
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-shown")
    assert run(["convert", str(domain_tree), f"s3://{BUCKET}/guarded", "--workers", "1"]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "403 Forbidden: InvalidAccessKeyId: The AWS Access Key Id you provided" in error
    assert "not-to-be-shown" not in error
    assert Flaky.requests == 1, "asking again does not make a key right"
    with pytest.raises(SourceDataError, match=r"guarded-raw cannot be listed: .* 403 Forbidden"):
        FlairHubTree(f"s3://{BUCKET}/guarded-raw")
