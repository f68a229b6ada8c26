"""What every `prewarmkit.KeyCache` must do.

Subclass `KeyCacheContract` in a test module and give it a ``cache`` fixture (empty, with
room for 32 keys at least), and pytest runs the suite::

    class TestMyCache(KeyCacheContract):
        @pytest.fixture
        def cache(self):
            return MyCache()
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from prewarmkit.sigv4.credentials import Credentials
from prewarmkit.sigv4.keys import KeyCache, KeyScope, SigningKey, derive_signing_key
from prewarmkit.sigv4.signer import SigV4Signer

__all__ = ["KeyCacheContract", "key_for"]

_URL = "https://host/bucket/key"
_AT = 1_700_000_000


def key_for(
    secret: str, *, date: str = "20231114", region: str = "auto", service: str = "s3"
) -> tuple[KeyScope, SigningKey]:
    """A scope and its right key."""
    credentials = Credentials("AKID", secret)
    scope = KeyScope(credentials.secret_digest, date, region, service)
    return scope, derive_signing_key(credentials, scope)


class KeyCacheContract:
    """The suite; each test needs a ``cache`` fixture."""

    def test_it_has_the_protocols_methods(self, cache: KeyCache) -> None:
        """A signer takes it."""
        assert isinstance(cache, KeyCache)

    def test_a_key_that_was_never_put_is_none(self, cache: KeyCache) -> None:
        """It neither raises nor makes one up."""
        scope, _ = key_for("secret")
        assert cache.get(scope) is None

    def test_a_key_is_found_by_the_value_of_its_scope(self, cache: KeyCache) -> None:
        """An equal scope that was made anew finds it, scope, key and tag whole."""
        scope, key = key_for("secret")
        cache.put(scope, key)
        found = cache.get(KeyScope(*scope))
        assert found == key
        assert found is not None
        assert found.scope == scope

    def test_the_last_key_put_is_the_one_kept(self, cache: KeyCache) -> None:
        """So that a signer can replace a wrong one."""
        scope, key = key_for("secret")
        _, other = key_for("other")
        cache.put(scope, other)
        cache.put(scope, key)
        assert cache.get(scope) == key

    def test_each_part_of_a_scope_tells_keys_apart(self, cache: KeyCache) -> None:
        """Another secret, day, region or service is another key."""
        pairs = [
            key_for("parent-secret"),
            key_for("child-secret"),  # R2's temporary credentials: the same access key id
            key_for("parent-secret", date="20231115"),
            key_for("parent-secret", region="eu"),
            key_for("parent-secret", service="iam"),
        ]
        for scope, key in pairs:
            cache.put(scope, key)
        for scope, key in pairs:
            assert cache.get(scope) == key

    def test_scopes_that_read_alike_when_joined_are_apart(self, cache: KeyCache) -> None:
        """A key joined without separators let one tenant sign with another's: oven-sh/bun#32830."""
        scope, key = key_for("secret", region="us-east-1", service="s33")
        twin = KeyScope(scope.secret_digest, scope.date, "us-east-1s", "33")
        cache.put(scope, key)
        assert cache.get(twin) is None

    def test_it_may_forget_but_never_confuses(self, cache: KeyCache) -> None:
        """With more keys than it may hold, an answer is right or ``None``."""
        pairs = [key_for(f"secret-{number}") for number in range(200)]
        for scope, key in pairs:
            cache.put(scope, key)
            assert cache.get(scope) == key
        assert all(cache.get(scope) in {key, None} for scope, key in pairs)

    def test_several_threads_may_use_it(self, cache: KeyCache) -> None:
        """Nobody gets another's key, and nothing raises."""
        pairs = [key_for(f"secret-{number}") for number in range(16)]

        def use(turn: int) -> bool:
            scope, key = pairs[turn % len(pairs)]
            cache.put(scope, key)
            return cache.get(scope) in {key, None}

        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(use, range(800)))

    def test_signers_share_a_key_through_it(self, cache: KeyCache) -> None:
        """What one signer derived, the next one finds and accepts."""
        credentials = Credentials("AKID", "secret")
        first = SigV4Signer(credentials, key_cache=cache)
        second = SigV4Signer(credentials, key_cache=cache)
        signed = first.sign("GET", _URL, signed_at=_AT)
        assert second.sign("GET", _URL, signed_at=_AT) == signed
        assert (first.cache_info().misses, second.cache_info().misses) == (1, 0)

    def test_its_repr_shows_no_key(self, cache: KeyCache) -> None:
        """Neither in hexadecimal nor as bytes."""
        scope, key = key_for("secret")
        cache.put(scope, key)
        shown = f"{cache!r} {cache}"
        for hidden in (key.key, key.tag, scope.secret_digest):
            assert hidden.hex() not in shown
            assert repr(hidden)[2:-1] not in shown
