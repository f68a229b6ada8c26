"""How a signer gets its key: from a cache that is asked every time, and never trusted.

Knows nothing of requests.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from itertools import count
from threading import Lock, RLock
from typing import Any, NamedTuple

from prewarmkit.sigv4.credentials import Credentials
from prewarmkit.sigv4.keys import CacheInfo, KeyCache, KeyScope, SigningKey, derive_signing_key, key_tag

__all__ = ["KeyRing", "ReadyKey"]

_log = logging.getLogger("prewarmkit.sigv4")

_KEY_SIZE = 32
_BLOCK_SIZE = 64


class ReadyKey(NamedTuple):
    """A key that passed the check, with the two hashes of HMAC (RFC 2104) that have it in them.

    To copy them costs two thirds of copying an `hmac.HMAC`. Nobody changes them.
    """

    key: SigningKey
    inner: Any  # hashlib's hash objects have no public type
    outer: Any

    @classmethod
    def of(cls, key: SigningKey) -> ReadyKey:
        """Ready to be copied for each signature."""
        block = key.key.ljust(_BLOCK_SIZE, b"\0")
        inner, outer = (hashlib.sha256(bytes(byte ^ pad for byte in block)) for pad in (0x36, 0x5C))
        return cls(key, inner, outer)


class KeyRing:
    """The one way to a key.

    The cache answers each signature, so that clearing it takes effect at once and its
    hits are counted as they are. An answer is checked by its tag, once: while the cache
    keeps giving the very object that was checked last, nothing is computed at all. A cache
    that gives a wrong key, or raises, is bypassed, and one warning is logged.

    Safe under threads, with the GIL or without: what one thread reads without a lock is a
    single attribute that others replace whole.
    """

    def __init__(self, cache: KeyCache) -> None:
        self._cache = cache
        self._ready: ReadyKey | None = None
        self._next: ReadyKey | None = None  # tomorrow's, from shortly before midnight on
        # A count from itertools is one step, whatever threads there are, and a fifth of a lock's cost.
        # To read it is to count as well, so readings are taken off.
        self._asked = count()
        self._counting = Lock()
        self._readings = 0
        self._misses = 0
        # Re-entrant: a cache may sign its own requests to wherever it keeps the keys.
        self._deriving = RLock()
        self._warned = False

    def key(self, credentials: Credentials, scope: KeyScope) -> ReadyKey:
        """The key of ``scope``."""
        next(self._asked)
        ready = self._ready
        faulty = False
        found: SigningKey | None = None
        try:
            found = self._cache.get(scope)
        except Exception as error:  # noqa: BLE001 - whatever a plug-in raises must not stop the signing
            faulty = True
            self._warn(f"get() raised {type(error).__name__}")
        if (
            ready is not None
            and found is ready.key
            and (ready.key.scope is scope or ready.key.scope == scope)
        ):
            return ready
        if found is not None:
            checked = self._checked(credentials, scope, found)
            if checked is not None:
                self._ready = checked
                return checked
            faulty = True
            self._warn("get() returned a key that is not the right one for this scope")
        return self._obtain(credentials, scope, ready, faulty=faulty)

    def prepare(self, credentials: Credentials, scope: KeyScope) -> None:
        """Have a key in the cache before it is wanted; counts as neither hit nor miss."""
        try:
            found = self._cache.get(scope)
            ready = None if found is None else self._checked(credentials, scope, found)
            if ready is None:
                ready = ReadyKey.of(derive_signing_key(credentials, scope))
                self._cache.put(scope, ready.key)
        except Exception as error:  # noqa: BLE001 - as above
            self._warn(f"get() or put() raised {type(error).__name__}")
        else:
            self._next = ready

    def info(self, size: int | None) -> CacheInfo:
        """The counts since the signer was made."""
        with self._counting:
            misses = self._misses
            asked = next(self._asked) - self._readings
            self._readings += 1
        hits = asked - misses
        return CacheInfo(hits, misses, hits / asked if asked else 0.0, size)

    def _checked(self, credentials: Credentials, scope: KeyScope, found: object) -> ReadyKey | None:
        """What a cache gave, made ready, if its tag proves it to be the right key."""
        if not isinstance(found, SigningKey) or found.scope != scope or len(found.key) != _KEY_SIZE:
            return None
        prepared = self._next
        if prepared is not None and found is prepared.key:
            return prepared
        if not hmac.compare_digest(found.tag, key_tag(credentials, scope, found.key)):
            return None
        return ReadyKey.of(found)

    def _obtain(
        self, credentials: Credentials, scope: KeyScope, seen: ReadyKey | None, *, faulty: bool
    ) -> ReadyKey:
        """The cache had nothing usable: derive the key, once for all threads that miss it together."""
        with self._deriving:
            ready = self._ready
            here = ready is not None and ready.key.scope == scope
            if ready is not None and here and ready is not seen:
                return ready  # another thread put it there after we had looked: a hit
            with self._counting:
                self._misses += 1
            # A faulty cache need not cost a derivation each time. One that answered None was
            # cleared, or never had it: there the key we hold must not live on.
            if ready is None or not here or not faulty:
                ready = ReadyKey.of(derive_signing_key(credentials, scope))
            try:
                self._cache.put(scope, ready.key)
            except Exception as error:  # noqa: BLE001 - as above
                self._warn(f"put() raised {type(error).__name__}")
            # After put(): who sees the new key can rely on the cache having been told.
            self._ready = ready
            return ready

    def _warn(self, what: str) -> None:
        if self._warned:
            return
        self._warned = True
        _log.warning(
            "Key cache %s: %s. Signatures stay right, but cost more; later faults are not logged.",
            type(self._cache).__name__,
            what,
        )
