"""Log records on standard error, each with the name of its process. For a command line, which may; the library does not."""

from __future__ import annotations

import logging

__all__ = ["log_to_stderr"]


def log_to_stderr(who: str, level: str) -> None:
    """Show records from ``level`` on, unless somebody has seen to that already."""
    logging.basicConfig(
        level=level.upper(), format=f"%(asctime)s %(levelname)-7s {who:10} %(name)s: %(message)s"
    )
