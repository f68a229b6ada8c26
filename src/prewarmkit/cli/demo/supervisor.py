"""The demo from beginning to end: the order of the steps, and what each hands to the next.

What a step does is in the room beside it.
"""

from __future__ import annotations

import errno
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import anyio
import anyio.to_thread
from attrs import define, field, frozen

from prewarmkit import PoolSettings, PrewarmKitError, PrewarmPool, R2Client, StoreError
from prewarmkit.cli.demo import pace, proof
from prewarmkit.cli.demo.arguments import Options
from prewarmkit.cli.demo.crew import Trouble, warm_all
from prewarmkit.cli.demo.faults import spoiled
from prewarmkit.cli.demo.figures import Figures, Spans, WorkerFigures
from prewarmkit.cli.demo.homes import Home, open_home, store_of
from prewarmkit.cli.demo.library import Item, items_of, upload
from prewarmkit.cli.demo.place import Place, Stored
from prewarmkit.cli.demo.screen import Screen
from prewarmkit.cli.demo.servers import Servers, start_servers
from prewarmkit.cli.demo.wire import Order, first_of
from prewarmkit.cli.demo.worker import bot_of, bucket_of
from prewarmkit.stores import MediaStore, State
from prewarmkit.targets import TelegramTarget
from prewarmkit.testing.botapi import Upload, read_journal

__all__ = ["Outcome", "Stopped", "run_demo"]


class Stopped(PrewarmKitError):
    """The demo could not go on; the message says what to change.

    Attributes:
        queued: Media that wait in the table; ``None``: it cannot be asked.
        ready: Media that are done.
        is_kept: Whether a later demo can go on with them.
    """

    def __init__(self, message: str, *, queued: int | None, ready: int | None, is_kept: bool = True) -> None:
        super().__init__(message)
        self.queued = queued
        self.ready = ready
        self.is_kept = is_kept


@frozen(kw_only=True)
class Outcome:
    """What the demo found.

    Attributes:
        figures: The numbers.
        problems: One line for each medium that is not as it must be.
        delivery: The one delivery; ``None``: there was nothing to deliver.
    """

    figures: Figures
    problems: list[str]
    delivery: proof.Delivery | None


@define
class _Demo:
    options: Options
    place: Place
    screen: Screen
    items: list[Item]
    order: Order
    bucket: R2Client
    home: Home
    store: MediaStore
    bot: TelegramTarget
    pool: PrewarmPool
    workers: WorkerFigures = field(init=False, factory=WorkerFigures)
    began: float = field(init=False, factory=time.monotonic)

    async def run(self) -> Outcome:
        """All steps once the servers are up."""
        stored = await self._upload()
        uploads_before = await self._journal()
        await self._enqueue(stored)
        warmed = await self._warm(len(stored))
        media = proof.media_of(stored)
        second = await proof.look_up_all(self.pool, media)
        uploads = await self._journal()
        problems = await self._problems(stored, second, uploads)
        delivery = await self._deliver(second, uploads)
        figures = self._figures(stored, second, uploads[len(uploads_before) :], warmed)
        return Outcome(figures=figures, problems=problems, delivery=delivery)

    async def _upload(self) -> list[Stored]:
        items = self.items
        await self.bucket.create_bucket()
        done = size = 0
        with self.screen.bar("uploading", len(items)) as bar:

            def count(more: int) -> None:
                nonlocal done, size
                done, size = done + 1, size + more
                bar.update(done, f"{size / 1e6:,.0f} MB into the bucket")

            stored = await upload(items, self.bucket, self.place, on_stored=count)
        self.screen.good(f"{done:,} media, {size / 1e6:,.0f} MB, are in the bucket")
        return stored

    async def _enqueue(self, stored: list[Stored]) -> None:
        # What an earlier run gave up on goes again.
        await self.pool.enqueue_many(proof.media_of(stored), retry_failed=True)
        waiting = await self._count(State.PENDING, State.WARMING)
        self.screen.good(f"{waiting:,} are queued in {self.home.said}")
        if self.options.fault == "unknown-kind":
            try:
                await self.pool.enqueue(stored[0].key, kind="hologram")
            except ValueError as error:
                raise Trouble(str(error)) from error

    async def _warm(self, total: int) -> int:
        """How many became ready."""

        async def count_done() -> int:
            return await self._count(State.READY, State.FAILED)

        if await count_done() == total:
            self.screen.good("nothing is left to warm")
            return 0
        before = await self._count(State.READY)
        with self.screen.bar("warming", total) as bar:
            await warm_all(self.order, self.place, self.screen, self.workers, bar, count_done=count_done)
        warmed = await self._count(State.READY) - before
        self.screen.good(f"{warmed:,} warmed in {self.workers.seconds or 0.0:.1f} s")
        return warmed

    async def _problems(
        self, stored: list[Stored], second: proof.SecondPass, uploads: list[Upload]
    ) -> list[str]:
        wrong = proof.wrong(stored, second.handles, uploads)
        reasons = await proof.wrong_of(self.store) if wrong else {}
        problems = [f"{key!r} {reasons.get(key, what)}" for key, what in wrong.items()]
        if second.hits != len(stored) and not problems:
            problems.append(f"{len(stored) - second.hits} look-ups of ready media were no cache hits")
        return problems

    async def _deliver(self, second: proof.SecondPass, uploads: list[Upload]) -> proof.Delivery | None:
        if not second.handles:
            return None
        delivery = await proof.deliver(self.bot, next(iter(second.handles.values())))
        proof.check_delivery(uploads, await self._journal())
        return delivery

    def _figures(
        self, stored: list[Stored], second: proof.SecondPass, new: list[Upload], warmed: int
    ) -> Figures:
        workers = self.workers
        return Figures(
            allowed_per_minute=pace.allowed_per_minute(self.options),
            chats=self.options.chats,
            media=len(stored),
            media_bytes=sum(each.size for each in stored),
            warmed=warmed,
            uploaded_bytes=sum(upload.size for upload in new),
            repeated=max(0, len(new) - warmed),
            warming_seconds=workers.seconds,
            warming=Spans.of(workers.warms),
            moving=Spans.of(workers.moves),
            queue_wait=Spans.of(workers.waits),
            lookup=second.lookup,
            lookup_hits=second.hits,
            succeeded=workers.total("succeeded"),
            failed=workers.total("failed"),
            retried=workers.total("retried"),
            signing_hits=workers.total("signing_hits"),
            signing_misses=workers.total("signing_misses"),
            peak_memory_bytes=workers.peak_memory_bytes,
            workers=len(workers.lives),
            kills=workers.kills,
            total_seconds=time.monotonic() - self.began,
        )

    async def _count(self, *states: State) -> int:
        counts = await self.pool.counts()
        return sum(rows for (_, _, state), rows in counts.items() if state in states)

    async def _journal(self) -> list[Upload]:
        return await anyio.to_thread.run_sync(read_journal, self.place.journal)

    async def stopped(self, error: BaseException) -> Stopped:
        """The error, and what it left untouched."""
        queued: int | None = None
        ready: int | None = None
        with suppress(StoreError):
            queued = await self._count(State.PENDING, State.WARMING)
            ready = await self._count(State.READY)
        return Stopped(said_of(error), queued=queued, ready=ready, is_kept=self.home.outlives_us)


async def run_demo(options: Options, place: Place, screen: Screen) -> Outcome:
    """Run the demo in a folder of its own.

    Raises:
        Stopped: It could not go on; nothing that was queued is lost.
        PrewarmKitError: It could not even begin.
    """
    began = time.monotonic()
    items = await anyio.to_thread.run_sync(items_of, place.plan)
    await anyio.to_thread.run_sync(place.settle)
    is_ours = place.plan.store == "postgres" and options.dsn is None
    database = "PostgreSQL, " if is_ours else ""
    screen.say(f"starting {database}an S3 server and a Bot API server on this machine …")
    async with open_home(place, options.dsn) as home, start_servers(place) as servers:
        screen.good(
            f"{servers.s3_name} at {servers.endpoint}, Bot API server at {servers.api_base} "
            f"({time.monotonic() - began:.1f} s)"
        )
        screen.say(pace.said(options))
        async with _opened(options, place, screen, items, servers, home) as demo:
            demo.began = began
            return await _watched(demo, servers)


async def _watched(demo: _Demo, servers: Servers) -> Outcome:
    """Run it, and stop it if a server ends."""
    outcome: Outcome | None = None
    failure: BaseException | None = None
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(servers.watch)
            outcome = await demo.run()
            group.cancel_scope.cancel()
    except* (PrewarmKitError, OSError) as errors:
        failure = first_of(errors)
    if failure is not None:
        raise await demo.stopped(failure) from failure
    assert outcome is not None
    return outcome


@asynccontextmanager
async def _opened(
    options: Options, place: Place, screen: Screen, items: list[Item], servers: Servers, home: Home
) -> AsyncGenerator[_Demo]:
    """Connect to everything, as a host would; the pool here queues and looks up, and warms nothing."""
    order = Order(
        endpoint=servers.endpoint,
        access_key_id=servers.credentials.access_key_id,
        secret_access_key=servers.credentials.secret_access_key,
        api_base=servers.api_base,
        token=servers.token,
        chats=options.chats,
        has_budget=options.has_budget,
        concurrency=options.concurrency,
        lease_seconds=options.lease_seconds,
        database=home.database,
        schema=home.schema,
    )
    async with AsyncExitStack() as stack:
        bucket = await stack.enter_async_context(bucket_of(order))
        store = await stack.enter_async_context(store_of(order))
        bot = await stack.enter_async_context(bot_of(order))
        settings = PoolSettings(autostart=False)
        pool = await stack.enter_async_context(PrewarmPool(bucket, bot, store, settings=settings))
        order = spoiled(order, options.fault)
        yield _Demo(options, place, screen, items, order, bucket, home, store, bot, pool)


_TO_DO = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EMFILE: "allow this process more open files (ulimit -n)",
    errno.ENFILE: "have fewer files open on this machine",
    errno.ENOMEM: "free some memory",
}


def said_of(error: BaseException) -> str:
    """An error in one line for the operator."""
    if not isinstance(error, OSError):
        return str(error)
    where = f" ({error.filename})" if error.filename else ""
    to_do = _TO_DO.get(error.errno or 0, "choose what this user can read and write")
    return f"{error.strerror or error}{where}: {to_do}, then run it again."
