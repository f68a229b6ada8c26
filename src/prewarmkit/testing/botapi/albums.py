"""Albums, forwards and copies: messages made of several media, or of other messages. Pure but for what `Sending` does."""

from __future__ import annotations

from typing import Any, Literal

from attrs import evolve

from prewarmkit.media import MediaKind
from prewarmkit.testing.botapi.answers import identified, shuffled, user_object
from prewarmkit.testing.botapi.query import TRUE, Query, Refused, album_items
from prewarmkit.testing.botapi.sending import Piece, Sending
from prewarmkit.testing.botapi.values import Upload

__all__ = ["copy_message", "forward_message", "send_album"]

_MOST_ITEMS = 10
_ALBUM_KINDS = {
    kind.value: kind for kind in (MediaKind.PHOTO, MediaKind.VIDEO, MediaKind.AUDIO, MediaKind.DOCUMENT)
}
_ALONE = (MediaKind.AUDIO, MediaKind.DOCUMENT)
_OF_THE_ITEM = {"type", "media"}
_OF_THE_REQUEST = {"chat_id", "media"}
_OF_A_FORWARD = {"chat_id", "from_chat_id", "message_id"}


def send_album(sending: Sending, query: Query) -> list[dict[str, Any]]:
    """Carry out ``sendMediaGroup``.

    As in the server's source, the messages are told in the order in which they were completed, and one that fails makes an
    error of the whole answer, though the others stand in the chat.
    """
    pieces = _pieces(sending, query)
    chat_id = sending.state.chat(query.text("chat_id"), query.bot_id)
    sending.floods.take(query.bot_id, chat_id, messages=len(pieces))
    # One item is sent as a message outside of any album.
    group = sending.state.next_album() if len(pieces) > 1 else ""
    fault = query.fault
    done: list[Upload] = []
    failed: str | None = None
    is_shuffled = fault is not None and fault.shuffle_album
    numbered = list(enumerate(pieces, start=1))
    for position, (number, piece) in enumerate(shuffled(numbered) if is_shuffled else numbered, start=1):
        failure = piece.failure
        if fault is not None and fault.fail_album_item == number:
            failure = fault.description or "MEDIA_INVALID"
        if failure:
            text = f'failed to send message #{position} with the error message "{failure}"'
            failed = failed or text
        else:
            done.append(sending.put(query, piece, chat_id, media_group_id=group))
    if failed is not None:
        raise Refused(failed)
    return [sending.message(query, upload, upload.fields) for upload in done]


def _pieces(sending: Sending, query: Query) -> list[Piece]:
    items = album_items(query.form)
    if not items:
        raise Refused("there are no messages to send")
    if len(items) > _MOST_ITEMS:
        raise Refused("too many messages to send as an album")
    kinds = [_ALBUM_KINDS.get(item.get("type", "")) for item in items]
    if None in kinds:
        raise Refused("can't use the media of the specified type in the album")
    for alone in _ALONE:
        if alone in kinds and set(kinds) != {alone}:
            raise Refused(f"{alone.value} can't be mixed with other media types")
    shared = {name: value for name, value in query.form.fields.items() if name not in _OF_THE_REQUEST}
    pieces: list[Piece] = []
    for item, asked in zip(items, kinds, strict=True):
        assert asked is not None
        fields = {**shared, **{name: value for name, value in item.items() if name not in _OF_THE_ITEM}}
        piece = sending.piece(
            query,
            asked,
            item.get("media", ""),
            fields=fields,
            missing="can't parse InputMedia: media not found",
        )
        pieces.append(_as_item(piece, asked, query))
    return pieces


def _as_item(piece: Piece, asked: MediaKind, query: Query) -> Piece:
    """What no album can hold stays what was asked, as a film without sound does."""
    is_substituted = query.fault is not None and query.fault.substitute_kind is not None
    if is_substituted or piece.known is not None or piece.kind.value in _ALBUM_KINDS:
        return piece
    return evolve(piece, kind=asked)


def forward_message(sending: Sending, query: Query) -> dict[str, Any]:
    """Carry out ``forwardMessage``: the answer has the forwarding bot's own ``file_id``, and no bytes were sent."""
    original, kept = _again(sending, query, what="forward")
    origin = {
        "type": "user",
        "date": int(sending.dates()),
        "sender_user": user_object(original.bot_id),
    }
    return {**sending.message(query, kept, kept.fields), "forward_origin": origin}


def copy_message(sending: Sending, query: Query) -> dict[str, Any]:
    """Carry out ``copyMessage``, whose answer is a number alone: no ``file_id`` is learnt from it."""
    return {"message_id": _again(sending, query, what="copy")[1].message_id}


def _again(sending: Sending, query: Query, *, what: Literal["forward", "copy"]) -> tuple[Upload, Upload]:
    """A message, and the one that was made of it for the bot that asks."""
    state = sending.state
    chat_id = state.chat(query.text("chat_id"), query.bot_id)
    from_chat_id = state.chat(query.text("from_chat_id"), query.bot_id)
    original = state.message(query.bot_id, from_chat_id, query.number("message_id"))
    if original is None:
        raise Refused(f"message to {what} not found")
    if original.fields.get("protect_content") in TRUE:
        raise Refused("message can't be forwarded" if what == "forward" else "message can't be copied")
    sending.floods.take(query.bot_id, chat_id)
    caption = {name: value for name, value in original.fields.items() if name == "caption"}
    own = {name: value for name, value in query.form.fields.items() if name not in _OF_A_FORWARD}
    kept = identified(
        evolve(
            original,
            method=query.method,
            bot_id=query.bot_id,
            chat_id=chat_id,
            message_id=state.next_message(chat_id),
            fields={**caption, **own},
            content_length=None,
            transfer_encoding=None,
            route=what,
            source="",
            media_group_id="",
            at=sending.clock(),
        )
    )
    sending.record(kept)
    return original, sending.keep_send(query, kept, route=what)
