"""What stands behind a medium's bytes in its file: whose they are, when they were read, what they sum up to.

A file is::

    the medium's bytes
    facts     JSON: space, key, SHA-256 of the bytes, and the ObjectInfo
    foot      mark · bytes of the medium · when it was read · bytes of facts · SHA-256 of facts and foot

Pure: bytes in, values out.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import asdict, frozen

from prewarmkit.media import ObjectInfo

__all__ = ["FOOT_BYTES", "Foot", "Record", "Wanted"]

_MARK = b"pwkspl01"
_HEAD = struct.Struct(">8sQqI")
_DIGEST_BYTES = 32
FOOT_BYTES = _HEAD.size + _DIGEST_BYTES


@frozen
class Wanted:
    """The version that somebody asks for; ``None`` says nothing.

    Attributes:
        etag: Without its quotes.
        size: Bytes.
    """

    etag: str | None = None
    size: int | None = None

    def fits(self, info: ObjectInfo) -> bool:
        """Whether that is it."""
        return self.etag in {None, info.etag} and self.size in {None, info.size}


@frozen
class Foot:
    """The last bytes of a file: enough to count it and to know its age.

    Attributes:
        size: Bytes of the medium.
        read_at_ns: When its source was asked for it, in the calendar's nanoseconds.
        facts_bytes: Length of the facts before the foot.
        digest: What facts and foot must sum up to.
    """

    size: int
    read_at_ns: int
    facts_bytes: int
    digest: bytes

    @classmethod
    def unpack(cls, tail: bytes) -> Foot | None:
        """The foot at the end of ``tail``; ``None``: there is none."""
        if len(tail) < FOOT_BYTES:
            return None
        foot = tail[-FOOT_BYTES:]
        mark, size, read_at_ns, facts_bytes = _HEAD.unpack(foot[: _HEAD.size])
        return cls(size, read_at_ns, facts_bytes, foot[_HEAD.size :]) if mark == _MARK else None

    @property
    def file_bytes(self) -> int:
        """How long the whole file is."""
        return self.size + self.facts_bytes + FOOT_BYTES


@frozen
class Record:
    """What a file says of itself.

    Attributes:
        space: See ``SpooledSource(namespace=)``.
        key: The key that was asked for.
        info: What the source told.
        read_at_ns: See `Foot`.
        sha256: The bytes', in hex.
    """

    space: str
    key: str
    info: ObjectInfo
    read_at_ns: int
    sha256: str

    def pack(self) -> bytes:
        """Facts and foot."""
        info = asdict(self.info)
        moment = self.info.last_modified
        info["last_modified"] = moment and moment.isoformat()
        info["metadata"] = dict(self.info.metadata)
        facts = json.dumps(
            {"space": self.space, "key": self.key, "sha256": self.sha256, "info": info}
        ).encode()
        head = _HEAD.pack(_MARK, self.info.size, self.read_at_ns, len(facts))
        return facts + head + _digest(facts, head)

    @classmethod
    def unpack(cls, foot: Foot, facts: bytes) -> Record | None:
        """The record of a file; ``None``: it is not what was written."""
        head = _HEAD.pack(_MARK, foot.size, foot.read_at_ns, foot.facts_bytes)
        if len(facts) != foot.facts_bytes or _digest(facts, head) != foot.digest:
            return None
        told: Mapping[str, Any] = json.loads(facts)  # as we wrote it: the digest holds
        info = dict(told["info"])
        if info["last_modified"] is not None:
            info["last_modified"] = datetime.fromisoformat(info["last_modified"])
        return cls(told["space"], told["key"], ObjectInfo(**info), foot.read_at_ns, told["sha256"])


def _digest(facts: bytes, head: bytes) -> bytes:
    return hashlib.sha256(facts + head).digest()
