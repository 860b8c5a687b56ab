"""What the server answers: objects of a folder, ranges of them, listings, and faults."""

from __future__ import annotations

import mmap
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from benchmarks.objectserver.faults import STATUSES, Faults

BUCKET = "bucket"
"""Name of the only bucket."""

_REASONS = {
    200: "OK",
    206: "Partial Content",
    403: "Forbidden",
    404: "Not Found",
    412: "Precondition Failed",
    416: "Range Not Satisfiable",
    429: "Too Many Requests",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}
_PAGE = 1000
_INVERTED = bytes(range(255, -1, -1))


@dataclass(frozen=True)
class Request:
    """A request's line and headers, names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Reply:
    """What is sent, and how it goes wrong on its way.

    Parameters
    ----------
    status, headers
        As sent, without Content-Length.
    body
        As promised by Content-Length, also to HEAD, which gets none.
    key
        What is counted.
    fault
        What happened to it; None if all is right.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | memoryview
    key: str
    fault: str | None = None

    def head(self) -> bytes:
        """Return the status line and the headers."""
        lines = [f"HTTP/1.1 {self.status} {_REASONS[self.status]}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, f"Content-Length: {len(self.body)}", "", ""]).encode()


@dataclass
class Bucket:
    """A folder as a bucket of S3, read only, path style.

    Parameters
    ----------
    folder
        Whose files are the objects.
    faults
        What goes wrong.
    """

    folder: Path
    faults: Faults = field(default_factory=Faults)
    _attempts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _open: dict[str, tuple[str, memoryview]] = field(default_factory=dict)

    def use(self, faults: Faults) -> None:
        """Let other things go wrong from now on; attempts are counted from the beginning."""
        self.faults = faults
        self._attempts.clear()

    def reply(self, request: Request) -> Reply:
        """Answer a request."""
        path, _, query = request.target.partition("?")
        bucket, _, key = unquote(path).lstrip("/").partition("/")
        if request.method not in ("GET", "HEAD"):
            return _error(501, "NotImplemented", key)
        if bucket != BUCKET:
            return _error(404, "NoSuchBucket", key)
        if not key:
            return self._listing(parse_qs(query))
        span = request.headers.get("range", "")
        self._attempts[key, span] += 1
        fault = self.faults.of(key, span, self._attempts[key, span])
        if fault in STATUSES:
            return _error(*STATUSES[fault], key, fault)
        found = self._object(key)
        if found is None:
            return _error(404, "NoSuchKey", key)
        etag, modified, whole = found
        if fault == "changed":
            etag, whole = '"replaced"', memoryview(whole.tobytes().translate(_INVERTED))
        if request.headers.get("if-match", etag) != etag:
            return _error(412, "PreconditionFailed", key, fault)
        headers = {"ETag": etag, "Last-Modified": modified, "Accept-Ranges": "bytes"}
        if not span or fault == "whole":
            return Reply(200, headers, whole, key, fault if fault != "whole" or span else None)
        return _part(whole, span, headers, key, fault)

    def _object(self, key: str) -> tuple[str, str, memoryview] | None:
        """Return ETag, time and bytes, which stay mapped until the file is another one."""
        if ".." in key.split("/"):
            return None
        try:
            status = os.stat(self.folder / key)
            etag = f'"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"'
            if key not in self._open or self._open[key][0] != etag:
                self._open[key] = etag, _mapped(self.folder / key)
        except (OSError, ValueError):  # a folder, a name with a NUL, nothing
            return None
        return etag, formatdate(status.st_mtime, usegmt=True), self._open[key][1]

    def _listing(self, query: Mapping[str, list[str]]) -> Reply:
        """Answer ListObjectsV2."""
        given = {name: values[0] for name, values in query.items()}
        prefix, delimiter = given.get("prefix", ""), given.get("delimiter", "")
        after = given.get("continuation-token") or given.get("start-after", "")
        limit = min(_PAGE, int(given.get("max-keys", _PAGE)))
        # only below the folder that the prefix names, and no deeper than the delimiter asks for
        top = self.folder / prefix.rpartition("/")[0]
        below = top.iterdir() if delimiter == "/" else top.rglob("*")
        entries: dict[str, str] = {}
        for path in below if top.is_dir() and ".." not in prefix.split("/") else ():
            key = path.relative_to(self.folder).as_posix()
            if path.is_dir():
                if delimiter != "/":
                    continue
                key += "/"
                text = f"<CommonPrefixes><Prefix>{escape(key)}</Prefix></CommonPrefixes>"
            else:
                status = path.stat()
                text = (
                    f"<Contents><Key>{escape(key)}</Key><Size>{status.st_size}</Size>"
                    "<LastModified>2020-01-01T00:00:00.000Z</LastModified></Contents>"
                )
            if key.startswith(prefix) and key > after:
                entries[key] = text
        names = sorted(entries)
        page, more = names[:limit], len(names) > limit
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        body = (
            f'<?xml version="1.0"?><ListBucketResult><Name>{BUCKET}</Name>'
            f"<Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}"
            f"{''.join(entries[name] for name in page)}</ListBucketResult>"
        )
        return Reply(200, {"Content-Type": "application/xml"}, body.encode(), "?list")


def _mapped(path: Path) -> memoryview:
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return memoryview(b"")  # an empty file cannot be mapped
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _error(status: int, code: str, key: str, fault: str | None = None) -> Reply:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
    return Reply(status, {"Content-Type": "application/xml"}, body.encode(), key, fault)


def _part(
    whole: memoryview, span: str, headers: Mapping[str, str], key: str, fault: str | None
) -> Reply:
    """Answer a range, or what the fault makes of it."""
    size = len(whole)
    first, _, last = span.removeprefix("bytes=").partition("-")
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= stop:
        return _error(416, "InvalidRange", key)
    length = stop - start
    sent = start
    if fault in ("wrong_range", "wrong_bytes"):
        sent = (start + 1 + length // 2) % (size - length + 1)
        if sent == start and size > length:
            sent = start + 1 if start + 1 + length <= size else start - 1
        fault = fault if sent != start else None
    named = sent if fault == "wrong_range" else start
    headers = {**headers, "Content-Range": f"bytes {named}-{named + length - 1}/{size}"}
    if fault == "fewer":
        length = length * 2 // 3
    return Reply(206, headers, whole[sent : sent + length], key, fault)
