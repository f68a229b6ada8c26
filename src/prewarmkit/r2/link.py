"""What the buckets of one account share: a signer, a transport, and who closes it."""

from __future__ import annotations

import time
from collections.abc import Callable

from prewarmkit.errors import ConfigurationError
from prewarmkit.r2.digest import Hasher
from prewarmkit.r2.retry import AttemptEvent, RetryPolicy, Timeouts
from prewarmkit.r2.sender import Sender
from prewarmkit.sigv4.credentials import Credentials, CredentialsProvider
from prewarmkit.sigv4.keys import KeyCache
from prewarmkit.sigv4.signer import SigV4Signer
from prewarmkit.transports.base import Transport

__all__ = ["DEFAULT_RETRY", "DEFAULT_TIMEOUTS", "MAX_CONNECTIONS", "Link", "check_transport", "signer_for"]

MAX_CONNECTIONS = 64
DEFAULT_RETRY = RetryPolicy()
DEFAULT_TIMEOUTS = Timeouts()


class Link:
    """Gives the `Sender`; makes a transport of its own where the host handed in none.

    Args:
        signer: Signs for all buckets.
        transport: The host's, entered and closed by the host; ``None``: one of ours, while open.
        retry: See `RetryPolicy`.
        timeouts: See `Timeouts`.
        max_connections: Of the transport of ours.
        on_attempt: See `Sender`.
    """

    def __init__(
        self,
        signer: SigV4Signer,
        transport: Transport | None,
        *,
        retry: RetryPolicy,
        timeouts: Timeouts,
        max_connections: int,
        on_attempt: Callable[[AttemptEvent], None] | None,
    ) -> None:
        from prewarmkit.transports.direct import DirectTransport

        self.signer = signer
        self.hasher = Hasher()
        self._is_open = False
        self._own: DirectTransport | None = None
        if transport is None:
            self._own = transport = DirectTransport(
                max_connections=max_connections,
                connect_timeout=timeouts.connect,
                stall_timeout=timeouts.stall,
            )
        self._sender = Sender(
            transport,
            signer,
            retry=retry,
            timeouts=timeouts,
            on_attempt=on_attempt,
            max_sends=getattr(transport, "max_connections", None),
        )

    @property
    def sender(self) -> Sender:
        """Sends, once the link is open; over a host's transport also before.

        Raises:
            RuntimeError: It was not opened.
        """
        if self._own is not None and not self._is_open:
            raise RuntimeError("Enter the R2Client first: `async with R2Client(...) as r2`.")
        return self._sender

    async def open(self) -> None:
        """Open the transport of ours."""
        if self._is_open:
            raise RuntimeError("This R2Client is entered already.")
        if self._own is not None:
            await self._own.__aenter__()
        self._is_open = True

    async def close(self) -> None:
        """Close the transport of ours, and never the host's."""
        self._is_open = False
        self.hasher.close()
        if self._own is not None:
            await self._own.__aexit__(None, None, None)


def check_transport(transport: Transport | None, timeouts: Timeouts, max_connections: int) -> None:
    """Refuse to be asked for what a transport of the host's decides itself.

    Raises:
        ConfigurationError: The message names the argument.
    """
    if transport is None:
        return
    if max_connections != MAX_CONNECTIONS:
        raise ConfigurationError("max_connections belongs to the transport that you hand in: set it there.")
    default = DEFAULT_TIMEOUTS
    if (timeouts.connect, timeouts.stall) != (default.connect, default.stall):
        raise ConfigurationError(
            "timeouts.connect and timeouts.stall belong to the transport that you hand in: set them there."
        )


def signer_for(
    credentials: Credentials | CredentialsProvider | None,
    signer: SigV4Signer | None,
    *,
    key_cache: KeyCache | None,
    region: str,
    clock: Callable[[], float],
) -> SigV4Signer:
    """The host's signer, or one for its credentials.

    Raises:
        ConfigurationError: Both, neither, or what does not go with them; the message names it.
    """
    if (credentials is None) == (signer is None):
        raise ConfigurationError("Give exactly one of credentials and signer.")
    if signer is None:
        assert credentials is not None
        return SigV4Signer(credentials, region=region, key_cache=key_cache, clock=clock)
    given = (
        ("key_cache", key_cache is not None),
        ("region", region not in {"auto", signer.region}),
        ("clock", clock is not time.time),
    )
    for name, is_given in given:
        if is_given:
            raise ConfigurationError(f"{name} belongs to the signer that you hand in: set it there.")
    if signer.service != "s3":
        raise ConfigurationError(f"The signer signs for {signer.service!r}: R2Client needs one for 's3'.")
    return signer
