"""Files of a raw dataset wherever they lie: in folders, behind URLs, inside zips read in place."""

from __future__ import annotations

import os
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import IO, Any, cast

from flairhub.errors import FlairHubError, SourceDataError
from flairhub.modalities import MODALITIES
from flairhub.store.access import filesystem_of, open_file, read_file
from flairhub.store.asking import is_storage_error, storage_reason
from flairhub.store.local import local_path

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

_OPEN_ZIPS = 32


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file; plain data, so that it travels to worker processes.

    Parameters
    ----------
    url
        Path or URL of the file, or of the zip that it lies in.
    size
        Bytes, uncompressed.
    member
        Name inside the zip; empty for a file of its own.
    """

    url: str
    size: int
    member: str = ""

    @property
    def name(self) -> str:
        """Last part of its path."""
        return PurePosixPath(self.member or self.url).name

    def read(self) -> bytes:
        """Return the whole file.

        Raises
        ------
        SourceDataError
            If it cannot be read, or a zip's member does not have its checksum.
        """
        with _faults(self):
            if self.member:
                with _zip(self.url).open(self.member) as inside:
                    # given no size, zipfile inflates all of a member that lies about its own
                    return inside.read(self.size)
            return read_file(self.url)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the file to read parts of it.

        Raises
        ------
        SourceDataError
            If it cannot be opened.
        """
        with _faults(self):
            handle = _zip(self.url).open(self.member) if self.member else open_file(self.url)
        with handle:
            yield handle

    def __str__(self) -> str:
        """Return the path; that of a zip and of its member are joined by ``!/``."""
        return f"{self.url}!/{self.member}" if self.member else self.url


class RawTree:
    """The folders at the top of a raw dataset; a zip stands for the folder of its name.

    Parameters
    ----------
    root
        Path or URL of a folder.

    Raises
    ------
    SourceDataError
        If there is no such folder, or it cannot be reached.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        local = local_path(os.fspath(root))
        # absolute: worker processes may be in another folder
        self.root = os.fspath(root).rstrip("/") if local is None else os.path.abspath(local)
        self._fs, self._base = filesystem_of(self.root)
        self._folders: set[str] = set()
        self._zips: dict[str, str] = {}
        self.files_here: dict[str, SourceFile] = {}
        """Files that lie directly in the root, by name; zips are not among them."""
        for name, is_folder, size in self._list(self._base):
            if _is_litter(name):
                continue
            if is_folder:
                self._folders.add(name)
            elif name.lower().endswith(".zip"):
                self._zips[name[:-4]] = self._url(name)
            else:
                self.files_here[name] = SourceFile(self._url(name), size)

    @property
    def names(self) -> list[str]:
        """Names of the folders, sorted, whether unpacked or zipped."""
        return sorted(self._folders | set(self._zips))

    def files(self, folder: str) -> dict[str, SourceFile]:
        """Return all files below a folder by their path in it; unpacked ones before zipped ones.

        Raises
        ------
        SourceDataError
            If a zip is damaged or holds paths that leave it.
        """
        found: dict[str, SourceFile] = {}
        if folder in self._zips:
            found |= _members(self._zips[folder], folder)
        if folder in self._folders:
            found |= self._walk(folder)
        return {path: file for path, file in found.items() if not _is_litter(path)}

    def _walk(self, folder: str) -> dict[str, SourceFile]:
        if "://" not in self.root:
            return dict(_scan(os.path.join(self._base, folder), "", ()))
        start = f"{self._base}/{folder}"
        found = {}
        entries = self._fs.find(start, detail=True)
        for name, entry in cast("Mapping[str, Mapping[str, Any]]", entries).items():
            path = name.lstrip("/").removeprefix(start.lstrip("/")).lstrip("/")
            found[path] = SourceFile(self._url(f"{folder}/{path}"), int(entry["size"] or 0))
        return found

    def _url(self, path: str) -> str:
        return f"{self.root.rstrip('/')}/{path}"

    def _list(self, path: str) -> list[tuple[str, bool, int]]:
        """Return name, whether it is a folder, and size of what lies in a folder."""
        try:
            if not self._fs.isdir(path):
                found = None
            elif "://" not in self.root:  # fsspec would not follow links
                found = [(e.name, *_kind_and_size(e)) for e in os.scandir(path)]
            else:
                found = [
                    (_last(entry["name"]), entry["type"] == "directory", int(entry["size"] or 0))
                    for entry in self._fs.ls(path, detail=True)
                ]
        except Exception as error:  # obstore has errors of its own
            if not is_storage_error(error):
                raise
            msg = f"{self.root} cannot be listed: {storage_reason(error)}."
            raise SourceDataError(msg) from error
        if found is None:
            msg = f"{self.root} is not a folder; expected the folder of a raw dataset."
            raise SourceDataError(msg)
        return found


def _is_litter(path: str) -> bool:
    """Tell what macOS leaves beside files and in zips: of no meaning, whatever its ending."""
    return any(part.startswith("._") or part == "__MACOSX" for part in path.split("/"))


def _scan(place: str, prefix: str, above: tuple[str, ...]) -> list[tuple[str, SourceFile]]:
    """Return the files below a local folder, without a system call a file beyond its size.

    `above` holds where the links lie that were followed on the way here, and where they lead.
    """
    found = []
    for entry in sorted(os.scandir(place), key=lambda e: e.name):
        is_folder, size = _kind_and_size(entry)
        if not is_folder:
            found.append((f"{prefix}{entry.name}", SourceFile(entry.path, size)))
            continue
        links = above
        if entry.is_symlink():
            links = (*above, os.path.realpath(place), os.path.realpath(entry.path))
            if any(f"{one}/".startswith(f"{links[-1]}/") for one in links[:-1]):
                msg = f"{entry.path} is a link to {links[-1]}, which leads back to it; remove it."
                raise SourceDataError(msg)
        found += _scan(entry.path, f"{prefix}{entry.name}/", links)
    return found


def _kind_and_size(entry: os.DirEntry[str]) -> tuple[bool, int]:
    """Return whether an entry is a folder, and the size of a file; links are followed."""
    try:
        return (True, 0) if entry.is_dir() else (False, entry.stat().st_size)
    except OSError as error:
        what = f"is a link to {os.readlink(entry.path)}, and " if entry.is_symlink() else ""
        msg = (
            f"{entry.path} {what}cannot be reached ({error.strerror}). Bring back what it stands "
            "for, or remove it to record it as absent."
        )
        raise SourceDataError(msg) from error


def _members(url: str, folder: str) -> dict[str, SourceFile]:
    found = {}
    for info in _zip(url).infolist():
        if info.is_dir():
            continue
        name = info.filename
        parts = PurePosixPath(name).parts
        # zipfile has already turned backslashes and cut at a NUL; what is left is checked here
        odd = not parts or name.startswith("/") or ".." in parts or "\\" in name
        if odd or ":" in parts[0]:
            msg = (
                f"{url} holds {name!r}, a path that leaves the zip. It is not one of IGN's: "
                "fetch it again from its source."
            )
            raise SourceDataError(msg)
        most = MAX_RASTER_BYTES if name.lower().endswith((".tif", ".tiff")) else MAX_MEMBER_BYTES
        if info.file_size > SMALL_BYTES:
            most = min(most, MAX_RATIO * info.compress_size)
        if info.file_size > most:
            msg = (
                f"{url} holds {name!r}, which would grow from {info.compress_size:,} to "
                f"{info.file_size:,} bytes; it is damaged or not one of IGN's."
            )
            raise SourceDataError(msg)
        # IGN's zips hold the folder of their own name
        inner = parts[1:] if parts[0] == folder and len(parts) > 1 else parts
        found["/".join(inner)] = SourceFile(url, info.file_size, name)
    return found


@lru_cache(maxsize=_OPEN_ZIPS)
def _zip(url: str) -> zipfile.ZipFile:
    """Open a zip once a process: reading its directory costs more than reading a member."""
    try:
        handle = None if "://" not in url else open_file(url)
        found = zipfile.ZipFile(handle or url)
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        msg = f"{url} cannot be opened as zip ({error}): it is damaged or cut short."
        raise SourceDataError(msg) from error
    if handle is not None:
        weakref.finalize(found, handle.close)
    return found


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


_FAULTS = (EOFError, KeyError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)


@contextmanager
def _faults(file: SourceFile) -> Iterator[None]:
    """Say what to do about a file that cannot be read."""
    try:
        yield
    except FlairHubError:
        raise
    except Exception as error:
        if not (isinstance(error, _FAULTS) or is_storage_error(error)):
            raise
        msg = (
            f"{file} cannot be read ({storage_reason(error)}): it is damaged, cut short or out of "
            "reach. Fetch it again, or remove it to record it as absent."
        )
        raise SourceDataError(msg) from error
