"""One call of the Bot API: where it goes, and that its token stays there.

The token stands in every URL, so nothing that was raised below leaves this module
without having been looked through. Knows nothing of media, chats or limits.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Callable, Iterator
from typing import cast
from urllib.parse import quote, urlencode, urlsplit

from attrs import evolve

from prewarmkit.errors import ConfigurationError, TransportError
from prewarmkit.targets.telegram.answers import Answer, parse_answer
from prewarmkit.transports.base import Request, Response, Transport

__all__ = ["BASE_SECONDS", "SLOWEST_BYTES_PER_SECOND", "BotApi", "deadline_of"]

BASE_SECONDS = 120.0
SLOWEST_BYTES_PER_SECOND = 64 * 1024
_MOST_ANSWER_BYTES = 1024 * 1024
_TOKEN = re.compile(r"([0-9]{1,20}):([A-Za-z0-9_-]+)")
_URL = re.compile(r"[!-~]+")
_LONG_ENOUGH = 16
_HOSTED = "api.telegram.org"
_FORM = "application/x-www-form-urlencoded"


def deadline_of(size: int) -> float:
    """Seconds for an exchange that uploads ``size`` bytes.

    The answer comes only after the server has passed the file on, and after it has waited out
    short floods by itself, so this is longer than it looks necessary.
    """
    return BASE_SECONDS + size / SLOWEST_BYTES_PER_SECOND


class BotApi:
    """Calls in the name of one bot."""

    def __init__(self, token: str, api_base: str) -> None:
        found = _TOKEN.fullmatch(token) if isinstance(cast("object", token), str) else None
        if found is None:
            raise ConfigurationError(
                "token is no bot token: it is a number, a colon and a secret, as @BotFather gives it."
            )
        self.bot_id, secret = found.groups()
        # The secret alone is enough to be one, but a word (in a test's token) is no secret.
        alone = [secret] if len(secret) >= _LONG_ENOUGH else []
        self._secrets = (token, quote(token, safe=""), *alone)
        base = _checked(api_base)
        self.is_hosted = urlsplit(base).hostname == _HOSTED
        self._root = f"{base}/bot{token}/"

    def __repr__(self) -> str:
        return f"BotApi(bot_id={self.bot_id!r})"

    def redact(self, text: str) -> str:
        """``text`` without the token."""
        for secret in self._secrets:
            text = text.replace(secret, "<token>")
        return text

    async def post_form(
        self,
        transport: Transport,
        method: str,
        fields: dict[str, str],
        *,
        moves_bytes: int = 0,
        hide: Callable[[str], str] | None = None,
    ) -> Answer:
        """Call ``method`` with plain parameters.

        Args:
            transport: What to send by.
            method: The method of the Bot API.
            fields: Its parameters.
            moves_bytes: The size of a file that the server moves before it answers.
            hide: Takes what must not be seen, besides the token, out of a text.
        """
        body = urlencode(fields).encode("ascii")
        return await self.post(
            transport,
            method,
            body,
            content_type=_FORM,
            content_length=len(body),
            deadline_seconds=deadline_of(len(body) + moves_bytes),
            hide=hide,
        )

    async def post(
        self,
        transport: Transport,
        method: str,
        body: bytes | AsyncIterable[bytes],
        *,
        content_type: str,
        content_length: int,
        deadline_seconds: float | None = None,
        hide: Callable[[str], str] | None = None,
    ) -> Answer:
        """Call ``method`` with a body.

        Raises:
            TransportError: There was no answer; its message is free of the token, and so is
                whatever hangs on it.
        """

        def clean(text: str) -> str:
            return self.redact(hide(text) if hide else text)

        headers = (("content-type", content_type), ("accept", "application/json"))
        request = Request("POST", self._root + method, headers, body, content_length)
        deadline = deadline_of(content_length) if deadline_seconds is None else deadline_seconds
        try:
            async with transport.send(request, deadline_seconds=deadline) as response:
                text = (await _read(response)).decode("utf-8", "replace")
                return _parsed(response, self.redact(text), clean)
        except TransportError as error:
            fault = TransportError(clean(str(error)), request_sent=error.request_sent)
        except Exception as error:
            if not _leaks(error, clean):
                raise
            fault = TransportError(f"{type(error).__name__}: {clean(str(error))}")
        # Outside of the handler: raised there, the original would hang on it as its context.
        raise fault


def _parsed(response: Response, text: str, clean: Callable[[str], str]) -> Answer:
    retry_after = response.header("retry-after")
    answer = parse_answer(response.status, text, retry_after=retry_after)
    if not answer.is_json:
        # A proxy's page may well quote the path; cleaned before it is cut, so that no half of a secret stays.
        return parse_answer(response.status, clean(text), retry_after=retry_after)
    return evolve(answer, description=clean(answer.description))


def _leaks(error: BaseException, clean: Callable[[str], str]) -> bool:
    said = " ".join(f"{link} {link!r}" for link in _chain(error))
    return clean(said) != said


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        link = todo.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        todo += [link.__cause__, link.__context__]


def _checked(api_base: str) -> str:
    try:
        parts = urlsplit(api_base)
        # Reading the port checks it.
        is_good = (
            _URL.fullmatch(api_base) is not None
            and parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and parts.port != 0
        )
    except ValueError:
        is_good = False
    else:
        is_good = is_good and not (parts.query or parts.fragment or parts.username or parts.password)
    if not is_good:
        raise ConfigurationError(
            "api_base must be an http or https URL of a Bot API server, such as "
            "https://api.telegram.org, without a query, a user or a token."
        )
    return api_base.rstrip("/")


async def _read(response: Response) -> bytes:
    # An answer is a few KB; a server that never stops must not fill our memory.
    parts: list[bytes] = []
    size = 0
    async for chunk in response.body:
        parts.append(chunk)
        size += len(chunk)
        if size > _MOST_ANSWER_BYTES:
            break
    return b"".join(parts)
