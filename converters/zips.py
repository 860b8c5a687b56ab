"""Zips read in place, whole members at a time; what is dangerous in them is refused."""

from __future__ import annotations

import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from pathlib import PurePosixPath

from converters.reading import REQUESTS, PartsFile
from flairhub.errors import SourceDataError
from flairhub.modalities import MODALITIES
from flairhub.store.asking import is_storage_error, storage_reason

MAX_RASTER_BYTES = 16 * max(
    m.patch_px**2 * len(m.bands) * m.numpy_dtype.itemsize * (366 if m.temporal else 1)
    for m in MODALITIES.values()
)
"""What a TIFF in a zip may grow to: the largest of the registry, a date a day, sixteenfold."""

MAX_MEMBER_BYTES = 2 * 2**30
"""What any other member may grow to; the dates of all patches of FLAIR-HUB are a fifth of it."""

MAX_RATIO = 250
"""How much a member may grow by that is larger than `SMALL_BYTES`. Deflate reaches 1032 at most,
with zeros; a row of a table has an id and a place of its own, and reaches 30."""

SMALL_BYTES = 2**26
"""A member up to here does no harm: a mask of one class may well grow a thousandfold."""

FAULTS = (EOFError, KeyError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What a damaged zip raises."""

_OPEN_ZIPS = 32
_DIRECTORY_BYTES = 2**20
"""Of the end of a zip, in which its directory lies if it has not much more than 5,000 members."""
_LOCAL_HEADER_BYTES = 30 + 2 * 0xFFFF
"""Before the bytes of a member, at most."""


class Zip:
    """A zip whose directory has been read: two requests, or three if that is large.

    Parameters
    ----------
    url
        Path or URL.

    Raises
    ------
    SourceDataError
        If it cannot be opened.

    Attributes
    ----------
    requests : int
        What opening it took.
    """

    def __init__(self, url: str) -> None:
        self.url, before = url, REQUESTS.made
        try:
            self._parts = PartsFile(url)
            size = self._parts.size
            self._parts.hold(max(size - _DIRECTORY_BYTES, 0), size)
            self._zip = zipfile.ZipFile(self._parts)
        except Exception as error:  # obstore has errors of its own
            if not (isinstance(error, (*FAULTS, ValueError)) or is_storage_error(error)):
                raise
            reason = storage_reason(error)
            msg = f"{url} cannot be opened as zip ({reason}): it is damaged or cut short."
            raise SourceDataError(msg) from error
        self._parts.hold(0, 0)
        self.requests = REQUESTS.made - before
        self._starts = sorted(info.header_offset for info in self._zip.infolist())

    def members(self) -> Iterator[zipfile.ZipInfo]:
        """Yield the files in it.

        Raises
        ------
        SourceDataError
            If one leaves the zip, or would grow beyond what it can be.
        """
        for info in self._zip.infolist():
            if not info.is_dir():
                self._check(info)
                yield info

    def read(self, name: str, size: int) -> bytes:
        """Return the first bytes of a member, in one request; no more of it is inflated."""
        info = self._zip.getinfo(name)
        start = info.header_offset
        # a part that does not shrink is somewhat longer than what it holds
        length = min(info.compress_size, size + size // 2**10 + 2**14) + _LOCAL_HEADER_BYTES
        after = self._starts[bisect_right(self._starts, start) :]
        self._parts.hold(start, min([start + length, *after[:1]]))
        with self._zip.open(info) as inside:
            return inside.read(size)

    def _check(self, info: zipfile.ZipInfo) -> None:
        name = info.filename
        parts = PurePosixPath(name).parts
        # zipfile has already turned backslashes and cut at a NUL; what is left is checked here
        odd = not parts or name.startswith("/") or ".." in parts or "\\" in name
        if odd or ":" in parts[0]:
            msg = (
                f"{self.url} holds {name!r}, a path that leaves the zip. It is not one of IGN's: "
                "fetch it again from its source."
            )
            raise SourceDataError(msg)
        most = MAX_RASTER_BYTES if name.lower().endswith((".tif", ".tiff")) else MAX_MEMBER_BYTES
        if info.file_size > SMALL_BYTES:
            most = min(most, MAX_RATIO * info.compress_size)
        if info.file_size > most:
            msg = (
                f"{self.url} holds {name!r}, which would grow from {info.compress_size:,} to "
                f"{info.file_size:,} bytes; it is damaged or not one of IGN's."
            )
            raise SourceDataError(msg)


@lru_cache(maxsize=_OPEN_ZIPS)
def open_zip(url: str) -> Zip:
    """Return a zip, whose directory is read once a process; raises as `Zip`."""
    return Zip(url)
