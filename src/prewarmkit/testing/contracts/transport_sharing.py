"""Connections: used again, bounded, and free again however an exchange ends."""

from __future__ import annotations

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
from prewarmkit.transports.base import Request, Response, Transport

__all__ = ["TransportSharingContract"]


class TransportSharingContract(TransportSuite):
    """Many callers, few connections, and people who change their minds."""

    async def test_leaving_early_frees_the_connection(self) -> None:
        """However the block is left: before the body, inside it, by an error, by a cancellation."""

        async def handler(wire: Wire) -> None:
            while True:
                await wire.request()
                await wire.answer(200, body=b"x" * MIB)

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
                    assert len(b"".join([chunk async for chunk in response.body])) == MIB

    async def test_who_is_cancelled_already_sends_nothing(self) -> None:
        """Nor does a deadline that has passed: what may not arrive twice is then known not to have arrived."""
        async with serve(echo) as server, self.transport() as transport:
            await asked_for(transport, Request("GET", server.url))
            with anyio.CancelScope() as scope:
                scope.cancel()
                await asked_for(transport, Request("POST", server.url, (), b"x"))
            await fault_of(transport, Request("POST", server.url, (), b"x"), deadline_seconds=0)
            await anyio.sleep(0.05)
            assert [request.method for request in server.requests] == ["GET"]
            assert self.busy(transport) == 0

    async def test_a_body_has_one_reader(self) -> None:
        """A second one is refused, and the first does not notice."""

        async def handler(wire: Wire) -> None:
            await wire.request()
            await wire.answer(200, body=b"half", length=8)
            await anyio.sleep(0.2)
            await wire.stream.send(b"done")

        async with serve(handler) as server, self.transport() as transport:
            got: list[bytes] = []
            refused = False
            async with (
                transport.send(Request("GET", server.url)) as response,
                anyio.create_task_group() as tasks,
            ):

                async def first() -> None:
                    got.extend([chunk async for chunk in response.body])

                tasks.start_soon(first)
                await anyio.sleep(0.05)
                try:
                    await anext(response.body)
                except RuntimeError as error:
                    refused = "Two tasks" in str(error)
            assert (refused, b"".join(got)) == (True, b"halfdone")

    async def test_who_still_reads_when_the_context_is_left_is_told(self) -> None:
        """The reader in another task neither waits for ever nor takes what it has for a whole body."""

        async def handler(wire: Wire) -> None:
            while True:
                await wire.request()
                await wire.answer(200, body=b"half", length=8)
                await anyio.sleep(5)

        async with serve(handler) as server, self.transport() as transport:
            told: list[bool] = []

            async def reader(response: Response) -> None:
                try:
                    async for _chunk in response.body:
                        pass
                except (TransportError, RuntimeError):
                    told.append(True)

            with anyio.fail_after(3):
                async with anyio.create_task_group() as tasks:
                    sending = transport.send(Request("GET", server.url))
                    async with sending as response:
                        tasks.start_soon(reader, response)
                        await anyio.sleep(0.05)
            assert told == [True]
            assert self.busy(transport) == 0

    async def test_connections_are_used_again(self) -> None:
        """Once a body was read to its end."""
        async with serve(echo) as server, self.transport() as transport:
            for method in ("GET", "PUT", "GET"):
                async with transport.send(Request(method, server.url)) as response:
                    assert response.status == 200
                    async for _chunk in response.body:
                        pass
            assert server.connections == 1

    async def test_a_connection_that_the_server_gives_up_is_not_used_again(self) -> None:
        """Even if it stays open for a while: what is sent there may be lost."""
        for answer in (
            b"HTTP/1.1 200 OK\r\nConnection: X, Close\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ):

            async def handler(wire: Wire, *, answer: bytes = answer) -> None:
                while True:
                    await wire.request()
                    await wire.stream.send(answer)

            async with serve(handler) as server, self.transport() as transport:
                for _ in range(3):
                    assert await asked_for(transport, Request("GET", server.url)) == (200, b"ok")
                assert server.connections == 3

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

    async def test_many_at_once_get_their_own_answers(self) -> None:
        """More callers than connections, and nobody gets another's body."""
        answers: dict[int, bytes] = {}

        async with serve(echo) as server, self.transport() as transport:

            async def one(number: int) -> None:
                body = str(number).encode() * 1000
                async with transport.send(Request("POST", server.url, (), body)) as response:
                    answers[number] = b"".join([chunk async for chunk in response.body])

            async with anyio.create_task_group() as tasks:
                for number in range(50):
                    tasks.start_soon(one, number)
        assert answers == {number: str(number).encode() * 1000 for number in range(50)}

    async def test_a_hundred_at_once_share_few_connections(self) -> None:
        """Each gets its own answer; those too many wait, and nobody is left waiting."""
        together: list[int] = []
        now = 0

        async def handler(wire: Wire) -> None:
            nonlocal now
            while True:
                request = await wire.request()
                now += 1
                together.append(now)
                await anyio.sleep(0.005)
                now -= 1
                await wire.answer(200, body=request.target.encode())

        answers: dict[int, tuple[int, bytes]] = {}
        async with serve(handler) as server, self.transport() as transport:

            async def one(number: int) -> None:
                answers[number] = await asked_for(transport, Request("GET", f"{server.url}/{number}"))

            with anyio.fail_after(10):
                async with anyio.create_task_group() as tasks:
                    for number in range(100):
                        tasks.start_soon(one, number)
            assert answers == {number: (200, b"/%d" % number) for number in range(100)}
            assert max(together) <= server.connections <= self.max_connections
            assert self.busy(transport) == 0

    async def test_the_deadline_bounds_the_wait_for_a_connection(self) -> None:
        """Who waits in the row gives up in time, and the row goes on without."""

        async def handler(wire: Wire) -> None:
            while True:
                await wire.request()
                await wire.answer(200, body=b"half", length=8)
                await anyio.sleep(0.3)
                await wire.stream.send(b"done")

        async with serve(handler) as server, self.transport() as transport:
            answers: list[tuple[int, bytes]] = []

            async def one() -> None:
                answers.append(await asked_for(transport, Request("GET", server.url)))

            with anyio.fail_after(5):
                async with anyio.create_task_group() as tasks:
                    for _ in range(self.max_connections + 1):
                        tasks.start_soon(one)
                    await anyio.sleep(0.1)
                    fault = await fault_of(transport, Request("GET", server.url), deadline_seconds=0.1)
                    assert "deadline" in str(fault)
            assert answers == [(200, b"halfdone")] * (self.max_connections + 1)

    async def test_a_cancellation_at_any_moment_leaves_nothing_behind(self) -> None:
        """Before, within and after each step of reads and uploads, alone and in a crowd."""
        open_now = 0

        async def handler(wire: Wire) -> None:
            nonlocal open_now
            open_now += 1
            try:
                while True:
                    await wire.request()
                    await anyio.sleep(0.002)
                    await wire.stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n")
                    await anyio.sleep(0.002)
                    await wire.stream.send(b"\r\nhalf")
                    await anyio.sleep(0.002)
                    await wire.stream.send(b"done")
            finally:
                open_now -= 1

        async with serve(handler) as server:
            async with self.transport() as transport:

                async def one(number: int) -> None:
                    body = pieces(b"a" * 1000, b"b" * 1000) if number % 2 else None
                    request = Request("PUT" if body else "GET", server.url, (), body, 2000 if body else None)
                    with anyio.move_on_after(0.00031 * (number * 7 % 40)):
                        await asked_for(transport, request)

                with anyio.fail_after(20):
                    for number in range(40):
                        await one(number)
                        assert self.busy(transport) == 0
                    async with anyio.create_task_group() as tasks:
                        for number in range(120):
                            tasks.start_soon(one, number)
                    assert self.busy(transport) == 0
                    async with anyio.create_task_group() as tasks:  # no connection is lost for good
                        for _ in range(self.max_connections):
                            tasks.start_soon(self._whole, transport, server.url)
            with anyio.fail_after(3):
                while open_now:  # noqa: ASYNC110 - nobody tells, one must look
                    await anyio.sleep(0.01)

    @staticmethod
    async def _whole(transport: Transport, url: str) -> None:
        async with transport.send(Request("GET", url)) as response:
            assert b"".join([chunk async for chunk in response.body]) == b"halfdone"
