"""What one side says, as h11 understands it."""

from __future__ import annotations

import h11

from prewarmkit.testing.faults.line import Gone, Line

__all__ = ["Events"]

_MAX_HEAD_BYTES = 64 * 1024


class Events:
    """The events of one message off a connection.

    Args:
        line: Where it comes in.
        role: Ours: `h11.SERVER` for the client's requests, `h11.CLIENT` for the server's answers.
        left: What came behind the message before.

    Attributes:
        line: As given.
        is_done: Whether the message was read to its end.
    """

    def __init__(self, line: Line, role: type[h11.CLIENT | h11.SERVER], left: bytes = b"") -> None:
        self.line = line
        self.is_done = False
        self._http = h11.Connection(role, max_incomplete_event_size=_MAX_HEAD_BYTES)
        if left:
            self._http.receive_data(left)

    async def next(self) -> h11.Event:
        """The next event.

        Raises:
            Gone: The connection was reset.
            h11.RemoteProtocolError: It is no HTTP, or ended in the middle.
        """
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Event):
                self.is_done = isinstance(event, h11.EndOfMessage)
                return event
            self._http.receive_data(await self.line.receive())

    async def data(self) -> bytes | None:
        """The next piece of the body; ``None``: it has ended.

        Raises:
            Gone: The connection was reset, or a client closed it in the middle of a request.
            h11.RemoteProtocolError: A server did so in the middle of an answer.
        """
        if self.is_done:
            return None
        try:
            event = await self.next()
        except h11.RemoteProtocolError:
            if self._http.our_role is h11.SERVER:
                raise Gone(self.line) from None
            raise
        return bytes(event.data) if isinstance(event, h11.Data) else None

    def encode(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> bytes:
        """An event of ours, in the bytes that it takes.

        Raises:
            h11.LocalProtocolError: The other side has ended the exchange.
        """
        return self._http.send(event) or b""

    @property
    def waits_for_go_ahead(self) -> bool:
        """The client sends its body once it was told that it may (``Expect: 100-continue``)."""
        return self._http.they_are_waiting_for_100_continue

    @property
    def left(self) -> bytes:
        """What came behind the message."""
        return self._http.trailing_data[0]
