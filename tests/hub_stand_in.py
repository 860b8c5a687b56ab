"""A stand-in for the HTTP interface of the Hugging Face hub on this machine; it fails to order."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar
from urllib.parse import unquote

_MODEL = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/?]+))?")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repository:
    """Commits of one repository: files by name, by commit; branches and tags name commits."""

    commits: dict[str, dict[str, bytes]]
    references: dict[str, str]
    gated: bool = False
    private: bool = False

    def commit(self, revision: str) -> str | None:
        found = self.references.get(revision, revision)
        return found if found in self.commits else None


@dataclass
class Hub:
    """What the server holds, and what it was asked."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[tuple[str, str]] = field(default_factory=set)
    endpoint: str = ""
    storage: str = ""
    """Where large files lie: another host to the client, as it is in the world."""
    fail: int = 0
    """Status to answer everything with; 0 for none."""
    spoil: bool = False
    """Whether a byte of every large file's body is wrong."""


def commit_of(files: dict[str, bytes]) -> str:
    """Return a name for a commit: 40 hexadecimal digits that follow from its files."""
    text = repr(sorted((name, hashlib.sha1(body).hexdigest()) for name, body in files.items()))
    return hashlib.sha1(text.encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[Hub]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append((self.command, path))
        if token := self.headers.get("authorization"):
            self.hub.tokens.add((self.headers["host"].partition(":")[0], token))
        if self.hub.fail:
            self._send(self.hub.fail, b"out of order")
        elif path.startswith("/large/"):
            self._send_large(path.removeprefix("/large/"), body=body)
        elif found := _MODEL.fullmatch(path):
            self._send_model(found[1], unquote(found[2] or "main"))
        elif found := _FILE.fullmatch(path):
            self._send_file(found[1], unquote(found[2]), unquote(found[3]), body=body)
        else:
            self._send(404, b"no such page")

    def _find(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        repository = self.hub.repositories.get(name)
        if repository is None or repository.private:
            self._send(401, b"Repository not found", {"X-Error-Code": "RepoNotFound"})
        elif repository.gated:
            self._send(403, b"Access is restricted", {"X-Error-Code": "GatedRepo"})
        elif (commit := repository.commit(revision)) is None:
            self._send(404, b"Revision not found", {"X-Error-Code": "RevisionNotFound"})
        else:
            return commit, repository.commits[commit]
        return None

    def _send_model(self, name: str, revision: str) -> None:
        if found := self._find(name, revision):
            commit, files = found
            siblings = [{"rfilename": file} for file in files]
            content = {"_id": "0", "id": name, "modelId": name, "sha": commit, "siblings": siblings}
            self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send_file(self, name: str, revision: str, file: str, *, body: bool) -> None:
        found = self._find(name, revision)
        if found is None:
            return
        commit, files = found
        content = files.get(file)
        headers = {"X-Repo-Commit": commit}
        if content is None:
            self._send(404, b"Entry not found", {**headers, "X-Error-Code": "EntryNotFound"})
        elif file.endswith((".safetensors", ".ckpt")):  # as large files: elsewhere, by SHA-256
            digest = hashlib.sha256(content).hexdigest()
            headers |= {
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(content)),
                "Location": f"{self.hub.storage}/large/{digest}",
            }
            self._send(302, b"", headers)
        else:
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            self._send(200, content, {**headers, "ETag": f'"{blob}"'}, body=body)

    def _send_large(self, digest: str, *, body: bool) -> None:
        contents = (
            content
            for repository in self.hub.repositories.values()
            for files in repository.commits.values()
            for content in files.values()
        )
        found = next(c for c in contents if hashlib.sha256(c).hexdigest() == digest)
        if self.hub.spoil:
            found = found[:-1] + bytes([found[-1] ^ 1])
        self._send(200, found, {"ETag": '"of-the-storage"'}, body=body)

    def _send(
        self,
        status: int,
        content: bytes,
        headers: dict[str, str] | None = None,
        *,
        body: bool = True,
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def serve() -> Iterator[Hub]:
    """Run the stand-in on a free port."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    hub.storage = f"http://localhost:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
