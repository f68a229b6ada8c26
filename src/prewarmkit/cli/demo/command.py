"""``demo`` as a command: how it starts, how it ends, and what becomes of its folder.

Owns exit codes and signals. What the demo does is the supervisor's, how it is told `telling`'s.
"""

from __future__ import annotations

import logging
import signal
import sys

import anyio
from attrs import define, field
from rich.console import Console

from prewarmkit import PrewarmKitError
from prewarmkit.cli.demo.arguments import Options
from prewarmkit.cli.demo.homes import remove_home
from prewarmkit.cli.demo.place import Place, open_place, remove
from prewarmkit.cli.demo.screen import Screen
from prewarmkit.cli.demo.supervisor import Outcome, Stopped, run_demo
from prewarmkit.cli.demo.telling import Telling
from prewarmkit.cli.demo.wire import first_of

__all__ = ["run"]

_BY_SIGNAL = 128
_BACKEND = "asyncio"


def run(options: Options) -> int:
    """Run the demo and tell how it went; the exit code."""
    screen = Screen(Console(stderr=options.is_json))
    telling = Telling(screen, is_json=options.is_json)
    try:
        with open_place(options) as place:
            return _Session(options, place, screen, telling).run()
    except (PrewarmKitError, OSError) as error:
        return telling.failed(error)


@define
class _Session:
    """One run in one folder."""

    _options: Options
    _place: Place
    _screen: Screen
    _telling: Telling
    _signal: signal.Signals | None = field(init=False, default=None)

    def run(self) -> int:
        """Run, tell, and remove the folder unless somebody may need it."""
        # What the library logs is for the file; the screen has the one message that matters.
        logging.basicConfig(filename=self._place.log, level=logging.WARNING)
        keeps_folder = not self._place.is_temporary
        try:
            outcome = anyio.run(self._main, backend=_BACKEND)
            code = self._interrupted() if outcome is None else self._telling.outcome(outcome)
        except (PrewarmKitError, OSError) as error:
            code = self._telling.failed(error)
            keeps_folder = keeps_folder or (
                isinstance(error, Stopped) and error.is_kept and error.queued != 0
            )
        finally:
            if not keeps_folder:
                remove_home(self._place, self._options.dsn)
                remove(self._place)
        if code and keeps_folder:
            self._telling.how_to_go_on(self._place)
        return code

    async def _main(self) -> Outcome | None:
        """The demo, ended in good order by a signal; ``None``: it was."""
        outcome: Outcome | None = None
        failure: BaseException | None = None
        try:
            async with anyio.create_task_group() as group:
                if sys.platform != "win32":  # there Ctrl-C is a KeyboardInterrupt, and main() has it
                    group.start_soon(self._heed_signals, group.cancel_scope)
                outcome = await run_demo(self._options, self._place, self._screen)
                group.cancel_scope.cancel()
        except* (PrewarmKitError, OSError, SystemExit) as errors:  # rich exits where nobody reads on
            failure = first_of(errors)
        if failure is not None:
            raise failure
        return outcome

    async def _heed_signals(self, scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async for number in signals:
                self._signal = self._signal or number
                scope.cancel()

    def _interrupted(self) -> int:
        number = self._signal or signal.SIGINT
        self._screen.warn(f"interrupted by {number.name}; everything that was started is stopped")
        return _BY_SIGNAL + number
