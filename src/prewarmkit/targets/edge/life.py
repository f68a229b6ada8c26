"""How long an edge keeps what it has, from the headers of its answer.

Pure. The order is Cloudflare's: ``CDN-Cache-Control``, then ``s-maxage``, ``max-age``, then ``Expires``; with none of
them a 200 stays 120 minutes. A Cache Rule of the zone may say otherwise without telling; then the host does.
"""

from __future__ import annotations

import email.utils
from datetime import datetime

from prewarmkit.targets.edge.answers import Answer

__all__ = ["DEFAULT_SECONDS", "NEARLY_OVER_SECONDS", "left_of", "life_of", "stated_life"]

DEFAULT_SECONDS = 120 * 60
"""How long Cloudflare keeps a 200 of which nobody says how long."""

NEARLY_OVER_SECONDS = 3.0
"""A hit whose life ends within so long may be gone when the verdict is read: it is waited out."""

_LONGEST_SECONDS = 10 * 365 * 86400


def _directives(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    return found


def _seconds(text: str | None) -> int | None:
    if text is None or not (text.isascii() and text.isdecimal()):
        return None
    return min(int(text[:18]), _LONGEST_SECONDS)


def _moment(text: str | None) -> datetime | None:
    try:
        moment = email.utils.parsedate_to_datetime(text or "")
    except (TypeError, ValueError):
        return None
    return None if moment.tzinfo is None else moment


def stated_life(answer: Answer) -> float | None:
    """Seconds that the answer says it may be kept, from its being fetched on; ``None``: it does not say."""
    for header, names in (("cdn-cache-control", ("max-age",)), ("cache-control", ("s-maxage", "max-age"))):
        values = [value for name, value in answer.headers if name == header]
        directives = _directives(",".join(values))
        for name in names:
            seconds = _seconds(directives.get(name))
            if seconds is not None:
                return seconds
    expires, date = _moment(answer.header("expires")), _moment(answer.header("date"))
    if expires is None or date is None:
        return None
    return min(max(0.0, (expires - date).total_seconds()), _LONGEST_SECONDS)


def life_of(answer: Answer, edge_ttl_seconds: float | None) -> float:
    """Seconds that a 200 is kept from its being fetched on.

    Args:
        answer: The 200.
        edge_ttl_seconds: What the host knows of the zone's rule; ``None``: the headers hold.
    """
    # A life of 0 that stands in a cache all the same is none of the edge's.
    return (stated_life(answer) if edge_ttl_seconds is None else edge_ttl_seconds) or DEFAULT_SECONDS


def left_of(answer: Answer, edge_ttl_seconds: float | None) -> float:
    """Seconds that what was answered stays in the cache: about 0 or below where its life is just ending."""
    life = life_of(answer, edge_ttl_seconds)
    if answer.age is None or answer.cache in {"UPDATING", "STALE"}:
        return life  # fetched just now, or being fetched; or nobody knows, and it is time to look again then
    left = life - answer.age
    # Far older than it may get, and a hit: the life is a rule's, which no header tells.
    return life if left < -NEARLY_OVER_SECONDS else left
