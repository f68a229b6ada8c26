"""Albums: several media in one group, and none of them only in it (requirement 9 of the research notes)."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from attrs import define, field
from bot_wire import TOKEN, FakeTransport, Sent, refusal

from prewarmkit.budget import MemoryBudget, Window
from prewarmkit.errors import MediaUnfit, RateLimited, SourceMissing, TargetDown, TransportError
from prewarmkit.media import Media, Warmed
from prewarmkit.targets import RateLimits, Services, TelegramTarget
from prewarmkit.targets.telegram import albums
from prewarmkit.testing.contracts.target import MemorySource, MemoryState
from prewarmkit.transports import Request, Response

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@define
class AlbumTransport(FakeTransport):
    """Answers an album in another order than it was asked in, each handle naming its own bytes."""

    order: Callable[[list[Any]], list[Any]] = field(
        default=lambda items: [*items[1::2], *reversed(items[::2])]
    )
    changes: dict[str, Any] = field(factory=dict[str, Any])
    is_held: bool = False
    is_sending: anyio.Event = field(factory=anyio.Event)
    goes_on: anyio.Event = field(factory=anyio.Event)

    @asynccontextmanager
    async def send(
        self, request: Request, *, deadline_seconds: float | None = None
    ) -> AsyncGenerator[Response]:
        if request.url.endswith("/sendMediaGroup") and not self.answers:
            assert request.body is not None
            assert not isinstance(request.body, bytes)
            body = b"".join([chunk async for chunk in request.body])
            self.is_sending.set()
            if self.is_held:
                await self.goes_on.wait()
            self.answers = [self.album(body)]
            request = Request(request.method, request.url, request.headers, body, request.content_length)
        async with FakeTransport.send(self, request, deadline_seconds=deadline_seconds) as response:
            yield response

    def album(self, body: bytes) -> tuple[int, bytes]:
        messages: list[dict[str, Any]] = []
        for number, item in enumerate(media_of(body)):
            name = item["media"].removeprefix("attach://")
            [data] = re.findall(
                rb'name="%s"; filename="[^"]*"\r\n[^\r]*\r\n\r\n(.*?)\r\n--' % name.encode(), body, re.DOTALL
            )
            file = {"file_id": data.decode(), "file_unique_id": f"U{number}", **self.changes}
            messages.append(
                {
                    "message_id": 10 + number,
                    "chat": {"id": -1},
                    "media_group_id": "g1",
                    "caption": item["caption"],
                    item["type"]: [{**file, "width": 1, "height": 1}] if item["type"] == "photo" else file,
                }
            )
        return 200, json.dumps({"ok": True, "result": self.order(messages)}).encode()


def media_of(body: bytes) -> list[dict[str, Any]]:
    [listed] = re.findall(rb'name="media"\r\n\r\n(.*?)\r\n--', body, re.DOTALL)
    return json.loads(listed)  # type: ignore[no-any-return]


def methods(transport: FakeTransport) -> list[str]:
    return [sent.method for sent in transport.sent]


@pytest.fixture
def transport() -> AlbumTransport:
    return AlbumTransport()


@pytest.fixture
def source() -> MemorySource:
    names = [
        f"{number}.{ending}" for ending in ("png", "mp4", "pdf", "mp3", "ogg", "gif") for number in range(12)
    ]
    return MemorySource({name: f"bytes of {name}".encode() for name in names})


def target_of(transport: FakeTransport, *chats: int, **options: Any) -> TelegramTarget:
    given: dict[str, Any] = {"budget": None, "albums": True, **options}
    return TelegramTarget(TOKEN, warmup_chats=chats or (-1,), transport=transport, **given)


async def warm_all(target: TelegramTarget, source: MemorySource, *keys: str) -> dict[str, Warmed | Exception]:
    results: dict[str, Warmed | Exception] = {}

    async def one(key: str) -> None:
        try:
            results[key] = await target.warm(Media(key), source)
        except Exception as error:  # noqa: BLE001 - looked at by the test
            results[key] = error

    async with anyio.create_task_group() as tasks:
        for key in keys:
            tasks.start_soon(one, key)
    return results


def handles(results: dict[str, Warmed | Exception]) -> dict[str, str]:
    return {key: result.handle for key, result in results.items() if isinstance(result, Warmed)}


def own(*keys: str) -> dict[str, str]:
    return {key: f"bytes of {key}" for key in keys}


PHOTOS = tuple(f"{number}.png" for number in range(5))


async def test_without_the_switch_there_are_no_albums(
    transport: AlbumTransport, source: MemorySource
) -> None:
    await warm_all(target_of(transport, albums=False), source, *PHOTOS)
    assert methods(transport) == ["sendPhoto"] * 5


async def test_a_shuffled_answer_gives_each_medium_its_own_handle(
    transport: AlbumTransport, source: MemorySource
) -> None:
    """The server appends results as they complete (section 1.7): captions tell whose one is."""
    keys = (*PHOTOS, "0.mp4")
    results = await warm_all(target_of(transport), source, *keys)
    assert handles(results) == own(*keys)
    [sent] = transport.sent
    assert sent.method == "sendMediaGroup"
    assert len(sent.body) == sent.content_length
    assert sent.has_field("disable_notification", "true")
    listed = media_of(sent.body)
    assert len({item["caption"] for item in listed}) == 6
    assert sorted(item["type"] for item in listed) == ["photo"] * 5 + ["video"]
    assert all(
        item.get("supports_streaming") is (True if item["type"] == "video" else None) for item in listed
    )
    for result in results.values():
        assert isinstance(result, Warmed)
        assert (result.weak, result.details["media_group_id"]) == ((), "g1")
    assert source.open_now == 0


async def test_ten_at_most_go_together(transport: AlbumTransport, source: MemorySource) -> None:
    keys = [f"{number}.png" for number in range(12)]
    assert handles(await warm_all(target_of(transport), source, *keys)) == own(*keys)
    assert sorted(len(media_of(sent.body)) for sent in transport.sent) == [2, 10]


async def test_one_alone_is_no_album(transport: AlbumTransport, source: MemorySource) -> None:
    await warm_all(target_of(transport), source, "0.png")
    assert methods(transport) == ["sendPhoto"]


async def test_only_what_may_mix_is_mixed(transport: AlbumTransport, source: MemorySource) -> None:
    """Bot API, sendMediaGroup: documents and audio only with their like; voice and animations never."""
    keys = [
        f"{number}.{ending}" for number in range(2) for ending in ("png", "mp4", "pdf", "mp3", "ogg", "gif")
    ]
    await warm_all(target_of(transport), source, *keys)
    mixed = sorted(sorted({item["type"] for item in media_of(sent.body)}) for sent in albums_of(transport))
    assert mixed == [["audio"], ["document"], ["photo", "video"]]
    singles = sorted(name for name in methods(transport) if name != "sendMediaGroup")
    assert singles == ["sendAnimation"] * 2 + ["sendVoice"] * 2


def albums_of(transport: FakeTransport) -> list[Sent]:
    return [sent for sent in transport.sent if sent.method == "sendMediaGroup"]


async def test_an_album_stays_under_50_mb_in_all(
    transport: AlbumTransport, source: MemorySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy before the server bounds the whole body (section 1.2)."""
    assert 49 * MIB < albums.MOST_BYTES < 50 * MIB
    monkeypatch.setattr(albums, "MOST_BYTES", 40)
    keys = (*PHOTOS, "big.png")
    source.objects["big.png"] = b"x" * 41
    results = await warm_all(target_of(transport), source, *keys)
    assert len(results) == 6
    for sent in albums_of(transport):
        assert len(media_of(sent.body)) <= 2
    assert "sendPhoto" in methods(transport)


@pytest.mark.parametrize(
    "answer",
    [
        refusal(400, "Bad Request: group send failed"),
        refusal(404, "Not Found: method not found"),
        refusal(400, 'Bad Request: failed to send message #2 with the error message "WEBPAGE_MEDIA_EMPTY"'),
        (413, b"<html>413</html>"),
        (502, b"<html>"),
        (200, b'{"ok": true, "result": true}'),
        TransportError("reset", request_sent=True),
    ],
)
async def test_whatever_goes_wrong_with_an_album_its_media_go_alone(
    transport: AlbumTransport, source: MemorySource, answer: Any
) -> None:
    """The handles of items that did arrive are lost with the others (section 1.7), and both messages are counted."""
    transport.answers = [answer]
    results = await warm_all(target_of(transport), source, *PHOTOS)
    assert methods(transport) == ["sendMediaGroup"] + ["sendPhoto"] * 5
    for result in results.values():
        assert isinstance(result, Warmed)
        assert result.details["rate_cost"] == 2


async def test_a_medium_whose_message_is_not_in_the_answer_goes_alone(source: MemorySource) -> None:
    transport = AlbumTransport(order=lambda items: [item for item in items if item["message_id"] != 12])
    results = await warm_all(target_of(transport), source, *PHOTOS)
    assert methods(transport) == ["sendMediaGroup", "sendPhoto"]
    assert len(handles(results)) == 5


async def test_one_source_that_ends_early_costs_only_its_own_medium(source: MemorySource) -> None:
    """The album is broken off; the others go alone and end warm."""
    good, transport = source, AlbumTransport()
    bad = MemorySource({"bad.png": b"bytes of bad.png"}, end_after=3)
    target, results = target_of(transport), dict[str, Any]()

    async def one(key: str, where: MemorySource) -> None:
        try:
            results[key] = await target.warm(Media(key), where)
        except Exception as error:  # noqa: BLE001 - looked at below
            results[key] = error

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one, "0.png", good)
        tasks.start_soon(one, "bad.png", bad)
        tasks.start_soon(one, "1.png", good)
    assert isinstance(results.pop("bad.png"), Exception)
    assert len(handles(results)) == 2
    assert (good.open_now, bad.open_now) == (0, 0)


async def test_a_bug_under_an_album_is_told_and_costs_no_medium(
    source: MemorySource, caplog: pytest.LogCaptureFixture
) -> None:
    transport = AlbumTransport([ZeroDivisionError("odd")])
    assert len(handles(await warm_all(target_of(transport), source, *PHOTOS))) == 5
    assert "ZeroDivisionError: odd" in caplog.text


async def test_a_missing_object_is_no_part_of_an_album(
    transport: AlbumTransport, source: MemorySource
) -> None:
    results = await warm_all(target_of(transport), source, *PHOTOS, "gone.png")
    assert isinstance(results.pop("gone.png"), SourceMissing)
    assert handles(results) == own(*PHOTOS)
    assert methods(transport) == ["sendMediaGroup"]


async def test_what_telegram_takes_in_no_way_is_no_part_of_an_album(
    transport: AlbumTransport, source: MemorySource
) -> None:
    source.objects["empty.png"] = b""
    results = await warm_all(target_of(transport), source, *PHOTOS, "empty.png")
    assert isinstance(results.pop("empty.png"), MediaUnfit)
    assert methods(transport) == ["sendMediaGroup"]


async def test_what_failed_by_its_address_goes_alone() -> None:
    """Its bytes are its second message; an album that fails would make a third."""

    class Public(MemorySource):
        def url(self, key: str, *, version: str | None = None) -> str | None:
            return f"https://media.example.org/{key}"

    source = Public(dict.fromkeys(("a.pdf", "b.pdf"), b"%PDF"))
    transport = FakeTransport([refusal(400, "Bad Request: failed to get HTTP URL content")] * 2)
    await warm_all(target_of(transport), source, *source.objects)
    assert methods(transport) == ["sendDocument"] * 4


async def test_a_refused_token_is_asked_once_for_all_of_them(source: MemorySource) -> None:
    transport = AlbumTransport([refusal(401, "Unauthorized")])
    results = await warm_all(target_of(transport), source, *PHOTOS)
    assert methods(transport) == ["sendMediaGroup"]
    assert all(isinstance(result, TargetDown) for result in results.values())
    assert len({id(result) for result in results.values()}) == 5


async def test_a_rate_limit_holds_the_chat_for_the_singles_too(source: MemorySource) -> None:
    transport = AlbumTransport([refusal(429, "Too Many Requests", retry_after=60)])
    results = await warm_all(target_of(transport), source, *PHOTOS)
    assert methods(transport) == ["sendMediaGroup"]
    assert all(isinstance(result, RateLimited) for result in results.values())


async def test_each_item_counts_in_the_budget(transport: AlbumTransport, source: MemorySource) -> None:
    """Whether it does in Telegram's is not known (section 0, finding 2)."""
    limits = RateLimits(group_per_minute=10)
    budget = MemoryBudget()
    target = target_of(transport, budget=limits)
    target.bind(Services(budget, MemoryState(), list[Any]().append))
    await warm_all(target, source, *PHOTOS)
    assert await budget.take({"chat:-1": (Window(10, 60.0),)}, cost=5) == 0
    assert await budget.take({"chat:-1": (Window(10, 60.0),)}) > 0


async def test_an_album_is_never_larger_than_a_window(
    transport: AlbumTransport, source: MemorySource
) -> None:
    target = target_of(transport, budget=RateLimits(group_per_minute=3))
    results = await warm_all(target, source, *PHOTOS[:4])
    assert [len(media_of(sent.body)) for sent in transport.sent] == [3]
    assert [type(result) for result in results.values() if isinstance(result, Exception)] == [RateLimited]


async def test_what_was_weak_in_an_album_goes_alone_the_next_time(source: MemorySource) -> None:
    transport = AlbumTransport(changes={"file_unique_id": ""})
    target = target_of(transport)
    weak = await warm_all(target, source, *PHOTOS)
    assert all(isinstance(result, Warmed) and result.weak for result in weak.values())
    await warm_all(target, source, *PHOTOS)
    assert methods(transport) == ["sendMediaGroup"] + ["sendPhoto"] * 5


@pytest.mark.parametrize("cut", ["0.png", "1.png"], ids=["who-gathers", "who-joined"])
async def test_one_that_is_cancelled_on_the_way_takes_no_other_with_it(
    source: MemorySource, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    """With the one that gathered them the album is broken off, and the others go alone."""
    monkeypatch.setattr(albums, "GATHER_SECONDS", 60)
    monkeypatch.setattr(albums, "MOST_ITEMS", 5)
    transport = AlbumTransport(is_held=True)
    target, results = target_of(transport), dict[str, Warmed | Exception]()
    scopes = {key: anyio.CancelScope() for key in PHOTOS}

    async def one(key: str) -> None:
        with scopes[key]:
            results[key] = await target.warm(Media(key), source)

    async with anyio.create_task_group() as tasks:
        for key in PHOTOS:
            tasks.start_soon(one, key)
            await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(5):
            await transport.is_sending.wait()
        scopes[cut].cancel()
        await anyio.wait_all_tasks_blocked()
        transport.goes_on.set()
    assert handles(results).keys() == set(PHOTOS) - {cut}
    assert methods(transport) == (["sendPhoto"] * 4 if cut == "0.png" else ["sendMediaGroup"])
    assert source.open_now == 0


async def test_one_that_is_cancelled_before_is_not_sent(
    transport: AlbumTransport, source: MemorySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is another's."""
    monkeypatch.setattr(albums, "GATHER_SECONDS", 60)
    monkeypatch.setattr(albums, "MOST_ITEMS", 3)
    target, results, scope = target_of(transport), dict[str, Warmed | Exception](), anyio.CancelScope()

    async def one(key: str) -> None:
        results[key] = await target.warm(Media(key), source)

    async def cut() -> None:
        with scope:
            await one("4.png")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one, "0.png")
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(cut)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(one, "1.png")
        tasks.start_soon(one, "2.png")
    assert handles(results) == own("0.png", "1.png", "2.png")
    assert [len(media_of(sent.body)) for sent in transport.sent] == [3]
