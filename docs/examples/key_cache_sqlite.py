"""A signing-key cache that outlives the process: memory first, then encrypted rows in a SQLite file.

export PREWARMKIT_KEY_CACHE_KEY="$(openssl rand -base64 32)"    # once, into your secret manager
python key_cache_sqlite.py    # needs prewarmkit and cryptography, and no network

The encryption key comes from the environment, where the secret manager puts it. Never keep
it on the disk that holds the rows: a backup of that disk would hold both.
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import BoundedSemaphore, Lock
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from prewarmkit import Credentials, KeyScope, MemoryKeyCache, SigningError, SigningKey, SigV4Signer

log = logging.getLogger("key_cache_sqlite")

KEY_VARIABLE = "PREWARMKIT_KEY_CACHE_KEY"
KEY_SIZE = 32
NONCE_SIZE = 12
WAITING_WRITES = 64


class Vault:
    """Seals signing keys with AES-256-GCM, and names their rows. Knows no disk: Redis could take it as it is."""

    def __init__(self, encryption_key: bytes) -> None:
        if len(encryption_key) != KEY_SIZE:
            raise ValueError(
                f"encryption_key must be {KEY_SIZE} bytes: make one with secrets.token_bytes(32)."
            )
        # A key of its own for each use.
        self._cipher = AESGCM(hmac.digest(encryption_key, b"prewarmkit key cache 1: seal", "sha256"))
        self._naming_key = hmac.digest(encryption_key, b"prewarmkit key cache 1: name", "sha256")

    @classmethod
    def from_env(cls) -> Self:
        try:
            return cls(base64.b64decode(os.environ[KEY_VARIABLE], validate=True))
        except (KeyError, ValueError):
            raise ValueError(
                f"{KEY_VARIABLE} must hold {KEY_SIZE} bytes in base64: make them with openssl rand -base64 32."
            ) from None

    def name(self, scope: KeyScope) -> bytes:
        """What a row is called: it tells neither the scope nor the secret's digest."""
        return hmac.digest(self._naming_key, _flat(scope), "sha256")

    def seal(self, scope: KeyScope, key: SigningKey) -> bytes:
        nonce = os.urandom(NONCE_SIZE)
        return nonce + self._cipher.encrypt(nonce, key.to_bytes(), _flat(scope))

    def unseal(self, scope: KeyScope, sealed: object) -> SigningKey | None:
        """The key; ``None`` for all that was not sealed with our key, for this very scope."""
        if not isinstance(sealed, bytes):
            return None
        nonce, rest = sealed[:NONCE_SIZE], sealed[NONCE_SIZE:]
        try:
            return SigningKey.from_bytes(self._cipher.decrypt(nonce, rest, _flat(scope)))
        except (InvalidTag, SigningError, ValueError):
            return None


def _flat(scope: KeyScope) -> bytes:
    """The scope as bytes; two scopes never give the same ones."""
    return json.dumps([scope.secret_digest.hex(), scope.date, scope.region, scope.service]).encode()


class SqliteKeyCache:
    """A `KeyCache` for the processes of one machine; each has its own memory in front of the file.

    `get` and `put` may be called on an event loop:

    - What is in memory costs no I/O. A process reads a row at most once a scope and day, on a
      connection that waits for no lock: a busy file is a miss.
    - Writes are done by one thread, behind the caller's back. If too many wait, a key is not
      written: a cache may forget.

    From `open` on no fault of the file is an error: it is a miss, and one warning is logged.
    Opening it, `clear` and `close` wait for the disk. Open it after a fork, not before.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        vault: Vault,
        *,
        memory: MemoryKeyCache | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = Path(path)
        self._vault = vault
        self._memory = MemoryKeyCache() if memory is None else memory
        self._clock = clock
        self._warned = False
        self._reading = Lock()
        self._room = BoundedSemaphore(WAITING_WRITES)
        _make_private(self._path)
        self._rows = sqlite3.connect(self._path, timeout=5, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
            self._reader = sqlite3.connect(self._path, timeout=0, check_same_thread=False)
        except BaseException:
            self._rows.close()
            raise
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="key-cache")

    def get(self, scope: KeyScope) -> SigningKey | None:
        found = self._memory.get(scope)
        if found is None:
            with self._reading:  # clear() takes it last, so that no key it deleted comes back to memory
                found = self._read(scope)
                if found is not None:
                    self._memory.put(scope, found)
        return found

    def put(self, scope: KeyScope, key: SigningKey) -> None:
        self._memory.put(scope, key)
        if self._room.acquire(blocking=False):
            try:
                self._writer.submit(self._write, scope, key)
            except RuntimeError:  # closed: memory goes on
                self._room.release()

    def clear(self) -> None:
        """Forget every key, on disk for all processes, in memory for this one. Call it in a thread.

        Raises:
            sqlite3.Error: The rows could not be deleted; delete the file.
        """
        try:
            self._writer.submit(self._delete, float("inf")).result()
        finally:
            with self._reading:
                self._memory.clear()

    def flush(self) -> None:
        """Wait until every key that was put is in the file, or was given up."""
        self._writer.submit(int).result()

    def close(self) -> None:
        """Flush, and close the file. Signers may go on: the cache is one of memory then."""
        self._writer.shutdown()
        with self._reading:
            self._reader.close()
        self._rows.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SqliteKeyCache({str(self._path)!r})"

    # ── rows ─────────────────────────────────────────────────────────────────

    def _prepare(self) -> None:
        # WAL: readers wait for no writer. NORMAL: no fsync but when the log is folded into the file.
        self._rows.execute("PRAGMA journal_mode = WAL")
        self._rows.execute("PRAGMA synchronous = NORMAL")
        self._rows.execute("PRAGMA secure_delete = ON")
        self._rows.execute(
            "CREATE TABLE IF NOT EXISTS signing_keys"
            " (name BLOB PRIMARY KEY, ends INTEGER NOT NULL, sealed BLOB NOT NULL) WITHOUT ROWID"
        )
        self._delete(self._clock())

    def _read(self, scope: KeyScope) -> SigningKey | None:
        try:
            row = self._reader.execute(
                "SELECT sealed FROM signing_keys WHERE name = ? AND ends > ?",
                (self._vault.name(scope), self._clock()),
            ).fetchone()
        except sqlite3.Error as error:
            self._warn(type(error).__name__)
            return None
        if row is None:
            return None
        key = self._vault.unseal(scope, row[0])
        if key is None:
            self._warn("a row was damaged or forged, and is replaced")
        return key

    def _write(self, scope: KeyScope, key: SigningKey) -> None:
        try:
            ends = datetime.strptime(scope.date, "%Y%m%d").replace(tzinfo=UTC) + timedelta(days=1)
            self._delete(self._clock())
            self._rows.execute(
                "INSERT OR REPLACE INTO signing_keys (name, ends, sealed) VALUES (?, ?, ?)",
                (self._vault.name(scope), int(ends.timestamp()), self._vault.seal(scope, key)),
            )
        except (sqlite3.Error, ValueError) as error:
            self._warn(type(error).__name__)
        finally:
            self._room.release()

    def _delete(self, now: float) -> None:
        """Delete the rows whose day had ended by then, and what the log still says of them."""
        if self._rows.execute("DELETE FROM signing_keys WHERE ends <= ?", (now,)).rowcount:
            self._rows.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning("%r: %s. Signatures stay right; later faults are not logged.", self, what)


def _make_private(path: Path) -> None:
    """Mode 0600 before the first byte is in it; SQLite gives its WAL files the same.

    A file that is there is not opened: to close it would drop the locks this process has on it.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        path.chmod(0o600)


def main() -> None:
    url = "https://account.r2.cloudflarestorage.com/media/intro.mp4"
    credentials = Credentials("access-key-id", "secret-access-key")
    if KEY_VARIABLE in os.environ:
        vault = Vault.from_env()
    else:
        print(f"{KEY_VARIABLE} is not set: this demonstration makes a key that ends with it.")
        vault = Vault(secrets.token_bytes(KEY_SIZE))
    now = time.time()
    with TemporaryDirectory() as folder:
        path = Path(folder, "signing-keys.db")
        for run in ("first run", "after a restart"):
            with SqliteKeyCache(path, vault) as cache:
                signer = SigV4Signer(credentials, key_cache=cache)
                signed = signer.sign("GET", url, signed_at=now)
                assert signed == SigV4Signer(credentials).sign("GET", url, signed_at=now)
                info = signer.cache_info()
                print(f"{run}: {info.hits} found, {info.misses} derived")

        scope = KeyScope(credentials.secret_digest, time.strftime("%Y%m%d", time.gmtime(now)), "auto", "s3")
        memory = MemoryKeyCache()
        with SqliteKeyCache(path, vault, memory=memory) as cache:
            microseconds: list[float] = []
            for _ in range(500):
                memory.clear()
                began = time.perf_counter()
                assert cache.get(scope) is not None
                microseconds.append((time.perf_counter() - began) * 1e6)
            print(
                f"a row read and unsealed: {median(microseconds):.0f} µs, at most {max(microseconds):.0f} µs"
            )


if __name__ == "__main__":
    main()
