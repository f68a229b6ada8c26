"""A host's own httpx client, or httpx transport, as a `Transport`.

Owns nothing: what the host hands in stays the host's to close. Sends exactly the
headers it is given, never the client's defaults, cookies, authentication or redirects,
so that a signed request arrives as it was signed. The only module beside
``transports.auth`` that imports httpx; httpx2 is found by the class of what came in.
"""

from __future__ import annotations

import copy
import functools
import ssl
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Any, Protocol, Self, TypeGuard, cast

import anyio

from prewarmkit.errors import ConfigurationError, TransportError
from prewarmkit.transports.base import Request, Response
from prewarmkit.transports.prepared import CountedBody, Prepared, prepare

__all__ = ["HttpxTransport"]

_FAMILIES = ("httpx", "httpx2")
_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "ProxyError")
_DIED = ("ReadError", "RemoteProtocolError")
_NO_COOKIES = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
_SECONDS = {"connect": 10.0, "read": 30.0, "write": 30.0, "pool": 30.0}


class _Answer(Protocol):
    """What is used of httpx's and httpx2's ``Response``."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> _Headers: ...
    @property
    def is_stream_consumed(self) -> bool: ...
    def aiter_raw(self) -> AsyncIterator[bytes]: ...
    def aiter_bytes(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class _Headers(Protocol):
    @property
    def raw(self) -> Sequence[tuple[bytes, bytes]]: ...


class _Client(Protocol):
    """What is used of httpx's and httpx2's ``AsyncClient``."""

    async def send(self, request: Any, *, stream: bool, auth: None, follow_redirects: bool) -> _Answer: ...


class _Wire(Protocol):
    """What is used of httpx's and httpx2's ``AsyncBaseTransport``."""

    async def handle_async_request(self, request: Any) -> _Answer: ...


def _is_client(given: object) -> TypeGuard[_Client]:
    return callable(getattr(given, "send", None))


def _is_wire(given: object) -> TypeGuard[_Wire]:
    return callable(getattr(given, "handle_async_request", None))


class HttpxTransport:
    """Sends requests through an ``httpx.AsyncClient`` or ``httpx.AsyncBaseTransport`` of the host.

    Example::

        async with httpx.AsyncClient(proxy="http://proxy.internal:3128") as client:
            async with R2Client(..., transport=HttpxTransport(client)) as r2:
                ...

    A client's timeouts hold; a bare transport gets 10 s to connect and 30 s for any single wait.
    Entering does nothing and is not needed; leaving closes nothing. A kept connection that turns out to be
    dead is made up for as `DirectTransport` does; cookies of answers do not get into the client's jar.

    httpx logs the URL of every request at INFO, and a URL may hold a secret: a bot's token, a signature. The
    URL of these requests therefore says only its origin in ``str`` and ``repr``, to a host's event hooks
    too; its ``raw_path`` is whole. Over HTTP/2 the package hpack logs paths at DEBUG: leave that logger above.

    Args:
        client_or_transport: Open, and closed by whoever made it.

    Raises:
        prewarmkit.errors.ConfigurationError: It is neither, or a synchronous one.
    """

    def __init__(self, client_or_transport: object) -> None:
        self._httpx = _family_of(client_or_transport)
        self._client: _Client | None = None
        self._wire: _Wire | None = None
        if isinstance(client_or_transport, self._httpx.AsyncClient) and _is_client(client_or_transport):
            self._client = client_or_transport
        elif _is_wire(client_or_transport):
            self._wire = client_or_transport
        else:
            raise ConfigurationError(
                "client_or_transport must be an asynchronous httpx client or transport, not "
                f"{type(client_or_transport).__name__}."
            )
        self._not_sent: tuple[type[Exception], ...] = tuple(getattr(self._httpx, name) for name in _NOT_SENT)
        self._died: tuple[type[Exception], ...] = tuple(getattr(self._httpx, name) for name in _DIED)
        self._faults: tuple[type[Exception], ...] = (
            self._httpx.TransportError,
            self._httpx.StreamError,
            ssl.SSLError,  # TLS that breaks after its handshake comes through httpx as it is
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def send(
        self, request: Request, *, deadline_seconds: float | None = None
    ) -> AbstractAsyncContextManager[Response]:
        """See `prewarmkit.transports.Transport.send`.

        Raises:
            ValueError: The request itself is malformed.
            prewarmkit.errors.TransportError: No answer, or not in time.
        """
        return self._send(request.url, prepare(request), deadline_seconds)

    @asynccontextmanager
    async def _send(
        self, url: str, prepared: Prepared, deadline_seconds: float | None
    ) -> AsyncGenerator[Response, None]:
        is_answered = False
        with anyio.move_on_after(deadline_seconds) as deadline:
            async with AsyncExitStack() as stack:
                answer = await self._answer(url, prepared, stack)
                is_answered = True
                body = _RawBody(answer, self._faults, str(prepared.origin))
                stack.push_async_callback(_shielded, body.finish)
                headers = tuple(
                    (name.decode("latin-1").lower(), value.decode("latin-1"))
                    for name, value in answer.headers.raw
                )
                yield Response(answer.status_code, headers, body)
        if deadline.cancelled_caught:
            got = "its answer's body" if is_answered else "an answer"
            raise TransportError(
                f"{prepared.method} to {prepared.origin} waited for {got} longer than its deadline of "
                f"{deadline_seconds:g} s: allow more, or look at the network."
            )

    async def _answer(self, url: str, prepared: Prepared, stack: AsyncExitStack) -> _Answer:
        """Send, and read the answer's head; once more if the connection had died idle."""
        may_go_again = prepared.is_replayable
        while True:
            outgoing = _outgoing_class(self._httpx)(prepared)
            stack.push_async_callback(_shielded, outgoing.aclose)
            trail = _Trail()
            try:
                return await self._attempt(url, prepared, outgoing, trail)
            except self._faults as error:
                if not (may_go_again and trail.is_on_a_kept_connection and isinstance(error, self._died)):
                    raise TransportError(
                        f"{prepared.method} to {prepared.origin} got no answer ({type(error).__name__}: {error}): "
                        "check the address, the network and the client's timeouts.",
                        request_sent=not isinstance(error, self._not_sent),
                    ) from None
            may_go_again = False

    async def _attempt(self, url: str, prepared: Prepared, outgoing: CountedBody, trail: _Trail) -> _Answer:
        # The URL's path is sent by the extension: httpx would remove dot segments from a key.
        extensions: dict[str, Any] = {"target": prepared.target.encode("ascii"), "trace": trail.note}
        if self._client is None:
            extensions["timeout"] = dict(_SECONDS)
        quiet_url = _quiet_url_class(self._httpx)(url)
        request = self._httpx.Request(
            prepared.method,
            quiet_url,
            headers=prepared.headers,
            stream=None if prepared.body is None else outgoing,
            extensions=extensions,
        )
        request.url = quiet_url  # the request has made a plain one of it
        if self._client is not None:
            client = _without_cookies(self._client)
            return await client.send(request, stream=True, auth=None, follow_redirects=False)
        assert self._wire is not None
        return await self._wire.handle_async_request(request)


class _Trail:
    """What httpcore tells of an attempt; a host's mock tells nothing."""

    def __init__(self) -> None:
        self._has_connected = self._has_sent = False

    @property
    def is_on_a_kept_connection(self) -> bool:
        return self._has_sent and not self._has_connected

    async def note(self, event: str, _info: object) -> None:
        if event.endswith((".connect_tcp.started", ".connect_unix_socket.started")):
            self._has_connected = True
        elif event.endswith(".send_request_headers.started"):
            self._has_sent = True


class _RawBody:
    """The undecoded body of an httpx answer."""

    def __init__(self, answer: _Answer, faults: tuple[type[Exception], ...], origin: str) -> None:
        self._answer = answer
        self._faults = faults
        self._origin = origin
        self._chunks: AsyncIterator[bytes] | None = None
        self._is_done = self._is_read = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._is_read:
            raise RuntimeError("Two tasks read the same body: only one can.")
        if self._is_done:
            raise StopAsyncIteration
        if self._chunks is None:
            # A client's mock or caching transport may give an answer that was read already.
            was_read = self._answer.is_stream_consumed
            self._chunks = self._answer.aiter_bytes() if was_read else self._answer.aiter_raw()
        self._is_read = True
        try:
            return await anext(self._chunks)
        except self._faults as error:
            self._is_done = True
            raise TransportError(
                f"The connection to {self._origin} broke inside a body ({type(error).__name__}: {error})."
            ) from None
        except BaseException:  # its end, too
            self._is_done = True
            raise
        finally:
            self._is_read = False

    async def finish(self) -> None:
        """Close, then let httpx's nested generators run into the closed stream and end.

        Left suspended, the garbage collector would finish them, of which trio complains.
        """
        await self._answer.aclose()
        if self._chunks is None or self._is_read:  # where another task still reads, that step is its own
            return
        while not self._is_done:
            try:
                await anext(self)
            except (StopAsyncIteration, TransportError):
                self._is_done = True


async def _shielded(clean_up: Any) -> None:
    with anyio.CancelScope(shield=True):
        await clean_up()


def _without_cookies(client: Any) -> _Client:
    """The same client for one request, that keeps no cookie: all but its jar is shared.

    A new one each time, for the host may set anything on its own at any time.
    """
    twin = copy.copy(client)
    twin.cookies = _NO_COOKIES
    return cast("_Client", twin)


@functools.cache
def _outgoing_class(httpx: Any) -> Any:
    """A body that httpx takes as it is: left half-way, a generator around it would be the collector's."""
    return type("Outgoing", (CountedBody, httpx.AsyncByteStream), {})


@functools.cache
def _quiet_url_class(httpx: Any) -> Any:
    """The family's ``URL`` whose text, which httpx logs, is its origin only."""

    def text(url: Any) -> str:
        return f"{url.scheme}://{url.netloc.decode('ascii')}/"

    def representation(url: Any) -> str:
        return f"URL({text(url)!r})"

    return type("URL", (httpx.URL,), {"__str__": text, "__repr__": representation})


def _family_of(given: object) -> Any:
    """The module, httpx or httpx2, that the class of ``given`` or one of its bases comes from."""
    for base in type(given).__mro__:
        root = base.__module__.partition(".")[0]
        if root in _FAMILIES:
            return sys.modules[root]
    raise ConfigurationError(
        "client_or_transport must be an httpx.AsyncClient or httpx.AsyncBaseTransport (or httpx2's), not "
        f"{type(given).__name__}."
    )
