"""Questions about arguments, for callers who run no type checker. Knows nothing of signing."""

from __future__ import annotations

from types import UnionType

__all__ = ["is_a", "is_number", "is_whole"]


def is_a(value: object, kind: type | UnionType) -> bool:
    """`isinstance`, for a value whose annotation promises the answer already."""
    return isinstance(value, kind)


def is_number(value: object) -> bool:
    """An int or a float, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    """An int, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)
