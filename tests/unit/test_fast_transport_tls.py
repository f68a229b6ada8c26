"""What `FastTransport` does over TLS, on asyncio's own loop and on uvloop's."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.streams.tls import TLSStream

from prewarmkit.errors import TransportError
from prewarmkit.testing.wire import Wire, serve
from prewarmkit.transports import FastTransport, Request, Transport

pytestmark = pytest.mark.anyio

TLS = Path(__file__).parent.parent / "data" / "tls"
MIB = 1024 * 1024


@pytest.fixture(
    params=[
        "asyncio",
        pytest.param(
            "uvloop", marks=pytest.mark.skipif(sys.platform == "win32", reason="uvloop is not for Windows")
        ),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
def tls_server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "localhost.pem", TLS / "localhost.key")
    return context


@pytest.fixture
def tls_client_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(TLS / "localhost.pem"))


async def echo(wire: Wire) -> None:
    while True:
        request = await wire.request()
        await wire.answer(200, body=request.body or b"ok")


async def read(transport: Transport, request: Request) -> bytes:
    async with transport.send(request) as response:
        return b"".join([chunk async for chunk in response.body])


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    tls_server_context: ssl.SSLContext, tls_client_context: ssl.SSLContext
) -> None:
    async with serve(echo, ssl_context=tls_server_context) as server:
        async with FastTransport() as transport:
            with pytest.raises(TransportError, match="certificate") as caught:
                await read(transport, Request("GET", server.url))
            assert not caught.value.is_retryable
            assert not caught.value.request_sent
        async with FastTransport(ssl_context=tls_client_context) as transport:
            large = b"x" * 8 * MIB
            for body in (b"x", large, b"y"):
                assert await read(transport, Request("PUT", server.url, (), body)) == body
            assert transport.statistics().opened == 1


async def test_a_certificate_of_another_host_is_refused(
    tls_server_context: ssl.SSLContext, tls_client_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def getaddrinfo(host: str, port: int, **_options: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async with (
        serve(echo, ssl_context=tls_server_context) as server,
        FastTransport(ssl_context=tls_client_context) as transport,
    ):
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        with pytest.raises(TransportError, match=r"not trusted \(Hostname mismatch"):
            await read(transport, Request("GET", f"https://elsewhere.example:{server.port}/"))


@pytest.mark.parametrize("where", ["head", "body", "upload"])
async def test_tls_that_breaks_after_its_handshake_says_why(
    where: str, tls_server_context: ssl.SSLContext, tls_client_context: ssl.SSLContext
) -> None:
    async def break_tls(wire: Wire) -> None:
        await wire.head()
        if where == "body":
            await wire.answer(200, body=b"half", length=1000)
        assert isinstance(wire.stream, TLSStream)
        await wire.stream.transport_stream.send(b"this is no record of TLS")
        await anyio.sleep_forever()

    body = bytes(4_000_000) if where == "upload" else None
    async with (
        serve(break_tls, ssl_context=tls_server_context) as server,
        FastTransport(ssl_context=tls_client_context, stall_timeout=3) as transport,
    ):
        with pytest.raises(TransportError, match="TLS: WRONG_VERSION_NUMBER"):
            await read(transport, Request("PUT" if body else "GET", server.url, (), body))
        assert (transport.statistics().busy, transport.statistics().idle) == (0, 0)


async def test_an_early_answer_comes_through_tls(
    tls_server_context: ssl.SSLContext, tls_client_context: ssl.SSLContext
) -> None:
    async def handler(wire: Wire) -> None:
        await wire.head()
        await wire.answer(413, [("Connection", "close")], b"too large")
        await anyio.sleep(0.05)

    async with (
        serve(handler, ssl_context=tls_server_context) as server,
        FastTransport(ssl_context=tls_client_context) as transport,
        transport.send(Request("PUT", server.url, (), b"x" * 16 * MIB)) as response,
    ):
        assert response.status == 413
        assert b"".join([chunk async for chunk in response.body]) == b"too large"


async def test_a_handshake_that_hangs_is_given_up(tls_client_context: ssl.SSLContext) -> None:
    async def silent(wire: Wire) -> None:
        await anyio.sleep(5)

    async with (
        serve(silent) as server,
        FastTransport(ssl_context=tls_client_context, connect_timeout=0.2) as transport,
    ):
        with anyio.fail_after(3), pytest.raises(TransportError, match="did not answer in time") as caught:
            await read(transport, Request("GET", f"https://localhost:{server.port}/"))
        assert not caught.value.request_sent


async def test_a_server_without_tls_is_told_apart(tls_client_context: ssl.SSLContext) -> None:
    async def plain(wire: Wire) -> None:
        await wire.stream.receive()
        await wire.stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def hangs_up(wire: Wire) -> None:
        await wire.stream.receive()

    async with FastTransport(ssl_context=tls_client_context, connect_timeout=3) as transport:
        for handler in (plain, hangs_up):
            async with serve(handler) as server:
                with pytest.raises(TransportError, match="Connecting to https://localhost") as caught:
                    await read(transport, Request("GET", f"https://localhost:{server.port}/"))
                assert caught.value.is_retryable


async def test_a_context_that_offers_http2_is_found_out(
    tls_server_context: ssl.SSLContext, tls_client_context: ssl.SSLContext
) -> None:
    for context in (tls_server_context, tls_client_context):
        context.set_alpn_protocols(["h2", "http/1.1"])
    async with (
        serve(echo, ssl_context=tls_server_context) as server,
        FastTransport(ssl_context=tls_client_context) as transport,
    ):
        with pytest.raises(TransportError, match="let TLS choose h2"):
            await read(transport, Request("GET", server.url))


async def test_cancelling_a_handshake_leaves_nothing_behind(
    tls_server_context: ssl.SSLContext, tls_client_context: ssl.SSLContext
) -> None:
    async with (
        serve(echo, ssl_context=tls_server_context) as server,
        FastTransport(ssl_context=tls_client_context, max_connections=2) as transport,
    ):
        for step in range(30):
            with anyio.move_on_after(step * 0.0005):
                await read(transport, Request("POST", server.url, (), b"x"))
            assert transport.statistics().busy == 0
        assert await read(transport, Request("POST", server.url, (), b"x")) == b"x"


@pytest.mark.parametrize("says_so", [True, False])
async def test_a_body_without_a_length_ends_only_where_tls_says_so(
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
        FastTransport(ssl_context=tls_client_context) as transport,
    ):
        if says_so:
            assert await read(transport, Request("GET", server.url)) == b"whole?"
        else:
            with pytest.raises(TransportError, match="TLS was cut off"):
                await read(transport, Request("GET", server.url))
        assert (transport.statistics().busy, transport.statistics().idle) == (0, 0)


@pytest.mark.parametrize("size", [400_000, 600_000, 1_000_000])
async def test_a_slow_reader_gets_what_tls_still_held_when_the_server_hung_up(
    size: int, tls_server_context: ssl.SSLContext, tls_client_context: ssl.SSLContext
) -> None:
    """Asyncio itself drops it, where the server closes without a word, as many do."""
    body = bytes(range(200)) * (size // 200)

    async def handler(wire: Wire) -> None:
        await wire.head()
        await wire.answer(200, [("Connection", "close")], body)
        assert isinstance(wire.stream, TLSStream)
        await wire.stream.transport_stream.aclose()

    async with (
        serve(handler, ssl_context=tls_server_context) as server,
        FastTransport(ssl_context=tls_client_context) as transport,
        transport.send(Request("GET", server.url)) as response,
    ):
        await anyio.sleep(0.1)
        got = b""
        async for chunk in response.body:
            got += chunk
            await anyio.sleep(0.002)
        assert got == body
