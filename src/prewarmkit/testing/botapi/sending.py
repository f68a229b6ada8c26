"""Putting media into chats: one medium looked through, kept as a message, and told in an answer.

Knows nothing of HTTP; albums and forwards are made of the same pieces in ``albums``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from attrs import evolve, field, frozen

from prewarmkit.media import MediaKind
from prewarmkit.testing.botapi.answers import (
    altered,
    chat_object,
    identified,
    media_fields,
    user_object,
)
from prewarmkit.testing.botapi.forms import ReceivedFile
from prewarmkit.testing.botapi.kinds import becomes
from prewarmkit.testing.botapi.limits import Floods
from prewarmkit.testing.botapi.materials import is_local_path
from prewarmkit.testing.botapi.probe import Facts, probe
from prewarmkit.testing.botapi.query import SENDS, TRUE, Query, Refused
from prewarmkit.testing.botapi.state import State
from prewarmkit.testing.botapi.urls import (
    CURL_FAILED,
    MEDIA_EMPTY,
    becomes_by_url,
    is_url,
)
from prewarmkit.testing.botapi.values import Route, Send, Upload

__all__ = ["PHOTO_LIMIT", "Piece", "Sending", "in_words"]

PHOTO_LIMIT = 10 * 1024 * 1024
_MAX_PIXELS_SUM = 10_000
_MAX_RATIO = 20

_TDLIB_TYPE = {
    MediaKind.PHOTO: "Photo",
    MediaKind.VIDEO: "Video",
    MediaKind.ANIMATION: "Animation",
    MediaKind.AUDIO: "Audio",
    MediaKind.VOICE: "VoiceNote",
    MediaKind.VIDEO_NOTE: "VideoNote",
    MediaKind.STICKER: "Sticker",
    MediaKind.DOCUMENT: "Document",
}
_WORDS: Mapping[str, str] = MappingProxyType(
    {
        CURL_FAILED: "failed to get HTTP URL content",
        MEDIA_EMPTY: "wrong type of the web page content",
    }
)


def in_words(reason: str) -> str:
    """Telegram's name of an error as the Bot API server words it; within an album's error it stays a name."""
    return _WORDS.get(reason, reason)


@frozen(kw_only=True)
class Piece:
    """One medium that a request brings or names, with all that a message needs.

    Attributes:
        kind: What it becomes.
        fields: The parameters of its message, without the chat and the medium.
        file: Its bytes; ``None``: they are known already.
        facts: What the bytes are.
        known: The upload that a ``file_id`` stands for.
        route: How it came.
        source: Its address or path.
        failure: Why Telegram's servers could not make a message of it.
    """

    kind: MediaKind
    fields: Mapping[str, str]
    file: ReceivedFile | None = None
    facts: Facts = field(factory=lambda: Facts(container=""))
    known: Upload | None = None
    route: Route = "multipart"
    source: str = ""
    failure: str = ""


@frozen(kw_only=True)
class Sending:
    """What all sends share.

    Attributes:
        state: What they read and change.
        floods: What is let through.
        record: Told of each upload before it is answered.
        dates: POSIX seconds, for the messages' dates.
        clock: Seconds, for the journal.
        strict_images: Whether a photo whose bytes are no image is refused.
        local: Whether the server was started with ``--local``.
    """

    state: State
    floods: Floods
    record: Callable[[Upload], None] = field(repr=False)
    dates: Callable[[], float] = field(repr=False)
    clock: Callable[[], float] = field(repr=False)
    strict_images: bool = False
    local: bool = False

    def send(self, query: Query) -> dict[str, Any]:
        """Carry a method out that sends one medium."""
        asked = SENDS[query.method]
        missing = f"there is no {asked.value.replace('_', ' ')} in the request"
        skipped = {"chat_id", asked.value}
        fields = {name: value for name, value in query.form.fields.items() if name not in skipped}
        attached = query.form.files.get(asked.value)
        piece = self.piece(query, asked, attached or query.text(asked.value), fields=fields, missing=missing)
        chat_id = self.state.chat(query.text("chat_id"), query.bot_id)
        if piece.failure:
            raise Refused(in_words(piece.failure))
        self.floods.take(query.bot_id, chat_id)
        return self.message(query, self.put(query, piece, chat_id), fields)

    # ── the medium ───────────────────────────────────────────────────────────

    def piece(
        self,
        query: Query,
        asked: MediaKind,
        given: ReceivedFile | str,
        *,
        fields: Mapping[str, str],
        missing: str,
    ) -> Piece:
        """The medium that came or was named.

        Args:
            query: The request.
            asked: The kind that it is to be.
            given: The file, or what was named: ``attach://``, an address, a path, a ``file_id``.
            fields: The parameters of its message.
            missing: What is said where there is nothing.

        Raises:
            Refused: It is none, or may not be sent as asked.
        """
        if isinstance(given, str) and given.startswith("attach://"):
            given = query.form.files.get(given.removeprefix("attach://"), "")
        if not given:
            raise Refused(missing)
        if isinstance(given, ReceivedFile):
            return self._by_bytes(query, asked, given, fields=fields)
        if is_url(given):
            return self._by_url(query, asked, given, fields=fields)
        if is_local_path(given):
            if not self.local:
                raise Refused("wrong remote file identifier specified: Wrong character in the string")
            found = query.materials[given]
            if isinstance(found, str):
                raise Refused(found)
            piece = self._by_bytes(query, asked, found, fields=fields)
            return evolve(piece, route="local_path", source=given)
        known = self._known(query, asked, given)
        return Piece(kind=known.kind, fields=fields, known=known, route="file_id")

    def _by_bytes(
        self, query: Query, asked: MediaKind, file: ReceivedFile, *, fields: Mapping[str, str]
    ) -> Piece:
        if not file.size:
            raise Refused("file must be non-empty")
        if asked is MediaKind.PHOTO and file.size > PHOTO_LIMIT:
            raise Refused(
                f"file of size {file.size} bytes is too big for a photo; the maximum size is {PHOTO_LIMIT} bytes"
            )
        facts = probe(file.head, file.filename)
        detect = fields.get("disable_content_type_detection", "") not in TRUE
        kind = becomes(asked, facts, size=file.size, detect=detect)
        return Piece(
            kind=_substituted(query, kind),
            fields=fields,
            file=file,
            facts=facts,
            failure=self._unfit_photo(asked, facts),
        )

    def _by_url(self, query: Query, asked: MediaKind, url: str, *, fields: Mapping[str, str]) -> Piece:
        found = query.materials[url]
        if isinstance(found, str):
            if found != CURL_FAILED:
                raise Refused(found)  # nobody was asked
            return Piece(kind=asked, fields=fields, route="url", source=url, failure=found)
        facts = probe(found.head, found.filename)
        kind = becomes_by_url(asked, found, facts)
        failure = self._unfit_photo(asked, facts)
        if not isinstance(kind, MediaKind):
            kind, failure = asked, kind
        return Piece(
            kind=_substituted(query, kind),
            fields=fields,
            file=found,
            facts=facts,
            route="url",
            source=url,
            failure=failure,
        )

    def _unfit_photo(self, asked: MediaKind, facts: Facts) -> str:
        if asked is not MediaKind.PHOTO:
            return ""
        if self.strict_images and not facts.width:
            return "IMAGE_PROCESS_FAILED"
        low, high = sorted((facts.width, facts.height))
        too_long = low + high > _MAX_PIXELS_SUM or high > low * _MAX_RATIO
        return "PHOTO_INVALID_DIMENSIONS" if too_long else ""

    def _known(self, query: Query, asked: MediaKind, file_id: str) -> Upload:
        upload = self.state.file(query.bot_id, file_id)
        if upload is None:
            raise Refused("wrong file identifier/HTTP URL specified")
        # Only photos and all the rest are told apart; within the rest the stored kind decides what is shown.
        if (upload.kind is MediaKind.PHOTO) is not (asked is MediaKind.PHOTO):
            raise Refused(f"can't use file of type {_TDLIB_TYPE[upload.kind]} as {_TDLIB_TYPE[asked]}")
        return upload

    # ── the message ──────────────────────────────────────────────────────────

    def put(self, query: Query, piece: Piece, chat_id: int, *, media_group_id: str = "") -> Upload:
        """Keep a piece as a message of that chat."""
        if piece.known is not None:
            message_id = self.state.next_message(chat_id)
            again = evolve(
                piece.known,
                chat_id=chat_id,
                message_id=message_id,
                fields=piece.fields,
                media_group_id=media_group_id,
            )
            return self.keep_send(query, again, route="file_id")
        assert piece.file is not None  # a piece without bytes and without a handle has failed
        file = piece.file
        is_zero = query.fault is not None and query.fault.message_id_zero
        upload = identified(
            Upload(
                method=query.method,
                bot_id=query.bot_id,
                chat_id=chat_id,
                kind=piece.kind,
                filename=file.filename,
                content_type=file.content_type,
                size=file.size,
                sha256=file.sha256,
                file_id="",
                file_unique_id="",
                message_id=0 if is_zero else self.state.next_message(chat_id),
                fields=piece.fields,
                content_length=query.content_length if piece.route == "multipart" else None,
                transfer_encoding=query.transfer_encoding if piece.route == "multipart" else None,
                width=_dimension(piece.fields, "width") or piece.facts.width,
                height=_dimension(piece.fields, "height") or piece.facts.height,
                duration=_dimension(piece.fields, "duration") or piece.facts.duration,
                route=piece.route,
                source=piece.source,
                media_group_id=media_group_id,
                at=self.clock(),
            )
        )
        self.record(upload)
        self.state.keep(upload)
        self.state.journal.append(upload)
        return upload

    def keep_send(self, query: Query, upload: Upload, *, route: Route) -> Upload:
        """Keep a message whose bytes Telegram has already."""
        self.state.keep(upload)
        self.state.journal.append(
            Send(
                method=query.method,
                bot_id=query.bot_id,
                chat_id=upload.chat_id,
                kind=upload.kind,
                file_id=upload.file_id,
                message_id=upload.message_id,
                fields=upload.fields,
                route=route,
                media_group_id=upload.media_group_id,
                sha256=upload.sha256,
                at=self.clock(),
            )
        )
        return upload

    def message(self, query: Query, upload: Upload, fields: Mapping[str, str]) -> dict[str, Any]:
        """The ``Message`` that a kept one is."""
        medium = media_fields(upload)
        if query.fault is not None:
            medium = altered(medium, query.fault, source=upload.source)
        caption = fields.get("caption")
        return {
            "message_id": upload.message_id,
            "from": user_object(query.bot_id),
            "chat": chat_object(upload.chat_id),
            "date": int(self.dates()),
            **({"media_group_id": upload.media_group_id} if upload.media_group_id else {}),
            **({"has_protected_content": True} if fields.get("protect_content") in TRUE else {}),
            **medium,
            **({"caption": caption} if caption else {}),
        }


def _substituted(query: Query, kind: MediaKind) -> MediaKind:
    fault = query.fault
    return kind if fault is None or fault.substitute_kind is None else fault.substitute_kind


def _dimension(fields: Mapping[str, str], name: str) -> int:
    given = fields.get(name, "")
    return int(given) if given.isascii() and given.isdigit() else 0
