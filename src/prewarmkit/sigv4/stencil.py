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
        template: With ``%s`` for each of the caller's values.
        in_order: Puts the values into the order of their names; ``None``: they come so.
        signed_names: Sorted, joined by ``;``.
    """

    template: str
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
    lines = [f"{_literal(name)}:{_literal(own[name]) if name in own else '%s'}\n" for name in signed]
    order = [names.index(name) for name in signed if name not in own]
    in_order = None if order == sorted(order) else itemgetter(*order)  # two or more, or they were in order
    return Closing(f"{''.join(lines)}\n{_literal(signed_names)}\n{payload_hash}", in_order, signed_names)


def _literal(text: str) -> str:
    """Text that stands in a template for itself."""
    return text.replace("%", "%%")


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
        "_plain_template",
        "_template",
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
        self._template = f"{_literal(method)}\n%s\n%s\n{closing.template}"
        self._in_order = closing.in_order
        self.has_hole = payload_hash == HOLE
        self.payload_hash = payload_hash
        self.authorization = authorization
        self.added: Mapping[str, str] = added or {}
        self.origin = origin
        self.parameters = parameters
        self.query = joined(parameters)
        self._plain_template = f"{_literal(method)}\n%s\n{_literal(self.query)}\n{closing.template}"

    def filled(self, path: str, query: str, values: Sequence[str], payload_hash: str) -> str:
        """The canonical request; every argument in its canonical form."""
        if self._in_order is not None:
            values = self._in_order(values)
        return (self._template % (path, query, *values)).replace(HOLE, payload_hash)

    def filled_plainly(self, parts: tuple[str, ...], payload_hash: str) -> str:
        """The same for a URL without a query; ``parts`` are path and values."""
        if self._in_order is None:
            canonical = self._plain_template % parts
        else:
            canonical = self._plain_template % (parts[0], *self._in_order(parts[1:]))
        return canonical.replace(HOLE, payload_hash) if self.has_hole else canonical
