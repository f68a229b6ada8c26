"""`SigV4Signer`: signs requests and URLs with AWS Signature Version 4.

Owns the algorithm that joins the rooms beside it, the moment at which a request is signed,
and the correction of this machine's clock. Does no I/O; its clock is handed in.

What is the same for a whole second (`Moment`) or a whole day (the key, in `KeyRing`) is
computed once; both ways of signing build a `_Form` and share everything after it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sized
from datetime import datetime, timedelta
from hashlib import sha256
from typing import NamedTuple

from prewarmkit.errors import SigningError
from prewarmkit.sigv4.canonical import (
    EMPTY_SHA256,
    UNSIGNED_PAYLOAD,
    HeaderInput,
    canonical_method,
    canonical_path,
    canonical_request,
    check_payload_hash,
    encode,
    fold_headers,
    query_pairs,
    split_url,
    wire_path,
)
from prewarmkit.sigv4.checks import is_a
from prewarmkit.sigv4.credentials import Credentials, CredentialSource, CredentialsProvider
from prewarmkit.sigv4.keys import CacheInfo, KeyCache, KeyRing, MemoryKeyCache
from prewarmkit.sigv4.moment import ALGORITHM, Moment
from prewarmkit.sigv4.times import expires_seconds, observed_skew, posix_time

__all__ = ["EMPTY_SHA256", "UNSIGNED_PAYLOAD", "SigV4Signer"]

_SCOPE_PART = re.compile(r"[A-Za-z0-9._:-]+")


class _Form(NamedTuple):
    """One request in canonical form, ready for its signature."""

    moment: Moment
    canonical: str
    signed_names: str
    payload_hash: str
    url: str  # of a presigned URL, up to the signature; empty for header signing


class SigV4Signer:
    """Signs by header or by query, for S3 (and R2) or any other service.

    Safe to share between threads and tasks; `refresh` belongs to one event loop.

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
        self._region = region
        self._service = service
        self._is_s3 = not general
        self._double_encode = general if double_encode is None else double_encode
        self._normalize_path = general if normalize_path is None else normalize_path
        self._sign_session_token = sign_session_token
        self._clock = clock
        self._skew = 0.0
        self._cache: KeyCache = MemoryKeyCache() if key_cache is None else key_cache
        self._keys = KeyRing(self._cache)
        self._source = CredentialSource(credentials, self._corrected_now)
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
        form = self._header_form(method, url, headers, payload_hash, signed_at)
        moment = form.moment
        signature = self._signature(form)
        added = {
            "authorization": f"{moment.authorization}{form.signed_names}, Signature={signature}",
            "x-amz-date": moment.timestamp,
        }
        if self._is_s3:
            added["x-amz-content-sha256"] = form.payload_hash
        if moment.credentials.session_token is not None:
            added["x-amz-security-token"] = moment.credentials.session_token
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
        form = self._query_form(method, url, headers, payload_hash, signed_at, expires)
        presigned = f"{form.url}&X-Amz-Signature={self._signature(form)}"
        token = form.moment.credentials.session_token
        if token is None or self._sign_session_token:
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
        return self._form(method, url, headers, payload_hash, signed_at, expires).canonical

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
        return _string_to_sign(self._form(method, url, headers, payload_hash, signed_at, expires))

    def _form(
        self,
        method: str,
        url: str,
        headers: HeaderInput,
        payload_hash: str | None,
        signed_at: datetime | float | None,
        expires: float | timedelta | None,
    ) -> _Form:
        if expires is None:
            return self._header_form(method, url, headers, payload_hash, signed_at)
        return self._query_form(method, url, headers, payload_hash, signed_at, expires)

    def _signature(self, form: _Form) -> str:
        mac = self._keys.mac(form.moment.credentials, form.moment.scope).copy()
        mac.update(_string_to_sign(form).encode())
        return mac.hexdigest()

    # ── the two forms ────────────────────────────────────────────────────────

    def _header_form(
        self,
        method: str,
        url: str,
        headers: HeaderInput,
        payload_hash: str | None,
        signed_at: datetime | float | None,
    ) -> _Form:
        target = split_url(url)
        fields = _fields(headers, target.host)
        payload_hash = self._payload_hash(payload_hash, fields)
        now = self._corrected_now() if signed_at is None else posix_time(signed_at, "signed_at")
        moment = self._moment_at(now)
        fields["x-amz-date"] = moment.timestamp
        if self._is_s3:
            fields["x-amz-content-sha256"] = payload_hash
        token = moment.credentials.session_token
        if token is not None and self._sign_session_token:
            fields["x-amz-security-token"] = token
        path = canonical_path(target.path, double_encode=self._double_encode, normalize=self._normalize_path)
        query = _joined(sorted(query_pairs(target.query)))
        names = sorted(fields)
        canonical = canonical_request(canonical_method(method), path, query, fields, names, payload_hash)
        return _Form(moment, canonical, ";".join(names), payload_hash, "")

    def _query_form(
        self,
        method: str,
        url: str,
        headers: HeaderInput,
        payload_hash: str | None,
        signed_at: datetime | float | None,
        expires: float | timedelta,
    ) -> _Form:
        target = split_url(url)
        fields = _fields(headers, target.host)
        payload_hash = self._payload_hash(payload_hash, fields)
        moment = self._moment_at(self._clock() if signed_at is None else posix_time(signed_at, "signed_at"))
        names = sorted(fields)
        signed_names = ";".join(names)
        pairs = [
            ("X-Amz-Algorithm", ALGORITHM),
            ("X-Amz-Credential", moment.credential_parameter),
            ("X-Amz-Date", moment.timestamp),
            ("X-Amz-Expires", str(expires_seconds(expires))),
            ("X-Amz-SignedHeaders", encode(signed_names)),
            *query_pairs(target.query),
        ]
        token = moment.credentials.session_token
        if token is not None and self._sign_session_token:
            pairs.append(("X-Amz-Security-Token", encode(token)))
        query = _joined(sorted(pairs))
        path = canonical_path(target.path, double_encode=self._double_encode, normalize=self._normalize_path)
        canonical = canonical_request(canonical_method(method), path, query, fields, names, payload_hash)
        sent = f"{target.origin}{wire_path(target.path, double_encode=self._double_encode)}?{query}"
        return _Form(moment, canonical, signed_names, payload_hash, sent)

    def _payload_hash(self, given: str | None, fields: dict[str, str]) -> str:
        """The argument, or the header that says the same, or the service's default."""
        announced = fields.get("x-amz-content-sha256")
        if given is None:
            if announced is None:
                return UNSIGNED_PAYLOAD if self._is_s3 else EMPTY_SHA256
            given = announced
        elif announced is not None and announced != given:
            raise SigningError("payload_hash and the header x-amz-content-sha256 differ; give one of them.")
        return check_payload_hash(given)

    # ── time ─────────────────────────────────────────────────────────────────

    def now(self) -> float:
        """This signer's clock, uncorrected: what `observe_server_date` takes as ``sent_at``."""
        return self._clock()

    def _corrected_now(self) -> float:
        return self._clock() + self._skew

    def _moment_at(self, now: float) -> Moment:
        second = int(now)
        credentials = self._source.current()
        moment = self._moment
        # Threads may overwrite each other's moment: each works with the one it has in hand.
        if moment is None or moment.second != second or moment.credentials is not credentials:
            moment = self._moment = Moment.at(second, credentials, region=self._region, service=self._service)
        return moment

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
        if skew is not None:
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


def _fields(headers: HeaderInput, host: str) -> dict[str, str]:
    """The caller's headers and the host."""
    fields = fold_headers(headers)
    for name in ("x-amz-date", "x-amz-security-token"):
        if name in fields:
            raise SigningError(f"headers has {name}, which the signer itself sets; leave it out.")
    fields.setdefault("host", host)
    return fields


def _joined(pairs: list[tuple[str, str]]) -> str:
    return "&".join([f"{name}={value}" for name, value in pairs])


def _string_to_sign(form: _Form) -> str:
    return form.moment.to_sign + sha256(form.canonical.encode()).hexdigest()
