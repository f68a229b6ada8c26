"""What a later call needs to go on with an upload. Pure; holds no secret."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Self, cast

from attrs import asdict, fields, frozen

__all__ = ["UploadToken", "digest_of"]

_VERSION = 1


@frozen(kw_only=True)
class UploadToken:
    """An upload in parts that has begun: keep it where it survives what the upload may not.

    The service knows which parts stand, so that one token is good until the upload's end, which for
    an upload that nobody ends is seven days after its beginning (R2).

    Attributes:
        bucket: Of the object.
        key: Of the object.
        upload_id: The service's name for the upload.
        size: Bytes of the whole body.
        part_size: Bytes of each part but the last.
        headers_digest: SHA-256 of content type and metadata, which an upload has from its beginning.
    """

    bucket: str
    key: str
    upload_id: str
    size: int
    part_size: int
    headers_digest: str

    def to_json(self) -> str:
        """The token as text, in ASCII."""
        return json.dumps({"version": _VERSION, **asdict(self)})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The token that `to_json` wrote.

        Raises:
            ValueError: It is no such text.
        """
        try:
            loaded: object = json.loads(text)
        except ValueError as error:
            raise ValueError(f"This is no upload token, but no JSON either: {error}.") from None
        values = cast("dict[str, Any]", loaded) if isinstance(loaded, dict) else {}
        if values.get("version") != _VERSION:
            raise ValueError(f"This is no upload token of version {_VERSION}: put the object without it.")
        types = {"size": int, "part_size": int}
        names = [attribute.name for attribute in fields(cls)]
        for name in names:
            if type(values.get(name)) is not types.get(name, str):
                raise ValueError(f"This upload token has no proper {name!r}: put the object without it.")
        return cls(**{name: values[name] for name in names})


def digest_of(headers: tuple[tuple[str, str], ...]) -> str:
    """The digest of an object's headers, order aside."""
    return hashlib.sha256(json.dumps(sorted(headers)).encode()).hexdigest()
