"""A transport that keeps what `TelegramTarget` sends, and answers what it is told."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

from attrs import define, field, frozen

from prewarmkit.transports import Request, Response

__all__ = ["SECRET", "TOKEN", "FakeTransport", "Sent", "refusal", "success"]

SECRET = "AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw0"
TOKEN = f"110201543:{SECRET}"


@frozen
class Sent:
    url: str
    body: bytes
    headers: dict[str, str]
    content_length: int | None
    deadline: float | None

    @property
    def method(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def fields(self) -> dict[str, str]:
        """Of a form without a file."""
        return dict(parse_qsl(self.body.decode("ascii"), keep_blank_values=True))

    @property
    def has_file(self) -> bool:
        return self.headers["content-type"].startswith("multipart/")

    def has_field(self, name: str, value: str) -> bool:
        return f'form-data; name="{name}"\r\n\r\n{value}\r\n'.encode() in self.body


def success(**result: Any) -> tuple[int, bytes]:
    medium = {"document": {"file_id": "F1", "file_unique_id": "U1"}}
    message = {"message_id": 7, "chat": {"id": -1001}, **(result or medium)}
    return 200, json.dumps({"ok": True, "result": message}).encode()


def refusal(status: int, description: str, **parameters: Any) -> tuple[int, bytes]:
    body = {"ok": False, "error_code": status, "description": description, "parameters": parameters}
    return status, json.dumps(body).encode()


@define
class FakeTransport:
    """Drains the body, then answers; `answers` runs out into successes."""

    answers: list[tuple[int, bytes] | Exception] = field(factory=list[tuple[int, bytes] | Exception])
    headers: tuple[tuple[str, str], ...] = ()
    reads_body: bool = True
    sent: list[Sent] = field(factory=list[Sent])
    on_body_error: type[Exception] | None = None

    @asynccontextmanager
    async def send(
        self, request: Request, *, deadline_seconds: float | None = None
    ) -> AsyncGenerator[Response]:
        body = b""
        try:
            if isinstance(request.body, bytes):
                body = request.body
            elif request.body is not None and self.reads_body:
                body = b"".join([chunk async for chunk in request.body])
        except Exception as error:
            if self.on_body_error is None:
                raise
            raise self.on_body_error(str(error)) from error
        self.sent.append(
            Sent(request.url, body, dict(request.headers), request.content_length, deadline_seconds)
        )
        answer = self.answers.pop(0) if self.answers else success()
        if isinstance(answer, Exception):
            raise answer

        async def chunks() -> AsyncGenerator[bytes]:
            yield answer[1]

        async with aclosing(chunks()) as stream:
            yield Response(answer[0], self.headers, stream)
