"""What every `prewarmkit.transports.Transport` must do, over real sockets.

Subclass, say how one is made, and let pytest collect it under anyio's plugin::

    pytestmark = pytest.mark.anyio

    class TestMyTransport(TransportContract):
        def transport(self):
            return MyTransport()          # an async context manager that gives the transport
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager

import anyio

from prewarmkit.errors import TransportError
from prewarmkit.testing.wire import Wire, serve
from prewarmkit.transports.base import Request, Transport

__all__ = ["TransportContract"]

_MIB = 1024 * 1024


async def _echo(wire: Wire) -> None:
    while True:
        request = await wire.request()
        await wire.answer(
            200, [("X-Method", request.method), ("x-twice", "a"), ("x-twice", "b")], request.body
        )


async def _chunks(*chunks: bytes) -> AsyncGenerator[bytes, None]:
    for chunk in chunks:
        await anyio.lowlevel.checkpoint()
        yield chunk


class TransportContract:
    """The suite. Override `transport`, and the switches where a rule cannot hold."""

    reads_early_answers = True
    """Whether an answer that comes in the middle of a large upload is given, not a write error."""

    def transport(self) -> AbstractAsyncContextManager[Transport]:
        """A fresh transport, entered by the suite."""
        raise NotImplementedError

    async def test_status_headers_and_body_come_as_they_were_sent(self) -> None:
        """Names in lower case, a name that comes twice kept twice."""
        async with serve(_echo) as server, self.transport() as transport:
            request = Request("POST", f"{server.url}/p?q=1", (("X-A", "1"),), b"payload")
            async with transport.send(request) as response:
                body = b"".join([chunk async for chunk in response.body])
            assert (response.status, body) == (200, b"payload")
            assert response.header("x-method") == "POST"
            assert [value for name, value in response.headers if name == "x-twice"] == ["a", "b"]

    async def test_target_is_sent_untouched(self) -> None:
        """Nothing is normalised: object keys may hold dot segments, double slashes and any escape."""
        target = "/b/a/../c//d%2Fe%20f+g~/%E2%82%AC?x=%2B&y&z=1%3D"
        async with serve(_echo) as server, self.transport() as transport:
            async with transport.send(Request("GET", server.url + target)) as response:
                assert response.status == 200
            assert server.requests[0].target == target

    async def test_no_header_is_added_but_host_and_length(self) -> None:
        """A signed request arrives as it was signed."""
        async with serve(_echo) as server, self.transport() as transport:
            async with transport.send(Request("PUT", server.url, (("X-A", "1"),), b"x")):
                pass
            names = {name.lower() for name, _ in server.requests[0].headers}
            assert names - {"connection"} == {"host", "content-length", "x-a"}
            assert server.requests[0].header("host") == f"127.0.0.1:{server.port}"

    async def test_an_iterable_is_sent_with_its_length_and_never_chunked(self) -> None:
        """Empty chunks, which would end a chunked body, do no harm."""
        async with serve(_echo) as server, self.transport() as transport:
            request = Request("PUT", server.url, (), _chunks(b"ab", b"", b"cd"), 4)
            async with transport.send(request) as response:
                assert b"".join([chunk async for chunk in response.body]) == b"abcd"
            assert server.requests[0].header("content-length") == "4"

    async def test_a_body_of_another_length_than_promised_is_an_error_of_the_caller(self) -> None:
        """Too short and too long alike, never padded and never cut."""
        for chunks in ((b"abc",), (b"abc", b"de")):
            async with serve(_echo) as server, self.transport() as transport:
                request = Request("PUT", server.url, (), _chunks(*chunks), 4)
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

        async with serve(_echo) as server, self.transport() as transport:
            raised = False
            try:
                async with transport.send(Request("PUT", server.url, (), body(), 10)):
                    pass
            except KeyError:
                raised = True
            assert raised
            assert closed == [True]

    async def test_redirects_are_not_followed(self) -> None:
        """Credentials must not travel to where an answer points."""

        async def handler(wire: Wire) -> None:
            await wire.request()
            await wire.answer(307, [("Location", "http://127.0.0.1:1/elsewhere")])

        async with serve(handler) as server, self.transport() as transport:
            async with transport.send(Request("GET", server.url)) as response:
                assert response.status == 307
            assert len(server.requests) == 1

    async def test_a_body_is_never_decoded(self) -> None:
        """Lengths and ETags hold for the raw bytes only."""

        async def handler(wire: Wire) -> None:
            await wire.request()
            await wire.answer(200, [("Content-Encoding", "gzip")], b"\x1f\x8bnot really gzip")

        async with (
            serve(handler) as server,
            self.transport() as transport,
            transport.send(Request("GET", server.url)) as response,
        ):
            assert b"".join([chunk async for chunk in response.body]) == b"\x1f\x8bnot really gzip"

    async def test_a_refused_connection_is_a_fault_that_sent_nothing(self) -> None:
        """Sending again is safe, whatever it was; no query is in the message."""
        async with serve(_echo) as server:
            pass
        async with self.transport() as transport:
            fault = await self._fault(transport, Request("GET", f"{server.url}/k?X-Amz-Signature=s3cret"))
            assert not fault.request_sent
            assert fault.is_retryable
            assert "s3cret" not in str(fault)

    async def test_a_server_that_hangs_up_is_a_fault_that_sent_something(self) -> None:
        """The outcome is unknown; no query is in the message."""

        async def handler(wire: Wire) -> None:
            await wire.request()
            await wire.reset()

        async with serve(handler) as server, self.transport() as transport:
            fault = await self._fault(transport, Request("POST", f"{server.url}/?sig=s3cret", (), b"x"))
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
                    fault = await self._fault(
                        transport, Request("GET", f"{server.url}/?sig=s3cret"), deadline_seconds=0.2
                    )
                assert "deadline" in str(fault)
                assert fault.request_sent
                assert "s3cret" not in str(fault)

    async def test_leaving_early_frees_the_connection(self) -> None:
        """However the block is left: before the body, inside it, by an error, by a cancellation."""

        async def handler(wire: Wire) -> None:
            while True:
                await wire.request()
                await wire.answer(200, body=b"x" * _MIB)

        async with serve(handler) as server, self.transport() as transport:
            request = Request("GET", server.url)
            for _ in range(40):
                async with transport.send(request) as response:
                    await anext(response.body)
                async with transport.send(request):
                    pass
                with anyio.move_on_after(0.01):
                    async with transport.send(request) as response:
                        await anext(response.body)
                        await anyio.sleep(5)
            with anyio.fail_after(3):
                async with transport.send(request) as response:
                    assert len(b"".join([chunk async for chunk in response.body])) == _MIB

    async def test_connections_are_used_again(self) -> None:
        """Once a body was read to its end."""
        async with serve(_echo) as server, self.transport() as transport:
            for method in ("GET", "PUT", "GET"):
                async with transport.send(Request(method, server.url)) as response:
                    assert response.status == 200
                    async for _chunk in response.body:
                        pass
            assert server.connections == 1

    async def test_a_connection_that_died_idle_is_not_noticed(self) -> None:
        """The server closes after each answer without having said so."""

        async def handler(wire: Wire) -> None:
            await wire.request()
            await wire.answer(200)
            await wire.close()

        async with serve(handler) as server, self.transport() as transport:
            for _ in range(3):
                async with transport.send(Request("PUT", server.url, (), b"x")) as response:
                    assert response.status == 200
                    assert b"".join([chunk async for chunk in response.body]) == b""
                await anyio.sleep(0.02)

    async def test_an_early_answer_to_a_large_upload_is_given(self) -> None:
        """The server refuses by the head alone, reads nothing more, and closes."""
        if not self.reads_early_answers:
            return

        async def handler(wire: Wire) -> None:
            await wire.head()
            await wire.answer(413, [("Connection", "close")], b"too large")
            await anyio.sleep(0.05)
            await wire.reset()

        for body, length in ((b"x" * 32 * _MIB, None), (_chunks(*[b"x" * 65536] * 512), 32 * _MIB)):
            async with serve(handler) as server, self.transport() as transport:
                request = Request("PUT", server.url, (), body, length)
                async with transport.send(request) as response:
                    assert response.status == 413
                    assert b"".join([chunk async for chunk in response.body]) == b"too large"

    async def test_many_at_once_get_their_own_answers(self) -> None:
        """More callers than connections, and nobody gets another's body."""
        answers: dict[int, bytes] = {}

        async with serve(_echo) as server, self.transport() as transport:

            async def one(number: int) -> None:
                body = str(number).encode() * 1000
                async with transport.send(Request("POST", server.url, (), body)) as response:
                    answers[number] = b"".join([chunk async for chunk in response.body])

            async with anyio.create_task_group() as tasks:
                for number in range(50):
                    tasks.start_soon(one, number)
        assert answers == {number: str(number).encode() * 1000 for number in range(50)}

    async def test_a_malformed_request_is_refused_before_anything_is_sent(self) -> None:
        """A ValueError, for nothing that the network does can mend it."""

        async def nothing() -> AsyncGenerator[bytes, None]:
            yield b""

        bad = (
            Request("GET", "ftp://127.0.0.1/"),
            Request("GET", "/relative"),
            Request("GET", "http://127.0.0.1:1/a b"),
            Request("GET", "http://user:pass@127.0.0.1:1/"),
            Request("GE T", "http://127.0.0.1:1/"),
            Request("GET", "http://127.0.0.1:1/", (("x", "a\r\nevil: 1"),)),
            Request("GET", "http://127.0.0.1:1/", (("x y", "a"),)),
            Request("PUT", "http://127.0.0.1:1/", (), nothing()),
            Request("PUT", "http://127.0.0.1:1/", (), b"abc", 4),
        )
        async with self.transport() as transport:
            for request in bad:
                refused = False
                try:
                    async with transport.send(request):
                        pass
                except ValueError:
                    refused = True
                assert refused, request

    @staticmethod
    async def _fault(
        transport: Transport, request: Request, *, deadline_seconds: float | None = None
    ) -> TransportError:
        try:
            async with transport.send(request, deadline_seconds=deadline_seconds) as response:
                async for _chunk in response.body:
                    pass
        except TransportError as error:
            return error
        raise AssertionError("A TransportError was expected.")
