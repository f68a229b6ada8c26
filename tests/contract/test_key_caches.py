"""Every key cache passes one contract suite."""

from __future__ import annotations

import pytest

from prewarmkit import KeyScope, MemoryKeyCache, SigningKey
from prewarmkit.testing.contracts.key_cache import KeyCacheContract


class TestMemoryKeyCache(KeyCacheContract):
    @pytest.fixture
    def cache(self) -> MemoryKeyCache:
        return MemoryKeyCache()


class BytesCache:
    """Keeps bytes, as a cache outside the process does."""

    def __init__(self) -> None:
        self.entries: dict[KeyScope, bytes] = {}

    def get(self, scope: KeyScope) -> SigningKey | None:
        entry = self.entries.get(scope)
        return None if entry is None else SigningKey.from_bytes(entry)

    def put(self, scope: KeyScope, key: SigningKey) -> None:
        self.entries[scope] = key.to_bytes()


class TestBytesCache(KeyCacheContract):
    @pytest.fixture
    def cache(self) -> BytesCache:
        return BytesCache()
