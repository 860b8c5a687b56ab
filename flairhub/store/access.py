"""From a URL to a Zarr store: the only module that knows schemes and credentials.

Local paths use Zarr's own store; ``s3://``, ``gs://``, ``az://``, ``http(s)://`` use obstore, which
retries and pools connections; ``memory://`` is a process-wide store for tests and notebooks; every
other scheme goes to fsspec.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import urlsplit

from fsspec.core import url_to_fs
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ObjectStore

from flairhub.errors import FlairHubError, NotInStoreError, ReadError
from flairhub.store.asking import ask, storage_reason, without_secrets
from flairhub.store.local import local_path
from flairhub.store.profiles import s3_options

_OBSTORE_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss", "http", "https")
_S3_SCHEMES = ("s3", "s3a")
_MEMORY: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Stamp:
    """One version of an object: the tags that its store tells it by, and when it was written.

    `modified` is in seconds since 1970, by the store's clock.
    """

    tags: Mapping[str, str]
    modified: float


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a Zarr store.

    Parameters
    ----------
    store
        The store object.
    path
        A key or its beginning, without slashes at its ends.
    url
        Of the store, for messages: without user, password and query.
    """

    store: Store
    path: str = ""
    url: str = field(default="", compare=False)

    def __truediv__(self, name: str) -> Location:
        """Return the place `name` below this one."""
        return Location(self.store, f"{self.path}/{name}".strip("/"), self.url)

    @property
    def parent(self) -> Location:
        """The place one level up."""
        return Location(self.store, self.path.rpartition("/")[0], self.url)

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rpartition("/")[2]

    def __str__(self) -> str:
        """Return a form for messages, without credentials."""
        return f"{self.url or self.store}/{self.path}".rstrip("/")

    @property
    def _file(self) -> Path | None:
        """The file on a disk: Zarr's event loop would cost more than the disk does."""
        return self.store.root / self.path if type(self.store) is LocalStore else None

    def read(self, *, retry_s: float = 0.0) -> bytes:
        """Return the whole object at this place, in one request.

        Parameters
        ----------
        retry_s
            Seconds for which storage that fails is asked again, beyond what obstore does by itself.

        Raises
        ------
        NotInStoreError
            If there is none.
        ReadError
            If the storage does not give it.
        """
        if (file := self._file) is not None:
            try:
                return file.read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
                msg = f"There is nothing at {self}."
                raise NotInStoreError(msg) from error
            except OSError as error:
                msg = f"{self} cannot be read: {storage_reason(error)}."
                raise ReadError(msg) from error
        found = ask(
            str(self),
            lambda: self.store.get(self.path, default_buffer_prototype()),
            retry_s=retry_s,
        )
        if found is None:
            msg = f"There is nothing at {self}."
            raise NotInStoreError(msg)
        return found.to_bytes()

    def exists(self) -> bool:
        """Return whether there is an object at this place, in one request."""
        return ask(str(self), lambda: self.store.exists(self.path))

    def write(self, data: bytes | list[bytes]) -> None:
        """Write the whole object at this place, in one piece or of the parts that make it up.

        Readers see the old one or the new one.
        """
        parts = data if isinstance(data, list) else [data]
        if (file := self._file) is not None and not self.store.read_only:
            _write_file(file, parts)
            return
        whole = default_buffer_prototype().buffer.from_bytes(b"".join(parts))
        sync(self.store.set(self.path, whole))

    def create(self, data: bytes) -> bool:
        """Write the object at this place unless there is one; return whether it was written.

        Raises
        ------
        NotImplementedError
            If this kind of store cannot tell two creators apart.
        """
        if not isinstance(self.store, ObjectStore):
            raise NotImplementedError
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotSupportedError, PreconditionError

        try:
            obstore.put(self.store.store, self.path, data, mode="create")
        except (AlreadyExistsError, PreconditionError):
            return False
        except NotSupportedError as error:
            raise NotImplementedError from error
        return True

    def read_stamped(self) -> tuple[bytes, Stamp]:
        """Return the object at this place of object storage, and which version of it that is.

        Raises
        ------
        NotInStoreError
            If there is none.
        NotImplementedError
            If this is no object storage.
        """
        if not isinstance(self.store, ObjectStore):
            raise NotImplementedError
        import obstore

        try:
            found = obstore.get(self.store.store, self.path)
        except FileNotFoundError as error:
            msg = f"There is nothing at {self}."
            raise NotInStoreError(msg) from error
        tags = {name: str(found.meta[name]) for name in ("e_tag", "version") if found.meta[name]}
        return bytes(found.bytes()), Stamp(tags, found.meta["last_modified"].timestamp())

    def replace(self, data: bytes, stamp: Stamp) -> bool:
        """Write over one version of the object here; return False where there is another by now.

        Raises
        ------
        NotImplementedError
            If this kind of store does not compare versions when it writes.
        """
        if not isinstance(self.store, ObjectStore) or not stamp.tags:
            raise NotImplementedError
        import obstore
        from obstore.exceptions import NotSupportedError, PreconditionError

        try:
            obstore.put(self.store.store, self.path, data, mode=cast("Any", stamp.tags))
        except (PreconditionError, FileNotFoundError):
            return False
        except NotSupportedError as error:
            raise NotImplementedError from error
        return True

    def flush(self) -> None:
        """Return when what lies at or below this place survives a power cut.

        Object storage keeps what it has acknowledged; files and their folders are synced.
        """
        if not isinstance(self.store, LocalStore):
            return
        top = self.store.root / self.path
        for folder, _, names in os.walk(top):
            for path in (*(os.path.join(folder, name) for name in names), folder):
                _sync(path)
        if top.is_file():
            _sync(top)
        for parent in (top.parent, top.parent.parent):
            _sync(parent)

    def flush_names(self) -> None:
        """Return when what was created and deleted directly at this place survives a power cut."""
        if isinstance(self.store, LocalStore) and (self.store.root / self.path).is_dir():
            _sync(self.store.root / self.path)

    def delete(self) -> None:
        """Delete the object at this place, if there is one."""
        sync(self.store.delete(self.path))

    def delete_tree(self) -> None:
        """Delete every object below this place."""
        sync(self.store.delete_dir(self.path))

    def objects(self) -> list[str]:
        """Return the sorted keys of all objects below this place, relative to it."""
        prefix = f"{self.path}/" if self.path else ""
        keys = ask(str(self), lambda: _collect(self.store.list_prefix, prefix))
        return sorted(key.removeprefix(prefix) for key in keys)

    def names(self, *, retry_s: float = 0.0) -> list[str]:
        """Return the sorted names directly below this place; `retry_s` and errors as in `read`."""
        found = ask(str(self), lambda: _collect(self.store.list_dir, self.path), retry_s=retry_s)
        return sorted(found)


def _write_file(path: Path, parts: list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            file.writelines(parts)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _sync(path: str | Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


async def _collect(names: Callable[[str], AsyncIterator[str]], path: str) -> list[str]:
    # called here, in the loop: some stores want one as soon as they are asked
    return [name.rstrip("/") async for name in names(path)]


def open_file(url: str) -> IO[bytes]:
    """Open a path or URL for reading bytes."""
    if "://" not in url:
        return open(url, "rb")
    filesystem, path = filesystem_of(url)
    return cast("IO[bytes]", filesystem.open(path, "rb"))


def read_file(url: str) -> bytes:
    """Return the bytes of a path or URL; of object storage, in one request."""
    if "://" not in url:
        with open(url, "rb") as handle:
            return handle.read()
    filesystem, path = filesystem_of(url)
    return cast("bytes", filesystem.cat_file(path))


@lru_cache(maxsize=64)
def filesystem_of(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a path or URL, and the path in it.

    Object storage is served by obstore: the same credentials, retries and pools as for stores.

    Raises
    ------
    NotInStoreError
        If the scheme is unknown.
    """
    _serve_object_storage()
    try:
        options = s3_options() if url.partition("://")[0] in _S3_SCHEMES else {}
        return cast("tuple[Any, str]", url_to_fs(url, **options))
    except (ValueError, ImportError) as error:
        msg = f"{without_secrets(url)} is no place that can be read: {storage_reason(error)}."
        raise NotInStoreError(msg) from None


@lru_cache(maxsize=1)
def _serve_object_storage() -> None:
    from obstore.fsspec import register

    register(["s3", "s3a", "gs", "az", "abfs", "abfss"])


Source = str | os.PathLike[str] | Location
"""Whatever a public function takes as ``url``."""


def resolve(
    url: Source, *, storage_options: Mapping[str, Any] | None = None, read_only: bool = True
) -> Location:
    """Turn a URL or path into a `Location` whose store begins one level above it.

    The level above is where a domain's tables lie, beside its store.

    Parameters
    ----------
    url
        ``<root>/D012-2019.zarr`` or ``<root>``: a local path, a URL, or a `Location` as it is.
    storage_options
        Passed to obstore's ``from_url`` (or fsspec); credentials otherwise come from the
        environment and, for S3, from profiles: see `flairhub.store.profiles`.
    read_only
        False for converters.

    Raises
    ------
    NotInStoreError
        If a local path that is to be read does not exist, or a URL cannot be one of a store: its
        scheme is unknown, it is signed (has a query), or it is a file's with a host.
    ConfigError
        If the AWS profile that the environment names cannot be used.
    """
    if isinstance(url, Location):
        return url
    options = dict(storage_options or {})
    text = os.fspath(url)
    local = local_path(text)
    if local is not None:
        path = Path(local).absolute()
        if read_only and not path.exists():
            msg = f"{path} does not exist."
            raise NotInStoreError(msg)
        return Location(LocalStore(path.parent, read_only=read_only), path.name)
    scheme = urlsplit(text).scheme
    plain = without_secrets(text)
    if "?" in text or "#" in text:
        msg = (
            f"The URL of {plain} goes on with a query or fragment, which is not shown here. A "
            "store is many objects, and a signed URL opens one: give the URL without it, and "
            "credentials in storage_options or the environment."
        )
        raise NotInStoreError(msg)
    base, _, name = text.rstrip("/").rpartition("/")
    if base.endswith(("/", ":")):  # a bucket or host alone has no level above it
        base, name = text.rstrip("/"), ""
    if scheme == "memory":
        return Location(MemoryStore(_MEMORY.setdefault(base, {}), read_only=read_only), name)
    try:
        store = _remote_store(scheme, base, options, read_only=read_only)
    except FlairHubError:
        raise
    except Exception as error:  # as above: each library has its own
        msg = f"{plain} is no place that can be read: {storage_reason(error)}."
        raise NotInStoreError(msg) from None
    return Location(store, name, without_secrets(base))


def _remote_store(scheme: str, base: str, options: dict[str, Any], *, read_only: bool) -> Store:
    if scheme not in _OBSTORE_SCHEMES:
        return FsspecStore.from_url(base, storage_options=options, read_only=read_only)
    from obstore.store import from_url

    if scheme in _S3_SCHEMES:
        options = s3_options() | options
    if scheme == "http":  # who writes so means it
        options["client_options"] = {"allow_http": True} | options.get("client_options", {})
    return ObjectStore(from_url(base, **options), read_only=read_only)
