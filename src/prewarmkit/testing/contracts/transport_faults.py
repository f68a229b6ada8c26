"""What goes wrong on the way: each fault has its error, and nothing is sent twice that must not be."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import anyio

from prewarmkit.errors import TransportError
from prewarmkit.testing.contracts.transport_suite import (
    MIB,
    TransportSuite,
    asked_for,
    echo,
    fault_of,
    pieces,
)
from prewarmkit.testing.wire import Wire, serve
from prewarmkit.transports.base import Request

__all__ = ["TransportFaultContract"]


class TransportFaultContract(TransportSuite):
    """Callers get what they gave, the whole answer, or an error that says how far it got."""

    async def test_a_body_of_another_length_than_promised_is_an_error_of_the_caller(self) -> None:
        """Too short and too long alike, never padded and never cut."""
        for chunks in ((b"abc",), (b"abc", b"de")):
            async with serve(echo) as server, self.transport() as transport:
                request = Request("PUT", server.url, (), pieces(*chunks), 4)
                message = ""
                try:
                    async with transport.send(request):
                        pass
                except ValueError as error:
                    message = str(error)
                assert "content_length" in message

    async def test_an_error_of_the_bodys_iterable_reaches_the_caller(self) -> None:
        """As it was raised; the iterable is closed."""
        closed: list[bool] = []

        async def body() -> AsyncGenerator[bytes, None]:
            try:
                yield b"first"
                raise KeyError("the source broke")
            finally:
                closed.append(True)

        async with serve(echo) as server, self.transport() as transport:
            raised = False
            try:
                async with transport.send(Request("PUT", server.url, (), body(), 10)):
                    pass
            except KeyError:
                raised = True
            assert raised
            assert closed == [True]

    async def test_a_refused_connection_is_a_fault_that_sent_nothing(self) -> None:
        """Sending again is safe, whatever it was; no query is in the message."""
        async with serve(echo) as server:
            pass
        async with self.transport() as transport:
            fault = await fault_of(transport, Request("GET", f"{server.url}/k?X-Amz-Signature=s3cret"))
            assert not fault.request_sent
            assert fault.is_retryable
            assert "s3cret" not in str(fault)

    async def test_a_server_that_hangs_up_is_a_fault_that_sent_something(self) -> None:
        """The outcome is unknown; no query is in the message."""

        async def handler(wire: Wire) -> None:
            await wire.request()
            await wire.reset()

        async with serve(handler) as server, self.transport() as transport:
            fault = await fault_of(transport, Request("POST", f"{server.url}/?sig=s3cret", (), b"x"))
            assert fault.request_sent
            assert "s3cret" not in str(fault)

    async def test_a_body_cut_short_is_a_fault(self) -> None:
        """It never just ends."""

        async def handler(wire: Wire) -> None:
            await wire.request()
            await wire.answer(200, body=b"half", length=8)
            await wire.close()

        async with serve(handler) as server, self.transport() as transport:
            got = b""
            raised = False
            try:
                async with transport.send(Request("GET", server.url)) as response:
                    async for chunk in response.body:
                        got += chunk
            except TransportError:
                raised = True
            assert (raised, got) == (True, b"half")

    async def test_the_deadline_bounds_head_and_body(self) -> None:
        """Silence before the head, and silence inside the body."""

        async def silent(wire: Wire) -> None:
            await wire.request()
            await anyio.sleep(5)

        async def stalls(wire: Wire) -> None:
            await wire.request()
            await wire.answer(200, body=b"half", length=8)
            await anyio.sleep(5)

        for handler in (silent, stalls):
            async with serve(handler) as server, self.transport() as transport:
                with anyio.fail_after(3):
                    fault = await fault_of(
                        transport, Request("GET", f"{server.url}/?sig=s3cret"), deadline_seconds=0.2
                    )
                assert "deadline" in str(fault)
                assert fault.request_sent
                assert "s3cret" not in str(fault)

    async def test_an_early_answer_to_a_large_upload_is_given(self) -> None:
        """The server refuses by the head alone and reads nothing more, whether it then closes or not."""
        if not self.reads_early_answers:
            return

        async def closes(wire: Wire) -> None:
            await wire.head()
            await wire.answer(413, [("Connection", "close")], b"too large")
            await anyio.sleep(0.05)
            await wire.reset()

        async def stays(wire: Wire) -> None:
            await wire.head()
            await wire.answer(413, body=b"too large")
            await anyio.sleep(5)

        for handler in (closes, stays):
            for body, length in ((b"x" * 32 * MIB, None), (pieces(*[b"x" * 65536] * 512), 32 * MIB)):
                async with serve(handler) as server, self.transport() as transport:
                    request = Request("PUT", server.url, (), body, length)
                    with anyio.fail_after(3):
                        assert await asked_for(transport, request) == (413, b"too large")

    async def test_an_answer_to_half_a_request_gives_the_connection_up(self) -> None:
        """The server still waits for the other half, and would take the next request for it."""
        if not self.reads_early_answers:
            return

        async def handler(wire: Wire) -> None:
            await wire.head()
            await wire.answer(200, body=b"early")
            await anyio.sleep(5)

        async def body() -> AsyncGenerator[bytes, None]:
            yield b"half"
            await anyio.sleep(0.1)
            yield b"done"

        async with serve(handler) as server, self.transport() as transport:
            for _ in range(2):
                request = Request("PUT", server.url, (), body(), 8)
                with anyio.fail_after(3):
                    assert await asked_for(transport, request) == (200, b"early")
            assert server.connections == 2

    async def test_silence_is_given_up(self) -> None:
        """Before the head, inside a body, and where nobody takes the request; steady drops and notes are no silence."""

        async def handler(wire: Wire) -> None:
            request = await wire.head()
            if request.target == "/body":
                await wire.answer(200, body=b"half", length=8)
            if request.target == "/notes":
                for _ in range(5):
                    await anyio.sleep(0.2)
                    await wire.stream.send(b"HTTP/1.1 102 Processing\r\n\r\n")
                await wire.answer(200, body=b"noted")
            if request.target == "/drops":
                await wire.stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
                for letter in b"drops":
                    await anyio.sleep(0.2)
                    await wire.stream.send(bytes([letter]))
            await anyio.sleep(5)

        faults: list[TransportError] = []
        steady: dict[str, tuple[int, bytes]] = {}
        async with serve(handler) as server, self.impatient_transport(0.5) as transport:

            async def lose(path: str, body: bytes | None) -> None:
                request = Request("PUT" if body else "GET", server.url + path, (), body)
                faults.append(await fault_of(transport, request))

            async def get(path: str) -> None:
                steady[path] = await asked_for(transport, Request("GET", server.url + path))

            with anyio.fail_after(4):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(lose, "/head", None)
                    tasks.start_soon(lose, "/body", None)
                    tasks.start_soon(lose, "/untaken", b"x" * 32 * MIB)
                    tasks.start_soon(get, "/drops")
                    tasks.start_soon(get, "/notes")
            assert steady == {"/drops": (200, b"drops"), "/notes": (200, b"noted")}
            assert [(fault.request_sent, fault.is_retryable) for fault in faults] == [(True, True)] * 3
            assert self.busy(transport) == 0

    async def test_a_request_that_meets_a_dying_connection_is_sent_again_once(self) -> None:
        """The server reads it and hangs up; on a new connection it is answered, or the second fault is told."""
        for answers_the_second in (True, False):

            async def handler(wire: Wire, *, answers: bool = answers_the_second) -> None:
                await wire.request()
                if wire.number and not answers:
                    return
                await wire.answer(200, body=b"good")
                if not wire.number:
                    await wire.request()  # seen, and dropped

            for method, body in (("GET", None), ("PUT", b"x"), ("PUT", b"x" * MIB)):
                async with serve(handler) as server, self.transport() as transport:
                    request = Request(method, server.url, (), body)
                    assert await asked_for(transport, request) == (200, b"good")
                    if answers_the_second:
                        assert await asked_for(transport, request) == (200, b"good")
                    else:
                        assert (await fault_of(transport, request)).request_sent
                    assert [found.body for found in server.requests] == [body or b""] * 3

    async def test_what_may_not_arrive_twice_is_not_sent_again(self) -> None:
        """No POST, no conditional write, and no body that was read from: the caller is told instead."""
        read: list[int] = []

        async def handler(wire: Wire) -> None:
            await wire.request()
            await wire.answer(200)
            await wire.request()

        async def body() -> AsyncGenerator[bytes, None]:
            read.append(1)
            yield b"x"

        for method, headers in (("POST", ()), ("PUT", (("If-None-Match", "*"),)), ("PUT", ())):
            async with serve(handler) as server, self.transport() as transport:
                await asked_for(transport, Request("GET", server.url))
                given = b"x" if headers or method == "POST" else body()
                fault = await fault_of(transport, Request(method, server.url, headers, given, 1))
                assert fault.request_sent
                assert len(server.requests) == 2
        assert read == [1]

    async def test_a_connection_that_died_long_ago_costs_a_post_nothing(self) -> None:
        """It is seen before anything is sent, so what may not arrive twice goes out on a new one."""

        async def handler(wire: Wire) -> None:
            await wire.request()
            await wire.answer(200)

        async def body() -> AsyncGenerator[bytes, None]:
            yield b"x"

        async with serve(handler) as server, self.transport() as transport:
            for given in (b"x", body(), b"x"):
                status, _ = await asked_for(transport, Request("POST", server.url, (), given, 1))
                assert status == 200
                await anyio.sleep(0.02)
            assert [found.body for found in server.requests] == [b"x"] * 3

    async def test_bytes_after_an_answer_are_not_the_next_one(self) -> None:
        """Else whoever can make a server say too much answers for it."""
        if not self.drops_unasked_bytes:
            return

        for more in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 500 Poison\r\nX-Poison: ",
        ):

            async def handler(wire: Wire, *, more: bytes = more) -> None:
                while True:
                    await wire.request()
                    await wire.stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood" + more)

            async with serve(handler) as server, self.transport() as transport:
                for method in ("GET", "HEAD", "GET", "PUT", "GET"):
                    status, body = await asked_for(transport, Request(method, server.url))
                    assert (status, body) == (200, b"" if method == "HEAD" else b"good")
                assert server.connections == 5

    async def test_an_error_inside_the_block_is_the_callers_own(self) -> None:
        """It comes out as it was raised, and frees the connection."""
        async with serve(echo) as server, self.transport() as transport:
            caught: list[KeyError] = []
            mine = KeyError("mine")

            async def lose() -> None:
                async with transport.send(Request("POST", server.url, (), b"x" * MIB)) as response:
                    await anext(response.body)
                    raise mine

            for _ in range(self.max_connections + 1):
                try:
                    await lose()
                except KeyError as error:
                    caught.append(error)
                assert self.busy(transport) == 0
            assert caught == [mine] * (self.max_connections + 1)

    async def test_the_deadline_and_the_callers_own_end_are_told_apart(self) -> None:
        """The deadline strikes inside the block, too; the caller's error and another's cancellation stay what they are."""
        async with serve(echo) as server, self.transport() as transport:
            request = Request("POST", server.url, (), b"x")

            async def end_of(seconds: float, *, raises: bool, gives_up_after: float = 5) -> str:
                try:
                    with anyio.move_on_after(gives_up_after) as outer:
                        async with transport.send(request, deadline_seconds=seconds):
                            try:
                                await anyio.sleep(0 if raises and seconds > 1 else 5)
                            finally:
                                if raises:
                                    raise KeyError("mine")
                except KeyError:
                    return "mine"
                except TransportError as error:
                    return "deadline" if "deadline" in str(error) else str(error)
                return "outer" if outer.cancelled_caught else "nothing"

            with anyio.fail_after(4):
                assert await end_of(4, raises=True) == "mine"
                assert await end_of(0.1, raises=True) == "mine"
                assert await end_of(0.1, raises=False) == "deadline"
                assert await end_of(4, raises=False, gives_up_after=0.1) == "outer"
            assert self.busy(transport) == 0
            assert await asked_for(transport, request) == (200, b"x")
