"""How much CPU an import costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from benchmarks.harness import Row, Workspace, benchmark, interleaved

_USED = "import resource as r; u = r.getrusage(r.RUSAGE_SELF); print(u.ru_utime + u.ru_stime)"


def _cpu_seconds(statement: str) -> float:
    """Return the CPU seconds of a fresh interpreter that runs `statement`."""
    command = [sys.executable, "-c", f"{statement}; {_USED}"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@benchmark
def startup(_: Workspace) -> Iterator[Row]:
    """CPU of ``import flairhub``, without peer: users import xarray besides, not instead."""
    found = interleaved({"ours": lambda: _cpu_seconds("import flairhub")}, repeats=7)
    yield Row(
        "import flairhub", "CPU s", found["ours"], None, 0.5, "lower", "interpreter start included"
    )
