"""The folder that one demo lives in: what is where, whose it is, what it was made with.

Owns the folder's layout, its lock and the two small files that let a killed demo go on. Knows
neither servers nor media.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from prewarmkit.cli.demo.arguments import Options
from prewarmkit.errors import ConfigurationError

__all__ = ["Place", "Plan", "Stored", "last_words", "open_place", "remove"]

_LOCK = "lock"
_PLAN = "demo.json"
_LOG = "demo.log"
_PART = "demo.json.part"
_OURS = {_LOCK, _LOG, _PART}  # what a demo leaves that never got as far as to have a plan


@frozen(kw_only=True)
class Plan:
    """What is warmed. A folder has one, for good.

    Attributes:
        count: Media to make.
        seed: What from.
        media: The directory of one's own files instead; ``None``: they are made.
        s3: Which S3 server keeps them; ``None``: the best that is installed.
        store: Where the table lives.
        schema: Of the table in somebody's PostgreSQL; ``None``: it is in none.
    """

    count: int
    seed: int
    media: str | None
    s3: str | None
    store: str = "sqlite"
    schema: str | None = None


@frozen(kw_only=True)
class Stored:
    """One object that the bucket has acknowledged.

    Attributes:
        key: Its key.
        size: Bytes.
        sha256: Hex digest of the source's bytes, taken before they were uploaded.
        stamp: What the source was: equal stamps and sizes mean equal bytes.
    """

    key: str
    size: int
    sha256: str
    stamp: str


@frozen
class Place:
    """The folder.

    Attributes:
        path: Where it is, absolute.
        is_temporary: Whether nobody asked for it to be kept.
        plan: What is warmed here.
    """

    path: Path
    is_temporary: bool
    plan: Plan

    @property
    def database(self) -> Path:
        """The table, if it is in a file: queue and cache at once."""
        return self.path / "prewarm.db"

    @property
    def journal(self) -> Path:
        """What the Bot API server got."""
        return self.path / "bot-api.journal"

    @property
    def log(self) -> Path:
        """What the library has to say, and a worker's last words."""
        return self.path / _LOG

    @property
    def server_log(self) -> Path:
        """What the Bot API server has to say."""
        return self.path / "bot-api.log"

    def settle(self) -> None:
        """From now on the folder has its plan, for good."""
        unfinished = self.path / _PART
        unfinished.write_text(json.dumps(asdict(self.plan)) + "\n", encoding="utf-8")
        unfinished.replace(self.path / _PLAN)

    @property
    def _manifest(self) -> Path:
        return self.path / "uploaded.jsonl"

    def stored(self) -> dict[str, Stored]:
        """The objects that earlier runs have uploaded, by key."""
        if not self._manifest.exists():
            return {}
        found: dict[str, Stored] = {}
        for line in self._manifest.read_text(encoding="utf-8").splitlines():
            # A last line that was cut off by a kill: that object is uploaded again.
            with contextlib.suppress(ValueError, TypeError):
                each = Stored(**json.loads(line))
                found[each.key] = each
        return found

    def remember(self, stored: Stored) -> None:
        """Note an object that the bucket has."""
        # The line break comes first too, so that a torn line spoils no other.
        with self._manifest.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(asdict(stored)) + "\n")


@contextmanager
def open_place(options: Options) -> Generator[Place]:
    """Make or take up the folder, and hold it against other demos.

    Raises:
        ConfigurationError: It is somebody else's, is in use, or holds another demo.
    """
    path = options.data
    if path is None:
        path = Path(tempfile.mkdtemp(prefix="prewarmkit-demo-"))
    else:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (path / _PLAN).exists() and any(each.name not in _OURS for each in path.iterdir()):
        raise ConfigurationError(f"{path} is not empty and holds no demo: choose a new directory for --data.")
    with _locked(path):
        yield Place(path, options.data is None, _plan_of(path, options))


def last_words(log: Path) -> str:
    """The last line of a log: why a process ended that should not have."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return text.strip().rpartition("\n")[2] or "it said nothing"


def remove(place: Place) -> None:
    """Remove a temporary folder."""
    shutil.rmtree(place.path, ignore_errors=True)


def _planned(options: Options) -> Plan:
    return Plan(
        count=options.default_count if options.count is None else options.count,
        seed=options.seed or 0,
        media=None if options.media is None else str(options.media),
        s3=options.s3,
        store=options.store or "sqlite",
        schema=None if options.dsn is None else f"prewarmkit_demo_{secrets.token_hex(4)}",
    )


def _plan_of(path: Path, options: Options) -> Plan:
    """The plan that the folder has, or will get; what the command line repeats must agree."""
    file = path / _PLAN
    if not file.exists():
        return _planned(options)
    try:
        plan = Plan(**json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{file} is damaged: choose a new directory for --data.") from error
    said: dict[str, Any] = {
        "count": options.count,
        "seed": options.seed,
        "media": None if options.media is None else str(options.media),
        "s3": options.s3,
        "store": options.store,
    }
    for name, value in said.items():
        was = getattr(plan, name)
        if value is not None and value != was:
            raise ConfigurationError(
                f"{path} holds a demo with --{name} {was}, and --{name} is {value} now: leave it out, "
                "or choose a new directory for --data."
            )
    if plan.schema is not None and options.dsn is None:
        raise ConfigurationError(
            f"{path} holds a demo whose table is in your PostgreSQL: name it with --store postgres --dsn DSN."
        )
    return plan


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """Hold the folder; the system lets go of it if this process dies."""
    with (path / _LOCK).open("a+b") as file:
        try:
            _lock(file.fileno())
        except OSError as error:
            raise ConfigurationError(
                f"Another demo uses {path} now: wait for it, or choose another directory for --data."
            ) from error
        yield


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
