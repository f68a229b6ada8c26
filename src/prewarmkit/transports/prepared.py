"""A `Request` checked and brought into the form that a wire takes.

Pure: shared by every transport that speaks HTTP/1.1 itself. What a caller got wrong
is a `ValueError` that names it, raised before anything is sent; no message holds a
query string or a header's value.
"""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterator

from attrs import field, frozen

from prewarmkit.transports.base import Request

__all__ = ["CountedBody", "Origin", "Prepared", "chunks_of", "prepare", "split_url"]

_CHUNK_BYTES = 256 * 1024
_DEFAULT_PORTS = {"http": 80, "https": 443}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_URL = re.compile(r"[!-~]+")
_AUTHORITY = re.compile(r"(?P<host>[^\[\]:]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{0,5}))?")
_LAST_PORT = 65535
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_BODY_EXPECTED = frozenset({"POST", "PUT", "PATCH"})
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


@frozen
class Origin:
    """Where connections go to.

    Attributes:
        scheme: ``http`` or ``https``.
        host: A name or an address, without brackets.
        port: Always given.
    """

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """As it may stand in a message."""
        return f"{self.scheme}://{self.host}:{self.port}"


@frozen
class Prepared:
    """What goes on the wire.

    Attributes:
        origin: Where to.
        target: Path and query, as given.
        headers: Pairs of bytes, ``host`` and ``content-length`` included.
        body: As given.
        content_length: Bytes in the body; ``None`` without one.
        is_replayable: Whether it can be sent again with nobody the wiser.
    """

    method: str
    origin: Origin
    target: str = field(repr=False)  # a path may hold a bot's token, a query a signature
    headers: list[tuple[bytes, bytes]] = field(repr=False)
    body: bytes | AsyncIterable[bytes] | None = field(repr=False)
    content_length: int | None
    is_replayable: bool


@functools.lru_cache(maxsize=64)
def _origin(scheme: str, netloc: str) -> tuple[Origin, str]:
    """The origin of an authority, and the ``host`` header for it."""
    if scheme not in _DEFAULT_PORTS:
        raise ValueError(f"The url must begin with http:// or https://, not {scheme!r}.")
    if "@" in netloc:
        raise ValueError("The url must hold no user name or password: put credentials into headers.")
    parts = _AUTHORITY.fullmatch(netloc)
    if parts is None:
        # Not shown: with credentials put wrongly into a URL it may be a part of the secret that stands there.
        raise ValueError("The url has a host or port that is not well-formed.")
    default = _DEFAULT_PORTS[scheme]
    port = int(parts["port"] or default)
    if port > _LAST_PORT:
        raise ValueError("The url has a port over 65535.")
    host = parts["host"].strip("[]")
    return Origin(scheme, host, port), parts["host"] if port == default else f"{parts['host']}:{port}"


def split_url(url: str) -> tuple[Origin, str, str]:
    """Origin, ``host`` header and request target of an absolute URL, the target untouched.

    Raises:
        ValueError: It is no absolute http(s) URL of printable ASCII.
    """
    if not _URL.fullmatch(url):
        raise ValueError("The url must be percent-encoded ASCII without spaces or line breaks.")
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ValueError("The url must be absolute: http://host/path or https://host/path.")
    rest = rest.partition("#")[0]
    end = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    netloc, target = rest[:end], rest[end:]
    origin, host = _origin(scheme.lower(), netloc.lower())
    return origin, host, target if target.startswith("/") else f"/{target}"


def prepare(request: Request) -> Prepared:
    """Check a request and add the headers that HTTP/1.1 needs.

    Raises:
        ValueError: What the caller got wrong.
    """
    if not _TOKEN.fullmatch(request.method):
        raise ValueError(f"The method must be a word such as GET, not {request.method!r}.")
    origin, host, target = split_url(request.url)
    length = _body_length(request)
    headers, names = _headers(request.headers, length)
    if "host" not in names:
        headers.insert(0, (b"host", host.encode("ascii")))
    if "content-length" not in names and (length is not None or request.method in _BODY_EXPECTED):
        headers.append((b"content-length", str(length or 0).encode("ascii")))
    # A conditional write that arrived twice fails the second time: only its sender can judge that.
    is_conditional = not names.isdisjoint({"if-match", "if-none-match", "if-unmodified-since"})
    return Prepared(
        method=request.method,
        origin=origin,
        target=target,
        headers=headers,
        body=request.body,
        content_length=length,
        is_replayable=(
            (request.body is None or isinstance(request.body, bytes))
            and request.method in _IDEMPOTENT
            and (request.method in _SAFE or not is_conditional)
        ),
    )


def _body_length(request: Request) -> int | None:
    body, length = request.body, request.content_length
    if length is not None and length < 0:
        raise ValueError(f"content_length must be 0 or more bytes, not {length}.")
    if body is None:
        if length:
            raise ValueError(f"content_length is {length}, but there is no body.")
        return length
    if isinstance(body, bytes):
        if length not in {None, len(body)}:
            raise ValueError(f"content_length is {length}, but the body has {len(body)} bytes.")
        return len(body)
    if length is None:
        raise ValueError("A body that is an iterable needs content_length: a body is never sent chunked.")
    return length


@functools.lru_cache(maxsize=256)
def _name(name: str) -> tuple[bytes, str]:
    """A header's name as it is sent, and in lower case."""
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"A header's name must be a word, not {name!r}.")
    lowered = name.lower()
    if lowered in {"transfer-encoding", "connection", "expect"}:
        raise ValueError(f"The header {name!r} is the transport's own affair: leave it out.")
    return name.encode("ascii"), lowered


def _headers(
    pairs: tuple[tuple[str, str], ...], length: int | None
) -> tuple[list[tuple[bytes, bytes]], set[str]]:
    headers: list[tuple[bytes, bytes]] = []
    names: set[str] = set()
    for name, value in pairs:
        encoded, lowered = _name(name)
        if _CONTROL.search(value):
            raise ValueError(f"The header {name!r} must hold no line break or other control character.")
        if lowered == "content-length" and value != str(length or 0):
            raise ValueError(f"The header {name!r} contradicts the body's length.")
        try:
            headers.append((encoded, value.strip(" \t").encode("latin-1")))
        except UnicodeEncodeError:
            raise ValueError(f"The header {name!r} must be Latin-1 text: encode the value.") from None
        names.add(lowered)
    return headers, names


def chunks_of(body: bytes) -> Iterator[bytes]:
    """A large body in pieces, so that an early answer is noticed between them; each is copied when it is its turn."""
    if len(body) <= _CHUNK_BYTES:
        return iter((body,) if body else ())
    return (body[start : start + _CHUNK_BYTES] for start in range(0, len(body), _CHUNK_BYTES))


class CountedBody:
    """A body on its way out, held to its length.

    A class and not a generator: a transport may stop in its middle, and a generator left
    suspended is finished by the garbage collector, which trio rightly complains about.
    """

    def __init__(self, prepared: Prepared) -> None:
        body = prepared.body
        self._pieces = chunks_of(body if isinstance(body, bytes) else b"")
        self._chunks: AsyncIterator[bytes] | None = (
            None if body is None or isinstance(body, bytes) else aiter(body)
        )
        self._promised = prepared.content_length or 0
        self._given = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._chunks is None:
            piece = next(self._pieces, None)
            if piece is None:
                raise StopAsyncIteration
            return piece
        while True:
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                if self._given != self._promised:
                    raise ValueError(
                        f"The body gave {self._given} bytes where content_length promised {self._promised}."
                    ) from None
                raise
            if not chunk:
                continue
            self._given += len(chunk)
            if self._given > self._promised:
                raise ValueError(f"The body gave more bytes than the {self._promised} of content_length.")
            return chunk

    async def aclose(self) -> None:
        """Finish the caller's generator, if it is one and was left half-way."""
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()
