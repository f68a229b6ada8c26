"""Reading answers and classifying refusals; rules from tdlib/telegram-bot-api and section 1.8 of the research notes."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
from prewarmkit.targets.telegram.answers import Answer, parse_answer
from prewarmkit.targets.telegram.failures import DEFAULT_RETRY_AFTER, Verdict, classify, failure_of

NGINX_413 = "<html>\r\n<head><title>413 Request Entity Too Large</title></head></html>"


def refusal(status: int, description: str = "", *, header: str | None = None, **parameters: Any) -> Answer:
    body: dict[str, Any] = {"ok": False, "error_code": status, "description": description}
    if parameters:
        body["parameters"] = parameters
    return parse_answer(status, json.dumps(body), retry_after=header)


def failure(answer: Answer, **options: Any) -> TargetFailure:
    return failure_of(answer, what="'a.png' as photo", chat_id=-1001, **options)


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (refusal(429, "Too Many Requests: retry after 7", header="8", retry_after=9), 9),
        (refusal(429, "Too Many Requests: retry after 7", header="8"), 8),
        (refusal(429, "Too Many Requests: retry after 7"), 7),
        (refusal(400, "Bad Request: Too Many Requests: Retry After 11"), 11),
        (refusal(429, "Too Many Requests", header="Wed, 21 Oct 2026 07:28:00 GMT"), DEFAULT_RETRY_AFTER),
        (refusal(429, "Too Many Requests"), DEFAULT_RETRY_AFTER),
        (refusal(429, "Too Many Requests", retry_after=0), 1),
        (refusal(429, "", retry_after=True), DEFAULT_RETRY_AFTER),
        (refusal(429, "", retry_after=1_209_600), 1_209_600),
        (parse_answer(429, "<html>slow down</html>", retry_after="4"), 4),
    ],
)
def test_a_rate_limit_says_for_how_long_wherever_it_says_it(answer: Answer, seconds: float) -> None:
    """In the body, the header or only the text, and inside a 400 (TelegramBots#1520, td#3003)."""
    found = failure(answer)
    assert isinstance(found, RateLimited)
    assert found.retry_after == seconds


@pytest.mark.parametrize(
    ("answer", "verdict", "kind"),
    [
        (refusal(401, "Unauthorized"), Verdict.TOKEN_REFUSED, TargetDown),
        (refusal(404, "Not Found"), Verdict.TOKEN_REFUSED, TargetDown),
        (refusal(403, "Forbidden: bot was kicked from the supergroup chat"), Verdict.CHAT_DEAD, ChatDead),
        (refusal(403, "Forbidden: bot is not a member of the channel chat"), Verdict.CHAT_DEAD, ChatDead),
        (refusal(403, "Forbidden: the group chat was deleted"), Verdict.CHAT_DEAD, ChatDead),
        (refusal(400, "Bad Request: chat not found"), Verdict.CHAT_DEAD, ChatDead),
        (refusal(400, "Bad Request: not enough rights to send photos"), Verdict.CHAT_DEAD, ChatDead),
        (refusal(400, "Bad Request: wrong file identifier/HTTP URL specified"), Verdict.BAD_HANDLE, Transient),
        (refusal(400, "Bad Request: wrong remote file identifier specified: Wrong padding"), Verdict.BAD_HANDLE, Transient),
        (refusal(400, "Bad Request: can't use file of type Photo as Video"), Verdict.BAD_HANDLE, Transient),
        (refusal(400, "Bad Request: invalid file_id"), Verdict.BAD_HANDLE, Transient),
        (refusal(400, "Bad Request: failed to get HTTP URL content"), Verdict.ROUTE_UNFIT, RouteUnfit),
        (refusal(400, "Bad Request: wrong type of the web page content"), Verdict.ROUTE_UNFIT, RouteUnfit),
        (refusal(400, "Bad Request: wrong HTTP URL specified"), Verdict.ROUTE_UNFIT, RouteUnfit),
        (refusal(400, "Bad Request: group send failed"), Verdict.ROUTE_UNFIT, RouteUnfit),
        (refusal(400, "Bad Request: failed to send message #2 with the error message"), Verdict.ROUTE_UNFIT, RouteUnfit),
        (refusal(400, "Bad Request: IMAGE_PROCESS_FAILED"), Verdict.MEDIA_UNFIT, MediaUnfit),
        (refusal(400, "Bad Request: PHOTO_INVALID_DIMENSIONS"), Verdict.MEDIA_UNFIT, MediaUnfit),
        (refusal(400, "Bad Request: file must be non-empty"), Verdict.MEDIA_UNFIT, MediaUnfit),
        (refusal(400, "Bad Request: file of size 1 bytes is too big for a photo; the maximum size is 1 bytes"), Verdict.MEDIA_UNFIT, MediaUnfit),
        (refusal(413, "Request Entity Too Large"), Verdict.TOO_LARGE, TooLarge),
        (parse_answer(413, NGINX_413), Verdict.TOO_LARGE, TooLarge),
        (refusal(500, "Internal Server Error"), Verdict.TRANSIENT, Transient),
        (parse_answer(502, "<html>Bad Gateway</html>"), Verdict.TRANSIENT, Transient),
        (parse_answer(403, "<html>blocked by a firewall</html>"), Verdict.TRANSIENT, Transient),
        (parse_answer(401, "<html>proxy login</html>"), Verdict.TRANSIENT, Transient),
        (parse_answer(200, "<html>captive portal</html>"), Verdict.TRANSIENT, Transient),
        (parse_answer(200, ""), Verdict.TRANSIENT, Transient),
        (refusal(409, "Conflict: terminated by other getUpdates request"), Verdict.REFUSED, Transient),
        (refusal(400, "Bad Request: something new"), Verdict.REFUSED, Transient),
    ],
)  # fmt: skip
def test_each_refusal_is_the_failure_that_says_what_to_do(
    answer: Answer, verdict: Verdict, kind: type[TargetFailure]
) -> None:
    """The texts are those of tdlib/telegram-bot-api 10.0 (section 1.8 of the notes)."""
    assert classify(answer) is verdict
    found = failure(answer)
    assert type(found) is kind
    assert "-1001" in str(found) or "'a.png'" in str(found) or "token" in str(found)


def test_too_large_names_the_limit() -> None:
    found = failure(parse_answer(413, NGINX_413), limit=50)
    assert isinstance(found, TooLarge)
    assert found.limit == 50


def test_a_refused_token_says_whom_to_ask() -> None:
    assert "the bot token was refused: check it with @BotFather" in str(
        failure(refusal(401, "Unauthorized"))
    ).replace("The bot", "the bot")


def test_a_migrated_chat_says_where_it_went() -> None:
    text = "Bad Request: group chat was upgraded to a supergroup chat"
    found = failure(refusal(400, text, migrate_to_chat_id=-100777))
    assert isinstance(found, Moved)
    assert found.new_id == -100777


@pytest.mark.parametrize("parameters", [{}, {"migrate_to_chat_id": -1001}, {"migrate_to_chat_id": "x"}])
def test_a_migration_to_nowhere_is_a_dead_chat(parameters: dict[str, Any]) -> None:
    """Following it would go round for ever."""
    text = "Bad Request: group chat was upgraded to a supergroup chat"
    assert isinstance(failure(refusal(400, text, **parameters)), ChatDead)


@pytest.mark.parametrize(
    ("answer", "may_be_done", "unknown"),
    [
        (refusal(500, "Internal Server Error"), True, True),
        (refusal(500, "Internal Server Error"), False, False),
        (parse_answer(502, "<html>"), True, True),
        (parse_answer(200, "<html>"), True, True),
        (parse_answer(403, "<html>"), True, False),
        (refusal(400, "Bad Request: something new"), True, False),
    ],
)
def test_the_outcome_is_unknown_after_a_fault_of_the_server(
    answer: Answer, may_be_done: bool, unknown: bool
) -> None:
    found = failure(answer, may_be_done=may_be_done)
    assert isinstance(found, Transient)
    assert found.outcome_unknown is unknown


@pytest.mark.parametrize(
    "body", ["", "null", "[]", "[" * 100_000, '{"ok": "yes"}', '{"result": {}}', "\ufffd\ufffd", '{"ok": tru']
)
def test_no_body_is_ever_a_decode_error(body: str) -> None:
    """A page of a proxy, half an answer, brackets without end."""
    assert parse_answer(200, body).is_json is False


def test_a_page_is_quoted_in_short() -> None:
    answer = parse_answer(502, "<html>\r\n  <h1>Bad   Gateway</h1>" + "x" * 1000)
    assert answer.description.startswith("<html> <h1>Bad Gateway</h1>")
    assert len(answer.description) <= 120


def test_a_success_is_its_result() -> None:
    answer = parse_answer(200, '{"ok": true, "result": {"message_id": 5}}')
    assert (answer.ok, answer.message, answer.retry_after) == (True, {"message_id": 5}, None)
    assert parse_answer(200, '{"ok": true, "result": true}').message is None


@pytest.mark.parametrize(
    "answer",
    [
        parse_answer(429, '{"ok": false, "parameters": {"retry_after": 1%s}}' % ("0" * 400)),
        parse_answer(429, '{"ok": false, "description": "retry after %s"}' % ("9" * 5000)),
        parse_answer(429, "<html>", retry_after="9" * 20),
    ],
)
def test_an_absurd_wait_is_cut_to_what_the_server_can_mean(answer: Answer) -> None:
    assert answer.retry_after == 14 * 24 * 3600


def test_a_wait_of_too_many_digits_is_none() -> None:
    assert parse_answer(429, "<html>", retry_after="9" * 5000).retry_after is None
