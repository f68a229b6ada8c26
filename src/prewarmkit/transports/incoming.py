"""The body of an httpcore answer, readable once and finished on every way out."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable

import anyio
import httpcore

from prewarmkit.errors import TransportError
from prewarmkit.transports.prepared import Origin

__all__ = ["IncomingBody", "is_bodiless"]

_FAULTS = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)
_NO_BODY_STATUSES = frozenset({204, 304})


def is_bodiless(method: str, status: int, headers: Iterable[tuple[str, str]]) -> bool:
    """Whether no byte of a body follows, by RFC 9112 section 6.3."""
    if method == "HEAD" or status in _NO_BODY_STATUSES:
        return True
    return any(name == "content-length" and value.strip() == "0" for name, value in headers)


class IncomingBody:
    """Raw chunks as they come; a connection that breaks is a `TransportError`.

    A class around httpcore's generator, so that `finish` can end the latter in an orderly way.
    """

    def __init__(self, answer: httpcore.Response, origin: Origin) -> None:
        if not isinstance(answer.stream, AsyncIterable):
            raise TypeError("httpcore gave a synchronous stream to an asynchronous caller.")
        self._stream: AsyncIterable[bytes] = answer.stream
        self._close = answer.aclose
        self._origin = origin
        self._chunks: AsyncIterator[bytes] | None = None
        self._is_done = self._is_left = self._is_read = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._is_left:
            raise RuntimeError("A body can be read inside the context of its `send` only.")
        if self._is_read:
            raise RuntimeError("Two tasks read the same body: only one can.")
        if self._is_done:
            raise StopAsyncIteration
        if self._chunks is None:
            self._chunks = aiter(self._stream)
        self._is_read = True
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            self._is_done = True
            await self._close()  # tells httpcore, which makes the connection idle again
            raise
        except httpcore.TimeoutException:
            self._is_done = True
            raise TransportError(
                f"{self._origin} stopped sending in the middle of a body: raise stall_timeout, "
                "or look at the network."
            ) from None
        except _FAULTS as error:
            self._is_done = True
            raise TransportError(f"The connection to {self._origin} broke inside a body ({error}).") from None
        except BaseException:
            self._is_done = True  # cancelled: httpcore has closed the connection
            raise
        finally:
            self._is_read = False

    async def exhaust(self) -> None:
        """Read to the end of a body that has no bytes."""
        async for _chunk in self:
            pass

    async def finish(self) -> None:
        """Release the answer; call it once the connection was put back or closed.

        httpcore's generator wraps another one and does not close it. Closing the outer one would
        leave the inner to the garbage collector, of which trio complains. With the connection
        closed both end by themselves at their next step, which waits for nothing. Where another
        task still reads, that step is its own.
        """
        with anyio.CancelScope(shield=True):
            if self._chunks is None and not self._is_done:
                await self._close()
            while not (self._is_done or self._is_read or self._chunks is None):
                try:
                    await anext(self)
                except (StopAsyncIteration, TransportError):
                    self._is_done = True
        self._is_left = True
