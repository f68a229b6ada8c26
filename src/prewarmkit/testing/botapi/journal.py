"""The journal of uploads: one JSON line each, so that ids outlive the process.

A line is written and flushed before the answer leaves, so a process that is killed has told no client of a
``file_id`` that its successor does not know. A last line that was cut off by the kill is dropped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

from prewarmkit.testing.botapi.values import Upload, upload_from_json, upload_to_json

__all__ = ["Journal", "read_journal"]


def read_journal(path: Path | str) -> list[Upload]:
    """The uploads of a journal, oldest first; a file that does not exist has none.

    Raises:
        ValueError: A line that is not the last is no upload.
    """
    return _read(Path(path))[0]


def _read(path: Path) -> tuple[list[Upload], int]:
    """The uploads, and how many bytes of the file they take."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return [], 0
    uploads: list[Upload] = []
    good = 0
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            break  # torn: its writer was killed, and its client never got the answer
        try:
            uploads.append(upload_from_json(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"Line {number} of the journal {path} is no upload: move the file away to start anew."
            ) from error
        good += len(line)
    return uploads, good


class Journal:
    """An open journal."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[Any] | None = None

    def open(self) -> list[Upload]:
        """Read what is there, drop a torn end, and be ready to append."""
        uploads, good = _read(self._path)
        file = self._path.open("ab")
        file.truncate(good)
        self._file = file
        return uploads

    def append(self, upload: Upload) -> None:
        """Write one upload and hand it to the operating system."""
        if self._file is None:
            raise RuntimeError("The journal is not open.")
        self._file.write(json.dumps(upload_to_json(upload)).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if self._file is not None:
            self._file.close()
            self._file = None
