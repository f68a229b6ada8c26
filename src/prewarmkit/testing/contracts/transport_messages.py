"""What goes out and what comes back: heads and bodies, untouched."""

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

__all__ = ["TransportMessageContract"]


class TransportMessageContract(TransportSuite):
    """Nothing is added, decoded, followed or remembered."""

    async def test_status_headers_and_body_come_as_they_were_sent(self) -> None:
        """Names in lower case, a name that comes twice kept twice."""
        async with serve(echo) as server, self.transport() as transport:
            request = Request("POST", f"{server.url}/p?q=1", (("X-A", "1"),), b"payload")
            async with transport.send(request) as response:
                body = b"".join([chunk async for chunk in response.body])
            assert (response.status, body) == (200, b"payload")
            assert response.header("x-method") == "POST"
            assert [value for name, value in response.headers if name == "x-twice"] == ["a", "b"]

    async def test_target_is_sent_untouched(self) -> None:
        """Nothing is normalised: object keys may hold dot segments, double slashes and any escape."""
        target = "/b/a/../c//d%2Fe%20f+g~/%E2%82%AC?x=%2B&y&z=1%3D"
        async with serve(echo) as server, self.transport() as transport:
            async with transport.send(Request("GET", server.url + target)) as response:
                assert response.status == 200
            assert server.requests[0].target == target

    async def test_no_header_is_added_but_host_and_length(self) -> None:
        """A signed request arrives as it was signed."""
        async with serve(echo) as server, self.transport() as transport:
            async with transport.send(Request("PUT", server.url, (("X-A", "1"),), b"x")):
                pass
            names = {name.lower() for name, _ in server.requests[0].headers}
            assert names - {"connection"} == {"host", "content-length", "x-a"}
            assert server.requests[0].header("host") == f"127.0.0.1:{server.port}"

    async def test_an_iterable_is_sent_with_its_length_and_never_chunked(self) -> None:
        """Empty chunks, which would end a chunked body, do no harm."""
        async with serve(echo) as server, self.transport() as transport:
            request = Request("PUT", server.url, (), pieces(b"ab", b"", b"cd"), 4)
            async with transport.send(request) as response:
                assert b"".join([chunk async for chunk in response.body]) == b"abcd"
            assert server.requests[0].header("content-length") == "4"

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
            Request("GET", "http://127.0.0.1:1/", (("x", "\u20ac"),)),
            Request("GET", "http://127.0.0.1:1/", (("Connection", "close"),)),
            Request("PUT", "http://127.0.0.1:1/", (("Transfer-Encoding", "chunked"),), b"x"),
            Request("PUT", "http://127.0.0.1:1/", (("expect", "100-continue"),), b"x"),
            Request("PUT", "http://127.0.0.1:1/", (("content-length", "5"),), b"x"),
            Request("GET", "http://127.0.0.1:1/", (("content-length", "5"),)),
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

    async def test_a_cookie_is_neither_kept_nor_sent(self) -> None:
        """What an answer wants remembered, its caller may remember."""

        async def handler(wire: Wire) -> None:
            while True:
                await wire.request()
                await wire.answer(200, [("Set-Cookie", "id=1"), ("Set-Cookie", "b=2; Path=/")])

        async with serve(handler) as server, self.transport() as transport:
            for _ in range(2):
                async with transport.send(Request("GET", server.url)) as response:
                    values = [value for name, value in response.headers if name == "set-cookie"]
                    assert values == ["id=1", "b=2; Path=/"]
            assert [request.header("cookie") for request in server.requests] == [None, None]

    async def test_accept_encoding_is_sent_as_given(self) -> None:
        """Once, and none where none was given."""
        async with serve(echo) as server, self.transport() as transport:
            for given in ((), (("Accept-Encoding", "identity"),)):
                await asked_for(transport, Request("GET", server.url, given))
                found = [pair for pair in server.requests[-1].headers if pair[0].lower() == "accept-encoding"]
                assert [value for _, value in found] == [value for _, value in given]

    async def test_an_answer_without_a_body_leaves_the_connection_good(self) -> None:
        """204, 304 and what HEAD brings have none, whatever length their heads tell (RFC 9112, 6.3)."""
        answers = {
            "/204": b"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n",
            "/304": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n",
            "/head": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
            "/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "/empty": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        }

        async def handler(wire: Wire) -> None:
            while True:
                await wire.stream.send(answers[(await wire.request()).target])

        async with serve(handler) as server, self.transport() as transport:
            for path in (*answers, *answers):
                method = "HEAD" if path in {"/head", "/chunked"} else "GET"
                request = Request(method, server.url + path)
                with anyio.fail_after(3):
                    status, body = await asked_for(transport, request)
                assert (str(status), body) == (path[1:] if path[1:].isdecimal() else "200", b"")
            assert server.connections == 1

    async def test_a_note_before_the_answer_is_no_answer(self) -> None:
        """1xx may come any number of times."""

        async def handler(wire: Wire) -> None:
            await wire.request()
            await wire.stream.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
            await wire.stream.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            await wire.answer(200, body=b"whole")

        async with (
            serve(handler) as server,
            self.transport() as transport,
            transport.send(Request("GET", server.url)) as response,
        ):
            assert (response.status, response.header("link")) == (200, None)
            assert b"".join([chunk async for chunk in response.body]) == b"whole"

    async def test_headers_come_as_they_are_meant(self) -> None:
        """Without the blanks round them, empty ones kept, bytes over 127 as Latin-1."""

        async def handler(wire: Wire) -> None:
            await wire.request()
            await wire.stream.send(
                b"HTTP/1.1 200 OK\r\nX-Blank: \t a b \t\r\nX-Empty:\r\nX-After:1\r\nX-Byte: \xe9\r\nContent-Length:0\r\n\r\n"
            )

        async with (
            serve(handler) as server,
            self.transport() as transport,
            transport.send(Request("GET", server.url)) as response,
        ):
            named = [pair for pair in response.headers if pair[0].startswith("x-")]
            assert named == [("x-blank", "a b"), ("x-empty", ""), ("x-after", "1"), ("x-byte", "\xe9")]

    async def test_many_and_large_headers_pass_both_ways(self) -> None:
        """150 of them, and one of 16 KiB, whichever way the bytes fall."""
        many = tuple((f"x-{number}", f"{number}" * 20) for number in range(150))
        large = (("x-large", "v" * 16384),)

        async def handler(wire: Wire) -> None:
            while True:
                request = await wire.request()
                kept = [pair for pair in request.headers if pair[0].lower().startswith("x-")]
                lines = [f"{name}: {value}" for name, value in (*kept, ("Content-Length", "0"))]
                head = "\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode()
                for start in range(0, len(head), 1000):
                    await wire.stream.send(head[start : start + 1000])

        async with serve(handler) as server, self.transport() as transport:
            for headers in (many, large):
                async with transport.send(Request("GET", server.url, headers)) as response:
                    assert tuple(pair for pair in response.headers if pair[0].startswith("x-")) == headers

    async def test_long_heads_without_bodies_do_not_add_up(self) -> None:
        """The bound on a head is one for each answer, not for a connection."""

        async def handler(wire: Wire) -> None:
            while True:
                await wire.request()
                await wire.stream.send(b"HTTP/1.1 204 No Content\r\nX-Long: %s\r\n\r\n" % (b"v" * 20_000))

        async with serve(handler) as server, self.transport() as transport:
            for _ in range(8):
                assert await asked_for(transport, Request("GET", server.url)) == (204, b"")
            assert server.connections == 1

    async def test_an_endless_head_is_a_fault(self) -> None:
        """It is given up, not gathered."""

        async def handler(wire: Wire) -> None:
            await wire.request()
            await wire.stream.send(b"HTTP/1.1 200 OK\r\nX-Endless: ")
            for _ in range(64):
                await wire.stream.send(b"v" * MIB)
            await anyio.sleep(5)

        async with serve(handler) as server, self.transport() as transport:
            with anyio.fail_after(3):
                await fault_of(transport, Request("GET", server.url))

    async def test_what_is_not_http_is_a_fault(self) -> None:
        """Whatever else it may be."""

        async def handler(wire: Wire) -> None:
            await wire.request()
            await wire.stream.send(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
            await anyio.sleep(5)

        async with serve(handler) as server, self.transport() as transport:
            with anyio.fail_after(3):
                fault = await fault_of(transport, Request("GET", f"{server.url}/?sign=s3cret"))
            assert fault.request_sent
            assert "s3cret" not in str(fault)

    async def test_a_body_ends_by_chunks_or_with_the_connection(self) -> None:
        """Trailers are dropped; a chunked body that does not end is a fault."""
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        answers = {
            "/whole": head + b"4\r\nwhol\r\n1;ext=1\r\ne\r\n0\r\nX-Trailer: 1\r\n\r\n",
            "/cut": head + b"4\r\nwhol\r\n9\r\ne",
            "/until-the-end": b"HTTP/1.0 200 OK\r\n\r\nwhole",
        }

        async def handler(wire: Wire) -> None:
            await wire.stream.send(answers[(await wire.request()).target])

        async with serve(handler) as server, self.transport() as transport:
            for path in ("/whole", "/until-the-end"):
                async with transport.send(Request("GET", server.url + path)) as response:
                    assert b"".join([chunk async for chunk in response.body]) == b"whole"
                    assert response.header("x-trailer") is None
            await fault_of(transport, Request("GET", f"{server.url}/cut"))

    async def test_a_coding_that_is_not_taken_off_is_a_fault(self) -> None:
        """Else the caller would take coded bytes for the object's."""
        for coding in ("gzip", "gzip, chunked"):

            async def handler(wire: Wire, *, coding: str = coding) -> None:
                await wire.request()
                await wire.stream.send(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n4\r\nwhat\r\n0\r\n\r\n"
                    % coding.encode()
                )

            async with serve(handler) as server, self.transport() as transport:
                await fault_of(transport, Request("GET", server.url))

    async def test_a_slow_reader_holds_the_server_back(self) -> None:
        """A body is never gathered ahead of who reads it."""
        sent: list[int] = []

        async def handler(wire: Wire) -> None:
            await wire.request()
            await wire.stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (96 * MIB))
            for _ in range(96):
                await wire.stream.send(b"x" * MIB)
                sent.append(MIB)

        async with (
            serve(handler) as server,
            self.transport() as transport,
            transport.send(Request("GET", server.url)) as response,
        ):
            await anext(response.body)
            await anyio.sleep(0.3)
            assert sum(sent) < 48 * MIB  # the kernel's buffers hold some megabytes
            got = 0
            async for chunk in response.body:
                got += len(chunk)
            assert 95 * MIB < got < 96 * MIB

    async def test_a_body_is_read_inside_its_context_only(self) -> None:
        """Outside the connection is another's: nothing comes, and it does not look like a whole body."""
        async with serve(echo) as server, self.transport() as transport:
            async with transport.send(Request("POST", server.url, (), b"x" * 100)) as response:
                pass
            refused = False
            try:
                with anyio.fail_after(3):
                    await anext(response.body)
            except (TransportError, RuntimeError):
                refused = True
            assert refused
            assert await asked_for(transport, Request("POST", server.url, (), b"y")) == (200, b"y")
