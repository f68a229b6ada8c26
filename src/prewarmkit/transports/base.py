"""The one call that everything HTTP in prewarmkit is written against.

A transport sends one request and gives one answer. It knows nothing of signatures,
retries, redirects or cookies: it never follows, never decodes, never adds a header
but ``host``, ``content-length`` and what its HTTP/1.1 connection needs.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from attrs import field, frozen

__all__ = ["Request", "Response", "Transport"]


@frozen
class Request:
    """One HTTP request.

    Attributes:
        method: In capitals.
        url: Absolute, path and query already percent-encoded; sent as it is. Only the origin is in
            ``repr``: a query may sign, and the Bot API has its token in the path.
        headers: Pairs, names in any case, sent in this order. Hidden in ``repr``: they may sign.
        body: Bytes, or an async iterable of bytes that is read once; ``None`` for none.
        content_length: Bytes in the body; needed when the body is an iterable.
    """

    method: str
    url: str = field(repr=lambda url: repr("/".join(url.split("/", 3)[:3])))
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes | AsyncIterable[bytes] | None = field(default=None, repr=False)
    content_length: int | None = None


@frozen
class Response:
    """One HTTP answer, its body still on the wire.

    Attributes:
        status: Such as 200.
        headers: Pairs as they came, names in lower case; a name may come twice.
        body: The raw bytes as they come, never decoded; readable once, inside the context only.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: AsyncIterator[bytes] = field(repr=False)

    def header(self, name: str) -> str | None:
        """The first header of that (lower-case) name, or ``None``."""
        for found, value in self.headers:
            if found == name:
                return value
        return None


@runtime_checkable
class Transport(Protocol):
    """Sends requests; entered by whoever made it, and shared by as many components as like.

    Leaving the context of `send` early, by an exception or a cancellation, must free the
    connection. Failures to get an answer are `prewarmkit.errors.TransportError`. One that has a
    ``max_connections`` is sent no more requests at a time by an `R2Client`, which signs the others
    after their wait.
    """

    def send(
        self, request: Request, *, deadline_seconds: float | None = None
    ) -> AbstractAsyncContextManager[Response]:
        """Send ``request`` and give the answer once its head is there.

        Args:
            request: What to send.
            deadline_seconds: Bounds the whole exchange, the reading of the body included;
                over it a `TransportError` is raised.
        """
        ...
