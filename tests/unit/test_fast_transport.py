"""What `FastTransport` does beyond the contract that every transport keeps."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from prewarmkit.errors import ConfigurationError, TransportError
from prewarmkit.testing.wire import Wire, serve
from prewarmkit.transports import FastTransport, Request, Transport
from prewarmkit.transports.loop import connecting
from prewarmkit.transports.loop.connection import LoopConnection
from prewarmkit.transports.loop.llhttp import LlhttpAnswer
from prewarmkit.transports.prepared import Origin

pytestmark = pytest.mark.anyio

TLS = Path(__file__).parent.parent / "data" / "tls"
MIB = 1024 * 1024


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def echo(wire: Wire) -> None:
    while True:
        request = await wire.request()
        await wire.answer(200, body=request.body or b"ok")


async def read(transport: Transport, request: Request) -> bytes:
    async with transport.send(request) as response:
        return b"".join([chunk async for chunk in response.body])


@contextmanager
def resetting_server(answer: bytes) -> Generator[str]:
    """A server in a thread of its own that answers the first bytes it gets, and resets at once."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(5)

    def run() -> None:
        connection, _ = listener.accept()
        connection.recv(1024)
        connection.sendall(answer)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        time.sleep(0.02)  # what is sent must be in the other kernel before the reset
        connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with listener:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        thread.join()


# ── where it cannot be ───────────────────────────────────────────────────────


def test_without_httptools_it_imports_and_names_the_extra_when_it_is_made() -> None:
    code = """
import sys
sys.modules["httptools"] = None
from prewarmkit.errors import ConfigurationError
from prewarmkit.transports import FastTransport
try:
    FastTransport()
except ConfigurationError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'prewarmkit[fast]'" in done.stdout


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_trio_is_refused_by_name(anyio_backend: str) -> None:
    transport = FastTransport()
    with pytest.raises(ConfigurationError, match="DirectTransport under trio"):
        await transport.__aenter__()


async def test_it_must_be_entered_and_only_once() -> None:
    transport = FastTransport()
    request = Request("GET", "http://127.0.0.1:1/")
    with pytest.raises(RuntimeError, match="Enter the FastTransport first"):
        transport.send(request)
    assert transport.statistics().busy == 0
    for _ in range(2):  # left, it can be entered again
        async with transport:
            with pytest.raises(RuntimeError, match="entered already"):
                await transport.__aenter__()
        with pytest.raises(RuntimeError, match="Enter the FastTransport first"):
            transport.send(request)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="max_connections"):
        FastTransport(max_connections=0)
    with pytest.raises(ValueError, match="stall_timeout"):
        FastTransport(stall_timeout=-1)


# ── connections ──────────────────────────────────────────────────────────────


async def test_it_uses_the_last_connection_first() -> None:
    """Under load of one, only one of many connections is used; the others age, and the oldest is closed."""
    async with serve(echo) as server, FastTransport(keepalive=0.3) as transport:
        request = Request("GET", server.url)

        async def once() -> None:
            async with transport.send(request) as response:
                assert [chunk async for chunk in response.body] == [b"ok"]
                await anyio.sleep(0.05)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(once)
        assert transport.statistics().idle == 5
        server.requests.clear()
        for _ in range(8):
            await once()
        assert len({found.connection for found in server.requests}) == 1
        figures = transport.statistics()
        assert (figures.busy, figures.opened, figures.requests) == (0, 5, 13)
        assert figures.idle < 4
        await anyio.sleep(0.35)  # and none is taken that is too old
        await once()
        assert transport.statistics().opened == 6


async def test_it_never_holds_more_connections_than_it_may() -> None:
    """Callers beyond the bound wait in their order; idle ones of another origin make room."""
    order: list[int] = []
    async with serve(echo) as first, serve(echo) as second, FastTransport(max_connections=1) as transport:

        async def once(number: int) -> None:
            async with transport.send(Request("GET", (first, second)[number % 2].url)) as response:
                order.append(number)
                await anyio.sleep(0.01)
                assert [chunk async for chunk in response.body] == [b"ok"]
                figures = transport.statistics()
                assert (figures.busy, figures.idle) == (1, 0)

        async with anyio.create_task_group() as tasks:
            for number in range(12):
                tasks.start_soon(once, number)
                await anyio.sleep(0.001)
            assert transport.statistics().waiting >= 9
    assert order == list(range(12))


async def test_room_is_made_by_the_origin_that_was_used_longest_ago() -> None:
    async with (
        serve(echo) as first,
        serve(echo) as second,
        serve(echo) as third,
        FastTransport(max_connections=2) as transport,
    ):
        for server in (first, second, first, third, first):
            assert await read(transport, Request("GET", server.url)) == b"ok"
        assert transport.statistics().opened == 3
        assert (first.connections, second.connections, third.connections) == (1, 1, 1)


async def test_a_connection_that_grew_too_old_is_closed_when_another_comes_back() -> None:
    open_now: set[int] = set()

    async def handler(wire: Wire) -> None:
        open_now.add(wire.number)
        try:
            await echo(wire)
        finally:
            open_now.discard(wire.number)

    async with serve(handler) as server, FastTransport(keepalive=0.1) as transport:
        request = Request("GET", server.url)
        async with transport.send(request) as response:
            assert [chunk async for chunk in response.body] == [b"ok"]
            assert await read(transport, request) == b"ok"
            await anyio.sleep(0.2)
            assert open_now == {0, 1}
        await anyio.sleep(0.05)
        assert (open_now, transport.statistics().idle) == ({0}, 1)


async def test_an_idle_connection_that_the_server_closes_leaves_the_gauge() -> None:
    async def handler(wire: Wire) -> None:
        await wire.request()
        await wire.answer(200, body=b"ok")
        await anyio.sleep(0.05)

    async with serve(handler) as server, FastTransport() as transport:
        assert await read(transport, Request("GET", server.url)) == b"ok"
        assert transport.statistics().idle == 1
        await anyio.sleep(0.1)
        assert transport.statistics().idle == 0


async def test_a_connection_that_ended_under_its_reader_is_not_laid_back() -> None:
    async def handler(wire: Wire) -> None:
        await wire.request()
        await wire.answer(200, body=b"ok")

    async with serve(handler) as server, FastTransport() as transport:
        async with transport.send(Request("GET", server.url)) as response:
            assert [chunk async for chunk in response.body] == [b"ok"]
            await anyio.sleep(0.05)
        assert (transport.statistics().busy, transport.statistics().idle) == (0, 0)


async def test_a_connection_that_ends_before_it_is_asked_sent_nothing() -> None:
    connection, transport = scripted()
    connection.eof_received()
    with anyio.fail_after(3), pytest.raises(TransportError, match="broke before an answer to POST") as caught:
        await connection.ask("POST", b"POST / HTTP/1.1\r\n\r\n", None)
    assert not caught.value.request_sent
    assert transport.unsent == 0


async def test_leaving_closes_what_is_idle_at_once_and_what_is_in_use_later() -> None:
    async with serve(echo) as server:
        transport = FastTransport()
        async with transport:
            await read(transport, Request("GET", server.url))
            sending = transport.send(Request("POST", server.url, (), b"x"))
            response = await sending.__aenter__()
        assert transport.statistics().busy == 1
        assert [chunk async for chunk in response.body] == [b"x"]
        await sending.__aexit__(None, None, None)
        assert (transport.statistics().busy, transport.statistics().idle) == (0, 0)


async def test_who_waits_for_a_connection_when_it_is_left_is_told() -> None:
    async with serve(echo) as server:
        request = Request("GET", server.url)
        async with FastTransport(max_connections=1) as transport:
            sending = transport.send(request)
            await sending.__aenter__()
            waiting = asyncio.ensure_future(read(transport, request))
            await anyio.sleep(0.01)
        await sending.__aexit__(None, None, None)
        with pytest.raises(RuntimeError, match="was left while"):
            await waiting
        assert (transport.statistics().busy, transport.statistics().opened) == (0, 1)


async def test_who_stops_waiting_for_a_connection_leaves_the_row_at_once() -> None:
    """Also in the very moment in which it would have been its turn."""
    async with serve(echo) as server, FastTransport(max_connections=1) as transport:
        request = Request("GET", server.url)
        sending = transport.send(request)
        await sending.__aenter__()
        gone, last = (asyncio.ensure_future(read(transport, request)) for _ in range(2))
        await anyio.sleep(0.01)
        assert transport.statistics().waiting == 2
        gone.cancel()
        await anyio.sleep(0.01)
        assert transport.statistics().waiting == 1
        late = asyncio.ensure_future(read(transport, request))
        await anyio.sleep(0.01)
        last.cancel()
        await sending.__aexit__(None, None, None)
        assert await late == b"ok"
        figures = transport.statistics()
        assert (figures.busy, figures.waiting) == (0, 0)


async def test_another_event_loop_is_refused() -> None:
    async with serve(echo) as server, FastTransport() as transport:
        request = Request("GET", server.url)
        await read(transport, request)

        def elsewhere() -> None:
            asyncio.run(read(transport, request))

        with pytest.raises(RuntimeError, match="another event loop"):
            await anyio.to_thread.run_sync(elsewhere)
        assert (transport.statistics().busy, transport.statistics().idle) == (0, 1)


async def test_a_lost_connection_is_freed_without_the_garbage_collector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its buffers are large, and a server that closes after each answer makes many."""
    made: list[weakref.ref[LoopConnection]] = []

    class Seen(LoopConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(weakref.ref(self))
            super().connection_made(transport)

    async def handler(wire: Wire) -> None:
        await wire.request()
        await wire.answer(200, [("Connection", "close")], b"ok")

    monkeypatch.setattr(connecting, "LoopConnection", Seen)
    async with serve(handler) as server, FastTransport() as transport:
        gc.disable()
        try:
            for _ in range(3):
                assert await read(transport, Request("GET", server.url)) == b"ok"
            await anyio.sleep(0.02)
            assert [one() for one in made] == [None] * 3
        finally:
            gc.enable()


async def test_a_lost_connection_leaves_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[asyncio.TimerHandle] = []
    loop = asyncio.get_running_loop()
    call_at = loop.call_at

    def recorded(when: float, *rest: Any, **options: Any) -> asyncio.TimerHandle:
        timer = call_at(when, *rest, **options)
        if when > loop.time() + 4000:
            timers.append(timer)
        return timer

    monkeypatch.setattr(loop, "call_at", recorded)
    async with serve(echo) as server:
        async with FastTransport(stall_timeout=5000) as transport:
            for _ in range(3):
                assert await read(transport, Request("GET", server.url)) == b"ok"
            assert [timer.cancelled() for timer in timers] == [False]  # one does for many waits
        await anyio.sleep(0.02)
        assert timers[0].cancelled()


async def test_a_connection_that_was_closed_is_not_taken_for_a_quiet_one() -> None:
    """Its socket is still open until the loop comes to it."""
    own, other = socket.socketpair()
    with own, other:
        own.setblocking(False)
        connection = LoopConnection(
            Origin("http", "host", 80), own, LlhttpAnswer(), stall_seconds=5, on_lost=lambda _connection: None
        )
        assert connection.is_quiet()
        connection.abort()
        assert not connection.is_quiet()


async def test_an_ipv6_address_is_reached() -> None:
    hosts: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        hosts.extend(line for line in lines if line.lower().startswith(b"host:"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(answer, "::1", 0)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    async with server, FastTransport() as transport:
        port = server.sockets[0].getsockname()[1]
        assert await read(transport, Request("GET", f"http://[::1]:{port}/")) == b"ok"
        assert hosts == [b"host: [::1]:%d" % port]


async def test_small_pieces_are_not_delayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nagle's algorithm would hold the second write back until the first was acknowledged."""
    delayed: list[bool] = []

    class Seen(LoopConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            own = transport.get_extra_info("socket")
            delayed.append(not own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            super().connection_made(transport)

    monkeypatch.setattr(connecting, "LoopConnection", Seen)
    async with serve(echo) as server, FastTransport() as transport:
        await read(transport, Request("GET", server.url))
    assert delayed == [False]


async def test_a_name_with_a_dead_address_is_reached_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.2 refuses, 127.0.0.1 answers; where none does, the caller is told."""
    addresses: list[str] = []

    async def getaddrinfo(host: str, port: int, **_options: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    async with serve(echo) as server:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        request = Request("GET", f"http://media.example:{server.port}/")
        for given in (["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"], ["127.0.0.1", "127.0.0.1"]):
            addresses[:] = given
            async with FastTransport() as transport:
                assert await read(transport, request) == b"ok"
        addresses[:] = ["127.0.0.2", "127.0.0.3"]
        async with FastTransport() as transport:
            with pytest.raises(TransportError, match=r"Connecting to http://media\.example") as caught:
                await read(transport, request)
            assert not caught.value.request_sent


async def test_a_host_name_that_is_none_is_a_fault() -> None:
    async with FastTransport() as transport:
        for host in ("a" * 70, "a..b"):
            with pytest.raises(TransportError, match="Connecting to") as caught:
                await read(transport, Request("GET", f"http://{host}:1/"))
            assert not caught.value.request_sent


async def test_connecting_is_given_up_in_time() -> None:
    """A listener whose backlog is full takes no further connection."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        async with FastTransport(connect_timeout=0.2) as transport:
            with anyio.fail_after(3), pytest.raises(TransportError, match="did not answer in time") as caught:
                await read(transport, Request("GET", f"http://127.0.0.1:{listener.getsockname()[1]}/"))
            assert not caught.value.request_sent
            assert transport.statistics().busy == 0


# ── one exchange ─────────────────────────────────────────────────────────────


async def test_an_early_answer_survives_the_reset_behind_it() -> None:
    """Both lie in the kernel when the next piece is written, which fails, and asyncio forgets what it has not read."""

    async def body() -> AsyncGenerator[bytes, None]:
        yield b"x" * 65536
        time.sleep(0.3)  # noqa: ASYNC251 - a source that is read in a blocking way
        yield b"x" * MIB
        yield b"x" * MIB

    answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large"
    with resetting_server(answer) as url:
        async with FastTransport() as transport:
            request = Request("PUT", url, (), body(), 65536 + 2 * MIB)
            async with transport.send(request) as response:
                assert response.status == 413
                assert b"".join([chunk async for chunk in response.body]) == b"too large"
            assert transport.statistics().idle == 0


async def test_nothing_is_sent_again_after_a_byte_of_an_answer() -> None:
    async def handler(wire: Wire) -> None:
        await wire.request()
        await wire.answer(200)
        await wire.request()
        await wire.stream.send(b"HTTP/1.1 2")
        await wire.reset()

    async with serve(handler) as server, FastTransport() as transport:
        await read(transport, Request("GET", server.url))
        with pytest.raises(TransportError, match="broke before an answer to GET"):
            await read(transport, Request("GET", server.url))
        assert len(server.requests) == 2


async def test_a_slow_server_holds_the_source_back() -> None:
    """A body that goes out is not gathered, and goes on once the server does."""
    goes_on = threading.Event()
    given: list[int] = []
    whole = 48 * MIB

    def run() -> None:
        connection, _ = listener.accept()
        with connection:
            goes_on.wait(5)
            came = 0
            while came < whole and (piece := connection.recv(MIB)):
                came += len(piece)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nall")
            while connection.recv(MIB):
                pass

    async def body() -> AsyncGenerator[bytes, None]:
        for _ in range(whole // 65536):
            given.append(65536)
            yield b"x" * 65536

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        thread = threading.Thread(target=run)
        thread.start()
        async with FastTransport() as transport:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            upload = asyncio.ensure_future(read(transport, Request("PUT", url, (), body(), whole)))
            await anyio.sleep(0.3)
            assert sum(given) < whole / 2  # the kernel's buffers hold some megabytes
            goes_on.set()
            with anyio.fail_after(20):
                assert await upload == b"all"
            assert sum(given) == whole
        thread.join()


@pytest.mark.parametrize("unasked", [b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 6\r\n\r\npoison", b""])
async def test_what_came_unasked_is_no_answer_to_what_is_asked_next(unasked: bytes) -> None:
    """It, or the end, lies in the kernel when the next request begins, and the loop has not looked yet."""
    left, come = threading.Event(), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(5)

    def run() -> None:
        with listener:
            first, _ = listener.accept()
            with first:
                first.recv(1024)
                first.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst")
                left.wait(5)
                first.sendall(unasked)
                if not unasked:
                    first.shutdown(socket.SHUT_WR)
                time.sleep(0.02)
                come.set()
                second, _ = listener.accept()
                with second:
                    second.recv(1024)
                    second.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond")

    thread = threading.Thread(target=run)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with FastTransport() as transport:
        assert await read(transport, Request("POST", url)) == b"first"
        left.set()
        come.wait(5)
        assert await read(transport, Request("POST", url)) == b"second"
        assert transport.statistics().opened == 2
    thread.join()


async def test_silence_on_a_kept_connection_is_not_sent_again() -> None:
    async def handler(wire: Wire) -> None:
        await wire.request()
        await wire.answer(200)
        await wire.request()
        await anyio.sleep(5)

    async with serve(handler) as server, FastTransport(stall_timeout=0.2) as transport:
        await read(transport, Request("GET", server.url))
        with pytest.raises(TransportError, match="silent for too long"):
            await read(transport, Request("GET", server.url))
        assert len(server.requests) == 2


class SlowlyTaken(asyncio.Transport):
    """A transport whose other side takes so little that asyncio does not tell."""

    def __init__(self) -> None:
        super().__init__()
        self.unsent = 0
        self.pauses: list[bool] = []

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.unsent += len(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.unsent = 0

    def pause_reading(self) -> None:
        self.pauses.append(True)

    def resume_reading(self) -> None:
        self.pauses.append(False)


def scripted() -> tuple[LoopConnection, SlowlyTaken]:
    """A connection in the hands of the test, which plays the event loop's part."""
    with socket.socket() as unused:
        connection = LoopConnection(
            Origin("http", "host", 80),
            unused,
            LlhttpAnswer(),
            stall_seconds=5,
            on_lost=lambda _connection: None,
        )
    transport = SlowlyTaken()
    connection.connection_made(transport)
    return connection, transport


def receive(connection: LoopConnection, data: bytes) -> None:
    """As the event loop does."""
    while data:
        view = connection.get_buffer(-1)
        piece, data = data[: len(view)], data[len(view) :]
        view[: len(piece)] = piece
        connection.buffer_updated(len(piece))


async def test_a_slow_reader_stops_and_starts_the_server_now_and_then() -> None:
    """At 256 KiB that nobody has read, and again below 64 KiB: not at each piece."""
    connection, transport = scripted()
    transport.unsent = -len(b"GET")
    asking = asyncio.ensure_future(connection.ask("GET", b"GET", None))
    await anyio.lowlevel.checkpoint()
    receive(connection, b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n")
    await asking
    for _ in range(30):
        receive(connection, b"x" * 10_000)
    assert transport.pauses == [True]
    got = 0
    while got < 230_000:
        got += len(await connection.read())
    assert transport.pauses == [True]
    got += len(await connection.read())
    assert (transport.pauses, got) == ([True, False], 240_000)
    receive(connection, b"x" * 100_000)
    while got < 400_000:
        got += len(await connection.read())
    with pytest.raises(StopAsyncIteration):
        await connection.read()
    assert connection.finish()


async def test_an_upload_that_moved_once_and_no_more_is_silent() -> None:
    with socket.socket() as unused:
        connection = LoopConnection(
            Origin("http", "host", 80),
            unused,
            LlhttpAnswer(),
            stall_seconds=0.1,
            on_lost=lambda _connection: None,
        )
    transport = SlowlyTaken()
    connection.connection_made(transport)
    asking = asyncio.ensure_future(connection.ask("PUT", b"x" * 1000, None))
    await anyio.sleep(0.05)
    transport.unsent -= 1
    with anyio.fail_after(2), pytest.raises(TransportError, match="silent for too long"):
        await asking


async def test_an_upload_that_never_waits_still_sees_the_answer() -> None:
    """A source and a socket that are always ready keep nobody from the loop, and no more is sent than was needed."""
    connection, _transport = scripted()
    taken: list[int] = []

    async def body() -> AsyncGenerator[bytes, None]:
        for number in range(100):
            taken.append(number)
            yield b"x"

    asking = asyncio.ensure_future(connection.ask("PUT", b"PUT", body()))
    for _ in range(5):
        await anyio.lowlevel.checkpoint()
    so_far = len(taken)
    assert 1 < so_far < 25  # four pieces, then others
    receive(connection, b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    await asking
    assert connection.answer.status == 413
    assert len(taken) <= so_far + 1
    assert not connection.finish()


@pytest.mark.parametrize("what", ["paused", "unsent"])
async def test_a_whole_answer_is_not_enough_to_use_a_connection_again(what: str) -> None:
    """Not while nothing can be read from it, nor while a part of the request is still to go out."""
    connection, transport = scripted()
    transport.unsent = -len(b"GET") + (what == "unsent")
    asking = asyncio.ensure_future(connection.ask("GET", b"GET", None))
    await anyio.lowlevel.checkpoint()
    length = 300_000 if what == "paused" else 5
    receive(connection, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + b"x" * length)
    await asking
    assert connection.answer.is_complete
    assert transport.pauses == [True] * (what == "paused")
    assert not connection.finish()


@pytest.mark.parametrize("is_taken", [True, False])
@pytest.mark.parametrize("is_encrypted", [True, False])
async def test_an_upload_that_is_taken_bit_by_bit_is_not_silent(is_taken: bool, is_encrypted: bool) -> None:
    """Over TLS the bytes soon lie in the transport below, and what the upper one holds stays as it is."""
    transport = SlowlyTaken()
    lost: list[LoopConnection] = []
    with socket.socket() as unused:
        connection = LoopConnection(
            Origin("http", "host", 80), unused, LlhttpAnswer(), stall_seconds=0.1, on_lost=lost.append
        )
    connection.connection_made(transport)
    taker = transport
    if is_encrypted:
        connection.connection_made(SlowlyTaken())
        taker.unsent = MIB
    connection.pause_writing()

    async def body() -> AsyncGenerator[bytes, None]:
        for _ in range(2):
            yield b"x" * MIB

    asking = asyncio.ensure_future(connection.ask("PUT", b"PUT / HTTP/1.1\r\n\r\n", body()))
    for _ in range(20):
        await anyio.sleep(0.02)
        taker.unsent -= is_taken
    if is_taken:
        taker.unsent = 0
        connection.resume_writing()
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        await anyio.lowlevel.checkpoint()
        receive(connection, answer)
        await asking
        assert connection.answer.status == 200
    else:
        with pytest.raises(TransportError, match="silent for too long"):
            await asking
    connection.connection_lost(None)
    assert lost == [connection]


async def test_the_first_connection_header_word_ends_a_head_requests_connection() -> None:
    """HEAD has no body for the parser to end, so its rules are ours: ``close``, HTTP/1.0, keep-alive."""
    answers = {
        "/keep": b"HTTP/1.1 200 OK\r\n\r\n",
        "/close": b"HTTP/1.1 200 OK\r\nConnection: X, Close\r\n\r\n",
        "/old": b"HTTP/1.0 200 OK\r\n\r\n",
        "/old-keep": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n",
    }

    async def handler(wire: Wire) -> None:
        while True:
            await wire.stream.send(answers[(await wire.request()).target])

    for path, idle in (("/keep", 1), ("/close", 0), ("/old", 0), ("/old-keep", 1)):
        async with serve(handler) as server, FastTransport() as transport:
            assert await read(transport, Request("HEAD", server.url + path)) == b""
            assert transport.statistics().idle == idle, path


async def test_an_offer_of_another_protocol_is_not_taken() -> None:
    """Apache offers h2c in plain answers."""

    async def handler(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.answer(200, [("Upgrade", "h2,h2c"), ("Connection", "Upgrade")], b"ok")

    async with serve(handler) as server, FastTransport() as transport:
        for _ in range(2):
            assert await read(transport, Request("GET", server.url)) == b"ok"
        assert transport.statistics().opened == 1


@pytest.mark.parametrize("said", [b"", b"Upgrade: websocket\r\nConnection: Upgrade\r\n"])
async def test_another_protocol_is_refused(said: bytes) -> None:
    async def handler(wire: Wire) -> None:
        await wire.request()
        await wire.stream.send(b"HTTP/1.1 101 Switching Protocols\r\n%s\r\nhello" % said)
        await anyio.sleep(5)

    async with serve(handler) as server, FastTransport() as transport:
        with pytest.raises(TransportError, match="switched protocols"):
            await read(transport, Request("GET", server.url))
        assert (transport.statistics().busy, transport.statistics().idle) == (0, 0)


async def test_the_deadline_says_whether_anything_was_sent() -> None:
    async def handler(wire: Wire) -> None:
        await wire.request()
        await anyio.sleep(5)

    async with serve(handler) as server, FastTransport(max_connections=1) as transport:
        request = Request("POST", server.url, (), b"x")
        said: list[bool] = []

        async def lose(seconds: float) -> None:
            with pytest.raises(TransportError, match="deadline") as caught:
                async with transport.send(request, deadline_seconds=seconds):
                    pass
            said.append(caught.value.request_sent)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lose, 0.2)
            await anyio.sleep(0.02)
            tasks.start_soon(lose, 0.05)
        assert said == [False, True]


async def test_asyncios_own_cancellation_leaves_nothing_behind() -> None:
    """`Task.cancel` strikes once and at random moments; every slot and connection comes back."""
    rng = random.Random(7)

    async def handler(wire: Wire) -> None:
        while True:
            await wire.request()
            await anyio.sleep(0.001)
            await wire.answer(200, body=b"half", length=8)
            await anyio.sleep(0.001)
            await wire.stream.send(b"done")

    async with serve(handler) as server, FastTransport(max_connections=4) as transport:

        async def one(number: int) -> bytes:
            body = b"x" * (200_000 if number % 2 else 10)
            return await read(transport, Request("POST" if number % 3 else "PUT", server.url, (), body))

        tasks = [asyncio.ensure_future(one(number)) for number in range(300)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(rng.random() * 0.0007)
            for task in rng.choices(tasks, k=3):
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {bytes, asyncio.CancelledError}
        assert {result for result in results if isinstance(result, bytes)} == {b"halfdone"}
        figures = transport.statistics()
        assert (figures.busy, figures.waiting) == (0, 0)
        assert figures.idle <= 4
        whole = await asyncio.gather(*[one(number) for number in range(8)])
        assert whole == [b"halfdone"] * 8
