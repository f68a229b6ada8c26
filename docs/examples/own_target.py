"""A target of one's own: a service that takes ``PUT /KEY`` and answers with an id."""

from __future__ import annotations

from urllib.parse import quote

import h11
import httpx

from prewarmkit.media import Media, Warmed
from prewarmkit.sources import MediaSource
from prewarmkit.targets import MediaUnfit, RateLimited, TargetDown, Transient, source_failures


class ShelfTarget:
    def __init__(self, url: str, token: str, client: httpx.AsyncClient) -> None:
        self.id = "shelf"  # stands in rows: stable, and no secret
        self._url, self._client = url, client
        self._headers = {"Authorization": f"Bearer {token}"}

    async def warm(self, media: Media, source: MediaSource) -> Warmed:
        url = f"{self._url}/{quote(media.key)}"
        with source_failures(media.key):  # the source's errors, as failures that a pool acts on
            async with source.open(media.key) as reader:  # streamed: only the chunk in hand is held
                headers = {**self._headers, "Content-Length": str(reader.info.size)}
                try:
                    answer = await self._client.put(url, content=reader, headers=headers)
                except (
                    httpx.HTTPError,
                    h11.LocalProtocolError,
                ) as error:  # the latter: fewer bytes than said
                    raise Transient(f"no answer: {type(error).__name__}", outcome_unknown=True) from error
        match answer.status_code:
            case 200:
                return Warmed(answer.json()["id"])
            case 401 | 403:
                raise TargetDown("The shelf does not know us: renew the token.")
            case 413 | 415:
                raise MediaUnfit(f"The shelf does not take {media.key!r}.")
            case 429:
                raise RateLimited("slow down", float(answer.headers.get("Retry-After", 30)), "target")
            case status:
                raise Transient(f"The shelf answered {status}.")
