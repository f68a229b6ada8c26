"""Who signs: credentials, where they come from, and when they are renewed.

Owns the secret and the promise that no repr, pickle, log or message shows it. Knows
nothing of requests or of how a signature is made.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NoReturn, Protocol, Self, runtime_checkable

import anyio
from attrs import define, field, frozen

from prewarmkit.errors import CredentialsMissing, SigningError
from prewarmkit.sigv4.checks import is_a

__all__ = ["CredentialSource", "Credentials", "CredentialsProvider"]

_log = logging.getLogger("prewarmkit.sigv4")

_REFRESH_AHEAD_SECONDS = 300
_RETRY_SECONDS = 10
_DIGEST_LABEL = b"prewarmkit key scope 1"
_ACCESS_KEY_ID = re.compile(r"[!-~]+")
_TOKEN = re.compile(r"[!-~]+")
_UNFIT = re.compile(r"\A\s|\s\Z|[\x00-\x1f\x7f]")


@frozen
class Credentials:
    """An access key, and the session token of a temporary one.

    Attributes:
        access_key_id: Names the key; not secret.
        secret_access_key: Hidden in ``repr``; never pickled.
        session_token: The same; ``None`` for a permanent key.
        expires_at: An aware datetime; ``None``: not known, or never.
        secret_digest: 32 bytes that stand for the secret in a key cache's scopes.
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    expires_at: datetime | None = field(default=None, kw_only=True)
    secret_digest: bytes = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        key_id = self.access_key_id
        if not is_a(key_id, str) or not _ACCESS_KEY_ID.fullmatch(key_id) or set(key_id) & set("/,"):
            raise SigningError(
                "access_key_id must be a string of visible ASCII characters without '/' and ','; "
                "copy it again."
            )
        # Of an enum, what it equals, not what it is called.
        object.__setattr__(self, "access_key_id", str.__str__(key_id))
        _check_secret("secret_access_key", self.secret_access_key)
        if self.session_token is not None:
            _check_secret("session_token", self.session_token)
            if not _TOKEN.fullmatch(self.session_token):
                raise SigningError("session_token must be ASCII without white space; copy it again.")
        _check_expiry(self.expires_at)
        # Keyed, and computed once: a cache hit then costs no hashing at all.
        digest = hmac.new(self.secret_access_key.encode(), _DIGEST_LABEL, "sha256").digest()
        object.__setattr__(self, "secret_digest", digest)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "Credentials are not pickled, so that the secret goes nowhere by accident; "
            "make them in the process that uses them, with Credentials.from_env() for example."
        )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """From ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY`` and, if set, ``AWS_SESSION_TOKEN``.

        Args:
            environ: ``None``: this process's. (No default of ``os.environ``: `help` would show all of it.)
        """
        environ = os.environ if environ is None else environ
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        missing = [name for name in names if not environ.get(name)]
        if missing:
            raise CredentialsMissing(
                f"{' and '.join(missing)} not set in the environment; set {'it' if len(missing) == 1 else 'them'}, "
                "or pass Credentials(...)."
            )
        key_id, secret = (environ[name] for name in names)
        return cls(key_id, secret, environ.get("AWS_SESSION_TOKEN") or None)

    @classmethod
    def from_api_token(cls, token_id: str, token: str) -> Self:
        """From a Cloudflare API token: its id is the access key id, its SHA-256 the secret."""
        _check_secret("token", token)
        return cls(token_id, hashlib.sha256(token.encode()).hexdigest())


def _check_secret(argument: str, value: object) -> None:
    """Refuse what cannot be a secret, without showing it: a line break from a file, mostly."""
    if not isinstance(value, str) or not value:
        raise SigningError(f"{argument} must be a non-empty string.")
    if _UNFIT.search(value):
        raise SigningError(f"{argument} has a line break or white space around it; strip it.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SigningError(f"{argument} is not valid text; copy it again.") from None


def _check_expiry(expires_at: object) -> None:
    if expires_at is None:
        return
    if not isinstance(expires_at, datetime):
        raise SigningError(f"expires_at must be an aware datetime, not {type(expires_at).__name__}.")
    if expires_at.utcoffset() is None:
        raise SigningError("expires_at is a naive datetime; give it a time zone, such as timezone.utc.")


@runtime_checkable
class CredentialsProvider(Protocol):
    """Fetches credentials, from wherever a host keeps them."""

    async def get(self) -> Credentials:
        """Credentials that are valid now; with `Credentials.expires_at`, where they end."""
        ...


@define(eq=False)
class _Flight:
    """One call of the provider, and how it ended, for those who wait for it."""

    landed: anyio.Event = field(factory=anyio.Event)
    succeeded: bool = False
    error: Exception | None = None


class CredentialSource:
    """The credentials that a signer uses now, and their renewal.

    `current` may be called from any thread; `refresh` from one event loop at a time.

    Attributes:
        present: What `current` gives; ``None`` before the provider was asked.
    """

    def __init__(
        self,
        source: Credentials | CredentialsProvider,
        now: Callable[[], float],
        doubt_the_correction: Callable[[], None],
    ) -> None:
        self._provider: CredentialsProvider | None = None
        self.present: Credentials | None = None
        if isinstance(source, Credentials):
            self.present = source
        elif is_a(source, CredentialsProvider) and not is_a(source, Mapping):  # a dict has a get() too
            self._provider = source
        else:
            raise SigningError(
                "credentials must be Credentials(...) or an object with an async get(), "
                f"not {type(source).__name__}."
            )
        self._now = now
        self._doubt_the_correction = doubt_the_correction
        self._flight: _Flight | None = None
        self._not_before = 0.0  # after a failure that did no harm yet

    def current(self) -> Credentials:
        """What to sign with."""
        if self.present is None:
            raise CredentialsMissing(
                "The credentials provider has not been asked yet: call `await signer.refresh()` "
                "before the first signature."
            )
        return self.present

    async def refresh(self, *, force: bool = False) -> None:
        """Ask the provider if the credentials are missing or end soon, or if forced.

        Callers that come while it is being asked share that answer. Those whose credentials
        still hold do not wait for it.
        """
        if self._provider is None:
            return
        while force or self._ends_within(_REFRESH_AHEAD_SECONDS):
            flight = self._flight
            if not force and self._now() < self._not_before and not self._ends_within(0):
                return
            if flight is None:
                await self._fly(self._provider, force=force)
                return
            if not force and not self._ends_within(0):
                return
            await flight.landed.wait()
            if flight.error is not None:
                raise flight.error
            if flight.succeeded:
                return
            # Neither: the task that asked was cancelled, and one of those who waited takes over.

    def _ends_within(self, seconds: float) -> bool:
        if self.present is None:
            return True
        expires_at = self.present.expires_at
        return expires_at is not None and expires_at.timestamp() - self._now() <= seconds

    async def _fly(self, provider: CredentialsProvider, *, force: bool) -> None:
        flight = self._flight = _Flight()
        try:
            self.present = self._checked(await provider.get())
            flight.succeeded = True
            if self._ends_within(_REFRESH_AHEAD_SECONDS):  # so short-lived: not with every request
                self._not_before = self._now() + _RETRY_SECONDS
        except Exception as error:
            if force or self._ends_within(0):
                flight.error = error
                raise
            # Ahead of time there is no harm yet: it is asked again a little later, not by every request.
            # Who waited looks again, and asks again if there is harm, or it was told to.
            self._not_before = self._now() + _RETRY_SECONDS
            _log.warning(
                "Credentials could not be renewed ahead of their end (%s); the present ones still hold.",
                type(error).__name__,
            )
        finally:
            self._flight = None
            flight.landed.set()

    def _checked(self, fetched: object) -> Credentials:
        if not isinstance(fetched, Credentials):
            raise SigningError(
                f"The credentials provider must return Credentials, not {type(fetched).__name__}."
            )
        ends = math.inf if fetched.expires_at is None else fetched.expires_at.timestamp()
        if ends <= self._now():
            # One wrong Date must not lock new credentials out: without any, no answer would set it right.
            self._doubt_the_correction()
        if ends <= self._now():
            raise CredentialsMissing(
                "The credentials provider returned credentials that have ended already; "
                "check where it gets them, and this machine's clock."
            )
        return fetched
