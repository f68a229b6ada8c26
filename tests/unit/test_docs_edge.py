"""docs/edge.md says what the code does, and its example runs."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from prewarmkit.targets.edge.answers import Answer
from prewarmkit.targets.edge.failures import failure_of
from prewarmkit.targets.edge.places import Place
from prewarmkit.targets.edge.verdicts import WeakReason
from prewarmkit.testing.edge import DEFAULT_EXTENSIONS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "edge.md").read_text()
ROWS = re.findall(r"^\| (.+?) \|$", PAGE, re.MULTILINE)
COLUMNS = [row.split(" | ") for row in ROWS]


@pytest.mark.parametrize("block", re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
def test_every_block_is_python_and_names_what_there_is(block: str) -> None:
    compile(block, "edge.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for module, names in re.findall(r"^from (prewarmkit\S*) import (.+)$", block, re.MULTILINE):
        assert set(names.split(", ")) <= set(dir(importlib.import_module(module)))


def test_the_example_runs() -> None:
    done = subprocess.run(
        [sys.executable, str(DOCS / "examples" / "edge_in_tests.py")],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("FRA ['MISS', 'HIT']\n", "")


@pytest.mark.parametrize("reason", WeakReason)
def test_every_weak_reason_is_in_the_table_with_whether_it_is_asked_again(reason: WeakReason) -> None:
    [again] = [row[2] for row in COLUMNS if len(row) == 3 and f"`{reason}`" in row[1]]
    assert again.startswith("never") == reason.is_final


def test_every_failure_is_in_the_table_with_what_it_costs() -> None:
    """Each number of the first column, asked of the code."""
    told = 0
    for row in COLUMNS:
        for status in re.findall(r"\b[345]\d\d\b", row[0]):
            headers = [("retry-after", "5")] if "Retry-After" in row[0] else []
            answer = Answer.of("GET", int(status), headers, status_header="cf-cache-status")
            failure = failure_of(answer, key="a.jpg", place=Place("https://media.example.com"))
            kinds = {kind.__name__ for kind in type(failure).__mro__}
            assert kinds & set(re.findall(r"`([A-Z]\w+)", row[1])), row
            cost = "final" if failure.is_final else "yes" if failure.spends_attempt else "no"
            assert row[2] == cost, row
            told += 1
    assert told > 10


def test_the_extensions_that_it_warns_of_are_not_kept() -> None:
    [said] = re.findall(r"Not kept by Cloudflare without a rule: ([a-z0-9, ]+), and keys", PAGE)
    assert not set(said.split(", ")) & DEFAULT_EXTENSIONS
