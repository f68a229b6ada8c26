"""Servers that start and stop by blocking calls, entered by ``with`` and by ``async with`` alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread

__all__ = ["Lifespan"]


class Lifespan(ABC):
    """Both ways into a block. In an async block starting and stopping happen in a thread."""

    @abstractmethod
    def _open(self) -> None:
        """Start; what was begun is undone if it fails."""

    @abstractmethod
    def _close(self) -> None:
        """Stop and clean up; also after `_open` failed."""

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    async def __aenter__(self) -> Self:
        try:
            await anyio.to_thread.run_sync(self._open)
        except BaseException:
            # Cancelled while the thread was at it: it has finished, and nobody will leave the block.
            await self._close_in_thread()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close_in_thread()

    async def _close_in_thread(self) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._close)
