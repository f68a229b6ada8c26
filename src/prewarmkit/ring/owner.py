"""Whose a `RingQueue` is: the one thread that may change it.

The owner holds a reentrant lock for as long as it lives; nobody ever waits for that lock.
Asking a lock whether it is the caller's is by far the cheapest question about threads that
CPython answers: a sixth of comparing ``threading.get_ident()``. It is asked on every call.
"""

from __future__ import annotations

import threading
from typing import Protocol, cast

import anyio.lowlevel

__all__ = ["CLAIMS", "NOBODY", "Owner", "claim", "new_owner", "running_loop"]

NOBODY = 0
"""The number of no thread."""

CLAIMS = threading.Lock()
"""Held around `claim` and the noting of its answer, so that of two heirs one is refused."""


class Owner(Protocol):
    """A ``threading.RLock``, with the method that `threading.Condition` asks for and the stubs leave out."""

    def acquire(self, *, blocking: bool = True) -> bool:
        """Hold it once more, if it is this thread's or nobody's."""
        ...

    def _is_owned(self) -> bool:
        """Whether the calling thread holds it."""
        ...


def new_owner() -> tuple[Owner, int]:
    """Belonging to the calling thread if an event loop runs in it, or else to nobody yet."""
    owner = cast("Owner", threading.RLock())
    if running_loop() is None:
        return owner, NOBODY
    owner.acquire()
    return owner, _this_thread()


def claim(owner: Owner, thread: int) -> tuple[Owner, int]:
    """Make the calling thread the owner, if it is already, if there is none yet, or if it has ended.

    Raises:
        RuntimeError: The owner is alive, and another thread.
    """
    if not owner.acquire(blocking=False):
        alive = next((other for other in threading.enumerate() if other.ident == thread), None)
        if alive is not None:
            raise RuntimeError(
                f"This RingQueue belongs to the thread {alive.name!r}: call it there, such as by "
                "anyio.from_thread.run_sync(queue.enqueue_nowait, item) from a worker thread of anyio's, "
                "or loop.call_soon_threadsafe(queue.enqueue_nowait, item) from any other."
            )
        owner = cast("Owner", threading.RLock())
        owner.acquire()
    return owner, _this_thread()


def _this_thread() -> int:
    """Its number; asked in this way, `threading` gets to know threads that it did not start, and lists them."""
    return threading.current_thread().ident or NOBODY


def running_loop() -> object:
    """What tells event loops apart; ``None`` where none runs."""
    try:
        return anyio.lowlevel.current_token()
    except RuntimeError:
        return None
