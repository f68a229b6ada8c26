"""The supervisor: starts the workers, starts them again, and ends them in good order.

One loop around whatever comes first: a signal, a worker's word, a worker's end, a time that is
due. Knows no pool and loads nothing of the host's, so nothing of the host's can bring it down.
Should it die all the same, its ends of the lines close, and the workers drain by themselves.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import signal
import time
from collections import deque
from collections.abc import Callable

from attrs import define, field

from prewarmkit.cli.worker.arguments import Options
from prewarmkit.cli.worker.exits import CONFIGURATION, DONE, FAILED, TEMPORARY
from prewarmkit.cli.worker.logs import log_to_stderr
from prewarmkit.cli.worker.patience import Patience
from prewarmkit.cli.worker.process import LEAVING, READY, Command, Process, command_of
from prewarmkit.cli.worker.slots import Roll, Slot
from prewarmkit.cli.worker.wakeups import Wakeups

__all__ = ["Supervisor", "supervise"]

logger = logging.getLogger("prewarmkit.worker")

_LATE_SECONDS = 30.0
_MEANINGS = {
    TEMPORARY: " (a failure that may pass)",
    CONFIGURATION: " (its setup cannot work)",
}


def supervise(options: Options) -> int:
    """Keep the workers at work until told to stop; the exit code."""
    log_to_stderr("supervisor", options.log_level)
    return Supervisor(options, command_of(options)).run()


@define(eq=False)
class Supervisor:
    """All workers of one command."""

    _options: Options
    _command: Command
    _new_patience: Callable[[], Patience] = Patience
    _wakeups: Wakeups = field(init=False, factory=Wakeups)
    _slots: list[Slot] = field(init=False)
    _living: list[Process] = field(init=False, factory=list[Process])
    _roll: Roll | None = field(init=False, default=None)
    _is_proven: bool = field(init=False, default=False)
    _stops: int = field(init=False, default=0)
    _code: int = field(init=False, default=DONE)

    def __attrs_post_init__(self) -> None:
        self._slots = [Slot(n, self._new_patience()) for n in range(1, self._options.processes + 1)]

    def run(self) -> int:
        """From the first worker's start to the last one's end."""
        with self._wakeups:
            # The others follow when one is ready: what is wrong with the factory is said once.
            self._slots[0].due_at = time.monotonic()
            while self._living or not self._stops:
                signals, talking = self._wakeups.wait(self._next_time() - time.monotonic())
                for number in signals:
                    self._heed(signal.Signals(number))
                for process in talking:
                    self._hear(process)
                for process in list(self._living):
                    if (code := process.poll()) is not None:
                        self._ended(process, code)
                self._keep_time()
        if self._is_proven:
            logger.info("stopped: exit code %d", self._code)
        return self._code

    # ── what comes ───────────────────────────────────────────────────────────

    def _heed(self, number: signal.Signals) -> None:
        if number in {signal.SIGTERM, signal.SIGINT}:
            self._stop(number.name)
        elif number == signal.SIGHUP and _is_terminal_gone():
            self._stop("the terminal was closed")
        elif number == signal.SIGHUP and not self._stops:
            self._begin_roll()

    def _hear(self, process: Process) -> None:
        was_told = process.is_told
        words = process.listen()
        if process.is_hung_up:
            self._wakeups.forget(process.line)
            process.kill_within(self._options.kill_after_seconds)
        if READY in words:
            self._got_ready(process)
        if LEAVING in words and not was_told:
            logger.warning("%s leaves without having been told to from here", process.name)
            process.kill_within(self._patient_seconds)

    def _got_ready(self, process: Process) -> None:
        logger.debug("%s is ready", process.name)
        if not self._is_proven:
            self._is_proven = True
            for slot in self._slots[1:]:
                slot.due_at = time.monotonic()
        roll = self._roll
        if roll is not None and roll.successor is process:
            replaced = roll.hand_over()
            if replaced is not None:
                logger.info("%s is ready; %s drains", process.name, replaced.name)
                replaced.tell_to_stop(self._patient_seconds)

    def _ended(self, process: Process, code: int) -> None:
        if not process.is_hung_up:
            self._hear(process)  # its last words
        if not process.is_hung_up:
            self._wakeups.forget(process.line)
        process.line.close()
        self._living.remove(process)
        if self._stops:
            self._judge(process, code)
        elif self._roll is not None and process in {self._roll.successor, self._roll.retiring}:
            self._rolled(self._roll, process, code)
        else:
            slot = self._slots[process.number - 1]
            slot.process = None
            if self._roll is not None and self._roll.successor is not None and self._roll.slot is slot:
                logger.warning("%s %s; its successor is getting ready", process.name, _how(code))
            else:
                self._fill_again(slot, process, code)

    def _keep_time(self) -> None:
        now = time.monotonic()
        for process in self._living:
            if process.kill_at <= now:
                logger.warning("%s has had its time and is killed", process.name)
                process.kill()
            if process.late_at <= now:
                process.late_at = math.inf
                if process.ready_at is None:
                    logger.warning("%s is not ready after %g s; still waiting", process.name, _LATE_SECONDS)
        for slot in self._slots:
            if slot.due_at <= now and not self._stops:
                self._fill(slot)
        while self._roll is not None and not self._roll.is_busy and not self._stops:
            self._roll_on(self._roll)  # may end it, and begin another

    def _next_time(self) -> float:
        times = [slot.due_at for slot in self._slots]
        times += [min(process.kill_at, process.late_at) for process in self._living]
        return min(times)

    # ── start, and start again ───────────────────────────────────────────────

    def _fill(self, slot: Slot) -> None:
        slot.due_at = math.inf
        slot.process = self._start(slot)
        if slot.process is None:
            self._wait_to_fill(slot, FAILED, ready_seconds=None)

    def _start(self, slot: Slot) -> Process | None:
        try:
            process = Process.start(slot.number, self._command)
        except OSError as error:  # no room for another process, or the interpreter is being replaced
            logger.error("worker %d cannot be started: %s", slot.number, error)  # noqa: TRY400 - the text says it
            return None
        process.late_at = process.started_at + _LATE_SECONDS
        self._living.append(process)
        self._wakeups.watch(process.line, process)
        return process

    def _fill_again(self, slot: Slot, process: Process, code: int) -> None:
        delay = self._wait_to_fill(slot, code, ready_seconds=process.ready_seconds)
        if delay is not None:
            logger.warning("%s %s; the next one starts in %.1f s", process.name, _how(code), delay)

    def _wait_to_fill(self, slot: Slot, code: int, *, ready_seconds: float | None) -> float | None:
        """When the slot is filled again, in seconds; ``None``: never, as nobody works and nobody can."""
        delay = slot.patience.wait_after(code, ready_seconds=ready_seconds)
        if slot.patience.is_over and not any(each.is_at_work for each in self._living):
            self._give_up(slot, code)
            return None
        slot.due_at = time.monotonic() + delay
        return delay

    # ── rolling restart ──────────────────────────────────────────────────────

    def _begin_roll(self) -> None:
        if self._roll is not None:
            logger.info("SIGHUP: another rolling restart follows this one")
            self._roll.is_wanted_again = True
            return
        logger.info("SIGHUP: rolling restart")
        self._roll = Roll(
            deque(each for each in self._slots if each.process is not None or each.due_at < math.inf)
        )

    def _roll_on(self, roll: Roll) -> None:
        """Give the next slot its turn."""
        if roll.waiting:
            roll.slot = roll.waiting.popleft()
            roll.slot.due_at = math.inf
            roll.successor = self._start(roll.slot)
            if roll.successor is None:
                self._end_roll(roll.slot, FAILED)
            return
        logger.info("rolling restart done")
        self._roll = None
        if roll.is_wanted_again:
            self._begin_roll()

    def _rolled(self, roll: Roll, process: Process, code: int) -> None:
        """The one who should take over, or the one who had to go, has ended."""
        if process is roll.retiring:
            roll.retiring = None
            self._tell_end(process, code)
            return
        logger.error("%s %s before it was ready", process.name, _how(code))
        assert roll.slot is not None
        self._end_roll(roll.slot, code)

    def _end_roll(self, slot: Slot, code: int) -> None:
        """No successor, no restart: whoever works goes on."""
        self._roll = None
        logger.error("the rolling restart ends at worker %d; the others go on as they are", slot.number)
        if slot.process is None:
            self._wait_to_fill(slot, code, ready_seconds=None)

    # ── stop ─────────────────────────────────────────────────────────────────

    @property
    def _patient_seconds(self) -> float:
        return self._options.grace_seconds + self._options.kill_after_seconds

    def _stop(self, why: str) -> None:
        """Drain; cut off, where asked twice; kill, where asked more often."""
        self._stops += 1
        running = len(self._living)
        if self._stops == 1:
            logger.info("%s: draining %d, for %g s at most", why, running, self._options.grace_seconds)
            self._drain()
        elif self._stops == 2:  # noqa: PLR2004 - the second time
            logger.warning("%s again: cutting off %d", why, running)
            for process in self._living:
                process.cut_off(self._options.kill_after_seconds)
        else:
            logger.warning("%s again: killing %d", why, running)
            for process in self._living:
                process.kill()

    def _drain(self) -> None:
        self._roll = None
        for slot in self._slots:
            slot.due_at = math.inf
        for process in self._living:
            process.tell_to_stop(self._patient_seconds)

    def _give_up(self, slot: Slot, code: int) -> None:
        # What a wrong setup needs to be said, the worker has said; the exit code is the rest.
        if code != CONFIGURATION:
            logger.error(
                "worker %d %s, as at every start so far: look at what it said, and start again",
                slot.number,
                _how(code),
            )
        self._stops, self._code = 1, code if code > 0 else FAILED
        self._drain()

    def _judge(self, process: Process, code: int) -> None:
        """What an end that was asked for says about the whole."""
        # A worker that was not even listening yet had begun nothing.
        is_clean = code == DONE or (code == -signal.SIGTERM and process.ready_at is None)
        if not is_clean:
            self._code = self._code or FAILED
        self._tell_end(process, DONE if is_clean else code)

    @staticmethod
    def _tell_end(process: Process, code: int) -> None:
        if code == DONE:
            logger.info("%s has drained", process.name)
        else:
            logger.warning("%s %s; what it still held is due again in time", process.name, _how(code))


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with {code}{_MEANINGS.get(code, '')}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _is_terminal_gone() -> bool:
    """Whether SIGHUP says what it first meant: whoever sat at the terminal has left."""
    for descriptor in (0, 2):
        try:
            os.tcgetpgrp(descriptor)
        except OSError as error:
            if error.errno == errno.EIO:
                return True
    return False
