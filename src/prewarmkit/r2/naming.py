"""What things are called: endpoints, and keys inside a URL.

Pure. An endpoint has one spelling here, the one that is signed and sent alike.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, quote, urlsplit

from prewarmkit.errors import ConfigurationError

__all__ = ["UNRESERVED", "base_url", "encode_key", "endpoint_url"]

UNRESERVED = "-._~"
"""What stands unencoded in a signed URL besides letters and digits."""

_MAX_KEY_BYTES = 1024
_ACCOUNT = re.compile(r"[A-Za-z0-9-]+")
_JURISDICTIONS = ("eu", "fedramp")


def endpoint_url(*, account_id: str | None, jurisdiction: str | None, endpoint: str | None) -> str:
    """The endpoint's base URL from what the host gave.

    Raises:
        ConfigurationError: None or both were given, or one that cannot be.
    """
    if (account_id is None) == (endpoint is None):
        raise ConfigurationError(
            "Give exactly one of account_id (Cloudflare R2) and endpoint (any S3 service)."
        )
    if account_id is not None:
        if not _ACCOUNT.fullmatch(account_id):
            raise ConfigurationError(
                f"account_id is the hexadecimal id of the Cloudflare account, not {account_id!r}."
            )
        if jurisdiction is not None and jurisdiction not in _JURISDICTIONS:
            raise ConfigurationError(
                f"jurisdiction must be one of {', '.join(_JURISDICTIONS)} or None, not {jurisdiction!r}."
            )
        middle = f".{jurisdiction}" if jurisdiction else ""
        return f"https://{account_id}{middle}.r2.cloudflarestorage.com"
    if jurisdiction is not None:
        raise ConfigurationError("jurisdiction goes with account_id; an endpoint already names it.")
    assert endpoint is not None
    return base_url(endpoint, "endpoint")


def base_url(url: str, argument: str) -> str:
    """A base URL in the one form that is also signed: no default port, no slash at the end.

    Raises:
        ConfigurationError: It is none; the message names ``argument``.
    """
    split = _split(url)
    if split is None:
        raise ConfigurationError(f"{argument} is not a URL: its host or port is not well-formed.")
    parts, port = split
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        # Not shown where it may hold credentials, as in s3://id:secret@bucket.
        shown = "this one" if "@" in url else repr(url.partition("?")[0])
        raise ConfigurationError(f"{argument} must be a URL such as https://host, not {shown}.")
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(f"{argument} must hold no user name or password; give credentials instead.")
    if parts.query or parts.fragment:
        raise ConfigurationError(f"{argument} must have no query and no fragment.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = {"http": 80, "https": 443}[parts.scheme]
    authority = host if port in {None, default} else f"{host}:{port}"
    path = quote(parts.path.rstrip("/"), safe="/%" + UNRESERVED)
    return f"{parts.scheme}://{authority}{path}"


def _split(url: str) -> tuple[SplitResult, int | None] | None:
    """A URL's parts and its port; ``None``: it is none.

    The reason is left here: it quotes what stands in the port's place, which may be a part of a secret.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    return parts, port


def encode_key(key: str) -> str:
    """A key as it stands in a URL.

    Raises:
        TypeError: It is no string.
        ValueError: It is empty, too long, or no Unicode text.
    """
    if not isinstance(key, str):
        raise TypeError(f"key must be a str, not {type(key).__name__}.")
    try:
        size = len(key) if key.isascii() else len(key.encode())
    except UnicodeEncodeError:
        raise ValueError(
            "key holds a lone surrogate, which is no Unicode text: decode it properly."
        ) from None
    if not 0 < size <= _MAX_KEY_BYTES:
        raise ValueError(f"key must have 1 to {_MAX_KEY_BYTES} bytes in UTF-8; this one has {size}.")
    return quote(key, safe="/" + UNRESERVED)
