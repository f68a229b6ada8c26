"""Where bytes come from: the protocol that every source fulfils."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from prewarmkit.media import Media, ObjectInfo

__all__ = ["LocalFiles", "MediaReader", "MediaSource", "Presigner", "opened"]


@runtime_checkable
class MediaReader(Protocol):
    """An open object: its facts, and its bytes once."""

    @property
    def info(self) -> ObjectInfo:
        """Key, size, ETag and the rest, known before the first byte."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The bytes as they come, in chunks of no fixed size, never the whole object at once."""
        ...

    async def read(self) -> bytes:
        """All bytes that are left, in memory."""
        ...


@runtime_checkable
class MediaSource(Protocol):
    """Objects by key. `prewarmkit.R2Client` is one; a class of your own needs no base class.

    A key that is not there raises `prewarmkit.errors.NotFound`; a body that ends before
    ``info.size`` bytes raises `prewarmkit.errors.BodyFault`, never ends quietly.
    """

    def open(self, key: str) -> AbstractAsyncContextManager[MediaReader]:
        """Open an object for one streaming read; leaving the context early frees everything."""
        ...

    async def head(self, key: str) -> ObjectInfo:
        """The object's facts without its bytes."""
        ...

    def url(self, key: str, *, version: str | None = None) -> str | None:
        """An address that anyone may know, or ``None``; never a presigned one."""
        ...


def opened(source: MediaSource, media: Media) -> AbstractAsyncContextManager[MediaReader]:
    """Open a medium's object; a source with ``keeps_copies = True`` is told which version is meant, by ``etag=``."""
    if getattr(source, "keeps_copies", False):
        keeper: Any = source
        kept: AbstractAsyncContextManager[MediaReader] = keeper.open(media.key, etag=media.etag)
        return kept
    return source.open(media.key)


@runtime_checkable
class LocalFiles(Protocol):
    """What a source may offer besides: objects that are files of this machine."""

    async def local_path(self, key: str) -> Path | None:
        """The file's absolute path, or ``None`` for a key that has none."""
        ...


@runtime_checkable
class Presigner(Protocol):
    """What a source may offer besides: addresses that work for a while. Each is a secret."""

    def presign(self, method: str, key: str, *, expires: float | timedelta = ...) -> str:
        """A URL that lets anyone who has it do ``method``, for that long."""
        ...
