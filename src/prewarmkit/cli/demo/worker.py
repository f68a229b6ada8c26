"""The worker process: a pool that warms what is queued, and may be killed at any time.

Started by `prewarmkit.cli.demo.crew`; reads an `Order`, prints `Report` lines, ends when nothing
is left to warm, when it meets trouble that only an operator can mend, or when its standard
input ends, which is how the supervisor's death reaches it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.lowlevel
from attrs import define, field

from prewarmkit import Credentials, PoolSettings, PrewarmKitError, PrewarmPool, R2Client
from prewarmkit.cli.demo.homes import store_of
from prewarmkit.cli.demo.pace import limits_of
from prewarmkit.cli.demo.timed import TimedSource
from prewarmkit.cli.demo.wire import Order, Report, first_of
from prewarmkit.pool.events import MediaReady, MediaStarted, StoreTrouble, TargetPaused
from prewarmkit.targets import TelegramTarget

__all__ = ["bot_of", "bucket_of", "main"]

_FIRST_CHAT = 1001
_REPORT_SECONDS = 0.2
_LAST_SECONDS = 5.0
_STORE_SECONDS = 10.0  # how long its database may be away: a service waits, a demo has an operator


def bucket_of(order: Order) -> R2Client:
    """The bucket of an order."""
    credentials = Credentials(order.access_key_id, order.secret_access_key)
    return R2Client(bucket=order.bucket, endpoint=order.endpoint, credentials=credentials)


def bot_of(order: Order) -> TelegramTarget:
    """The bot of an order."""
    return TelegramTarget(
        order.token,
        warmup_chats=range(_FIRST_CHAT, _FIRST_CHAT + order.chats),
        api_base=order.api_base,
        budget=limits_of(has_budget=order.has_budget),
    )


@define
class _Diary:
    """What happened in the pool, as its events tell it, until the next report takes it along."""

    waits: list[float] = field(init=False, factory=list[float])
    warms: list[float] = field(init=False, factory=list[float])
    began_at: float | None = field(init=False, default=None)
    ready_at: float | None = field(init=False, default=None)
    trouble: str | None = field(init=False, default=None)
    without_store_since: float | None = field(init=False, default=None)
    is_over: anyio.Event = field(init=False, factory=anyio.Event)

    def note(self, event: object) -> None:
        """Take one event in; must be quick."""
        match event:
            case MediaStarted(_, _, waited):
                self.waits.append(waited)
                self.began_at = self.began_at or time.time()
            case MediaReady(_, _, seconds):
                self.without_store_since = None
                self.warms.append(seconds)
                self.ready_at = time.time()
            case TargetPaused(_, reason, _, True):
                self.give_up(reason.removeprefix("target_down: "))
            case StoreTrouble(error, True, _):
                self.give_up(error)
            case StoreTrouble(error, False, wait):
                now = time.monotonic()
                self.without_store_since = self.without_store_since or now
                if now + wait - self.without_store_since > _STORE_SECONDS:
                    self.give_up(error)
            case _:
                pass

    def give_up(self, trouble: str) -> None:
        """End the work: only an operator can help. The first reason stands."""
        self.trouble = self.trouble or trouble
        self.is_over.set()

    def report(
        self, pool: PrewarmPool, bucket: R2Client, timed: TimedSource, *, is_done: bool = False
    ) -> Report:
        """The figures now."""
        waits, self.waits = self.waits, []
        moves, timed.moves = timed.moves, []
        warms, self.warms = self.warms, []
        figures, keys = pool.stats(), bucket.signer.cache_info()
        return Report(
            pending=figures.pending + figures.queue_size,
            active=figures.active_workers,
            succeeded=figures.succeeded,
            failed=figures.failed,
            retried=figures.retried,
            signing_hits=keys.hits,
            signing_misses=keys.misses,
            peak_memory_bytes=_peak_memory_bytes(),
            waits=waits,
            moves=moves,
            warms=warms,
            began_at=self.began_at,
            ready_at=self.ready_at,
            trouble=self.trouble,
            is_done=is_done,
        )


async def _work(order: Order) -> None:
    diary = _Diary()
    settings = PoolSettings(
        concurrency=order.concurrency,
        # A demo cannot wait as long as a service can: the defaults are a minute, 2 s and a minute.
        lease_seconds=order.lease_seconds,
        poll_interval_seconds=0.5,
        retry_base_seconds=0.5,
    )
    async with (
        bucket_of(order) as bucket,
        store_of(order) as store,
        bot_of(order) as bot,
        PrewarmPool(timed := TimedSource(bucket), bot, store, settings=settings, on_event=diary.note) as pool,
    ):

        async def report_now_and_then() -> None:
            while True:
                await anyio.sleep(_REPORT_SECONDS)
                _say(diary.report(pool, bucket, timed))

        async def wait_for_the_last_medium() -> None:
            await pool.join()
            diary.is_over.set()

        async with anyio.create_task_group() as group:
            group.start_soon(report_now_and_then)
            group.start_soon(wait_for_the_last_medium)
            await diary.is_over.wait()
            group.cancel_scope.cancel()
        # The last word comes before the farewell: with a full disk the pool takes its time to go.
        _say(diary.report(pool, bucket, timed, is_done=diary.trouble is None))
        if diary.trouble is not None:
            await pool.stop(drain=False)


def _say(report: Report) -> None:
    line = report.to_line()
    # Without a supervisor nobody listens; `_watch_supervisor` sees to the rest.
    with contextlib.suppress(BrokenPipeError):
        while line:
            line = line[os.write(1, line) :]


def _watch_supervisor(token: anyio.lowlevel.EventLoopToken, scope: anyio.CancelScope) -> None:
    """In a thread: wait for the end of standard input, then end the work, within seconds come what may."""
    while os.read(0, 4096):
        pass
    anyio.from_thread.run_sync(scope.cancel, token=token)
    time.sleep(_LAST_SECONDS)
    os._exit(1)


async def _main(order: Order) -> None:
    with anyio.CancelScope() as scope:
        token = anyio.lowlevel.current_token()
        threading.Thread(target=_watch_supervisor, args=(token, scope), daemon=True).start()
        try:
            await _work(order)
        except* PrewarmKitError as errors:
            _say(Report(trouble=str(first_of(errors)), peak_memory_bytes=_peak_memory_bytes()))


def _peak_memory_bytes() -> int | None:
    """The most memory that this process ever had."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux: ru_maxrss would begin with what the supervisor had when it started us
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _first_line() -> bytes:
    # Byte by byte, unbuffered: what follows belongs to the thread that watches for the end.
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit("The worker got no order: it is started by `python -m prewarmkit demo`.")
        line += byte
    return line


def main() -> None:
    """Read the order and work."""
    anyio.run(_main, Order.from_line(_first_line()))


if __name__ == "__main__":
    main()
