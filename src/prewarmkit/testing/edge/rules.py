"""What an edge may keep, and for how long: Cloudflare's rules as tables. Pure.

From its documentation: "Default cache behavior" (extensions, headers, sizes, times by status) and "Cloudflare cache
responses" (what each status means).
"""

from __future__ import annotations

import email.utils
from typing import Literal

from attrs import frozen

from prewarmkit.testing.edge.origin import OriginObject

__all__ = ["DEFAULT_EXTENSIONS", "Keeping", "Rules", "directives_of"]

_EXTENSIONS = (
    "7z avi avif apk bin bmp bz2 class css csv doc docx dmg ejs eot eps exe flac gif gz ico iso "
    "jar jpg jpeg js mid midi mkv mp3 mp4 ogg otf pdf pict pls png ppt pptx ps rar svg svgz swf "
    "tar tif tiff ttf webm webp woff woff2 xls xlsx zip zst"
)
DEFAULT_EXTENSIONS = frozenset(_EXTENSIONS.split())
"""What Cloudflare considers for caching; it goes by these and never by the type."""

_FORBIDDING = ("private", "no-store", "no-cache")

Keeping = Literal["eligible", "dynamic", "bypass", "never"]


@frozen(kw_only=True)
class Rules:
    """How a zone is set up.

    Attributes:
        caches_everything: A Cache Rule makes every path eligible, whatever its extension.
        extensions: What is eligible without one.
        max_object_bytes: Larger ones are served and never kept: 512 MB in the plans but Enterprise. What the header says then is
            not documented; here it is MISS each time.
        cookies: What a ``set-cookie`` of the origin's leads to: ``"bypass"``, or, in other settings, ``"miss"`` each time.
        edge_ttl_seconds: An Edge TTL rule: overrides what the origin says, and no header tells.
        default_ttl_seconds: For a 200 without any word about it.
        missing_ttl_seconds: For a 404.
    """

    caches_everything: bool = False
    extensions: frozenset[str] = DEFAULT_EXTENSIONS
    max_object_bytes: int = 512_000_000
    cookies: Literal["bypass", "miss"] = "bypass"
    edge_ttl_seconds: float | None = None
    default_ttl_seconds: float = 120 * 60
    missing_ttl_seconds: float = 3 * 60

    def is_eligible(self, path: str) -> bool:
        """Whether a cache is asked at all for this path."""
        name, dot, extension = path.rpartition("/")[2].rpartition(".")
        return self.caches_everything or bool(name and dot and extension.lower() in self.extensions)

    def keeping(self, stored: OriginObject) -> Keeping:
        """What becomes of an eligible object that was fetched."""
        if len(stored.body) > self.max_object_bytes:
            return "never"
        if "set-cookie" in stored.headers:
            return "bypass" if self.cookies == "bypass" else "never"
        if self.edge_ttl_seconds is not None:
            return "eligible"
        directives = directives_of(stored)
        forbidden = any(name in directives for name in _FORBIDDING) or directives.get("max-age") == "0"
        return "bypass" if forbidden else "eligible"

    def seconds(self, stored: OriginObject, *, now: float) -> float:
        """How long it is kept."""
        if self.edge_ttl_seconds is not None:
            return self.edge_ttl_seconds
        directives = directives_of(stored)
        for name in ("s-maxage", "max-age"):
            if directives.get(name, "").isdecimal():
                return float(directives[name])
        if "expires" in stored.headers:
            return max(0.0, email.utils.parsedate_to_datetime(stored.headers["expires"]).timestamp() - now)
        return self.default_ttl_seconds


def directives_of(stored: OriginObject) -> dict[str, str]:
    """``cache-control``, by name."""
    pairs = (part.partition("=") for part in stored.headers.get("cache-control", "").split(","))
    return {name.strip().lower(): value.strip() for name, _, value in pairs if name.strip()}
