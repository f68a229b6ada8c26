"""Where an edge is asked: base URLs, and addresses of it that were resolved elsewhere.

Pure. A base URL is checked once, here: it may hold no user and no query, so that nothing
that is shown later can hold a secret.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import cast
from urllib.parse import urlsplit

from attrs import frozen

from prewarmkit.errors import ConfigurationError, MediaUnfit
from prewarmkit.r2.naming import base_url as normal_base_url
from prewarmkit.r2.naming import encode_key

__all__ = ["Place", "places_of"]

_PRINTABLE = re.compile(r"[!-~]+")
_LAST_PORT = 65535


@frozen
class Place:
    """One edge, or one address of it.

    Attributes:
        base: The base URL, without a slash at its end.
        address: Where to connect to instead of the base URL's own host: an IP address, with a port where
            it is not the usual one, as it stands in a URL; ``None``: the host itself.
    """

    base: str
    address: str | None = None

    def __str__(self) -> str:
        """As it may stand in a message."""
        return self.origin if self.address is None else f"{self.origin} at {self.address}"

    @property
    def origin(self) -> str:
        """Scheme and host."""
        return "/".join(self.base.split("/", 3)[:3])

    @property
    def host(self) -> str:
        """Host and port, as the ``host`` header has them."""
        return self.base.split("/", 3)[2]

    @property
    def tls_name(self) -> str | None:
        """The name that TLS must be asked for, where the connection goes to a bare address."""
        if self.address is None or not self.base.startswith("https:"):
            return None
        return urlsplit(self.base).hostname

    def url(self, key: str) -> str:
        """The address that a viewer uses.

        Raises:
            MediaUnfit: No URL names this key.
        """
        return self.base + _path(key)

    def asked_url(self, key: str) -> str:
        """The address that is connected to."""
        if self.address is None:
            return self.url(key)
        scheme, _, rest = self.base.partition("://")
        return f"{scheme}://{self.address}{rest[len(self.host) :]}{_path(key)}"


def _path(key: str) -> str:
    if any(part in {".", ".."} for part in key.split("/")):
        # Written as %2E they are still taken for steps, by clients and by caches.
        raise MediaUnfit(
            f"{key!r} has a part '.' or '..', which every URL loses: store it under another key."
        )
    try:
        return f"/{encode_key(key)}"
    except ValueError as error:
        raise MediaUnfit(f"No URL can name this key: {error}") from error


def places_of(base_urls: object, addresses: object) -> tuple[Place, ...]:
    """Every base URL at every address.

    Raises:
        ConfigurationError: Something in it cannot be; the message never repeats a base URL that may
            hold a secret.
    """
    bases = tuple(dict.fromkeys(_checked_base(base) for base in _listed(base_urls, "base_url")))
    if not bases:
        raise ConfigurationError("base_url is empty: name at least one, such as https://media.example.com.")
    at = tuple(dict.fromkeys(_checked_address(one) for one in _listed(addresses, "addresses")))
    return tuple(Place(base, address) for base in bases for address in (at or (None,)))


def _listed(given: object, argument: str) -> tuple[object, ...]:
    if isinstance(given, str):
        return (given,)
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise ConfigurationError(f"{argument} must be a str or a list of them, not {type(given).__name__}.")
    return tuple(cast("Iterable[object]", given))


def _checked_base(given: object) -> str:
    if not isinstance(given, str):
        raise ConfigurationError(f"base_url must be a str or a list of them, not {type(given).__name__}.")
    if _PRINTABLE.fullmatch(given) is None:
        raise ConfigurationError(
            "base_url must be a percent-encoded URL of ASCII, such as https://host/path."
        )
    if "?" in given or "#" in given:
        raise ConfigurationError("base_url must have no query and no fragment: it is shown in rows and logs.")
    if "@" in given.partition("://")[2].partition("/")[0]:
        raise ConfigurationError("base_url must hold no user name or password: it is shown in rows and logs.")
    base = normal_base_url(given, "base_url")
    if "%" in urlsplit(base).netloc or "\\" in base:
        raise ConfigurationError("base_url has a host that is not well-formed.")
    if any(part in {".", ".."} for part in urlsplit(base).path.split("/")):
        raise ConfigurationError("base_url must have no part '.' or '..': no URL keeps them.")
    return base


def _checked_address(given: object) -> str:
    fault = ConfigurationError(
        f"addresses must hold IP addresses such as 192.0.2.7, 192.0.2.7:8443 or [2001:db8::7]:8443, not {given!r}."
    )
    if not isinstance(given, str):
        raise fault
    host, port = given, ""
    if given.startswith("["):
        host, closed, rest = given[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise fault
        port = rest[1:] or ("x" if rest else "")
    elif given.count(":") == 1:
        host, _, port = given.partition(":")
        port = port or "x"
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        raise fault from None
    if port and not (port.isascii() and port.isdecimal() and 0 < int(port) <= _LAST_PORT):
        raise fault
    shown = f"[{ip}]" if ip.version == 6 else str(ip)  # noqa: PLR2004 - IPv6
    return f"{shown}:{int(port)}" if port else shown
