"""What every `prewarmkit.targets.WarmTarget` must do.

Subclass `TargetContract` in a test module, give it a ``target`` fixture (entered, ready to
take work) and media that your target likes, and pytest runs the suite::

    class TestMyTarget(TargetContract):
        secrets = ("the-token",)

        @pytest.fixture
        async def target(self):
            async with MyTarget(token="the-token") as target:
                yield target

It needs no knowledge of the service behind the target: it works through a source of its
own, `MemorySource`, which can be told to fail.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from attrs import define, field

from prewarmkit.budget import MemoryBudget
from prewarmkit.errors import (
    AccessDenied,
    BodyFault,
    NotFound,
    SourceChanged,
    SourceMissing,
    TargetDown,
    TargetFailure,
    Transient,
    TransportError,
)
from prewarmkit.media import Media, MediaKind, ObjectInfo, Warmed
from prewarmkit.targets.base import Services, WarmTarget

__all__ = ["MemorySource", "MemoryState", "TargetContract"]


@define(eq=False)
class _MemoryReader:
    info: ObjectInfo
    _data: bytes
    _source: MemorySource

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunk = self._source.chunk_bytes
        end = len(self._data) if self._source.end_after is None else self._source.end_after
        for start in range(0, end, chunk):
            if self._source.hang_after is not None and start >= self._source.hang_after:
                self._source.is_hanging.set()
                await anyio.sleep_forever()
            await anyio.lowlevel.checkpoint()
            yield self._data[start : min(start + chunk, end)]
        if end < len(self._data) and self._source.notices_early_end:
            raise BodyFault(f"{self.info.key!r} ended after {end} bytes.")

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self])


@define(eq=False)
class MemorySource:
    """A `prewarmkit.sources.MediaSource` out of a dictionary, with switches to make it fail.

    Attributes:
        objects: Bytes by key.
        chunk_bytes: How much comes at once.
        content_types: Stored types by key.
        open_error: Raised by `open` and `head`, once set.
        end_after: The body ends after that many bytes.
        notices_early_end: Whether it then raises `BodyFault`, as a source must, or ends quietly.
        hang_after: The body hangs after that many bytes.
        is_hanging: Set when it does.
        opened: How often something was opened.
        open_now: How many readers are open.
    """

    objects: dict[str, bytes] = field(factory=dict[str, bytes])
    chunk_bytes: int = 16 * 1024
    content_types: Mapping[str, str] = field(factory=dict[str, str])
    open_error: Exception | None = None
    end_after: int | None = None
    notices_early_end: bool = True
    hang_after: int | None = None
    is_hanging: anyio.Event = field(factory=anyio.Event)
    opened: int = 0
    open_now: int = 0

    @asynccontextmanager
    async def open(self, key: str) -> AsyncGenerator[_MemoryReader]:
        """See `prewarmkit.sources.MediaSource.open`."""
        info = await self.head(key)
        self.opened += 1
        self.open_now += 1
        try:
            yield _MemoryReader(info, self.objects[key], self)
        finally:
            self.open_now -= 1

    async def head(self, key: str) -> ObjectInfo:
        """See `prewarmkit.sources.MediaSource.head`."""
        await anyio.lowlevel.checkpoint()
        if self.open_error is not None:
            raise self.open_error
        if key not in self.objects:
            raise NotFound(f"There is no {key!r}.", code="NoSuchKey", status=404)
        return ObjectInfo(key=key, size=len(self.objects[key]), content_type=self.content_types.get(key))

    def url(self, key: str, *, version: str | None = None) -> str | None:
        """No address: the bytes are in memory."""
        del key, version
        return None


@define(eq=False)
class MemoryState:
    """A `prewarmkit.stores.KeyValue` out of a dictionary."""

    facts: dict[str, str] = field(factory=dict[str, str])

    async def get(self, key: str) -> str | None:
        """See `prewarmkit.stores.KeyValue.get`."""
        return self.facts.get(key)

    async def put(self, key: str, value: str | None) -> None:
        """See `prewarmkit.stores.KeyValue.put`."""
        if value is None:
            self.facts.pop(key, None)
        else:
            self.facts[key] = value


def _payload(name: str) -> bytes:
    # Distinct for each name, and over many chunks.
    return (name.encode() + b"\x00prewarmkit\xff") * 4096


@pytest.mark.anyio
class TargetContract:
    """The suite. Override the fixture ``target``, and what does not fit it of the class attributes.

    Attributes:
        kind: A kind that the target takes any bytes as.
        reads_bytes: Whether warming reads the object through the source; a CDN target that only
            asks its edge does not.
        secrets: What must not be seen in what the target says of itself.
    """

    kind: MediaKind = MediaKind.DOCUMENT
    reads_bytes: bool = True
    secrets: tuple[str, ...] = ()

    @pytest.fixture
    def source(self) -> MemorySource:
        """Four objects."""
        return MemorySource({f"{name}.dat": _payload(name) for name in "abcd"})

    def media(self, key: str = "a.dat") -> Media:
        """A medium to warm."""
        return Media(key, self.kind)

    def _skip_unless_it_reads(self) -> None:
        if not self.reads_bytes:
            pytest.skip("this target does not read through the source")

    # ── what it is ───────────────────────────────────────────────────────────

    async def test_it_is_a_warm_target_with_a_stable_id(self, target: WarmTarget) -> None:
        """The id stands in rows: a string that does not change and has something in it."""
        assert isinstance(target, WarmTarget)
        first = target.id
        assert isinstance(first, str)
        assert first.strip()
        assert target.id == first

    async def test_it_keeps_its_secrets_out_of_sight(self, target: WarmTarget, source: MemorySource) -> None:
        """Neither the id nor the repr nor what it returns holds a secret."""
        warmed = await target.warm(self.media(), source)
        shown = f"{target.id} {target!r} {warmed!r}"
        assert not [secret for secret in self.secrets if secret in shown]

    # ── a medium becomes a handle ────────────────────────────────────────────

    async def test_a_medium_becomes_a_handle(self, target: WarmTarget, source: MemorySource) -> None:
        """Warming returns a handle with something in it, and lets go of the source."""
        self.check(await target.warm(self.media(), source))
        assert source.open_now == 0

    async def test_several_media_at_once_each_get_a_handle(
        self, target: WarmTarget, source: MemorySource
    ) -> None:
        """A pool's workers share one target."""
        warmed: dict[str, Warmed] = {}

        async def one(key: str) -> None:
            warmed[key] = await target.warm(self.media(key), source)

        async with anyio.create_task_group() as tasks:
            for key in source.objects:
                tasks.start_soon(one, key)
        assert set(warmed) == set(source.objects)
        for result in warmed.values():
            self.check(result)
        assert len({result.handle for result in warmed.values()}) == len(warmed)

    def check(self, warmed: Warmed) -> None:
        """What holds for every `Warmed`: it can be stored in a row, and used from there."""
        assert isinstance(warmed, Warmed)
        assert warmed.handle
        assert warmed.kind is None or isinstance(warmed.kind, MediaKind)
        assert all(warmed.weak)
        assert warmed.expires_at is None or warmed.expires_at.tzinfo is not None
        details: Any = dict(warmed.details)
        assert json.loads(json.dumps(details)) == details

    # ── a source that fails ──────────────────────────────────────────────────

    async def test_a_missing_key_is_source_missing(self, target: WarmTarget, source: MemorySource) -> None:
        """Nobody asks again for what is not there."""
        with pytest.raises(SourceMissing):
            await target.warm(self.media("missing.dat"), source)

    @pytest.mark.parametrize(
        ("error", "failure"),
        [
            (AccessDenied("wrong secret", code="SignatureDoesNotMatch", status=403), TargetDown),
            (AccessDenied("not this key", code="AccessDenied", status=403), Transient),
            (NotFound("no bucket", code="NoSuchBucket", status=404), TargetDown),
            (TransportError("reset"), Transient),
        ],
        ids=["wrong-secret", "one-key-denied", "no-bucket", "unreachable"],
    )
    async def test_a_source_that_cannot_be_opened_is_the_matching_failure(
        self, target: WarmTarget, source: MemorySource, error: Exception, failure: type[TargetFailure]
    ) -> None:
        """What is wrong with the source as a whole burns no attempts; one forbidden key holds nobody else."""
        self._skip_unless_it_reads()
        source.open_error = error
        with pytest.raises(failure):
            await target.warm(self.media(), source)
        source.open_error = None
        self.check(await target.warm(self.media(), source))

    @pytest.mark.parametrize("notices", [True, False], ids=["body-fault", "quiet"])
    async def test_a_body_that_ends_early_never_becomes_a_handle(
        self, target: WarmTarget, source: MemorySource, *, notices: bool
    ) -> None:
        """Not even if the source does not notice: the target counts for itself."""
        self._skip_unless_it_reads()
        source.end_after, source.notices_early_end = 40_000, notices
        with pytest.raises((SourceChanged, Transient)):
            await target.warm(self.media(), source)
        assert source.open_now == 0
        source.end_after = None
        self.check(await target.warm(self.media(), source))

    # ── being cancelled, being bound ─────────────────────────────────────────

    async def test_a_cancelled_warming_leaves_nothing_behind(
        self, target: WarmTarget, source: MemorySource
    ) -> None:
        """The source is let go, and the target works on."""
        self._skip_unless_it_reads()
        source.hang_after = 40_000
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(target.warm, self.media(), source)
            with anyio.fail_after(5):
                await source.is_hanging.wait()
            tasks.cancel_scope.cancel()
        assert source.open_now == 0
        source.hang_after = None
        with anyio.fail_after(5):
            self.check(await target.warm(self.media(), source))

    async def test_a_bound_target_works_as_before(self, target: WarmTarget, source: MemorySource) -> None:
        """`bind` is optional; where there is one, it takes what a pool lends."""
        bind = getattr(target, "bind", None)
        if bind is None:
            pytest.skip("this target has no bind")
        events: list[Any] = []
        bind(Services(MemoryBudget(), MemoryState(), events.append))
        self.check(await target.warm(self.media(), source))
