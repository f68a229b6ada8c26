"""The MD5 of a body as it comes: on the loop where it is small, in a thread beside it where it is large.

A core hashes about 700 MB/s, which is no faster than bytes come from a near service: on the loop it would double
what a large read costs.
"""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from anyio.to_thread import run_sync

__all__ = ["Hasher", "RunningMd5"]

_SMALL_BYTES = 1024 * 1024  # 1.5 ms on the loop
_BATCH_BYTES = 512 * 1024
_MOST_BATCHES = 3  # of a body, on their way: how far hashing may be behind


class Hasher:
    """A client's thread for hashing, started by the first large body; one, so that bytes stay in order."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None

    def md5(self, length: int) -> RunningMd5:
        """The MD5 of a body of that many bytes."""
        if length <= _SMALL_BYTES:
            return RunningMd5(None)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "prewarmkit-md5")
        return RunningMd5(self._thread)

    def close(self) -> None:
        """End the thread, once it is through with what it has."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None


class RunningMd5:
    """One body's."""

    def __init__(self, thread: ThreadPoolExecutor | None) -> None:
        self._sum = hashlib.md5(usedforsecurity=False)
        self._thread = thread
        self._batch: list[bytes] = []
        self._size = 0
        self._behind: deque[Future[None]] = deque()

    def add(self, chunk: bytes) -> None:
        """Take the next bytes."""
        if self._thread is None:
            self._sum.update(chunk)
            return
        self._batch.append(chunk)
        self._size += len(chunk)
        if self._size >= _BATCH_BYTES:
            batch, self._batch, self._size = self._batch, [], 0
            self._behind.append(self._thread.submit(self._update, batch))

    async def catch_up(self, behind: int = _MOST_BATCHES) -> None:
        """Wait while hashing is too far behind; between two calls of `add`, of which none waits."""
        while self._behind and (len(self._behind) > behind or self._behind[0].done()):
            if not self._behind[0].done():
                await run_sync(self._behind[0].result)
            self._behind.popleft().result()

    async def hexdigest(self) -> str:
        """Of all that was added."""
        await self.catch_up(0)
        self._update(self._batch)
        self._batch = []
        return self._sum.hexdigest()

    def _update(self, batch: list[bytes]) -> None:
        for chunk in batch:
            self._sum.update(chunk)
