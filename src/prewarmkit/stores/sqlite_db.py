"""A SQLite file for `SqliteStore`: opened privately, migrated, and used off the event loop.

WAL, so that readers never wait for a writer, and ``synchronous=FULL``: each commit is one
fsync of the log, so what a call said is done survives a power cut as well as a kill -9 (as
far as the disk keeps its own word). A batch shares its commit, and thereby its fsync; a
commit that a power cut may forget goes without, and reaches the disk with the next one. This
file knows connections, transactions and errors; it must never know what a row means.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
from attrs import define, field

from prewarmkit.errors import (
    ConfigurationError,
    SchemaMissing,
    SchemaTooNew,
    SchemaTooOld,
    StoreError,
    StoreFull,
)
from prewarmkit.stores.sql import load_migrations

__all__ = ["Database"]

T = TypeVar("T")

_OLDEST_SQLITE = (3, 35, 0)  # RETURNING


@define(eq=False)
class Database:
    """One file, one connection that writes and one that reads.

    Each connection is used by one thread at a time. A call that runs is never abandoned:
    a cancelled caller waits for its transaction to end, so nobody meets a half-done one.
    """

    path: Path
    max_bytes: int | None = None
    busy_seconds: float = 10.0
    _identity: tuple[int, int] | None = field(init=False, default=None, repr=False)
    _writer: sqlite3.Connection | None = field(init=False, default=None, repr=False)
    _reader: sqlite3.Connection | None = field(init=False, default=None, repr=False)
    # Taken in the thread. The turns are the callers', who may leave theirs early: `Task.cancel` of asyncio
    # goes through every shield, and the thread works on.
    _write_lock: threading.Lock = field(init=False, factory=threading.Lock, repr=False)
    _read_lock: threading.Lock = field(init=False, factory=threading.Lock, repr=False)
    _write_turn: anyio.CapacityLimiter | None = field(init=False, default=None, repr=False)
    _read_turn: anyio.CapacityLimiter | None = field(init=False, default=None, repr=False)

    @property
    def is_new(self) -> bool:
        """Whether it is not open yet."""
        return self._writer is None

    async def open(self) -> None:
        """Connect, and make the file (mode 0600) if it is new."""
        if self._writer is not None:
            raise RuntimeError(f"The store on {self.path} is entered already: share it, or make another.")
        self._write_turn, self._read_turn = anyio.CapacityLimiter(1), anyio.CapacityLimiter(1)
        await anyio.to_thread.run_sync(self._open, limiter=self._write_turn)

    async def close(self) -> None:
        """Close both connections; what runs ends first."""
        if self._write_turn is None or self._read_turn is None:
            return
        with anyio.CancelScope(shield=True):
            async with self._read_turn:
                if self._reader is not None:
                    await anyio.to_thread.run_sync(_close, self._reader, self._read_lock)
            async with self._write_turn:
                if self._writer is not None:
                    await anyio.to_thread.run_sync(_close, self._writer, self._write_lock)
        self._writer = self._reader = None

    async def write(self, work: Callable[[sqlite3.Connection], T], *, is_flushed: bool = True) -> T:
        """Run ``work`` in one transaction that holds the write lock from its start.

        Without ``is_flushed`` what it did survives this process at once, but a power cut only
        with the next commit that is flushed.
        """
        connection, turn = _opened(self._writer, self._write_turn, self.path)

        def transact() -> T:
            with self._write_lock, self._errors(), _flushing(connection, is_flushed=is_flushed):
                self._check_file()
                try:
                    return _transaction(connection, work)
                except sqlite3.OperationalError as error:
                    if _primary(error) != sqlite3.SQLITE_FULL:
                        raise
                # The log of a busy file may be what fills the disk: fold it into the file, try once more.
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                return _transaction(connection, work)

        return await anyio.to_thread.run_sync(transact, limiter=turn)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` on a snapshot; no lock is taken and none is waited for."""
        connection, turn = _opened(self._reader, self._read_turn, self.path)

        def look() -> T:
            with self._read_lock, self._errors():
                return work(connection)

        return await anyio.to_thread.run_sync(look, limiter=turn)

    # ── in the thread ────────────────────────────────────────────────────────

    def _make_file(self) -> None:
        """Make the file with mode 0600 before SQLite opens it; its WAL files take the mode over.

        One that is there is not even opened: closing it would drop the locks that other
        connections of this process hold on it (sqlite.org, "How To Corrupt", section 2.2).
        """
        # Where a link points to nothing yet, SQLite would make what it names, with the umask's mode.
        path = os.path.realpath(self.path)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        with suppress(FileExistsError):
            os.close(os.open(path, flags, 0o600))

    def _check_file(self) -> None:
        """Refuse to write to a file that has no name any more: SQLite would go on, and all would be gone at the end."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._identity:
            raise StoreError(
                f"The database {self.path} was removed or replaced while it was open: put it back, or enter the store anew."
            )

    def _open(self) -> None:
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise ConfigurationError(
                f"SQLite {sqlite3.sqlite_version} is too old: SqliteStore needs 3.35 or newer in this Python."
            )
        with self._errors():
            self._make_file()
            writer = self._connect()
            try:
                writer.execute("PRAGMA journal_mode = WAL")
                if self.max_bytes is not None:
                    page = writer.execute("PRAGMA page_size").fetchone()[0]
                    writer.execute(f"PRAGMA max_page_count = {max(1, self.max_bytes // int(page))}")
                reader = self._connect()
                found = self.path.stat()
            except BaseException:
                writer.close()
                raise
        self._identity = found.st_dev, found.st_ino
        self._writer, self._reader = writer, reader

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=self.busy_seconds, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    @contextmanager
    def _errors(self) -> Generator[None]:
        """Say what to do about SQLite's errors."""
        try:
            yield
        except sqlite3.Error as error:
            raise _translated(error, self) from error
        except OSError as error:
            raise ConfigurationError(
                f"The database {self.path} cannot be opened: {error.strerror}. Choose a path that this user can write."
            ) from error

    # ── schema ───────────────────────────────────────────────────────────────

    async def migrate(self) -> None:
        """Apply the migrations that are missing, each in its own transaction."""
        for number, sql in load_migrations("sqlite"):
            await self.write(partial(_apply, number=number, sql=sql, path=self.path))
        await self.check_schema()

    async def check_schema(self) -> None:
        """Raise if the schema is missing, older or newer than this code."""
        have = await self.read(_schema_version)
        want = load_migrations("sqlite")[-1][0]
        if have == 0:
            raise SchemaMissing(f"{self.path} has no prewarmkit tables: run `await store.migrate()` once.")
        if have < want:
            raise SchemaTooOld(
                f"{self.path} has schema {have}, this version needs {want}: run the migration."
            )
        if have > want:
            raise SchemaTooNew(
                f"{self.path} has schema {have}, this version knows {want}: upgrade prewarmkit in this process."
            )


def _opened(
    connection: sqlite3.Connection | None, turn: anyio.CapacityLimiter | None, path: Path
) -> tuple[sqlite3.Connection, anyio.CapacityLimiter]:
    if connection is None or turn is None:
        raise ConfigurationError(
            f"The store on {path} is not open: enter it first with `async with SqliteStore(...)`."
        )
    return connection, turn


@contextmanager
def _flushing(connection: sqlite3.Connection, *, is_flushed: bool) -> Generator[None]:
    if is_flushed:
        yield
        return
    connection.execute("PRAGMA synchronous = NORMAL")
    try:
        yield
    finally:
        connection.execute("PRAGMA synchronous = FULL")


def _transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        return work(connection)


def _schema_version(connection: sqlite3.Connection) -> int:
    if not _has_table(connection, "prewarm_migrations"):
        return 0
    return int(connection.execute("SELECT coalesce(max(version), 0) FROM prewarm_migrations").fetchone()[0])


def _has_table(connection: sqlite3.Connection, name: str) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,))
    return found.fetchone() is not None


def _apply(connection: sqlite3.Connection, number: int, sql: str, path: Path) -> None:
    if _schema_version(connection) >= number:
        return
    if number == 1 and _has_table(connection, "media_cache"):
        raise ConfigurationError(
            f"{path} has a table media_cache that is not prewarmkit's: give SqliteStore a file of its own."
        )
    connection.execute(
        "CREATE TABLE IF NOT EXISTS prewarm_migrations (version INTEGER PRIMARY KEY, applied_at REAL NOT NULL)"
    )
    for statement in _statements(sql):
        connection.execute(statement)
    connection.execute(
        "INSERT INTO prewarm_migrations VALUES (?, (julianday('now') - 2440587.5) * 86400.0)", (number,)
    )


def _statements(sql: str) -> Generator[str]:
    # Not executescript(): it would commit our transaction before it begins.
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _code(error: sqlite3.Error) -> int | None:
    """SQLite's result code; ``None``: it is an error of Python's."""
    return getattr(error, "sqlite_errorcode", None)


def _primary(error: sqlite3.Error) -> int | None:
    """The same without its extension."""
    code = _code(error)
    return None if code is None else code & 0xFF


def _translated(error: sqlite3.Error, db: Database) -> Exception:
    primary, path = _primary(error), db.path
    # The second is of the file beside the database that its processes share: on a full disk it cannot be made.
    if primary == sqlite3.SQLITE_FULL or _code(error) == sqlite3.SQLITE_IOERR_SHMSIZE:
        return StoreFull(
            f"No room for the database {path}: free space on its disk, or raise max_bytes=. Nothing that it held is lost."
        )
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StoreError(
            f"The database {path} stayed locked for {db.busy_seconds:g} s: another process holds it."
        )
    if primary in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}:
        # Wrong from the start it is a setting; later the world changed, and may change back.
        kind = ConfigurationError if db.is_new else StoreError
        return kind(f"The database {path} cannot be written: choose a path that this user can write.")
    if primary in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
        return ConfigurationError(
            f"{path} is no SQLite database, or is damaged: restore it or choose another path."
        )
    return StoreError(f"The database {path} failed: {error}.")


def _close(connection: sqlite3.Connection, lock: threading.Lock) -> None:
    """Close it once nobody works on it: SQLite may crash the process otherwise."""
    with lock:
        connection.close()
