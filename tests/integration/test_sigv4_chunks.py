"""Chunked payloads before real servers: what they take, what they refuse, and what they do not look at."""

from __future__ import annotations

import base64
import itertools
import random
import zlib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping

import httpx
import pytest

from prewarmkit import SigV4Signer
from prewarmkit.errors import SigningError
from prewarmkit.sigv4.chunks import chunked_headers, signed_chunks, signed_chunks_async
from prewarmkit.testing.s3 import RcloneServer, S3Server, SeaweedServer

CRC32 = "x-amz-checksum-crc32"
CRC32C = "x-amz-checksum-crc32c"
BODY = random.Random(4).randbytes(200_000)  # three chunks and a smaller one
NAMES = (f"chunks-{number}" for number in itertools.count())

Change = Callable[[list[bytes]], list[bytes]]


def crc32_of(body: bytes) -> str:
    return base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()


class Host:
    """What a user of the signer has: a server, a signer, a bucket and httpx."""

    def __init__(self, server: S3Server, http: httpx.Client) -> None:
        self.signer = SigV4Signer(server.credentials, region="us-east-1")
        self.bucket = f"{server.endpoint}/{next(NAMES)}"
        self.http = http
        assert self.http.put(self.bucket, headers=self.signer.sign("PUT", self.bucket)).status_code == 200

    def headers(
        self, url: str, length: int, *, trailers: Iterable[str] = (), signed: bool = True
    ) -> dict[str, str]:
        headers = chunked_headers(length, trailers=trailers, signed=signed)
        return headers | self.signer.sign("PUT", url, headers)

    def put(
        self,
        key: str,
        body: bytes,
        *,
        trailers: Mapping[str, str] | None = None,
        signed: bool = True,
        change: Change | None = None,
    ) -> int:
        """The status of an upload, whose frames may have been changed on the way."""
        url = f"{self.bucket}/{key}"
        headers = self.headers(url, len(body), trailers=trailers or (), signed=signed)
        frames: Iterable[bytes] = signed_chunks(self.signer, headers, body, trailers=trailers)
        if change is not None:
            frames = change(list(frames))
        return self.http.put(url, headers=headers, content=iter(frames)).status_code

    def get(self, key: str) -> bytes | None:
        url = f"{self.bucket}/{key}"
        answer = self.http.get(url, headers=self.signer.sign("GET", url))
        return answer.content if answer.status_code == 200 else None


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client() as client:
        yield client


@pytest.fixture
def seaweed(s3_server: SeaweedServer, http: httpx.Client) -> Host:
    return Host(s3_server, http)


@pytest.fixture
def rclone(rclone_server: RcloneServer, http: httpx.Client) -> Host:
    return Host(rclone_server, http)


@pytest.fixture(params=["seaweed", "rclone"])
def host(request: pytest.FixtureRequest) -> Host:
    host: Host = request.getfixturevalue(request.param)
    return host


def flipped(number: int, at: int) -> Change:
    """One bit of one frame changed."""

    def change(frames: list[bytes]) -> list[bytes]:
        frame = bytearray(frames[number])
        frame[at] ^= 1
        frames[number] = bytes(frame)
        return frames

    return change


TAMPERED: dict[str, Change] = {
    "data of the first chunk": flipped(0, 1000),
    "data of the last chunk": flipped(3, 1000),
    "signature of a chunk": flipped(1, 40),
    "signature of the empty chunk": flipped(4, 40),
    "two chunks exchanged": lambda frames: [frames[1], frames[0], *frames[2:]],
}


@pytest.mark.parametrize("length", [0, 1, 65_536, 65_537, 200_000])
def test_signed_chunks_are_stored_as_the_body_that_was_meant(host: Host, length: int) -> None:
    assert host.put("k", BODY[:length]) == 200
    assert host.get("k") == BODY[:length]


@pytest.mark.parametrize("what", TAMPERED)
def test_seaweedfs_keeps_nothing_of_an_upload_with_a_tampered_chunk(seaweed: Host, what: str) -> None:
    """It answers with 500 where S3 says 403."""
    assert seaweed.put("k", BODY, change=TAMPERED[what]) >= 400
    assert seaweed.get("k") is None


def test_rclone_does_not_check_the_signatures_of_chunks(rclone: Host) -> None:
    """It takes the frames off the body and looks no further, so that it proves the framing alone."""
    assert rclone.put("k", BODY, change=TAMPERED["signature of a chunk"]) == 200
    assert rclone.get("k") == BODY


def test_seaweedfs_checks_a_signed_trailer_against_the_body(seaweed: Host) -> None:
    assert seaweed.put("crc32", BODY, trailers={CRC32: crc32_of(BODY)}) == 200
    assert seaweed.get("crc32") == BODY
    # The check value of CRC-32C (RFC 3720, Castagnoli) for these nine bytes is e3069283.
    assert seaweed.put("crc32c", b"123456789", trailers={CRC32C: "4waSgw=="}) == 200
    assert seaweed.get("crc32c") == b"123456789"
    for name in (CRC32, CRC32C):
        assert seaweed.put("wrong", BODY, trailers={name: crc32_of(b"another body")}) == 400
    assert seaweed.put("wrong", BODY, trailers={CRC32: crc32_of(BODY)}, change=flipped(0, 1000)) >= 400
    assert seaweed.get("wrong") is None


def test_seaweedfs_does_not_check_the_signature_of_a_trailer(seaweed: Host) -> None:
    """The published example and the unit tests' own reader are what proves it."""
    trailers = {CRC32: crc32_of(BODY)}
    assert seaweed.put("k", BODY, trailers=trailers, change=flipped(4, -10)) == 200
    assert seaweed.get("k") == BODY


def test_unsigned_chunks_with_a_trailer_are_stored(host: Host) -> None:
    assert host.put("k", BODY, trailers={CRC32: crc32_of(BODY)}, signed=False) == 200
    assert host.get("k") == BODY


def test_seaweedfs_checks_an_unsigned_trailer_against_the_body(seaweed: Host) -> None:
    trailers = {CRC32: crc32_of(BODY)}
    assert seaweed.put("k", BODY, trailers=trailers, signed=False, change=flipped(0, 1000)) == 400
    assert seaweed.get("k") is None


def test_nothing_is_kept_of_a_body_that_is_shorter_than_announced(seaweed: Host) -> None:
    url = f"{seaweed.bucket}/k"
    headers = seaweed.headers(url, len(BODY))
    with pytest.raises(SigningError, match="has 199999 bytes, not the 200000"):
        seaweed.http.put(url, headers=headers, content=signed_chunks(seaweed.signer, headers, BODY[:-1]))
    assert seaweed.get("k") is None


@pytest.mark.anyio
async def test_an_asynchronous_body_is_signed_on_its_way_with_its_checksum(seaweed: Host) -> None:
    crc = 0

    async def pieces() -> AsyncGenerator[bytes, None]:
        nonlocal crc
        for start in range(0, len(BODY), 7_000):
            piece = BODY[start : start + 7_000]
            crc = zlib.crc32(piece, crc)
            yield piece

    def trailers() -> dict[str, str]:
        return {CRC32: base64.b64encode(crc.to_bytes(4, "big")).decode()}

    url = f"{seaweed.bucket}/k"
    headers = seaweed.headers(url, len(BODY), trailers=[CRC32])
    async with httpx.AsyncClient() as http:
        frames = signed_chunks_async(seaweed.signer, headers, pieces(), trailers=trailers)
        assert (await http.put(url, headers=headers, content=frames)).status_code == 200
    assert seaweed.get("k") == BODY
