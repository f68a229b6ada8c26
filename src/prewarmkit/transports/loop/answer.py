"""An answer as it comes: what has been read of it so far, whichever parser reads it.

Owns where an answer begins and where it ends (RFC 9112, section 6.3), how much of it may be
no body, and whether anything came that nobody asked for. Pure: knows no socket, no loop and
no waiting.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections import deque

__all__ = ["MAX_HEAD_BYTES", "TOO_LARGE", "Answer", "lowered"]

# Of a head, or of anything else that is no body (notes, trailers); httpcore has the same bound.
MAX_HEAD_BYTES = 100 * 1024
TOO_LARGE = f"sent more than {MAX_HEAD_BYTES} bytes of headers."


@functools.lru_cache(maxsize=512)
def lowered(name: bytes) -> str:
    """A header's name in lower case."""
    return name.decode("latin-1").lower()


class Answer(ABC):
    """The answers that come on one connection, one after the other.

    Attributes:
        status: Once `is_answered`.
        headers: Then, too: names in lower case.
        held: Bytes of the body that nobody has taken yet.
        is_begun: Whether a byte came since `begin`.
        is_answered: Whether the head is there.
        is_complete: Whether the body is, too; also before the first request.
        is_overrun: Whether something came that belongs to no request.
        keeps_alive: Whether the connection may carry another one, once `is_complete`.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.held = 0
        self.is_begun = self.is_answered = self.is_overrun = self.keeps_alive = False
        self.is_complete = True  # nobody has asked yet
        self._chunks: deque[bytes] = deque()
        self._headless_bytes = 0

    def begin(self, *, is_head: bool) -> None:
        """A request is about to go out; ``is_head``: its answer has no body."""
        self.is_begun = self.is_answered = self.is_complete = False
        self._headless_bytes = 0
        self._begin(is_head=is_head)

    def take(self) -> bytes | None:
        """The next bytes of the body, if there are any."""
        if not self._chunks:
            return None
        chunk = self._chunks.popleft()
        self.held -= len(chunk)
        return chunk

    def leave(self) -> None:
        """Nobody wants the rest."""
        self._chunks.clear()
        self.held = 0

    @abstractmethod
    def feed(self, data: bytes | memoryview) -> str | None:
        """Take what came; what is wrong with it, if anything is."""

    @abstractmethod
    def end(self) -> bool:
        """The server says that nothing more comes; whether that makes the answer whole."""

    @abstractmethod
    def close(self) -> None:
        """Nothing more can come."""

    @abstractmethod
    def _begin(self, *, is_head: bool) -> None: ...

    def _add(self, body: bytes) -> None:
        self._headless_bytes = 0
        self._chunks.append(body)
        self.held += len(body)
