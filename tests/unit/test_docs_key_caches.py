"""The key caches that the documentation shows do what its page says of them."""

from __future__ import annotations

import base64
import hmac
import importlib.util
import logging
import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from prewarmkit import Credentials, KeyScope, MemoryKeyCache, SigningKey, SigV4Signer
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.contracts.key_cache import KeyCacheContract, key_for

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SCRIPTS = ["key_cache_shared.py", "key_cache_sqlite.py"]
URL = "https://account.r2.cloudflarestorage.com/media/a.mp4"
AT = 1_700_000_000  # the 14th of November 2023
DAY = 86_400
ENCRYPTION_KEY = bytes(range(32))
ANNA, BEN = Credentials("anna-id", "anna-secret-0123456789"), Credentials("ben-id", "ben-secret-0123456789")


def loaded(name: str) -> ModuleType:
    """An example as a module, from where the page includes it."""
    path = EXAMPLES / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


SHARED, SQLITE = (loaded(name) for name in SCRIPTS)


def signed(credentials: Credentials, at: float = AT, cache: Any = None) -> dict[str, str]:
    """By a signer with that cache; without: by one that nobody else had its hands on."""
    return SigV4Signer(credentials, key_cache=cache).sign("GET", URL, signed_at=at)


def scope_of(credentials: Credentials, date: str = "20231114") -> KeyScope:
    return KeyScope(credentials.secret_digest, date, "auto", "s3")


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_runs_as_a_script(script: str, tmp_path: Path) -> None:
    """Without an argument, a network or a warning."""
    environment = {name: value for name, value in os.environ.items() if name != SQLITE.KEY_VARIABLE}
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", EXAMPLES / script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_stolen_key_is_enough_to_presign_for_a_week() -> None:
    """What the page warns of: no secret is needed, and the day of the key may be over."""
    _, key = key_for(ANNA.secret_access_key)
    signer = SigV4Signer(ANNA)
    last_second = AT - AT % DAY + DAY - 1
    forged = signer.string_to_sign("GET", URL, signed_at=last_second, expires=7 * DAY)
    signature = hmac.new(key.key, forged.encode(), "sha256").hexdigest()
    assert signer.presign("GET", URL, signed_at=last_second, expires=7 * DAY).endswith(signature)


# ── one cache for a process ──────────────────────────────────────────────────


class TestSharedCache(KeyCacheContract):
    @pytest.fixture
    def cache(self) -> Any:
        return SHARED.MeteredKeyCache(64)


def test_signers_of_many_tenants_share_a_cache() -> None:
    """Eight threads, five tenants, three signers each: one derivation a tenant, and nobody gets another's key."""
    cache = SHARED.MeteredKeyCache(64)
    tenants = [Credentials("one-id-for-all", f"secret-{number}") for number in range(5)]
    signers = [(tenant, SigV4Signer(tenant, key_cache=cache)) for tenant in tenants for _ in range(3)]
    for tenant in tenants:
        signed(tenant, cache=cache)

    def sign(turn: int) -> bool:
        tenant, signer = signers[turn % len(signers)]
        return signer.sign("GET", URL, signed_at=AT) == signed(tenant)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(sign, range(600)))
    assert cache.figures() == SHARED.Figures(hits=600, misses=5, puts=5, size=5)


def test_a_replaced_token_leaves_no_key_behind() -> None:
    cache = SHARED.MeteredKeyCache(64)
    signed(ANNA, cache=cache)
    signed(BEN, cache=cache)
    signer = SHARED.replace_token(cache, Credentials("anna-id-2", "anna-secret-2"))
    assert cache.figures().size == 0
    assert signer.sign("GET", URL, signed_at=AT) == signed(Credentials("anna-id-2", "anna-secret-2"))
    assert cache.get(scope_of(ANNA)) is None


# ── encrypted rows ───────────────────────────────────────────────────────────


Opener = Callable[..., Any]


class OnDiskOnly:
    """The example without its memory: each answer comes from the file."""

    def __init__(self, cache: Any, memory: MemoryKeyCache) -> None:
        self.cache, self.memory = cache, memory

    def get(self, scope: KeyScope) -> SigningKey | None:
        self.memory.clear()
        found: SigningKey | None = self.cache.get(scope)
        return found

    def put(self, scope: KeyScope, key: SigningKey) -> None:
        self.cache.put(scope, key)
        self.cache.flush()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(now=float(AT))


@pytest.fixture
def opened(path: Path, clock: FakeClock) -> Iterator[Opener]:
    """Opens the cache, as a process does that starts; closes what a test left open."""
    caches: list[Any] = []

    def open_one(encryption_key: bytes = ENCRYPTION_KEY, **options: Any) -> Any:
        cache = SQLITE.SqliteKeyCache(path, SQLITE.Vault(encryption_key), clock=clock, **options)
        caches.append(cache)
        return cache

    yield open_one
    for cache in caches:
        cache.close()


class TestSqliteCache(KeyCacheContract):
    @pytest.fixture
    def cache(self, opened: Opener) -> Any:
        return opened()


class TestSqliteCacheWithoutItsMemory(KeyCacheContract):
    @pytest.fixture
    def cache(self, opened: Opener) -> OnDiskOnly:
        memory = MemoryKeyCache()
        return OnDiskOnly(opened(memory=memory), memory)


def rows(path: Path, sql: str = "SELECT name, ends, sealed FROM signing_keys", *values: object) -> list[Any]:
    """What another program does to the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(sql, values).fetchall()


def bytes_on_disk(path: Path) -> bytes:
    """The file and its logs."""
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(f"{path.name}*")))


def test_a_key_survives_a_restart(opened: Opener) -> None:
    first = opened()
    assert signed(ANNA, cache=first) == signed(ANNA)
    first.close()
    signer = SigV4Signer(ANNA, key_cache=opened())
    assert signer.sign("GET", URL, signed_at=AT) == signed(ANNA)
    assert (signer.cache_info().hits, signer.cache_info().misses) == (1, 0)


def test_a_row_is_read_once(opened: Opener, path: Path) -> None:
    """Then memory answers, with the one object that a signer has checked already."""
    first = opened()
    signed(ANNA, cache=first)
    first.close()
    cache = opened()
    found = cache.get(scope_of(ANNA))
    rows(path, "DELETE FROM signing_keys")
    assert found is not None
    assert cache.get(scope_of(ANNA)) is found


class GlassVault:
    """Hides nothing, to show that the search below would find it."""

    def __init__(self, _encryption_key: bytes) -> None: ...

    def name(self, scope: KeyScope) -> bytes:
        return scope.secret_digest

    def seal(self, _scope: KeyScope, key: SigningKey) -> bytes:
        return key.to_bytes()


@pytest.mark.parametrize(("vault", "is_seen"), [(SQLITE.Vault, False), (GlassVault, True)])
def test_nothing_in_the_files_tells_key_or_tenant(vault: Any, is_seen: bool, path: Path) -> None:
    scope, key = key_for(ANNA.secret_access_key, region="region-of-anna", service="service-of-anna")
    texts = [text.encode() for text in (scope.date, scope.region, scope.service)]
    hidden = [key.key, key.tag, scope.secret_digest, *texts]
    with SQLITE.SqliteKeyCache(path, vault(ENCRYPTION_KEY), clock=lambda: AT) as cache:
        cache.put(scope, key)
        cache.flush()
        assert (path.parent / f"{path.name}-wal").stat().st_size > 0, "the log is looked at too"
        while_open = bytes_on_disk(path)
    for found in (while_open, bytes_on_disk(path)):
        assert rows(path)[0][0] in found, "the row is in what is looked at"
        for plain in hidden:
            spellings = (plain, plain.hex().encode(), base64.b64encode(plain))
            assert any(spelling in found for spelling in spellings) is is_seen
        assert ANNA.secret_access_key.encode() not in found
        assert ENCRYPTION_KEY not in found


def test_equal_keys_are_sealed_differently_each_time(opened: Opener, path: Path) -> None:
    """A nonce is never used twice."""
    scope, key = key_for("secret")
    cache = opened()
    seen: set[bytes] = set()
    for _ in range(10):
        cache.put(scope, key)
        cache.flush()
        seen |= {sealed[:12] for _, _, sealed in rows(path)}
    assert len(seen) == 10


def test_the_files_are_the_owners_alone(path: Path, opened: Opener) -> None:
    """Whatever the umask, and also if somebody had opened the file to others."""
    path.touch()
    path.chmod(0o644)
    before = os.umask(0)
    try:
        cache = opened()
        signed(ANNA, cache=cache)
        cache.flush()
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        new = SQLITE.SqliteKeyCache(path.with_name("new"), SQLITE.Vault(ENCRYPTION_KEY))
        new.close()
    finally:
        os.umask(before)
    assert modes == {"keys.db": 0o600, "keys.db-wal": 0o600, "keys.db-shm": 0o600}
    assert stat.S_IMODE(path.with_name("new").stat().st_mode) == 0o600


# ── rows that are not what was put there ─────────────────────────────────────


def flipped(sealed: bytes) -> object:
    return sealed[:-1] + bytes([sealed[-1] ^ 1])


def another_nonce(sealed: bytes) -> object:
    return bytes([sealed[0] ^ 1]) + sealed[1:]


def truncated(sealed: bytes) -> object:
    return sealed[:20]


def nothing(_sealed: bytes) -> object:
    return b""


def text(sealed: bytes) -> object:
    return sealed.hex()


@pytest.mark.parametrize("tamper", [flipped, another_nonce, truncated, nothing, text])
def test_a_damaged_row_is_a_miss_and_heals(
    tamper: Callable[[bytes], object], opened: Opener, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning of the cache's own; the signer never hears of it."""
    first = opened()
    signed(ANNA, cache=first)
    first.close()
    rows(path, "UPDATE signing_keys SET sealed = ?", tamper(rows(path)[0][2]))
    cache = opened()
    signer = SigV4Signer(ANNA, key_cache=cache)
    for second in range(5):
        assert signer.sign("GET", URL, signed_at=AT + second) == signed(ANNA, AT + second)
    assert (signer.cache_info().hits, signer.cache_info().misses) == (4, 1)
    assert [(record.name, record.levelname) for record in caplog.records] == [("key_cache_sqlite", "WARNING")]
    cache.close()
    assert opened().get(scope_of(ANNA)) is not None


def test_a_row_moved_to_another_scope_is_a_miss(opened: Opener, path: Path) -> None:
    """The scope is bound to what is sealed: another tenant's row, or yesterday's, opens for nobody else."""
    first = opened()
    signed(BEN, cache=first)
    signed(ANNA, cache=first)
    signed(ANNA, AT + DAY, cache=first)
    first.close()
    vault = SQLITE.Vault(ENCRYPTION_KEY)
    sealed = {bytes(name): blob for name, _, blob in rows(path)}
    anna = vault.name(scope_of(ANNA))
    for other in (scope_of(BEN), scope_of(ANNA, "20231115")):
        moved = sealed[vault.name(other)]
        rows(path, "UPDATE signing_keys SET sealed = ? WHERE name = ?", moved, anna)
        cache = opened()
        assert cache.get(scope_of(ANNA)) is None
        assert cache.get(other) is not None
        assert signed(ANNA, cache=cache) == signed(ANNA)


def test_with_another_encryption_key_every_row_is_a_miss(
    opened: Opener, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A new encryption key needs no migration: the old rows end with their day."""
    first = opened()
    signed(ANNA, cache=first)
    first.close()
    signer = SigV4Signer(ANNA, key_cache=opened(bytes(32)))
    assert signer.sign("GET", URL, signed_at=AT) == signed(ANNA)
    assert signer.cache_info().misses == 1
    assert caplog.records == []


def test_yesterdays_row_is_a_miss_and_goes(opened: Opener, path: Path, clock: FakeClock) -> None:
    """Its bytes too, from the file and from the log."""
    cache = opened()
    signed(ANNA, cache=cache)
    cache.flush()
    (old,) = rows(path)
    assert old[1] == AT - AT % DAY + DAY
    clock.now = float(old[1] - 1)
    assert opened().get(scope_of(ANNA)) is not None
    reader = opened()
    clock.now = float(old[1])
    assert reader.get(scope_of(ANNA)) is None, "refused, though nobody has deleted it yet"
    reader.close()
    signer = SigV4Signer(ANNA, key_cache=cache)
    assert signer.sign("GET", URL, signed_at=clock.now) == signed(ANNA, clock.now)
    assert signer.cache_info().misses == 1
    cache.flush()
    (new,) = rows(path)
    assert new[1] == old[1] + DAY
    assert old[2] not in bytes_on_disk(path)


def test_opening_deletes_what_has_ended(opened: Opener, path: Path, clock: FakeClock) -> None:
    first = opened()
    signed(ANNA, cache=first)
    first.close()
    clock.advance(DAY)
    opened()
    assert rows(path) == []


def test_clear_deletes_keys_from_memory_and_disk(opened: Opener, path: Path) -> None:
    cache = opened()
    signed(ANNA, cache=cache)
    cache.flush()
    (row,) = rows(path)
    assert row[2] in bytes_on_disk(path)
    cache.clear()
    assert cache.get(scope_of(ANNA)) is None
    assert rows(path) == []
    assert row[2] not in bytes_on_disk(path)


@pytest.mark.parametrize(
    "harm", ["DROP TABLE signing_keys", "ALTER TABLE signing_keys RENAME sealed TO open"]
)
def test_a_broken_file_costs_one_warning(
    harm: str, opened: Opener, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory goes on: a signer still derives once."""
    cache = opened()
    rows(path, harm)
    signer = SigV4Signer(ANNA, key_cache=cache)
    for second in range(5):
        assert signer.sign("GET", URL, signed_at=AT + second) == signed(ANNA, AT + second)
    signed(BEN, cache=cache)
    cache.flush()
    assert signer.cache_info().misses == 1
    assert [(record.name, record.levelname) for record in caplog.records] == [("key_cache_sqlite", "WARNING")]


def test_a_closed_cache_goes_on_in_memory(opened: Opener) -> None:
    cache = opened()
    cache.close()
    signer = SigV4Signer(ANNA, key_cache=cache)
    for second in range(3):
        assert signer.sign("GET", URL, signed_at=AT + second) == signed(ANNA, AT + second)
    assert signer.cache_info().misses == 1


# ── threads and processes ────────────────────────────────────────────────────


def test_a_busy_file_keeps_nobody_waiting(opened: Opener, path: Path) -> None:
    """This thread holds the write lock itself: were `put` or `get` to wait for it, the key would be lost."""
    cache, reader = opened(), opened()
    assert reader._reader.execute("PRAGMA busy_timeout").fetchone() == (0,), "nor for any other lock"
    signed(BEN, cache=cache)
    cache.flush()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        signed(ANNA, cache=cache)
        assert reader.get(scope_of(BEN)) is not None
        assert reader.get(scope_of(ANNA)) is None
        connection.execute("ROLLBACK")
    cache.flush()
    assert reader.get(scope_of(ANNA)) is not None


def test_writes_that_wait_are_bounded(opened: Opener, path: Path) -> None:
    """A disk that hangs must not fill the memory: what is over the bound is not written."""
    cache = opened()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for number in range(200):
            cache.put(*key_for(f"secret-{number}"))
        connection.execute("ROLLBACK")
    cache.flush()
    assert len(rows(path)) == SQLITE.WAITING_WRITES
    cache.put(*key_for("later"))
    cache.flush()
    assert len(rows(path)) == SQLITE.WAITING_WRITES + 1, "there is room again"


def test_eight_threads_share_it(opened: Opener, caplog: pytest.LogCaptureFixture) -> None:
    """Six tenants, two days, hardly any memory, and somebody who clears: every signature is right."""
    cache = opened(memory=MemoryKeyCache(maxsize=2))
    tenants = [Credentials("one-id-for-all", f"secret-{number}") for number in range(6)]
    signers = [SigV4Signer(tenant, key_cache=cache) for tenant in tenants]
    days = (AT, AT + DAY)
    expected = {(tenant, at): signed(tenant, at) for tenant in tenants for at in days}

    def sign(turn: int) -> bool:
        if turn % 100 == 99:
            cache.clear()
        number, at = turn % len(tenants), days[turn // 7 % 2]
        return signers[number].sign("GET", URL, signed_at=at) == expected[tenants[number], at]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(sign, range(1_200)))
    assert sum(signer.cache_info().hits for signer in signers) > 0
    assert caplog.records == []


def test_a_key_that_is_being_read_while_another_thread_clears_does_not_stay(
    path: Path, opened: Opener
) -> None:
    """Its row was read before it was deleted; memory is cleared after the reader has put it there."""
    first = opened()
    signed(ANNA, cache=first)
    first.close()
    clearing: list[Future[None]] = []

    class SlowVault:
        """Gives the key it unsealed only when somebody has cleared meanwhile."""

        vault = SQLITE.Vault(ENCRYPTION_KEY)
        name = vault.name

        def unseal(self, scope: KeyScope, sealed: object) -> Any:
            clearing.append(threads.submit(cache.clear))
            while rows(path):
                time.sleep(0.001)
            wait(clearing, timeout=0.1)  # it would end now, were it not for the lock
            return self.vault.unseal(scope, sealed)

    with (
        SQLITE.SqliteKeyCache(path, SlowVault(), clock=lambda: AT) as cache,
        ThreadPoolExecutor(1) as threads,
    ):
        assert cache.get(scope_of(ANNA)) is not None
        clearing[0].result(timeout=10)
        assert cache.get(scope_of(ANNA)) is None


PROCESS = """
import importlib.util, logging, sys
from prewarmkit import Credentials, SigV4Signer

logging.basicConfig()
example, path, secret, at, url = sys.argv[1:]
spec = importlib.util.spec_from_file_location("example", example)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
with module.SqliteKeyCache(path, module.Vault.from_env(), clock=lambda: float(at)) as cache:
    signer = SigV4Signer(Credentials("id", secret), key_cache=cache)
    signature = signer.sign("GET", url, signed_at=float(at))["authorization"]
    print(signer.cache_info().misses, signature)
"""


def start(path: Path, secret: str) -> subprocess.Popen[str]:
    """A process that signs once with the cache in that file."""
    encoded = base64.b64encode(ENCRYPTION_KEY).decode()
    return subprocess.Popen(
        [
            *(sys.executable, "-X", "dev", "-W", "error", "-c", PROCESS),
            *(EXAMPLES / "key_cache_sqlite.py", path, secret, str(AT), URL),
        ],
        env={**os.environ, SQLITE.KEY_VARIABLE: encoded},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> tuple[int, str]:
    """How many keys it derived, and its signature."""
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    misses, signature = out.strip().split(" ", 1)
    return int(misses), signature


def test_two_processes_share_it(opened: Opener, path: Path) -> None:
    """Both have the file open, and each finds what the other derived."""
    here, there = Credentials("id", "derived-here"), Credentials("id", "derived-there")
    cache = opened()
    signed(here, cache=cache)
    cache.flush()
    assert answer(start(path, "derived-here")) == (0, signed(here)["authorization"])
    assert answer(start(path, "derived-there")) == (1, signed(there)["authorization"])
    signer = SigV4Signer(there, key_cache=cache)
    assert signer.sign("GET", URL, signed_at=AT) == signed(there)
    assert signer.cache_info().misses == 0


def test_processes_may_open_a_new_file_together(path: Path) -> None:
    secrets = ["one", "two", "three", "four"]
    processes = [start(path, secret) for secret in secrets]
    for secret, process in zip(secrets, processes, strict=True):
        assert answer(process) == (1, signed(Credentials("id", secret))["authorization"])
    assert len(rows(path)) == len(secrets)


# ── the encryption key ───────────────────────────────────────────────────────


@pytest.mark.parametrize("value", [None, "", "c2hvcnQ=", "not base64 at all: a-secret-passphrase"])
def test_an_unusable_encryption_key_is_refused_and_not_shown(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SQLITE.KEY_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(SQLITE.KEY_VARIABLE, value)
    with pytest.raises(ValueError, match="openssl rand -base64 32") as caught:
        SQLITE.Vault.from_env()
    assert not value or value not in str(caught.value)
    assert caught.value.__suppress_context__


def test_the_loggers_name_is_the_modules() -> None:
    """The tests above tell its warnings from the signer's by it."""
    assert SQLITE.log is logging.getLogger("key_cache_sqlite")
