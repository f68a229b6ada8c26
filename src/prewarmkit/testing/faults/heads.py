"""The head of an answer: what a fault makes of it, its bytes, and where its body ends.

Pure. Written by hand and not by h11, which rightly refuses to send what is wrong.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Self

import h11
from attrs import evolve, frozen

from prewarmkit.testing.faults.fault import Answer, Fault

__all__ = ["Head", "framed"]

_BODILESS = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


@frozen
class Head:
    """Status and headers of an answer.

    Attributes:
        status: Such as 200.
        reason: The words after it.
        headers: Pairs in order, names as they came.
        method: Of the request: a HEAD's answer has no body.
    """

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    method: str

    @classmethod
    def of(cls, event: h11.Response | h11.InformationalResponse, method: str) -> Self:
        """The server's."""
        pairs = tuple(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers.raw_items()
        )
        return cls(event.status_code, event.reason.decode("latin-1"), pairs, method)

    @classmethod
    def own(cls, answer: Answer, method: str) -> Self:
        """The proxy's."""
        return cls(answer.status, HTTPStatus(answer.status).phrase, tuple(answer.head()), method)

    def get(self, name: str) -> str | None:
        """The first header of that (lower-case) name."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    def __bytes__(self) -> bytes:
        """As it goes over the wire."""
        lines = [
            f"HTTP/1.1 {self.status} {self.reason}",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    @property
    def is_bodiless(self) -> bool:
        """No byte of a body follows, whatever the headers say."""
        return self.method == "HEAD" or self.status in _BODILESS

    @property
    def length(self) -> int | None:
        """Bytes in the body; ``None``: its end will tell."""
        length = self.get("content-length")
        return 0 if self.is_bodiless else None if length is None or self.is_chunked else int(length)

    @property
    def is_chunked(self) -> bool:
        """The body comes in chunks, and says itself where it ends."""
        return (self.get("transfer-encoding") or "").lower() == "chunked"

    @property
    def is_last(self) -> bool:
        """The connection ends with it: it says so, or nothing else says where its body ends."""
        says_so = (self.get("connection") or "").lower() == "close"
        has_end = self.is_bodiless or self.is_chunked or self.get("content-length") is not None
        return says_so or not has_end

    def replaced(self, *changes: tuple[str, str | None]) -> Self:
        """With other headers: each replaced where it stands or added at the end, ``None``: left out."""
        new = dict(changes)
        pairs: list[tuple[str, str]] = []
        for name, value in self.headers:
            if name.lower() not in new:
                pairs.append((name, value))
            elif (changed := new[name.lower()]) is not None:
                pairs.append((name, changed))
        there = {name.lower() for name, _ in pairs}
        pairs += [(name, value) for name, value in new.items() if value is not None and name not in there]
        return evolve(self, headers=tuple(pairs))

    def with_length(self, length: int) -> Self:
        """Not in chunks, but of a length."""
        return self.replaced(("transfer-encoding", None), ("content-length", str(length)))

    def spoilt(self, fault: Fault | None) -> Self:
        """As the fault has it. A length is made wrong if there is one: see `with_length`."""
        if fault is None:
            return self
        head, length = self, self.get("content-length")
        if fault.length_by and length is not None:
            head = head.with_length(max(0, int(length) + fault.length_by))
        changes = list(fault.changes)
        if ("content-length", None) in changes:
            changes.append(("transfer-encoding", None))  # or the end would still be told
        return head.replaced(*changes)


def framed(piece: bytes, head: Head) -> bytes:
    """A piece of the body as it goes over the wire; an empty one ends it."""
    if not head.is_chunked:
        return piece
    return b"%x\r\n%b\r\n" % (len(piece), piece)
