"""One worker as the supervisor sees it: a process, and the line to it. Decides nothing."""

from __future__ import annotations

import contextlib
import math
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from typing import Self

from attrs import define, field

from prewarmkit.cli.worker.arguments import Options, Post

__all__ = ["CUT_OFF", "LEAVING", "READY", "Command", "Process", "command_of"]

READY = b"r"
"""A worker's word: its pool is entered and works."""
LEAVING = b"l"
"""A worker's word: it drains, whoever told it to, or its pool has failed."""
CUT_OFF = b"c"
"""The supervisor's word: cut off what runs."""

Command = Callable[[Post], Sequence[str]]

_OF_THE_TERMINAL = {signal.SIGINT, signal.SIGHUP}


def command_of(options: Options) -> Command:
    """How workers are started: by this interpreter, with the options that it was given itself."""
    given = sys.orig_argv[1:]
    ours = given[: given.index("-m")] if "-m" in given else []

    def command(post: Post) -> list[str]:
        return [sys.executable, *ours, "-m", "prewarmkit", *options.for_post(post)]

    return command


@define(eq=False)
class Process:
    """A worker that was started.

    Attributes:
        number: Which worker it is; a successor has its predecessor's.
        line: The supervisor's end.
        is_hung_up: Whether the line's other end is closed: it is on its last steps.
        ready_at: Since when it works; ``None``: not yet.
        is_told: Whether it was told to stop, by the supervisor or by somebody else.
        kill_at: When it has had its time.
        late_at: When somebody should be told that it is not ready yet.
        started_at: When it was started.
    """

    number: int
    line: socket.socket
    _popen: subprocess.Popen[bytes]
    started_at: float
    is_hung_up: bool = field(init=False, default=False)
    ready_at: float | None = field(init=False, default=None)
    is_told: bool = field(init=False, default=False)
    kill_at: float = field(init=False, default=math.inf)
    late_at: float = field(init=False, default=math.inf)

    @classmethod
    def start(cls, number: int, command: Command) -> Self:
        """Start one.

        Raises:
            OSError: The machine has no room for another process.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs, _unheard(_OF_THE_TERMINAL):
                popen = subprocess.Popen(  # noqa: S603 - this very command
                    command(Post(number, theirs.fileno())),
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                )
        except BaseException:
            ours.close()
            raise
        ours.settimeout(0)
        return cls(number, ours, popen, time.monotonic())

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def name(self) -> str:
        """As the log calls it."""
        return f"worker {self.number} (pid {self.pid})"

    def listen(self) -> bytes:
        """What it has said since; notes it."""
        words = b""
        with contextlib.suppress(BlockingIOError):
            try:
                words = self.line.recv(16)
            except ConnectionError:
                words = b""
            self.is_hung_up = not words
        if READY in words:
            self.ready_at = time.monotonic()
        self.is_told = self.is_told or LEAVING in words
        return words

    def tell_to_stop(self, seconds: float) -> None:
        """Let it drain; it is due to be killed so many seconds from now."""
        self.is_told = True
        self.kill_within(seconds)
        self._popen.send_signal(signal.SIGTERM)

    def cut_off(self, seconds: float) -> None:
        """Have it cut off what runs."""
        self.kill_within(seconds)
        with contextlib.suppress(OSError):  # it is gone, or going
            self.line.send(CUT_OFF)

    def kill_within(self, seconds: float) -> None:
        """It is due to be killed so many seconds from now, if not sooner."""
        self.kill_at = min(self.kill_at, time.monotonic() + seconds)

    def kill(self) -> None:
        """End it now."""
        self.kill_at = math.inf
        self._popen.kill()

    def poll(self) -> int | None:
        """Its exit code, below 0 the signal that killed it; ``None`` while it lives."""
        return self._popen.poll()

    @property
    def is_at_work(self) -> bool:
        """Whether it works, and is to go on."""
        return self.ready_at is not None and not self.is_told

    @property
    def ready_seconds(self) -> float | None:
        """How long it has worked; ``None``: never."""
        return None if self.ready_at is None else time.monotonic() - self.ready_at


@contextlib.contextmanager
def _unheard(signals: set[signal.Signals]) -> Generator[None, None, None]:
    """Have a process that is started here begin deaf to them; `child` sees to the rest."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
