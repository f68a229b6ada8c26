"""Chunked payloads: a body that is signed chunk by chunk while it is sent.

Owns the framing called ``aws-chunked``, the chain of signatures in it, and the trailers
behind it: fields, mostly checksums, that are known only when the body has been read. Does
no I/O, and knows nothing of who sends the frames. Format: the Amazon S3 API reference,
"Signature calculations for the Authorization header: Transferring payload in multiple
chunks" and "... including trailing headers".

R2 takes no chunked payload: "Cloudflare R2 does not currently support the Streaming SigV4
implementation" (its documentation, Examples, "aws-sdk-net"); it has answered signed chunks with
``NotImplemented``, trailers also with ``Unauthorized``. `R2Client` sends neither: send R2
`UNSIGNED_PAYLOAD` over TLS, or the whole body's hash. This is for S3, MinIO, SeaweedFS and others::

    headers = chunked_headers(len(body))
    headers |= signer.sign("PUT", url, headers)
    httpx.put(url, headers=headers, content=signed_chunks(signer, headers, body))
"""

from __future__ import annotations

import hmac
import re
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Iterator, Mapping
from functools import partial
from hashlib import sha256
from typing import Protocol, runtime_checkable

import anyio

from prewarmkit.errors import SigningError
from prewarmkit.sigv4.canonical import EMPTY_SHA256
from prewarmkit.sigv4.checks import is_a
from prewarmkit.sigv4.chunk_headers import (
    CHECKSUM_LENGTHS,
    CHUNK_SIGNATURE,
    CHUNK_SIZE,
    MIN_CHUNK_SIZE,
    STREAMING_PAYLOAD,
    STREAMING_PAYLOAD_TRAILER,
    STREAMING_UNSIGNED_PAYLOAD_TRAILER,
    TRAILER_SIGNATURE,
    Announced,
    TrailerNames,
    checked_chunk_size,
    chunked_headers,
    encoded_length,
    trailer_name,
)
from prewarmkit.sigv4.moment import ALGORITHM
from prewarmkit.sigv4.signer import SigV4Signer

__all__ = [
    "CHUNK_SIZE",
    "MIN_CHUNK_SIZE",
    "STREAMING_PAYLOAD",
    "STREAMING_PAYLOAD_TRAILER",
    "STREAMING_UNSIGNED_PAYLOAD_TRAILER",
    "BinaryFile",
    "ChunkEncoder",
    "Piece",
    "TrailerNames",
    "Trailers",
    "chunked_headers",
    "encoded_length",
    "signed_chunks",
    "signed_chunks_async",
]

Piece = bytes | bytearray | memoryview
Trailers = Mapping[str, str] | Callable[[], Mapping[str, str]]
"""Trailers by name, or what gives them once the whole body has been read."""

_CRLF = b"\r\n"
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


@runtime_checkable
class BinaryFile(Protocol):
    """What has a ``read``, and is read in pieces rather than in lines."""

    def read(self, size: int, /) -> bytes:
        """At most this many bytes; none at the end."""
        ...


class _Chain:
    """Signatures, each of which covers the one before."""

    def __init__(self, signer: SigV4Signer, announced: Announced) -> None:
        credentials, key = signer.signing_key(announced.signed_at)
        scope = f"{key.scope.date}/{key.scope.region}/{key.scope.service}/aws4_request"
        signed_by = f"{ALGORITHM} Credential={credentials.access_key_id}/{scope}, "
        if (
            not announced.authorization.startswith(signed_by)
            or announced.security_token != credentials.session_token
        ):
            raise SigningError(
                "headers were signed by another signer, or before the credentials were renewed; "
                "sign the request anew with this one."
            )
        # Now, and not with the first chunk: all keep to their request's key, whatever is renewed meanwhile.
        self._mac = hmac.new(key.key, digestmod="sha256")
        self._time_and_scope = f"{announced.timestamp}\n{scope}\n"
        self._last = announced.seed

    def chunk(self, digest: str) -> str:
        """The signature of the chunk with this hash."""
        return self._sign("PAYLOAD", f"{EMPTY_SHA256}\n{digest}")

    def trailers(self, canonical: str) -> str:
        """The signature of all trailers, a line each."""
        return self._sign("TRAILER", sha256(canonical.encode()).hexdigest())

    def _sign(self, what: str, digests: str) -> str:
        mac = self._mac.copy()
        mac.update(f"{ALGORITHM}-{what}\n{self._time_and_scope}{self._last}\n{digests}".encode())
        self._last = mac.hexdigest()
        return self._last


# ── the body ─────────────────────────────────────────────────────────────────


class ChunkEncoder:
    """Makes the frames of one body, however it comes in pieces; for those who do their own I/O.

    Between two pieces it holds less than one chunk. A request that is sent again is signed
    again, and needs an encoder of its own.

    Args:
        signer: The one that signed the request.
        headers: All that is sent: what `chunked_headers` gave, and what the signer added to it.
        chunk_size: What every chunk but the last holds.
        trailers: Those that the headers announce, or what gives them once the body is complete.

    Raises:
        SigningError: The headers announce something else, or someone else signed them.
    """

    def __init__(
        self,
        signer: SigV4Signer,
        headers: Mapping[str, str],
        *,
        chunk_size: int = CHUNK_SIZE,
        trailers: Trailers | None = None,
    ) -> None:
        if not is_a(signer, SigV4Signer):
            raise SigningError(f"signer must be a SigV4Signer, not {type(signer).__name__}.")
        self._chunk_size = checked_chunk_size(chunk_size)
        self._announced = announced = Announced.of(headers)
        names = announced.trailer_names
        if callable(trailers):
            self._trailers = trailers
            if not names:
                raise SigningError("trailers are given that headers do not announce in x-amz-trailer.")
            if CHECKSUM_LENGTHS.keys() >= set(names):
                self._check_content_length({name: CHECKSUM_LENGTHS[name] for name in names})
        else:
            checked = self._checked(trailers)
            self._trailers = lambda: checked
        self._chain = _Chain(signer, announced) if announced.is_signed else None
        self._left = announced.decoded_length  # bytes that are in no frame yet
        self._buffer = bytearray()
        self._has_frames = False
        self._is_finished = False

    def feed(self, piece: Piece) -> Iterator[bytes]:
        """The frames that this piece completes: none, one or many; take them all before the next."""
        view = _view(piece)
        self._check_turn()
        if len(self._buffer) + len(view) > self._left:
            raise self._other_length(f"{self._seen + len(view)} bytes or more")
        self._has_frames = bool(view)
        return self._frames(view)

    def finish(self) -> bytes:
        """What ends the body: the empty chunk and the trailers."""
        self._check_turn()
        if self._left:
            raise self._other_length(f"{self._seen} bytes")
        self._is_finished = True
        trailers = self._checked(self._trailers())
        lines = [f"{name}:{value}" for name, value in trailers.items()]
        ending = [self._head(b"", b"").decode(), *lines]
        if trailers and self._chain is not None:
            canonical = "".join([f"{line}\n" for line in lines])
            ending.append(f"{TRAILER_SIGNATURE}:{self._chain.trailers(canonical)}")
        return "\r\n".join([*ending, "", ""]).encode()

    @property
    def _seen(self) -> int:
        return self._announced.decoded_length - self._left + len(self._buffer)

    def _other_length(self, found: str) -> SigningError:
        return SigningError(
            f"The body has {found}, not the {self._announced.decoded_length} that "
            "x-amz-decoded-content-length announces; sign the request anew with its real length."
        )

    def _check_turn(self) -> None:
        if self._is_finished:
            raise SigningError("The body is finished; a request that is sent again is signed again.")
        if self._has_frames:
            raise SigningError("The last piece's frames were not all taken; iterate feed() to its end.")

    def _frames(self, view: memoryview) -> Iterator[bytes]:
        while view:
            wanted = min(self._chunk_size, self._left) - len(self._buffer)
            part, view = view[:wanted], view[wanted:]
            if len(part) < wanted:
                self._buffer += part
            else:
                yield self._frame(part)
        self._has_frames = False

    def _frame(self, part: memoryview) -> bytes:
        """One frame, of what was kept and of this."""
        frame = b"".join([self._head(self._buffer, part), _CRLF, self._buffer, part, _CRLF])
        self._left -= len(self._buffer) + len(part)
        self._buffer.clear()
        return frame

    def _head(self, kept: bytes | bytearray, part: bytes | memoryview) -> bytes:
        size = f"{len(kept) + len(part):x}"
        if self._chain is None:
            return size.encode()
        digest = sha256(kept)
        digest.update(part)
        return f"{size}{CHUNK_SIGNATURE}{self._chain.chunk(digest.hexdigest())}".encode()

    def _checked(self, trailers: Mapping[str, str] | None) -> dict[str, str]:
        """The trailers, sorted, if they are those that were announced."""
        given: Mapping[str, str] = {} if trailers is None else trailers
        if not is_a(given, Mapping):
            raise SigningError(
                f"trailers must be a mapping, or a function that returns one, not {type(given).__name__}."
            )
        pairs = sorted((trailer_name(name), value) for name, value in given.items())
        announced = self._announced.trailer_names
        names = tuple(name for name, _ in pairs)
        if names != announced:
            raise SigningError(
                f"trailers must be those that x-amz-trailer announces ({', '.join(announced) or 'none'}), "
                f"not {', '.join(names) or 'none'}."
            )
        for name, value in pairs:
            if not is_a(value, str) or not _VALUE.fullmatch(value):
                raise SigningError(
                    f"trailers must give {name!r} a str of visible ASCII, without blanks around it; "
                    "a checksum is its digest in base64."
                )
        self._check_content_length({name: len(value) for name, value in pairs})
        return dict(pairs)

    def _check_content_length(self, trailers: Mapping[str, int]) -> None:
        announced = self._announced
        length = encoded_length(
            announced.decoded_length,
            chunk_size=self._chunk_size,
            trailers=trailers,
            signed=announced.is_signed,
        )
        if announced.content_length not in {None, length}:
            raise SigningError(
                f"headers has content-length {announced.content_length}, but the body will take {length} in "
                f"chunks of {self._chunk_size}; give chunked_headers() the same chunk_size and the "
                "lengths of the trailers' values."
            )


def _view(piece: Piece) -> memoryview:
    try:
        view = memoryview(piece)
        return view.cast("B") if view.nbytes else memoryview(b"")
    except TypeError:
        raise SigningError(
            f"body must give bytes in one stretch of memory, not {type(piece).__name__}; "
            "encode text, and open files in binary mode."
        ) from None


def signed_chunks(
    signer: SigV4Signer,
    headers: Mapping[str, str],
    body: Piece | BinaryFile | Iterable[Piece],
    *,
    chunk_size: int = CHUNK_SIZE,
    trailers: Trailers | None = None,
) -> Generator[bytes, None, None]:
    """The body as it is sent: chunks of `chunk_size`, each signed, and at the end the trailers.

    What `ChunkEncoder` needs is checked, and the key taken, before this returns. One frame is
    made at a time: memory holds a chunk or two and one piece of the body. Under headers that
    say `STREAMING_UNSIGNED_PAYLOAD_TRAILER`, it is the same without signatures.

    Args:
        signer: As for `ChunkEncoder`, whose other arguments these are too.
        headers: All that is sent.
        body: Bytes, a binary file, or pieces of any size.
        chunk_size: As it was given to `chunked_headers`.
        trailers: Evaluated when the body has been read, if it is a function.

    Raises:
        SigningError: At once, or, where the body is not as announced, before its last chunk;
            the server then has an incomplete request, and keeps nothing of it.
    """
    encoder = ChunkEncoder(signer, headers, chunk_size=chunk_size, trailers=trailers)
    if isinstance(body, Piece):
        return _encoded(encoder, [memoryview(body)])
    if is_a(body, AsyncIterable) or not is_a(body, Iterable | BinaryFile):
        raise SigningError(
            f"body must be bytes, a binary file or an iterable of bytes, not {type(body).__name__}; "
            "for an asynchronous one there is signed_chunks_async()."
        )
    if isinstance(body, BinaryFile):
        return _encoded(encoder, iter(partial(body.read, chunk_size), b""))
    return _encoded(encoder, body)


def _encoded(encoder: ChunkEncoder, body: Iterable[Piece]) -> Generator[bytes, None, None]:
    for piece in body:
        yield from encoder.feed(piece)
    yield encoder.finish()


def signed_chunks_async(
    signer: SigV4Signer,
    headers: Mapping[str, str],
    body: Piece | AsyncIterable[Piece],
    *,
    chunk_size: int = CHUNK_SIZE,
    trailers: Trailers | None = None,
) -> AsyncGenerator[bytes, None]:
    """`signed_chunks` of an asynchronous body; a generator is closed with this one."""
    encoder = ChunkEncoder(signer, headers, chunk_size=chunk_size, trailers=trailers)
    if not isinstance(body, Piece) and not is_a(body, AsyncIterable):
        raise SigningError(
            f"body must be bytes or an asynchronous iterable of bytes, not {type(body).__name__}; "
            "for any other iterable there is signed_chunks()."
        )
    return _encoded_async(encoder, body)


async def _encoded_async(
    encoder: ChunkEncoder, body: Piece | AsyncIterable[Piece]
) -> AsyncGenerator[bytes, None]:
    if isinstance(body, Piece):
        for frame in _encoded(encoder, [body]):
            yield frame
        return
    pieces = aiter(body)
    try:
        async for piece in pieces:
            for frame in encoder.feed(piece):
                yield frame
        yield encoder.finish()
    finally:
        # A generator left half-way would be finished by the garbage collector.
        if isinstance(pieces, AsyncGenerator):
            with anyio.CancelScope(shield=True):
                await pieces.aclose()
