"""Reads the command line and picks the command. Knows no command's inside."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from prewarmkit.cli import schema
from prewarmkit.cli.demo import arguments as demo
from prewarmkit.cli.worker import arguments as worker

__all__ = ["main"]

_DESCRIPTION = (
    "Warm media ahead of demand: stream from Cloudflare R2, push to Telegram, keep the reusable handle."
)
_INTERRUPTED = 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m prewarmkit",
        description=_DESCRIPTION,
        epilog="Each command explains itself: python -m prewarmkit demo --help",
    )
    parser.add_argument("--version", action="version", version=f"prewarmkit {version('prewarmkit')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    demo.add_arguments(commands.add_parser("demo", help="run the main job on real servers on this machine"))
    worker.add_arguments(commands.add_parser("worker", help="run the workers of your pool beside your app"))
    schema.add_migrate(commands.add_parser("migrate", help="make or update the tables in PostgreSQL"))
    schema.add_verify(
        commands.add_parser("verify", help="compare the tables in PostgreSQL with this version")
    )
    schema.add_sql(commands.add_parser("sql", help="print the SQL of the tables"))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What follows ``python -m prewarmkit``; ``None``: the process's own.

    Returns:
        0: done. 1: it failed, and said why. 130: Ctrl-C. What cannot be read as a command
        ends the process with 2, as argparse does. Any other is told by the command's --help.
    """
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if not hasattr(parsed, "run"):
        parser.print_help(sys.stderr)
        return 2
    try:
        return int(parsed.run(parsed))
    except KeyboardInterrupt:
        # Before or after the command's own handling of signals: nothing is running.
        print("Interrupted.", file=sys.stderr)
        return _INTERRUPTED
