"""The canonical form of a request: what Signature Version 4 hashes.

Owns how URLs, header fields, payload hashes and times are read, checked and written in
the one spelling that the service will arrive at as well. Knows nothing of secrets, keys
or signatures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, cast
from urllib.parse import quote, unquote_to_bytes

from prewarmkit.errors import SigningError
from prewarmkit.sigv4.checks import is_a

__all__ = [
    "EMPTY_SHA256",
    "SIGNING_PARAMETERS",
    "UNSIGNED_HEADERS",
    "UNSIGNED_PAYLOAD",
    "HeaderInput",
    "Target",
    "canonical_method",
    "canonical_path",
    "check_payload_hash",
    "encode",
    "fold_headers",
    "fold_value",
    "is_origin",
    "is_plain_value",
    "plain_test",
    "query_pairs",
    "split_url",
    "wire_path",
]

HeaderInput = Mapping[str, str] | Iterable[tuple[str, str]]

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
"""The payload hash that says: the body is not part of the signature."""

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""The SHA-256 of no bytes."""

UNSIGNED_HEADERS = frozenset(
    {
        "accept-encoding",
        "authorization",
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-amzn-trace-id",
    }
)
"""Fields that are never signed: proxies and HTTP clients change them on the way."""

SIGNING_PARAMETERS = frozenset(
    {
        "x-amz-algorithm",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-expires",
        "x-amz-security-token",
        "x-amz-signature",
        "x-amz-signedheaders",
    }
)
"""Query parameters, in lower case, that only a signer may set."""

_SURROGATE = "The request has half of a surrogate pair in it, which no encoding can send; fix the text."
_LAST_PORT = 65_535
_DEFAULT_PORTS = {"http": "80", "https": "443"}

_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]*))?"
    r"(?P<path>/[^?#\x00-\x1f\x7f]*)?"
    r"(?:\?(?P<query>[^#\x00-\x1f\x7f]*))?",
    re.IGNORECASE | re.ASCII,
)
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]*")
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._~/-]*")
_PLAIN_VALUE = re.compile(r"[!-~]+(?: [!-~]+)*")
_PLAIN = re.compile(r"/[A-Za-z0-9._~/-]*(?: [!-~]+)*")
_PLAIN_NORMAL = re.compile(r"(?:/(?!\.\.?(?:[/ ]|\Z))[A-Za-z0-9._~-]+)*/?(?: [!-~]+)*")
_ORIGIN = re.compile(r"https?://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]+)?")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CONTROL_BUT_TAB = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_BLANKS = re.compile(r"[ \t]+")
_PAYLOAD_HASH = re.compile(r"[0-9a-f]{64}|UNSIGNED-PAYLOAD|STREAMING-[A-Z0-9-]+")
# What may stand in a path as it is, percent signs of escapes included.
_SAFE_ON_THE_WIRE = "/%:@!$&'()*+,;=-._~"
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Target(NamedTuple):
    """A URL taken apart, each part as it was given.

    Attributes:
        origin: Scheme, host and port.
        host: What the ``host`` header will say: in lower case, without a default port.
        path: Still encoded as given; may be empty.
        query: The same, without the question mark.
    """

    origin: str
    host: str
    path: str
    query: str


# ── the URL ──────────────────────────────────────────────────────────────────


def split_url(url: str) -> Target:
    """Take an absolute URL apart; `SigningError` for one that could not be sent as it is signed."""
    match = _URL.fullmatch(url) if is_a(url, str) else None
    if match is None:
        raise SigningError(_why_not_a_url(url))
    scheme, host, port, path, query = match.groups()
    if port and (port.startswith("0") or int(port) > _LAST_PORT):
        raise SigningError(_why_not_a_url(url))
    scheme, host = scheme.lower(), host.lower()
    if port and port != _DEFAULT_PORTS[scheme]:
        host = f"{host}:{port}"
    return Target(f"{scheme}://{host}", host, path or "", query or "")


def _why_not_a_url(url: object) -> str:
    """Name the fault without showing the URL: its query may hold a signature."""
    if not isinstance(url, str):
        return f"url must be a str, not {type(url).__name__}; for an httpx.URL pass str(url)."
    scheme, separator, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    faults = {
        "must be absolute and start with http:// or https://; it names no host to sign for": (
            not separator or scheme.lower() not in _DEFAULT_PORTS
        ),
        "has a fragment, which is never sent; write a # inside a key as %23": "#" in rest,
        "has a user name or password in it, which a signature takes the place of; remove it": "@"
        in authority,
        "names no host": not authority or authority.startswith(":"),
        "has a host with non-ASCII characters; give its ASCII (xn--) form": not authority.isascii(),
        "has a line break or another control character; percent-encode it": bool(_CONTROL.search(url)),
    }
    found = next(
        (fault for fault, is_so in faults.items() if is_so), "has a host or port that is not well-formed"
    )
    return f"url {found}."


is_plain_value = _PLAIN_VALUE.fullmatch
"""Whether a header's value is its own canonical form."""


def is_origin(text: str) -> bool:
    """Whether a text is scheme, host and port, in lower case, and nothing else."""
    return _ORIGIN.fullmatch(text) is not None


def plain_test(*, normalize: bool) -> Callable[[str], object]:
    """What tells whether a path, and the values that follow it behind blanks, are their own canonical form.

    Such a path has no query behind it.
    """
    return _PLAIN_NORMAL.fullmatch if normalize else _PLAIN.fullmatch


def encode(text: str | bytes, safe: str = "") -> str:
    """Percent-encode all but ``A-Za-z0-9-._~`` and ``safe``, as UTF-8, in capitals."""
    try:
        return quote(text, safe=safe)
    except UnicodeEncodeError:
        raise SigningError(_SURROGATE) from None


def _bytes_of(text: str) -> bytes:
    try:
        return unquote_to_bytes(text)
    except UnicodeEncodeError:
        raise SigningError(_SURROGATE) from None


def canonical_path(path: str, *, double_encode: bool, normalize: bool) -> str:
    """The path as the service will canonicalise the one that it receives.

    A service that encodes twice takes the path as it came over the wire and encodes it.
    One that encodes once (S3) decodes what came and encodes that, so that every spelling
    of a key gives the same result.
    """
    if normalize:
        path = _without_dots(path)
    if not path:
        return "/"
    if _PLAIN_PATH.fullmatch(path):
        return path
    return encode(path if double_encode else _bytes_of(path), "/")


def _without_dots(path: str) -> str:
    """Resolve ``.`` and ``..`` and drop empty segments, as the services do.

    Unlike RFC 3986, ``/a/b/..`` gives ``/a``: a final slash is kept where one was given.
    """
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if kept:
                kept.pop()
        elif segment not in {"", "."}:
            kept.append(segment)
    last = "/" if kept and path.endswith("/") else ""
    return "/" + "/".join(kept) + last


def wire_path(path: str, *, double_encode: bool) -> str:
    """The path to put into a presigned URL: as given, but for characters that cannot be sent."""
    if double_encode:
        return path or "/"  # encoding it here would change what the service encodes again
    return encode(_STRAY_PERCENT.sub("%25", path), _SAFE_ON_THE_WIRE) or "/"


def query_pairs(query: str) -> list[tuple[str, str]]:
    """Each parameter as its encoded name and value, unsorted; duplicates stay.

    ``+`` is a plus sign, not a space, and ``?acl`` is ``acl=``: so the services read a query.
    """
    if not query:
        return []
    pairs: list[tuple[str, str]] = []
    for part in query.split("&"):
        if part:
            name, _, value = part.partition("=")
            pairs.append((_encode_once(name), _encode_once(value)))
    for name, _ in pairs:
        if name.lower() in SIGNING_PARAMETERS:
            raise SigningError(
                f"url has the query parameter {name} already, which only the signer may set; "
                "pass the URL without it."
            )
    return pairs


def _encode_once(text: str) -> str:
    return text if _UNRESERVED.fullmatch(text) else encode(_bytes_of(text))


# ── the rest of the request ──────────────────────────────────────────────────


def canonical_method(method: str) -> str:
    """The method in capitals."""
    if not is_a(method, str) or not _TOKEN.fullmatch(method):
        raise SigningError(f"method must be an HTTP method such as 'GET', not {method!r}.")
    return method.upper()


def fold_headers(headers: HeaderInput) -> dict[str, str]:
    """Names in lower case, values trimmed and joined; `UNSIGNED_HEADERS` left out.

    Runs of blanks become one space, and the values of a repeated field are joined by
    commas in the order in which they came.
    """
    fields: dict[str, str] = {}
    if not headers:
        return fields
    for name, value in _header_pairs(headers):
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise SigningError(f"headers has the name {name!r}, which is no header name.")
        folded = fold_value(name, value)
        lower = name.lower()
        if lower in UNSIGNED_HEADERS:
            continue
        fields[lower] = f"{fields[lower]},{folded}" if lower in fields else folded
    return fields


def fold_value(name: str, value: object) -> str:
    """A header's value, trimmed, with runs of blanks made one space; ``name`` is for the error alone."""
    if not isinstance(value, str):
        raise SigningError(
            f"headers must have str values; that of {name!r} is of type {type(value).__name__}."
        )
    if _CONTROL_BUT_TAB.search(value):
        raise SigningError(f"headers has a line break or another control character in {name!r}; remove it.")
    # With control characters gone, split() of ASCII splits at blanks and tabs only.
    return " ".join(value.split()) if value.isascii() else _fold_unicode(value)


def _fold_unicode(value: str) -> str:
    """As the services fold: blanks only, so that a no-break space stays what it is."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SigningError(_SURROGATE) from None
    return _BLANKS.sub(" ", value).strip(" ")


def _header_pairs(headers: object) -> Iterable[tuple[object, object]]:
    if isinstance(headers, Mapping):
        return cast("Mapping[object, object]", headers).items()
    try:
        return [(name, value) for name, value in cast("Iterable[tuple[object, object]]", headers)]
    except (TypeError, ValueError) as error:
        raise SigningError(
            f"headers must be a mapping or an iterable of (name, value) pairs, not {type(headers).__name__}."
        ) from error


def check_payload_hash(value: str) -> str:
    """``value``, if it can stand in a signature as the hash of a body."""
    if not is_a(value, str) or not _PAYLOAD_HASH.fullmatch(value):
        raise SigningError(
            "payload_hash must be the SHA-256 of the body as 64 lower-case hexadecimal digits, "
            "or UNSIGNED_PAYLOAD."
        )
    return str.__str__(value)  # of an enum, what it equals, not what it is called
