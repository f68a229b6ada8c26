"""The documentation says what the code does."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import attrs
import pytest

from prewarmkit import PoolSettings
from prewarmkit.pool import events, log
from prewarmkit.stores.lifecycle import TRANSITIONS

ROOT = Path(__file__).parents[2]


def lifecycle_table() -> str:
    """The table of `TRANSITIONS` as it stands in the docs."""
    lines = ["| from | move | to | attempts | when |", "|---|---|---|---|---|"]
    for (state, move), step in TRANSITIONS.items():
        attempts = "reset" if step.attempts is None else {0: "kept", 1: "+1", -1: "given back"}[step.attempts]
        lines.append(f"| {state} | {move} | {step.to} | {attempts} | {step.why} |")
    return "\n".join(lines)


def test_the_lifecycle_in_the_docs_is_the_codes() -> None:
    """To renew it: put what this test expects between the two marks."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    found = re.search(r"<!-- lifecycle: begin -->\n(.*?)\n<!-- lifecycle: end -->", text, re.DOTALL)
    assert found is not None
    assert found[1] == lifecycle_table()


def test_every_room_is_on_the_map() -> None:
    """A folder of the package that the architecture page does not name is a room nobody can find."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = [
        path
        for path in (ROOT / "src" / "prewarmkit").iterdir()
        if path.is_dir() and path.name != "__pycache__"
    ]
    for room in rooms:
        assert f"`{room.name}/`" in text, room.name


def test_no_source_file_is_longer_than_400_lines() -> None:
    """A file that outgrows its room is split."""
    long = {
        path.name: lines
        for path in (ROOT / "src").rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 400
    }
    assert long == {}


def settings_table() -> str:
    """The fields of `PoolSettings`, from its docstring."""
    assert PoolSettings.__doc__ is not None
    described = inspect.cleandoc(PoolSettings.__doc__).partition("Attributes:\n")[2]
    texts = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", described, re.MULTILINE)
    meanings = {name: re.sub(r"\s+", " ", text).replace("``", "`") for name, text in texts}
    rows = [f"| `{one.name}` | {one.default} | {meanings[one.name]} |" for one in attrs.fields(PoolSettings)]
    return "\n".join(["| setting | default | |", "|---|---|---|", *rows])


def events_table() -> str:
    """Every event that a pool emits, from its docstring."""
    lines = ["| event | fields | |", "|---|---|---|"]
    for event in get_args(events.PoolEvent):
        fields = ", ".join(f"`{field.name}`" for field in attrs.fields(event)) or "—"
        meaning = re.sub(r"\s+", " ", inspect.cleandoc(event.__doc__)).replace("``", "`")
        lines.append(f"| `{event.__name__}` | {fields} | {meaning} |")
    return "\n".join(lines)


@pytest.mark.parametrize(("mark", "table"), [("settings", settings_table), ("events", events_table)])
def test_a_table_of_the_pool_page_is_the_codes(mark: str, table: Callable[[], str]) -> None:
    """To renew it: put what this test expects between the two marks."""
    text = (ROOT / "docs" / "pool.md").read_text()
    found = re.search(rf"<!-- {mark}: begin -->\n(.*?)\n?<!-- {mark}: end -->", text, re.DOTALL)
    assert found is not None
    assert found[1] == table()


def test_every_event_has_a_form_in_the_log() -> None:
    """A new event is written about with a level of its own."""
    assert set(log.FORMS) == set(get_args(events.PoolEvent))
