"""Ways to get a medium to Telegram other than its bytes, and which medium each of them takes.

Pure: tables and functions over them, and `Reference`, which keeps an address from being seen.
Who offers an address, and who sends it, is in the modules beside it.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

from attrs import evolve, field, frozen

from prewarmkit.media import Media, MediaKind, ObjectInfo, Warmed
from prewarmkit.targets.telegram.methods import METHODS, TYPE_BY_EXTENSION

__all__ = ["ROUTES", "URL_RULES", "Reference", "UrlRule", "digest_of", "unfit_for_url", "url_secrets"]

ROUTES = ("auto", "multipart", "url", "presigned", "local")
"""What a host may ask for; ``url`` and ``local`` allow nothing else."""

_MIB = 1024 * 1024
_LONG_ENOUGH = 8
_SHOWN_NAMES = frozenset({MediaKind.DOCUMENT, MediaKind.AUDIO})


@frozen
class UrlRule:
    """What Telegram fetches of one kind.

    Attributes:
        types: Media types; another one is refused, or comes back as another kind.
        max_bytes: The largest file.
    """

    types: frozenset[str]
    max_bytes: int = 20 * _MIB


URL_RULES: Mapping[MediaKind, UrlRule] = MappingProxyType(
    {
        # No GIF: as a photo it becomes a still.
        MediaKind.PHOTO: UrlRule(frozenset({"image/jpeg", "image/png", "image/webp"}), 5 * _MIB),
        MediaKind.VIDEO: UrlRule(frozenset({"video/mp4"})),
        MediaKind.ANIMATION: UrlRule(frozenset({"image/gif", "video/mp4"})),
        MediaKind.AUDIO: UrlRule(frozenset({"audio/mpeg"})),
        # A larger one comes back as a file.
        MediaKind.VOICE: UrlRule(frozenset({"audio/ogg"}), 1 * _MIB),
        MediaKind.STICKER: UrlRule(frozenset({"image/webp"})),
        MediaKind.DOCUMENT: UrlRule(frozenset({"image/gif", "application/pdf", "application/zip"})),
    }
)
"""Bot API, "Sending files" and the methods themselves. A kind that is not here is never fetched."""


def unfit_for_url(media: Media, info: ObjectInfo, url: str) -> str | None:
    """Why Telegram would not take ``media`` from ``url``; ``None``: it should.

    The type is what the address will state, which is the stored one: a host's own word for it
    does not reach Telegram this way.
    """
    rule = URL_RULES.get(media.kind)
    if rule is None:
        return f"Telegram fetches no {media.kind}"
    if info.size > rule.max_bytes:
        return f"it has {info.size} bytes, and Telegram fetches {rule.max_bytes} at most of a {media.kind}"
    name = posixpath.basename(unquote(urlsplit(url).path))
    extension = posixpath.splitext(name)[1].lower()
    if TYPE_BY_EXTENSION.get(extension) not in rule.types:
        return (
            f"Telegram fetches no {media.kind} from an address that ends in {extension or 'no extension'!r}"
        )
    stated = (info.content_type or "").partition(";")[0].strip().lower()
    if stated and stated not in rule.types:
        return f"it is stored as {stated[:80]!r}, which Telegram fetches as no {media.kind}"
    if media.kind in _SHOWN_NAMES and media.filename not in {None, name}:
        return "its name would be lost: Telegram takes it from the address"
    return None


def digest_of(*parts: str) -> str:
    """What a reference is remembered by: it tells nothing of the address."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def url_secrets(url: str) -> tuple[str, ...]:
    """What of ``url`` must not be seen: all of its query, in whole and in parts."""
    query = urlsplit(url).query
    if not query:
        return ()
    parts = {query, *query.split("&")}
    for pair in query.split("&"):
        value = pair.partition("=")[2]
        parts |= {each for each in (value, unquote(value)) if len(each) >= _LONG_ENOUGH}
    return tuple(parts)


@frozen
class Reference:
    """Something to send in the place of bytes.

    Attributes:
        route: ``url``, ``local`` or ``forward``.
        digest: What it is remembered by once it failed.
        size: The object's bytes, as its source says; 0: nothing of it moves.
        etag: The object's ETag, as its source says.
        value: The address; empty for a message that is forwarded.
        secrets: What of it must not be seen anywhere.
        fields: Parameters of a message that is forwarded.
    """

    route: str
    digest: str
    size: int = 0
    etag: str | None = None
    value: str = field(default="", repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    fields: tuple[tuple[str, str], ...] = ()

    def call(self, kind: MediaKind) -> tuple[str, dict[str, str]]:
        """The method of the Bot API that sends it, and its parameters but for the chat's."""
        if self.fields:
            return "forwardMessage", dict(self.fields)
        method = METHODS[kind]
        return method.name, {**dict(method.options), method.field: self.value}

    def hide(self, text: str) -> str:
        """``text`` without the address, and without any part of it that is a secret."""
        whole = [self.value, quote(self.value, safe=""), quote_plus(self.value)] if self.value else []
        spelled = [form for secret in self.secrets for form in (secret, quote(secret, safe=""))]
        for needle in sorted({*whole, *spelled}, key=len, reverse=True):
            text = text.replace(needle, f"<{self.route}>")
        return text

    def without_secrets(self, warmed: Warmed) -> Warmed:
        """``warmed`` as it may be stored: a server without a file of its own echoes the address as its id."""
        if not self.secrets:
            return warmed
        return evolve(
            warmed,
            handle="" if self._reveals(warmed.handle) else warmed.handle,
            unique_id=None if self._reveals(warmed.unique_id or "") else warmed.unique_id,
            details=self._cleaned(dict(warmed.details)),
        )

    def _reveals(self, text: str) -> bool:
        return any(secret in text for secret in self.secrets)

    def _cleaned(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.hide(value) if self._reveals(value) else value
        if isinstance(value, dict):
            return {name: self._cleaned(each) for name, each in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - JSON
        if isinstance(value, list):
            return [self._cleaned(each) for each in value]  # pyright: ignore[reportUnknownVariableType] - JSON
        return value
