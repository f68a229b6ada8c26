"""A listing, page by page, as an asynchronous iterator that holds nothing between pages."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, Self, TypeVar, cast

from prewarmkit.errors import BodyFault
from prewarmkit.media import ObjectInfo
from prewarmkit.r2.responses import CommonPrefix, Page

__all__ = ["Listing"]

EntryT = TypeVar("EntryT", bound="ObjectInfo | CommonPrefix")


class Listing(Generic[EntryT]):
    """What `R2Client.list` gives. A class: leaving an ``async for`` early needs no cleaning up.

    Args:
        fetch: Gets the page for a token, ``None`` for the first.
    """

    def __init__(self, fetch: Callable[[str | None], Awaitable[Page]]) -> None:
        self._fetch = fetch
        self._entries: deque[ObjectInfo | CommonPrefix] = deque()
        self._token: str | None = None
        self._has_more = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> EntryT:
        while not self._entries:
            if not self._has_more:
                raise StopAsyncIteration
            page = await self._fetch(self._token)
            if page.next_token is not None and page.next_token == self._token:
                raise BodyFault(
                    "The listing gives the same page again and again: the service's paging is broken."
                )
            self._entries.extend(page.entries)
            self._token = page.next_token
            self._has_more = page.next_token is not None
        return cast("EntryT", self._entries.popleft())
