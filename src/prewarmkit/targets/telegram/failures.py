"""What a refusal of the Bot API means: its texts as a table, and the failure for each.

Pure. The texts are stable in the server's source, while the documentation calls its
``error_code`` subject to change, so the text decides wherever there is one.
"""

from __future__ import annotations

import re
from enum import Enum, auto

from attrs import frozen

from prewarmkit.errors import (
    ChatDead,
    MediaUnfit,
    Moved,
    RateLimited,
    RouteUnfit,
    TargetDown,
    TargetFailure,
    TooLarge,
    Transient,
)
from prewarmkit.targets.telegram.answers import Answer

__all__ = ["DEFAULT_RETRY_AFTER", "Verdict", "classify", "failure_of"]

DEFAULT_RETRY_AFTER = 5.0
"""Seconds to keep quiet after a 429 that names none."""


class Verdict(Enum):
    """What a refusal is about."""

    RATE_LIMITED = auto()
    MOVED = auto()
    TOO_LARGE = auto()
    TOKEN_REFUSED = auto()
    CHAT_DEAD = auto()
    BAD_HANDLE = auto()
    ROUTE_UNFIT = auto()
    MEDIA_UNFIT = auto()
    TRANSIENT = auto()
    REFUSED = auto()


@frozen
class _Rule:
    """One row: the status, if it matters, and a text, if it matters, that give the verdict."""

    verdict: Verdict
    text: re.Pattern[str] | None = None
    status: int | None = None

    def holds(self, answer: Answer) -> bool:
        return (self.status is None or self.status == answer.status) and (
            self.text is None or self.text.search(answer.description) is not None
        )


def _any_of(*texts: str) -> re.Pattern[str]:
    return re.compile("|".join(texts), re.IGNORECASE)


_RULES = (
    _Rule(Verdict.RATE_LIMITED, status=429),
    _Rule(Verdict.RATE_LIMITED, _any_of(r"retry after \d+")),
    _Rule(Verdict.TOO_LARGE, status=413),
    _Rule(Verdict.TOKEN_REFUSED, status=401),
    # Only a path is ever "not found": the token in it is malformed, or api_base is no Bot API.
    _Rule(Verdict.TOKEN_REFUSED, status=404),
    _Rule(Verdict.CHAT_DEAD, status=403),
    _Rule(
        Verdict.CHAT_DEAD,
        _any_of(
            "chat not found",
            "group chat was (deleted|deactivated|upgraded)",
            "bot was (kicked|blocked)",
            "bot is not a (member|participant)",
            "user is deactivated",
            "not enough rights to send",
            "have no rights to send",
            "need administrator rights",
            "chat_write_forbidden",
            "chat_restricted",
            "peer_id_invalid",
        ),
    ),
    _Rule(
        Verdict.BAD_HANDLE,
        _any_of(
            "wrong file identifier",
            "wrong remote file identifier",
            r"can't use file of type .+ as",
            "invalid file_id",
            "wrong file_id",
        ),
    ),
    _Rule(
        Verdict.ROUTE_UNFIT,
        _any_of(
            "failed to get http url content",
            "webpage_curl_failed",
            "wrong type of the web page content",
            "webpage_media_empty",
            "wrong http url specified",
            "can't upload file by url",
            "group send failed",
            "failed to send message #",
            "can't use the media of the specified type in the album",
        ),
    ),
    _Rule(
        Verdict.MEDIA_UNFIT,
        _any_of(
            "image_process_failed",
            "photo_invalid_dimensions",
            "file must be non-empty",
            "is too big.*the maximum size is",
        ),
    ),
)


def classify(answer: Answer) -> Verdict:
    """What ``answer``, which is no success, is about."""
    if not answer.is_json:
        # A page of some proxy: its text is not the Bot API's, so only these two statuses speak.
        by_status = {413: Verdict.TOO_LARGE, 429: Verdict.RATE_LIMITED}
        return by_status.get(answer.status, Verdict.TRANSIENT)
    if answer.migrate_to is not None:
        return Verdict.MOVED
    for rule in _RULES:
        if rule.holds(answer):
            return rule.verdict
    return Verdict.TRANSIENT if answer.status >= 500 else Verdict.REFUSED  # noqa: PLR2004 - HTTP's own number


def failure_of(
    answer: Answer,
    *,
    what: str,
    chat_id: int | str,
    limit: int | None = None,
    may_be_done: bool = True,
) -> TargetFailure:
    """The failure to raise for ``answer``; the chat pool's side of it is not its business.

    Args:
        answer: The refusal.
        what: What was sent, for the message.
        chat_id: Where to.
        limit: The size that the route takes, for `TooLarge`.
        may_be_done: Whether the server had the whole request, so that after a fault of its own
            the message may stand in the chat all the same.
    """
    verdict = classify(answer)
    said = f"{answer.status} {answer.description}".strip()
    if verdict is Verdict.RATE_LIMITED:
        # "After 0 s" would be asked again at once, and again.
        seconds = DEFAULT_RETRY_AFTER if answer.retry_after is None else max(1.0, answer.retry_after)
        return RateLimited(
            f"Telegram takes nothing in chat {chat_id} for {seconds:.3g} s ({said}).", seconds, "chat"
        )
    if verdict is Verdict.MOVED and answer.migrate_to not in {None, chat_id}:
        assert answer.migrate_to is not None
        return Moved(f"Chat {chat_id} is now {answer.migrate_to}: use that id.", answer.migrate_to)
    messages: dict[Verdict, tuple[type[TargetFailure], str]] = {
        Verdict.TOKEN_REFUSED: (
            TargetDown,
            f"The bot token was refused: check it with @BotFather, and api_base ({said}).",
        ),
        Verdict.CHAT_DEAD: (
            ChatDead,
            f"Chat {chat_id} does not take {what}: add the bot to it again, with the right to post ({said}).",
        ),
        # Moved to where it was: following that would never end.
        Verdict.MOVED: (ChatDead, f"Chat {chat_id} moved and its new id is not known ({said})."),
        Verdict.MEDIA_UNFIT: (
            MediaUnfit,
            f"Telegram refuses {what}: mend the file, or ask for another kind ({said}).",
        ),
        Verdict.ROUTE_UNFIT: (RouteUnfit, f"Telegram could not take {what} this way ({said})."),
    }
    if verdict is Verdict.TOO_LARGE:
        return TooLarge(f"{what} is over what the Bot API server takes: make it smaller ({said}).", limit)
    if verdict in messages:
        failure, message = messages[verdict]
        return failure(message)
    unknown = may_be_done and verdict is Verdict.TRANSIENT and not 400 <= answer.status < 500  # noqa: PLR2004 - HTTP's own
    return Transient(f"Telegram did not take {what} ({said}).", unknown)
