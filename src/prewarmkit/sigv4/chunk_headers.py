"""What announces a chunked payload: the headers of its request, written and read back.

Owns the names of the kinds of chunked payload, what its frames add to a body's length, and
what a signed request's headers oblige its body to. Knows nothing of keys and of bytes. What
is public is imported from `prewarmkit.sigv4.chunks`, which says what it is for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple, cast

from prewarmkit.errors import SigningError
from prewarmkit.sigv4.checks import is_a, is_whole

__all__ = [
    "CHECKSUM_LENGTHS",
    "CHUNK_SIGNATURE",
    "CHUNK_SIZE",
    "MIN_CHUNK_SIZE",
    "STREAMING_PAYLOAD",
    "STREAMING_PAYLOAD_TRAILER",
    "STREAMING_UNSIGNED_PAYLOAD_TRAILER",
    "TRAILER_SIGNATURE",
    "Announced",
    "TrailerNames",
    "checked_chunk_size",
    "chunked_headers",
    "encoded_length",
    "trailer_name",
]

STREAMING_PAYLOAD = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
"""The payload hash that says: each chunk is signed."""

STREAMING_PAYLOAD_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
"""Each chunk is signed, and so are the trailers behind the last one."""

STREAMING_UNSIGNED_PAYLOAD_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
"""Chunks and trailers without signatures: the transport, that is TLS, is trusted with them."""

CHUNK_SIZE = 65_536
"""What a chunk holds by default, in bytes."""

MIN_CHUNK_SIZE = 8_192
"""The least that S3 takes in a chunk; the last one may be smaller."""

TrailerNames = Iterable[str] | Mapping[str, int] | Mapping[str, str]
"""S3's checksums by name; any other trailer with its value, or how many bytes that will have."""

_SIGNS_CHUNKS = {
    STREAMING_PAYLOAD: True,
    STREAMING_PAYLOAD_TRAILER: True,
    STREAMING_UNSIGNED_PAYLOAD_TRAILER: False,
}
CHECKSUM_LENGTHS = {  # in base64
    "x-amz-checksum-crc32": 8,
    "x-amz-checksum-crc32c": 8,
    "x-amz-checksum-crc64nvme": 12,
    "x-amz-checksum-sha1": 28,
    "x-amz-checksum-sha256": 44,
}
CHUNK_SIGNATURE = ";chunk-signature="
TRAILER_SIGNATURE = "x-amz-trailer-signature"
_HEX_LENGTH = 64

_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_SEED = re.compile(r".*, SignedHeaders=([^,]+), Signature=([0-9a-f]{64})")
_LENGTH = re.compile(r"\d+", re.ASCII)


# ── what is announced ────────────────────────────────────────────────────────


def chunked_headers(
    decoded_length: int,
    *,
    chunk_size: int = CHUNK_SIZE,
    trailers: TrailerNames = (),
    signed: bool = True,
    content_encoding: str | None = None,
) -> dict[str, str]:
    """The headers that announce a chunked payload: to be signed and sent with the request.

    An HTTP client that sets ``content-length`` itself, or leaves it out, must be kept from it.

    Args:
        decoded_length: The body's length in bytes; a chunked payload must know it beforehand.
        chunk_size: As it will be given to `signed_chunks`.
        trailers: The trailers that will follow: names, or a mapping; see `TrailerNames`.
        signed: ``False``: only the request is signed, for `STREAMING_UNSIGNED_PAYLOAD_TRAILER`.
        content_encoding: What the body itself is encoded in, such as ``"gzip"``.
    """
    lengths = _trailer_lengths(trailers)
    if signed:
        payload_hash = STREAMING_PAYLOAD_TRAILER if lengths else STREAMING_PAYLOAD
    elif lengths:
        payload_hash = STREAMING_UNSIGNED_PAYLOAD_TRAILER
    else:
        raise SigningError(
            "signed=False needs a trailer, such as trailers=['x-amz-checksum-crc32']; "
            "without one, send the body as it is with UNSIGNED_PAYLOAD."
        )
    total = encoded_length(decoded_length, chunk_size=chunk_size, trailers=lengths, signed=signed)
    headers = {
        "content-encoding": "aws-chunked" if content_encoding is None else f"aws-chunked,{content_encoding}",
        "content-length": str(total),
        "x-amz-content-sha256": payload_hash,
        "x-amz-decoded-content-length": str(decoded_length),
    }
    if lengths:
        headers["x-amz-trailer"] = ",".join(lengths)
    return headers


def encoded_length(
    decoded_length: int,
    *,
    chunk_size: int = CHUNK_SIZE,
    trailers: TrailerNames = (),
    signed: bool = True,
) -> int:
    """How many bytes the frames of a body take, to the byte: the request's ``content-length``."""
    if not is_whole(decoded_length) or decoded_length < 0:
        raise SigningError(f"decoded_length must be a whole number of bytes from 0, not {decoded_length!r}.")
    whole, rest = divmod(decoded_length, checked_chunk_size(chunk_size))
    total = whole * _frame_length(chunk_size, signed=signed) + _frame_length(0, signed=signed)
    if rest:
        total += _frame_length(rest, signed=signed)
    lengths = _trailer_lengths(trailers)
    total += sum(len(f"{name}:") + length + 2 for name, length in lengths.items())
    if lengths and signed:
        total += len(f"{TRAILER_SIGNATURE}:") + _HEX_LENGTH + 2
    return total


def _frame_length(size: int, *, signed: bool) -> int:
    signature = len(CHUNK_SIGNATURE) + _HEX_LENGTH if signed else 0
    return len(f"{size:x}") + signature + 2 + size + 2


def checked_chunk_size(chunk_size: int) -> int:
    """The size, if S3 takes chunks of it."""
    if not is_whole(chunk_size) or chunk_size < MIN_CHUNK_SIZE:
        raise SigningError(
            f"chunk_size must be a whole number of bytes from {MIN_CHUNK_SIZE}, the least that S3 takes, "
            f"not {chunk_size!r}."
        )
    return chunk_size


def _trailer_lengths(trailers: TrailerNames) -> dict[str, int]:
    """Each trailer's name in lower case and the length of its value."""
    if is_a(trailers, str) or not is_a(trailers, Iterable):
        raise SigningError(
            f"trailers must be a list of names, or a mapping of names to values or their lengths, "
            f"not {type(trailers).__name__}."
        )
    is_mapping = isinstance(trailers, Mapping)
    given = cast("Mapping[str, int | str | None]", trailers) if is_mapping else _known_lengths(trailers)
    lengths: dict[str, int] = {}
    for name, value in given.items():
        lower = trailer_name(name)
        if value is None:
            raise SigningError(
                f"trailers names {name!r}, which is no checksum of S3; say how long its value will be: "
                f"trailers={{{name!r}: length}}."
            )
        length = len(value) if isinstance(value, str) else value
        if not is_whole(length) or length < 1:
            raise SigningError(
                f"trailers must give {name!r} a value, or its length in bytes from 1, not {value!r}."
            )
        lengths[lower] = length
    return lengths


def _known_lengths(names: Iterable[str]) -> Mapping[str, int | str | None]:
    return {name: CHECKSUM_LENGTHS.get(trailer_name(name)) for name in names}


def trailer_name(name: object) -> str:
    """The name in lower case, if a trailer may have it."""
    lower = name.lower() if isinstance(name, str) else ""
    if not _NAME.fullmatch(lower):
        raise SigningError(f"trailers has the name {name!r}, which is no header name.")
    if lower == TRAILER_SIGNATURE:
        raise SigningError(f"trailers has {TRAILER_SIGNATURE}, which is added here; leave it out.")
    return lower


# ── what was announced ───────────────────────────────────────────────────────


class Announced(NamedTuple):
    """The headers of a signed request, as far as its body must keep to them."""

    authorization: str
    seed: str  # the request's own signature, the first of the chain
    security_token: str | None
    timestamp: str
    decoded_length: int
    content_length: int | None
    trailer_names: tuple[str, ...]
    is_signed: bool

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Announced:
        """What they oblige to, if they were signed and say that the payload is chunked."""
        if not is_a(headers, Mapping):
            raise SigningError(
                f"headers must be the mapping of headers that is sent, not {type(headers).__name__}."
            )
        fields = {str(name).lower(): str(value) for name, value in headers.items()}
        payload_hash = fields.get("x-amz-content-sha256", "")
        if payload_hash not in _SIGNS_CHUNKS:
            raise SigningError(
                "headers must say in x-amz-content-sha256 that the payload is chunked; sign what "
                "chunked_headers() gives, and pass all that is sent."
            )
        authorization = fields.get("authorization", "")
        seed = _SEED.fullmatch(authorization)
        if seed is None:
            raise SigningError(
                "headers must have the authorization that signer.sign() gave; pass all that is sent."
            )
        wanted = {"x-amz-content-sha256", "x-amz-decoded-content-length"}
        if payload_hash != STREAMING_PAYLOAD:
            wanted.add("x-amz-trailer")
        if missing := wanted.difference(seed[1].split(";")):
            raise SigningError(
                f"headers were signed without {', '.join(sorted(missing))}; "
                "give what chunked_headers() gives to signer.sign()."
            )
        announced = fields.get("x-amz-trailer", "").split(",") if "x-amz-trailer" in wanted else []
        names = [trailer_name(name.strip()) for name in announced]
        return cls(
            authorization,
            seed[2],
            fields.get("x-amz-security-token"),
            fields.get("x-amz-date", ""),
            _length_in(fields, "x-amz-decoded-content-length"),
            _length_in(fields, "content-length") if "content-length" in fields else None,
            tuple(sorted(names)),
            _SIGNS_CHUNKS[payload_hash],
        )

    @property
    def signed_at(self) -> float:
        """The POSIX time of `timestamp`."""
        try:
            return datetime.strptime(self.timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        except ValueError:
            raise SigningError("headers must have the x-amz-date that signer.sign() gave.") from None


def _length_in(fields: Mapping[str, str], name: str) -> int:
    text = fields.get(name, "")
    if not _LENGTH.fullmatch(text):
        raise SigningError(f"headers must have the {name} that chunked_headers() gives.")
    return int(text)
