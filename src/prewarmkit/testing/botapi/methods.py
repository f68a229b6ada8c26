"""The methods of the Bot API that this server has: a request's values in, an answer out.

No HTTP and no clock of its own; the only I/O is the journal that it is handed. What it answers for a case follows the
documentation and telegram-bot-api's source; methods that it does not have are answered as unknown ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve, field, frozen

from prewarmkit.media import MediaKind
from prewarmkit.testing.botapi import ids
from prewarmkit.testing.botapi.answers import (
    Answer,
    chat_object,
    error,
    media_fields,
    ok,
    photo_sizes,
    user_object,
)
from prewarmkit.testing.botapi.forms import Form, ReceivedFile
from prewarmkit.testing.botapi.kinds import becomes
from prewarmkit.testing.botapi.probe import Facts, probe
from prewarmkit.testing.botapi.state import ChatRefusal, State
from prewarmkit.testing.botapi.values import Fault, Send, Upload

__all__ = ["DOWNLOAD_LIMIT", "PHOTO_LIMIT", "Methods", "Query", "canonical", "sends_media"]

PHOTO_LIMIT = 10 * 1024 * 1024
DOWNLOAD_LIMIT = 20 * 1024 * 1024
_MAX_PIXELS_SUM = 10_000
_MAX_RATIO = 20

_SENDS: Mapping[str, MediaKind] = {
    "sendPhoto": MediaKind.PHOTO,
    "sendVideo": MediaKind.VIDEO,
    "sendAnimation": MediaKind.ANIMATION,
    "sendAudio": MediaKind.AUDIO,
    "sendVoice": MediaKind.VOICE,
    "sendVideoNote": MediaKind.VIDEO_NOTE,
    "sendSticker": MediaKind.STICKER,
    "sendDocument": MediaKind.DOCUMENT,
}
_NAMES = {name.lower(): name for name in (*_SENDS, "getMe", "getFile", "deleteMessage", "deleteMessages")}
_TRUE = frozenset({"true", "True", "yes", "1"})

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


def canonical(method: str) -> str:
    """The method as the documentation spells it; an unknown one as it came."""
    return _NAMES.get(method.lower(), method)


def sends_media(method: str) -> bool:
    """Whether this is one of the methods that send a medium."""
    return canonical(method) in _SENDS


class _UnknownMethod(Exception):
    """There is no such method here."""


class _Refused(Exception):
    """The request cannot be carried out."""

    def __init__(self, description: str) -> None:
        super().__init__(description)
        self.description = f"Bad Request: {description}"


@frozen(kw_only=True)
class Query:
    """One request of a bot whose token was good.

    Attributes:
        method: In its canonical spelling.
        bot_id: Whose it is.
        form: Parameters and files.
        content_length: The request's header.
        transfer_encoding: The request's header.
        fault: A fault that alters the answer.
    """

    method: str
    bot_id: int
    form: Form
    content_length: int | None = None
    transfer_encoding: str | None = None
    fault: Fault | None = None


@frozen(kw_only=True)
class Methods:
    """The methods over a state.

    Attributes:
        state: What they read and change.
        record: Told of each upload before it is answered.
        clock: POSIX seconds, for the messages' dates.
        strict_images: Whether a photo whose bytes are no image is refused.
    """

    state: State
    record: Callable[[Upload], None] = field(repr=False)
    clock: Callable[[], float] = field(repr=False)
    strict_images: bool = False

    def answer(self, query: Query) -> Answer:
        """Carry a request out."""
        try:
            return ok(self._result(query))
        except _UnknownMethod:
            return error(404, "Not Found")
        except _Refused as refused:
            return error(400, refused.description)
        except ChatRefusal as refused:
            moved = refused.migrate_to_chat_id
            parameters = {} if moved is None else {"migrate_to_chat_id": moved}
            return error(refused.status, refused.description, parameters)

    def _result(self, query: Query) -> Any:
        match query.method:
            case "getMe":
                return _me(query.bot_id)
            case "getFile":
                return self._get_file(query)
            case "deleteMessage":
                return self._delete(query, [_number(query, "message_id")])
            case "deleteMessages":
                return self._delete(query, _numbers(query, "message_ids"))
            case method if method in _SENDS:
                return self._send(query, _SENDS[method])
            case _:
                raise _UnknownMethod

    # ── sending ──────────────────────────────────────────────────────────────

    def _send(self, query: Query, asked: MediaKind) -> dict[str, Any]:
        given = _medium(query, asked)
        if isinstance(given, ReceivedFile):
            facts = self._fit(given, asked)
            chat_id = self.state.chat(query.form.fields.get("chat_id", ""))
            upload = self._keep(query, asked, given, facts, chat_id)
        else:
            upload = self._known(query, asked, given)
            chat_id = self.state.chat(query.form.fields.get("chat_id", ""))
            upload = self._keep_send(query, upload, chat_id)
        return self._message(query, upload)

    def _fit(self, file: ReceivedFile, asked: MediaKind) -> Facts:
        """What the file is, if it may be sent as asked."""
        if not file.size:
            raise _Refused("file must be non-empty")
        facts = probe(file.head, file.filename)
        if asked is MediaKind.PHOTO:
            if file.size > PHOTO_LIMIT:
                raise _Refused(
                    f"file of size {file.size} bytes is too big for a photo; the maximum size is {PHOTO_LIMIT} bytes"
                )
            if self.strict_images and not facts.width:
                raise _Refused("IMAGE_PROCESS_FAILED")
            low, high = sorted((facts.width, facts.height))
            if low + high > _MAX_PIXELS_SUM or high > low * _MAX_RATIO:
                raise _Refused("PHOTO_INVALID_DIMENSIONS")
        return facts

    def _keep(self, query: Query, asked: MediaKind, file: ReceivedFile, facts: Facts, chat_id: int) -> Upload:
        detect = query.form.fields.get("disable_content_type_detection", "") not in _TRUE
        kind = becomes(asked, facts, size=file.size, detect=detect)
        fault = query.fault
        if fault is not None and fault.substitute_kind is not None:
            kind = fault.substitute_kind
        message_id = 0 if fault is not None and fault.message_id_zero else self.state.next_message(chat_id)
        upload = Upload(
            method=query.method,
            bot_id=query.bot_id,
            chat_id=chat_id,
            kind=kind,
            filename=file.filename,
            content_type=file.content_type,
            size=file.size,
            sha256=file.sha256,
            file_id=ids.file_id(query.bot_id, kind, file.sha256),
            file_unique_id=ids.file_unique_id(kind, file.sha256),
            message_id=message_id,
            fields=_other_fields(query),
            content_length=query.content_length,
            transfer_encoding=query.transfer_encoding,
            width=_dimension(query, "width") or facts.width,
            height=_dimension(query, "height") or facts.height,
            duration=_dimension(query, "duration") or facts.duration,
        )
        if kind is MediaKind.PHOTO:
            heaviest = photo_sizes(upload)[-1]
            upload = evolve(upload, file_id=heaviest["file_id"], file_unique_id=heaviest["file_unique_id"])
        self.record(upload)
        self.state.keep(upload)
        self.state.received.append(upload)
        return upload

    def _known(self, query: Query, asked: MediaKind, file_id: str) -> Upload:
        upload = self.state.file(query.bot_id, file_id)
        if upload is None:
            raise _Refused("wrong file identifier/HTTP URL specified")
        # Only photos and all the rest are told apart; within the rest the stored kind decides what is shown.
        if (upload.kind is MediaKind.PHOTO) is not (asked is MediaKind.PHOTO):
            raise _Refused(f"can't use file of type {_TDLIB_TYPE[upload.kind]} as {_TDLIB_TYPE[asked]}")
        return upload

    def _keep_send(self, query: Query, upload: Upload, chat_id: int) -> Upload:
        message_id = self.state.next_message(chat_id)
        self.state.sends.append(
            Send(
                method=query.method,
                bot_id=query.bot_id,
                chat_id=chat_id,
                kind=upload.kind,
                file_id=upload.file_id,
                message_id=message_id,
                fields=_other_fields(query),
            )
        )
        return evolve(upload, chat_id=chat_id, message_id=message_id)

    def _message(self, query: Query, upload: Upload) -> dict[str, Any]:
        medium = media_fields(upload)
        if query.fault is not None:
            medium = _altered(medium, query.fault)
        caption = query.form.fields.get("caption")
        return {
            "message_id": upload.message_id,
            "from": user_object(query.bot_id),
            "chat": chat_object(upload.chat_id),
            "date": int(self.clock()),
            **medium,
            **({"caption": caption} if caption else {}),
        }

    # ── the rest ─────────────────────────────────────────────────────────────

    def _get_file(self, query: Query) -> dict[str, Any]:
        upload = self.state.file(query.bot_id, query.form.fields.get("file_id", ""))
        if upload is None:
            raise _Refused("invalid file_id")
        if upload.size > DOWNLOAD_LIMIT:
            raise _Refused("file is too big")
        return {
            "file_id": upload.file_id,
            "file_unique_id": upload.file_unique_id,
            "file_size": upload.size,
            "file_path": f"{upload.kind.value}s/{upload.file_unique_id}",
        }

    def _delete(self, query: Query, message_ids: list[int]) -> bool:
        chat_id = self.state.chat(query.form.fields.get("chat_id", ""))
        deleted = [self.state.delete_message(chat_id, message_id) for message_id in message_ids]
        if query.method == "deleteMessage" and not all(deleted):
            raise _Refused("message to delete not found")
        return True  # deleteMessages skips those that it does not find


def _me(bot_id: int) -> dict[str, Any]:
    return {
        **user_object(bot_id),
        "can_join_groups": True,
        "can_read_all_group_messages": False,
        "supports_inline_queries": False,
        "can_connect_to_business": False,
        "has_main_web_app": False,
    }


def _medium(query: Query, asked: MediaKind) -> ReceivedFile | str:
    """The file that came, or the ``file_id`` that was named."""
    name = asked.value
    missing = f"there is no {name.replace('_', ' ')} in the request"
    file = query.form.files.get(name)
    if file is not None:
        return file
    given = query.form.fields.get(name, "")
    if given.startswith("attach://"):
        file = query.form.files.get(given.removeprefix("attach://"))
        if file is None:
            raise _Refused(missing)
        return file
    if not given:
        raise _Refused(missing)
    if given.startswith(("http://", "https://")):
        # This server has no way out; to a client that is an address which cannot be fetched.
        raise _Refused("failed to get HTTP URL content")
    return given


def _other_fields(query: Query) -> dict[str, str]:
    skipped = {"chat_id", _SENDS[query.method].value}
    return {name: value for name, value in query.form.fields.items() if name not in skipped}


def _dimension(query: Query, name: str) -> int:
    given = query.form.fields.get(name, "")
    return int(given) if given.isascii() and given.isdigit() else 0


def _number(query: Query, name: str) -> int:
    try:
        return int(query.form.fields.get(name, ""))
    except ValueError:
        raise _Refused("message identifier is not specified") from None


def _numbers(query: Query, name: str) -> list[int]:
    try:
        return [int(number) for number in json.loads(query.form.fields.get(name, ""))]
    except (ValueError, TypeError):
        raise _Refused("message identifiers are not specified") from None


def _altered(medium: dict[str, Any], fault: Fault) -> dict[str, Any]:
    """The medium as a fault would have it."""
    if "photo" in medium:
        if fault.empty_photo_sizes:
            return {"photo": []}
        if fault.shuffle_photo_sizes:
            sizes: list[Any] = medium["photo"]
            medium = {"photo": [*sizes[1::2], *reversed(sizes[::2])]}
    return {name: _altered_ids(value, fault) for name, value in medium.items()}


def _altered_ids(value: Any, fault: Fault) -> Any:
    if isinstance(value, list):
        return [_altered_ids(item, fault) for item in value]  # pyright: ignore[reportUnknownVariableType] - JSON
    changed = dict(value)
    if fault.drop_unique_id:
        changed["file_unique_id"] = ""
    if fault.file_id_is_url:
        changed["file_id"] = "https://example.org/never-became-a-file"
    return changed
