"""What an edge's answer says, read from its head once.

Pure: headers of any spelling go in, facts come out, and what makes no sense is ``None``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Self

from attrs import frozen

__all__ = ["Answer"]

_COLO = re.compile(r"[0-9a-f]+-([A-Z]{3})")
_WHOLE = re.compile(r"[0-9]{1,18}")


@frozen(kw_only=True)
class Answer:
    """One answer of an edge.

    Attributes:
        method: What it was asked by.
        status: HTTP's.
        cache: What the cache did, in capitals (``HIT``); ``None``: it does not say.
        colo: The data centre that answered, ``None`` where there is no ``cf-ray``.
        age: Seconds in the cache; ``None``: not said.
        etag: Without quotes, and without the mark of a weak one.
        length: ``content-length``.
        headers: All of them, names in lower case.
        received: Bytes of the body that were read; ``None``: none were asked for, or needed.
        sha256: Their hex digest, where it was wanted.
    """

    method: str
    status: int
    cache: str | None = None
    colo: str | None = None
    age: int | None = None
    etag: str | None = None
    length: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    received: int | None = None
    sha256: str | None = None

    @classmethod
    def of(cls, method: str, status: int, headers: Iterable[tuple[str, str]], *, status_header: str) -> Self:
        """Read a head."""
        pairs = tuple((name.lower(), value.strip()) for name, value in headers)
        first = dict(reversed(pairs))
        ray = _COLO.fullmatch(first.get("cf-ray", ""))
        # Names and figures only: anybody may have written what stands there.
        said = first.get(status_header, "").upper()
        return cls(
            method=method,
            status=status,
            cache=said if re.fullmatch(r"[A-Z/]{1,32}", said) else None,
            colo=None if ray is None else ray[1],
            age=_whole(first.get("age")),
            etag=bare_etag(first.get("etag")),
            length=_whole(first.get("content-length")),
            headers=pairs,
        )

    def header(self, name: str) -> str | None:
        """The first header of that (lower-case) name, or ``None``."""
        return next((value for found, value in self.headers if found == name), None)


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and _WHOLE.fullmatch(text) else None


def bare_etag(text: str | None) -> str | None:
    """An entity tag for comparing: an edge that compresses marks it weak, and the content is the same."""
    if text is None:
        return None
    return text.removeprefix("W/").strip('"') or None
