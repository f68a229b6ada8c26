"""The gates inside the hosted server that nobody documents, as its source has them. Pure.

They are about requests, not messages: how many bytes, how many of them at once, how alike. The clock is handed in.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import Attribute, define, field, frozen

from prewarmkit.testing.botapi.limits import FloodWait

__all__ = ["PAUSE_SECONDS", "Gates", "HostedGates"]

PAUSE_SECONDS = 3.0
"""How long the server keeps a client waiting before it says that too much is in flight."""

_BUSY_SECONDS = 60.0
_BRAKE_FROM_BYTES = 100_000
_BRAKE_SECONDS_PER_BYTE = 1e-7
_BRAKE_LEAST, _BRAKE_MOST = 0.2, 0.9
_BRAKE_BACKLOG = 5.0


def _count(_instance: object, attribute: Attribute[int], value: int) -> None:
    if value < 1:
        raise ValueError(f"HostedGates.{attribute.name} must be 1 or more, not {value!r}.")


@frozen(kw_only=True)
class HostedGates:
    """What the hosted server holds back of one bot; a server with ``--local`` holds back nothing.

    Attributes:
        same_size: Whether requests whose files have the same number of bytes in total are spaced.
        uploads: Requests with files at once; more are refused for a minute.
        upload_bytes: Bytes of files at once.
        requests: Requests at once.
    """

    same_size: bool = True
    uploads: int = field(default=100, validator=_count)
    upload_bytes: int = field(default=4 * 1024**3, validator=_count)
    requests: int = field(default=1000, validator=_count)


@define
class _Load:
    requests: int = 0
    uploads: int = 0
    upload_bytes: int = 0


@define(kw_only=True)
class Gates:
    """What is in flight, and when the next file of some size may pass.

    Attributes:
        limits: What is held back; ``None``: nothing.
        clock: Seconds, from whatever start.
    """

    limits: HostedGates | None
    clock: Callable[[], float] = field(repr=False)
    _loads: dict[int, _Load] = field(init=False, factory=dict[int, _Load], repr=False)
    _next: dict[tuple[int, int], float] = field(init=False, factory=dict[tuple[int, int], float], repr=False)

    def enter(self, bot_id: int, size: int) -> None:
        """Count a request whose body is here; `leave` ends it.

        Raises:
            FloodWait: Too much is in flight; it was not counted.
        """
        limits = self.limits
        if limits is None:
            return
        load = self._loads.setdefault(bot_id, _Load())
        uploads = load.uploads + (size > 0)
        total = load.upload_bytes + size
        if (
            load.requests + 1 > limits.requests
            or uploads > limits.uploads
            or (size and total > limits.upload_bytes)
        ):
            raise FloodWait(_BUSY_SECONDS)
        load.requests, load.uploads, load.upload_bytes = load.requests + 1, uploads, total

    def leave(self, bot_id: int, size: int) -> None:
        """A request that was let in has its answer."""
        if self.limits is None:
            return
        load = self._loads[bot_id]
        load.requests -= 1
        load.uploads -= size > 0
        load.upload_bytes -= size

    def brake(self, bot_id: int, size: int) -> float:
        """Seconds to hold a request back whose files have so many bytes.

        Raises:
            FloodWait: More than five seconds' worth of its size wait already.
        """
        if self.limits is None or not self.limits.same_size or size <= _BRAKE_FROM_BYTES:
            return 0.0
        now = self.clock()
        start = max(now, self._next.get((bot_id, size), now))
        if start - now > _BRAKE_BACKLOG:
            raise FloodWait(start - now)
        space = min(max(size * _BRAKE_SECONDS_PER_BYTE, _BRAKE_LEAST), _BRAKE_MOST)
        self._next[bot_id, size] = start + space
        return start - now
