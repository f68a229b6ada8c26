"""The targets of one pool: known by id, resolved by name, each with its health."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

import anyio
from attrs import define, field

from prewarmkit.errors import ConfigurationError, TargetRequired, UnknownTarget
from prewarmkit.pool.health import Health
from prewarmkit.pool.state import Pause
from prewarmkit.targets.base import WarmTarget

__all__ = ["TargetBook", "TargetDirectory", "TargetResolver", "Targets"]

_RESOLVED_SECONDS = 300.0


@runtime_checkable
class TargetResolver(Protocol):
    """Finds a target by a host's own name for it (a bot's slug). Answers are kept five minutes."""

    async def resolve(self, name: str) -> WarmTarget:
        """The target of that name.

        Raises:
            UnknownTarget: There is none.
        """
        ...


@runtime_checkable
class TargetDirectory(TargetResolver, Protocol):
    """A resolver that also finds a target by the id in its rows, so that a pool goes on with a backlog unasked."""

    async def by_id(self, id: str) -> WarmTarget:  # noqa: A002
        """The target of that `WarmTarget.id`. Asked once for each id that rows wait for and nobody has named.

        Raises:
            UnknownTarget: There is none here: rows of another pool. Asked again after five minutes.
        """
        ...


Targets = WarmTarget | Iterable[WarmTarget] | TargetResolver


@define(eq=False)
class TargetBook:
    """Targets by id, how each is, and names that were resolved."""

    clock: Callable[[], float]
    on_new: Callable[[WarmTarget], None]
    new_health: Callable[[], Health]
    _healths: dict[str, Health] = field(init=False, factory=dict[str, Health])
    _by_id: dict[str, WarmTarget] = field(init=False, factory=dict[str, WarmTarget])
    _resolver: TargetResolver | None = field(init=False, default=None)
    _directory: TargetDirectory | None = field(init=False, default=None)
    _resolved: dict[str, tuple[float, WarmTarget]] = field(
        init=False, factory=dict[str, tuple[float, WarmTarget]]
    )
    _resolving: dict[str, anyio.Lock] = field(init=False, factory=dict[str, anyio.Lock])

    def fill(self, targets: Targets) -> None:
        """Take what the host gave.

        Raises:
            ConfigurationError: Two targets of one id, none at all, or something that is no target.
        """
        if not isinstance(targets, WarmTarget) and isinstance(targets, TargetResolver):
            self._resolver = targets
            self._directory = targets if isinstance(targets, TargetDirectory) else None
            return
        given = [targets] if isinstance(targets, WarmTarget) else list(targets)
        if not given:
            raise ConfigurationError("A pool needs a target: pass one, several, or a TargetResolver.")
        for target in given:
            self._add(target)

    def _add(self, target: WarmTarget) -> None:
        if not isinstance(target, WarmTarget) or not isinstance(target.id, str) or not target.id:
            raise ConfigurationError(
                f"A target needs a non-empty str `id` and an async `warm`: {target!r} does not."
            )
        if target.id in self._by_id:
            raise ConfigurationError(
                f"Two targets have the id {target.id!r}: ids stand in rows, give each its own."
            )
        self.on_new(target)  # first: one that cannot be bound is not known
        self._by_id[target.id] = target
        self._healths[target.id] = self.new_health()

    @property
    def ids(self) -> list[str]:
        """Every id that is known now."""
        return list(self._by_id)

    @property
    def known(self) -> list[WarmTarget]:
        """Every target that is known now."""
        return list(self._by_id.values())

    def by_id(self, id_: str) -> WarmTarget:
        """The target of a row that was leased for this pool."""
        return self._by_id[id_]

    def knows(self, id_: str) -> bool:
        """Whether a target of that id is known now."""
        return id_ in self._by_id

    @property
    def can_meet(self) -> bool:
        """Whether the resolver finds targets by id."""
        return self._directory is not None

    async def meet(self, id_: str) -> bool:
        """Ask the resolver for the target of an id; whether it is known from now on and was not before.

        Raises:
            UnknownTarget: It has none.
        """
        if self._directory is None:
            return False
        target = await self._directory.by_id(id_)
        if not isinstance(target, WarmTarget) or target.id != id_:
            raise UnknownTarget(f"The resolver has no target of the id {id_!r}.")
        if id_ in self._by_id:
            return False  # somebody named it meanwhile
        self._add(target)
        return True

    async def find(self, target: WarmTarget | str | None) -> WarmTarget:
        """The target that a call means.

        Raises:
            TargetRequired: It named none, and there is not exactly one.
            UnknownTarget: There is none of that name.
        """
        if target is None:
            if self._resolver is None and len(self._by_id) == 1:
                return next(iter(self._by_id.values()))
            known = ", ".join(self._by_id) or "what the resolver knows"
            raise TargetRequired(f"Say which target: pass target= (one of {known}).")
        if isinstance(target, str):
            known_target = self._by_id.get(target)
            # A name may equal an id: once resolved it is asked for again when its time is over.
            if known_target is not None and target not in self._resolved:
                return known_target
            if self._resolver is None:
                raise UnknownTarget(
                    f"There is no target {target!r} in this pool; it has {', '.join(self._by_id)}."
                )
            return await self._resolve(target, self._resolver)
        id_ = getattr(target, "id", None)
        if not isinstance(id_, str) or self._by_id.get(id_) is not target:
            raise UnknownTarget(
                f"{type(target).__name__} {id_!r} is no target of this pool: pass it when the pool is made."
            )
        return target

    async def _resolve(self, name: str, resolver: TargetResolver) -> WarmTarget:
        kept = self._kept(name)
        if kept is not None:
            return kept
        # One question at a time for each name: a thousand callers ask the resolver once.
        lock = self._resolving.setdefault(name, anyio.Lock())
        try:
            async with lock:
                return self._kept(name) or await self._ask(name, resolver)
        finally:
            if not lock.locked():  # names come from outside: what is asked once must not stay for ever
                self._resolving.pop(name, None)

    def _kept(self, name: str) -> WarmTarget | None:
        at, target = self._resolved.get(name, (-math.inf, None))
        return target if self.clock() - at < _RESOLVED_SECONDS else None

    async def _ask(self, name: str, resolver: TargetResolver) -> WarmTarget:
        target = await resolver.resolve(name)
        if not isinstance(target, WarmTarget):
            raise UnknownTarget(f"The resolver has no target for {name!r}.")
        known = self._by_id.get(target.id)
        if known is None:
            self._add(target)
        elif known is not target:
            self.on_new(target)
            self._by_id[target.id] = target  # a new object for a known id: a rotated token, say
        self._resolved[name] = (self.clock(), target)
        return target

    # ── health ───────────────────────────────────────────────────────────────

    def health(self, id_: str) -> Health:
        """How the target of that id is."""
        return self._healths[id_]

    def resting(self, id_: str) -> Pause | None:
        """How long, and why, it still rests."""
        return self._healths[id_].resting()

    def awake(self) -> list[str]:
        """Ids that may be leased for."""
        return [id_ for id_, health in self._healths.items() if health.resting() is None]

    def next_awake(self) -> float | None:
        """Seconds until the first resting target may work again."""
        rests = [
            pause.seconds for health in self._healths.values() if (pause := health.resting()) is not None
        ]
        return min(rests, default=None)
