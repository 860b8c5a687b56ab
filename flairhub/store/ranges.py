"""Parts of objects, read with retries, counted, and kept on a local disk where the user wants it.

A reader is written once, as a generator that yields lists of `ByteRange` and is sent their
`Body`s; whether these are fetched one after another (`RangeReader.run`, files) or many at a time
(`RangeReader.run_async`, object storage) is decided here.

Object storage answers late, not at all, or with half a body. What may be transient is asked for
again after a pause that doubles and is drawn at random, until a budget of seconds is spent. An
object that changes under the reader ends it: half of its pixels are old.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, ObjectStore

from flairhub.errors import NotInStoreError, ReadError
from flairhub.store.access import Location

if TYPE_CHECKING:
    from obstore import GetOptions

    from flairhub.store.cache import RangeCache

T = TypeVar("T")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Seconds between two attempts: the first pause at most, and any pause at most."""

ATTEMPT_S = 10.0
"""Seconds after which an answer is no longer waited for, but asked for again."""

OPEN_FILES = 64
"""Files that stay open for the next read of them; a process may have 1024 on most systems."""

_URL_SECRETS = re.compile(r"(?<=://)[^/@\s]+@|\?[^\s\"'<>)]+")
_MESSAGE_LENGTH = 300


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes ``start`` to ``stop`` of an object; the whole of it, or its end.

    Parameters
    ----------
    place
        The object.
    start, stop
        First byte, and the one after the last. A negative `start` counts from the end, where
        `stop` is None; the whole object is 0 and None.
    e_tag
        Version of the object that the bytes must be of; any where None.
    attempt
        Above 0, what an earlier answer was is known to be wrong: neither cache nor an answer
        that others wait for will do.
    """

    place: Location
    start: int = 0
    stop: int | None = None
    e_tag: str | None = None
    attempt: int = 0

    def __hash__(self) -> int:
        """Hash by place and bytes."""
        return hash((self.place.path, self.start, self.stop, self.attempt))


@dataclass(frozen=True, slots=True)
class Body:
    """What a `ByteRange` was answered with.

    Parameters
    ----------
    data
        The bytes; of an object smaller than the end that was asked for, all of them. None where
        there is no such object.
    e_tag
        Version of the object, where the storage tells.
    """

    data: bytes | memoryview | None
    e_tag: str | None = None


@dataclass
class Traffic:
    """What was asked of the storage, retries included."""

    requests: int = 0
    bytes: int = 0
    retries: int = 0
    cached: int = 0
    seconds: list[float] = field(default_factory=list)
    """Time of each request that was answered."""


Reads = Generator[Sequence[ByteRange], Sequence[Body], T]
"""A reader without I/O: yields what it needs, is sent it, returns what it made of it."""


class RangeReader:
    """Answers `ByteRange`s.

    Parameters
    ----------
    retry_s
        Seconds after which an error that may be transient is raised.
    cache
        Where parts of objects are kept on a local disk.
    """

    def __init__(self, *, retry_s: float = 60.0, cache: RangeCache | None = None) -> None:
        self.retry_s = retry_s
        self.cache = cache
        self.traffic = Traffic()
        self._waited_for: dict[ByteRange, asyncio.Task[Body]] = {}
        self._opened = lru_cache(maxsize=OPEN_FILES)(_OpenFile)

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave traffic and open files behind."""
        return partial(type(self), retry_s=self.retry_s, cache=self.cache), ()

    def run(self, reads: Reads[T]) -> T:
        """Return what a reader makes of its bytes, read one after another in this thread.

        Raises
        ------
        ReadError
            If they cannot be read.
        """
        try:
            wanted = next(reads)
            while True:
                wanted = reads.send([self._read(one) for one in wanted])
        except StopIteration as stop:
            found: T = stop.value
            return found

    async def run_async(self, reads: Reads[T]) -> T:
        """Return what a reader makes of its bytes, whose parts are read all at once."""
        try:
            wanted = next(reads)
            while True:
                wanted = reads.send(await asyncio.gather(*map(self._shared, wanted)))
        except StopIteration as stop:
            found: T = stop.value
            return found

    def _read(self, wanted: ByteRange) -> Body:
        self.traffic.requests += 1
        place = wanted.place
        try:
            if type(place.store) is LocalStore:
                body = self._open(f"{place.store.root}/{place.path}").read(wanted)
            else:
                found = sync(
                    place.store.get(place.path, default_buffer_prototype(), _zarr_range(wanted))
                )
                body = Body(None if found is None else found.to_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return Body(None)
        except OSError as error:
            msg = f"{place} cannot be read: {describe(error)}."
            raise ReadError(msg) from error
        self.traffic.bytes += len(body.data or b"")
        if wanted.e_tag is not None and body.e_tag != wanted.e_tag:
            raise ReadError(_replaced(place))
        _check_length(wanted, body)
        return body

    def _open(self, path: str) -> _OpenFile:
        """Return the file that is there now: one that is open already may have been replaced."""
        file = self._opened(path)
        if not file.is_at(path):
            self._opened.cache_clear()
            file = self._opened(path)
        return file

    async def _shared(self, wanted: ByteRange) -> Body:
        """Fetch once what several ask for at the same time."""
        if not isinstance(wanted.place.store, ObjectStore):
            return await asyncio.to_thread(self._read, wanted)
        task = self._waited_for.get(wanted)
        if task is None:
            task = asyncio.ensure_future(self._fetch(wanted))
            self._waited_for[wanted] = task
            task.add_done_callback(lambda _: self._waited_for.pop(wanted, None))
        # one that gives up must not take the bytes from the others
        return await asyncio.shield(task)

    async def _fetch(self, wanted: ByteRange) -> Body:
        """Fetch with retries, or from the cache."""
        if self.cache is not None and wanted.e_tag is not None and not wanted.attempt:
            kept = await asyncio.to_thread(self.cache.get, wanted)
            if kept is not None:
                self.traffic.cached += 1
                return Body(kept, wanted.e_tag)
        ends = time.monotonic() + self.retry_s
        pause = FIRST_PAUSE_S
        while True:
            try:
                left = max(0.1, ends - time.monotonic())
                async with asyncio.timeout(min(left, ATTEMPT_S)):
                    body = await self._get(wanted)
                _check_length(wanted, body)
                break
            except NotInStoreError:
                return Body(None)
            except Exception as error:
                wait = random.uniform(pause / 2, pause)
                if not _transient(error) or time.monotonic() + wait > ends:
                    raise ReadError(self._failure(wanted, error)) from None
                self.traffic.retries += 1
                pause = min(2 * pause, LONGEST_PAUSE_S)
                await asyncio.sleep(wait)
        if self.cache is not None and wanted.e_tag is not None and body.data is not None:
            await asyncio.to_thread(self.cache.put, wanted, body.data)
        return body

    async def _get(self, wanted: ByteRange) -> Body:
        """Ask object storage once."""
        import obstore

        options: GetOptions = {}
        if wanted.e_tag is not None:
            options["if_match"] = wanted.e_tag
        if wanted.stop is not None:
            options["range"] = (wanted.start, wanted.stop)
        elif wanted.start < 0:
            options["range"] = {"suffix": -wanted.start}
        started = time.monotonic()
        self.traffic.requests += 1
        store: Any = wanted.place.store
        try:
            answer = await obstore.get_async(store.store, wanted.place.path, options=options)
            data = memoryview(await answer.bytes_async())
        except FileNotFoundError as error:
            raise NotInStoreError(str(wanted.place)) from error
        self.traffic.seconds.append(time.monotonic() - started)
        self.traffic.bytes += len(data)
        first, after = answer.range
        if len(data) != after - first or (wanted.start > 0 and first != wanted.start):
            msg = f"{len(data)} bytes came as bytes {first} to {after}"
            raise _IncompleteError(msg)
        tag = answer.meta["e_tag"]
        if wanted.e_tag is not None and tag != wanted.e_tag:
            raise _ChangedError
        return Body(data, tag)

    def _failure(self, wanted: ByteRange, error: Exception) -> str:
        what = describe(error)
        if isinstance(error, _ChangedError) or type(error).__name__ == "PreconditionError":
            return _replaced(wanted.place)
        if _transient(error):
            return (
                f"{wanted.place} could not be read within {self.retry_s:g} s ({what}): the "
                "storage or the way to it is failing; a larger retry_s waits longer."
            )
        return f"{wanted.place} cannot be read: {what}."


def _replaced(place: Location) -> str:
    return (
        f"{place} was replaced while it was read, so that its parts do not fit together: start "
        "again when nobody writes there."
    )


class _IncompleteError(Exception):
    """A body that is not what was asked for."""


class _ChangedError(Exception):
    """The object is another one than before."""

    def __str__(self) -> str:
        return "the object has another version than before"


def _transient(error: Exception) -> bool:
    """Whether asking again may help."""
    permanent = (
        "InvalidPathError", "NotSupportedError", "PermissionDeniedError", "PreconditionError",
        "UnauthenticatedError", "UnknownConfigurationKeyError",
    )  # fmt: skip
    return not isinstance(error, _ChangedError) and type(error).__name__ not in permanent


def _check_length(wanted: ByteRange, body: Body) -> None:
    """Refuse fewer or more bytes than were asked for."""
    if body.data is None or wanted.stop is None:
        return
    if len(body.data) != wanted.stop - wanted.start:
        msg = (
            f"{len(body.data)} bytes came from {wanted.place} in place of "
            f"{wanted.stop - wanted.start}: it is shorter than its index says"
        )
        if isinstance(wanted.place.store, ObjectStore):
            raise _IncompleteError(msg)
        msg += ". `flairhub verify --checksums` tells what is damaged."
        raise ReadError(msg)


def describe(error: BaseException) -> str:
    """Return an error's kind and the beginning of its message, without what a URL may hide."""
    text = _URL_SECRETS.sub("", " ".join(str(error).split()))
    if isinstance(error, TimeoutError):
        text = "no answer in time"
    return f"{type(error).__name__}: {text[:_MESSAGE_LENGTH]}".rstrip(": ")


class _OpenFile:
    """A file that several threads may read; closed when nobody holds it any more."""

    def __init__(self, path: str) -> None:
        self._handle = os.open(path, os.O_RDONLY)
        self._facts = _facts(os.fstat(self._handle))
        self._version = "-".join(map(str, self._facts))
        self._is_new = True

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)

    def is_at(self, path: str) -> bool:
        """Tell whether a path leads to this file still, and to what it was when it was opened."""
        if self._is_new:
            self._is_new = False
            return True
        return _facts(os.stat(path)) == self._facts

    def read(self, wanted: ByteRange) -> Body:
        """Return bytes of it."""
        start, stop = wanted.start, wanted.stop
        if stop is None:
            size = self._facts[-1]
            start, stop = (max(0, size + start) if start < 0 else start), size
        return Body(os.pread(self._handle, stop - start, start), self._version)


def _facts(status: os.stat_result) -> tuple[int, int, int]:
    """Return what tells a file from another that took its place, its size last."""
    return status.st_ino, status.st_mtime_ns, status.st_size


def _zarr_range(
    wanted: ByteRange,
) -> RangeByteRequest | OffsetByteRequest | SuffixByteRequest | None:
    if wanted.stop is not None:
        return RangeByteRequest(wanted.start, wanted.stop)
    if wanted.start < 0:
        return SuffixByteRequest(-wanted.start)
    return OffsetByteRequest(wanted.start) if wanted.start else None
