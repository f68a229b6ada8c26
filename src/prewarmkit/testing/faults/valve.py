"""One direction of an exchange: counts the bytes of each stage, and lets the strike happen among them."""

from __future__ import annotations

from collections.abc import Generator

import anyio

from prewarmkit.testing.faults.fault import Ending, Stage, Strike
from prewarmkit.testing.faults.line import Line
from prewarmkit.testing.faults.plan import Exchange

__all__ = ["Cut", "Valve"]


class Cut(Exception):
    """Both connections are to end now.

    Args:
        ending: How.
    """

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending)
        self.ending: Ending = ending


class Valve:
    """Sends to one side.

    Args:
        line: That side.
        exchange: Whose fault strikes, and who is told how much went through.
    """

    def __init__(self, line: Line, exchange: Exchange) -> None:
        self._line = line
        self._exchange = exchange
        self._stage: Stage = "request head"
        self._passed = 0

    async def begin(self, stage: Stage) -> None:
        """What comes now belongs to another stage.

        Raises:
            Cut: The strike says so.
        """
        self._stage, self._passed = stage, 0
        await self._act()

    async def send(self, data: bytes) -> None:
        """Pass on.

        Raises:
            Cut: The strike says so.
            Gone: The side is.
        """
        for piece, pause in self._pieces(data):
            if pause:
                await anyio.sleep(pause)
            await self._line.send(piece)
            self._passed += len(piece)
            if self._stage == "request body":
                self._exchange.up_bytes += len(piece)
            elif self._stage == "answer body":
                self._exchange.down_bytes += len(piece)
            await self._act()

    def _here(self) -> Strike | None:
        """The strike, if it is in this stage."""
        fault = self._exchange.fault
        strike = None if fault is None else fault.strike
        return strike if strike is not None and strike.stage == self._stage else None

    def _pieces(self, data: bytes) -> Generator[tuple[bytes, float], None, None]:
        """Cut where the strike comes, and from there on for a dribble; each with the pause before it."""
        strike, start = self._here(), 0
        if strike is not None:
            if 0 < strike.after - self._passed < len(data):
                start = strike.after - self._passed
                yield data[:start], 0.0
            if strike.act == "dribble" and self._passed >= strike.after:
                for at in range(start, len(data), strike.piece_bytes):
                    yield data[at : at + strike.piece_bytes], strike.seconds
                return
        if start < len(data):
            yield data[start:], 0.0

    async def _act(self) -> None:
        strike = self._here()
        if strike is None or self._passed < strike.after:
            return
        is_first, self._exchange.has_struck = not self._exchange.has_struck, True
        match strike.act:
            case "reset" | "close" as ending:
                raise Cut(ending)
            case "stall" if is_first:
                await anyio.sleep(strike.seconds)
            case _:  # a dribble is in the pieces
                pass
