"""docs/targets.md: the target of one's own does what every target must, and each answer is the failure that it says."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest

from prewarmkit import errors
from prewarmkit.media import Media
from prewarmkit.targets import MediaUnfit, RateLimited, TargetDown, TargetFailure, Transient, WarmTarget
from prewarmkit.testing.contracts.target import MemorySource, TargetContract
from prewarmkit.testing.wire import Wire, serve

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "examples" / "own_target.py"
PAGE = (DOCS / "targets.md").read_text()


def shelf_target(url: str, client: httpx.AsyncClient) -> WarmTarget:
    """The example's target."""
    spec = importlib.util.spec_from_file_location("own_target", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules["own_target"] = module
    spec.loader.exec_module(module)
    target: WarmTarget = module.ShelfTarget(url, "the-token", client)
    return target


class TestTheTargetOfOnesOwn(TargetContract):
    """The public suite, as the page says to run it."""

    secrets = ("the-token",)

    @pytest.fixture
    async def target(self) -> AsyncGenerator[WarmTarget]:
        async def shelf(wire: Wire) -> None:
            while True:
                request = await wire.request()
                await wire.answer(200, [], json.dumps({"id": f"id:{request.target}"}).encode())

        async with serve(shelf) as server, httpx.AsyncClient() as client:
            yield shelf_target(server.url, client)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "failure"),
    [(401, TargetDown), (413, MediaUnfit), (429, RateLimited), (500, Transient), (404, Transient)],
)
async def test_each_answer_is_the_failure_that_says_what_to_do(
    status: int, failure: type[TargetFailure]
) -> None:
    async def shelf(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.answer(status, [("Retry-After", "7")], b"")

    async with serve(shelf) as server, httpx.AsyncClient() as client:
        with pytest.raises(failure) as caught:
            await shelf_target(server.url, client).warm(Media("a.pdf"), MemorySource({"a.pdf": b"%PDF"}))
    if isinstance(caught.value, RateLimited):
        assert (caught.value.retry_after, caught.value.scope) == (7, "target")


def test_the_example_is_short() -> None:
    """Some thirty lines: what a target needs to know is little."""
    code = [line for line in EXAMPLE.read_text().split("class ShelfTarget")[1].splitlines() if line.strip()]
    assert len(code) <= 32


def test_the_page_tells_of_every_failure() -> None:
    told = set(re.findall(r"^\| `(\w+)`", PAGE, re.MULTILINE)) | set(re.findall(r"`(\w+)\(", PAGE))
    failures = {
        name
        for name in errors.__all__
        if isinstance(each := getattr(errors, name), type) and issubclass(each, TargetFailure)
    }
    assert failures - {"TargetFailure"} <= told
