"""Worker processes that the chaos tests start, kill and let finish."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["finish", "start"]


def start(script: Path, *arguments: object, push_seconds: float = 0) -> subprocess.Popen[bytes]:
    """Start a worker; return once it works. A push takes it some milliseconds, or as long as is said."""
    process = subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PUSH_SECONDS": str(push_seconds)},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == b"ready\n", line + process.stdout.read()
    return process


def finish(process: subprocess.Popen[bytes]) -> None:
    """Let it work until nothing is left."""
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, b"done\n"), out
