"""What docs/sources.md shows: its source is one, and its table of arguments is the code's."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from prewarmkit.sources import MediaSource, SpooledSource, SpoolStats
from prewarmkit.testing.contracts.source import SourceContract

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[2] / "docs" / "sources.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)

HEAD = """
from __future__ import annotations
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from prewarmkit import ObjectInfo, NotFound
"""


class TestTheSourceOfThePage(SourceContract):
    @asynccontextmanager
    async def source(self, objects: Mapping[str, bytes]) -> AsyncGenerator[MediaSource, None]:
        [block] = [each for each in BLOCKS if "class BytesSource" in each]
        place: dict[str, Any] = {}
        exec(compile(HEAD + block, "sources.md", "exec"), place)
        yield place["BytesSource"](dict(objects))


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_is_python(block: str) -> None:
    flags = 0x2000  # ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    compile(block, "sources.md", "exec", flags=flags)


def test_the_table_has_every_argument_with_its_default() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| `?(.*?)`? \|", PAGE, re.MULTILINE))
    parameters = inspect.signature(SpooledSource).parameters
    assert list(table) == [name for name in parameters if name not in {"source", "directory"}]
    assert table["ttl_seconds"] == str(parameters["ttl_seconds"].default)
    assert parameters["max_bytes"].default == 1024**3
    assert table["namespace"] == '""'


def test_every_figure_is_named() -> None:
    for name in (*inspect.get_annotations(SpoolStats), "hit_rate"):
        assert f"`{name}`" in PAGE, name
