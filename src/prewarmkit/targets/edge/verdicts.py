"""What an answer means: warm, not known yet, or weak and why.

Pure. The table is by ``cf-cache-status``, in Cloudflare's words ("Cloudflare cache responses" in its
documentation); nginx's ``$upstream_cache_status`` has the same ones.
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto

from attrs import frozen

from prewarmkit.targets.edge.answers import Answer, bare_etag

__all__ = ["Verdict", "Wanted", "WeakReason", "mismatch", "verdict_of"]


class WeakReason(StrEnum):
    """Why a URL that was asked for is not warm.

    One that `is_final` is a matter of configuration: asking again cannot help until somebody changes it.
    """

    INELIGIBLE_EXTENSION = "ineligible_extension"
    """DYNAMIC: the edge does not consider it, for its extension, and no Cache Rule says otherwise."""
    ORIGIN_FORBIDS = "origin_forbids"
    """BYPASS: the object's own ``cache-control``, or a cookie, forbids keeping it."""
    NOT_CLOUDFLARE_CACHE = "not_cloudflare_cache"
    """The answer says nothing of a cache: a Worker, r2.dev, or another service."""
    NOT_RETAINED = "not_retained"
    """Asked for again it was not there: over the size limit, a cookie, ``vary``, evicted at once."""
    STALE = "stale"
    """Expired, and served since the edge cannot reach the origin."""
    COLO_CHANGED = "colo_changed"
    """Each time another data centre answered, so that none was seen to keep it."""

    __hash__ = str.__hash__

    @property
    def is_final(self) -> bool:
        """Whether trying again is pointless."""
        return self in _FINAL


_FINAL = frozenset(
    {WeakReason.INELIGIBLE_EXTENSION, WeakReason.ORIGIN_FORBIDS, WeakReason.NOT_CLOUDFLARE_CACHE}
)


class Verdict(Enum):
    """What is known after an answer that is not weak."""

    WARM = auto()
    FILLED = auto()
    """Fetched from the origin just now: the next answer tells whether it was kept."""


_VERDICTS: dict[str | None, Verdict | WeakReason] = {
    "HIT": Verdict.WARM,
    "REVALIDATED": Verdict.WARM,
    "UPDATING": Verdict.WARM,
    "MISS": Verdict.FILLED,
    "EXPIRED": Verdict.FILLED,
    "STALE": WeakReason.STALE,
    "DYNAMIC": WeakReason.INELIGIBLE_EXTENSION,
    "BYPASS": WeakReason.ORIGIN_FORBIDS,
}


def verdict_of(answer: Answer) -> Verdict | WeakReason:
    """What a 200 means."""
    return _VERDICTS.get(answer.cache, WeakReason.NOT_CLOUDFLARE_CACHE)


@frozen
class Wanted:
    """What the source has, and the edge must therefore serve.

    Attributes:
        size: Bytes.
        etag: Without quotes; ``None``: nothing to compare.
        sha256: Hex digest; ``None``: nothing to compare.
    """

    size: int
    etag: str | None = None
    sha256: str | None = None


def mismatch(answer: Answer, wanted: Wanted) -> str | None:
    """What in a 200 is not as the source has it, or ``None``."""
    etag = bare_etag(wanted.etag)
    if etag is not None and answer.etag is not None and answer.etag != etag:
        return f"the ETag {answer.etag!r} instead of {etag!r}"
    if answer.length is not None and answer.length != wanted.size:
        return f"{answer.length} bytes instead of {wanted.size}"
    if answer.received is not None and answer.received != wanted.size:
        more = "more than " if answer.received > wanted.size else ""
        return f"{more}{min(answer.received, wanted.size)} bytes instead of {wanted.size}"
    if answer.sha256 is not None and wanted.sha256 is not None and answer.sha256 != wanted.sha256.lower():
        return f"the SHA-256 {answer.sha256} instead of {wanted.sha256}"
    return None
