"""A server of ranged S3 GETs over a folder, with set latency, bandwidth and faults.

It lives in a process of its own, so that what is measured keeps its interpreter to itself::

    with ObjectServer(folder, latency_s=0.03) as server:
        plan = flairhub.PatchPlan.build(
            server.url, modalities=["spot_rgbi"], storage_options=server.storage_options
        )
        server.set(faults=Faults({"503": 0.1}, seed=1))
        for batch in flairhub.stream(plan):
            ...
        print(server.counts().total, server.counts().percentile(99))
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.objectserver.bucket import BUCKET
from benchmarks.objectserver.faults import KINDS, Faults

__all__ = ["BUCKET", "KINDS", "SECRET", "Counts", "Faults", "ObjectServer"]

SECRET = "never-to-be-told"
"""The secret key in `ObjectServer.storage_options`: no message may hold it."""


@dataclass(frozen=True)
class Counts:
    """What the server has answered since it began, or since `ObjectServer.reset`.

    Parameters
    ----------
    requests, sent
        Requests and body bytes by key; listings count under ``?list``.
    faults
        Requests that went wrong, by kind.
    seconds
        From each answered request to the last byte handed over, in order of their ends.
    most_at_once
        Requests that were in flight together at most.
    """

    requests: Mapping[str, int]
    sent: Mapping[str, int]
    faults: Mapping[str, int]
    seconds: tuple[float, ...]
    most_at_once: int

    @property
    def total(self) -> int:
        """All requests."""
        return sum(self.requests.values())

    @property
    def total_bytes(self) -> int:
        """All bytes of bodies."""
        return sum(self.sent.values())

    def requests_of(self, part: str) -> int:
        """Return the requests for keys that contain `part`, such as ``/c/`` for chunks."""
        return sum(n for key, n in self.requests.items() if part in key)

    def percentile(self, percent: float) -> float:
        """Return the seconds that so many percent of the requests took at most; 0 without any."""
        if not self.seconds:
            return 0.0
        found = sorted(self.seconds)
        return found[min(len(found) - 1, int(len(found) * percent / 100))]


class ObjectServer:
    """Serves a folder as an S3 bucket on this machine, from entering to leaving its context.

    Parameters
    ----------
    folder
        Whose files are the objects; what changes in it changes in the bucket.
    latency_s
        From a request to the first byte of its answer, seconds.
    bandwidth, total_bandwidth
        Bytes a second of each connection, and of all together; None for as fast as it goes.
    faults
        What goes wrong, see `Faults`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        latency_s: float = 0.0,
        bandwidth: float | None = None,
        total_bandwidth: float | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._settings = {
            "latency_s": latency_s,
            "bandwidth": bandwidth,
            "total_bandwidth": total_bandwidth,
            "faults": faults or Faults(),
        }
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    def __enter__(self) -> ObjectServer:
        """Start the process; it is ready when this returns."""
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        self.port = self._answer()
        self.set(**self._settings)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()
            self._process = None

    @property
    def endpoint(self) -> str:
        """Where the server listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The folder as a bucket."""
        return f"s3://{BUCKET}"

    @property
    def storage_options(self) -> dict[str, Any]:
        """What obstore needs to know beside `url`."""
        return {
            "endpoint": self.endpoint,
            "access_key_id": "reader",
            "secret_access_key": SECRET,
            "region": "us-east-1",
            "client_options": {"allow_http": True},
        }

    def set(self, **changes: Any) -> None:  # noqa: ANN401 - settings of different types
        """Change `latency_s`, `bandwidth`, `total_bandwidth` or `faults` from now on."""
        for name in changes:
            if name not in self._settings:
                msg = f"There is no setting {name!r}; known: {', '.join(self._settings)}."
                raise TypeError(msg)
        if isinstance(changes.get("faults"), Faults):
            changes["faults"] = changes["faults"].plain()
        self._command("set", changes)

    def counts(self) -> Counts:
        """Return what has been answered so far."""
        found = self._command("counts")
        return Counts(**found | {"seconds": tuple(found["seconds"])})

    def reset(self) -> None:
        """Count from the beginning."""
        self._command("reset")

    def lose(self, seconds: float) -> None:
        """Reset all connections and refuse new ones for a while, as when the network is lost."""
        self._command("lose", seconds)

    def _command(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 - as commands answer
        with self._lock:
            if self._process is None or self._process.stdin is None:
                msg = "The server runs only inside its with block."
                raise RuntimeError(msg)
            self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
            self._process.stdin.flush()
            return self._answer()

    def _answer(self) -> Any:  # noqa: ANN401 - as commands answer
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            msg = f"The server of {self.folder} has ended: {self._process.wait()}."
            raise RuntimeError(msg)
        return json.loads(line)
