"""Paths of this machine, however they are written."""

from __future__ import annotations

import os

from flairhub.errors import NotInStoreError


def local_path(url: str) -> str | None:
    """Return the path of a local folder or file, written so or as URL; None for other schemes.

    Raises
    ------
    NotInStoreError
        If it is empty, or the URL names a host, as ``file://data`` does.
    """
    scheme, colon, rest = url.partition("://")
    if not url or (colon and scheme == "file" and not rest):
        msg = "The path is empty; expected a folder or a URL."
        raise NotInStoreError(msg)
    if not colon:
        return os.path.expanduser(url)
    if scheme != "file":
        return None
    path = rest.removeprefix("localhost") if rest.startswith("localhost/") else rest
    if not path.startswith("/"):
        msg = (
            f"{url} names {rest.partition('/')[0]!r} as the host of a file; a local path is "
            f"written file:///absolute/path, or without scheme: {rest}."
        )
        raise NotInStoreError(msg)
    return path
