"""The server's own process: ``python -m benchmarks.objectserver FOLDER``.

It takes commands from its standard input and answers each on its standard output, a line of JSON
each: ``["set", {...}]``, ``["counts"]``, ``["reset"]``, ``["lose", seconds]``. The first line that
it writes is its port. It ends when its input does, so it never outlives who started it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.objectserver.service import Listener


async def _run(folder: Path) -> None:
    listener = Listener(folder)
    await listener.open()
    _say(listener.port)
    service = listener.service
    commands: dict[str, Callable[..., Any]] = {
        "set": lambda changes: service.set(**changes),
        "counts": service.counts,
        "reset": service.reset,
        "lose": listener.lose,
    }
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        name, *arguments = json.loads(line)
        _say(commands[name](*arguments))
    listener.close()


def _say(value: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_run(Path(sys.argv[1])))
