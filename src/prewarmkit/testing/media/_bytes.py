"""What the makers share: noise from a seed, and the check of a size."""

from __future__ import annotations

import random

__all__ = ["need", "noise"]


def noise(seed: object, size: int) -> bytes:
    """`size` bytes that look random and are the same for the same seed."""
    return random.Random(str(seed)).randbytes(size)  # noqa: S311 - repeatable, not secret


def need(what: str, size: int, least: int) -> None:
    """Refuse a size that the format cannot have."""
    if size < least:
        raise ValueError(f"size: the smallest {what} is {least} bytes, not {size!r}.")
