"""Many objects in one call: one result an item, in the items' order, whatever becomes of the others.

Knows how items are told apart and their results put back in place; how one of them is written or
deleted is handed in.
"""

from __future__ import annotations

import traceback
import unicodedata
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, NotRequired, TypedDict, cast
from xml.etree import ElementTree as ET

import anyio
import anyio.lowlevel
from attrs import frozen

from prewarmkit.errors import BodyFault, R2Error
from prewarmkit.media import ObjectInfo
from prewarmkit.r2.bodies import PutBody
from prewarmkit.r2.faults import fault_of
from prewarmkit.r2.naming import encode_key
from prewarmkit.r2.parallel import parallel
from prewarmkit.r2.requests import Bucket, carries_in_xml
from prewarmkit.r2.responses import DeleteFault, parse_deleted
from prewarmkit.r2.sender import Answer, Sender

__all__ = ["DeleteResult", "PutItem", "PutItems", "PutResult", "delete_all", "put_all"]

_KEYS_A_REQUEST = 1000


class PutItem(TypedDict):
    """One object for `R2Client.put_many`: the arguments of `R2Client.put`."""

    key: str
    body: PutBody
    content_type: NotRequired[str | None]
    metadata: NotRequired[Mapping[str, str] | None]
    if_match: NotRequired[str | None]
    if_none_match: NotRequired[str | None]
    part_size: NotRequired[int | None]


PutItems = Iterable[PutItem | tuple[str, PutBody]] | Mapping[str, PutBody]
"""What `R2Client.put_many` takes."""


@frozen
class PutResult:
    """What became of one item of `R2Client.put_many`.

    Attributes:
        key: The item's; empty where the item had none.
        info: Of the object that was written; ``None``: it was not.
        error: Why not.
    """

    key: str
    info: ObjectInfo | None = None
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        """Whether the object was written."""
        return self.error is None


@frozen
class DeleteResult:
    """What became of one key of `R2Client.delete_many`.

    Attributes:
        key: As it was given.
        error: Why the object may still be there; ``None``: it is gone, or never was there.
    """

    key: str
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        """Whether the object is gone."""
        return self.error is None


async def put_all(
    put: Callable[..., Awaitable[ObjectInfo]], items: PutItems, *, concurrency: int
) -> list[PutResult]:
    """Put all items; those of one key one after another, so that the last of them is what stays."""
    results: list[PutResult] = []
    latest: dict[str, anyio.Event] = {}  # by key as R2 tells keys apart

    async def run(
        index: int, key: str, options: dict[str, Any], before: anyio.Event | None, done: anyio.Event
    ) -> None:
        try:
            if before is not None:
                await before.wait()
            results[index] = PutResult(key, await put(key, **options))
        except Exception as error:  # noqa: BLE001 - it is this item's result
            results[index] = PutResult(key, error=error)
            _let_go(error)
        finally:
            options.clear()
            done.set()
            if latest.get(_normalised(key)) is done:
                del latest[_normalised(key)]

    async with parallel(concurrency) as start:
        pairs = cast("Mapping[str, PutBody]", items).items() if isinstance(items, Mapping) else items
        for index, item in enumerate(pairs):
            try:
                key, options = _arguments(item)
            except TypeError as error:
                results.append(PutResult(_key_of(item), error=error))
                _let_go(error)
                await anyio.lowlevel.checkpoint()
                continue
            results.append(PutResult(key))
            same, done = _normalised(key), anyio.Event()
            before, latest[same] = latest.get(same), done
            await start(partial(run, index, key, options, before, done))
    return results


def _let_go(error: BaseException) -> None:
    """Let go of the bodies that an error's frames hold: results are kept, and bodies may be many and large."""
    seen: set[int] = set()
    chain: list[BaseException | None] = [error]
    while chain:
        link = chain.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            traceback.clear_frames(link.__traceback__)
            chain += [link.__cause__, link.__context__]


def _arguments(item: object) -> tuple[str, dict[str, Any]]:
    """An item as the arguments of ``put``."""
    kind = type(item).__name__
    if isinstance(item, Mapping):
        options = dict(cast("Mapping[str, Any]", item))
        if options.keys() - PutItem.__annotations__.keys() or {"key", "body"} - options.keys():
            raise TypeError(
                f"An item of put_many has {', '.join(sorted(PutItem.__annotations__))}; "
                f"this one has {', '.join(sorted(map(str, options)))}."
            )
    elif isinstance(item, tuple) and len(pair := cast("tuple[object, ...]", item)) == 2:  # noqa: PLR2004 - a pair
        options = {"key": pair[0], "body": pair[1]}
    else:
        raise TypeError(f"An item of put_many is a (key, body) pair or a PutItem, not a {kind}.")
    key = options.pop("key")
    if not isinstance(key, str):
        raise TypeError(f"key must be a str, not {type(key).__name__}.")
    return key, options


def _key_of(item: object) -> str:
    key = cast("Mapping[str, Any]", item).get("key") if isinstance(item, Mapping) else None
    return key if isinstance(key, str) else ""


async def delete_all(
    sender: Sender,
    bucket: Bucket,
    delete: Callable[[str], Awaitable[None]],
    keys: Iterable[str],
    *,
    concurrency: int,
) -> list[DeleteResult]:
    """Delete all keys, each once, 1,000 a request; those that XML cannot carry one by one."""
    if isinstance(keys, (str, bytes)):
        raise TypeError("keys must be an iterable of keys, not one key: use delete for that.")
    given = list(keys)
    errors: dict[str, Exception | None] = {}
    together, alone = _sorted_out(given, errors)

    async def one(key: str) -> None:
        try:
            await delete(key)
        except Exception as error:  # noqa: BLE001 - it is this key's result
            errors[key] = error

    async def many(batch: list[str]) -> None:
        try:
            errors.update(await _delete_batch(sender, bucket, batch))
        except Exception as error:  # noqa: BLE001 - it is the result of each
            errors.update(dict.fromkeys(batch, error))

    async with parallel(concurrency) as start:
        for first in range(0, len(together), _KEYS_A_REQUEST):
            await start(partial(many, together[first : first + _KEYS_A_REQUEST]))
        for key in alone:
            await start(partial(one, key))
    return [DeleteResult(key, errors.get(key)) for key in given]


def _sorted_out(keys: list[str], errors: dict[str, Exception | None]) -> tuple[list[str], list[str]]:
    """The keys, each once, that can go together, and those that go alone; what is no key has its error.

    R2 takes two spellings of one text for one key, and need not answer with the one that it was given: of
    those that go together each has another text.
    """
    together: dict[str, str] = {}
    alone: list[str] = []
    for key in dict.fromkeys(keys):
        try:
            encode_key(key)
        except (TypeError, ValueError) as error:
            errors[key] = error
        else:
            if not carries_in_xml(key) or together.setdefault(_normalised(key), key) != key:
                alone.append(key)
    return list(together.values()), alone


async def _delete_batch(sender: Sender, bucket: Bucket, keys: list[str]) -> dict[str, Exception | None]:
    answer = await sender.fetch(bucket.delete_objects(keys))
    said = parse_deleted(answer.body)
    asked = {_normalised(key): key for key in keys}
    unheard = BodyFault("DeleteObjects: the service did not say what became of this key. Delete it again.")
    errors: dict[str, Exception | None] = dict.fromkeys(keys, unheard)
    for deleted in said.deleted:
        if (key := asked.get(_normalised(deleted))) is not None:
            errors[key] = None
    for fault in said.faults:
        if (key := asked.get(_normalised(fault.key))) is not None:
            errors[key] = _fault_of(bucket, key, fault, answer)
    return errors


def _normalised(key: str) -> str:
    return unicodedata.normalize("NFC", key)


def _fault_of(bucket: Bucket, key: str, fault: DeleteFault, answer: Answer) -> R2Error | None:
    """A key's own error, as if it had been deleted alone."""
    if fault.code == "NoSuchKey":
        return None
    document = ET.Element("Error")
    ET.SubElement(document, "Code").text = fault.code
    ET.SubElement(document, "Message").text = fault.message
    draft = bucket.delete(key)
    return fault_of(
        draft, answer.status, answer.headers, ET.tostring(document, "utf-8"), attempts=answer.attempts
    )
