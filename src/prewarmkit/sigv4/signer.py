"""`SigV4Signer`: signs requests and URLs with AWS Signature Version 4.

Owns the algorithm that joins the rooms beside it, the moment at which a request is signed,
and the correction of this machine's clock. Does no I/O; its clock is handed in.

What is the same for a day (the key, in `KeyRing`), for a second (`Moment`) or for all requests
of one shape in it (`Stencil`) is computed once. Every signature goes one way: outline the
request, fill its stencil, sign what comes out.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sized
from datetime import datetime, timedelta
from hashlib import sha256

from prewarmkit.errors import SigningError
from prewarmkit.sigv4.canonical import EMPTY_SHA256, UNSIGNED_PAYLOAD, HeaderInput, encode, plain_test
from prewarmkit.sigv4.checks import is_a
from prewarmkit.sigv4.credentials import Credentials, CredentialSource, CredentialsProvider
from prewarmkit.sigv4.keyring import KeyRing
from prewarmkit.sigv4.keys import CacheInfo, KeyCache, MemoryKeyCache, SigningKey
from prewarmkit.sigv4.moment import Moment
from prewarmkit.sigv4.outline import Rules, outline
from prewarmkit.sigv4.times import expires_seconds, observed_skew, posix_time

__all__ = ["EMPTY_SHA256", "UNSIGNED_PAYLOAD", "SigV4Signer"]

_SCOPE_PART = re.compile(r"[A-Za-z0-9._:-]+")
_BLANK = sha256()  # to copy it costs less than to make one
_NOISE_SECONDS = 2
_DAY_SECONDS = 86_400
_AHEAD_SECONDS = 300


class SigV4Signer:
    """Signs by header or by query, for S3 (and R2) or any other service.

    Safe to share between threads and tasks, with the GIL or without: what it remembers is
    replaced whole, or locked. `refresh` belongs to one event loop. A process that forks while
    its threads sign makes its signers and key caches anew.

    Args:
        credentials: Who signs, or a provider of them (`await refresh()` before the first signature).
        region: ``"auto"`` for R2.
        service: ``"s3"``: paths are encoded once and never normalised. Any other: twice, and normalised.
        key_cache: Keeps the day's signing key; ``None``: a `MemoryKeyCache` of this signer's own.
        clock: POSIX time.
        double_encode: Overrides the service's rule for encoding paths.
        normalize_path: Overrides the service's rule for ``.``, ``..`` and empty segments.
        sign_session_token: ``False``: the token is sent, but is not part of the signature.
    """

    def __init__(
        self,
        credentials: Credentials | CredentialsProvider,
        *,
        region: str = "auto",
        service: str = "s3",
        key_cache: KeyCache | None = None,
        clock: Callable[[], float] = time.time,
        double_encode: bool | None = None,
        normalize_path: bool | None = None,
        sign_session_token: bool = True,
    ) -> None:
        for argument, value in {"region": region, "service": service}.items():
            if not is_a(value, str) or not _SCOPE_PART.fullmatch(value):
                raise SigningError(f"{argument} must be a name such as 'auto' or 's3', not {value!r}.")
        if key_cache is not None and not is_a(key_cache, KeyCache):
            raise SigningError(
                f"key_cache must have get() and put(), see KeyCache; {type(key_cache).__name__} has not."
            )
        general = service != "s3"
        normalize = general if normalize_path is None else normalize_path
        # Of an enum, what it equals, not what it is called.
        self._region = str.__str__(region)
        self._service = str.__str__(service)
        self._rules = Rules(
            is_s3=not general,
            double_encode=general if double_encode is None else double_encode,
            normalize=normalize,
            sign_session_token=sign_session_token,
            are_plain=plain_test(normalize=normalize),
        )
        self._clock = clock
        self._skew = 0.0
        self._cache: KeyCache = MemoryKeyCache() if key_cache is None else key_cache
        self._keys = KeyRing(self._cache)
        self._source = CredentialSource(credentials, self._corrected_now, self._forget_skew)
        self._moment: Moment | None = None

    def __repr__(self) -> str:
        return f"SigV4Signer(region={self._region!r}, service={self._service!r})"

    @property
    def region(self) -> str:
        """The region that is signed for."""
        return self._region

    @property
    def service(self) -> str:
        """The service that is signed for."""
        return self._service

    # ── signing ──────────────────────────────────────────────────────────────

    def sign(
        self,
        method: str,
        url: str,
        headers: HeaderInput = (),
        *,
        payload_hash: str | None = None,
        signed_at: datetime | float | None = None,
    ) -> dict[str, str]:
        """The headers to add to a request, their names in lower case.

        Args:
            method: Signed in capitals.
            url: Absolute, and as it will be sent: percent-encoded by the caller.
            headers: Those to sign besides ``host`` and what is added here. Fields that proxies
                change (`UNSIGNED_HEADERS` of the canonical form) are left out of the signature.
                ``host`` may be among them where it is not the URL's.
            payload_hash: The body's SHA-256 in hexadecimal, or `UNSIGNED_PAYLOAD`. ``None``:
                unsigned for S3, no body for any other service.
            signed_at: When the request says that it was signed; ``None``: now, corrected by
                what `observe_server_date` learnt.

        Raises:
            SigningError: The request cannot be signed as given.
            CredentialsMissing: The provider was not asked yet.
        """
        moment = self._moment
        now = self._clock() + self._skew if signed_at is None else posix_time(signed_at, "signed_at")
        if moment is None or moment.second != int(now) or moment.credentials is not self._source.present:
            moment = self._moment_at(now)
        stencil, canonical, payload, _, _ = outline(self._rules, moment, method, url, headers, payload_hash)
        signature = self._signature(moment, canonical)
        added = {"authorization": f"{stencil.authorization}{signature}", **stencil.added}
        if stencil.has_hole and self._rules.is_s3:
            added["x-amz-content-sha256"] = payload
        return added

    def presign(
        self,
        method: str,
        url: str,
        *,
        expires: float | timedelta = 3600,
        headers: HeaderInput = (),
        payload_hash: str | None = None,
        signed_at: datetime | float | None = None,
    ) -> str:
        """A URL that anyone may use for this one request until it expires.

        Its query comes out sorted and percent-encoded, and is part of the signature.

        Args:
            method: Signed in capitals.
            url: As for `sign`.
            expires: 1 second to 7 days, in whole seconds. The credentials' own end comes first.
            headers: Those that whoever uses the URL must send exactly so.
            payload_hash: As for `sign`.
            signed_at: When the URL begins to be valid; ``None``: now, by this machine's clock.
        """
        if expires is None:
            expires_seconds(expires)  # which says what it must be; to `outline`, None is a header's signature
        moment = self._moment_at(self._clock() if signed_at is None else posix_time(signed_at, "signed_at"))
        stencil, canonical, _, path, query = outline(
            self._rules, moment, method, url, headers, payload_hash, expires
        )
        presigned = f"{stencil.origin}{path}?{query}&X-Amz-Signature={self._signature(moment, canonical)}"
        token = moment.credentials.session_token
        if token is None or self._rules.sign_session_token:
            return presigned
        return f"{presigned}&X-Amz-Security-Token={encode(token)}"

    def canonical_request(
        self,
        method: str,
        url: str,
        headers: HeaderInput = (),
        *,
        payload_hash: str | None = None,
        signed_at: datetime | float | None = None,
        expires: float | timedelta | None = None,
    ) -> str:
        """What is hashed and signed, to be compared with the service's own; with `expires`: of a presigned URL.

        It holds the session token, if there is one: do not log it.
        """
        moment = self._moment_shown(signed_at, expires)
        return outline(self._rules, moment, method, url, headers, payload_hash, expires)[1]

    def string_to_sign(
        self,
        method: str,
        url: str,
        headers: HeaderInput = (),
        *,
        payload_hash: str | None = None,
        signed_at: datetime | float | None = None,
        expires: float | timedelta | None = None,
    ) -> str:
        """Time, scope and the canonical request's hash, as `canonical_request` gives it."""
        moment = self._moment_shown(signed_at, expires)
        canonical = outline(self._rules, moment, method, url, headers, payload_hash, expires)[1]
        return moment.to_sign + sha256(canonical.encode()).hexdigest()

    def _moment_shown(self, signed_at: datetime | float | None, expires: float | timedelta | None) -> Moment:
        if signed_at is not None:
            return self._moment_at(posix_time(signed_at, "signed_at"))
        return self._moment_at(self._corrected_now() if expires is None else self._clock())

    def _signature(self, moment: Moment, canonical: str) -> str:
        # HMAC-SHA256 of `moment.to_sign` and the hash of the canonical request.
        request = _BLANK.copy()
        request.update(canonical.encode())
        key = self._keys.key(moment.credentials, moment.scope)
        primed_with, primed = moment.primed
        inner = (primed if primed_with is key else moment.prime(key)).copy()
        inner.update(request.hexdigest().encode())
        outer = key.outer.copy()
        outer.update(inner.digest())
        signature: str = outer.hexdigest()
        return signature

    def signing_key(self, signed_at: float) -> tuple[Credentials, SigningKey]:
        """Who signs, and the key of that day: for what is signed after the request, as chunks are."""
        moment = self._moment_at(signed_at)
        return moment.credentials, self._keys.key(moment.credentials, moment.scope).key

    # ── time ─────────────────────────────────────────────────────────────────

    def now(self) -> float:
        """This signer's clock, uncorrected: what `observe_server_date` takes as ``sent_at``."""
        return self._clock()

    def _corrected_now(self) -> float:
        return self._clock() + self._skew

    def _moment_at(self, now: float) -> Moment:
        second = int(now)
        moment = self._moment
        # Threads may overwrite each other's moment: each works with the one it has in hand.
        if moment is None or moment.second != second or moment.credentials is not self._source.present:
            credentials = self._source.current()
            moment = Moment(second, credentials, region=self._region, service=self._service, before=moment)
            self._moment = moment
            if second % _DAY_SECONDS >= _DAY_SECONDS - _AHEAD_SECONDS:
                self._keys.prepare(credentials, moment.scope_of_tomorrow())
        return moment

    def _forget_skew(self) -> None:
        self._skew = 0.0

    @property
    def clock_skew_seconds(self) -> float:
        """How far the server's clock is ahead of ours, as last observed."""
        return self._skew

    def observe_server_date(
        self,
        date: str | None,
        *,
        sent_at: float | None = None,
        received_at: float | None = None,
        age: str | None = None,
    ) -> float | None:
        """Learn the clock skew from an answer; call it for every one, also for failures.

        Later header signatures are shifted by it; presigned URLs and an explicit `signed_at` never are.
        The skew is the server's date less the middle of the exchange. An answer tells nothing
        if it has no date, came from a cache (``Age``), or took over 15 minutes.

        Args:
            date: The answer's ``Date`` header.
            sent_at: When the request was sent, by this signer's clock; ``None``: when it was received.
            received_at: When the answer's head was there, by the same clock; ``None``: now.
            age: The answer's ``Age`` header.

        Returns:
            The skew in seconds; ``None`` if nothing was learnt.
        """
        if date is None or age is not None:
            return None
        received_at = self._clock() if received_at is None else received_at
        sent_at = received_at if sent_at is None else sent_at
        skew = observed_skew(date, sent_at=sent_at, received_at=received_at)
        # The header has whole seconds, so less than two of them are noise, and no reason for a new moment.
        if skew is not None and abs(skew - self._skew) >= _NOISE_SECONDS:
            self._skew = skew
        return skew

    # ── credentials and cache ────────────────────────────────────────────────

    async def refresh(self, *, force: bool = False) -> None:
        """Renew credentials that a provider gives: single flight, five minutes ahead of their end.

        Does nothing with static credentials. `R2Client` calls it before each request.

        Args:
            force: Ask the provider even though the present ones still hold, as after a refusal.
        """
        await self._source.refresh(force=force)

    def cache_info(self) -> CacheInfo:
        """Hits and misses of this signer, and the size of its cache."""
        return self._keys.info(len(self._cache) if isinstance(self._cache, Sized) else None)
