"""What ``worker`` may be told, and what it says of itself under ``--help``. Loads nothing of the library."""

from __future__ import annotations

import argparse
import math
import re
import sys
from typing import Any

from attrs import frozen

__all__ = ["LOG_LEVELS", "Options", "Post", "add_arguments"]

LOG_LEVELS = ("debug", "info", "warning", "error")
_MOST_PROCESSES = 512
_LONGEST_SECONDS = 86_400
_DEFAULT_GRACE = 30
_DEFAULT_KILL_AFTER = 20
_PLACE = re.compile(r"(?P<module>[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<factory>[^\W\d]\w*(?:\.[^\W\d]\w*)*)")

_DESCRIPTION = """\
Run the workers of a pool in processes of their own, beside your app, and keep them at work:
one that dies is started again, within half a second at first and half a minute at most.

MODULE:FACTORY names a function of yours that makes the pool. Each process calls it once:

  # app.py
  @contextlib.asynccontextmanager
  async def pool():
      async with (
          R2Client(account_id=..., bucket="media", credentials=Credentials.from_env()) as r2,
          PostgresStore("postgresql://localhost/app") as store,   # a table that all processes share
          TelegramTarget(os.environ["BOT_TOKEN"], warmup_chats=[-1001]) as bot,
          PrewarmPool(r2, bot, store, settings=PoolSettings.from_env()) as pool,
      ):
          yield pool

  python -m prewarmkit worker app:pool --processes 2

It takes no arguments, may be a coroutine function, and may also return a pool that is not
entered yet. Modules are looked for in the current directory first."""

_EPILOG = """\
signals, to the process that you start:
  SIGTERM, SIGINT   drain: nothing new is begun, what runs may finish within --grace; what is
                    pending stays queued. A second one cuts off what runs and gives it back, a
                    third one kills
  SIGHUP            rolling restart, to take up new code: one process after another, each new one
                    ready before the old one drains
  SIGKILL           the workers notice, and drain by themselves

exit codes:
  0    stopped as asked; all that ran was finished
  1    something was cut off or killed, or workers fail at every start
  2    the command line cannot be read
  78   your setup cannot work (no such module or factory, a missing schema or credential): starting
       again does not help

Runs on Linux, macOS and other POSIX systems, on asyncio. `timeout` of whatever stops this
process (TimeoutStopSec of systemd, stop_grace_period of Docker) should be over --grace + --kill-after."""


@frozen
class Post:
    """Which worker a process is, and its end of the line to the supervisor."""

    number: int
    line: int


@frozen(kw_only=True)
class Options:
    """What ``worker`` was told.

    Attributes:
        module: Where the factory is.
        factory: Its name there; dots lead into classes and objects.
        processes: How many workers.
        grace_seconds: How long a draining worker may take.
        kill_after_seconds: How much longer until it is killed.
        log_level: Of the records on standard error.
        post: In a worker, which one it is; ``None``: this is the supervisor.
    """

    module: str
    factory: str
    processes: int = 1
    grace_seconds: float = _DEFAULT_GRACE
    kill_after_seconds: float = _DEFAULT_KILL_AFTER
    log_level: str = "info"
    post: Post | None = None

    @property
    def place(self) -> str:
        """The factory as it was named."""
        return f"{self.module}:{self.factory}"

    def for_post(self, post: Post) -> list[str]:
        """The arguments of one worker's process."""
        return [
            *("worker", self.place, "--grace", repr(self.grace_seconds)),
            *("--kill-after", repr(self.kill_after_seconds), "--log-level", self.log_level),
            *("--post", f"{post.number}:{post.line}"),
        ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Teach a parser all that ``worker`` may be told, and what to run."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "place", type=_place, metavar="MODULE:FACTORY", help="the function that makes the pool"
    )
    parser.add_argument(
        "--processes",
        type=_number,
        default=1,
        metavar="N",
        help="how many workers share the table (default %(default)s)",
    )
    parser.add_argument(
        "--grace",
        type=_seconds,
        default=_DEFAULT_GRACE,
        metavar="SECONDS",
        help="how long media that are being warmed may take to finish on a stop (default %(default)s)",
    )
    parser.add_argument(
        "--kill-after",
        type=_seconds,
        default=_DEFAULT_KILL_AFTER,
        metavar="SECONDS",
        help="how long after that, or after a cut-off, a process that is still there is killed (default %(default)s)",
    )
    parser.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        default="info",
        help="what is logged to standard error (default %(default)s); where your module sets up logging of its own "
        "as it is imported, the workers leave that as it is",
    )
    parser.add_argument("--post", type=_post, help=argparse.SUPPRESS)
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    options = Options(
        module=parsed.place["module"],
        factory=parsed.place["factory"],
        processes=parsed.processes,
        grace_seconds=parsed.grace,
        kill_after_seconds=parsed.kill_after,
        log_level=parsed.log_level,
        post=parsed.post,
    )
    if sys.platform == "win32":
        print(
            "worker needs the signals of POSIX (Linux, macOS): on Windows, enter the pool in a process of your own, "
            "or run this in WSL or a container.",
            file=sys.stderr,
        )
        return 1
    # Imported when it is needed: a supervisor has no use for the library, --help for neither.
    if options.post is not None:
        from prewarmkit.cli.worker.child import run_worker

        return run_worker(options, options.post)
    from prewarmkit.cli.worker.supervisor import supervise

    return supervise(options)


def _place(text: str) -> re.Match[str]:
    found = _PLACE.fullmatch(text)
    name = text.partition(":")[0]
    is_file = name.endswith(".py") or "/" in name
    if found is None or is_file:
        module = name.removesuffix(".py").strip("./").replace("/", ".") if is_file else "app"
        hint = f"name the module, as in {module}:pool" if is_file else "as in app:pool"
        raise argparse.ArgumentTypeError(f"{text!r} is not MODULE:FACTORY: {hint}")
    return found


def _number(text: str) -> int:
    value = int(text)
    if not 1 <= value <= _MOST_PROCESSES:
        raise argparse.ArgumentTypeError(f"must be 1 to {_MOST_PROCESSES}, not {value}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if math.isnan(value) or not 0 <= value <= _LONGEST_SECONDS:
        raise argparse.ArgumentTypeError(f"must be 0 to {_LONGEST_SECONDS} seconds, not {text}")
    return value


def _post(text: str) -> Any:
    number, _, line = text.partition(":")
    return Post(int(number), int(line))
