"""What a `RingQueue` refuses at its door: numbers that make no sense, and threads it does not belong to."""

from __future__ import annotations

import threading

import anyio.lowlevel

__all__ = ["NOBODY", "check_whole", "claim", "running_loop"]

NOBODY = 0
"""An owner that is no thread."""


def check_whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """Raise unless the argument ``name`` is a whole number in its range."""
    wanted = f"from {least} to {most}" if most is not None else f"of at least {least}"
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number {wanted}, not {value!r}.")
    if value < least or (most is not None and value > most):
        raise ValueError(f"{name} must be a whole number {wanted}, not {value}.")


def claim(owner: int) -> int:
    """The calling thread's id, which is not ``owner``, if that one is nobody or has ended."""
    alive = next((thread for thread in threading.enumerate() if thread.ident == owner), None)
    if alive is not None:
        raise RuntimeError(
            f"This RingQueue belongs to the thread {alive.name!r}: call it there, such as by "
            "anyio.from_thread.run_sync(queue.enqueue_nowait, item)."
        )
    return threading.get_ident()


def running_loop() -> object:
    """What tells event loops apart; ``None`` where none runs."""
    try:
        return anyio.lowlevel.current_token()
    except RuntimeError:
        return None
