"""The key cache: whose key it is, and what a faulty cache cannot do."""

from __future__ import annotations

import copy
import gc
import hmac
import logging
import pickle
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import sleep
from typing import Any

import pytest

from prewarmkit import (
    Credentials,
    KeyScope,
    MemoryKeyCache,
    SigningError,
    SigningKey,
    SigV4Signer,
    mint_temporary_credentials,
)
from prewarmkit.sigv4 import keyring
from prewarmkit.sigv4.keys import derive_signing_key
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.contracts.key_cache import key_for

URL = "https://acct.r2.cloudflarestorage.com/media/a.mp4"
AT = 1_700_000_000
DAY = 86_400
PARENT = Credentials("AKID", "parent-secret-0123456789")


@pytest.fixture
def derivations(monkeypatch: pytest.MonkeyPatch) -> list[KeyScope]:
    """Every derivation that really happens."""
    seen: list[KeyScope] = []

    def counting(credentials: Credentials, scope: KeyScope) -> SigningKey:
        seen.append(scope)
        return derive_signing_key(credentials, scope)

    monkeypatch.setattr(keyring, "derive_signing_key", counting)
    return seen


def signature_of(credentials: Credentials, at: float = AT, **options: str) -> dict[str, str]:
    """By a signer that nobody else had its hands on."""
    return SigV4Signer(credentials, **options).sign("GET", URL, signed_at=at)  # type: ignore[arg-type] # str options


# ── whose key it is ──────────────────────────────────────────────────────────


def test_two_secrets_under_one_access_key_id_never_share_a_key(derivations: list[KeyScope]) -> None:
    """R2's temporary credentials have their parent's id: the case of aws-sdk-go-v2#3350."""
    child = mint_temporary_credentials(
        PARENT, account_id="acct", bucket="media", permission="object-read-only", ttl_seconds=DAY, now=AT
    )
    assert child.access_key_id == PARENT.access_key_id
    cache = MemoryKeyCache()
    signers = {one: SigV4Signer(one, key_cache=cache) for one in (PARENT, child)}
    for _ in range(3):
        for credentials, signer in signers.items():
            assert signer.sign("GET", URL, signed_at=AT) == signature_of(credentials)
    assert len(cache) == 2
    assert len({derivation.secret_digest for derivation in derivations}) == 2


def test_scopes_that_collide_when_joined_do_not_share_a_key() -> None:
    """Region + service + secret without a separator is one string for both: oven-sh/bun#32830."""
    cache = MemoryKeyCache()
    pair = [("s3", "3abcdefghijk"), ("s33", "abcdefghijk")]
    assert len({"us-east-1" + service + secret for service, secret in pair}) == 1
    for service, secret in pair:
        credentials = Credentials("AKID", secret)
        signer = SigV4Signer(credentials, region="us-east-1", service=service, key_cache=cache)
        expected = signature_of(credentials, region="us-east-1", service=service)
        assert signer.sign("GET", URL, signed_at=AT) == expected
    assert len(cache) == 2


# ── what a hit costs ─────────────────────────────────────────────────────────


def test_a_hit_makes_no_hmac_key_at_all(monkeypatch: pytest.MonkeyPatch, derivations: list[KeyScope]) -> None:
    signer = SigV4Signer(PARENT)
    signer.sign("GET", URL, signed_at=AT)
    made: list[object] = []

    def counting(*arguments: object, **_options: object) -> None:
        made.append(arguments)

    monkeypatch.setattr(hmac, "new", counting)
    for second in range(100):
        signer.sign("GET", URL, signed_at=AT + second)
    assert made == []
    assert len(derivations) == 1


def test_cache_info_counts_what_happened(derivations: list[KeyScope]) -> None:
    cache = MemoryKeyCache()
    signer = SigV4Signer(PARENT, key_cache=cache)
    empty = signer.cache_info()
    assert (empty.hits, empty.misses, empty.hit_rate, empty.size) == (0, 0, 0.0, 0)
    for _ in range(4):
        signer.sign("GET", URL, signed_at=AT)
        signer.presign("GET", URL, signed_at=AT)
    info = signer.cache_info()
    assert (info.hits, info.misses, info.hit_rate, info.size) == (7, 1, 0.875, 1)
    signer.canonical_request("GET", URL)
    assert signer.cache_info() == info, "looking at the canonical form needs no key"


def test_clearing_the_cache_takes_effect_at_the_next_signature(derivations: list[KeyScope]) -> None:
    cache = MemoryKeyCache()
    signer = SigV4Signer(PARENT, key_cache=cache)
    for expected in (1, 2):
        signer.sign("GET", URL, signed_at=AT)
        signer.sign("GET", URL, signed_at=AT)
        assert len(derivations) == expected
        assert signer.cache_info().misses == expected
        cache.clear()
        assert len(cache) == 0


def test_a_key_of_another_signer_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signers of one tenant that share a cache: only the first hit costs an HMAC."""
    cache = MemoryKeyCache()
    SigV4Signer(PARENT, key_cache=cache).sign("GET", URL, signed_at=AT)
    signer = SigV4Signer(PARENT, key_cache=cache)
    signer.sign("GET", URL, signed_at=AT)
    made: list[object] = []

    def counting(*arguments: object, **_options: object) -> None:
        made.append(arguments)

    monkeypatch.setattr(hmac, "new", counting)
    for second in range(3):
        signer.sign("GET", URL, signed_at=AT + second)
    assert made == []
    assert signer.cache_info().hits == 4


def test_a_cache_without_a_length_has_no_size() -> None:
    assert SigV4Signer(PARENT, key_cache=Faulty()).cache_info().size is None


# ── the memory cache ─────────────────────────────────────────────────────────


def test_the_least_recently_used_key_leaves_first() -> None:
    cache = MemoryKeyCache(maxsize=2)
    (a, key_a), (b, key_b), (c, key_c) = (key_for(secret) for secret in "abc")
    cache.put(a, key_a)
    cache.put(b, key_b)
    assert cache.get(a) is key_a
    cache.put(c, key_c)
    assert (cache.get(a), cache.get(b), cache.get(c)) == (key_a, None, key_c)


def test_what_was_asked_for_or_put_again_stays() -> None:
    (a, key_a), (b, key_b), (c, key_c) = (key_for(secret) for secret in "abc")
    asked, put = MemoryKeyCache(maxsize=2), MemoryKeyCache(maxsize=2)
    for cache in (asked, put):
        cache.put(a, key_a)
        cache.put(b, key_b)
    assert (asked.get(a), asked.get(b)) == (key_a, key_b)
    put.put(a, key_a)
    for cache in (asked, put):
        cache.put(c, key_c)
    assert (asked.get(a), asked.get(b), asked.get(c)) == (None, key_b, key_c)
    assert (put.get(a), put.get(b), put.get(c)) == (key_a, None, key_c)


def test_a_pickled_cache_keeps_its_bound() -> None:
    assert pickle.loads(pickle.dumps(MemoryKeyCache(maxsize=3))).maxsize == 3


def test_the_bound_holds_under_many_credentials() -> None:
    cache = MemoryKeyCache()
    for number in range(2_000):
        SigV4Signer(Credentials("AKID", f"secret-{number}"), key_cache=cache).sign("GET", URL, signed_at=AT)
    assert len(cache) == cache.maxsize == 64


@pytest.mark.parametrize("maxsize", [0, -1, 1.5, True, "64", None])
def test_a_bound_that_is_none_is_refused(maxsize: Any) -> None:
    with pytest.raises(SigningError, match="maxsize"):
        MemoryKeyCache(maxsize)


def reachable(root: object) -> Iterator[object]:
    """Everything that can be got at from an object, classes and modules aside."""
    seen: set[int] = set()
    todo = [root]
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, type):
            continue
        seen.add(id(one))
        yield one
        todo.extend(gc.get_referents(one))


def test_the_cache_holds_no_secret() -> None:
    cache = MemoryKeyCache()
    SigV4Signer(PARENT, key_cache=cache).sign("GET", URL, signed_at=AT)
    secret = PARENT.secret_access_key
    found = list(reachable(cache))
    assert any(isinstance(one, SigningKey) for one in found), "the search goes deep enough"
    for one in found:
        text = one.decode("latin-1") if isinstance(one, bytes) else one
        assert not (isinstance(text, str) and secret in text)
    copied = pickle.loads(pickle.dumps(cache))
    assert (len(copied), copied.maxsize) == (0, 64)


def test_a_signing_key_hides_itself() -> None:
    scope, key = key_for("secret")
    for shown in (repr(key), str(key), f"{[key]}", repr(scope)):
        for hidden in (key.key, key.tag, scope.secret_digest):
            assert hidden.hex() not in shown
            assert repr(hidden)[2:-1] not in shown
    with pytest.raises(TypeError, match="to_bytes"):
        pickle.dumps(key)
    assert copy.deepcopy(key) is copy.copy(key) is key
    assert key != "key"
    assert len({key, SigningKey.from_bytes(key.to_bytes())}) == 1


def test_a_signing_key_survives_bytes_and_nothing_else_does() -> None:
    _, key = key_for("secret", region="us-east-1")
    data = key.to_bytes()
    assert SigningKey.from_bytes(data) == key
    for wrong in (b"", b"x", data[:-1], data + b"x", data + b"\0\0\0\0", b"?" + data[1:]):
        with pytest.raises(SigningError, match="drop"):
            SigningKey.from_bytes(wrong)


# ── faulty plug-ins ──────────────────────────────────────────────────────────


class Faulty:
    """Gives what it is told to, and forgets what it is given."""

    def __init__(self, answer: Callable[[KeyScope], Any] | None = None) -> None:
        self.answer = answer
        self.given: list[SigningKey] = []

    def get(self, scope: KeyScope) -> SigningKey | None:
        result: SigningKey | None = None if self.answer is None else self.answer(scope)
        return result

    def put(self, scope: KeyScope, key: SigningKey) -> None:
        self.given.append(key)


def broken(_scope: KeyScope) -> Any:
    raise ConnectionError("the cache at redis://:password@host is away")


def foreign(scope: KeyScope) -> SigningKey:
    """Somebody else's key, relabelled to fit, with the tag of its own secret."""
    other = Credentials("AKID", "somebody-else")
    return derive_signing_key(other, scope)


def stale(scope: KeyScope) -> SigningKey:
    """Yesterday's key."""
    return derive_signing_key(PARENT, scope._replace(date="20231113"))


def relabelled(scope: KeyScope) -> SigningKey:
    """Yesterday's key under today's scope."""
    old = stale(scope)
    return SigningKey(scope, old.key, old.tag)


def forged(scope: KeyScope) -> SigningKey:
    """The right scope and tag around a key of the forger's."""
    return SigningKey(scope, b"k" * 32, derive_signing_key(PARENT, scope).tag)


def short(scope: KeyScope) -> SigningKey:
    return SigningKey(scope, b"", b"")


def no_key(_scope: KeyScope) -> Any:
    return "key"


FAULTS: list[Callable[[KeyScope], Any]] = [broken, foreign, stale, relabelled, forged, short, no_key]


@pytest.mark.parametrize("answer", FAULTS)
def test_a_faulty_cache_is_bypassed_with_one_warning(
    answer: Callable[[KeyScope], Any], caplog: pytest.LogCaptureFixture, derivations: list[KeyScope]
) -> None:
    cache = Faulty(answer)
    signer = SigV4Signer(PARENT, key_cache=cache)
    with caplog.at_level(logging.WARNING, logger="prewarmkit.sigv4"):
        for second in range(20):
            assert signer.sign("GET", URL, signed_at=AT + second) == signature_of(PARENT, AT + second)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Faulty" in caplog.text
    assert "password" not in caplog.text
    assert PARENT.secret_access_key not in caplog.text
    assert (signer.cache_info().hits, signer.cache_info().misses) == (0, 20)
    assert len(cache.given) == 20, "it is offered the right key each time, so that it can heal"


def test_a_cache_that_raises_costs_no_derivation_each_time(derivations: list[KeyScope]) -> None:
    signer = SigV4Signer(PARENT, key_cache=Faulty(broken))
    for second in range(20):
        signer.sign("GET", URL, signed_at=AT + second)
    assert len(derivations) == 1


def test_a_cache_that_cannot_keep_is_bypassed_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    class ReadOnly(Faulty):
        def put(self, scope: KeyScope, key: SigningKey) -> None:
            raise OSError("read-only")

    signer = SigV4Signer(PARENT, key_cache=ReadOnly())
    for second in range(5):
        assert signer.sign("GET", URL, signed_at=AT + second) == signature_of(PARENT, AT + second)
    assert len(caplog.records) == 1
    assert "OSError" in caplog.text


def test_a_wrong_entry_is_replaced_by_the_right_one(derivations: list[KeyScope]) -> None:
    cache = MemoryKeyCache()
    scope = KeyScope(PARENT.secret_digest, "20231114", "auto", "s3")
    cache.put(scope, foreign(scope))
    signer = SigV4Signer(PARENT, key_cache=cache)
    for _ in range(3):
        assert signer.sign("GET", URL, signed_at=AT) == signature_of(PARENT)
    assert (signer.cache_info().hits, signer.cache_info().misses) == (2, 1)


def test_a_key_that_goes_bad_later_is_noticed() -> None:
    """The check is for the object that was checked, not for the scope."""
    cache = MemoryKeyCache()
    signer = SigV4Signer(PARENT, key_cache=cache)
    signer.sign("GET", URL, signed_at=AT)
    scope = KeyScope(PARENT.secret_digest, "20231114", "auto", "s3")
    cache.put(scope, forged(scope))
    assert signer.sign("GET", URL, signed_at=AT) == signature_of(PARENT)


def test_yesterdays_key_object_is_not_taken_for_todays() -> None:
    """A cache that always gives its first key is caught on the next day, though it is the one last checked."""

    class Stuck(Faulty):
        def get(self, scope: KeyScope) -> SigningKey | None:
            return self.given[0] if self.given else None

    cache = Stuck()
    signer = SigV4Signer(PARENT, key_cache=cache)
    for day in range(3):
        for second in range(3):
            at = AT + day * DAY + second
            assert signer.sign("GET", URL, signed_at=at) == signature_of(PARENT, at)


def test_a_cache_may_sign_with_the_signer_that_asks_it() -> None:
    """Its own store may be behind the same signature."""

    class Recursive(Faulty):
        depth = 0

        def put(self, scope: KeyScope, key: SigningKey) -> None:
            if self.depth == 0:
                self.depth = 1
                signer.sign("PUT", URL, signed_at=AT)

    signer = SigV4Signer(PARENT, key_cache=Recursive())
    assert signer.sign("GET", URL, signed_at=AT) == signature_of(PARENT)


# ── days and threads ─────────────────────────────────────────────────────────


def sign_across_midnights(count: int, derivations: list[KeyScope]) -> None:
    """Signatures a few seconds apart, over some days; each must be of the day that it says."""
    clock = FakeClock(now=float(1_709_164_800 - 600))  # ten minutes before the 29th of February 2024
    signer = SigV4Signer(PARENT, clock=clock)
    step = 4 * DAY / count
    days: set[str] = set()
    added: dict[str, str] = {}
    for _ in range(count):
        added = signer.sign("GET", URL)
        day = added["x-amz-date"][:8]
        assert f"Credential=AKID/{day}/auto/s3/aws4_request" in added["authorization"]
        if day not in days:  # the first of a day is where a wrong key would show
            assert added == signature_of(PARENT, clock.now)
            days.add(day)
        clock.advance(step)
    assert added == signature_of(PARENT, clock.now - step)
    assert sorted(days) == ["20240228", "20240229", "20240301", "20240302", "20240303"]
    # But for the first, each day's key was there before it was wanted.
    assert (signer.cache_info().misses, signer.cache_info().hits) == (1, count - 1)
    assert len({one.date for one in derivations}) == 5


def test_midnight_changes_scope_and_key_together(derivations: list[KeyScope]) -> None:
    sign_across_midnights(100_000, derivations)


@pytest.mark.slow
def test_midnight_changes_scope_and_key_together_a_million_times(derivations: list[KeyScope]) -> None:
    sign_across_midnights(1_000_000, derivations)


MIDNIGHT = 1_709_164_800  # before the 29th of February 2024


@pytest.mark.parametrize(("before", "size"), [(301, 1), (300, 2), (1, 2)])
def test_tomorrows_key_is_there_five_minutes_ahead(before: int, size: int) -> None:
    cache = MemoryKeyCache()
    SigV4Signer(PARENT, key_cache=cache).sign("GET", URL, signed_at=MIDNIGHT - before)
    assert len(cache) == size


def test_midnight_costs_no_hmac_key(monkeypatch: pytest.MonkeyPatch, derivations: list[KeyScope]) -> None:
    """Neither for the derivation nor for the check of a key that this signer prepared itself."""
    signer = SigV4Signer(PARENT)
    for before in (300, 299, 2, 1):
        signer.sign("GET", URL, signed_at=MIDNIGHT - before)
    assert [one.date for one in derivations] == ["20240229", "20240228"]
    expected = signature_of(PARENT, MIDNIGHT)
    made: list[object] = []

    def counting(*arguments: object, **_options: object) -> None:
        made.append(arguments)

    monkeypatch.setattr(hmac, "new", counting)
    assert signer.sign("GET", URL, signed_at=MIDNIGHT) == expected
    assert made == []


def test_a_wrong_key_that_lies_ready_for_tomorrow_is_replaced() -> None:
    cache = MemoryKeyCache()
    scope = KeyScope(PARENT.secret_digest, "20240229", "auto", "s3")
    cache.put(scope, foreign(scope))
    signer = SigV4Signer(PARENT, key_cache=cache)
    for at in (MIDNIGHT - 1, MIDNIGHT):
        assert signer.sign("GET", URL, signed_at=at) == signature_of(PARENT, at)
    assert signer.cache_info().misses == 1


def test_a_faulty_cache_is_bypassed_before_midnight_too() -> None:
    """Neither the key that was made ready, given for today, nor a stranger's is taken."""

    class Last(Faulty):
        def get(self, scope: KeyScope) -> SigningKey | None:
            return self.given[-1] if self.given else None

    for cache in (Last(), Faulty(foreign)):
        signer = SigV4Signer(PARENT, key_cache=cache)
        for at in (MIDNIGHT - 3, MIDNIGHT - 2, MIDNIGHT - 2, MIDNIGHT - 1, MIDNIGHT, MIDNIGHT + 1):
            assert signer.sign("GET", URL, signed_at=at) == signature_of(PARENT, at)


def test_a_cache_that_raises_for_tomorrow_alone_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    class Today(MemoryKeyCache):
        def get(self, scope: KeyScope) -> SigningKey | None:
            if scope.date == "20240229":
                raise OSError("not yet")
            return super().get(scope)

    signer = SigV4Signer(PARENT, key_cache=Today())
    for at in (MIDNIGHT - 2, MIDNIGHT - 1):
        assert signer.sign("GET", URL, signed_at=at) == signature_of(PARENT, at)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "OSError" in caplog.text
    assert signer.sign("GET", URL, signed_at=MIDNIGHT) == signature_of(PARENT, MIDNIGHT)
    assert len(caplog.records) == 1


def test_clearing_just_before_midnight_leaves_no_key_for_after_it(derivations: list[KeyScope]) -> None:
    cache = MemoryKeyCache()
    signer = SigV4Signer(PARENT, key_cache=cache)
    signer.sign("GET", URL, signed_at=MIDNIGHT - 1)
    cache.clear()
    signer.sign("GET", URL, signed_at=MIDNIGHT)
    assert [one.date for one in derivations] == ["20240229", "20240228", "20240229"]
    assert signer.cache_info().misses == 2


def test_threads_wait_for_a_slow_derivation(monkeypatch: pytest.MonkeyPatch) -> None:
    derived: list[KeyScope] = []

    def slow(credentials: Credentials, scope: KeyScope) -> SigningKey:
        derived.append(scope)
        sleep(0.05)
        return derive_signing_key(credentials, scope)

    monkeypatch.setattr(keyring, "derive_signing_key", slow)
    signer = SigV4Signer(PARENT)

    def sign(_turn: int) -> dict[str, str]:
        return signer.sign("GET", URL, signed_at=AT)

    with ThreadPoolExecutor(4) as threads:
        signed = list(threads.map(sign, range(4)))
    assert len(derived) == 1
    assert signed == [signature_of(PARENT)] * 4


def test_threads_that_miss_together_derive_once(derivations: list[KeyScope]) -> None:
    """All eight look before any has derived; one does the work, and only it counts a miss."""
    together = Barrier(8, timeout=5)

    class Slow(MemoryKeyCache):
        def get(self, scope: KeyScope) -> SigningKey | None:
            found = super().get(scope)
            together.wait()
            return found

    signer = SigV4Signer(PARENT, key_cache=Slow())

    def sign(_turn: int) -> dict[str, str]:
        return signer.sign("GET", URL, signed_at=AT)

    with ThreadPoolExecutor(8) as threads:
        signed = list(threads.map(sign, range(8)))
    assert len(derivations) == 1
    assert (signer.cache_info().hits, signer.cache_info().misses) == (7, 1)
    assert signed == [signature_of(PARENT)] * 8


def test_threads_share_signers_and_cache_without_harm(derivations: list[KeyScope]) -> None:
    """32 threads, three tenants, two days, one small cache: every signature right, every one counted."""
    cache = MemoryKeyCache()
    tenants = [Credentials("AKID", f"secret-{number}") for number in range(3)]
    signers = [SigV4Signer(tenant, key_cache=cache) for tenant in tenants]
    times = [AT, AT + 1, AT + DAY]
    expected = {(tenant, at): signature_of(tenants[tenant], at) for tenant in range(3) for at in times}
    derivations.clear()
    interval = sys.getswitchinterval()

    def work(seed: int) -> int:
        wrong = 0
        for turn in range(250):
            tenant, at = (turn + seed) % 3, times[(turn // 3 + seed) % 3]
            wrong += signers[tenant].sign("GET", URL, signed_at=at) != expected[tenant, at]
        return wrong

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(32) as threads:
            assert sum(threads.map(work, range(32))) == 0
    finally:
        sys.setswitchinterval(interval)
    infos = [signer.cache_info() for signer in signers]
    assert sum(info.hits + info.misses for info in infos) == 8_000
    assert sum(info.misses for info in infos) == len(derivations)
    assert len(set(derivations)) == 6
