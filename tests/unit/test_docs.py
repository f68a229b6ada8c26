"""The documentation says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

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
