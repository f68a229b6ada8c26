"""Every transport keeps the same contract, over real sockets."""

from __future__ import annotations

import logging
import ssl
import sys
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from anyio.streams.tls import TLSStream

from prewarmkit.errors import ConfigurationError, TransportError
from prewarmkit.testing.contracts.transport import TransportContract
from prewarmkit.testing.wire import Wire, serve
from prewarmkit.transports import DirectTransport, FastTransport, HttpxTransport, Request, Transport

pytestmark = pytest.mark.anyio


TLS = Path(__file__).parent.parent / "data" / "tls"


@pytest.fixture
def tls_server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "localhost.pem", TLS / "localhost.key")
    return context


@pytest.fixture
def tls_client_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(TLS / "localhost.pem"))


class TestDirectTransport(TransportContract):
    def transport(self) -> AbstractAsyncContextManager[Transport]:
        return DirectTransport(max_connections=8, stall_timeout=3)

    def impatient_transport(self, stall_seconds: float) -> AbstractAsyncContextManager[Transport]:
        return DirectTransport(stall_timeout=stall_seconds)

    def busy(self, transport: Transport) -> int:
        assert isinstance(transport, DirectTransport)
        return transport.statistics().busy


class TestFastTransport(TransportContract):
    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, bool]]:
        return "asyncio", {"use_uvloop": False}  # under trio there is none

    def transport(self) -> AbstractAsyncContextManager[Transport]:
        return FastTransport(max_connections=8, stall_timeout=3)

    def impatient_transport(self, stall_seconds: float) -> AbstractAsyncContextManager[Transport]:
        return FastTransport(stall_timeout=stall_seconds)

    def busy(self, transport: Transport) -> int:
        assert isinstance(transport, FastTransport)
        return transport.statistics().busy


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop is not for Windows")
class TestFastTransportOnUvloop(TestFastTransport):
    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, bool]]:
        return "asyncio", {"use_uvloop": True}


class HttpxContract(TransportContract):
    reads_early_answers = False  # httpx only reads once it has written: a reset hides the answer
    drops_unasked_bytes = False  # httpcore takes what follows an answer for the next one
    httpx: Any = None


class ClientContract(HttpxContract):
    @asynccontextmanager
    async def _client(self, seconds: float) -> AsyncGenerator[Transport, None]:
        async with self.httpx.AsyncClient(
            follow_redirects=True,
            auth=("no", "no"),
            headers={"X-Default": "no"},
            timeout=self.httpx.Timeout(seconds, pool=30),
            limits=self.httpx.Limits(max_connections=8),
            cookies={"no": "no"},
        ) as client:
            yield HttpxTransport(client)
            assert dict(client.cookies) == {"no": "no"}

    def transport(self) -> AbstractAsyncContextManager[Transport]:
        return self._client(3)

    def impatient_transport(self, stall_seconds: float) -> AbstractAsyncContextManager[Transport]:
        return self._client(stall_seconds)


class WireContract(HttpxContract):
    @asynccontextmanager
    async def transport(self) -> AsyncGenerator[Transport, None]:
        async with (
            self.httpx.AsyncHTTPTransport(limits=self.httpx.Limits(max_connections=8)) as wire,
            HttpxTransport(wire) as transport,
        ):
            yield transport

    @asynccontextmanager
    async def impatient_transport(self, stall_seconds: float) -> AsyncGenerator[Transport, None]:
        async with self.httpx.AsyncClient(timeout=stall_seconds) as client:  # a bare transport's is fixed
            yield HttpxTransport(client)


class TestHttpxClient(ClientContract):
    httpx = httpx


class TestHttpxTransportOfAHost(WireContract):
    httpx = httpx


class TestHttpx2Client(ClientContract):
    httpx = httpx2


class TestHttpx2TransportOfAHost(WireContract):
    httpx = httpx2


async def ok(wire: Wire) -> None:
    while True:
        await wire.request()
        await wire.answer(200, body=b"ok")


async def test_a_hosts_client_stays_open() -> None:
    async with serve(ok) as server, httpx.AsyncClient() as client:
        async with (
            HttpxTransport(client) as transport,
            transport.send(Request("GET", server.url)) as response,
        ):
            assert response.status == 200
        assert not client.is_closed


def test_a_synchronous_client_is_refused_by_name() -> None:
    with httpx.Client() as client, pytest.raises(ConfigurationError, match="asynchronous"):
        HttpxTransport(client)
    with pytest.raises(ConfigurationError, match="client_or_transport must be"):
        HttpxTransport("http://127.0.0.1")


async def test_direct_uses_the_last_connection_first() -> None:
    """Under load of one, only one of many connections is used; the others age."""
    async with serve(ok) as server, DirectTransport() as transport:
        request = Request("GET", server.url)

        async def once() -> None:
            async with transport.send(request) as response:
                assert b"".join([chunk async for chunk in response.body]) == b"ok"
                await anyio.sleep(0.05)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(once)
        assert transport.statistics().idle == 5
        server.requests.clear()
        for _ in range(4):
            await once()
        assert len({found.connection for found in server.requests}) == 1
        assert (transport.statistics().busy, transport.statistics().opened) == (0, 5)


async def test_direct_never_holds_more_connections_than_it_may() -> None:
    """Callers beyond the bound wait in their order; idle ones of another origin make room."""
    order: list[int] = []
    async with serve(ok) as first, serve(ok) as second, DirectTransport(max_connections=1) as transport:

        async def once(number: int) -> None:
            url = (first, second)[number % 2].url
            async with transport.send(Request("GET", url)) as response:
                order.append(number)
                await anyio.sleep(0.01)
                async for _chunk in response.body:
                    pass
                figures = transport.statistics()
                assert (figures.busy, figures.idle) == (1, 0)

        async with anyio.create_task_group() as tasks:
            for number in range(12):
                tasks.start_soon(once, number)
                await anyio.sleep(0.001)
    assert order == sorted(order)


async def test_direct_leaves_no_connection_behind_when_cancelled_anywhere() -> None:
    """A cancellation at any moment of an exchange brings the gauge back to zero."""

    async def slow(wire: Wire) -> None:
        while True:
            await wire.head()
            await anyio.sleep(0.002)
            await wire.stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n")
            await anyio.sleep(0.002)
            await wire.stream.send(b"\r\nhalf")
            await anyio.sleep(0.002)
            await wire.stream.send(b"done")

    async with serve(slow) as server, DirectTransport(max_connections=2) as transport:
        for step in range(40):
            with anyio.move_on_after(step * 0.0003):
                async with transport.send(Request("GET", server.url)) as response:
                    async for _chunk in response.body:
                        pass
            assert transport.statistics().busy == 0
        with anyio.fail_after(2):
            async with transport.send(Request("GET", server.url)) as response:
                assert b"".join([chunk async for chunk in response.body]) == b"halfdone"


async def test_direct_sends_again_only_what_may_arrive_twice() -> None:
    """A server that closes upon the second request: PUT is sent again, POST and If-None-Match are not."""

    async def handler(wire: Wire) -> None:
        await wire.request()
        await wire.answer(200)
        if wire.number:
            return
        await wire.request()  # seen, and dropped without an answer

    for request_, again in (
        (("PUT", ()), True),
        (("GET", ()), True),
        (("POST", ()), False),
        (("PUT", (("If-None-Match", "*"),)), False),
    ):
        method, headers = request_
        async with serve(handler) as server, DirectTransport() as transport:
            request = Request(method, server.url, headers, None if method == "GET" else b"x")
            async with transport.send(request):
                pass
            if again:
                async with transport.send(request) as response:
                    assert response.status == 200
            else:
                with pytest.raises(TransportError) as caught:
                    async with transport.send(request):
                        pass
                assert caught.value.request_sent
            assert len(server.requests) == (3 if again else 2)


async def test_direct_does_not_send_again_after_a_byte_of_an_answer() -> None:
    async def handler(wire: Wire) -> None:
        await wire.request()
        await wire.answer(200)
        await wire.request()
        await wire.stream.send(b"HTTP/1.1 2")
        await wire.reset()

    async with serve(handler) as server, DirectTransport() as transport:
        async with transport.send(Request("GET", server.url)):
            pass
        with pytest.raises(TransportError):
            async with transport.send(Request("GET", server.url)):
                pass
        assert len(server.requests) == 2


async def test_direct_keeps_the_connection_after_a_head() -> None:
    async def handler(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.answer(200, length=1000)

    async with serve(handler) as server, DirectTransport() as transport:
        for _ in range(3):
            async with transport.send(Request("HEAD", server.url)) as response:
                assert response.header("content-length") == "1000"
        assert server.connections == 1


async def test_direct_goes_on_after_an_interim_answer() -> None:
    """A 1xx note in the middle of an upload is no answer yet."""

    async def handler(wire: Wire) -> None:
        head = await wire.head()
        await wire.stream.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        await wire.rest(head)
        await wire.answer(200, body=b"all read")

    async with serve(handler) as server, DirectTransport() as transport:
        request = Request("PUT", server.url, (), b"x" * 4 * 1024 * 1024)
        async with transport.send(request) as response:
            assert b"".join([chunk async for chunk in response.body]) == b"all read"


async def test_direct_refuses_a_certificate_that_nobody_vouches_for(
    tls_server_context: ssl.SSLContext, tls_client_context: ssl.SSLContext
) -> None:
    async with serve(ok, ssl_context=tls_server_context) as server:
        async with DirectTransport() as transport:
            with pytest.raises(TransportError, match="certificate") as caught:
                async with transport.send(Request("GET", server.url)):
                    pass
            assert not caught.value.is_retryable
            assert not caught.value.request_sent
        async with DirectTransport(ssl_context=tls_client_context) as transport:
            for _ in range(2):
                async with transport.send(Request("GET", server.url)) as response:
                    assert b"".join([chunk async for chunk in response.body]) == b"ok"
            assert transport.statistics().opened == 1


async def test_direct_gives_an_early_answer_over_tls(
    tls_server_context: ssl.SSLContext, tls_client_context: ssl.SSLContext
) -> None:
    async def handler(wire: Wire) -> None:
        await wire.head()
        await wire.answer(413, [("Connection", "close")], b"too large")
        await anyio.sleep(0.05)

    async with (
        serve(handler, ssl_context=tls_server_context) as server,
        DirectTransport(ssl_context=tls_client_context) as transport,
        transport.send(Request("PUT", server.url, (), b"x" * 16 * 1024 * 1024)) as response,
    ):
        assert response.status == 413
        assert b"".join([chunk async for chunk in response.body]) == b"too large"


async def test_direct_must_be_entered() -> None:
    transport = DirectTransport()
    with pytest.raises(RuntimeError, match="Enter the DirectTransport first"):
        transport.send(Request("GET", "http://127.0.0.1:1/"))
    with pytest.raises(ValueError, match="max_connections"):
        DirectTransport(max_connections=0)
    with pytest.raises(ValueError, match="stall_timeout"):
        DirectTransport(stall_timeout=-1)


@pytest.mark.parametrize("is_client", [True, False])
async def test_httpx_logs_and_shows_no_path_of_ours(
    is_client: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A Bot API path holds the token, and httpx logs the URL of every request of a client at INFO."""
    caplog.set_level(logging.DEBUG)
    seen: list[httpx.Request] = []

    async def hook(request: httpx.Request) -> None:
        seen.append(request)

    async with (
        serve(ok) as server,
        httpx.AsyncClient(event_hooks={"request": [hook]}) as client,
        httpx.AsyncHTTPTransport() as wire,
    ):
        given: object = client if is_client else wire
        request = Request("GET", f"{server.url}/bot1:SECRET/getMe?sign=SECRET", (("x-token", "SECRET"),))
        async with HttpxTransport(given).send(request) as response:
            assert [chunk async for chunk in response.body] == [b"ok"]
        assert server.requests[0].target == "/bot1:SECRET/getMe?sign=SECRET"
    assert caplog.text
    assert "SECRET" not in caplog.text
    for one in seen:
        assert one.url.raw_path == b"/bot1:SECRET/getMe?sign=SECRET"
        assert "SECRET" not in f"{one!r} {one.url!r} {one.url}"


async def test_httpx_gives_the_answer_of_a_hosts_mock() -> None:
    """`httpx.MockTransport` gives answers that were read already, and sees the whole path."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=request.url.raw_path)

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client,
        HttpxTransport(client).send(Request("GET", "http://host/b?c")) as response,
    ):
        assert b"".join([chunk async for chunk in response.body]) == b"/b?c"


async def read(transport: Transport, request: Request) -> bytes:
    async with transport.send(request) as response:
        return b"".join([chunk async for chunk in response.body])


@pytest.mark.parametrize(
    "name", ["direct", "direct, uploading", "direct, half-way", "httpx", "httpx, half-way"]
)
async def test_tls_that_breaks_after_its_handshake_is_a_transport_error(
    name: str, tls_server_context: ssl.SSLContext, tls_client_context: ssl.SSLContext
) -> None:
    """An `ssl.SSLError`, such as the alert for a missing client certificate, comes through httpcore as it is."""

    async def break_tls(wire: Wire) -> None:
        await wire.head()
        if "half-way" in name:
            await wire.answer(200, body=b"half", length=1000)
        stream = wire.stream
        assert isinstance(stream, TLSStream)
        await stream.transport_stream.send(b"this is no record of TLS")
        await anyio.sleep_forever()

    body = bytes(4_000_000) if "uploading" in name else None
    async with (
        serve(break_tls, ssl_context=tls_server_context) as server,
        DirectTransport(ssl_context=tls_client_context, stall_timeout=3) as direct,
        httpx.AsyncClient(verify=tls_client_context, timeout=3) as client,
    ):
        transport: Transport = direct if name.startswith("direct") else HttpxTransport(client)
        request = Request("PUT" if body else "GET", f"{server.url}/", (), body)
        with pytest.raises(TransportError) as caught:
            await read(transport, request)
        if transport is direct:  # httpx over trio has lost the reason
            assert "TLS: WRONG_VERSION_NUMBER" in str(caught.value)
        assert direct.statistics().busy == direct.statistics().idle == 0


@pytest.mark.parametrize("says_so", [True, False])
async def test_direct_ends_a_body_without_a_length_only_where_tls_says_so(
    says_so: bool, tls_server_context: ssl.SSLContext, tls_client_context: ssl.SSLContext
) -> None:
    """Anybody on the way can end a connection, but only the server can write that nothing follows."""

    async def handler(wire: Wire) -> None:
        await wire.head()
        await wire.stream.send(b"HTTP/1.1 200 OK\r\n\r\nwhole?")
        assert isinstance(wire.stream, TLSStream)
        if says_so:
            await wire.stream.unwrap()
        await wire.stream.transport_stream.aclose()

    async with (
        serve(handler, ssl_context=tls_server_context) as server,
        DirectTransport(ssl_context=tls_client_context) as transport,
    ):
        if says_so:
            assert await read(transport, Request("GET", server.url)) == b"whole?"
        else:
            with pytest.raises(TransportError, match="broke inside a body"):
                await read(transport, Request("GET", server.url))
        assert transport.statistics().busy == 0


@pytest.mark.parametrize(
    "url", ["http://id:SECRET/x@host/", "http://host:SECRET/", "http://host:99999/", "http:///"]
)
async def test_a_malformed_authority_is_refused_unseen(url: str) -> None:
    async with DirectTransport() as transport:
        with pytest.raises(ValueError, match=r"host or port|65535") as caught:
            transport.send(Request("GET", url))
    assert "SECRET" not in f"{caught.value} {caught.value.__context__}".upper()


async def test_a_control_character_in_a_header_is_refused_unseen() -> None:
    async with DirectTransport() as transport:
        with pytest.raises(ValueError, match="x-token") as caught:
            transport.send(Request("GET", "http://host/", (("x-token", "SECRET\x0b"),)))
    assert "SECRET" not in str(caught.value)
