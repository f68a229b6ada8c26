"""How values become parameters of PostgreSQL's queries, and its rows become values.

The rows come from our own table, whose values were checked when they went in: they are put
into place without being checked again, which is most of what a look-up of many costs.
This file knows the columns of the queries and no connection.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from prewarmkit.media import Handle, Media, MediaKind
from prewarmkit.stores.base import Job, Lease, Looked, MediaId, Row
from prewarmkit.stores.lifecycle import State
from prewarmkit.stores.rules import moment

__all__ = [
    "as_lease",
    "as_looked",
    "as_media",
    "as_row",
    "cursor_of",
    "details_text",
    "id_arrays",
    "is_text",
    "job_arrays",
    "media_arrays",
    "number_array",
    "place_after",
    "text_array",
    "weak_text",
]

Columns = Sequence[Any]

_KINDS = {kind.value: kind for kind in MediaKind}
_STATES = {state.value: state for state in State}


# ── parameters ───────────────────────────────────────────────────────────────


def text_array(values: Iterable[str | None]) -> str:
    """PostgreSQL's own notation of an array of texts, for a parameter that is cast to one.

    A parameter, so nothing in it can be taken for SQL. Much faster than one dumper an element.
    """
    return "{" + ",".join(map(_element, values)) + "}"


def _element(value: str | None) -> str:
    if value is None:
        return "NULL"
    if "\\" in value or '"' in value:
        value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{value}"'


def number_array(values: Iterable[float | None]) -> str:
    """The same of numbers."""
    return "{" + ",".join(["NULL" if value is None else repr(value) for value in values]) + "}"


def id_arrays(ids: Sequence[MediaId]) -> list[str]:
    """Targets, keys, kinds."""
    return [
        text_array([id_[0] for id_ in ids]),
        text_array([id_[1] for id_ in ids]),
        text_array([id_[2].value for id_ in ids]),
    ]


def media_arrays(media: Sequence[Media]) -> list[str]:
    """Sizes, ETags, SHA-256s, content types, file names."""
    return [
        number_array([each.size for each in media]),
        text_array([each.etag for each in media]),
        text_array([each.sha256 for each in media]),
        text_array([each.content_type for each in media]),
        text_array([each.filename for each in media]),
    ]


def job_arrays(jobs: Sequence[Job]) -> list[str]:
    """The parameters of ``insert``."""
    media = [job.media for job in jobs]
    return [
        text_array([job.target for job in jobs]),
        text_array([each.key for each in media]),
        text_array([each.kind.value for each in media]),
        number_array([job.priority for job in jobs]),
        number_array([job.delay for job in jobs]),
        *media_arrays(media),
    ]


def is_text(value: str | None) -> bool:
    """Whether PostgreSQL can keep it: Unicode, and no NUL."""
    if value is None:
        return True
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def details_text(details: Any) -> str | None:
    """Details as JSON; what JSON does not know is kept as text, since they are for people."""
    if not details:
        return None
    facts = dict(details)
    try:
        return json.dumps(facts, allow_nan=False)
    except (TypeError, ValueError):
        return json.dumps({str(name): str(value) for name, value in facts.items()})


def weak_text(weak: Sequence[str]) -> str | None:
    """Reasons as JSON; none are none."""
    return json.dumps(weak) if weak else None


# ── rows ─────────────────────────────────────────────────────────────────────


def _setters(cls: type, *names: str) -> tuple[Callable[[Any, Any], None], ...]:
    return tuple(getattr(cls, name).__set__ for name in names)


# fmt: off
_set_key, _set_kind, _set_size, _set_etag, _set_sha256, _set_type, _set_name = _setters(
    Media, "key", "kind", "size", "etag", "sha256", "content_type", "filename")
(_set_value, _set_as, _set_target, _set_of, _set_unique_id, _set_weak, _set_stale, _set_warmed_at, _set_expires_at,
 _set_details) = _setters(
    Handle, "value", "kind", "target", "key", "unique_id", "weak", "stale", "warmed_at", "expires_at", "details")
_set_state, _set_handle, _set_reason, _set_attempts, _set_due_in, _set_failed_ago, _set_media = _setters(
    Looked, "state", "handle", "reason", "attempts", "due_in", "failed_ago", "media")
# fmt: on
_new = object.__new__


def as_media(
    key: str,
    kind: MediaKind,
    size: int | None,
    etag: str | None,
    sha256: str | None,
    content_type: str | None,
    filename: str | None,
) -> Media:
    """A medium as it was enqueued."""
    media: Media = _new(Media)
    _set_key(media, key)
    _set_kind(media, kind)
    _set_size(media, size)
    _set_etag(media, etag)
    _set_sha256(media, sha256)
    _set_type(media, content_type)
    _set_name(media, filename)
    return media


def as_lease(row: Columns) -> Lease:
    """A row that was just leased: place, id, token, attempts, priority, waited, facts."""
    _, target, key, kind_name, token, attempts, priority, waited, *facts = row
    kind = _KINDS[kind_name]
    media = as_media(key, kind, *facts)
    return Lease(MediaId(target, key, kind), token, attempts, media, priority, max(0.0, waited))


def as_looked(id_: MediaId, row: Columns) -> Looked:
    """What a look-up tells: the columns ``looked``."""
    # fmt: off
    (_, state, reason, attempts, due_in, failed_ago, size, etag, sha256, content_type, filename,
     value, delivered, unique_id, weak, details, stale, warmed_at, expires_at) = row
    # fmt: on
    target, key, kind = id_
    handle: Handle | None = None
    if value is not None:
        handle = _new(Handle)
        _set_value(handle, value)
        _set_as(handle, kind if delivered is None else _KINDS[delivered])
        _set_target(handle, target)
        _set_of(handle, key)
        _set_unique_id(handle, unique_id)
        _set_weak(handle, () if weak is None else tuple(json.loads(weak)))
        _set_stale(handle, stale)
        _set_warmed_at(handle, None if warmed_at is None else datetime.fromtimestamp(warmed_at, UTC))
        _set_expires_at(handle, None if expires_at is None else datetime.fromtimestamp(expires_at, UTC))
        _set_details(handle, {} if details is None else json.loads(details))
    looked: Looked = _new(Looked)
    _set_state(looked, _STATES[state])
    _set_handle(looked, handle)
    _set_reason(looked, reason)
    _set_attempts(looked, attempts)
    _set_due_in(looked, 0.0 if due_in is None or due_in < 0 else due_in)
    _set_failed_ago(looked, failed_ago)
    _set_media(looked, as_media(key, kind, size, etag, sha256, content_type, filename))
    return looked


def as_row(row: Columns) -> Row:
    """A row for people who look: the columns of ``list``."""
    target, key, kind, priority, lease_left, updated_at, renew_in = row[19:26]
    id_ = MediaId(target, key, _KINDS[kind])
    looked = as_looked(id_, row[:19])
    assert looked.media is not None  # as_looked gives one
    return Row(
        id=id_,
        state=looked.state,
        priority=priority,
        attempts=looked.attempts,
        due_in=row[4],
        lease_left=lease_left if looked.state is State.WARMING else None,
        reason=looked.reason,
        handle=looked.handle,
        media=looked.media,
        updated_at=moment(updated_at),
        cursor=cursor_of(id_),
        renew_in=renew_in,
    )


def cursor_of(id_: MediaId) -> str:
    """Where a listing goes on after a row."""
    return json.dumps([id_.target, id_.key, id_.kind.value], ensure_ascii=False)


def place_after(cursor: str | None) -> list[str]:
    """Target, key and kind of the row that a cursor stands behind.

    Raises:
        ValueError: No store gave this cursor.
    """
    if cursor is None:
        return ["", "", ""]
    try:
        target, key, kind = json.loads(cursor)
    except (ValueError, TypeError):
        raise ValueError("after= is the cursor of a listed row; this is none.") from None
    return [str(target), str(key), str(kind)]
