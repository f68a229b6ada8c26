"""What a target remembers of media between two attempts: what failed by its address, and what was spent.

Owns the rule that an address that failed once is not sent again, by any process that shares
the store. Keeps digests only, so that neither memory nor store holds an address.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

from attrs import define, field

from prewarmkit.media import Media, MediaKind
from prewarmkit.stores.base import KeyValue
from prewarmkit.targets.telegram.routes import Reference

__all__ = ["Memory"]

_MOST_ENTRIES = 20_000

_K = TypeVar("_K")
_V = TypeVar("_V")


def _keep(entries: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    entries[key] = value
    entries.move_to_end(key)
    if len(entries) > _MOST_ENTRIES:
        entries.popitem(last=False)


@define(eq=False)
class Memory:
    """Bounded in this process; what failed is also in the store, where there is one.

    Attributes:
        state: A pool's durable facts for this target.
    """

    state: KeyValue | None = None
    _failed: OrderedDict[str, None] = field(init=False, factory=OrderedDict[str, None])
    _spent: OrderedDict[tuple[str, MediaKind], int] = field(
        init=False, factory=OrderedDict[tuple[str, MediaKind], int]
    )
    _alone: OrderedDict[tuple[str, MediaKind], None] = field(
        init=False, factory=OrderedDict[tuple[str, MediaKind], None]
    )

    async def has_failed(self, reference: Reference) -> bool:
        """Whether it is not to be sent again."""
        if reference.digest in self._failed:
            return True
        if self.state is None or await self.state.get(_name(reference)) is None:
            return False
        _keep(self._failed, reference.digest, None)
        return True

    async def note_failed(self, reference: Reference) -> None:
        """It failed, or what came of it is not to be trusted."""
        _keep(self._failed, reference.digest, None)
        if self.state is not None:
            await self.state.put(_name(reference), reference.route)

    def spend(self, media: Media) -> int:
        """Count a message that is sent for it; return how many that makes since its last success."""
        id_ = (media.key, media.kind)
        count = self._spent.get(id_, 0) + 1
        _keep(self._spent, id_, count)
        return count

    def settle(self, media: Media) -> None:
        """It succeeded: count anew."""
        self._spent.pop((media.key, media.kind), None)
        self._alone.pop((media.key, media.kind), None)

    def send_alone(self, media: Media) -> None:
        """What came of it in an album is not to be trusted: the next time it goes alone."""
        _keep(self._alone, (media.key, media.kind), None)

    def goes_alone(self, media: Media) -> bool:
        """Whether it is to go alone."""
        return (media.key, media.kind) in self._alone


def _name(reference: Reference) -> str:
    return f"failed:{reference.digest}"
