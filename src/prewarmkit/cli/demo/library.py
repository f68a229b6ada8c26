"""The media of a demo: made from a seed, or found in a directory, and uploaded to the bucket.

Owns where the bytes come from and the digests that are taken of them before anything else
touches them. Knows nothing of pools and targets.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import anyio.to_thread
from attrs import field, frozen

from prewarmkit import ConfigurationError, Media, R2Client
from prewarmkit.cli.demo.place import Place, Plan, Stored
from prewarmkit.testing.media import SampleMedia, media_set

__all__ = ["Item", "items_of", "upload"]

_UPLOADS_AT_ONCE = 6


@frozen(kw_only=True)
class Item:
    """One medium before it is uploaded.

    Attributes:
        key: Its key in the bucket.
        size: Bytes.
        content_type: What to store it as; ``None``: the extension says it.
        stamp: What its bytes are from; see `Stored`.
        source: The file, or what makes the bytes.
    """

    key: str
    size: int
    content_type: str | None
    stamp: str
    source: Path | SampleMedia = field(repr=False)


def items_of(plan: Plan) -> list[Item]:
    """The media of a plan, in a fixed order.

    Raises:
        ConfigurationError: The directory has no file, or one that cannot be a key.
    """
    if plan.media is None:
        return [
            Item(
                key=sample.key,
                size=sample.size,
                content_type=sample.content_type,
                stamp=f"seed {plan.seed}",
                source=sample,
            )
            for sample in media_set(plan.count, plan.seed)
        ]
    items = [_found(path, Path(plan.media)) for path in _files(Path(plan.media))]
    if not items:
        raise ConfigurationError(
            f"{plan.media} has no files (hidden ones do not count): name a directory that has some."
        )
    return items


def _files(directory: Path) -> Iterator[Path]:
    """Every file that is not hidden, sorted."""

    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(directory, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file():
                yield path


def _found(path: Path, directory: Path) -> Item:
    key = path.relative_to(directory).as_posix()
    try:
        Media(key)
    except ValueError as error:
        raise ConfigurationError(f"{key!a} cannot be warmed: rename it. {error}") from None
    facts = path.stat()
    return Item(
        key=key, size=facts.st_size, content_type=None, stamp=f"modified {facts.st_mtime_ns}", source=path
    )


async def upload(
    items: list[Item], bucket: R2Client, place: Place, *, on_stored: Callable[[int], None]
) -> list[Stored]:
    """Bring every medium into the bucket, several at once; what is there already stays.

    Args:
        items: The media.
        bucket: Where to.
        place: Remembers what is uploaded.
        on_stored: Called with the bytes of each medium that is there.
    """
    known = place.stored()
    there = {info.key: info.size async for info in bucket.list()} if known else {}
    stored: dict[str, Stored] = {}
    waiting = iter(items)

    async def carry() -> None:
        for item in waiting:
            before = known.get(item.key)
            if before is not None and there.get(item.key) == item.size and _is_same(before, item):
                stored[item.key] = before
            else:
                stored[item.key] = await _put(item, bucket)
                place.remember(stored[item.key])
            on_stored(item.size)

    async with anyio.create_task_group() as group:
        for _ in range(_UPLOADS_AT_ONCE):
            group.start_soon(carry)
    return [stored[item.key] for item in items]


def _is_same(stored: Stored, item: Item) -> bool:
    return (stored.size, stored.stamp) == (item.size, item.stamp)


async def _put(item: Item, bucket: R2Client) -> Stored:
    body, digest = await anyio.to_thread.run_sync(_body_of, item.source)
    await bucket.put(item.key, body, content_type=item.content_type)
    return Stored(key=item.key, size=item.size, sha256=digest, stamp=item.stamp)


def _body_of(source: Path | SampleMedia) -> tuple[Path | bytes, str]:
    """What to upload, and its digest; a file is never held in memory."""
    if isinstance(source, SampleMedia):
        made = source.maker()
        return made, hashlib.sha256(made).hexdigest()
    with source.open("rb") as file:
        return source, hashlib.file_digest(file, "sha256").hexdigest()
