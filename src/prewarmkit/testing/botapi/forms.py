"""Reading a request's parameters and files as they stream in, and refusing what the real server refuses.

Files are hashed and counted while they arrive; of their bytes only the head is kept. The multipart parser is
aiohttp's, so that what prewarmkit writes is judged by somebody else's reading of RFC 7578.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import parse_qsl

from aiohttp import BodyPartReader, MultipartReader, StreamReader, web
from attrs import field, frozen

from prewarmkit.testing.botapi.probe import HEAD_BYTES

__all__ = ["BadForm", "BodyTooLarge", "Form", "ReceivedFile", "read_form"]

PARAMETER_BYTES = 1024 * 1024
"""All parameters of a request together (telegram-bot-api's own limit)."""

MAX_FILES = 50
"""File parts in one request (telegram-bot-api's own limit)."""

_CHUNK = 256 * 1024


class BadForm(Exception):
    """A body that cannot be read; the message is the answer's description."""


class BodyTooLarge(Exception):
    """The body is over the server's limit."""


@frozen(kw_only=True)
class ReceivedFile:
    """A file part whose bytes have all come.

    Attributes:
        filename: As the part named it.
        content_type: As the part named it.
        size: Bytes.
        sha256: Hex digest.
        head: The first bytes.
    """

    filename: str
    content_type: str | None
    size: int
    sha256: str
    head: bytes = field(repr=False)


@frozen
class Form:
    """A request's parameters, from the query and the body alike, and its files by part name."""

    fields: Mapping[str, str]
    files: Mapping[str, ReceivedFile]


async def read_form(
    request: web.Request, *, limit: int, on_file_bytes: Callable[[int], None] = lambda _total: None
) -> Form:
    """Everything that the request says.

    Args:
        request: The request; its body is read to the end.
        limit: Bytes of the whole body.
        on_file_bytes: Told the bytes of files that came so far, after each piece; may raise.

    Raises:
        BadForm: The body is malformed.
        BodyTooLarge: It is over the limit.
    """
    fields = dict(request.query)
    content_type = request.content_type.lower()
    if not request.can_read_body:
        return Form(fields, {})
    if content_type == "multipart/form-data":
        reader = _Multipart(request, limit, on_file_bytes)
        await reader.read()
        return Form({**fields, **reader.fields}, reader.files)
    raw = await _small_body(request.content, limit)
    if content_type == "application/x-www-form-urlencoded":
        fields.update(parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True))
    elif content_type == "application/json":
        fields.update(_json_fields(raw))
    return Form(fields, {})


async def _small_body(content: StreamReader, limit: int) -> bytes:
    """A body of parameters only; bytes past their limit are counted and dropped."""
    kept = bytearray()
    total = 0
    async for chunk in content.iter_chunked(_CHUNK):
        total += len(chunk)
        if total > limit:
            raise BodyTooLarge
        if len(kept) <= PARAMETER_BYTES:
            kept += chunk
    if len(kept) > PARAMETER_BYTES:
        raise BadForm("Bad Request: request parameters are too long")
    return bytes(kept)


def _json_fields(raw: bytes) -> dict[str, str]:
    try:
        parsed = json.loads(raw)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise BadForm("Bad Request: can't parse JSON encoded request body")
    given = cast("dict[str, Any]", parsed)
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in given.items()
        if value is not None
    }


class _Multipart:
    """One multipart body on its way in."""

    def __init__(self, request: web.Request, limit: int, on_file_bytes: Callable[[int], None]) -> None:
        self.fields: dict[str, str] = {}
        self.files: dict[str, ReceivedFile] = {}
        self._request = request
        self._limit = limit
        self._on_file_bytes = on_file_bytes
        self._file_bytes = 0
        self._parameter_bytes = 0

    async def read(self) -> None:
        try:
            reader = await self._request.multipart()
            while (part := await reader.next()) is not None:
                await self._part(part)
        except ValueError as error:  # no boundary, one too long, none at the end, headers that are none
            raise BadForm(f"Bad Request: malformed multipart/form-data: {error}") from error
        # What follows the last boundary means nothing, but it is part of the body.
        async for _chunk in self._request.content.iter_chunked(_CHUNK):
            pass

    async def _part(self, part: MultipartReader | BodyPartReader) -> None:
        if isinstance(part, MultipartReader):
            raise BadForm("Bad Request: malformed multipart/form-data: a part is multipart itself")
        if not part.name:
            raise BadForm("Bad Request: malformed multipart/form-data: a part has no name")
        if part.filename is None:
            await self._parameter(part.name, part)
        elif len(self.files) >= MAX_FILES:
            raise BadForm("Bad Request: too many files")
        else:
            self.files[part.name] = await self._file(part, part.filename)

    async def _parameter(self, name: str, part: BodyPartReader) -> None:
        value = bytearray()
        while chunk := await part.read_chunk(_CHUNK):
            self._parameter_bytes += len(chunk)
            self._check_total()
            if self._parameter_bytes <= PARAMETER_BYTES:
                value += chunk
        if self._parameter_bytes > PARAMETER_BYTES:
            raise BadForm("Bad Request: request parameters are too long")
        try:
            self.fields[name] = value.decode()
        except UnicodeDecodeError:
            raise BadForm("Bad Request: strings must be encoded in UTF-8") from None

    async def _file(self, part: BodyPartReader, filename: str) -> ReceivedFile:
        digest = hashlib.sha256()
        head = bytearray()
        size = 0
        while chunk := await part.read_chunk(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            self._file_bytes += len(chunk)
            if len(head) < HEAD_BYTES:
                head += chunk[: HEAD_BYTES - len(head)]
            self._check_total()
            self._on_file_bytes(self._file_bytes)
        return ReceivedFile(
            filename=filename,
            content_type=part.headers.get("Content-Type"),
            size=size,
            sha256=digest.hexdigest(),
            head=bytes(head),
        )

    def _check_total(self) -> None:
        if self._file_bytes + self._parameter_bytes > self._limit:
            raise BodyTooLarge
