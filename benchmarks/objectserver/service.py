"""Connections of the server: HTTP/1.1 with keep-alive on asyncio, latency, bandwidth, counts."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from benchmarks.objectserver.bucket import Bucket, Reply, Request
from benchmarks.objectserver.faults import Faults

_SLICE = 2**20
_PACED_SLICE = 2**16
_LOST = frozenset({"cut", "short"})


@dataclass
class Service:
    """State that all connections share.

    Parameters
    ----------
    bucket
        What is served.
    latency_s
        From a request to the first byte of its answer.
    bandwidth
        Bytes a second of one connection; None for as fast as it goes.
    total_bandwidth
        Bytes a second of all of them together.
    """

    bucket: Bucket
    latency_s: float = 0.0
    bandwidth: float | None = None
    total_bandwidth: float | None = None
    connections: set[Connection] = field(default_factory=set)
    requests: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    busy: int = 0
    most_busy: int = 0
    free_at: float = 0.0
    """When what all connections have sent will have passed `total_bandwidth`."""

    def set(self, **changes: Any) -> None:  # noqa: ANN401 - fields of different types
        """Change latency, bandwidths or faults from now on."""
        if (faults := changes.pop("faults", None)) is not None:
            self.bucket.use(Faults(**faults))
        for name, value in changes.items():
            setattr(self, name, value)

    def counts(self) -> dict[str, Any]:
        """Return what has been counted since `reset`."""
        return {
            "requests": self.requests,
            "sent": self.sent,
            "faults": self.faults,
            "seconds": self.seconds,
            "most_at_once": self.most_busy,
        }

    def reset(self) -> None:
        """Count from the beginning."""
        for counter in (self.requests, self.sent, self.faults, self.seconds):
            counter.clear()
        self.most_busy = self.busy


class Connection(asyncio.Protocol):
    """One connection; answers one request after the other."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.loop = asyncio.get_running_loop()
        self.buffer = bytearray()
        self.arrived = 0.0
        self.answering = False
        self.paused = False
        self.scheduled = False
        self.free_at = 0.0
        self.reply: Reply | None = None
        self.rest = memoryview(b"")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; asyncio has switched Nagle's algorithm off."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_SLICE)
        self.service.connections.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        """End, perhaps in the middle of an answer."""
        self.service.connections.discard(self)
        if self.answering:
            self.answering = False
            self.service.busy -= 1

    def pause_writing(self) -> None:
        """Wait: the client is slower than we are."""
        self.paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self.paused = False
        self._send()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        self.buffer += data
        if not self.answering:
            self._next()

    def _next(self) -> None:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        first, *lines = self.buffer[:end].decode("latin-1").split("\r\n")
        del self.buffer[: end + 4]
        method, target, _ = first.split(" ")
        parts = (line.partition(":") for line in lines)
        request = Request(method, target, {n.lower(): value.strip() for n, _, value in parts})
        self.answering = True
        self.arrived = self.loop.time()
        service = self.service
        service.busy += 1
        service.most_busy = max(service.most_busy, service.busy)
        if service.latency_s:
            self.loop.call_later(service.latency_s, self._answer, request)
        else:
            self._answer(request)

    def _answer(self, request: Request) -> None:
        if self.transport.is_closing():
            return
        service = self.service
        reply = service.bucket.reply(request)
        service.requests[reply.key] += 1
        if reply.fault is not None:
            service.faults[reply.fault] += 1
        if reply.fault == "timeout":
            return  # the client must go first
        self.reply = reply
        body = memoryview(b"" if request.method == "HEAD" else reply.body)
        if reply.fault in _LOST:
            body = body[: len(body) // 2]
        head = reply.head()
        if len(body) < _PACED_SLICE and not (service.bandwidth or service.total_bandwidth):
            service.sent[reply.key] += len(body)
            head, body = head + bytes(body), body[:0]  # in one packet
        self.rest = body
        self.transport.write(head)
        self._send()

    def _send(self) -> None:
        """Write the rest of the body as far as bandwidth and client allow."""
        if self.reply is None or self.scheduled or self.transport.is_closing():
            return
        service = self.service
        while len(self.rest) and not self.paused:
            if service.bandwidth or service.total_bandwidth:
                part, self.rest = self.rest[:_PACED_SLICE], self.rest[_PACED_SLICE:]
                self.scheduled = True
                self.loop.call_at(self._through(len(part)), self._send_part, part)
                return
            part, self.rest = self.rest[:_SLICE], self.rest[_SLICE:]
            self._write(part)
        if not len(self.rest) and not self.paused:
            self._done(self.reply)

    def _through(self, size: int) -> float:
        """Return when so many bytes more have passed the bandwidths."""
        service, now = self.service, self.loop.time()
        if service.bandwidth:
            self.free_at = max(now, self.free_at) + size / service.bandwidth
        if service.total_bandwidth:
            service.free_at = max(now, service.free_at) + size / service.total_bandwidth
        return max(self.free_at, service.free_at)

    def _send_part(self, part: memoryview) -> None:
        self.scheduled = False
        if not self.transport.is_closing():
            self._write(part)
            self._send()

    def _write(self, part: memoryview) -> None:
        if self.reply is not None:
            self.service.sent[self.reply.key] += len(part)
        self.transport.write(part)

    def _done(self, reply: Reply) -> None:
        self.reply = None
        self.answering = False
        self.service.busy -= 1
        self.service.seconds.append(self.loop.time() - self.arrived)
        if reply.fault == "cut":
            self.transport.abort()
        elif reply.fault == "short":
            self.transport.close()
        elif self.buffer:
            self._next()


class Listener:
    """The server's port, which can be lost for a while."""

    def __init__(self, folder: Path) -> None:
        self.service = Service(Bucket(folder))
        self.port = 0
        self._server: asyncio.Server | None = None
        self._waiting: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self.service), "127.0.0.1", self.port, backlog=512
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def lose(self, seconds: float) -> None:
        """Refuse connections and reset those that there are, for some seconds."""
        self.close()
        task = asyncio.ensure_future(self._come_back(seconds))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _come_back(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.open()

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self.service.connections):
            connection.transport.abort()
