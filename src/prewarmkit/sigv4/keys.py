"""Signing keys, and the cache that a host may plug in.

Owns the derivation of a day's key, what names it (`KeyScope`), what proves that it is the
right one (the tag of a `SigningKey`), and where keys are kept. How a signer gets its key is
`keyring`'s. Knows nothing of requests.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from threading import Lock
from typing import Any, NamedTuple, NoReturn, Protocol, Self, runtime_checkable

from attrs import field, frozen
from attrs.validators import instance_of

from prewarmkit.errors import SigningError
from prewarmkit.sigv4.checks import is_whole
from prewarmkit.sigv4.credentials import Credentials

__all__ = [
    "CacheInfo",
    "KeyCache",
    "KeyScope",
    "MemoryKeyCache",
    "SigningKey",
    "derive_signing_key",
    "key_tag",
]

_TAG_LABEL = b"prewarmkit signing key tag 1\0"
_FORMAT = b"pwk-key-1\0"


class KeyScope(NamedTuple):
    """What a signing key is for, and whose it is.

    A tuple, never a joined string: two scopes are equal only if each part is. The secret's
    digest is in it because access key ids are not unique: R2's temporary credentials have
    their parent's id and a secret of their own.
    """

    secret_digest: bytes
    date: str
    region: str
    service: str

    def __repr__(self) -> str:
        return f"KeyScope(date={self.date!r}, region={self.region!r}, service={self.service!r})"


@frozen(repr=False, eq=False)
class SigningKey:
    """The key of one scope: whoever has it can sign for that service, with times of that UTC day.

    That includes presigned URLs, which may live for seven days: a stolen key is good for eight.

    Attributes:
        scope: What it is for.
        key: 32 bytes, secret.
        tag: The HMAC by the secret over scope and key. Only one who knows the secret can
            make it, so that no cache can hand a signer a wrong key unnoticed.
    """

    scope: KeyScope = field(validator=instance_of(KeyScope))
    key: bytes = field(validator=instance_of(bytes))
    tag: bytes = field(validator=instance_of(bytes))

    def __repr__(self) -> str:
        return f"SigningKey({self.scope!r}, key=<hidden>)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SigningKey):
            return NotImplemented
        same_key = hmac.compare_digest(self.key, other.key)
        return self.scope == other.scope and same_key and hmac.compare_digest(self.tag, other.tag)

    def __hash__(self) -> int:
        return hash(self.scope)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("A SigningKey is not pickled by accident: use to_bytes(), and encrypt the result.")

    def to_bytes(self) -> bytes:
        """The key in clear, for a cache outside this process; encrypt it before it leaves."""
        return _FORMAT + _packed(*_scope_parts(self.scope), self.key, self.tag)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` made; `SigningError` if it is anything else."""
        parts = _unpacked(data[len(_FORMAT) :]) if data.startswith(_FORMAT) else []
        try:
            digest, date, region, service, key, tag = parts
            scope = KeyScope(digest, date.decode(), region.decode(), service.decode())
        except ValueError:
            raise SigningError(
                "These bytes are not a SigningKey of this version; drop the cached entry."
            ) from None
        return cls(scope, key, tag)


def _scope_parts(scope: KeyScope) -> tuple[bytes, ...]:
    return scope.secret_digest, scope.date.encode(), scope.region.encode(), scope.service.encode()


def _packed(*parts: bytes) -> bytes:
    """Each part behind its length: no two lists of parts give the same bytes."""
    return b"".join([len(part).to_bytes(4, "big") + part for part in parts])


def _unpacked(data: bytes) -> list[bytes]:
    parts: list[bytes] = []
    while data:
        end = 4 + int.from_bytes(data[:4], "big")
        if len(data) < end:
            return []
        parts.append(data[4:end])
        data = data[end:]
    return parts


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, "sha256").digest()


def key_tag(credentials: Credentials, scope: KeyScope, key: bytes) -> bytes:
    """What proves that ``key`` was derived for ``scope`` by one who has the secret."""
    secret = credentials.secret_access_key.encode()
    return _hmac(secret, _TAG_LABEL + _packed(*_scope_parts(scope), key))


def derive_signing_key(credentials: Credentials, scope: KeyScope) -> SigningKey:
    """The signing key of a scope: the four HMACs that a cache saves."""
    key = _hmac(b"AWS4" + credentials.secret_access_key.encode(), scope.date.encode())
    for part in (scope.region, scope.service, "aws4_request"):
        key = _hmac(key, part.encode())
    return SigningKey(scope, key, key_tag(credentials, scope, key))


@runtime_checkable
class KeyCache(Protocol):
    """Where signing keys are kept between signatures; a host may plug in its own.

    Both methods are called on the event loop for every signature or every miss: they must
    be quick, must not block, and must stand being called from several threads. A slow or
    remote store belongs behind a `MemoryKeyCache`. A cache may forget a key at any time.
    One that returns a wrong key, or raises, only costs time: see `KeyRing`.

    A cached key signs all that its credentials may do, with times of its UTC day; a URL that
    is presigned so may live for seven days more. What leaves the process must be encrypted.
    """

    def get(self, scope: KeyScope, /) -> SigningKey | None:
        """The key that was put under an equal scope, or ``None``."""
        ...

    def put(self, scope: KeyScope, key: SigningKey, /) -> None:
        """Keep the key; a later one under an equal scope replaces it."""
        ...


class MemoryKeyCache:
    """Keeps the ``maxsize`` keys that were used last, in this process only.

    Two places for each set of credentials are enough: before midnight the next day's key is there too.

    May be shared by any number of signers, tenants and threads, with the GIL or without. It
    holds derived keys, never a secret; pickling one gives an empty cache.
    """

    def __init__(self, maxsize: int = 64) -> None:
        if not is_whole(maxsize) or maxsize < 1:
            raise SigningError(f"MemoryKeyCache(maxsize=...) must be a whole number from 1, not {maxsize!r}.")
        self._maxsize = maxsize
        self._keys: OrderedDict[KeyScope, SigningKey] = OrderedDict()
        self._lock = Lock()
        # The pair that was used last, so that the usual question needs neither hash nor lock.
        self._recent: tuple[KeyScope, SigningKey] | None = None

    @property
    def maxsize(self) -> int:
        """The most keys that are kept."""
        return self._maxsize

    def get(self, scope: KeyScope) -> SigningKey | None:
        """See `KeyCache.get`."""
        recent = self._recent
        if recent is not None and recent[0] is scope:
            return recent[1]
        with self._lock:
            key = self._keys.get(scope)
            if key is not None:
                self._keys.move_to_end(scope)
                self._recent = scope, key
            return key

    def put(self, scope: KeyScope, key: SigningKey) -> None:
        """See `KeyCache.put`."""
        with self._lock:
            if scope not in self._keys and len(self._keys) >= self._maxsize:
                self._keys.popitem(last=False)
            self._keys[scope] = key
            self._keys.move_to_end(scope)
            self._recent = scope, key

    def clear(self) -> None:
        """Forget every key, for when credentials were revoked; the next signature derives anew."""
        with self._lock:
            self._recent = None
            self._keys.clear()

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"MemoryKeyCache(maxsize={self._maxsize}, size={len(self._keys)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._maxsize,)


@frozen
class CacheInfo:
    """How well a signer's key cache does.

    Attributes:
        hits: Signatures whose key was there.
        misses: Signatures for which the cache gave no usable key.
        hit_rate: Hits over both; 0.0 before the first signature.
        size: Keys in the cache now; ``None`` for a cache without ``len()``.
    """

    hits: int
    misses: int
    hit_rate: float
    size: int | None
