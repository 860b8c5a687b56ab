"""What a raw dataset is asked for: names, whole files, parts of files; counted as requests.

The numbers are those of object storage. What lies on a disk is counted as if it were there.
"""

from __future__ import annotations

import io
import os

from flairhub.store.access import filesystem_of, read_file

NAMES_A_REQUEST = 1000
"""How many names object storage tells at a time."""

_READ_AHEAD = 2**20


class Requests:
    """A count of requests, of this process."""

    def __init__(self) -> None:
        self.made = 0

    def add(self, number: int = 1) -> None:
        """Count some more."""
        self.made += number

    def add_listing(self, names: int) -> None:
        """Count the listing of one folder with so many names."""
        self.made += max(1, -(-names // NAMES_A_REQUEST))


REQUESTS = Requests()
"""All that this process has asked of raw datasets."""


def read_whole(url: str) -> bytes:
    """Return a file, in one request."""
    REQUESTS.add()
    return read_file(url)


def read_part(url: str, start: int, end: int) -> bytes:
    """Return the bytes ``start`` to ``end`` of a file, or what it has of them, in one request."""
    REQUESTS.add()
    if "://" not in url:
        with open(url, "rb") as handle:
            handle.seek(start)
            return handle.read(end - start)
    filesystem, path = filesystem_of(url)
    return bytes(filesystem.cat_file(path, start=start, end=end))


class PartsFile(io.RawIOBase):
    """A file that is read in parts which are told beforehand: each is one request.

    Parameters
    ----------
    url
        Path or URL; its size is asked for.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        REQUESTS.add()
        if "://" not in url:
            self.size = os.stat(url).st_size
        else:
            filesystem, path = filesystem_of(url)
            self.size = int(filesystem.info(path)["size"])
        self._at = self._start = 0
        self._held = b""

    def hold(self, start: int, end: int) -> None:
        """Read a part, in place of the one that is held."""
        self._start, self._held = start, b""
        if start < (end := min(end, self.size)):
            self._held = read_part(self._url, start, end)

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes, from the part that is held or from one that begins with them."""
        end = self.size if size is None or size < 0 else min(self._at + size, self.size)
        if self._at >= end:
            return b""
        if not self._start <= self._at <= end <= self._start + len(self._held):
            self.hold(self._at, max(end, self._at + _READ_AHEAD))
        found = self._held[self._at - self._start : end - self._start]
        self._at += len(found)
        return found

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to another place."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            msg = f"there is no byte {base + offset}"
            raise ValueError(msg)
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._at

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True
