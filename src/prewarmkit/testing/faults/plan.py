"""Which request meets which fault, and what came of it: the proxy's script and its log.

Pure and synchronous: every change happens in one step. Knows no socket.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal
from urllib.parse import parse_qsl, unquote

from attrs import define, field, frozen

from prewarmkit.testing.faults.fault import Fault

__all__ = ["Exchange", "FaultRule", "Plan", "ProxiedRequest", "ProxyStatistics", "When"]

Outcome = Literal["open", "answered", "cut", "hung up", "no upstream"]


@frozen
class ProxiedRequest:
    """The head of a request, on which a rule decides.

    Attributes:
        method: Such as ``GET``.
        target: Path and query as they came; hidden in ``repr``, a query may sign.
        headers: Pairs, names in lower case; hidden in ``repr``, they may sign.
        number: Of the request, over all connections, from 0.
        connection: Of the connection, from 0.
        nth: Of the request on its connection, from 0; over 0 the connection was idle before.
    """

    method: str
    target: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    number: int
    connection: int
    nth: int

    @property
    def path(self) -> str:
        """Decoded, without the query."""
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> dict[str, str]:
        """By name, decoded; a name without a value has the value ``""``."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case."""
        return next((value for key, value in self.headers if key == name.lower()), None)


When = Callable[[ProxiedRequest], bool]


@define(eq=False)
class Exchange:
    """One line of the log: a request and what became of it.

    Attributes:
        request: Its head.
        fault: What it met; ``None``: nothing.
        has_struck: Whether the fault came to pass: a cut after byte 1000 of an answer of 10 does not.
        status: Of the answer that the client got, as far as its head was begun; ``None``: none.
        up_bytes: Of the request's body that the server got.
        down_bytes: Of the answer's body that the client got.
        outcome: ``answered`` to the end, ``cut`` by a fault or by the server, the client ``hung up``,
            ``no upstream``: the server could not be reached and the client got 502.
    """

    request: ProxiedRequest
    fault: Fault | None
    has_struck: bool = False
    status: int | None = None
    up_bytes: int = 0
    down_bytes: int = 0
    outcome: Outcome = "open"

    def end(self, outcome: Outcome) -> None:
        """It is over, unless it was already."""
        if self.outcome == "open":
            self.outcome = outcome


@define(eq=False)
class FaultRule:
    """A fault, and whom it is meant for.

    Attributes:
        fault: What they meet.
        when: Who; ``None``: everybody.
        times: How often still; ``None``: always.
        hits: Who met it, oldest first.
    """

    fault: Fault
    when: When | None
    times: int | None
    hits: list[Exchange] = field(init=False, factory=list[Exchange])

    def takes(self, request: ProxiedRequest) -> bool:
        """Whether it is the request's."""
        return self.times != 0 and (self.when is None or self.when(request))


@frozen(kw_only=True)
class ProxyStatistics:
    """What a proxy has seen.

    Attributes:
        connections: Of clients, open now.
        opened: Of clients, since the start.
        requests: Since the start.
        faults: Exchanges in which a fault came to pass.
    """

    connections: int
    opened: int
    requests: int
    faults: int


@define
class Plan:
    """The rules in their order, and the log.

    Attributes:
        log: Every exchange, oldest first.
    """

    log: list[Exchange] = field(init=False, factory=list[Exchange])
    _next: list[FaultRule] = field(init=False, factory=list[FaultRule])
    _always: list[FaultRule] = field(init=False, factory=list[FaultRule])

    def next(self, fault: Fault, *, when: When | None = None, times: int = 1) -> FaultRule:
        """See `FaultProxy.next`."""
        if times < 1:
            raise ValueError(f"times must be at least 1, not {times!r}.")
        rule = FaultRule(fault, when, times)
        self._next.append(rule)
        return rule

    def always(self, fault: Fault, *, when: When | None = None) -> FaultRule:
        """See `FaultProxy.always`."""
        rule = FaultRule(fault, when, None)
        self._always.append(rule)
        return rule

    def clear(self) -> None:
        """Forget the rules; the log stays."""
        self._next.clear()
        self._always.clear()

    def begin(self, request: ProxiedRequest) -> Exchange:
        """Choose the request's fault and open its line of the log."""
        rules: Sequence[FaultRule] = (*self._next, *self._always)
        rule = next((rule for rule in rules if rule.takes(request)), None)
        exchange = Exchange(request, None if rule is None else rule.fault)
        self.log.append(exchange)
        if rule is not None:
            rule.hits.append(exchange)
            if rule.times is not None:
                rule.times -= 1
        return exchange
