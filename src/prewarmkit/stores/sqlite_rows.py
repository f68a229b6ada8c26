"""How values become columns of ``media_cache`` in SQLite, and columns become values."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from prewarmkit.media import Handle, Media, MediaKind, Warmed
from prewarmkit.stores.base import Lease, Looked, MediaId, Row
from prewarmkit.stores.clock import Moment
from prewarmkit.stores.lifecycle import State
from prewarmkit.stores.rules import moment

__all__ = [
    "as_handle",
    "as_lease",
    "as_looked",
    "as_media",
    "as_row",
    "handle_columns",
    "id_columns",
    "id_of",
    "json_list",
    "media_columns",
    "warmed_columns",
]


def id_columns(id_: MediaId) -> dict[str, Any]:
    """The columns that name a row."""
    return {"target": id_.target, "media_key": id_.key, "kind": id_.kind.value}


def media_columns(media: Media) -> dict[str, Any]:
    """The columns of version and hints."""
    return {
        "size": media.size,
        "etag": media.etag,
        "sha256": media.sha256,
        "content_type": media.content_type,
        "filename": media.filename,
    }


_HANDLE = ("handle", "handle_kind", "unique_id", "weak", "details", "warmed_at", "expires_at", "renew_at")


def handle_columns(row: sqlite3.Row) -> dict[str, Any]:
    """The columns of a handle, as another row has them."""
    return {name: row[name] for name in _HANDLE}


def warmed_columns(warmed: Warmed, asked: MediaKind, wall: float) -> dict[str, Any]:
    """The columns of the handle that a target just gave for a row of that kind."""
    return {
        "handle": warmed.handle,
        "handle_kind": (warmed.kind or asked).value,
        "unique_id": warmed.unique_id,
        "weak": _json(warmed.weak, "[]"),
        "details": _json(dict(warmed.details), "{}"),
        "warmed_at": wall,
        "expires_at": _seconds(warmed.expires_at),
    }


def json_list(values: Collection[str] | None) -> str | None:
    """A list for ``json_each``; ``None`` stays ``None``, which matches any."""
    return None if values is None else json.dumps(list(values))


def id_of(row: sqlite3.Row) -> MediaId:
    """The row's identity."""
    return MediaId(row["target"], row["media_key"], MediaKind(row["kind"]))


def as_media(row: sqlite3.Row) -> Media:
    """Version and hints, as enqueued."""
    return Media(
        row["media_key"],
        MediaKind(row["kind"]),
        size=row["size"],
        etag=row["etag"],
        sha256=row["sha256"],
        content_type=row["content_type"],
        filename=row["filename"],
    )


def as_handle(row: sqlite3.Row, at: Moment) -> Handle | None:
    """The handle, with `stale` told truly; ``None`` if there is none."""
    if row["handle"] is None:
        return None
    expires = row["expires_at"]
    return Handle(
        row["handle"],
        MediaKind(row["handle_kind"]),
        row["target"],
        row["media_key"],
        unique_id=row["unique_id"],
        weak=() if row["weak"] == "[]" else tuple(json.loads(row["weak"])),
        stale=bool(row["stale"]) or (expires is not None and expires <= at.wall),
        warmed_at=_moment(row["warmed_at"]),
        expires_at=_moment(expires),
        details={} if row["details"] == "{}" else json.loads(row["details"]),
    )


def as_lease(row: Sequence[Any], token: int, now: float) -> Lease:
    """A row that was just leased; its columns as the query ``lease`` gives them."""
    _, target, key, kind_, attempts, priority, due_at, size, etag, sha256, content_type, filename = row
    kind = MediaKind(kind_)
    media = Media(
        key, kind, size=size, etag=etag, sha256=sha256, content_type=content_type, filename=filename
    )
    return Lease(MediaId(target, key, kind), token, attempts, media, priority, max(0.0, now - due_at))


def as_looked(row: sqlite3.Row, at: Moment) -> Looked:
    """What a look-up tells."""
    state = State(row["state"])
    return Looked(
        state=state,
        handle=as_handle(row, at),
        reason=row["reason"],
        attempts=row["attempts"],
        due_in=max(0.0, row["due_at"] - at.now) if state is State.PENDING else 0.0,
        failed_ago=at.now - row["updated_at"] if state is State.FAILED else None,
        media=as_media(row),
    )


def as_row(row: sqlite3.Row, at: Moment) -> Row:
    """A row for people who look."""
    state = State(row["state"])
    return Row(
        id=id_of(row),
        state=state,
        priority=row["priority"],
        attempts=row["attempts"],
        due_in=row["due_at"] - at.now if state is State.PENDING else None,
        lease_left=row["lease_until"] - at.now if state is State.WARMING else None,
        reason=row["reason"],
        handle=as_handle(row, at),
        media=as_media(row),
        updated_at=moment(at.on_calendar(row["updated_at"])),
        cursor=str(row["id"]),
        renew_in=None if row["renew_at"] is None else row["renew_at"] - at.now,
    )


def _json(values: Collection[Any], nothing: str) -> str:
    """JSON; ``nothing`` is that of no values, which is what most rows have."""
    return json.dumps(values) if values else nothing


def _seconds(when: datetime | None) -> float | None:
    return None if when is None else when.timestamp()


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else moment(seconds)
