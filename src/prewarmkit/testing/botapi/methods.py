"""The methods of the Bot API that this server has: a request's values in, an answer out.

No HTTP and no clock of its own; the only I/O is the journal that it is handed. What it answers for a case follows the
documentation and telegram-bot-api's source; methods that it does not have are answered as unknown ones.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from prewarmkit.testing.botapi.albums import copy_message, forward_message, send_album
from prewarmkit.testing.botapi.answers import Answer, error, ok, refusal, user_object
from prewarmkit.testing.botapi.faults import Fault
from prewarmkit.testing.botapi.limits import FloodWait
from prewarmkit.testing.botapi.query import SENDS, Query, Refused, numbers
from prewarmkit.testing.botapi.sending import Sending
from prewarmkit.testing.botapi.state import ChatRefusal

__all__ = ["DOWNLOAD_LIMIT", "Methods"]

DOWNLOAD_LIMIT = 20 * 1024 * 1024


class _UnknownMethod(Exception):
    """There is no such method here."""


@frozen
class Methods:
    """The methods over a state.

    Attributes:
        sending: What the sending ones share, the state among it.
    """

    sending: Sending

    def answer(self, query: Query) -> Answer:
        """Carry a request out.

        Raises:
            FloodWait: Its messages are too many now; nothing was done, and it may be asked again.
        """
        try:
            return ok(self._result(query))
        except _UnknownMethod:
            return error(404, "Not Found")
        except Refused as refused:
            return error(400, f"Bad Request: {refused.reason}")
        except ChatRefusal as refused:
            moved = refused.migrate_to_chat_id
            parameters = {} if moved is None else {"migrate_to_chat_id": moved}
            return error(refused.status, refused.description, parameters)

    def flooded(self, flood: FloodWait) -> Answer:
        """The answer to too many requests."""
        limits = self.sending.floods.limits
        told_in = "body" if limits is None else limits.told_in
        return refusal(Fault(retry_after=flood.seconds, retry_after_in=told_in))

    def _result(self, query: Query) -> Any:  # noqa: PLR0911 - a table
        match query.method:
            case "getMe":
                return _me(query.bot_id)
            case "getFile":
                return self._get_file(query)
            case "deleteMessage":
                return self._delete(query, [query.number("message_id")])
            case "deleteMessages":
                return self._delete(query, numbers(query, "message_ids"))
            case "sendMediaGroup":
                return send_album(self.sending, query)
            case "forwardMessage":
                return forward_message(self.sending, query)
            case "copyMessage":
                return copy_message(self.sending, query)
            case method if method in SENDS:
                return self.sending.send(query)
            case _:
                raise _UnknownMethod

    def _get_file(self, query: Query) -> dict[str, Any]:
        upload = self.sending.state.file(query.bot_id, query.text("file_id"))
        if upload is None:
            raise Refused("invalid file_id")
        if upload.size > DOWNLOAD_LIMIT:
            raise Refused("file is too big")
        return {
            "file_id": upload.file_id,
            "file_unique_id": upload.file_unique_id,
            "file_size": upload.size,
            "file_path": f"{upload.kind.value}s/{upload.file_unique_id}",
        }

    def _delete(self, query: Query, message_ids: list[int]) -> bool:
        state = self.sending.state
        chat_id = state.chat(query.text("chat_id"), query.bot_id)
        deleted = [state.delete_message(chat_id, message_id) for message_id in message_ids]
        if query.method == "deleteMessage" and not all(deleted):
            raise Refused("message to delete not found")
        return True  # deleteMessages skips those that it does not find


def _me(bot_id: int) -> dict[str, Any]:
    return {
        **user_object(bot_id),
        "can_join_groups": True,
        "can_read_all_group_messages": False,
        "supports_inline_queries": False,
        "can_connect_to_business": False,
        "has_main_web_app": False,
    }
