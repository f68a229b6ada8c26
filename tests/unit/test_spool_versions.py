"""A new version of a medium is never warmed with the old one's bytes, though a spool has them still."""

from __future__ import annotations

from pathlib import Path

import pytest
from bot_wire import FakeTransport

from prewarmkit.media import Media
from prewarmkit.sources import DirectorySource, SpooledSource
from prewarmkit.targets import TelegramTarget

pytestmark = pytest.mark.anyio


async def test_a_version_that_was_queued_is_the_one_that_is_sent(tmp_path: Path) -> None:
    """Without one the spool's bytes are good enough for as long as it keeps them."""
    media, kept = tmp_path / "media", tmp_path / "kept"
    media.mkdir()
    transport = FakeTransport()
    target = TelegramTarget("123456:token", warmup_chats=[-1], transport=transport, budget=None)
    async with DirectorySource(media) as directory, SpooledSource(directory, kept) as source, target:
        for content in (b"%PDF one", b"%PDF another"):
            (media / "a.pdf").write_bytes(content)
            etag = (await directory.head("a.pdf")).etag
            await target.warm(Media("a.pdf", etag=etag), source)
            assert content in transport.sent[-1].body
        await target.warm(Media("a.pdf", etag=f'"{etag}"'), source)
        (media / "a.pdf").write_bytes(b"%PDF a third")
        await target.warm(Media("a.pdf"), source)
        assert b"%PDF another" in transport.sent[-1].body
        assert source.stats().hits == 2
