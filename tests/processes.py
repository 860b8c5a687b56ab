"""Commands run as a user runs them: in a process of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path


def run(
    *command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command and return its exit code and its output as text."""
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env)
