"""Parts of remote objects on a local disk: bounded, and safe for several processes.

A part is a file that is named by a hash of what it is, written beside its place and then moved
there, so that nobody sees half of one. All lie in a folder of their own below the one that the user
names, and nothing is deleted whose name is not such a hash: what else lies there is the user's. A
file's time of last access, set on every use, says which
go first when the bound is reached. Two processes may clean up at once: a file that is gone already
is no error.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from flairhub.errors import ConfigError
from flairhub.store.ranges import ByteRange

OWN_FOLDER = "flairhub-ranges"
"""Below the user's folder; holds all parts, and nothing outside it is ever touched."""

_FOLDER = re.compile(r"[0-9a-f]{2}")
_FILE = re.compile(r"[0-9a-f]{62}(\.[0-9a-f]{32}\.partial)?")

_KEPT = 0.8
"""Share of the bound that is left after a clean-up."""

_CHECK_EVERY = 0.02
"""Share of the bound that one process writes between two looks at the whole folder."""


class RangeCache:
    """Keeps ranges of bytes in a folder.

    Parameters
    ----------
    folder
        Made when it does not exist; may be shared by processes. Parts lie in its `OWN_FOLDER`.
    max_bytes
        What the files may take together; shortly exceeded by at most 2 % a process.

    Raises
    ------
    ConfigError
        If the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int = 50 * 10**9) -> None:
        self.folder = Path(folder).expanduser()
        self._own = self.folder / OWN_FOLDER
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0
        self._written = 0
        self._lock = threading.Lock()
        try:
            self._own.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"The cache folder {self.folder} cannot be made: {error.strerror}."
            raise ConfigError(msg) from error

    def __getstate__(self) -> dict[str, object]:
        """Leave the lock and the counts behind: another process has its own."""
        return {"folder": self.folder, "max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Begin anew on the same folder."""
        self.__init__(state["folder"], state["max_bytes"])  # type: ignore[misc]

    @property
    def hit_rate(self) -> float:
        """Share of the ranges asked for that were here; 0 before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0

    def get(self, wanted: ByteRange) -> bytes | None:
        """Return the bytes, or None where they are not kept."""
        path = self._path(wanted)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            data = None
        # a file that a full disk or a crash has cut
        if data is not None and len(data) != (wanted.stop or 0) - wanted.start:
            data = None
        with self._lock:
            self.hits += data is not None
            self.misses += data is None
        return data

    def put(self, wanted: ByteRange, data: bytes | memoryview) -> None:
        """Keep bytes; a disk that takes no more is no reason to stop reading."""
        path = self._path(wanted)
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(data)
            partial.replace(path)
        except OSError:
            with suppress(OSError):
                partial.unlink()
            return
        with self._lock:
            self._written += len(data)
            due = self._written > _CHECK_EVERY * self.max_bytes
            if due:
                self._written = 0
        if due:
            self.clean()

    def clean(self) -> None:
        """Delete what was not used for longest, where the files exceed the bound."""
        found: list[tuple[float, int, str]] = []
        for path in self._files():
            with suppress(OSError):
                facts = os.stat(path)
                found.append((facts.st_mtime, facts.st_size, path))
        total = sum(size for _, size, _ in found)
        if total <= self.max_bytes:
            return
        for _, size, path in sorted(found):
            if total <= _KEPT * self.max_bytes:
                break
            with suppress(OSError):
                os.unlink(path)
            total -= size

    def _files(self) -> Iterator[str]:
        """Yield the parts, and what was to become one; nothing else."""
        for folder in _named(self._own, _FOLDER):
            yield from _named(folder, _FILE)

    def _path(self, wanted: ByteRange) -> Path:
        what = f"{wanted.place}\n{wanted.e_tag}\n{wanted.start}\n{wanted.stop}"
        name = hashlib.sha256(what.encode()).hexdigest()
        return self._own / name[:2] / name[2:]


def _named(folder: str | os.PathLike[str], pattern: re.Pattern[str]) -> list[str]:
    """Return what a folder holds under such names; nothing where it is gone."""
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if pattern.fullmatch(entry.name)]
    except OSError:
        return []
