"""TLS with an address, by the name of the host that lives there."""

from __future__ import annotations

import ssl
from typing import Any

import certifi

__all__ = ["context_for"]


class _NamedContext(ssl.SSLContext):
    """Asks for, and checks, one name, whatever the connection goes to."""

    name: str

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002 - as it is overridden
        server_hostname: str | bytes | None = None,
        session: Any = None,
    ) -> ssl.SSLObject:
        del server_hostname
        return super().wrap_bio(incoming, outgoing, server_side, self.name, session)


def context_for(name: str) -> ssl.SSLContext:
    """A context that trusts the system's and certifi's authorities, for hosts of that name only."""
    context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.name = name
    context.load_default_certs()
    context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context
