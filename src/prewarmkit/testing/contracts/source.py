"""What every `prewarmkit.sources.MediaSource` must do.

Subclass, say how a source with given objects is made, and let pytest collect it under
anyio's plugin::

    pytestmark = pytest.mark.anyio

    class TestMySource(SourceContract):
        def source(self, objects):
            return my_source_with(objects)     # an async context manager that gives the source
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

import anyio

from prewarmkit.errors import NotFound
from prewarmkit.sources.base import MediaSource

__all__ = ["SourceContract"]

_LARGE = bytes(range(256)) * 4096 * 3  # 3 MiB


class SourceContract:
    """The suite. Override `source`."""

    def source(self, objects: Mapping[str, bytes]) -> AbstractAsyncContextManager[MediaSource]:
        """A source that holds ``objects`` by their keys, and is ready for use inside the block."""
        raise NotImplementedError

    async def test_it_fulfils_the_protocol(self) -> None:
        """By its methods; no base class is asked for."""
        async with self.source({}) as source:
            assert isinstance(source, MediaSource)

    async def test_an_object_is_read_as_it_is(self) -> None:
        """In chunks, with its size known before the first of them."""
        async with self.source({"a/b.bin": _LARGE}) as source, source.open("a/b.bin") as medium:
            assert (medium.info.key, medium.info.size) == ("a/b.bin", len(_LARGE))
            chunks = [chunk async for chunk in medium]
            assert b"".join(chunks) == _LARGE
            assert max(map(len, chunks)) < len(_LARGE)

    async def test_read_gives_what_is_left(self) -> None:
        """All of it at first, the rest after some chunks, nothing at the end."""
        async with self.source({"k": _LARGE}) as source:
            async with source.open("k") as medium:
                assert await medium.read() == _LARGE
                assert await medium.read() == b""
            async with source.open("k") as medium:
                first = await anext(aiter(medium))
                assert first + await medium.read() == _LARGE

    async def test_an_empty_object_is_an_object(self) -> None:
        """Nothing to read is not nothing there."""
        async with self.source({"empty": b""}) as source:
            async with source.open("empty") as medium:
                assert medium.info.size == 0
                assert await medium.read() == b""
            assert (await source.head("empty")).size == 0

    async def test_head_and_open_tell_the_same(self) -> None:
        """An ETag too, where there is one: it is the version that rows are compared by."""
        async with self.source({"k.txt": b"hello"}) as source:
            head = await source.head("k.txt")
            async with source.open("k.txt") as medium:
                assert medium.info.etag == head.etag
                assert medium.info.size == head.size == len(b"hello")
            if head.last_modified is not None:
                assert head.last_modified.tzinfo is not None

    async def test_a_missing_key_is_not_found_by_its_code(self) -> None:
        """For open and head alike; the message names the key."""
        async with self.source({"there": b"x"}) as source:
            for key in ("missing", "there/below", "no/such/directory"):
                for call in (self._open, self._head):
                    found: NotFound | None = None
                    try:
                        await call(source, key)
                    except NotFound as error:
                        found = error
                    assert found is not None, key
                    assert found.code == "NoSuchKey"
                    assert not found.is_retryable
                    assert key in str(found)

    async def test_leaving_early_leaves_the_source_usable(self) -> None:
        """Half-read, unread and cancelled readers free what they held."""
        async with self.source({"k": _LARGE}) as source:
            for _ in range(20):
                async with source.open("k") as medium:
                    await anext(aiter(medium))
                async with source.open("k"):
                    pass
                with anyio.move_on_after(0.002):
                    async with source.open("k") as medium:
                        async for _chunk in medium:
                            await anyio.sleep(0.001)
            async with source.open("k") as medium:
                assert await medium.read() == _LARGE

    async def test_many_read_at_once(self) -> None:
        """Each its own bytes."""
        objects = {f"n{number}": bytes([number]) * 300_000 for number in range(12)}
        read: dict[str, bytes] = {}
        async with self.source(objects) as source:

            async def one(key: str) -> None:
                async with source.open(key) as medium:
                    read[key] = await medium.read()

            async with anyio.create_task_group() as tasks:
                for key in objects:
                    tasks.start_soon(one, key)
        assert read == objects

    async def test_url_is_an_address_for_anyone_or_none(self) -> None:
        """Never a presigned one, which would be a secret."""
        async with self.source({"k": b"x"}) as source:
            url = source.url("k", version="1")
            assert url is None or ("Signature" not in url and url.startswith("http"))

    @staticmethod
    async def _open(source: MediaSource, key: str) -> None:
        async with source.open(key):
            pass

    @staticmethod
    async def _head(source: MediaSource, key: str) -> None:
        await source.head(key)
