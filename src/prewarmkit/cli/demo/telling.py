"""How the demo's end is told: tables and lines for people, or one JSON object for scripts."""

from __future__ import annotations

import json
import shlex
import sys
from typing import Any

from attrs import frozen

from prewarmkit.cli.demo import tables
from prewarmkit.cli.demo.place import Place
from prewarmkit.cli.demo.screen import Screen
from prewarmkit.cli.demo.supervisor import Outcome, Stopped, said_of

__all__ = ["Telling"]

_MOST_PROBLEMS = 20


@frozen
class Telling:
    """Tells the end of one demo.

    Attributes:
        screen: For people.
        is_json: Whether JSON goes to standard output.
    """

    screen: Screen
    is_json: bool

    def outcome(self, outcome: Outcome) -> int:
        """The figures and whether all is well; the exit code."""
        figures, problems = outcome.figures, outcome.problems
        tables.show(self.screen.console, figures)
        if outcome.delivery is not None:
            self._second_pass(outcome)
        if problems:
            self.screen.fail(f"{len(problems):,} of {figures.media:,} media are not as they must be:")
            for problem in problems[:_MOST_PROBLEMS]:
                self.screen.say(f"    {problem}")
            if len(problems) > _MOST_PROBLEMS:
                self.screen.say(f"    … and {len(problems) - _MOST_PROBLEMS:,} more")
        else:
            self.screen.good(
                f"{figures.media:,} of {figures.media:,} media are ready, each arrived with the source's SHA-256 "
                f"({figures.total_seconds:.1f} s in all)"
            )
        self._print_json({"ok": not problems, "problems": problems, **_json_of(outcome)})
        return 1 if problems else 0

    def failed(self, error: BaseException) -> int:
        """What to change; the exit code."""
        message = said_of(error)
        self.screen.fail(message)
        told: dict[str, Any] = {"ok": False, "error": message}
        if isinstance(error, Stopped):
            told |= {"queued": error.queued, "ready": error.ready}
            if error.queued and error.is_kept:
                self.screen.say(
                    f"  Nothing that was queued is lost: {error.queued:,} media stay queued"
                    + (f", {error.ready:,} are ready." if error.ready else ".")
                )
        self._print_json(told)
        return 1

    def how_to_go_on(self, place: Place) -> None:
        """Where everything is, and how to take it up again."""
        again = f"python -m prewarmkit demo --data {shlex.quote(str(place.path))}"
        again += "" if place.plan.schema is None else " --store postgres --dsn DSN"
        self.screen.say(f"  It is all in {place.path}; go on with:  {again}")

    def _second_pass(self, outcome: Outcome) -> None:
        figures, delivery = outcome.figures, outcome.delivery
        self.screen.say("")
        self.screen.good(
            f"second pass: {figures.lookup.count:,} look-ups in a process that warmed nothing, "
            f"{figures.lookup_hits:,} cache hits"
        )
        if delivery is not None:
            self.screen.good(
                f"delivered {delivery.key!r} to chat {delivery.chat_id} by its file_id: "
                f"message {delivery.message_id}, no bytes"
            )

    def _print_json(self, told: dict[str, Any]) -> None:
        if self.is_json:
            sys.stdout.write(json.dumps(told, indent=2) + "\n")


def _json_of(outcome: Outcome) -> dict[str, Any]:
    delivery = outcome.delivery
    told = outcome.figures.to_json()
    told["delivery"] = (
        None
        if delivery is None
        else {
            "key": delivery.key,
            "chat_id": delivery.chat_id,
            "message_id": delivery.message_id,
            "uploaded_bytes": 0,
        }
    )
    return told
