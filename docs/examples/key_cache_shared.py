"""One signing-key cache for every signer of a process, with figures to watch.

python key_cache_shared.py    # needs prewarmkit alone, and no network
"""

from __future__ import annotations

from threading import Lock
from typing import NamedTuple

from prewarmkit import Credentials, KeyScope, MemoryKeyCache, SigningKey, SigV4Signer


class Figures(NamedTuple):
    """What to export to your metrics; no key and no tenant is in them."""

    hits: int
    misses: int
    puts: int  # keys derived: about one a tenant and day. Many more say that maxsize is too small.
    size: int


class MeteredKeyCache:
    """A `MemoryKeyCache` that counts; for any number of signers, tenants and threads."""

    def __init__(self, maxsize: int) -> None:
        self._keys = MemoryKeyCache(maxsize)  # at least as many as there are tenants at once
        self._lock = Lock()
        self._hits = self._misses = self._puts = 0

    def get(self, scope: KeyScope) -> SigningKey | None:
        found = self._keys.get(scope)
        with self._lock:
            if found is None:
                self._misses += 1
            else:
                self._hits += 1
        return found

    def put(self, scope: KeyScope, key: SigningKey) -> None:
        self._keys.put(scope, key)
        with self._lock:
            self._puts += 1

    def clear(self) -> None:
        """Forget every tenant's key: the other tenants' next signatures derive theirs anew, in microseconds."""
        self._keys.clear()

    def figures(self) -> Figures:
        with self._lock:
            return Figures(self._hits, self._misses, self._puts, len(self._keys))


def replace_token(cache: MeteredKeyCache, new: Credentials) -> SigV4Signer:
    """Once the old token is revoked: a signer for the new one, and no key of the old one in the cache.

    Drop the old signer too. It holds the old secret, and would derive the old key again.
    """
    cache.clear()
    return SigV4Signer(new, key_cache=cache)


def main() -> None:
    cache = MeteredKeyCache(maxsize=1_000)
    tenants = {name: Credentials(f"{name}-id", f"{name}-secret") for name in ("anna", "ben", "carla")}
    # R2Client(account_id=..., bucket=..., credentials=..., key_cache=cache) takes it just so.
    signers = {
        (name, worker): SigV4Signer(credentials, key_cache=cache)
        for name, credentials in tenants.items()
        for worker in range(4)
    }
    for number in range(500):
        for (name, _), signer in signers.items():
            signer.sign("GET", f"https://{name}.r2.cloudflarestorage.com/media/{number}.mp4")
    print("12 signers of 3 tenants, 500 signatures each:", cache.figures())

    signer = replace_token(cache, Credentials("anna-id-2", "anna-secret-2"))
    for name, worker in list(signers):
        if name == "anna":
            signers[name, worker] = signer
    print("after clear():", cache.figures())
    for (name, _), signer in signers.items():
        signer.sign("GET", f"https://{name}.r2.cloudflarestorage.com/media/0.mp4")
    print("each signer has signed again:", cache.figures())


if __name__ == "__main__":
    main()
