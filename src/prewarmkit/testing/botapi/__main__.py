"""``python -m prewarmkit.testing.botapi``: the Bot API server as a process, for who wants to kill it.

It prints one line of JSON (``url``, ``pid``) when it serves, and ends on SIGTERM, SIGINT or the end of its standard input.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from prewarmkit.testing.botapi.limits import FloodLimits
from prewarmkit.testing.botapi.server import BotApiServer
from prewarmkit.testing.botapi.values import FAKE_BOT


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m prewarmkit.testing.botapi", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--token", action="append", help="of a bot to know; may be given several times")
    parser.add_argument("--journal", type=Path, help="a file that keeps uploads over restarts")
    parser.add_argument("--local", action="store_true", help="2000 MB instead of 50, as with --local")
    parser.add_argument(
        "--minute",
        type=float,
        metavar="SECONDS",
        help="hold Telegram's limits per chat and per bot, with a minute of so many seconds",
    )
    return parser.parse_args()


def _wait_for_end() -> None:
    """Return at a signal, or when whoever started this process has closed its end of our standard input."""
    end = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        end.set()

    def watch_stdin() -> None:
        # os.read, not sys.stdin: a thread blocked in a buffered reader breaks the interpreter's shutdown.
        while os.read(0, 4096):
            pass
        end.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    threading.Thread(target=watch_stdin, daemon=True).start()
    end.wait()


def main() -> None:
    """Serve until told to stop."""
    arguments = _arguments()
    first, *others = arguments.token or [FAKE_BOT]
    limits = None if arguments.minute is None else FloodLimits(window_seconds=arguments.minute)
    with BotApiServer(
        token=first,
        port=arguments.port,
        journal=arguments.journal,
        local=arguments.local,
        limits=limits,
    ) as server:
        for token in others:
            server.add_bot(token)
        sys.stdout.write(json.dumps({"url": server.url, "pid": os.getpid()}) + "\n")
        sys.stdout.flush()
        _wait_for_end()


if __name__ == "__main__":
    main()
