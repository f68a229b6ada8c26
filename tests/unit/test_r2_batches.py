"""Many objects at once: every item has its own result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import anyio
import pytest
from r2_model import (
    CREDENTIALS,
    Fault,
    R2Model,
    Stored,
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
