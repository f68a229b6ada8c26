"""Which failure a status that is not 200 stands for.

Pure. A page of an error may be cached too, and then says HIT: the status decides alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

from prewarmkit.errors import MediaUnfit, RateLimited, RouteUnfit, TargetDown, TargetFailure, Transient
from prewarmkit.r2.retry import retry_after_seconds
from prewarmkit.targets.edge.answers import Answer
from prewarmkit.targets.edge.places import Place

__all__ = ["DEFAULT_RETRY_AFTER", "NotServed", "failure_of"]

DEFAULT_RETRY_AFTER = 10.0
"""Seconds to keep quiet after a 429 that names none."""

_LONGEST_RETRY_AFTER = 86400.0
_TOO_MANY_REQUESTS = 429
_UNAVAILABLE = 503
_REDIRECTS = range(300, 400)
_FAULTS = range(500, 600)

_DOWN: Mapping[int, str] = MappingProxyType(
    {
        401: "what it serves must be public for it to be cached",
        # Cloudflare's own statuses that are about the origin as a whole, not about one object.
        521: "its origin refuses connections",
        523: "its origin cannot be reached",
        525: "TLS with its origin fails",
        526: "the certificate of its origin is not valid",
        530: "its origin has no address, or the zone is blocked",
    }
)
_NOT_SERVED: Mapping[int, str] = MappingProxyType(
    {
        403: "a firewall rule, or an object that is not public",
        404: "another bucket or prefix",
        410: "another bucket or prefix",
    }
)
_REFUSED_FOR_GOOD = frozenset({400, 406, 414, 451})


class NotServed(Transient):
    """The edge says that there is no such object, or that nobody may have it; the source had it a moment ago."""


def failure_of(answer: Answer, *, key: str, place: Place) -> TargetFailure:
    """The failure to raise for ``answer``, whose status is not 200.

    404 is not among the final ones: the source has the object, so it is a 404 from before, which
    is kept for three minutes, or the wrong bucket.
    """
    status = answer.status
    what = f"{place} answered {status} for {key!r}"
    if status in _NOT_SERVED and not _is_challenge(answer):
        return NotServed(
            f"{what}, though the source has it: {_NOT_SERVED[status]}, or an answer cached earlier."
        )
    return _of_the_target(answer, what, key, place) or _of_the_medium(answer, what)


def _of_the_target(answer: Answer, what: str, key: str, place: Place) -> TargetFailure | None:
    """A failure that is not the medium's fault, and so costs it no attempt."""
    status, seconds = answer.status, _retry_after(answer)
    if status == _TOO_MANY_REQUESTS:
        return RateLimited(f"{what}: ask less often.", seconds or DEFAULT_RETRY_AFTER, "target")
    if status == _UNAVAILABLE and seconds is not None:
        # It may be about this one object, which must not hold the others.
        return RateLimited(f"{what}: it asks to be left alone for {seconds:.3g} s.", seconds, "medium")
    if status in _DOWN:
        return TargetDown(f"{what}: {_DOWN[status]}.", seconds)
    if _is_challenge(answer):
        return TargetDown(f"{what} with a challenge: let this client pass in the zone's security rules.")
    if status in _REDIRECTS and (origin := _other_origin(answer, key, place)) is not None:
        # The same path at another host, or by https: that is so for every key.
        return TargetDown(f"{what} and sends to {origin}: make that the base_url.")
    return None


def _of_the_medium(answer: Answer, what: str) -> TargetFailure:
    if answer.status in _REDIRECTS:
        # Where to is not shown: a login's address may hold anything.
        return RouteUnfit(
            f"{what}: redirects are not followed, for another URL would be warm and not this one."
        )
    if answer.status in _REFUSED_FOR_GOOD:
        return MediaUnfit(f"{what}: it never will serve this one.")
    if answer.status in _FAULTS or answer.status == 408:  # noqa: PLR2004 - Request Timeout
        return Transient(f"{what}.", outcome_unknown=True)
    return RouteUnfit(f"{what}: it cannot be asked by {answer.method}.")


def _is_challenge(answer: Answer) -> bool:
    return answer.header("cf-mitigated") == "challenge"


def _retry_after(answer: Answer) -> float | None:
    seconds = retry_after_seconds(answer.header("retry-after"), now=answer.header("date"))
    # "After 0 s" would be asked again at once, and again.
    return None if seconds is None else min(max(1.0, seconds), _LONGEST_RETRY_AFTER)


def _other_origin(answer: Answer, key: str, place: Place) -> str | None:
    """Where a redirect leads, if only scheme or host are others."""
    try:
        to = urlsplit(answer.header("location") or "")
        origin = f"{to.scheme or place.base.partition(':')[0]}://{to.hostname}" + (
            f":{to.port}" if to.port else ""
        )
    except ValueError:
        return None
    is_same_path = bool(to.hostname) and to.path == urlsplit(place.url(key)).path
    return origin if is_same_path and origin != place.origin else None
