"""Finding what could be sent in the place of a medium's bytes: a post, a file, an address.

Owns the order of the ladder above multipart. It asks the source and the host, and sends nothing.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import cast
from urllib.parse import urlsplit, urlunsplit

from attrs import define, field, frozen

from prewarmkit.errors import ConfigurationError, RouteUnfit
from prewarmkit.media import Handle, Media, ObjectInfo
from prewarmkit.r2.naming import base_url, encode_key
from prewarmkit.sources.base import LocalFiles, MediaSource, Presigner
from prewarmkit.targets.base import source_failures
from prewarmkit.targets.telegram.memory import Memory
from prewarmkit.targets.telegram.methods import check_size
from prewarmkit.targets.telegram.routes import Reference, digest_of, unfit_for_url, url_secrets

__all__ = ["PRESIGNED_SECONDS", "Finder", "Lender", "PublicUrl", "checked_public_url"]

PublicUrl = str | Callable[[Media], str | None]
"""A base URL that keys are put under, or a function that gives a medium's address, or ``None``."""

Lender = Callable[[Media], Awaitable[Handle | None]]
"""Gives another bot's handle of the same medium, whose message may be forwarded."""

PRESIGNED_SECONDS = 3600
"""How long a presigned address works: when Telegram fetches it is not ours to say."""

_URL = re.compile(r"https?://[!-~]+")
_VERSION_LENGTH = 16


def checked_public_url(public_url: PublicUrl | None) -> PublicUrl | None:
    """What a host gave as ``public_url``, if it can be one.

    Raises:
        ConfigurationError: It cannot.
    """
    if isinstance(public_url, str):
        return base_url(public_url, "public_url")
    if public_url is not None and not callable(cast("object", public_url)):
        raise ConfigurationError(
            "public_url is a base URL that keys are put under, or a function of a medium, not "
            f"{type(public_url).__name__}."
        )
    return public_url


@define(eq=False)
class _Asked:
    """A medium, and its object's facts once they are needed."""

    media: Media
    source: MediaSource
    is_local: bool
    _info: ObjectInfo | None = field(init=False, default=None)

    async def info(self) -> ObjectInfo:
        """Size, type and ETag; a medium that no route would take is refused here."""
        if self._info is None:
            with source_failures(self.media.key):
                self._info = await self.source.head(self.media.key)
            check_size(self.media, self._info.size, is_local=self.is_local)
        return self._info


@frozen
class _Unfit:
    reason: str


@define(eq=False, kw_only=True)
class Finder:
    """Finds the first reference of the ladder that fits and has not failed before.

    Attributes:
        route: What the host asked for, one of `ROUTES`.
        memory: What failed before.
        public_url: The host's own idea of addresses, before the source's.
        is_local: Whether the Bot API server reads files of this machine.
        lender: Where a message to forward may be had.
    """

    route: str
    memory: Memory
    public_url: PublicUrl | None = None
    is_local: bool = False
    lender: Lender | None = None

    @property
    def is_forced(self) -> bool:
        """Whether bytes are no way out."""
        return self.route in {"url", "local"}

    async def find(self, media: Media, source: MediaSource) -> Reference | None:
        """What to send for ``media``; ``None``: its bytes.

        Raises:
            RouteUnfit: Nothing fits, and the host allows no bytes.
            TargetFailure: The source has no such object, or one that Telegram would not take.
        """
        asked = _Asked(media, source, self.is_local)
        reasons: list[str] = []
        for rung in self._rungs(media):
            found = await rung(asked)
            if isinstance(found, _Unfit):
                reasons.append(found.reason)
            elif await self.memory.has_failed(found):
                reasons.append("it failed that way before, and the same address is not sent again")
            else:
                return found
        if self.is_forced:
            raise RouteUnfit(
                f"{media.key!r} cannot go by route={self.route!r}: {'; '.join(reasons)}. "
                "route='auto' sends its bytes then."
            )
        return None

    def _rungs(self, media: Media) -> Sequence[Callable[[_Asked], Awaitable[Reference | _Unfit]]]:
        if self.route == "multipart":
            return []
        if self.route == "local":
            return [self._file]
        if self.route == "url":
            return [self._address]
        rungs = [] if self.lender is None else [self._post]
        # A digest makes this handle that of every key with the same one, and only bytes of ours can be held to it.
        if media.sha256 is None:
            rungs += [self._file, self._address] if self.is_local else [self._address]
            rungs += [self._presigned] if self.route == "presigned" else []
        return rungs

    async def _post(self, asked: _Asked) -> Reference | _Unfit:
        assert self.lender is not None
        handle = await self.lender(asked.media)
        if handle is None or handle.stale or handle.weak or handle.kind is not asked.media.kind:
            return _Unfit("no other bot has a good handle of it")
        chat_id, message_id = (handle.details.get(name) for name in ("chat_id", "message_id"))
        if not isinstance(chat_id, int) or not isinstance(message_id, int) or not message_id:
            return _Unfit("the other bot's handle names no message")
        etag = (await asked.info()).etag
        if not _is_same(handle, etag=etag, sha256=asked.media.sha256):
            return _Unfit("nothing says that the other bot sent what is stored now")
        return Reference(
            "forward",
            digest_of("forward", str(chat_id), str(message_id)),
            etag=etag,
            fields=(("from_chat_id", str(chat_id)), ("message_id", str(message_id))),
        )

    async def _file(self, asked: _Asked) -> Reference | _Unfit:
        if not isinstance(asked.source, LocalFiles):
            return _Unfit("the source has no files of this machine")
        with source_failures(asked.media.key):
            path = await asked.source.local_path(asked.media.key)
        if path is None:
            return _Unfit("the source has no file for it")
        info = await asked.info()
        uri = path.as_uri()
        return Reference(
            "local", digest_of("local", uri, info.etag or ""), info.size, info.etag, uri, (uri, str(path))
        )

    async def _address(self, asked: _Asked) -> Reference | _Unfit:
        media, ours = asked.media, self.public_url
        if callable(ours):
            url = ours(media)
            if url is None:
                return _Unfit("public_url has no address for it")
            return await self._fetched(asked, url, is_secret=True)
        if ours is None and asked.source.url(media.key) is None:
            return _Unfit("neither the source nor public_url has an address for it")
        # Telegram keeps what it fetched for days: another version must have another address.
        info = await asked.info()
        version = (media.sha256 or "").lower()[:_VERSION_LENGTH] or info.etag
        if ours is None:
            url = asked.source.url(media.key, version=version)
        else:
            url = f"{ours}/{encode_key(media.key)}" + (f"?v={encode_key(version)}" if version else "")
        return _Unfit("the source has no address for it") if url is None else await self._fetched(asked, url)

    async def _presigned(self, asked: _Asked) -> Reference | _Unfit:
        if not isinstance(asked.source, Presigner):
            return _Unfit("the source signs no addresses")
        await asked.info()  # it has R2Client renew credentials that are about to expire
        url = asked.source.presign("GET", asked.media.key, expires=PRESIGNED_SECONDS)
        return await self._fetched(asked, url, is_secret=True)

    async def _fetched(self, asked: _Asked, url: str, *, is_secret: bool = False) -> Reference | _Unfit:
        if (
            not isinstance(cast("object", url), str)
            or _URL.fullmatch(url) is None
            or not urlsplit(url).netloc
        ):
            # Not shown: it may hold a secret.
            raise ConfigurationError(f"The address of {asked.media.key!r} is no http or https URL in ASCII.")
        info = await asked.info()
        reason = unfit_for_url(asked.media, info, url)
        if reason is not None:
            return _Unfit(reason)
        # A query that is signed anew each time would hide that it is the same object.
        bare = urlunsplit(urlsplit(url)._replace(query=""))
        parts = (bare, asked.media.key, info.etag or "") if is_secret else (url,)
        secrets = url_secrets(url) if is_secret else ()
        return Reference("url", digest_of("url", *parts), info.size, info.etag, url, secrets)


def _is_same(handle: Handle, *, etag: str | None, sha256: str | None) -> bool:
    """Whether the message was made of what the source has now, by the best evidence that both sides have."""
    sent_as = handle.details.get("source_sha256")
    if sha256 is not None and sent_as is not None:
        return bool(sent_as == sha256.lower())
    sent_etag = handle.details.get("source_etag")
    return etag is not None and sent_etag == etag
