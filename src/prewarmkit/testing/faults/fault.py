"""What may go wrong with one exchange, as values.

Owns the vocabulary: where on the wire, what then, which answer instead, which headers
changed. Pure: knows no socket and no parser; `relay` carries it out.
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal, Self, get_args
from xml.etree import ElementTree as ET

from attrs import Attribute, field, frozen

__all__ = ["Answer", "Ending", "Fault", "Stage", "Strike"]

Stage = Literal["request head", "request body", "answer head", "answer body"]
"""Which part of an exchange. A request goes up to the server, an answer down to the client."""

Ending = Literal["reset", "close"]
"""How a connection ends: by RST, which loses what is on its way, or by FIN."""

_CODES: Mapping[int, str] = {
    400: "InvalidRequest",
    403: "AccessDenied",
    404: "NoSuchKey",
    408: "RequestTimeout",
    412: "PreconditionFailed",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


def _not_negative(_instance: object, attribute: Attribute[Any], value: float) -> None:
    if value < 0:
        raise ValueError(f"{attribute.name} must be 0 or more, not {value!r}.")


def _a_stage(_instance: object, _attribute: object, value: str) -> None:
    if value not in get_args(Stage):
        raise ValueError(f"stage must be one of {', '.join(map(repr, get_args(Stage)))}, not {value!r}.")


@frozen(kw_only=True)
class Strike:
    """Something that happens at one place of the wire.

    Attributes:
        act: ``reset`` and ``close`` end both connections, ``stall`` passes nothing on for a time,
            ``dribble`` passes on little pieces from there to the stage's end.
        stage: Where.
        after: Bytes of the stage that pass before it, as they are on the wire; a stage that ends
            earlier is not struck.
        seconds: How long a stall lasts; the pause before each piece of a dribble.
        piece_bytes: Of a dribble.
    """

    act: Literal["reset", "close", "stall", "dribble"]
    stage: Stage = field(validator=_a_stage)
    after: int = field(default=0, validator=_not_negative)
    seconds: float = field(default=0.0, validator=_not_negative)
    piece_bytes: int = 1

    def __attrs_post_init__(self) -> None:
        if self.act not in {"reset", "close", "stall", "dribble"}:
            raise ValueError(f"act must be reset, close, stall or dribble, not {self.act!r}.")
        if self.piece_bytes < 1:
            raise ValueError(f"piece_bytes must be at least 1, not {self.piece_bytes!r}.")


@frozen(kw_only=True)
class Answer:
    """An answer that the proxy gives by itself; the request is not forwarded.

    Attributes:
        status: Such as 503.
        headers: Besides ``Date`` and ``Content-Length``.
        body: All of it; not sent to a HEAD.
        date_offset_seconds: What the ``Date`` is ahead of this machine's clock.
        reads_body: Whether the request's body is read first. If not, the answer comes early and the
            connection is closed after it.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)
    date_offset_seconds: float = 0.0
    reads_body: bool = True

    def head(self) -> list[tuple[str, str]]:
        """All headers."""
        date = email.utils.formatdate(time.time() + self.date_offset_seconds, usegmt=True)
        return [("Date", date), *self.headers, ("Content-Length", str(len(self.body)))]


@frozen(kw_only=True)
class Fault:
    """What goes wrong with one request and its answer; make one by a classmethod, or of several things.

    Attributes:
        name: For the log.
        strike: Happens to the bytes of the exchange.
        answer: Comes instead of the server's.
        changes: Headers of the answer to replace, by name, or with ``None`` to leave out.
        length_by: What ``Content-Length`` says more than there is. With more the connection is closed
            after the body; with less it stays open, and the rest of the body stands in it.
        copies: How often the request is forwarded; the client gets the last answer.
        loses_answer: The server's answer is read to its end, and the connection cut instead of giving it.
        ending: How a lost answer, or an idle connection, ends.
        idle_seconds: Once the exchange is over, the connection is closed after that time unless it is
            used again; ``None``: it is kept.
    """

    name: str
    strike: Strike | None = None
    answer: Answer | None = None
    changes: tuple[tuple[str, str | None], ...] = ()
    length_by: int = 0
    copies: int = 1
    loses_answer: bool = False
    ending: Ending = "reset"
    idle_seconds: float | None = None

    def __attrs_post_init__(self) -> None:
        if self.copies < 1:
            raise ValueError(f"copies must be at least 1, not {self.copies!r}.")
        if self.answer is not None and (self.copies > 1 or self.loses_answer):
            raise ValueError(
                "A request that is answered by the proxy has no server's answer to copy or lose."
            )
        if self.answer is not None and self.strike is not None and self.strike.stage.startswith("request"):
            raise ValueError("A request that is answered by the proxy goes nowhere: strike its answer.")

    # ── the connection ───────────────────────────────────────────────────────

    @classmethod
    def reset(cls, stage: Stage, after: int = 0) -> Self:
        """RST to both sides once ``after`` bytes of the stage have passed."""
        return cls._struck("reset", stage, after)

    @classmethod
    def close(cls, stage: Stage, after: int = 0) -> Self:
        """FIN to both sides; in the middle of an ``"answer body"`` that is a truncated body."""
        return cls._struck("close", stage, after)

    @classmethod
    def stall(cls, stage: Stage, after: int = 0, *, seconds: float) -> Self:
        """Pass nothing on for a time, then go on as if nothing had been."""
        return cls._struck("stall", stage, after, seconds=seconds)

    @classmethod
    def dribble(cls, stage: Stage, after: int = 0, *, piece_bytes: int = 1, seconds: float = 0.01) -> Self:
        """Pass on little pieces with a pause before each; of an ``"answer head"`` that is slow headers."""
        return cls._struck("dribble", stage, after, seconds=seconds, piece_bytes=piece_bytes)

    @classmethod
    def close_idle(cls, after_seconds: float = 0.0, *, ending: Ending = "close") -> Self:
        """Answer as always, then end the connection once it was idle that long."""
        return cls(name=f"{ending} idle", idle_seconds=after_seconds, ending=ending)

    # ── the answer ───────────────────────────────────────────────────────────

    @classmethod
    def answers(
        cls,
        status: int,
        *,
        body: Literal["xml", "html", "empty"] | bytes = "xml",
        code: str | None = None,
        retry_after: float | str | None = None,
        headers: Mapping[str, str] | None = None,
        reads_body: bool = True,
    ) -> Self:
        """Answer instead of forwarding.

        Args:
            status: Such as 500, 503, 429.
            body: ``xml``: an S3 error; ``html``: as a proxy or CDN on the way gives it; ``empty``; or bytes.
            code: Of the S3 error; ``None``: the usual one of that status.
            retry_after: Seconds, or an HTTP date; ``None``: no such header.
            headers: Further ones.
            reads_body: See `Answer`.
        """
        kind, content = _body(status, body, code)
        pairs = list((headers or {}).items())
        if kind is not None:
            pairs.append(("Content-Type", kind))
        if retry_after is not None:
            pairs.append(("Retry-After", retry_after if isinstance(retry_after, str) else f"{retry_after:g}"))
        answer = Answer(status=status, headers=tuple(pairs), body=content, reads_body=reads_body)
        shape = body if isinstance(body, str) else "bytes"
        return cls(name=f"{status} {shape}", answer=answer)

    @classmethod
    def time_too_skewed(cls, offset_seconds: float) -> Self:
        """403 RequestTimeTooSkewed, with a ``Date`` that is that far ahead."""
        kind, content = _body(403, "xml", "RequestTimeTooSkewed")
        pairs = (("Content-Type", kind or ""),)
        answer = Answer(status=403, headers=pairs, body=content, date_offset_seconds=offset_seconds)
        return cls(name="403 RequestTimeTooSkewed", answer=answer)

    @classmethod
    def headers(cls, changes: Mapping[str, str | None]) -> Self:
        """Replace headers of the server's answer, add them, or with ``None`` leave them out.

        Without ``Content-Length`` the answer ends where the connection does. A wrong one is `wrong_length`.
        """
        for name in changes:
            if name.lower() in {"transfer-encoding", "connection"}:
                raise ValueError(f"The header {name!r} is the proxy's own affair.")
            if name.lower() == "content-length" and changes[name] is not None:
                raise ValueError("A wrong Content-Length is Fault.wrong_length.")
        pairs = tuple((name.lower(), value) for name, value in changes.items())
        return cls(name=f"headers {', '.join(name for name, _ in pairs)}", changes=pairs)

    @classmethod
    def wrong_length(cls, by: int) -> Self:
        """A ``Content-Length`` that is off by so many bytes; see ``length_by``."""
        return cls(name=f"length {by:+d}", length_by=by)

    @classmethod
    def lost_answer(cls, *, ending: Ending = "reset") -> Self:
        """The server does what it was asked for; its answer never comes."""
        return cls(name=f"lost answer, {ending}", loses_answer=True, ending=ending)

    @classmethod
    def duplicate(cls, copies: int = 2) -> Self:
        """Forward the request several times, one after another; the client gets the last answer."""
        return cls(name=f"{copies} copies", copies=copies)

    @classmethod
    def _struck(
        cls,
        act: Literal["reset", "close", "stall", "dribble"],
        stage: Stage,
        after: int,
        *,
        seconds: float = 0.0,
        piece_bytes: int = 1,
    ) -> Self:
        strike = Strike(act=act, stage=stage, after=after, seconds=seconds, piece_bytes=piece_bytes)
        return cls(name=f"{act} in {stage} after {after}", strike=strike)


def _body(status: int, body: str | bytes, code: str | None) -> tuple[str | None, bytes]:
    """The content type and the bytes."""
    phrase = HTTPStatus(status).phrase
    if isinstance(body, bytes):
        return "application/octet-stream", body
    if body == "empty":
        return None, b""
    if body == "html":
        page = ET.Element("html")
        ET.SubElement(ET.SubElement(page, "body"), "h1").text = f"{status} {phrase}"
        return "text/html", ET.tostring(page)
    if body != "xml":
        raise ValueError(f"body must be 'xml', 'html', 'empty' or bytes, not {body!r}.")
    error = ET.Element("Error")
    ET.SubElement(error, "Code").text = code or _CODES.get(status, phrase.replace(" ", ""))
    ET.SubElement(error, "Message").text = f"{phrase}, said the proxy."
    return "application/xml", ET.tostring(error, encoding="utf-8", xml_declaration=True)
