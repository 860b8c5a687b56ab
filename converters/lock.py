"""One converter a domain: who works on it, and how a killed one is followed by the next.

On a disk the lock is the operating system's and ends with its process. On object storage it is an
object that only one of two can create, renewed while its owner lives; one that is no longer
renewed, or whose owner is known to be dead, is taken over. Renewing it and taking it over replace
the version that was read and no other, so that of two at once one fails. An owner that was stopped
for long, or cut off, may have lost it: it asks before each write that readers would see.
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
from dataclasses import dataclass
from typing import Any

from filelock import FileLock, Timeout
from zarr.storage import LocalStore, ObjectStore

from flairhub.errors import ConversionError, NotInStoreError
from flairhub.ids import DomainId
from flairhub.store.access import Location, Stamp, resolve

RENEWED_EVERY_S = 10.0
STALE_AFTER_S = 60.0


@dataclass(frozen=True)
class Claim:
    """The right to write a domain; plain data, so that worker processes can hold it up, too.

    Parameters
    ----------
    root, domain
        Which domain, and where.
    token
        What the lease must hold; empty where the lock is not one that can be lost.
    """

    root: str | Location
    domain: DomainId
    token: str = ""

    def check(self) -> None:
        """Return if the domain is still ours; a lease that is due is renewed.

        Raises
        ------
        ConversionError
            If another converter has taken it, or may be about to and cannot be kept from it.
        """
        if self.token:
            data, stamp = self._read()
            if _is_stale(stamp):
                self._renew(data, stamp)

    def renew(self) -> None:
        """Keep the lease for another while; raises as `check` does."""
        self._renew(*self._read())

    @property
    def place(self) -> Location:
        """Where the lock lies."""
        return _place(resolve(self.root, read_only=False), self.domain)

    def _read(self) -> tuple[dict[str, Any], Stamp | None]:
        data, stamp = _read_lease(self.place)
        if data.get("token") != self.token:
            raise self._lost(data)
        return data, stamp

    def _renew(self, data: dict[str, Any], stamp: Stamp | None) -> None:
        # never the same bytes twice: their tag would be the same, too
        new = json.dumps({**data, "renewed": time.time()}).encode()
        try:
            if stamp is None or not self.place.replace(new, stamp):
                self._read()  # a renewal of ours that was sent twice, or somebody else's
        except NotImplementedError:
            if _is_stale(stamp):
                raise self._lost(data) from None
            self.place.write(new)

    def _lost(self, other: dict[str, Any]) -> ConversionError:
        by = "nobody holds it now"
        if other.get("token", self.token) != self.token:
            by = f"process {other.get('pid', '?')} on {other.get('host', '?')} has taken it over"
        msg = (
            f"{self.domain} in {self.place.parent} is no longer this process's to write: its lease "
            f"was not renewed for {STALE_AFTER_S:.0f} s (was it stopped, or cut off?) and {by}. "
            "Nothing more was written. Run the same command again when nobody works on it."
        )
        return ConversionError(msg)


@contextmanager
def domain_lock(root: str | Location, domain: DomainId) -> Iterator[Claim]:
    """Hold a domain of a target, or refuse.

    Raises
    ------
    ConversionError
        If another converter holds it; the message says who.
    """
    place = _place(resolve(root, read_only=False), domain)
    if isinstance(place.store, LocalStore):
        with _file_lock(place, domain):
            yield Claim(root, domain)
    elif isinstance(place.store, ObjectStore):
        with _lease(root, place, domain) as claim:
            yield claim
    else:  # a store in memory, or of fsspec, which cannot create an object exclusively
        yield Claim(root, domain)


def _place(root: Location, domain: DomainId) -> Location:
    return root / f".{domain}.lock"


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
        held_by = b""
        with suppress(NotInStoreError):
            held_by = place.read()
        raise _refuse(domain, place, _parse(held_by)) from None
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
def _lease(root: str | Location, place: Location, domain: DomainId) -> Iterator[Claim]:
    mine = _owner()
    if not _take(place, domain, mine):
        yield Claim(root, domain)
        return
    claim = Claim(root, domain, mine["token"])
    done = threading.Event()

    def renew() -> None:
        while not done.wait(RENEWED_EVERY_S):
            with suppress(Exception):  # the next renewal may succeed; a lease outlives several
                claim.renew()

    thread = threading.Thread(target=renew, name=f"lease of {domain}", daemon=True)
    thread.start()
    try:
        yield claim
    finally:
        done.set()
        thread.join()
        with suppress(ConversionError):  # lost: it is another's to give back
            claim.check()
            place.delete()


def _take(place: Location, domain: DomainId, mine: dict[str, Any]) -> bool:
    """Take the lease of a domain, or refuse; return False where the store cannot keep one."""
    data = json.dumps(mine).encode()
    other: dict[str, Any] = {}
    for _ in range(3):
        try:
            if place.create(data):
                return True
        except NotImplementedError:  # two creators cannot be told apart here
            return False
        other, stamp = _read_lease(place)
        if other.get("token") == mine["token"]:  # sent twice, the first answer was lost
            return True
        if stamp is None:  # given back since
            continue
        if not _is_dead(other, stamp):
            break
        try:
            if place.replace(data, stamp):
                return True
        except NotImplementedError:
            place.delete()
    raise _refuse(domain, place, other)


def _is_dead(other: dict[str, Any], stamp: Stamp) -> bool:
    """Tell whether the owner of a lease is gone: its process here, or its renewals."""
    if other.get("host") == socket.gethostname():
        try:
            os.kill(int(other["pid"]), 0)
        except (ProcessLookupError, KeyError, TypeError, ValueError):
            return True
        except PermissionError:
            pass
    return _is_stale(stamp)


def _is_stale(stamp: Stamp | None) -> bool:
    return stamp is None or time.time() - stamp.modified > STALE_AFTER_S


def _read_lease(place: Location) -> tuple[dict[str, Any], Stamp | None]:
    try:
        data, stamp = place.read_stamped()
    except NotInStoreError:
        return {}, None
    return _parse(data), stamp


def _parse(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
