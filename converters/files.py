"""Files of a raw dataset wherever they lie: in folders, behind URLs, inside zips read in place."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, cast

from converters.reading import REQUESTS, read_part, read_whole
from converters.zips import FAULTS, open_zip
from flairhub.errors import FlairHubError, SourceDataError
from flairhub.store.access import filesystem_of
from flairhub.store.asking import is_storage_error, storage_reason
from flairhub.store.local import local_path


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
            return self._member(self.size) if self.member else read_whole(self.url)

    def read_start(self, size: int) -> bytes:
        """Return the first `size` bytes, or all where there are less; raises as `read`."""
        with _faults(self):
            size = min(size, self.size)
            return self._member(size) if self.member else read_part(self.url, 0, size)

    def _member(self, size: int) -> bytes:
        return open_zip(self.url).read(self.member, size)

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
        self._asked_before = REQUESTS.made
        self._folders: set[str] = set()
        self._zips: dict[str, str] = {}
        self.files_here: dict[str, SourceFile] = {}
        """Files that lie directly in the root, by name; zips are not among them."""
        for name, is_folder, size in self._list():
            if _is_litter(name):
                continue
            if is_folder:
                self._folders.add(name)
            elif name.lower().endswith(".zip"):
                self._zips[name[:-4]] = self._url(name)
            else:
                self.files_here[name] = SourceFile(self._url(name), size)

    @property
    def requests(self) -> int:
        """How many requests for raw files this process has made since this folder was opened."""
        return REQUESTS.made - self._asked_before

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
        with self._listing():
            found = self._walk_local(folder) if "://" not in self.root else self._walk_url(folder)
        for names in _names_by_folder(found).values():
            REQUESTS.add_listing(names)
        return found

    def _walk_local(self, folder: str) -> dict[str, SourceFile]:
        return dict(_scan(os.path.join(self._base, folder), "", ()))

    def _walk_url(self, folder: str) -> dict[str, SourceFile]:
        found = {}
        start = f"{self._base}/{folder}"
        entries = self._fs.find(start, detail=True)
        for name, entry in cast("Mapping[str, Mapping[str, Any]]", entries).items():
            path = name.lstrip("/").removeprefix(start.lstrip("/")).lstrip("/")
            found[path] = SourceFile(self._url(f"{folder}/{path}"), int(entry["size"] or 0))
        return found

    def _url(self, path: str) -> str:
        return f"{self.root.rstrip('/')}/{path}"

    def _list(self) -> list[tuple[str, bool, int]]:
        """Return name, whether it is a folder, and size of what lies in the root."""
        with self._listing():
            if "://" not in self.root:  # fsspec would not follow links
                if not os.path.isdir(self._base):
                    raise self._no_folder(os.path.exists(self._base))
                found = [(e.name, *_kind_and_size(e)) for e in os.scandir(self._base)]
            else:
                entries = []
                with suppress(FileNotFoundError):  # a file, or nothing
                    entries = self._fs.ls(self._base, detail=True)
                found = [
                    (_last(entry["name"]), entry["type"] == "directory", int(entry["size"] or 0))
                    for entry in entries
                    if entry["name"].strip("/") != self._base.strip("/")
                ]
                if not found:
                    raise self._no_folder()
        REQUESTS.add_listing(len(found))
        return found

    def _no_folder(self, exists: bool = True) -> SourceDataError:
        what = "is not a folder" if exists else "does not exist"
        msg = (
            f"{self.root} {what}; expected the folder of a raw dataset, unpacked or with its zips."
        )
        return SourceDataError(msg)

    @contextmanager
    def _listing(self) -> Iterator[None]:
        """Say what cannot be listed."""
        try:
            yield
        except SourceDataError:
            raise
        except Exception as error:  # obstore has errors of its own
            if not is_storage_error(error):
                raise
            msg = f"{self.root} cannot be listed: {storage_reason(error)}."
            raise SourceDataError(msg) from error


def _names_by_folder(paths: Iterable[str]) -> Counter[str]:
    """Return how many names lie directly in each folder, by its path; of files, all below one."""
    names = Counter(path.rpartition("/")[0] for path in paths)
    folders = set(names) - {""}
    while folders:
        above = Counter(folder.rpartition("/")[0] for folder in folders)
        folders = above.keys() - names.keys() - {""}
        names += above
    return names


class InTree:
    """What every raw dataset in a `RawTree` tells alike."""

    tree: RawTree

    @property
    def root(self) -> str:
        """Folder or URL that it lies in."""
        return self.tree.root

    @property
    def requests(self) -> int:
        """How many requests were made since it was opened, were it on object storage."""
        return self.tree.requests


def raw_tree(root: str | os.PathLike[str] | RawTree) -> RawTree:
    """Return the folders of a raw dataset, which are listed once."""
    return root if isinstance(root, RawTree) else RawTree(root)


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
    for info in open_zip(url).members():
        parts = PurePosixPath(info.filename).parts
        # IGN's zips hold the folder of their own name
        inner = parts[1:] if parts[0] == folder and len(parts) > 1 else parts
        found["/".join(inner)] = SourceFile(url, info.file_size, info.filename)
    return found


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


@contextmanager
def _faults(file: SourceFile) -> Iterator[None]:
    """Say what to do about a file that cannot be read."""
    try:
        yield
    except FlairHubError:
        raise
    except Exception as error:
        if not (isinstance(error, FAULTS) or is_storage_error(error)):
            raise
        msg = (
            f"{file} cannot be read ({storage_reason(error)}): it is damaged, cut short or out of "
            "reach. Fetch it again, or remove it to record it as absent."
        )
        raise SourceDataError(msg) from error
