"""Stencils: the canonical request with holes, for all requests of one shape in one second.

A shape is a method, an origin, the names of the headers and a kind of payload. All but path,
query, the headers' values and a payload's hash is then the same for every request of that
second: sorted, encoded, joined once. Each signature fills a stencil, the first of its shape
too; there is no other way to a canonical request. Knows nothing of time, keys or URLs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

__all__ = ["HOLE", "Closing", "Stencil", "joined", "make_closing"]

HOLE = "\0"
"""Where a payload's hash goes; no header can have it in its value."""


class Closing(NamedTuple):
    """A canonical request after its query.

    Attributes:
        texts: What stands before, between and after the caller's values.
        in_order: Puts the values into the order of their names; ``None``: they come so.
        signed_names: Sorted, joined by ``;``.
    """

    texts: tuple[str, ...]
    in_order: Callable[[Sequence[str]], Sequence[str]] | None
    signed_names: str


def make_closing(names: Sequence[str], own: Mapping[str, str], payload_hash: str) -> Closing:
    """The closing of a shape.

    Args:
        names: Of the caller's headers, in the order in which their values will come: in lower case, each once.
        own: Headers that the signer adds, with their values; none of them is in ``names``.
        payload_hash: The last line.
    """
    signed = sorted([*names, *own])
    signed_names = ";".join(signed)
    texts = [""]
    for name in signed:
        if name in own:
            texts[-1] += f"{name}:{own[name]}\n"
        else:
            texts[-1] += f"{name}:"
            texts.append("\n")
    texts[-1] += f"\n{signed_names}\n{payload_hash}"
    order = [names.index(name) for name in signed if name not in own]
    in_order = None if order == sorted(order) else itemgetter(*order)  # two or more, or they were in order
    return Closing(tuple(texts), in_order, signed_names)


def joined(pairs: Iterable[tuple[str, str]]) -> str:
    """Parameters as a query."""
    return "&".join([f"{name}={value}" for name, value in pairs])


class Stencil:
    """See the module.

    Attributes:
        payload_hash: What requests of the shape say of their body, or `HOLE`.
        has_hole: Whether each has a payload's hash of its own.
        authorization: The header's value, up to the signature.
        added: The other headers that are to be sent.
        origin: Of a presigned URL.
        parameters: Of a presigned URL, without its signature; sorted.
        query: The same, joined.
    """

    __slots__ = (
        "_in_order",
        "_pieces",
        "_plain_pieces",
        "added",
        "authorization",
        "has_hole",
        "origin",
        "parameters",
        "payload_hash",
        "query",
    )

    def __init__(
        self,
        *,
        method: str,
        closing: Closing,
        payload_hash: str,
        authorization: str = "",
        added: Mapping[str, str] | None = None,
        origin: str = "",
        parameters: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._in_order = closing.in_order
        self.has_hole = payload_hash == HOLE
        self.payload_hash = payload_hash
        self.authorization = authorization
        self.added: Mapping[str, str] = added or {}
        self.origin = origin
        self.parameters = parameters
        self.query = joined(parameters)
        first, *rest = closing.texts
        self._pieces = _with_gaps([f"{method}\n", "\n", f"\n{first}", *rest])
        self._plain_pieces = _with_gaps([f"{method}\n", f"\n{self.query}\n{first}", *rest])

    def filled(self, path: str, query: str, values: Sequence[str], payload_hash: str) -> str:
        """The canonical request; every argument in its canonical form."""
        return self._joined(self._pieces, (path, query), values, payload_hash)

    def filled_plainly(self, parts: Sequence[str], payload_hash: str) -> str:
        """The same for a URL without a query; ``parts`` are path and values."""
        if self._in_order is not None:
            return self._joined(self._plain_pieces, parts[:1], parts[1:], payload_hash)
        pieces = self._plain_pieces.copy()
        pieces[1::2] = parts
        canonical = "".join(pieces)
        return canonical.replace(HOLE, payload_hash) if self.has_hole else canonical

    def _joined(
        self, pieces: list[str], before: Sequence[str], values: Sequence[str], payload_hash: str
    ) -> str:
        pieces = pieces.copy()
        pieces[1::2] = (*before, *(values if self._in_order is None else self._in_order(values)))
        # Joined and not formatted: an enum then gives what it equals, not what it is called.
        return "".join(pieces).replace(HOLE, payload_hash)


def _with_gaps(texts: list[str]) -> list[str]:
    """The texts with room for one more between each two."""
    pieces = [""] * (2 * len(texts) - 1)
    pieces[::2] = texts
    return pieces
