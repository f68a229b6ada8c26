"""The fault proxy breaks what it is told to, where it is told to, and nothing else; httpx and bare sockets judge."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, get_args
from xml.etree import ElementTree as ET

import anyio
import anyio.abc
import httpx
import pytest

from prewarmkit.testing import Fault, FaultProxy, faults
from prewarmkit.testing.faults import Answer, Exchange, ProxiedRequest, Stage, Strike
from prewarmkit.testing.processes import free_ports
from prewarmkit.testing.wire import ScriptedServer, Wire, serve

pytestmark = pytest.mark.anyio

BODY = b"0123456789" * 100
STAGES: tuple[Stage, ...] = get_args(Stage)
LONG = b"x" * 8 * 1024 * 1024


async def tells(wire: Wire) -> None:
    """Answers every request with BODY, or by what its path says."""
    while True:
        request = await wire.request()
        match request.target.partition("?")[0]:
            case "/none":
                await wire.stream.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            case "/chunks":
                head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                await wire.stream.send(head + b"4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n")
            case "/torn":
                await wire.answer(200, body=BODY[:10], length=20)
                return
            case "/early":
                await wire.answer(403, [("Connection", "close")], b"no")
                return
            case "/silent":
                return
            case _ if request.method == "HEAD":
                await wire.answer(200, length=len(BODY))
            case _:
                await wire.answer(200, [("ETag", '"e"'), ("X-Odd-Case", "yes")], BODY)


Opened = tuple[FaultProxy, ScriptedServer, httpx.AsyncClient]


@asynccontextmanager
async def opened(handler: Callable[[Wire], Awaitable[None]] = tells) -> AsyncGenerator[Opened, None]:
    """The proxy before a server, and a client of the proxy; at the end no connection is left."""
    async with serve(handler) as server, FaultProxy.before(server.url) as proxy:
        async with httpx.AsyncClient(base_url=proxy.url, timeout=5) as client:
            yield proxy, server, client
        await proxy.wait_closed()
        assert proxy.connections == proxy.statistics().connections == 0


@asynccontextmanager
async def connected(proxy: FaultProxy) -> AsyncGenerator[anyio.abc.SocketStream, None]:
    """A bare connection to the proxy."""
    async with await anyio.connect_tcp("127.0.0.1", proxy.port) as stream:
        yield stream


async def read_to_end(stream: anyio.abc.SocketStream) -> tuple[bytes, str]:
    """All that comes, and whether it ended by a FIN or by a RST."""
    got = b""
    with anyio.fail_after(5):
        while True:
            try:
                got += await stream.receive()
            except anyio.EndOfStream:
                return got, "close"
            except anyio.BrokenResourceError:
                return got, "reset"


async def asked(
    proxy: FaultProxy, request: bytes = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
) -> tuple[bytes, str]:
    """What a bare request gets, and how its connection ends."""
    async with connected(proxy) as stream:
        await stream.send(request)
        return await read_to_end(stream)


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while True:
            if condition():
                return
            await anyio.sleep(0.001)


def only(proxy: FaultProxy) -> Exchange:
    [exchange] = proxy.log
    return exchange


# ── without a fault ──────────────────────────────────────────────────────────


async def test_it_passes_on_what_it_is_not_told_to_break() -> None:
    async with opened() as (proxy, server, client):
        put = await client.put("/a%2Fb%20c?q=%C3%BC&flag", content=LONG, headers={"X-Odd-Case": "v"})
        assert (put.content, put.headers["etag"]) == (BODY, '"e"')
        assert (await client.get("/chunks")).content == b"0123456789"
        assert (await client.get("/none")).status_code == 204
        assert (await client.head("/")).headers["content-length"] == "1000"
        assert (await client.get("/")).content == BODY

        assert server.requests[0].target == "/a%2Fb%20c?q=%C3%BC&flag"
        assert server.requests[0].body == LONG
        assert ("X-Odd-Case", "v") in server.requests[0].headers
        assert (b"X-Odd-Case", b"yes") in put.headers.raw
        assert [exchange.outcome for exchange in proxy.log] == ["answered"] * 5
        assert [exchange.request.nth for exchange in proxy.log] == [0, 1, 2, 3, 4]
        assert {exchange.request.connection for exchange in proxy.log} == {0}
        first = proxy.log[0]
        assert (first.up_bytes, first.down_bytes, first.status, first.fault) == (len(LONG), 1000, 200, None)
        assert (first.request.path, first.request.query) == ("/a/b c", {"q": "ü", "flag": ""})
        assert first.request.header("x-ODD-case") == "v"
        figures = proxy.statistics()
        assert (figures.connections, figures.opened, figures.requests, figures.faults) == (1, 1, 5, 0)


async def test_requests_that_were_sent_ahead_are_answered_in_turn() -> None:
    async with opened() as (proxy, _, _client):
        one = b"GET /chunks HTTP/1.1\r\nHost: h\r\n\r\n"
        got, ending = await asked(proxy, one + one + one.replace(b"Host", b"Connection: close\r\nHost"))
        assert (got.count(b"HTTP/1.1 200 OK"), ending) == (3, "close")


async def test_an_early_refusal_gets_through_while_the_body_is_still_on_its_way() -> None:
    """The server answers after the head, without reading the body."""

    async def refuses(wire: Wire) -> None:
        await wire.head()
        await wire.answer(403, [("Connection", "close")], b"no")
        with anyio.move_on_after(0.5):
            while True:
                await wire.stream.receive()

    async with opened(refuses) as (proxy, _, _client), connected(proxy) as stream:
        await stream.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 1000)
        got, ending = await read_to_end(stream)
        assert got.endswith(b"no")
        assert ending == "close"


async def test_a_client_that_asks_before_it_sends_is_told_to_go_on() -> None:
    """By the server, whose 100 is passed on, or by the proxy where that answers itself."""

    async def cautious(wire: Wire) -> None:
        await wire.head()
        await wire.stream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await wire.stream.receive() == b"12345"
        await wire.answer(200, [("Connection", "close")])

    head = (
        b"PUT / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    )
    async with opened(cautious) as (proxy, _, _client):
        for status in (200, 500):
            async with connected(proxy) as stream:
                await stream.send(head)
                assert await stream.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
                await stream.send(b"12345")
                got, _ = await read_to_end(stream)
                assert got.startswith(b"HTTP/1.1 %d " % status)
            proxy.next(Fault.answers(500))


async def test_a_server_that_breaks_breaks_for_the_client_too() -> None:
    async with opened() as (proxy, _, client):
        with pytest.raises(httpx.RemoteProtocolError, match="received 10 bytes, expected 20"):
            await client.get("/torn")
        with pytest.raises(httpx.RemoteProtocolError, match="disconnected"):
            await client.get("/silent")
        assert [exchange.outcome for exchange in proxy.log] == ["cut", "cut"]
        assert not any(exchange.has_struck for exchange in proxy.log)


async def test_without_a_server_the_client_is_told() -> None:
    [port] = free_ports(1)
    async with FaultProxy("127.0.0.1", port) as proxy, httpx.AsyncClient(base_url=proxy.url) as client:
        assert (await client.put("/", content=b"x")).status_code == 502
        proxy.next(Fault.duplicate())
        assert (await client.get("/")).status_code == 502
        assert [exchange.outcome for exchange in proxy.log] == ["no upstream", "no upstream"]


async def test_what_is_no_http_is_refused() -> None:
    async with opened() as (proxy, server, _):
        got, _ = await asked(proxy, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 400 ")
        assert server.requests == []


# ── the connection ───────────────────────────────────────────────────────────


@pytest.mark.parametrize("ending", ["reset", "close"])
@pytest.mark.parametrize("after", [0, 1, 700, 1000])
async def test_an_answer_is_cut_to_the_byte(ending: str, after: int) -> None:
    async with opened() as (proxy, _, client):
        fault = getattr(Fault, ending)("answer body", after=after)
        proxy.next(fault)
        got, ended = await asked(proxy)
        head, _, body = got.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert (body, ended) == (BODY[:after], ending)
        exchange = only(proxy)
        assert (exchange.fault, exchange.has_struck, exchange.outcome) == (fault, True, "cut")
        assert (exchange.status, exchange.down_bytes) == (200, after)
        assert (await client.get("/")).content == BODY


@pytest.mark.parametrize("ending", ["reset", "close"])
async def test_a_head_is_cut_to_the_byte(ending: str) -> None:
    async with opened() as (proxy, server, _):
        for after in (0, 9):
            proxy.next(getattr(Fault, ending)("answer head", after=after))
            assert await asked(proxy) == (b"HTTP/1.1 200 OK"[:after], ending)
        assert len(server.requests) == 2
        assert [exchange.status for exchange in proxy.log] == [None, 200]


@pytest.mark.parametrize("ending", ["reset", "close"])
async def test_a_request_is_cut_to_the_byte(ending: str) -> None:
    """The server gets so much and no more; the client gets no answer."""
    got: list[bytes] = []

    async def listens(wire: Wire) -> None:
        await wire.head()
        try:
            while True:
                got.append(await wire.stream.receive())
        except anyio.EndOfStream:
            got.append(b"close")
        except anyio.BrokenResourceError:
            got.append(b"reset")

    async with opened(listens) as (proxy, _, _client):
        proxy.next(getattr(Fault, ending)("request body", after=70_000))
        async with connected(proxy) as stream:
            with suppress(anyio.BrokenResourceError):
                await stream.send(
                    b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + LONG[:100_000]
                )
            assert (await read_to_end(stream))[0] == b""
        assert only(proxy).up_bytes == 70_000
    assert got[-1] == ending.encode()
    assert sum(map(len, got[:-1])) <= 70_000  # what stood in the first segment, `head` has
    assert ending == "reset" or sum(map(len, got[:-1])) > 0


async def test_a_request_whose_head_is_cut_never_arrives() -> None:
    async with opened() as (proxy, server, client):
        proxy.next(Fault.reset("request head"))
        proxy.next(Fault.close("request head", after=20))
        for _ in range(2):
            with pytest.raises(httpx.TransportError):
                await client.get("/")
        assert server.requests == []


async def test_a_place_that_is_never_reached_is_not_struck() -> None:
    async with opened() as (proxy, _, client):
        rule = proxy.always(Fault.reset("answer body", after=1001))
        assert (await client.get("/")).content == BODY
        assert (await client.head("/")).status_code == 200
        assert [exchange.has_struck for exchange in rule.hits] == [False, False]
        assert proxy.statistics().faults == 0


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("act", ["stall", "dribble"])
async def test_what_is_slow_arrives_whole(act: str, stage: Any) -> None:
    """A stall of 0.1 s, or twenty pieces and more with 0.01 s between them."""
    after = 900 if stage == "answer body" else 2
    slow = {
        "stall": Fault.stall(stage, after=after, seconds=0.1),
        "dribble": Fault.dribble(stage, after=after, piece_bytes=4, seconds=0.01),
    }
    async with opened() as (proxy, server, client):
        proxy.next(slow[act])
        started = anyio.current_time()
        answer = await client.put("/", content=BODY[:200], headers={"X-Long": "y" * 50})
        assert anyio.current_time() - started >= 0.1
        assert answer.content == BODY
        assert server.requests[0].body == BODY[:200]
        assert only(proxy).has_struck
        assert (await client.get("/")).content == BODY
        assert proxy.statistics().opened == 1


async def test_a_dribbled_body_comes_in_pieces() -> None:
    async with opened() as (proxy, _, client):
        proxy.next(Fault.dribble("answer body", after=900, piece_bytes=40, seconds=0.02))
        async with client.stream("GET", "/") as answer:
            pieces = [piece async for piece in answer.aiter_raw()]
        assert b"".join(pieces) == BODY
        assert [len(piece) for piece in pieces] == [900, 40, 40, 20]


async def test_a_client_that_hangs_up_in_a_stall_is_noticed() -> None:
    """Also while it is not read from, and some of its body is still unread."""
    async with opened() as (proxy, _, _client):
        for stage in STAGES:
            proxy.next(Fault.stall(stage, after=1, seconds=60))
            async with connected(proxy) as stream:
                await stream.send(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 2000\r\n\r\n" + BODY + BODY)
                await until(lambda: bool(proxy.log) and proxy.log[-1].has_struck)
            await proxy.wait_closed()
            proxy.clear()
        assert [exchange.outcome for exchange in proxy.log] == ["hung up"] * 4


# ── idle connections ─────────────────────────────────────────────────────────


async def test_idle_connections_are_closed_by_a_fault() -> None:
    async with opened() as (proxy, _, _client):
        for ending in ("close", "reset"):
            proxy.next(Fault.close_idle(ending=ending))
            got, ended = await asked(proxy)
            assert got.endswith(BODY)
            assert ended == ending
        assert all(exchange.has_struck and exchange.outcome == "answered" for exchange in proxy.log)


async def test_an_idle_time_that_is_not_reached_closes_nothing() -> None:
    async with opened() as (proxy, _, client):
        proxy.next(Fault.close_idle(30))
        for _ in range(2):
            assert (await client.get("/")).content == BODY
        assert proxy.statistics().opened == 1
        assert not proxy.log[0].has_struck


async def test_idle_connections_are_dropped_by_a_call() -> None:
    async with opened() as (proxy, _, client), connected(proxy) as never_used, connected(proxy) as busy:
        await client.get("/")
        proxy.next(Fault.stall("answer head", seconds=60))
        await busy.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await until(lambda: len(proxy.log) == 2 and proxy.connections == 3)
        await anyio.wait_all_tasks_blocked()
        assert await proxy.drop_idle("reset") == 2
        assert proxy.connections == 1
        assert await read_to_end(never_used) == (b"", "reset")
        assert await proxy.drop_idle() == 0
        assert (await client.get("/")).content == BODY


async def test_a_connection_can_die_as_it_is_used_again() -> None:
    """What a client meets that looked whether it was alive a moment too early."""
    async with opened() as (proxy, server, client):
        proxy.always(Fault.reset("request head"), when=lambda request: request.nth > 0)
        assert (await client.get("/")).content == BODY
        with pytest.raises(httpx.TransportError):
            await client.get("/")
        assert (await client.get("/")).content == BODY
        assert len(server.requests) == 2


# ── the answer ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("retry_after", [None, 1.5, "Wed, 21 Oct 2026 07:28:00 GMT"])
@pytest.mark.parametrize("body", ["xml", "html", "empty", b"{}"])
@pytest.mark.parametrize(
    ("status", "code"), [(500, "InternalError"), (429, "TooManyRequests"), (503, "SlowDown")]
)
async def test_the_proxy_answers_instead(status: int, code: str, body: Any, retry_after: Any) -> None:
    async with opened() as (proxy, server, client):
        given = "SlowDown" if status == 503 else None
        proxy.next(
            Fault.answers(status, body=body, retry_after=retry_after, code=given, headers={"CF-Ray": "r"})
        )
        answer = await client.put("/", content=LONG)
        assert (answer.status_code, answer.headers["cf-ray"]) == (status, "r")
        assert answer.headers.get("retry-after") == (None if retry_after is None else str(retry_after))
        assert abs(parsedate_to_datetime(answer.headers["date"]).timestamp() - time()) < 5
        if body == "xml":
            root = ET.fromstring(answer.content)
            assert (root.tag, root.findtext("Code")) == ("Error", code)
        elif body == "html":
            assert ET.fromstring(answer.content).tag == "html"
            assert answer.headers["content-type"] == "text/html"
        else:
            assert answer.content == (b"" if body == "empty" else body)
        assert server.requests == []
        assert only(proxy).has_struck
        assert (await client.get("/")).content == BODY
        assert proxy.statistics().opened == 1


async def test_its_answer_to_head_has_no_body() -> None:
    async with opened() as (proxy, _, client):
        proxy.next(Fault.answers(500))
        assert (await client.head("/")).status_code == 500
        assert (await client.get("/")).content == BODY
        assert proxy.statistics().opened == 1


async def test_it_answers_early_and_closes() -> None:
    async with opened() as (proxy, server, _):
        proxy.next(Fault.answers(503, body=b"no", reads_body=False))
        async with connected(proxy) as stream:
            await stream.send(
                b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 100_000
            )
            got, ended = await read_to_end(stream)
            assert got.endswith(b"no")
            assert ended == "close"
        assert server.requests == []


async def test_it_may_have_another_clock() -> None:
    async with opened() as (proxy, _, client):
        proxy.next(Fault.time_too_skewed(3600))
        answer = await client.get("/")
        assert answer.status_code == 403
        assert ET.fromstring(answer.content).findtext("Code") == "RequestTimeTooSkewed"
        assert abs(parsedate_to_datetime(answer.headers["date"]).timestamp() - time() - 3600) < 5


async def test_headers_are_replaced_added_and_left_out() -> None:
    async with opened() as (proxy, _, client):
        proxy.next(Fault.headers({"ETag": '"other"', "X-Odd-Case": None, "Content-Range": "bytes 0-1/2"}))
        answer = await client.get("/")
        assert answer.content == BODY
        assert answer.headers.get_list("etag") == ['"other"']
        assert answer.headers["content-range"] == "bytes 0-1/2"
        assert "x-odd-case" not in answer.headers
        assert (await client.get("/")).headers["x-odd-case"] == "yes"


@pytest.mark.parametrize("path", ["/", "/chunks"])
async def test_without_a_length_the_connection_ends_the_body(path: str) -> None:
    async with opened() as (proxy, _, client):
        proxy.next(Fault.headers({"Content-Length": None}))
        answer = await client.get(path)
        assert answer.content == (BODY if path == "/" else b"0123456789")
        assert "content-length" not in answer.headers
        assert "transfer-encoding" not in answer.headers
        await proxy.wait_closed()


@pytest.mark.parametrize(("path", "size"), [("/", 1000), ("/chunks", 10)])
async def test_a_length_may_be_too_long(path: str, size: int) -> None:
    async with opened() as (proxy, _, client):
        proxy.next(Fault.wrong_length(+5))
        with pytest.raises(httpx.RemoteProtocolError, match=f"received {size} bytes, expected {size + 5}"):
            await client.get(path)
        assert only(proxy).has_struck


@pytest.mark.parametrize(("path", "size"), [("/", 1000), ("/chunks", 10)])
async def test_a_length_may_be_too_short_and_the_rest_stands_in_the_connection(path: str, size: int) -> None:
    async with opened() as (proxy, _, client):
        proxy.next(Fault.wrong_length(-5), times=2)
        answer = await client.get(path)
        assert len(answer.content) == size - 5
        async with connected(proxy) as stream:
            await stream.send(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            got = b""
            while not got.endswith(b"56789"):
                got += await stream.receive()
            assert f"content-length: {size - 5}\r\n".encode() in got.lower()
            assert len(got.partition(b"\r\n\r\n")[2]) == size


async def test_an_answer_is_lost_after_the_server_gave_it() -> None:
    async with opened() as (proxy, server, _):
        for ending in ("reset", "close"):
            proxy.next(Fault.lost_answer(ending=ending))
            assert await asked(proxy) == (b"", ending)
        assert len(server.requests) == 2
        assert all(exchange.has_struck and exchange.status is None for exchange in proxy.log)


async def test_a_request_arrives_twice() -> None:
    async with opened() as (proxy, server, client):
        proxy.next(Fault.duplicate())
        assert (await client.put("/", content=LONG)).content == BODY
        assert [request.body for request in server.requests] == [LONG, LONG]
        assert server.requests[0].headers == server.requests[1].headers
        assert only(proxy).has_struck


async def test_several_things_can_go_wrong_at_once() -> None:
    fault = Fault(
        name="half of a page of errors",
        answer=Answer(status=503, body=BODY),
        changes=(("date", None),),
        strike=Strike(act="close", stage="answer body", after=500),
    )
    async with opened() as (proxy, _, _client):
        proxy.next(fault)
        got, ended = await asked(proxy)
        head, _, body = got.partition(b"\r\n\r\n")
        assert (body, ended) == (BODY[:500], "close")
        assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 1000")


# ── the script and the block ─────────────────────────────────────────────────


async def test_rules_are_taken_in_their_order_until_they_are_spent() -> None:
    def of(path: str) -> Callable[[ProxiedRequest], bool]:
        return lambda request: request.path == path

    async with opened() as (proxy, _, client):
        always = proxy.always(Fault.answers(500), when=of("/a"))
        proxy.next(Fault.answers(501), when=of("/a"), times=2)
        proxy.next(Fault.answers(503))
        proxy.next(Fault.answers(502), when=of("/b"))
        statuses = [
            (await client.get(path)).status_code for path in ("/a", "/c", "/a", "/a", "/b", "/b", "/c", "/a")
        ]
        assert statuses == [501, 503, 501, 500, 502, 200, 200, 500]
        assert [exchange.request.number for exchange in always.hits] == [3, 7]
        proxy.clear()
        assert (await client.get("/a")).status_code == 200
        assert len(proxy.log) == 9


async def test_a_connection_that_stays_open_is_told() -> None:
    async with serve(tells) as server, FaultProxy.before(server.url) as proxy, connected(proxy):
        await until(lambda: proxy.connections == 1)
        with pytest.raises(TimeoutError, match=r"1 connections to the proxy are still open after 0\.05 s"):
            await proxy.wait_closed(timeout_seconds=0.05)


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    """Not in a group, with connections open, and the port is given back."""
    proxy = FaultProxy("127.0.0.1", 9)
    with pytest.raises(KeyError, match="mine"):
        async with proxy, connected(proxy):
            raise KeyError("mine")
    with pytest.raises(RuntimeError, match="Enter the FaultProxy first"):
        _ = proxy.url
    async with proxy:
        with pytest.raises(RuntimeError, match="entered already"):
            await proxy.__aenter__()
        assert proxy.url == f"http://127.0.0.1:{proxy.port}"


async def test_leaving_ends_what_is_open() -> None:
    async with serve(tells) as server:
        async with FaultProxy.before(server.url) as proxy:
            proxy.next(Fault.stall("answer head", seconds=60))
            stream = await anyio.connect_tcp("127.0.0.1", proxy.port)
            await stream.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            await until(lambda: bool(server.requests))
        async with stream:
            assert (await read_to_end(stream))[0] == b""


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Fault.reset("head"), "stage must be one of"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        (lambda: Fault.reset("answer body", after=-1), "after must be 0 or more"),
        (lambda: Fault.dribble("answer body", piece_bytes=0), "piece_bytes must be at least 1"),
        (lambda: Strike(act="x", stage="answer body"), "act must be"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        (lambda: Fault.headers({"Content-Length": "5"}), "Fault.wrong_length"),
        (lambda: Fault.headers({"Transfer-Encoding": None}), "proxy's own affair"),
        (lambda: Fault.answers(500, body="json"), "body must be"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        (lambda: Fault.duplicate(0), "copies must be at least 1"),
        (lambda: Fault(name="", answer=Answer(status=500), copies=2), "no server's answer"),
        (
            lambda: Fault(
                name="", answer=Answer(status=500), strike=Strike(act="reset", stage="request body")
            ),
            "strike its answer",
        ),
        (lambda: FaultProxy.before("https://127.0.0.1"), "must be http://host:port"),
        (lambda: FaultProxy("h", 1).next(Fault.duplicate(), times=0), "times must be at least 1"),
    ],
)
async def test_what_makes_no_sense_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_no_repr_holds_what_signs() -> None:
    request = ProxiedRequest("GET", "/?X-Amz-Signature=51gn", (("authorization", "s3cr3t"),), 0, 0, 0)
    assert not re.search("51gn|s3cr3t", repr(Exchange(request, None)))


def test_the_example_in_its_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints what its comments say."""
    text = inspect.getdoc(faults) or ""
    code = textwrap.dedent(text.partition("::\n")[2].partition("\nWhat can go wrong")[0])
    exec(compile(code, "example", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4
    for line, expected in zip(printed, re.findall(r"print\(.*# (.*)", code), strict=True):
        assert expected in line
