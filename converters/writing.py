"""Objects on their way to a store while the next ones are made: one thread waits for the disk."""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager

from flairhub.store.access import Location

_MOST_BYTES = 2**26
"""What may wait to be written; more waits for the store, so that memory stays bounded."""


class Writing(AbstractContextManager["Writing"]):
    """Writes and flushes in the order of the calls, in a thread of its own.

    Nothing is known to be written before `finish` has returned; on leaving the context what was
    handed over is written or has failed, so that it may be deleted.

    Parameters
    ----------
    place
        Keys are relative to it.
    """

    def __init__(self, place: Location) -> None:
        self._place = place
        self._thread = ThreadPoolExecutor(1, "flairhub-write")
        self._waiting: deque[tuple[Future[None], int]] = deque()
        self._bytes = 0

    def __exit__(self, *_: object) -> None:
        """Wait for what was handed over."""
        self._thread.shutdown()

    def write(self, key: str, data: bytes | list[bytes]) -> None:
        """Write an object: see `Location.write`.

        Raises
        ------
        Exception
            What an earlier call met, of the store's kind.
        """
        size = size_of(data)
        while self._waiting and (self._waiting[0][0].done() or self._bytes + size > _MOST_BYTES):
            self._settle()
        self._hand_over(self._thread.submit((self._place / key).write, data), size)

    def flush(self, key: str) -> None:
        """Flush what was written at or below a key: see `Location.flush`."""
        self._hand_over(self._thread.submit((self._place / key).flush), 0)

    def finish(self) -> None:
        """Return when all calls are done; raise what the first one met that failed."""
        while self._waiting:
            self._settle()

    def _hand_over(self, future: Future[None], size: int) -> None:
        self._waiting.append((future, size))
        self._bytes += size

    def _settle(self) -> None:
        future, size = self._waiting.popleft()
        self._bytes -= size
        future.result()


def size_of(data: bytes | list[bytes]) -> int:
    """Return the bytes of an object, which may be in parts."""
    return sum(map(len, data)) if isinstance(data, list) else len(data)


def sha256_of(data: bytes | list[bytes]) -> str:
    """Return the SHA-256, hex, of an object, which may be in parts."""
    digest = hashlib.sha256()
    for part in data if isinstance(data, list) else [data]:
        digest.update(part)
    return digest.hexdigest()
