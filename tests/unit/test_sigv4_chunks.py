"""Chunked payloads: published signatures, a decoder that was written apart, and whatever hypothesis thinks of."""

from __future__ import annotations

import array
import base64
import hashlib
import hmac
import io
import tracemalloc
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from attrs import frozen
from botocore.httpchecksum import AwsChunkedWrapper, Crc32Checksum
from hypothesis import given, settings
from hypothesis import strategies as st

from prewarmkit import Credentials, SigV4Signer
from prewarmkit.errors import SigningError
from prewarmkit.sigv4.chunks import (
    MIN_CHUNK_SIZE,
    STREAMING_PAYLOAD,
    STREAMING_PAYLOAD_TRAILER,
    STREAMING_UNSIGNED_PAYLOAD_TRAILER,
    ChunkEncoder,
    chunked_headers,
    encoded_length,
    signed_chunks,
    signed_chunks_async,
)

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
CREDENTIALS = Credentials("AKIAIOSFODNN7EXAMPLE", SECRET)
DOCUMENTED_AT = datetime(2013, 5, 24, tzinfo=UTC)
URL = "https://s3.amazonaws.com/examplebucket/chunkObject.txt"
CRC32 = "x-amz-checksum-crc32"
CRC32C = "x-amz-checksum-crc32c"


@pytest.fixture
def signer() -> SigV4Signer:
    return documented_signer()


def documented_signer() -> SigV4Signer:
    return SigV4Signer(CREDENTIALS, region="us-east-1")


def signed_headers(
    signer: SigV4Signer, length: int, *, at: datetime | None = DOCUMENTED_AT, **announced: Any
) -> dict[str, str]:
    """All the headers of an upload, as a user makes them."""
    headers = chunked_headers(length, **announced)
    return headers | signer.sign("PUT", URL, headers, signed_at=at)


def crc32_of(body: bytes) -> str:
    return base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()


# ── the published examples ───────────────────────────────────────────────────

DOCUMENTED_BODY = b"a" * 66_560


def seed_of(headers: Mapping[str, str]) -> str:
    return headers["authorization"].rpartition("Signature=")[2]


def test_the_chunks_of_the_s3_documentation_come_out(signer: SigV4Signer) -> None:
    """Source: "Transferring payload in multiple chunks (chunked upload)", Amazon S3 API reference."""
    headers = {"x-amz-storage-class": "REDUCED_REDUNDANCY"} | chunked_headers(66_560)
    assert headers == {
        "content-encoding": "aws-chunked",
        "content-length": "66824",
        "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "x-amz-decoded-content-length": "66560",
        "x-amz-storage-class": "REDUCED_REDUNDANCY",
    }
    headers |= signer.sign("PUT", URL, headers, signed_at=DOCUMENTED_AT)
    assert seed_of(headers) == "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
    assert list(signed_chunks(signer, headers, DOCUMENTED_BODY)) == [
        b"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n"
        + b"a" * 65_536
        + b"\r\n",
        b"400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n"
        + b"a" * 1024
        + b"\r\n",
        b"0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n",
    ]


def test_the_trailer_of_the_s3_documentation_comes_out(signer: SigV4Signer) -> None:
    """Source: "... including trailing headers", Amazon S3 API reference; it signs no content-length."""
    headers = {"x-amz-storage-class": "REDUCED_REDUNDANCY"} | chunked_headers(66_560, trailers=[CRC32C])
    length = int(headers.pop("content-length"))
    assert headers["x-amz-content-sha256"] == "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    assert headers["x-amz-trailer"] == CRC32C
    headers |= signer.sign("PUT", URL, headers, signed_at=DOCUMENTED_AT)
    assert seed_of(headers) == "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
    frames = list(signed_chunks(signer, headers, DOCUMENTED_BODY, trailers={CRC32C: "sOO8/Q=="}))
    assert frames == [
        b"10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n"
        + b"a" * 65_536
        + b"\r\n",
        b"400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n"
        + b"a" * 1024
        + b"\r\n",
        (
            b"0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n"
            b"x-amz-checksum-crc32c:sOO8/Q==\r\n"
            b"x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
        ),
    ]
    assert sum(map(len, frames)) == length


# ── an independent reader ────────────────────────────────────────────────────


@frozen
class Decoded:
    chunks: list[bytes]
    trailers: list[tuple[str, str]]


def decode(wire: bytes, headers: Mapping[str, str], secret: str = SECRET) -> Decoded:
    """Read the frames as a server does, and check each signature by the definition; shares no code with what it reads."""
    authorization = headers["authorization"]
    credential = authorization.split("Credential=")[1].split(",")[0]
    _key_id, date, region, service, ending = credential.split("/")
    key = ("AWS4" + secret).encode()
    for part in (date, region, service, ending):
        key = hmac.digest(key, part.encode(), "sha256")
    scope = f"{date}/{region}/{service}/{ending}"
    is_signed = headers["x-amz-content-sha256"] != STREAMING_UNSIGNED_PAYLOAD_TRAILER
    previous = authorization.split("Signature=")[1]

    def check(signature: str, kind: str, *digests: str) -> None:
        nonlocal previous
        lines = (f"AWS4-HMAC-SHA256-{kind}", headers["x-amz-date"], scope, previous, *digests)
        assert signature == hmac.digest(key, "\n".join(lines).encode(), "sha256").hex()
        previous = signature

    chunks: list[bytes] = []
    while True:
        head, rest = wire.split(b"\r\n", 1)
        size, *extension = head.decode().split(";chunk-signature=")
        data, wire = rest[: int(size, 16)], rest[int(size, 16) :]
        assert len(data) == int(size, 16)
        assert len(extension) == is_signed
        if is_signed:
            check(extension[0], "PAYLOAD", hashlib.sha256().hexdigest(), hashlib.sha256(data).hexdigest())
        if not data:
            break
        chunks.append(data)
        assert wire.startswith(b"\r\n")
        wire = wire[2:]
    assert wire.endswith(b"\r\n")
    lines = wire.decode().removesuffix("\r\n").split("\r\n")[:-1]
    if lines and is_signed:
        name, signature = lines.pop().split(":")
        assert name == "x-amz-trailer-signature"
        canonical = "".join(line + "\n" for line in lines)
        check(signature, "TRAILER", hashlib.sha256(canonical.encode()).hexdigest())
    pairs = [line.split(":", 1) for line in lines]
    return Decoded(chunks, [(name, value) for name, value in pairs])


KINDS: dict[str, dict[str, Any]] = {
    STREAMING_PAYLOAD: {},
    STREAMING_PAYLOAD_TRAILER: {"trailers": [CRC32]},
    STREAMING_UNSIGNED_PAYLOAD_TRAILER: {"trailers": [CRC32], "signed": False},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [0, 1, 8191, 8192, 8193, 16_384, 20_000])
def test_a_reader_finds_body_trailers_and_an_unbroken_chain(
    signer: SigV4Signer, kind: str, length: int
) -> None:
    body = (b"0123456789abcde\n" * (length // 16 + 1))[:length]
    headers = signed_headers(signer, length, chunk_size=8192, **KINDS[kind])
    assert headers["x-amz-content-sha256"] == kind
    trailers = {CRC32: crc32_of(body)} if "x-amz-trailer" in headers else None
    wire = b"".join(signed_chunks(signer, headers, body, chunk_size=8192, trailers=trailers))
    assert len(wire) == int(headers["content-length"])
    found = decode(wire, headers)
    assert b"".join(found.chunks) == body
    assert [len(chunk) for chunk in found.chunks[:-1]] == [8192] * (len(found.chunks) - 1)
    assert dict(found.trailers) == (trailers or {})


def test_the_reader_refuses_a_tampered_chunk(signer: SigV4Signer) -> None:
    """That is: the check above can fail."""
    headers = signed_headers(signer, 3)
    wire = b"".join(signed_chunks(signer, headers, b"abc"))
    with pytest.raises(AssertionError):
        decode(wire.replace(b"abc", b"abd"), headers)
    with pytest.raises(AssertionError):
        decode(wire, headers, "another secret")


@st.composite
def splits(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A body of some chunks, and one of the ways to cut it up, empty pieces included."""
    length = draw(st.integers(0, 40_000) | st.sampled_from([0, 8192, 16_384, 24_576]))
    body = draw(st.randoms(use_true_random=False)).randbytes(length)
    cuts = sorted(draw(st.lists(st.integers(0, length), max_size=12)))
    return body, [body[start:end] for start, end in zip([0, *cuts], [*cuts, length], strict=True)]


@settings(deadline=None)
@given(split=splits(), kind=st.sampled_from(sorted(KINDS)), chunk_size=st.integers(8192, 20_000))
def test_however_a_body_is_split_the_frames_are_the_same(
    split: tuple[bytes, list[bytes]], kind: str, chunk_size: int
) -> None:
    body, pieces = split
    signer = documented_signer()
    headers = signed_headers(signer, len(body), chunk_size=chunk_size, **KINDS[kind])
    trailers = {CRC32: crc32_of(body)} if "x-amz-trailer" in headers else None
    whole = list(signed_chunks(signer, headers, body, chunk_size=chunk_size, trailers=trailers))
    cut = list(signed_chunks(signer, headers, pieces, chunk_size=chunk_size, trailers=trailers))
    assert cut == whole
    wire = b"".join(whole)
    assert len(wire) == encoded_length(len(body), chunk_size=chunk_size, **KINDS[kind])
    found = decode(wire, headers)
    assert (b"".join(found.chunks), dict(found.trailers)) == (body, trailers or {})


@settings(deadline=None)
@given(body=st.binary(max_size=30_000), chunk_size=st.integers(8192, 16_384))
def test_unsigned_frames_are_botocores(body: bytes, chunk_size: int) -> None:
    signer = documented_signer()
    headers = signed_headers(signer, len(body), chunk_size=chunk_size, trailers=[CRC32], signed=False)
    frames = signed_chunks(
        signer, headers, body, chunk_size=chunk_size, trailers=lambda: {CRC32: crc32_of(body)}
    )
    theirs = AwsChunkedWrapper(io.BytesIO(body), Crc32Checksum, CRC32, chunk_size)
    assert b"".join(frames) == theirs.read()


# ── bodies and trailers ──────────────────────────────────────────────────────


def rest_of(frames: Iterable[bytes], headers: Mapping[str, str]) -> bytes:
    return b"".join(decode(b"".join(frames), headers).chunks)


BODIES: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "list": lambda body: [body],
    "generator": lambda body: (bytes([byte]) for byte in body),
    "file": io.BytesIO,
    "array of words": lambda body: [memoryview(array.array("I", body)), b""],
    "two dimensions": lambda body: memoryview(body).cast("B", (2, len(body) // 2)),
}


@pytest.mark.parametrize("make", BODIES.values(), ids=BODIES)
def test_bytes_of_every_kind_are_a_body(signer: SigV4Signer, make: Callable[[bytes], Any]) -> None:
    body = bytes(range(250)) * 40
    headers = signed_headers(signer, len(body), chunk_size=8192)
    assert rest_of(signed_chunks(signer, headers, make(body), chunk_size=8192), headers) == body


def test_a_file_is_read_in_pieces_and_not_in_lines(signer: SigV4Signer) -> None:
    sizes: list[int] = []

    class Reader(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            sizes.append(size)
            return super().read(size)

        def __iter__(self) -> Iterator[bytes]:
            raise AssertionError

    headers = signed_headers(signer, 20_000, chunk_size=8192)
    frames = signed_chunks(signer, headers, Reader(bytes(20_000)), chunk_size=8192)
    assert rest_of(frames, headers) == bytes(20_000)
    assert sizes == [8192] * 4


def test_a_producer_may_use_its_buffer_again(signer: SigV4Signer) -> None:
    def pieces() -> Iterator[memoryview]:
        buffer = bytearray(5000)
        for number in range(5):
            buffer[:] = bytes([number]) * 5000
            yield memoryview(buffer)

    headers = signed_headers(signer, 25_000, chunk_size=8192)
    expected = b"".join(bytes([number]) * 5000 for number in range(5))
    assert rest_of(signed_chunks(signer, headers, pieces(), chunk_size=8192), headers) == expected


def test_a_checksum_may_be_computed_on_the_way(signer: SigV4Signer) -> None:
    """The function is called once, when the last piece has been read."""
    crc = 0
    read: list[bytes] = []
    asked: list[int] = []

    def pieces() -> Iterator[bytes]:
        nonlocal crc
        for number in range(4):
            piece = bytes([number]) * 5000
            crc = zlib.crc32(piece, crc)
            read.append(piece)
            yield piece

    def trailers() -> dict[str, str]:
        asked.append(len(read))
        return {"X-Amz-Checksum-CRC32": base64.b64encode(crc.to_bytes(4, "big")).decode()}

    headers = signed_headers(signer, 20_000, trailers=[CRC32])
    found = decode(b"".join(signed_chunks(signer, headers, pieces(), trailers=trailers)), headers)
    assert found.trailers == [(CRC32, crc32_of(b"".join(read)))]
    assert asked == [4]


def test_several_trailers_are_signed_in_the_order_of_their_names(signer: SigV4Signer) -> None:
    announced = {"X-Amz-Meta-B": 3, CRC32: 8, "x-amz-meta-a": 5}
    headers = signed_headers(signer, 1, trailers=announced)
    assert headers["x-amz-trailer"] == "x-amz-meta-b,x-amz-checksum-crc32,x-amz-meta-a"
    given = {"x-amz-meta-a": "o n e", "x-amz-meta-b": "two", CRC32: crc32_of(b"x")}
    wire = b"".join(signed_chunks(signer, headers, b"x", trailers=given))
    assert decode(wire, headers).trailers == sorted(given.items())
    assert len(wire) == int(headers["content-length"])
    assert chunked_headers(1, trailers=given)["content-length"] == headers["content-length"]


def test_a_trailer_that_is_named_twice_is_announced_once() -> None:
    assert chunked_headers(1, trailers=[CRC32, CRC32.upper()]) == chunked_headers(1, trailers=[CRC32])


def test_the_bodys_own_encoding_is_kept() -> None:
    assert chunked_headers(1, content_encoding="gzip")["content-encoding"] == "aws-chunked,gzip"


def test_headers_may_come_from_an_http_client(signer: SigV4Signer) -> None:
    """In any case of letters, with others among them, and with or without a length."""
    headers = signed_headers(signer, 3, trailers=[CRC32])
    expected = list(signed_chunks(signer, headers, b"abc", trailers={CRC32: crc32_of(b"abc")}))
    request = httpx.Request("PUT", URL, headers=headers, content=iter(expected))
    assert (
        list(signed_chunks(signer, request.headers, b"abc", trailers={CRC32: crc32_of(b"abc")})) == expected
    )
    assert "transfer-encoding" not in request.headers
    shouted = {name.upper(): value for name, value in headers.items() if name != "content-length"}
    assert list(signed_chunks(signer, shouted, b"abc", trailers={CRC32: crc32_of(b"abc")})) == expected


def test_a_body_costs_no_more_memory_than_two_chunks_and_a_piece(signer: SigV4Signer) -> None:
    """30 MiB go by, in pieces that fit no chunk."""
    piece, count, chunk_size = bytes(100_000), 315, 65_536
    headers = signed_headers(signer, len(piece) * count)

    def drain(pieces: Iterable[bytes]) -> int:
        return sum(map(len, signed_chunks(signer, headers, pieces)))

    tracemalloc.start()
    try:
        total = drain(bytes(100_000) for _ in range(count))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == int(headers["content-length"])
    assert peak < 2 * chunk_size + 2 * len(piece)


def test_frames_come_as_soon_as_they_are_full(signer: SigV4Signer) -> None:
    """The last one too: its size is known beforehand."""
    encoder = ChunkEncoder(signer, signed_headers(signer, 20_000, chunk_size=8192), chunk_size=8192)
    counts = [len(list(encoder.feed(bytes(size)))) for size in (8000, 192, 0, 8191, 3616, 1)]
    assert counts == [0, 1, 0, 0, 1, 1]
    assert encoder.finish().startswith(b"0;chunk-signature=")


# ── the asynchronous twin ────────────────────────────────────────────────────


async def slowly(pieces: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    for piece in pieces:
        yield piece


class Stream:
    """What is no generator, and need not be closed."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = iter(pieces)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        for piece in self.pieces:
            return piece
        raise StopAsyncIteration


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
async def test_asynchronous_bodies_give_the_same_frames(signer: SigV4Signer, kind: str) -> None:
    body = bytes(range(250)) * 100
    headers = signed_headers(signer, len(body), chunk_size=8192, **KINDS[kind])
    trailers = {CRC32: crc32_of(body)} if "x-amz-trailer" in headers else None
    expected = list(signed_chunks(signer, headers, body, chunk_size=8192, trailers=trailers))
    bodies: list[bytes | AsyncIterable[bytes]] = [
        body,
        slowly([body]),
        slowly([body[:9000], b"", body[9000:]]),
    ]
    for given_body in bodies:
        frames = signed_chunks_async(signer, headers, given_body, chunk_size=8192, trailers=trailers)
        assert [frame async for frame in frames] == expected


@pytest.mark.anyio
async def test_a_body_left_half_way_is_closed(signer: SigV4Signer) -> None:
    closed: list[bool] = []

    async def pieces() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield bytes(70_000)
        finally:
            closed.append(True)

    frames = signed_chunks_async(signer, signed_headers(signer, 10**9), pieces())
    await anext(frames)
    await frames.aclose()
    assert closed == [True]


@pytest.mark.anyio
async def test_the_wrong_twin_names_the_right_one(signer: SigV4Signer) -> None:
    headers = signed_headers(signer, 1)
    body: Any = slowly([b"x"])
    with pytest.raises(SigningError, match=r"signed_chunks_async\(\)"):
        signed_chunks(signer, headers, body)
    body = [b"x"]
    with pytest.raises(SigningError, match=r"there is signed_chunks\(\)"):
        signed_chunks_async(signer, headers, body)
    with pytest.raises(SigningError, match="has 1 bytes, not the 4"):
        async for _ in signed_chunks_async(signer, signed_headers(signer, 4), slowly([b"x"])):
            pass


# ── credentials ──────────────────────────────────────────────────────────────


class Rotating:
    """A provider whose every answer is another secret under the same key id, as R2's are."""

    def __init__(self) -> None:
        self.given: list[Credentials] = []

    async def get(self) -> Credentials:
        number = len(self.given)
        self.given.append(Credentials("AKID", f"secret{number}", f"token{number}"))
        return self.given[-1]


@pytest.mark.anyio
async def test_chunks_keep_to_the_key_of_their_request(signer: SigV4Signer) -> None:
    """Credentials that are renewed during the upload change nothing in it; later ones cannot continue it."""
    provider = Rotating()
    signer = SigV4Signer(provider, region="us-east-1")
    await signer.refresh()
    headers = signed_headers(signer, 200_000, at=None)
    frames = signed_chunks(signer, headers, bytes(200_000))
    sent = next(frames)
    await signer.refresh(force=True)
    signer.sign("GET", URL)
    assert decode(sent + b"".join(frames), headers, "secret0").chunks[-1] == bytes(200_000 % 65_536)
    with pytest.raises(SigningError, match="sign the request anew"):
        signed_chunks(signer, headers, bytes(200_000))


@pytest.mark.parametrize(
    "other",
    [
        SigV4Signer(Credentials("AKIAIOSFODNN7EXAMPLF", SECRET), region="us-east-1"),
        SigV4Signer(CREDENTIALS, region="us-east-2"),
        SigV4Signer(CREDENTIALS, region="us-east-1", service="s3express"),
        SigV4Signer(Credentials("AKIAIOSFODNN7EXAMPLE", SECRET, "token"), region="us-east-1"),
    ],
    ids=["key id", "region", "service", "token"],
)
def test_another_signer_cannot_sign_a_requests_chunks(signer: SigV4Signer, other: SigV4Signer) -> None:
    headers = signed_headers(signer, 1)
    with pytest.raises(SigningError, match="signed by another signer") as caught:
        signed_chunks(other, headers, b"x")
    assert SECRET not in str(caught.value)


def test_credentials_that_had_ended_by_then_sign_nothing() -> None:
    ended = Credentials("AKID", "secret", expires_at=DOCUMENTED_AT)
    headers = signed_headers(SigV4Signer(Credentials("AKID", "secret")), 1)
    with pytest.raises(SigningError, match="credentials ended"):
        signed_chunks(SigV4Signer(ended), headers, b"x")
    valid = Credentials("AKID", "secret", expires_at=DOCUMENTED_AT + timedelta(seconds=1))
    assert decode(b"".join(signed_chunks(SigV4Signer(valid), headers, b"x")), headers, "secret").chunks == [
        b"x"
    ]


# ── what is refused ──────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decoded_length": -1}, "decoded_length must be a whole number of bytes from 0"),
        ({"decoded_length": 1.0}, "decoded_length must be"),
        ({"decoded_length": True}, "decoded_length must be"),
        ({"chunk_size": MIN_CHUNK_SIZE - 1}, "from 8192, the least that S3 takes"),
        ({"chunk_size": 65536.0}, "chunk_size must be a whole number"),
        ({"trailers": CRC32}, "trailers must be a list of names"),
        ({"trailers": None}, "trailers must be a list of names"),
        (
            {"trailers": ["x-amz-meta-a"]},
            r"say how long its value will be: trailers=\{'x-amz-meta-a': length\}",
        ),
        ({"trailers": {"x-amz-meta-a": b"8"}}, "a value, or its length in bytes from 1"),
        ({"trailers": {"x-amz-meta-a": 0}}, "its length in bytes from 1"),
        ({"trailers": {"x-amz-meta-a": ""}}, "its length in bytes from 1"),
        ({"trailers": ["bad name"]}, "no header name"),
        ({"trailers": [b"x-amz-checksum-crc32"]}, "no header name"),
        ({"trailers": ["X-Amz-Trailer-Signature"]}, "which is added here"),
        ({"signed": False}, "signed=False needs a trailer"),
    ],
)
def test_what_cannot_be_announced_is_refused(arguments: dict[str, Any], message: str) -> None:
    complete: dict[str, Any] = {"decoded_length": 1} | arguments
    with pytest.raises(SigningError, match=message):
        chunked_headers(**complete)


def without(name: str) -> Callable[[dict[str, str]], dict[str, str]]:
    return lambda headers: {key: value for key, value in headers.items() if key != name}


def with_(**changed: str) -> Callable[[dict[str, str]], dict[str, str]]:
    return lambda headers: headers | {key.replace("_", "-"): value for key, value in changed.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (list, "headers must be the mapping of headers that is sent, not list"),
        (without("x-amz-content-sha256"), "say in x-amz-content-sha256 that the payload is chunked"),
        (with_(x_amz_content_sha256="UNSIGNED-PAYLOAD"), "say in x-amz-content-sha256"),
        (without("authorization"), "the authorization that signer.sign"),
        (with_(authorization="Bearer x"), "the authorization that signer.sign"),
        (without("x-amz-date"), "the x-amz-date that signer.sign"),
        (with_(x_amz_date="20139924T000000Z"), "the x-amz-date that signer.sign"),
        (without("x-amz-decoded-content-length"), "the x-amz-decoded-content-length that chunked_headers"),
        (with_(x_amz_decoded_content_length="-1"), "the x-amz-decoded-content-length that chunked_headers"),
        (with_(content_length="?"), "the content-length that chunked_headers"),
        (with_(content_length="4"), "has content-length 4, but the body will take 173"),
        (with_(x_amz_content_sha256=STREAMING_PAYLOAD_TRAILER), "signed without x-amz-trailer"),
    ],
)
def test_headers_that_announce_no_chunks_are_refused_before_the_first(
    signer: SigV4Signer, change: Callable[[dict[str, str]], Any], message: str
) -> None:
    headers = change(signed_headers(signer, 1))
    with pytest.raises(SigningError, match=message):
        signed_chunks(signer, headers, b"x")


def test_headers_that_were_not_signed_with_the_request_are_named(signer: SigV4Signer) -> None:
    """A server would refuse the request, and say only that its signature does not match."""
    headers = chunked_headers(1, trailers=[CRC32])
    headers |= signer.sign("PUT", URL, payload_hash=STREAMING_PAYLOAD_TRAILER)
    with pytest.raises(SigningError, match="signed without x-amz-decoded-content-length, x-amz-trailer"):
        signed_chunks(signer, headers, b"x", trailers={CRC32: crc32_of(b"x")})


def test_another_chunk_size_than_announced_is_refused(signer: SigV4Signer) -> None:
    headers = signed_headers(signer, 100_000, trailers=[CRC32])
    for trailers in ({CRC32: "AAAAAA=="}, lambda: {CRC32: "AAAAAA=="}):
        with pytest.raises(SigningError, match=r"in chunks of 8192; give chunked_headers\(\) the same"):
            signed_chunks(signer, headers, b"", chunk_size=8192, trailers=trailers)
    with pytest.raises(SigningError, match="chunk_size must be"):
        signed_chunks(signer, headers, b"", chunk_size=8191)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "has 0 bytes, not the 3"),
        ([b"a", b"", b"b"], "has 2 bytes, not the 3"),
        ([b"ab", b"cd"], "has 4 bytes or more, not the 3"),
        (b"abcd", "has 4 bytes or more, not the 3"),
        ([b"abc", b"", b"de"], "has 5 bytes or more, not the 3"),
        ("abc", "bytes in one stretch of memory, not str"),
        (["abc"], "not str; encode text"),
        ([1, 2, 3], "not int"),
        ([b"a", None], "not NoneType"),
        (io.StringIO("abc"), "not str"),
        (memoryview(b"abcdef")[::2], "one stretch of memory, not memoryview"),
    ],
)
def test_a_body_that_is_not_as_announced_never_gets_its_last_chunk(
    signer: SigV4Signer, body: Any, message: str
) -> None:
    frames: list[bytes] = []
    with pytest.raises(SigningError, match=message):
        frames.extend(signed_chunks(signer, signed_headers(signer, 3), body))
    assert not any(frame.startswith(b"0") for frame in frames)


def test_a_body_of_no_bytes_at_all_is_refused_at_once(signer: SigV4Signer) -> None:
    body: Any = 3
    with pytest.raises(SigningError, match="iterable of bytes, not int"):
        signed_chunks(signer, signed_headers(signer, 3), body)
    not_a_signer: Any = CREDENTIALS
    with pytest.raises(SigningError, match="signer must be a SigV4Signer, not Credentials"):
        signed_chunks(not_a_signer, signed_headers(signer, 3), b"abc")


WRONG_TRAILERS: list[tuple[Any, str]] = [
    (None, r"announces \(x-amz-checksum-crc32\), not none"),
    ({}, r"announces \(x-amz-checksum-crc32\), not none"),
    ({CRC32C: "AAAAAA=="}, r"announces \(x-amz-checksum-crc32\), not x-amz-checksum-crc32c"),
    ({CRC32: "AAAAAA==", "x-amz-meta-a": "1"}, "not x-amz-checksum-crc32, x-amz-meta-a"),
    ({CRC32: "AAAAAA==", CRC32.upper(): "AAAAAA=="}, "not x-amz-checksum-crc32, x-amz-checksum-crc32"),
    ({CRC32: b"AAAAAA=="}, "a str of visible ASCII"),
    ({CRC32: "AAAA\r\nx:"}, "a str of visible ASCII"),
    ({CRC32: " AAAAAA="}, "without blanks around it"),
    ({CRC32: "AAAAAAA="[:4]}, "lengths of the trailers' values"),
    ([CRC32], "a mapping, or a function that returns one, not list"),
]


@pytest.mark.parametrize(("trailers", "message"), WRONG_TRAILERS)
def test_trailers_other_than_announced_are_refused(signer: SigV4Signer, trailers: Any, message: str) -> None:
    """At once if they are there, else before the last chunk is signed."""
    headers = signed_headers(signer, 3, trailers=[CRC32])
    with pytest.raises(SigningError, match=message):
        signed_chunks(signer, headers, b"abc", trailers=trailers)
    frames = signed_chunks(signer, headers, b"abc", trailers=lambda: trailers)
    assert next(frames).startswith(b"3;")
    with pytest.raises(SigningError, match=message):
        next(frames)


def test_a_trailer_longer_than_announced_is_refused_with_the_last_chunk(signer: SigV4Signer) -> None:
    headers = signed_headers(signer, 3, trailers={"x-amz-meta-a": 4})
    frames = signed_chunks(signer, headers, b"abc", trailers=lambda: {"x-amz-meta-a": "12345"})
    assert next(frames).startswith(b"3;")
    with pytest.raises(SigningError, match="lengths of the trailers' values"):
        next(frames)


def test_trailers_that_nobody_announced_are_refused(signer: SigV4Signer) -> None:
    headers = signed_headers(signer, 3)
    with pytest.raises(SigningError, match=r"announces \(none\), not x-amz-checksum-crc32"):
        signed_chunks(signer, headers, b"abc", trailers={CRC32: "AAAAAA=="})
    with pytest.raises(SigningError, match="do not announce in x-amz-trailer"):
        signed_chunks(signer, headers, b"abc", trailers=lambda: {CRC32: "AAAAAA=="})


def test_an_encoder_is_fed_in_turn_and_finished_once(signer: SigV4Signer) -> None:
    encoder = ChunkEncoder(signer, signed_headers(signer, 3))
    frames = encoder.feed(b"abc")
    for call in (lambda: encoder.feed(b""), encoder.finish):
        with pytest.raises(SigningError, match=r"iterate feed\(\) to its end"):
            call()
    assert len(list(frames)) == 1
    encoder.finish()
    for call in (lambda: encoder.feed(b""), encoder.finish):
        with pytest.raises(SigningError, match="sent again is signed again"):
            call()
