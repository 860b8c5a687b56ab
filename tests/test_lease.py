"""On object storage a converter that was stopped for long has lost its domain, and leaves it be."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import obstore
import pytest
from zarr.storage import ObjectStore

from converters import lock
from converters.convert import convert
from converters.flairhub_tree import FlairHubTree
from converters.lock import Claim, domain_lock
from converters.selection import Selection
from flairhub.cli import run
from flairhub.errors import ConversionError
from flairhub.ids import DomainId
from flairhub.store.access import Location, resolve

ROOT = "s3://leases/store"
DOMAIN = DomainId.parse("D012-2019")

PAUSED = """
import importlib, os, signal, sys
from converters import lock
lock.RENEWED_EVERY_S, lock.STALE_AFTER_S = 0.2, 1.0
place, calls = sys.argv[1], int(sys.argv[2])
module = importlib.import_module(place.partition(":")[0])
name = place.partition(":")[2]
real = getattr(module, name)
def paused(*arguments, **options):
    global calls
    calls -= 1
    if calls == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
    return real(*arguments, **options)
setattr(module, name, paused)
from flairhub.cli import run
sys.exit(run(sys.argv[3:]))
"""
"""Converts, with a short lease, and stops itself at the n-th call of a function."""


CONVERT = ["convert", "--workers=1", "--modalities=spot_rgbi,dem_elev"]
"""What is converted here: enough to go wrong, little to wait for."""


@pytest.fixture(scope="module")
def expected(domain_tree: Path) -> dict[str, bytes]:
    """What an undisturbed conversion leaves."""
    place = resolve("memory://undisturbed/store", read_only=False)
    convert(FlairHubTree(domain_tree), place, Selection(modalities=["spot_rgbi", "dem_elev"]))
    return _everything(place)


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Location]:
    """The target, empty, in a process whose leases are short."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(lock, "RENEWED_EVERY_S", 0.2)
    monkeypatch.setattr(lock, "STALE_AFTER_S", 1.0)
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket="leases")
    place = resolve(ROOT, read_only=False)
    yield place
    place.delete_tree()


def _everything(place: Location) -> dict[str, bytes]:
    return {key: (place / key).read() for key in place.objects()}


def _stopped(process: subprocess.Popen[str]) -> bool:
    """Wait until a process has stopped itself; False if it ended instead."""
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    return os.WIFSTOPPED(status)


@pytest.mark.parametrize(
    ("place", "calls"),
    [
        ("converters.convert:roi_jobs", 1),
        ("converters.engine:_attempt", 2),
        ("converters.roi:consolidated", 1),
        ("converters.convert:receipt_at", 1),
    ],
    ids=["before anything", "before a ROI", "before it is visible", "before the tables"],
)
def test_who_was_stopped_leaves_the_store_of_the_next_alone(
    domain_tree: Path, expected: dict[str, bytes], bucket: Location, place: str, calls: int
) -> None:
    command = [sys.executable, "-c", PAUSED, place, str(calls), *CONVERT, str(domain_tree), ROOT]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert _stopped(process)
        time.sleep(2.5)  # past its lease; object storage tells whole seconds
        assert run([*CONVERT, str(domain_tree), ROOT]) == 0
        assert _everything(bucket) == expected
    finally:
        process.send_signal(signal.SIGCONT)
        _, errors = process.communicate()
    assert process.returncode == 1
    assert "no longer this process's to write" in " ".join(errors.split())
    assert _everything(bucket) == expected


def test_who_was_stopped_goes_on_where_nobody_came(
    domain_tree: Path, expected: dict[str, bytes], bucket: Location
) -> None:
    command = [sys.executable, "-c", PAUSED, "converters.engine:_attempt", "2", *CONVERT]
    process = subprocess.Popen([*command, str(domain_tree), ROOT], text=True)
    try:
        assert _stopped(process)
        time.sleep(2.5)
    finally:
        process.send_signal(signal.SIGCONT)
        process.wait()
    assert process.returncode == 0
    assert _everything(bucket) == expected


def _take_over(bucket: Location) -> None:
    other = {"host": "elsewhere", "pid": 1, "token": "theirs"}
    (bucket / f".{DOMAIN}.lock").write(json.dumps(other).encode())


def test_a_claim_that_was_taken_is_told_in_any_process(bucket: Location) -> None:
    with domain_lock(ROOT, DOMAIN) as claim:
        there: Claim = pickle.loads(pickle.dumps(claim))
        there.check()
        _take_over(bucket)
        with pytest.raises(ConversionError, match=r"process 1 on elsewhere has taken it over"):
            there.check()
    assert b"theirs" in (bucket / f".{DOMAIN}.lock").read(), "not ours to give back"


def test_a_lease_that_is_gone_is_lost(bucket: Location) -> None:
    with domain_lock(ROOT, DOMAIN) as claim:
        (bucket / f".{DOMAIN}.lock").delete()
        with pytest.raises(ConversionError, match="nobody holds it now"):
            claim.check()
        with pytest.raises(ConversionError, match="nobody holds it now"):
            claim.renew()
    assert _everything(bucket) == {}


def test_one_version_is_replaced_and_no_other(bucket: Location) -> None:
    place = bucket / "object"
    place.write(b"one")
    _, stamp = place.read_stamped()
    assert place.replace(b"two", stamp)
    assert not place.replace(b"three", stamp)
    assert place.read() == b"two"
    place.delete()
    assert not place.replace(b"four", stamp)
    assert not place.exists()


def test_of_many_that_take_over_one_gets_it(bucket: Location) -> None:
    dead = {"host": socket.gethostname(), "pid": 2**22 + 1, "token": "x"}
    (bucket / f".{DOMAIN}.lock").write(json.dumps(dead).encode())
    ready, done = threading.Barrier(6), threading.Event()
    got, refused = [], []

    def take() -> None:
        ready.wait()
        try:
            with domain_lock(ROOT, DOMAIN) as claim:
                got.append(claim)
                done.wait()
                claim.check()
        except ConversionError as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    while len(got) + len(refused) < 6:
        time.sleep(0.01)
    done.set()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    assert len(refused) == 5


def test_a_store_that_compares_no_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a lease is read, compared and written; one that is stale is lost."""
    monkeypatch.setattr(lock, "RENEWED_EVERY_S", 0.05)
    root = Location(ObjectStore(obstore.store.LocalStore(tmp_path)), "store")
    place = root / f".{DOMAIN}.lock"
    with domain_lock(root, DOMAIN) as claim:
        with pytest.raises(NotImplementedError):
            place.replace(b"", place.read_stamped()[1])
        while "renewed" not in json.loads(place.read()):
            time.sleep(0.01)
        claim.check()
        monkeypatch.setattr(lock, "STALE_AFTER_S", -1.0)
        with pytest.raises(ConversionError, match="no longer this process's"):
            claim.check()
