"""A bot over httpx, for tests of the Bot API server in prewarmkit.testing."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import httpx

from prewarmkit.testing.botapi import BotApiServer

CHAT = -1001
OTHER_BOT = "987654321:AAGtheOtherBotsTokenWhichNobodyHas000"


class Client:
    """A bot over httpx, which knows nothing of the Bot API."""

    opened: ClassVar[list[Client]] = []

    def __init__(self, server: BotApiServer, token: str | None = None) -> None:
        self.opened.append(self)
        self.http = httpx.Client(base_url=f"{server.url}/bot{token or server.token}/", timeout=10)

    def call(self, method: str, files: Any = None, **fields: Any) -> httpx.Response:
        return self.http.post(method, data=fields, files=files)

    def send(self, method: str, content: bytes, filename: str, **fields: Any) -> httpx.Response:
        part = re.sub(r"(?<!^)(?=[A-Z])", "_", method.removeprefix("send")).lower()
        return self.call(method, {part: (filename, content)}, **{"chat_id": CHAT, **fields})

    def sent(self, method: str, content: bytes, filename: str, **fields: Any) -> dict[str, Any]:
        answer = self.send(method, content, filename, **fields)
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()["result"]
        return result

    def refused(self, method: str, files: Any = None, **fields: Any) -> tuple[int, str]:
        return error_of(self.call(method, files, **fields))


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """The status and the description of an error."""
    body = answer.json()
    assert body["ok"] is False
    assert body["error_code"] == answer.status_code
    return answer.status_code, body["description"]
