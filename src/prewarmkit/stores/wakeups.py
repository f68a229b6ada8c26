"""Hints to the pools that share a store object: that rows may be due, that handles changed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import anyio
from attrs import define, field

from prewarmkit.stores.base import Hint

__all__ = ["DUE", "Wakeups"]

DUE = Hint()
_MOST_CHANGED = 1_000


@define(eq=False)
class _Mailbox:
    """One listener's: it finds one hint, whatever has come since it last looked."""

    hint: Hint | None = None
    event: anyio.Event = field(factory=anyio.Event)

    def put(self, hint: Hint) -> None:
        self.hint = hint if self.hint is None else _both(self.hint, hint)
        self.event.set()

    def __aiter__(self) -> AsyncIterator[Hint]:
        return self

    async def __anext__(self) -> Hint:
        while self.hint is None:
            await self.event.wait()
            self.event = anyio.Event()
        hint, self.hint = self.hint, None
        return hint


@define(eq=False)
class Wakeups:
    """Whoever listens."""

    _mailboxes: list[_Mailbox] = field(init=False, factory=list[_Mailbox])

    def notify(self, hint: Hint = DUE) -> None:
        """Tell every listener; never waits."""
        for mailbox in self._mailboxes:
            mailbox.put(hint)

    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[AsyncIterator[Hint]]:
        """A stream of hints."""
        mailbox = _Mailbox()
        self._mailboxes.append(mailbox)
        try:
            yield mailbox
        finally:
            self._mailboxes.remove(mailbox)


def _both(one: Hint, other: Hint) -> Hint:
    """One hint that says what two say."""
    changed = None
    if one.changed is not None and other.changed is not None:
        changed = (
            {*one.changed, *other.changed} if one.changed and other.changed else one.changed or other.changed
        )
        changed = changed if len(changed) <= _MOST_CHANGED else None
    return Hint(is_due=one.is_due or other.is_due, changed=changed)
