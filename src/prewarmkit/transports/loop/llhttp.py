"""An answer read by llhttp, the parser of Node.js, for `FastTransport`: the only module that imports httptools."""

from __future__ import annotations

import httptools

from prewarmkit.transports.loop.answer import MAX_HEAD_BYTES, TOO_LARGE, Answer, lowered

__all__ = ["LlhttpAnswer"]

_FIRST_FINAL_STATUS = 200
_SWITCHING_PROTOCOLS = 101


class LlhttpAnswer(Answer):
    """See `Answer`. The parser calls back what it finds."""

    def __init__(self) -> None:
        super().__init__()
        self._is_head = False
        self._fault: str | None = None
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)

    def _begin(self, *, is_head: bool) -> None:
        self._is_head = is_head

    def feed(self, data: bytes | memoryview) -> str | None:
        """Take what came; what is wrong with it, if anything is."""
        if self._parser is None:
            return None
        self.is_begun = True
        self._headless_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self._fault is None:
                self._fault = f"sent what is not HTTP/1.1 ({error})."
        if self._headless_bytes > MAX_HEAD_BYTES:
            self._fault = TOO_LARGE
        return self._fault

    def end(self) -> bool:
        """The server says that nothing more comes; whether that makes the answer whole."""
        if not self.is_complete and self.is_answered and self._lasts_until_the_end():
            self._complete(keeps_alive=False)
        return self.is_complete

    def close(self) -> None:
        """Nothing more can come. Parser and callbacks hold each other, which ends here."""
        self._parser = None

    # ── the parser's callbacks ───────────────────────────────────────────────

    def on_message_begin(self) -> None:
        """An answer begins, or a note before it."""
        if self.is_complete:
            self.is_overrun = True
        else:
            self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        if not self.is_answered:
            self.headers.append((lowered(name), value.decode("latin-1").strip(" \t")))

    def on_headers_complete(self) -> None:
        """The head is whole; after a note (1xx) another one comes."""
        if self.is_answered or self._parser is None:
            return
        status = self._parser.get_status_code()
        if status == _SWITCHING_PROTOCOLS:
            self._fault = "switched protocols without being asked: is it HTTP?"
        elif status >= _FIRST_FINAL_STATUS and not self._is_coded():
            self.status = status
            self.is_answered = True
            if self._is_head:
                self._complete(keeps_alive=self._says_keep_alive())
                # The parser would wait for a body; a new one does not.
                self._parser = httptools.HttpResponseParser(self)

    def on_body(self, body: bytes) -> None:
        """Some bytes of a body."""
        if self.is_complete:
            self.is_overrun = True  # a body where none may be
        else:
            self._add(body)

    def on_message_complete(self) -> None:
        """The answer is whole, or a note was."""
        if self.is_answered and not self.is_complete and self._parser is not None:
            self._complete(keeps_alive=self._parser.should_keep_alive())

    def _complete(self, *, keeps_alive: bool) -> None:
        self.is_complete = True
        self.keeps_alive = keeps_alive

    def _says_keep_alive(self) -> bool:
        said = {token.strip().lower() for token in self._values("connection")}
        is_modern = self._parser is not None and self._parser.get_http_version() == "1.1"
        return "close" not in said and (is_modern or "keep-alive" in said)

    def _is_coded(self) -> bool:
        """Whether the body is in a form that the parser would let through as it is; it takes chunks apart only."""
        for coding in self._values("transfer-encoding"):
            if coding.strip().lower() != "chunked":
                self._fault = f"sent a body in a transfer coding that is not understood ({coding.strip()})."
                return True
        return False

    def _lasts_until_the_end(self) -> bool:
        """Whether the answer has no length, so that its end is the connection's."""
        return not (self._values("transfer-encoding") or self._values("content-length"))

    def _values(self, name: str) -> list[str]:
        return [one for found, value in self.headers if found == name for one in value.split(",")]
