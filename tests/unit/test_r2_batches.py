"""Many objects at once: every item has its own result."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
import weakref
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import anyio
import anyio.lowlevel
import pytest
from r2_model import (
    CREDENTIALS,
    MIB,
    Fault,
    Gauge,
    R2Model,
    Stored,
    answering,
    client,
    md5,
    on_wire,
    small_parts,
)

from prewarmkit import R2Client
from prewarmkit.errors import (
    AccessDenied,
    BodyFault,
    ConnectionFault,
    NotFound,
    PreconditionFailed,
    R2Error,
    ServiceFault,
)
from prewarmkit.r2.batches import PutItem
from prewarmkit.r2.requests import carries_in_xml
from prewarmkit.testing.wire import Wire, serve

pytestmark = pytest.mark.anyio


@pytest.fixture
def tiny() -> Iterator[None]:
    with small_parts():
        yield


# ── many at once ─────────────────────────────────────────────────────────────


async def test_each_item_has_its_own_result_in_its_own_place(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"from a file")
    model = R2Model(objects={"there": Stored(b"theirs", "e", {})})
    items: list[Any] = [
        ("a", b"1"),
        PutItem(key="b", body=[b"2", b"3"], content_type="a/b", metadata={"m": "1"}),
        ("missing", tmp_path / "missing"),
        {"key": "there", "body": b"mine", "if_none_match": "*"},
        ("", b"no key"),
        ("a", b"later"),
        ("file", tmp_path / "f"),
        ("bad", 5),
        {"key": "odd", "body": b"", "colour": "red"},
        "string",
        (7, b"x"),
        {"key": "size", "body": b"", "part_size": 1},
    ]
    async with client(model) as r2:
        results = await r2.put_many(iter(items), concurrency=3)
        assert await r2.put_many([]) == []
        from_mapping = await r2.put_many({"m1": b"x", "m2": b"y"})
    assert [result.key for result in results] == [
        "a", "b", "missing", "there", "", "a", "file", "bad", "odd", "", "", "size",
    ]  # fmt: skip
    assert [type(result.error) for result in results] == [
        type(None), type(None), FileNotFoundError, PreconditionFailed, ValueError, type(None), type(None), TypeError,
        TypeError, TypeError, TypeError, ValueError,
    ]  # fmt: skip
    assert all(result.ok == (result.error is None) == (result.info is not None) for result in results)
    assert {key: stored.content for key, stored in model.objects.items()} == {
        "a": b"later", "b": b"23", "there": b"theirs", "file": b"from a file", "m1": b"x", "m2": b"y",
    }  # fmt: skip
    assert model.objects["b"].headers == {"content-type": "a/b", "x-amz-meta-m": "1"}
    assert [result.info.etag for result in from_mapping if result.info] == [md5(b"x"), md5(b"y")]


async def test_of_one_key_the_last_item_stays() -> None:
    """One after another; otherwise whichever was slower would win."""
    for _ in range(10):
        model = R2Model()
        items = [(f"k{n % 3}", str(n).encode()) for n in range(24)]
        async with client(model) as r2:
            results = await r2.put_many(items, concurrency=8)
        assert all(result.ok for result in results)
        assert {key: stored.content for key, stored in model.objects.items()} == {
            "k0": b"21",
            "k1": b"22",
            "k2": b"23",
        }


async def test_of_two_spellings_of_one_key_the_last_item_stays() -> None:
    """R2 takes them for one key."""

    async def slow() -> AsyncGenerator[bytes, None]:
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        yield b"first"

    model = R2Model()
    async with client(model) as r2:
        await r2.put_many([("e\u0301", slow()), ("\u00e9", b"last")])
    assert [call.body for call in model.calls] == [b"first", b"last"]


class Body(bytearray):
    """One that can be looked after."""


@pytest.mark.parametrize("fault", ["refuse", "drop"])
async def test_a_result_holds_no_body(fault: Fault) -> None:
    """Its error came out of where the body was; a service that is down must not cost all bodies' memory."""
    bodies: list[weakref.ref[Body]] = []
    most = 0

    def items() -> Iterator[Any]:
        nonlocal most
        for number in range(30):
            body = Body(b"x" * 10)
            bodies.append(weakref.ref(body))
            yield (f"k{number}", body) if number % 3 else {"key": "k", "body": body, "colour": "red"}
            del body
            if number % 10 == 9:
                gc.collect()
                most = max(most, sum(body() is not None for body in bodies))

    async with client(R2Model(fault=lambda _n, _call: fault), attempts=1) as r2:
        results = await r2.put_many(items(), concurrency=4)
    assert all(result.error is not None and result.error.__traceback__ is not None for result in results)
    gc.collect()
    assert most <= 4 + 2
    assert not any(body() is not None for body in bodies[:-1])


@pytest.mark.parametrize("fault", ["refuse", "drop"])
async def test_failures_cost_no_memory_to_speak_of(fault: Fault) -> None:
    """Not by the errors behind them either, which know the requests."""
    model = R2Model(fault=lambda _n, _call: fault)
    async with client(model, attempts=1) as r2:
        tracemalloc.start()
        try:
            results = await r2.put_many((f"k{number}", bytes(MIB)) for number in range(20))
            model.calls.clear()
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] < 2 * MIB
        finally:
            tracemalloc.stop()
    assert not any(result.ok for result in results)


@pytest.mark.parametrize("item", [{"key": "k"}, {"body": b""}, {}, (), ("k",), ("k", b"", 1), None, 5])
async def test_half_an_item_is_that_items_failure(item: Any) -> None:
    async with client(R2Model()) as r2:
        [bad, good] = await r2.put_many([item, ("good", b"")])
    assert (type(bad.error), good.ok) == (TypeError, True)


async def test_a_batch_of_nothing_but_bad_items_can_be_cancelled() -> None:
    scope = anyio.CancelScope()

    def items() -> Iterator[Any]:
        for number in itertools.count():
            if number == 10:
                scope.cancel()
            assert number < 20
            yield "bad"

    async with client(R2Model()) as r2:
        with scope:
            await r2.put_many(items())
    assert scope.cancelled_caught


@pytest.mark.parametrize("fault", ["refuse", "drop", "lose"])
async def test_a_fault_costs_the_item_it_hits_and_no_other(fault: Fault) -> None:
    items = [(f"k{n}", str(n).encode()) for n in range(10)]
    model = R2Model(fault=lambda _n, call: fault if call.key == "k4" else None)
    async with client(model) as r2:
        results = await r2.put_many(items)
    assert [result.key for result in results] == [key for key, _ in items]
    assert [result.key for result in results if not result.ok] == ["k4"]
    assert isinstance(results[4].error, (ServiceFault, ConnectionFault))
    assert len(model.objects) == (10 if fault == "lose" else 9)


async def test_a_batch_is_taken_as_there_is_room_and_ends_when_it_is_cancelled(tiny: None) -> None:
    taken: list[int] = []

    def items() -> Iterator[tuple[str, bytes]]:
        for n in range(100):
            taken.append(n)
            yield f"k{n}", bytes(20)

    model = R2Model()
    scope = anyio.CancelScope()
    model.before = lambda call: (
        scope.cancel() if call.operation == "put" and len(model.objects) == 10 else None
    )
    async with client(model) as r2:
        with scope:
            await r2.put_many(items(), concurrency=4)
        assert scope.cancelled_caught
    assert 10 <= len(model.objects) <= len(taken) < 20


async def test_what_the_items_raise_is_raised() -> None:
    def items() -> Iterator[tuple[str, bytes]]:
        yield "a", b"1"
        raise KeyError("the source of items broke")

    model = R2Model()
    async with client(model) as r2:
        with pytest.raises(KeyError):
            await r2.put_many(items())
        with pytest.raises(ValueError, match="concurrency"):
            await r2.put_many([], concurrency=0)
    closed = R2Client(endpoint="https://r2.example.com", bucket="media", credentials=CREDENTIALS)
    for call in (closed.put_many([("k", b"")]), closed.delete_many(["k"])):
        with pytest.raises(RuntimeError, match="Enter the R2Client first"):
            await call


# ── many deletions ───────────────────────────────────────────────────────────

HARMLESS = ["a", "a b", "<&>\"'", "ü/日本語/😀", "a+b%2F", "]]>", "e\u0301", "a\u2028b", "x" * 1024]
UNSAFE = [
    "\x00",
    "a\nb",
    "a\rb",
    "tab\tinside",
    "\x7f",
    "\x85",
    "a\ufffe",
    " a",
    "a ",
    "\u00a0a",
    "\u2028",
    "\ue000\x1b",
]


def test_which_keys_xml_carries() -> None:
    for key in HARMLESS:
        assert carries_in_xml(key)
        root = ET.fromstring(ET.tostring(_element(key), "utf-8"))
        assert root.text == key
    assert not any(map(carries_in_xml, UNSAFE))


def _element(text: str) -> ET.Element:
    element = ET.Element("Key")
    element.text = text
    return element


async def test_every_key_has_its_own_result_whatever_is_in_it() -> None:
    keys = [*HARMLESS, *UNSAFE, "not there", "denied", "de\nnied", "a", "\ud800", "", "x" * 1025, "a\nb"]
    model = R2Model(
        objects={key: Stored(b"", "e", {}) for key in [*HARMLESS, *UNSAFE, "denied", "de\nnied", "stays"]},
        denied=frozenset({"denied", "de\nnied"}),
    )
    async with client(model) as r2:
        results = await r2.delete_many(iter(keys))
    assert [result.key for result in results] == keys
    wrong = {result.key: type(result.error) for result in results if not result.ok}
    assert wrong == {
        "denied": AccessDenied, "de\nnied": AccessDenied, "\ud800": ValueError, "": ValueError, "x" * 1025: ValueError,
    }  # fmt: skip
    assert sorted(model.objects) == ["de\nnied", "denied", "stays"]
    assert (model.count("delete_objects"), model.count("delete")) == (1, len(UNSAFE) + 1)
    [error] = [result.error for result in results if result.key == "denied"]
    assert isinstance(error, AccessDenied)
    assert (error.code, "'denied'" in str(error)) == ("AccessDenied", True)


async def test_a_thousand_keys_go_in_a_request_and_a_failed_request_is_its_keys_alone() -> None:
    keys = [f"k{n:04}" for n in range(2500)]
    model = R2Model(objects={key: Stored(b"", "e", {}) for key in keys})
    model.fault = lambda _n, call: "refuse" if b"k1500" in call.body else None
    async with client(model) as r2:
        results = await r2.delete_many([*keys, *keys[:10]])
        assert await r2.delete_many([]) == []
        with pytest.raises(TypeError, match="not one key"):
            await r2.delete_many("key")
    assert [result.key for result in results] == [*keys, *keys[:10]]
    assert [result.key for result in results if not result.ok] == keys[1000:2000] == sorted(model.objects)
    assert all(isinstance(result.error, ServiceFault) for result in results[1000:2000])
    assert model.count("delete_objects") == 2 + 3


@pytest.mark.parametrize("fault", ["refuse", "drop", "lose", "late"])
async def test_a_fault_of_a_deletion_is_overcome(fault: Fault) -> None:
    model = R2Model(objects={"a": Stored(b"", "e", {})}, fault=lambda n, _call: fault if n == 0 else None)
    async with client(model) as r2:
        assert all(result.ok for result in await r2.delete_many(["a", "b"]))
    assert (model.objects, model.count("delete_objects")) == ({}, 2)


@pytest.mark.parametrize(
    ("said", "outcomes"),
    [
        ("<Deleted><Key>e\u0301</Key></Deleted><Deleted><Key>b</Key></Deleted>", [None, None]),
        ("<Deleted><Key>\u00e9</Key></Deleted><Deleted><Key>b</Key></Deleted>", [None, None]),
        ("<Deleted><Key>b</Key></Deleted>", [BodyFault, None]),
        (
            "<Deleted><Key>b</Key></Deleted><Error><Key>e\u0301</Key><Code>NoSuchKey</Code></Error>",
            [None, None],
        ),
        (
            "<Deleted><Key>b</Key></Deleted><Error><Key>e\u0301</Key><Code>SlowDown</Code></Error>",
            [R2Error, None],
        ),
        ("<Deleted><Key>other</Key></Deleted>", [BodyFault, BodyFault]),
        ("", [BodyFault, BodyFault]),
    ],
)
async def test_what_the_service_does_not_confirm_is_not_reported_as_gone(
    said: str, outcomes: list[type[Exception] | None]
) -> None:
    """R2 knows keys in either spelling of one text, and may answer in the other."""

    async def handler(wire: Wire) -> None:
        await wire.request()
        await wire.answer(200, body=f"<DeleteResult>{said}</DeleteResult>".encode())

    async with serve(handler) as server, on_wire(server.url) as r2:
        results = await r2.delete_many(["e\u0301", "b"])
    for result, expected in zip(results, outcomes, strict=True):
        assert isinstance(result.error, expected or type(None))


@pytest.mark.parametrize("said", ["\u00e9", "e\u0301"])
async def test_two_spellings_of_a_key_have_a_result_each_whichever_the_service_gives(said: str) -> None:
    """One object on R2, two elsewhere: each is asked for by itself, so that one answer is never taken for both."""
    asked: list[str] = []

    async def handler(wire: Wire) -> None:
        while True:
            request = await wire.request()
            asked.append(request.body.decode() or request.target)
            answer = f"<DeleteResult><Deleted><Key>{said}</Key></Deleted></DeleteResult>".encode()
            is_batch = request.method == "POST"
            await wire.answer(200 if is_batch else 204, body=answer if is_batch else b"")

    async with serve(handler) as server, on_wire(server.url) as r2:
        results = await r2.delete_many(["\u00e9", "e\u0301"])
    assert [(result.key, result.ok) for result in results] == [("\u00e9", True), ("e\u0301", True)]
    assert ["\u00e9" in one for one in sorted(asked)] == [False, True]
    assert min(asked) == "/media/e%CC%81"


@pytest.mark.parametrize(
    "body", [b"", b"<html>Not Found</html>", b"<Error><Code>NoSuchBucket</Code></Error>"]
)
async def test_a_404_that_is_not_about_the_key_is_no_deletion(body: bytes) -> None:
    """Of a gateway, say: the object may be there."""

    async def handler(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.answer(404, body=body)

    async with serve(handler) as server, on_wire(server.url) as r2:
        with pytest.raises(NotFound):
            await r2.delete("k")
        results = await r2.delete_many(["k", "a\nb"])
    assert [type(result.error) for result in results] == [NotFound, NotFound]


async def test_an_item_in_parts_takes_no_more_than_its_one_place(tiny: None) -> None:
    model, gauge = R2Model(), Gauge()
    async with serve(answering(model, gauge)) as server, on_wire(server.url) as r2:
        items = [PutItem(key=f"k{number}", body=bytes(40), part_size=10) for number in range(3)]
        assert all(result.ok for result in await r2.put_many(items, concurrency=2))
    assert (model.count("upload_part"), gauge.most) == (12, 2)
