"""An answer read by h11, httpcore's parser, in pure Python: what `DirectTransport` uses on asyncio.

h11 keeps both sides of a connection. Of ours it is told that a request without a body went out, for it
only needs to know what kind of answer follows: the request itself is written beside it.
"""

from __future__ import annotations

from typing import cast

import h11

from prewarmkit.transports.loop.answer import MAX_HEAD_BYTES, TOO_LARGE, Answer, lowered

__all__ = ["H11Answer"]

_REQUESTS = {
    is_head: h11.Request(method="HEAD" if is_head else "GET", target="/", headers=[("host", "-")])
    for is_head in (False, True)
}
_SENT = h11.EndOfMessage()


class H11Answer(Answer):
    """See `Answer`."""

    def __init__(self) -> None:
        super().__init__()
        self._http: h11.Connection | None = h11.Connection(h11.CLIENT, MAX_HEAD_BYTES)

    def _begin(self, *, is_head: bool) -> None:
        http = self._http
        if http is not None:
            if http.our_state is h11.DONE:
                http.start_next_cycle()
            http.send(_REQUESTS[is_head])
            http.send(_SENT)

    def feed(self, data: bytes | memoryview) -> str | None:
        """Take what came; what is wrong with it, if anything is."""
        http = self._http
        if http is None:
            return None
        self.is_begun = True
        if self.is_complete:
            self.is_overrun = True
            return None
        self._headless_bytes += len(data)
        try:
            http.receive_data(cast("bytes", data))  # any buffer will do
            self._read(http)
        except h11.RemoteProtocolError as error:
            return f"sent what is not HTTP/1.1 ({error})."
        return TOO_LARGE if self._headless_bytes > MAX_HEAD_BYTES else None

    def end(self) -> bool:
        """The server says that nothing more comes; whether that makes the answer whole."""
        if self.is_answered and not self.is_complete and self._http is not None:
            try:
                self._http.receive_data(b"")
                self._read(self._http)
            except h11.RemoteProtocolError:
                return False  # it was cut short: who asks knows how to say so
            self.keeps_alive = False
        return self.is_complete

    def close(self) -> None:
        """Nothing more can come."""
        self._http = None

    def _read(self, http: h11.Connection) -> None:
        """Take what h11 makes of what came."""
        while True:
            event = http.next_event()
            if isinstance(event, h11.Data):
                self._add(bytes(event.data))
            elif isinstance(event, h11.Response):
                self.status = event.status_code
                self.headers = [(lowered(name), value.decode("latin-1")) for name, value in event.headers]
                self.is_answered = True
            elif isinstance(event, h11.EndOfMessage):
                self.is_complete = True
                self.keeps_alive = http.their_state is h11.DONE
                self.is_overrun = bool(http.trailing_data[0])
                return
            elif not isinstance(event, h11.InformationalResponse):
                return  # h11 wants more
