"""One converter a domain: who works on it, and how a killed one is followed by the next.

On a disk the lock is the operating system's and ends with its process. On object storage it is an
object that only one of two can create, renewed while its owner lives; one that is no longer
renewed, or whose owner is known to be dead, is taken over.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from filelock import FileLock, Timeout
from zarr.storage import LocalStore, ObjectStore

from flairhub.errors import ConversionError, NotInStoreError
from flairhub.ids import DomainId
from flairhub.store.access import Location

RENEWED_EVERY_S = 10.0
STALE_AFTER_S = 60.0


@contextmanager
def domain_lock(root: Location, domain: DomainId) -> Iterator[None]:
    """Hold a domain of a target, or refuse.

    Raises
    ------
    ConversionError
        If another converter holds it; the message says who.
    """
    place = root / f".{domain}.lock"
    if isinstance(root.store, LocalStore):
        with _file_lock(place, domain):
            yield
    elif isinstance(root.store, ObjectStore):
        with _lease(place, domain):
            yield
    else:  # a store in memory, or of fsspec, which cannot create an object exclusively
        yield


def _owner() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "token": uuid.uuid4().hex}


def _refuse(domain: DomainId, place: Location, who: dict[str, Any]) -> ConversionError:
    msg = (
        f"{domain} is being converted into {place.parent} by process {who.get('pid', '?')} on "
        f"{who.get('host', '?')}. Wait for it, or convert other domains (--domains) meanwhile."
    )
    return ConversionError(msg)


@contextmanager
def _file_lock(place: Location, domain: DomainId) -> Iterator[None]:
    assert isinstance(place.store, LocalStore)
    path = place.store.root / place.path
    fresh = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise _refuse(domain, place, _read(place)) from None
    try:
        path.write_text(json.dumps(_owner()), encoding="utf-8")
        yield
    finally:
        path.unlink(missing_ok=True)  # first: who waits for this file finds it gone and starts anew
        lock.release()
        if fresh:  # a conversion that ended before its first write leaves nothing
            with suppress(OSError):
                path.parent.rmdir()


@contextmanager
def _lease(place: Location, domain: DomainId) -> Iterator[None]:
    mine = _owner()
    _take(place, domain, mine)
    done = threading.Event()

    def renew() -> None:
        while not done.wait(RENEWED_EVERY_S):
            with suppress(Exception):  # the next renewal may succeed; a lease outlives several
                place.write(json.dumps(mine).encode())

    thread = threading.Thread(target=renew, name=f"lease of {domain}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if _read(place).get("token") == mine["token"]:
            place.delete()


def _take(place: Location, domain: DomainId, mine: dict[str, Any]) -> None:
    for _ in range(2):
        try:
            if place.create(json.dumps(mine).encode()):
                return
        except NotImplementedError:  # two creators cannot be told apart here
            return
        other = _read(place)
        if not _is_dead(place, other):
            raise _refuse(domain, place, other)
        place.delete()
    raise _refuse(domain, place, _read(place))


def _is_dead(place: Location, other: dict[str, Any]) -> bool:
    """Tell whether the owner of a lease is gone: its process here, or its renewals."""
    if other.get("host") == socket.gethostname():
        try:
            os.kill(int(other["pid"]), 0)
        except (ProcessLookupError, KeyError, ValueError):
            return True
        except PermissionError:
            pass
    modified = place.modified()
    return modified is None or time.time() - modified > STALE_AFTER_S


def _read(place: Location) -> dict[str, Any]:
    try:
        found = json.loads(place.read() or b"{}")
    except (NotInStoreError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
