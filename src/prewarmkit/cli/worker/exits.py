"""The exit codes of ``worker``, the supervisor's and the workers' own."""

from __future__ import annotations

__all__ = ["CONFIGURATION", "DONE", "FAILED", "TEMPORARY", "USAGE"]

DONE = 0
"""Stopped as asked, and everything that was in hand was finished and settled."""
FAILED = 1
"""Something was cut off, was killed, or failed."""
USAGE = 2
"""The command line cannot be read; argparse's."""
TEMPORARY = 75
"""A worker could not start, by a failure that a later try may not meet (EX_TEMPFAIL)."""
CONFIGURATION = 78
"""What the host set up cannot work; starting again does not help (EX_CONFIG)."""
