"""Both parsers say the same of an answer, however its bytes come."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from prewarmkit.transports.loop.answer import MAX_HEAD_BYTES, Answer
from prewarmkit.transports.loop.h11 import H11Answer
from prewarmkit.transports.loop.llhttp import LlhttpAnswer

PARSERS = [H11Answer, LlhttpAnswer]


class Said(NamedTuple):
    """What came of an answer."""

    status: int = 0
    body: bytes = b""
    is_complete: bool = False
    keeps_alive: bool = False
    is_overrun: bool = False
    is_refused: bool = False


OK = b"HTTP/1.1 200 OK\r\n"
NOTES = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
GET = {
    "of a length": (OK + b"Content-Length: 5\r\n\r\nhello", Said(200, b"hello", True, True)),
    "empty": (OK + b"Content-Length: 0\r\n\r\n", Said(200, b"", True, True)),
    "in chunks": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=1\r\nde\r\n0\r\nTrailer: 1\r\n\r\n",
        Said(200, b"abcde", True, True),
    ),
    "to the end": (OK + b"\r\nabc", Said(200, b"abc", True)),
    "the last one": (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nab", Said(200, b"ab", True)),
    "of an old server": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", Said(200, b"ab", True)),
    "without a body, by its status": (b"HTTP/1.1 204 No Content\r\n\r\n", Said(204, b"", True, True)),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", Said(304, b"", True, True)),
    "after notes": (NOTES + OK + b"Content-Length: 1\r\n\r\nx", Said(200, b"x", True, True)),
    "without a reason": (b"HTTP/1.1 503\r\nContent-Length: 0\r\n\r\n", Said(503, b"", True, True)),
    "cut short": (OK + b"Content-Length: 5\r\n\r\nhel", Said(200, b"hel")),
    "cut short in a chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel", Said(200, b"hel")),
    "cut short in its head": (OK + b"Content-Len", Said()),
    "of another protocol": (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", Said(is_refused=True)),
    "of two lengths": (
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", Said(is_refused=True),
    ),
    "in a coding": (OK + b"Transfer-Encoding: gzip\r\n\r\nx", Said(is_refused=True)),
    "that switches protocols": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", Said(is_refused=True),
    ),
    "that notes without end": (b"HTTP/1.1 102 Processing\r\n\r\n" * 10_000, Said(is_refused=True)),
    "whose trailers do not end": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 30_000, Said(200, is_refused=True),
    ),
}  # fmt: skip
HEAD = {
    "announces a body": (OK + b"Content-Length: 5\r\n\r\n", Said(200, b"", True, True)),
    "sends one": (OK + b"Content-Length: 5\r\n\r\nhello", Said(200, b"", True, True, is_overrun=True)),
    "announces chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", Said(200, b"", True, True)),
}


def said_by(answer: Answer, data: bytes, step: int, *, is_head: bool = False) -> Said:
    """Feed ``data`` in pieces, until something is wrong with it, and then the end."""
    answer.begin(is_head=is_head)
    fault = None
    for at in range(0, len(data), step):
        fault = answer.feed(memoryview(data)[at : at + step])
        if fault is not None or answer.is_overrun:
            break
    else:
        # Before: what is complete now is complete without the end.
        keeps_alive = answer.is_complete and answer.keeps_alive
        answer.end()
        assert not keeps_alive or answer.keeps_alive
    body = bytearray()
    while (chunk := answer.take()) is not None:
        body += chunk
    assert answer.held == 0
    is_refused = fault is not None and not answer.is_overrun
    return Said(
        answer.status,
        b"" if is_refused else bytes(body),  # which nobody is given
        answer.is_complete,
        answer.is_complete and answer.keeps_alive,
        answer.is_overrun,
        is_refused,
    )


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("name", GET)
def test_an_answer_is_what_it_says(name: str, parser: type[Answer]) -> None:
    data, expected = GET[name]
    for step in (1, 7, len(data)) if len(data) < 5000 else (997, len(data)):
        assert said_by(parser(), data, step) == expected, step


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("name", HEAD)
def test_an_answer_to_head_has_no_body_whatever_it_says(name: str, parser: type[Answer]) -> None:
    data, expected = HEAD[name]
    for step in (1, len(data)):
        assert said_by(parser(), data, step, is_head=True) == expected, step


@pytest.mark.parametrize("parser", PARSERS)
def test_answers_follow_each_other(parser: type[Answer]) -> None:
    """One of each kind, on one connection; a body that nobody wants the rest of is left."""
    answer = parser()
    for _ in range(3):
        for name in ("of a length", "in chunks", "not modified", "after notes"):
            data, expected = GET[name]
            assert said_by(answer, data, 5) == expected
        data, expected = HEAD["announces a body"]
        assert said_by(answer, data, 5, is_head=True) == expected
        answer.begin(is_head=False)
        answer.feed(GET["of a length"][0])
        answer.leave()
        assert (answer.take(), answer.held, answer.is_complete) == (None, 0, True)


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("unasked", [b"x", OK, b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"])
def test_what_nobody_asked_for_is_noticed(unasked: bytes, parser: type[Answer]) -> None:
    """Behind an answer, in the same bytes or later, and before the first request."""
    whole = OK + b"Content-Length: 1\r\n\r\nx"
    for data in ([whole + unasked], [whole, unasked]):
        answer = parser()
        answer.begin(is_head=False)
        for piece in data:
            answer.feed(piece)
        assert (answer.is_complete, answer.is_overrun, answer.take()) == (True, True, b"x")
    answer = parser()
    answer.feed(unasked)
    assert answer.is_overrun or answer.feed(unasked) is not None


@pytest.mark.parametrize("parser", PARSERS)
def test_names_are_lowered_and_values_kept(parser: type[Answer]) -> None:
    answer = parser()
    answer.begin(is_head=False)
    answer.feed(OK + 'ETag:  "É" \r\n'.encode("latin-1"))
    answer.feed(b"x-amz-meta-A: 1\r\nX-Amz-Meta-a: 2\r\nContent-Length: 0\r\n\r\n")
    assert answer.headers == [
        ("etag", '"É"'), ("x-amz-meta-a", "1"), ("x-amz-meta-a", "2"), ("content-length", "0"),
    ]  # fmt: skip


@pytest.mark.parametrize("parser", PARSERS)
def test_a_head_without_end_is_refused(parser: type[Answer]) -> None:
    answer = parser()
    answer.begin(is_head=False)
    faults = [answer.feed(b"X" if at else OK) for at in range(MAX_HEAD_BYTES + 1000)]
    assert faults[-1] is not None
    assert faults[MAX_HEAD_BYTES // 2] is None


@pytest.mark.parametrize("parser", PARSERS)
def test_what_comes_after_the_connection_is_gone_changes_nothing(parser: type[Answer]) -> None:
    answer = parser()
    answer.begin(is_head=False)
    answer.feed(OK + b"Content-Length: 5\r\n\r\nhel")
    answer.close()
    assert answer.feed(b"lo") is None
    assert (answer.end(), answer.take(), answer.take()) == (False, b"hel", None)
