"""What a `RingQueue` refuses at its door."""

from __future__ import annotations

__all__ = ["check_whole"]


def check_whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """Raise unless the argument ``name`` is a whole number in its range."""
    wanted = f"from {least} to {most}" if most is not None else f"of at least {least}"
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number {wanted}, not {value!r}.")
    if value < least or (most is not None and value > most):
        raise ValueError(f"{name} must be a whole number {wanted}, not {value}.")
