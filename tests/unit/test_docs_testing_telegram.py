"""The page about testing Telegram says what the Bot API server does."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from prewarmkit.testing.botapi import BotApiServer, Fault

PAGE = (Path(__file__).parents[2] / "docs" / "testing-telegram.md").read_text()


@pytest.mark.anyio
async def test_the_example_passes(tmp_path: Path) -> None:
    found = re.search(r"<!-- example: begin -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(compile(found[1], "docs/testing-telegram.md", "exec"), names)
    example: Callable[[Path], Awaitable[None]] = names["test_a_busy_chat_is_left_alone"]
    await example(tmp_path)


def test_every_fault_is_on_the_page() -> None:
    """One that nobody can read of is one that nobody arms."""
    missing = [field.name for field in attrs.fields(Fault) if f"{field.name}" not in PAGE]
    assert missing == []


@pytest.mark.parametrize("name", ["messages", "received", "sends", "calls", "fetches", "most_sent"])
def test_what_was_sent_is_asked_as_the_page_says(name: str) -> None:
    assert f"server.{name}" in PAGE
    assert hasattr(BotApiServer, name)
