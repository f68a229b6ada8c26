"""`Uploads`: one medium into one chat, by its bytes or by a reference, and what the answer means.

Owns what is sent and how its answer becomes a `Warmed` or a failure. Which way is tried
first, and which chat is free, is decided elsewhere.
"""

from __future__ import annotations

import logging
import secrets
from http import HTTPStatus

from attrs import frozen

from prewarmkit.errors import RouteUnfit, Transient, TransportError
from prewarmkit.media import Media, Warmed
from prewarmkit.sources.base import MediaReader
from prewarmkit.targets.telegram.answers import Answer
from prewarmkit.targets.telegram.body import UploadBody
from prewarmkit.targets.telegram.calls import BotApi
from prewarmkit.targets.telegram.failures import Verdict, classify, failure_of
from prewarmkit.targets.telegram.handles import pick
from prewarmkit.targets.telegram.keeper import ChatKeeper
from prewarmkit.targets.telegram.memory import Memory
from prewarmkit.targets.telegram.methods import METHODS, content_type_of, filename_of, max_bytes_of
from prewarmkit.targets.telegram.multipart import frame
from prewarmkit.targets.telegram.routes import Reference
from prewarmkit.transports.base import Transport

__all__ = ["Uploads"]

_logger = logging.getLogger("prewarmkit.targets")

# Refusals that speak of the bot or the chat, and say nothing of an address.
_NOT_THE_ADDRESS = frozenset({Verdict.RATE_LIMITED, Verdict.TOKEN_REFUSED, Verdict.MOVED, Verdict.CHAT_DEAD})
# Of a message to forward they may also speak of the chat it is in.
_NOT_THE_POST = frozenset({Verdict.RATE_LIMITED, Verdict.TOKEN_REFUSED})


@frozen
class Uploads:
    """What one bot sends into its warmup chats."""

    api: BotApi
    keeper: ChatKeeper
    memory: Memory
    is_local: bool = False

    async def by_bytes(
        self, transport: Transport, media: Media, reader: MediaReader, *, chat_id: int
    ) -> Warmed:
        """Upload what ``reader`` has."""
        method = METHODS[media.kind]
        info = reader.info
        framing = frame(
            [("chat_id", str(chat_id)), ("disable_notification", "true"), *method.options],
            file_field=method.field,
            filename=filename_of(media, info),
            content_type=content_type_of(media, info),
            boundary=f"prewarmkit-{secrets.token_hex(16)}",
        )
        body = UploadBody(framing, reader, key=media.key, size=info.size, sha256=media.sha256)
        rate_cost = self.memory.spend(media)
        answer, fault = await self._post(transport, method.name, body, framing.content_type)
        if body.failure is not None:
            raise body.failure
        if answer is None or (answer.ok and not body.tail_sent):
            said = "an answer before the upload was whole" if answer else f"no answer from Telegram: {fault}"
            raise Transient(f"{media.key!r}: {said}.", body.tail_sent)
        if not answer.ok:
            failure = failure_of(
                answer,
                what=f"{media.key!r} as {media.kind}",
                chat_id=chat_id,
                limit=max_bytes_of(media.kind, is_local=self.is_local),
                may_be_done=body.tail_sent,
            )
            raise await self.keeper.note(failure, chat_id)
        if answer.message is None:
            raise Transient(f"{media.key!r}: Telegram answered with no message.", outcome_unknown=True)
        source = {"etag": info.etag, "sha256": body.sha256}
        warmed = pick(answer.message, asked=media.kind, sent=body.sent, source=source, rate_cost=rate_cost)
        if not warmed.weak:
            self.memory.settle(media)
        return warmed

    async def by_reference(
        self, transport: Transport, media: Media, reference: Reference, *, chat_id: int
    ) -> Warmed:
        """Send ``reference``, which is not sent again unless it is as good as bytes are.

        Raises:
            RouteUnfit: Telegram could not take it; bytes may still go.
            TargetFailure: Anything else that went wrong.
        """
        rate_cost = self.memory.spend(media)
        answer = await self._sent(transport, media, reference, chat_id)
        if not answer.ok:
            raise await self._refused(answer, media, reference, chat_id)
        if answer.message is None:
            await self.memory.note_failed(reference)
            raise Transient(f"{media.key!r}: Telegram answered with no message.", outcome_unknown=True)
        warmed = pick(
            answer.message,
            asked=media.kind,
            sent=0,
            source={"etag": reference.etag},
            route=reference.route,
            size=reference.size,
            rate_cost=rate_cost,
        )
        if warmed.weak:
            # The next attempt goes another way.
            await self.memory.note_failed(reference)
        else:
            self.memory.settle(media)
        return reference.without_secrets(warmed)

    async def _sent(self, transport: Transport, media: Media, reference: Reference, chat_id: int) -> Answer:
        method, fields = reference.call(media.kind)
        fields = {"chat_id": str(chat_id), "disable_notification": "true", **fields}
        try:
            return await self.api.post_form(
                transport, method, fields, moves_bytes=reference.size, hide=reference.hide
            )
        except TransportError as error:
            if error.request_sent:
                await self.memory.note_failed(reference)
            raise Transient(
                f"{media.key!r}: no answer from Telegram: {error}.", error.request_sent
            ) from error

    async def _refused(self, answer: Answer, media: Media, reference: Reference, chat_id: int) -> Exception:
        verdict = classify(answer)
        failure = failure_of(answer, what=f"{media.key!r} as {media.kind}", chat_id=chat_id)
        # Not every server has the method that forwards.
        is_unknown = reference.route == "forward" and answer.status == HTTPStatus.NOT_FOUND
        if not is_unknown and verdict in (
            _NOT_THE_POST if reference.route == "forward" else _NOT_THE_ADDRESS
        ):
            return await self.keeper.note(failure, chat_id)
        await self.memory.note_failed(reference)
        if verdict is Verdict.TRANSIENT:
            return failure
        said = f"{answer.status} {answer.description}".strip()
        _logger.info("%r could not go by %s (%s).", media.key, reference.route, said)
        return RouteUnfit(f"Telegram could not take {media.key!r} by {reference.route} ({said}).")

    async def _post(
        self, transport: Transport, method: str, body: UploadBody, content_type: str
    ) -> tuple[Answer | None, TransportError | None]:
        try:
            answer = await self.api.post(
                transport, method, body, content_type=content_type, content_length=body.content_length
            )
        except TransportError as error:
            return None, error
        except Exception:
            # The source's own failure, as it was or wrapped by the transport: the caller looks at it.
            if body.failure is None:
                raise
            return None, None
        else:
            return answer, None
        finally:
            await body.aclose()
