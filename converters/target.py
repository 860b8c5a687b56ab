"""Where stores lie, or will: a folder that every process finds, and what can be wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flairhub.errors import ConversionError, FlairHubError, ReadError
from flairhub.store.access import Location
from flairhub.store.asking import is_storage_error, storage_reason
from flairhub.store.local import local_path


def reachable(root: str | Location) -> str | Location:
    """Return a folder of stores as processes find it that work in another folder than this one.

    Raises
    ------
    ConversionError
        If it is a file, or a file is in its way.
    """
    local = None if isinstance(root, Location) else local_path(root)
    if local is None:
        return root
    path = Path(os.path.abspath(local))
    check_folder(path, "a folder of stores")
    return str(path)


def check_folder(path: Path, what: str) -> None:
    """Raise `ConversionError` if a path is a file, or a file is in its way."""
    there = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not there.is_dir():
        place = "it" if there == path else there
        msg = f"{path} cannot be {what}: {place} is a file. Give another folder."
        raise ConversionError(msg)


@contextmanager
def target_errors(place: Location, kept: str = "What is finished is kept") -> Iterator[None]:
    """Say what to do about a target that cannot be written."""
    try:
        yield
    except ReadError as error:
        msg = f"{error} {kept}; run the same command again when that is mended."
        raise ConversionError(msg) from error
    except FlairHubError:
        raise
    except Exception as error:  # obstore, fsspec and zarr each have errors of their own
        if not is_storage_error(error):
            raise
        msg = (
            f"{place} cannot be written: {_reason(error)}. {kept}; "
            "run the same command again when that is mended."
        )
        raise ConversionError(msg) from error


def _reason(error: Exception) -> str:
    """Return what is the matter, in words: of a disk without the number of the error."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return storage_reason(error)
