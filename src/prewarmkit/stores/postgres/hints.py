"""What a NOTIFY says, and on which channel: that rows may be due, were settled, or have another handle.

A payload is at most 8,000 bytes, so rows are named one a message, and not at all if they are many.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection

from prewarmkit.media import MediaKind
from prewarmkit.stores.base import Hint, MediaId

__all__ = ["DUE", "SETTLED", "channel_of", "hint_of", "payloads_of"]

DUE, SETTLED, _ANY = "", "settled", "*"
_MOST_NAMED = 256
_LONGEST_BYTES = 7_900


def channel_of(schema: str) -> str:
    """The channel of a schema; a name that fits whatever the schema is called."""
    return f"prewarmkit_{hashlib.sha256(schema.encode()).hexdigest()[:16]}"


def payloads_of(changed: Collection[MediaId]) -> list[str]:
    """What to say when the handles of rows are not what they were."""
    if len(changed) > _MOST_NAMED:
        return [_ANY]
    named = [json.dumps([id_.target, id_.key, id_.kind.value], ensure_ascii=False) for id_ in changed]
    return named if all(len(name.encode()) <= _LONGEST_BYTES for name in named) else [_ANY]


def hint_of(payload: str) -> Hint:
    """What was said; what another version of this library says is taken for any change."""
    if payload == DUE:
        return Hint()
    if payload == SETTLED:
        return Hint(is_due=False)
    try:
        target, key, kind = json.loads(payload)
        return Hint(is_due=False, changed=[MediaId(target, key, MediaKind(kind))])
    except (ValueError, TypeError):
        return Hint(is_due=payload != _ANY, changed=None)
