"""Reading what a Bot API server answers, whatever it is.

Pure: a text and a status in, an `Answer` out. It never raises over a body that is no JSON,
for proxies in front of the API answer with pages of their own.
"""

from __future__ import annotations

import json
import re
from typing import Any, cast

from attrs import field, frozen

__all__ = ["Answer", "parse_answer"]

_RETRY_AFTER = re.compile(r"retry after ([0-9]{1,20})", re.IGNORECASE)
_SNIPPET = 120
_LONGEST_SECONDS = 14 * 24 * 3600
"""What the Bot API server itself can say; a number beyond it is nonsense, and may not even fit a float."""
_WHOLE = re.compile(r"\s*-?[0-9]{1,20}\s*", re.ASCII)


@frozen
class Answer:
    """One answer.

    Attributes:
        status: The HTTP status.
        is_json: Whether the body was the JSON object that the Bot API answers with.
        ok: What the server says of its own success.
        result: What was asked for; ``None`` unless `ok`.
        description: The error's text, or the start of a body that is no JSON.
        retry_after: Seconds to keep quiet, from the body, the header or the text, in that order.
        migrate_to: The chat's new id.
    """

    status: int
    is_json: bool
    ok: bool = False
    result: object = field(default=None, repr=False)
    description: str = ""
    retry_after: float | None = None
    migrate_to: int | None = None

    @property
    def message(self) -> dict[str, Any] | None:
        """The object that was asked for; ``None`` if there is none."""
        result = self.result
        return cast("dict[str, Any]", result) if isinstance(result, dict) else None

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The objects of a list that was asked for, in no order that means anything."""
        result = self.result
        items = cast("list[object]", result) if isinstance(result, list) else []
        return [cast("dict[str, Any]", item) for item in items if isinstance(item, dict)]


def _number(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    return None


def _retry_after(parameters: dict[str, Any], header: str | None, description: str) -> float | None:
    for stated in (parameters.get("retry_after"), header):
        seconds = _number(stated)
        if seconds is not None and seconds >= 0:
            return float(min(seconds, _LONGEST_SECONDS))
    found = _RETRY_AFTER.search(description)
    return float(min(int(found.group(1)), _LONGEST_SECONDS)) if found else None


def parse_answer(status: int, body: str, *, retry_after: str | None = None) -> Answer:
    """The answer in ``body``.

    Args:
        status: The HTTP status.
        body: The whole body.
        retry_after: The ``retry-after`` header.
    """
    try:
        # RecursionError: a body of nothing but brackets.
        loaded: Any = json.loads(body)
    except (ValueError, RecursionError):
        loaded = None
    if not isinstance(loaded, dict) or not isinstance(cast("dict[str, Any]", loaded).get("ok"), bool):
        snippet = " ".join(body[:_SNIPPET].split())
        return Answer(
            status, is_json=False, description=snippet, retry_after=_retry_after({}, retry_after, "")
        )
    answer = cast("dict[str, Any]", loaded)
    stated = answer.get("parameters")
    parameters = cast("dict[str, Any]", stated) if isinstance(stated, dict) else {}
    text = answer.get("description")
    description = text if isinstance(text, str) else ""
    ok = bool(answer["ok"])
    return Answer(
        status,
        is_json=True,
        ok=ok,
        result=answer.get("result") if ok else None,
        description=description,
        retry_after=None if ok else _retry_after(parameters, retry_after, description),
        migrate_to=_number(parameters.get("migrate_to_chat_id")),
    )
