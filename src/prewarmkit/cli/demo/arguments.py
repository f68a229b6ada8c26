"""What ``demo`` may be told, and what it says of itself under ``--help``.

Loads neither the library nor an extra: ``--help`` works without, and a missing extra is one message.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

from attrs import field, frozen

__all__ = ["DEFAULT_COUNT", "FAULTS", "S3_SERVERS", "STORES", "Options", "add_arguments"]

DEFAULT_COUNT = 300
_FAULT_COUNT = 24
_DEFAULT_CHATS = 25
_DEFAULT_CONCURRENCY = 6
_DEFAULT_LEASE = 5
_MOST_MEDIA = 100_000
_MOST_CHATS = 1000
_MOST_CONCURRENCY = 500
_NEEDED = ("rich", "aiohttp")

S3_SERVERS = ("seaweedfs", "rclone")
STORES = ("sqlite", "postgres")
FAULTS = {
    "wrong-secret": "the worker signs with another secret access key",
    "missing-bucket": "the worker reads from a bucket that is not there",
    "full-disk": "the worker's database may not grow (sqlite)",
    "unknown-kind": "a medium is queued as a hologram",
    "revoked-token": "the worker has a bot token that is no longer good",
}

_DESCRIPTION = """\
The main job from end to end on real parts, all of them on this machine: an S3 server
that checks signatures, a table in SQLite or PostgreSQL, a Bot API server, and a worker process that
warms every medium into a reusable file_id. A second pass then looks each medium up,
and the bytes that arrived are compared with the source's SHA-256.

The exit code is 0 only if every medium is ready and every byte is right."""

_EPILOG = """\
try:
  python -m prewarmkit demo                      300 media at Telegram's pace, about half a minute
  python -m prewarmkit demo --no-budget          as fast as this machine goes
  python -m prewarmkit demo --media ~/Pictures   your own files, up to 50 MB each
  python -m prewarmkit demo --data here          keeps everything; run it again to go on where it stopped
  python -m prewarmkit demo --store postgres     the table in a PostgreSQL that is started for it
  python -m prewarmkit demo --json | jq .warming

While it runs, kill -9 the worker whose number it shows: another takes over and nothing is lost.
With --data even the demo itself may be killed.

faults (--fault), to see what an operator sees:
""" + "\n".join(f"  {name:15} {what}" for name, what in FAULTS.items())


@frozen(kw_only=True)
class Options:
    """What ``demo`` was told; ``None`` where it was told nothing and ``--data`` may know better.

    Attributes:
        count: Media to make.
        seed: What they are made from.
        media: A directory of one's own files, absolute.
        data: Where everything is kept, absolute.
        chats: Private warmup chats.
        has_budget: Whether sending keeps to Telegram's limits.
        concurrency: Media that are warmed at once.
        s3: Which S3 server; ``None``: the best that is installed.
        store: Where the table lives.
        dsn: Of a PostgreSQL that is there already; ``None``: one is started. Hidden in ``repr``.
        lease_seconds: How long a dead worker keeps its media.
        fault: What to break.
        is_json: Whether only JSON goes to standard output.
    """

    count: int | None = None
    seed: int | None = None
    media: Path | None = None
    data: Path | None = None
    chats: int = _DEFAULT_CHATS
    has_budget: bool = True
    concurrency: int = _DEFAULT_CONCURRENCY
    s3: str | None = None
    store: str | None = None
    dsn: str | None = field(default=None, repr=False)
    lease_seconds: int = _DEFAULT_LEASE
    fault: str | None = None
    is_json: bool = False

    @property
    def default_count(self) -> int:
        """How many media where nobody said: a fault shows itself with few."""
        return DEFAULT_COUNT if self.fault is None else _FAULT_COUNT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Teach a parser all that ``demo`` may be told, and what to run."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    _add_what(parser)
    _add_how(parser)

    def run(parsed: argparse.Namespace) -> int:
        return _run(_options(parser, parsed))

    parser.set_defaults(run=run)


def _add_what(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is warmed")
    group.add_argument(
        "--count",
        type=_number(1, _MOST_MEDIA),
        metavar="N",
        help=f"media to make: PNG, GIF, MP4, MP3, WAV, OGG, PDF, ZIP, text, 20 KB to 5 MB "
        f"(default {DEFAULT_COUNT}; {_FAULT_COUNT} with --fault)",
    )
    group.add_argument("--seed", type=int, metavar="N", help="other seeds make other media (default 0)")
    group.add_argument(
        "--media",
        type=_directory,
        metavar="DIRECTORY",
        help="warm these files instead, subdirectories too, hidden ones left out; the extension gives the kind",
    )


def _add_how(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how")
    group.add_argument(
        "--chats",
        type=_number(1, _MOST_CHATS),
        default=_DEFAULT_CHATS,
        metavar="N",
        help="private warmup chats; each takes one medium a second (default %(default)s)",
    )
    group.add_argument("--no-budget", action="store_true", help="keep to none of Telegram's limits")
    group.add_argument(
        "--concurrency",
        type=_number(1, _MOST_CONCURRENCY),
        default=_DEFAULT_CONCURRENCY,
        metavar="N",
        help="media that are warmed at once (default %(default)s)",
    )
    group.add_argument(
        "--store",
        choices=STORES,
        help="where the table lives: in a file (default), or in a PostgreSQL, which is started for it and removed",
    )
    group.add_argument(
        "--dsn",
        metavar="DSN",
        help="a PostgreSQL of your own, as postgresql://user@host/database (its password rather in PGPASSWORD or "
        "~/.pgpass); the demo makes a schema in it, and removes it",
    )
    group.add_argument(
        "--s3",
        choices=S3_SERVERS,
        help="which S3 server to start (default: seaweedfs where it is installed; rclone starts faster)",
    )
    group.add_argument(
        "--lease",
        type=_number(1, 60),
        default=_DEFAULT_LEASE,
        metavar="SECONDS",
        help="how long the media of a killed worker wait for the next one (default %(default)s)",
    )
    group.add_argument(
        "--data",
        type=_path,
        metavar="DIRECTORY",
        help="keep everything there and go on from it; without it a temporary folder is used and removed",
    )
    group.add_argument(
        "--fault", choices=FAULTS, metavar="FAULT", help="break something on purpose, see below"
    )
    group.add_argument(
        "--json", action="store_true", help="print the figures as JSON; progress goes to standard error"
    )


def _options(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> Options:
    media, data = parsed.media, parsed.data
    if media is not None and (parsed.count is not None or parsed.seed is not None):
        parser.error("--media takes the files as they are: leave --count and --seed out")
    if media is not None and data is not None and data.is_relative_to(media):
        parser.error("--data must not lie inside --media, or the demo would warm its own files")
    _check_store(parser, parsed)
    return Options(
        count=parsed.count,
        seed=parsed.seed,
        media=media,
        data=data,
        chats=parsed.chats,
        has_budget=not parsed.no_budget,
        concurrency=parsed.concurrency,
        s3=parsed.s3,
        store=parsed.store,
        dsn=parsed.dsn,
        lease_seconds=parsed.lease,
        fault=parsed.fault,
        is_json=parsed.json,
    )


def _check_store(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> None:
    if parsed.dsn is not None and parsed.store != "postgres":
        parser.error("--dsn goes with --store postgres")
    if parsed.store == "postgres" and parsed.fault == "full-disk":
        parser.error("--fault full-disk goes with --store sqlite")
    if parsed.store == "postgres" and parsed.dsn is None and parsed.data is not None:
        parser.error("--data keeps no PostgreSQL that the demo starts: name one of your own with --dsn")


def _run(options: Options) -> int:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"The demo needs {' and '.join(missing)}: pip install 'prewarmkit[demo]'", file=sys.stderr)
        return 1
    # Imported when it is needed: --help must neither load the library nor ask for an extra.
    from prewarmkit.cli.demo.command import run

    return run(options)


def _number(least: int, most: int) -> Any:
    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be {least} to {most}, not {value}")
        return value

    return number


def _path(text: str) -> Path:
    return Path(text).expanduser().resolve()


def _directory(text: str) -> Path:
    path = _path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no directory: name one that holds your files")
    return path
