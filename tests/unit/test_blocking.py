"""The blocking pool: the same calls from any thread, on a loop of its own. Forks and the end of a process: test_blocking_process.py."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import gc
import inspect
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.lowlevel
import pytest

import prewarmkit
from prewarmkit import (
    ConfigurationError,
    Enqueued,
    Media,
    MediaNotReady,
    PoolClosed,
    PoolSettings,
    WarmFailed,
    WarmTimeout,
)
from prewarmkit.blocking import PrewarmPool
from prewarmkit.blocking.loop import LoopThread
from prewarmkit.pool.events import MediaReady, PoolStarted
from prewarmkit.stores import MediaStore, MemoryStore, SqliteStore, State
from prewarmkit.targets import SourceMissing, WarmTarget
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

IDLE = PoolSettings(autostart=False)
tenant: ContextVar[str] = ContextVar("tenant")

CALLS: dict[str, Callable[[PrewarmPool], object]] = {
    "call": lambda pool: pool.call(anyio.sleep, 0),
    "counts": lambda pool: pool.counts(),
    "enqueue": lambda pool: pool.enqueue("a.png"),
    "enqueue_many": lambda pool: pool.enqueue_many(["a.png"]),
    "invalidate": lambda pool: pool.invalidate("a.png"),
    "join": lambda pool: pool.join(5),
    "lookup": lambda pool: pool.lookup("a.png"),
    "pause": lambda pool: pool.pause(),
    "process_batch": lambda pool: pool.process_batch(),
    "queue_items": lambda pool: pool.queue_items(),
    "requeue_failed": lambda pool: pool.requeue_failed(),
    "require": lambda pool: pool.require("a.png"),
    "resize": lambda pool: pool.resize(2),
    "resume": lambda pool: pool.resume(),
    "start": lambda pool: pool.start(),
    "stats": lambda pool: pool.stats(),
    "stop": lambda pool: pool.stop(),
    "warm": lambda pool: pool.warm("a.png", timeout=5),
}
OUR_THREADS = ("prewarmkit", "AnyIO worker")
WAITING = sorted(set(CALLS) - {"pause", "resume", "resize", "stats"})


class Component:
    """Notes where and when it is entered and closed."""

    def __init__(self, name: str, notes: list[str], fails: BaseException | None = None) -> None:
        self.name, self.notes, self.fails = name, notes, fails
        self.tasks: list[object] = []
        self.threads: list[str] = []
        self.seen: BaseException | None = None

    def _note(self, what: str) -> None:
        self.notes.append(f"{what} {self.name}")
        self.tasks.append(asyncio.current_task())
        self.threads.append(threading.current_thread().name)

    async def __aenter__(self) -> Self:
        self._note("enter")
        if self.fails is not None:
            raise self.fails
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await anyio.lowlevel.checkpoint()
        self._note("close")
        self.seen = exc_info[1] if isinstance(exc_info[1], BaseException) else None


class Source(Component, UnreadSource):
    pass


class Target(Component, ScriptedTarget):
    def __init__(self, name: str, notes: list[str], fails: BaseException | None = None) -> None:
        Component.__init__(self, name, notes, fails)
        ScriptedTarget.__init__(self, name)


class Resolver(Component):
    async def resolve(self, name: str) -> WarmTarget:
        return ScriptedTarget(name)


class Store(Component, MemoryStore):
    def __init__(self, name: str, notes: list[str], fails: BaseException | None = None) -> None:
        Component.__init__(self, name, notes, fails)
        MemoryStore.__init__(self)


def until(is_so: Callable[[], object], timeout: float = 10) -> None:
    """Wait for what other threads do."""
    deadline = time.monotonic() + timeout
    while not is_so():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.002)


def loop_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("prewarmkit")]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Neither the loop's nor the worker threads that it started."""
    yield
    until(lambda: not [each for each in threading.enumerate() if each.name.startswith(OUR_THREADS)])


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MediaStore:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "p.db")


@pytest.fixture
def gate() -> anyio.Event:
    return anyio.Event()


def raised_by(act: Callable[[PrewarmPool], object], pool: PrewarmPool) -> BaseException | None:
    try:
        act(pool)
    except Exception as error:  # noqa: BLE001 - looked at by the caller
        return error
    return None


def interrupt_when(is_so: Callable[[], object]) -> threading.Thread:
    """Ctrl-C, as soon as something is so."""

    def press() -> None:
        until(is_so)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


def open_when(gate: anyio.Event, thread: LoopThread[Any], is_so: Callable[[], object]) -> None:
    """Open a gate on the loop, from outside, as soon as something is so."""
    until(is_so)
    thread._calls.post(gate.set)


# ── the surface ──────────────────────────────────────────────────────────────


def public(cls: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(getattr(cls, name))
        for name in vars(cls)
        if callable(getattr(cls, name)) and not name.startswith("_")
    }


def test_its_calls_are_those_of_the_asynchronous_pool() -> None:
    """Names, order, kinds, defaults and types; only `call` is its own."""
    ours, theirs = public(PrewarmPool), public(prewarmkit.PrewarmPool)
    del ours["call"]
    assert ours == theirs
    assert set(CALLS) == {*theirs, "call"}


def test_it_is_made_of_what_the_asynchronous_pool_is_made_of() -> None:
    """And of two things more, by keyword."""
    ours = list(inspect.signature(PrewarmPool).parameters.values())
    theirs = list(inspect.signature(prewarmkit.PrewarmPool).parameters.values())
    assert ours[: len(theirs)] == theirs
    more = ours[len(theirs) :]
    assert [each.name for each in more] == ["resources", "backend_options"]
    assert {each.kind for each in more} == {inspect.Parameter.KEYWORD_ONLY}


def test_every_call_does_what_it_does_there(
    source: UnreadSource, target: ScriptedTarget, store: MediaStore
) -> None:
    """The whole flow on two stores, from a thread that has no loop."""
    target.script = lambda media, _: SourceMissing("gone") if media.key == "gone.png" else None
    with PrewarmPool(source, target, store, name="cats") as pool:
        assert repr(pool) == "<blocking PrewarmPool 'cats' entered>"
        assert loop_threads() == ["prewarmkit cats"]
        assert pool.enqueue("a.png") is Enqueued.QUEUED
        assert pool.enqueue_many(["b.mp4", Media("c.bin")], priority=1) == [Enqueued.QUEUED] * 2
        pool.join(timeout=timedelta(seconds=5))
        handle = pool.lookup("a.png")
        assert handle is not None
        assert handle.value == "H:a.png:1"
        assert pool.require("a.png") == handle
        assert pool.warm("d.png", timeout=5).value == "H:d.png:1"
        assert pool.invalidate(handle, False)
        with pytest.raises(MediaNotReady):
            pool.require("a.png", enqueue=False)
        with pytest.raises(WarmFailed, match="gone"):
            pool.warm("gone.png")
        assert pool.counts()["bot", prewarmkit.MediaKind.PHOTO, State.FAILED] == 1
        target.script = lambda _media, _nth: None
        assert pool.requeue_failed(keys={"gone.png"}) == 1
        pool.join(timeout=5)
        pool.pause()
        pool.enqueue("e.png", delay=3600)
        assert [row.id.key for row in pool.queue_items(10)] == ["e.png"]
        pool.resume()
        pool.resize(7)
        assert pool.stop().cancelled == 0
        assert not pool.stats().running
        pool.enqueue("f.png")
        assert pool.process_batch(5).succeeded == 1
        pool.start()
        assert pool.stats().running
        assert pool.stats().max_concurrency == 7
    assert pool.stats().succeeded == 6
    assert not pool.stats().running
    assert repr(pool) == "<blocking PrewarmPool 'cats' closed>"


def test_fifty_threads_that_want_one_medium_cost_one_upload(
    source: UnreadSource, target: ScriptedTarget, gate: anyio.Event
) -> None:
    target.gate = gate
    with PrewarmPool(source, target) as pool, ThreadPoolExecutor(50) as threads:
        handles = [threads.submit(pool.warm, "a.png", timeout=10) for _ in range(50)]
        calls = pool._entered()._calls._under_way
        until(lambda: len(calls) == 50)
        pool.call(gate.set)
        assert {each.result().value for each in handles} == {"H:a.png:1"}
    assert target.calls == ["a.png"]


def test_time_runs_out_as_it_does_there(
    source: UnreadSource, target: ScriptedTarget, gate: anyio.Event
) -> None:
    target.gate = gate
    with PrewarmPool(source, target) as pool:
        with pytest.raises(WarmTimeout):
            pool.warm("a.png", timeout=0.01)
        with pytest.raises(TimeoutError):
            pool.join(timeout=timedelta(milliseconds=10))
        pool.call(gate.set)
        pool.join(timeout=5)


def test_what_is_iterated_is_iterated_in_the_callers_thread(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """It may be a query, on a connection that belongs to that thread."""
    threads: list[threading.Thread] = []

    def query() -> Iterator[str]:
        threads.append(threading.current_thread())
        yield "a.png"

    class Keys(list[str]):
        def __iter__(self) -> Iterator[str]:
            return query()

    with PrewarmPool(source, target, settings=IDLE) as pool:
        pool.enqueue_many(query())
        pool.requeue_failed(keys=Keys())
    assert threads == [threading.current_thread()] * 2


# ── entering and leaving ─────────────────────────────────────────────────────


def test_making_one_starts_nothing_and_refuses_what_cannot_be(
    source: UnreadSource, target: ScriptedTarget, tmp_path: Path
) -> None:
    """It may be made at import time, before a server forks."""
    before = threading.active_count()
    notes: list[str] = []
    PrewarmPool(source, Target("bot", notes), SqliteStore(tmp_path / "p.db"))
    with pytest.raises(ConfigurationError):
        PrewarmPool(source, [])
    with pytest.raises(ConfigurationError):
        PrewarmPool(source, [target, ScriptedTarget()])
    assert (threading.active_count(), notes, list(tmp_path.iterdir())) == (before, [], [])


def test_components_are_entered_in_order_and_closed_in_the_other_by_one_task_of_the_loop(
    source: UnreadSource,
) -> None:
    """One that stands in two places is entered once; one that cannot be entered is used as it is."""
    notes: list[str] = []
    shared = Component("transport", notes)
    targets = [Target("one", notes), Target("two", notes)]
    components = [shared, Source("source", notes), *targets, Store("store", notes)]
    with PrewarmPool(
        components[1],  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        iter([*targets, ScriptedTarget("plain")]),
        components[-1],  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        resources=[shared, shared],
        on_event=lambda event: notes.append(type(event).__name__),
    ) as pool:
        pool.warm("a.png", target="plain", timeout=5)
        assert notes[:6] == [
            *(f"enter {name}" for name in ("transport", "source", "one", "two", "store")),
            "PoolStarted",
        ]
    assert notes[-6:] == [
        "PoolStopped",
        *(f"close {name}" for name in ("store", "two", "one", "source", "transport")),
    ]
    assert len({task for each in components for task in each.tasks}) == 1
    assert {name for each in components for name in each.threads} == {"prewarmkit prewarm"}


def test_a_resolver_is_entered_too(source: UnreadSource) -> None:
    notes: list[str] = []
    with PrewarmPool(source, Resolver("resolver", notes)) as pool:
        assert pool.warm("a.png", target="cats", timeout=5).target == "cats"
    assert notes == ["enter resolver", "close resolver"]


@pytest.mark.parametrize("failing", range(4))
def test_when_entering_fails_what_was_entered_is_closed_and_the_thread_ends(failing: int) -> None:
    """And it may be entered again once the reason is gone."""
    notes: list[str] = []
    store, target = Store("store", notes), Target("bot", notes)
    transport, source = Component("transport", notes), Source("source", notes)
    components = [transport, source, target, store]
    components[failing].fails = OSError("no route")
    pool = PrewarmPool(source, target, store, resources=[transport])
    with pytest.raises(OSError, match="no route"), pool:
        pytest.fail("it was entered")
    names = [each.name for each in components]
    assert notes == [
        *(f"enter {name}" for name in names[: failing + 1]),
        *(f"close {name}" for name in reversed(names[:failing])),
    ]
    assert loop_threads() == []
    with pytest.raises(PoolClosed):
        pool.enqueue("a.png")
    components[failing].fails = None
    with pool:
        pool.warm("a.png", timeout=5)


def test_a_pool_that_cannot_start_closes_its_components_too(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Here somebody else has the store."""
    notes: list[str] = []
    store = Store("store", notes)
    with PrewarmPool(source, target, store):
        with pytest.raises(ConfigurationError), PrewarmPool(source, target, store):
            pytest.fail("it was entered")
        assert notes == ["enter store", "enter store", "close store"]


@pytest.mark.parametrize("ending", [SystemExit(3), KeyboardInterrupt()])
def test_what_would_end_the_thread_is_told_as_an_error(
    source: UnreadSource, target: ScriptedTarget, ending: BaseException
) -> None:
    """A component that calls sys.exit() does not end the host in passing."""
    with pytest.raises(PoolClosed) as closed, PrewarmPool(source, target, Store("store", [], ending)):
        pytest.fail("it was entered")
    assert closed.value.cause is ending


def test_it_can_be_entered_again_and_not_twice(
    source: UnreadSource, target: ScriptedTarget, store: MediaStore
) -> None:
    """Each time on a new loop, with figures that start anew."""
    pool = PrewarmPool(source, target, store)
    for _ in range(3):
        with pool:
            with pytest.raises(RuntimeError, match="entered already"):
                pool.__enter__()
            pool.warm("a.png", timeout=5)
            pool.invalidate("a.png", rewarm=False)
            assert pool.stats().succeeded == 1
    assert target.calls == ["a.png"] * 3


def test_leaving_lets_workers_finish(source: UnreadSource, target: ScriptedTarget, gate: anyio.Event) -> None:
    target.gate = gate
    with PrewarmPool(source, target) as pool:
        pool.enqueue("a.png")
        until(lambda: target.running)
        thread = pool._entered()
        opener = threading.Thread(target=open_when, args=(gate, thread, lambda: thread._exc_info))
        opener.start()
    opener.join()
    assert pool.stats().succeeded == 1


def test_leaving_by_an_exception_gives_back_what_workers_hold(
    source: UnreadSource, target: ScriptedTarget, gate: anyio.Event, tmp_path: Path
) -> None:
    """At no attempt's cost; and each component hears of the exception."""
    target.gate = gate
    component = Component("transport", [])
    store = SqliteStore(tmp_path / "p.db")
    failure = ZeroDivisionError("the host's")

    def host() -> None:
        with PrewarmPool(source, target, store, resources=[component]) as pool:
            pool.enqueue("a.png")
            until(lambda: target.running)
            raise failure

    with pytest.raises(ZeroDivisionError) as raised:
        host()
    assert raised.value is failure
    assert component.seen is failure
    assert target.running == 0
    with PrewarmPool(source, target, store, settings=IDLE) as pool:
        [row] = pool.queue_items()
    assert (row.id.key, row.state, row.attempts) == ("a.png", State.PENDING, 0)


def test_what_a_component_says_at_its_end_is_heard(source: UnreadSource, target: ScriptedTarget) -> None:
    """An error is raised by the block; an exception may be swallowed, as in any `with`."""

    class Sour(Component):
        async def __aexit__(self, *exc_info: object) -> None:
            raise OSError("not closed")

    class Swallowing(Component):
        async def __aexit__(self, *exc_info: object) -> bool:  # type: ignore[override]
            return exc_info[0] is ZeroDivisionError

    with pytest.raises(OSError, match="not closed"), PrewarmPool(source, target, resources=[Sour("s", [])]):
        pass
    with PrewarmPool(source, target, resources=[Swallowing("s", [])]):
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="swallowed"):
        PrewarmPool(
            source, target, Store("store", [], ZeroDivisionError()), resources=[Swallowing("s", [])]
        ).__enter__()


@pytest.mark.parametrize("name", sorted(CALLS))
def test_outside_its_block_every_call_is_refused_at_once(
    source: UnreadSource, target: ScriptedTarget, name: str
) -> None:
    """Only the last figures can still be had."""
    pool = PrewarmPool(source, target)
    with pytest.raises(PoolClosed, match="use `with` around it"):
        CALLS[name](pool)
    assert pool.__exit__(None, None, None) is None
    with pool:
        pass
    if name != "stats":
        with pytest.raises(PoolClosed, match="use `with` around it"):
            CALLS[name](pool)


# ── many threads ─────────────────────────────────────────────────────────────


def test_who_waits_when_it_is_left_is_told(source: UnreadSource, target: ScriptedTarget) -> None:
    """Calls of the pool and calls beside it, before the components close."""
    notes: list[str] = []

    async def beside() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)  # it has something to put away first
            notes.append("call ended")

    settings = PoolSettings(autostart=False)
    with ThreadPoolExecutor() as threads:
        with PrewarmPool(source, Target("bot", notes), settings=settings) as pool:
            works: list[Callable[[], object]] = [
                lambda: pool.warm("a.png"),
                pool.join,
                lambda: pool.call(beside),
            ]
            waiting = [threads.submit(work) for work in works]
            calls = pool._entered()._calls._under_way
            until(lambda: len([each for each in list(calls) if each.scope is not None]) == 3)
        for each in waiting:
            with pytest.raises(PoolClosed):
                each.result(timeout=5)
    assert notes == ["enter bot", "call ended", "close bot"]


def test_no_thread_that_calls_while_it_is_left_waits_for_ever(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Wherever a call meets the end, it is answered or refused."""

    def hammer(pool: PrewarmPool) -> int:
        answered = 0
        while True:
            try:
                pool.lookup("a.png")
            except PoolClosed:
                return answered
            answered += 1

    with ThreadPoolExecutor(8) as threads:
        for _ in range(20):
            with PrewarmPool(source, target) as pool:
                hammering = [threads.submit(hammer, pool) for _ in range(8)]
                until(lambda pool=pool: pool.stats().cache_misses > 20)  # type: ignore[misc]
            assert sum(each.result(timeout=10) for each in hammering) > 0


def test_when_the_loop_dies_everybody_is_told_why(source: UnreadSource, target: ScriptedTarget) -> None:
    """Who waits, who comes later, and who leaves; what was entered is closed."""
    notes: list[str] = []
    told: list[BaseException | None] = []

    def host() -> None:
        with PrewarmPool(source, Target("bot", notes)) as pool, ThreadPoolExecutor() as threads:
            waiting = threads.submit(pool.call, anyio.sleep_forever)
            thread = pool._entered()
            until(lambda: [each for each in list(thread._calls._under_way) if each.scope is not None])
            pool.call(lambda: asyncio.get_running_loop().call_soon(sys.exit, 5))
            told.append(waiting.exception(timeout=5))
            until(lambda: thread.has_ended)
            told.extend(raised_by(CALLS[name], pool) for name in sorted(CALLS))

    with pytest.raises(PoolClosed) as left:
        host()
    assert notes == ["enter bot", "close bot"]
    assert len(told) == 1 + len(CALLS)
    for error in [*told, left.value]:
        assert isinstance(error, PoolClosed)
        assert repr(error.cause) == "SystemExit(5)"


# ── Ctrl-C ───────────────────────────────────────────────────────────────────


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own answer to it, also where the tests run in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_a_call_that_waits_and_not_the_pool(
    source: UnreadSource, target: ScriptedTarget, gate: anyio.Event
) -> None:
    """The work goes on, as after a cancelled call of the asynchronous pool."""
    target.gate = gate
    ended: list[str] = []

    async def beside() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("cancelled")

    with PrewarmPool(source, target) as pool:
        calls = pool._entered()._calls._under_way
        presser = interrupt_when(lambda: target.running)
        with pytest.raises(KeyboardInterrupt):
            pool.warm("a.png")
        presser.join()
        until(lambda: not calls)
        presser = interrupt_when(lambda: [each for each in list(calls) if each.scope is not None])
        with pytest.raises(KeyboardInterrupt):
            pool.call(beside)
        presser.join()
        until(lambda: not calls)
        assert ended == ["cancelled"]
        pool.call(gate.set)
        pool.join(timeout=5)
    assert pool.stats().succeeded == 1


def test_a_signal_handler_may_call_in_the_middle_of_a_call(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """While the thread that it interrupts holds the lock, and others are answered."""
    with PrewarmPool(source, target) as pool, ThreadPoolExecutor() as threads:
        other = threads.submit(pool.warm, "a.png", timeout=5)
        until(lambda: target.calls)
        with pool._entered()._calls._door:
            assert pool.lookup("b.png") is None
        other.result(timeout=5)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_workers_finish_cuts_them_short_and_closes_everything(
    source: UnreadSource, target: ScriptedTarget, gate: anyio.Event
) -> None:
    target.gate = gate
    notes: list[str] = []
    pressers: list[threading.Thread] = []

    def host() -> None:
        with PrewarmPool(source, target, resources=[Component("transport", notes)]) as pool:
            pool.enqueue("a.png")
            until(lambda: target.running)
            thread = pool._entered()
            pressers.append(interrupt_when(lambda: thread._exc_info))

    with pytest.raises(KeyboardInterrupt):
        host()
    pressers[0].join()
    assert notes == ["enter transport", "close transport"]
    assert target.running == 0


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_it_enters_closes_what_was_entered(source: UnreadSource, target: ScriptedTarget) -> None:
    notes: list[str] = []

    class Hanging(Component):
        async def __aenter__(self) -> Self:
            await super().__aenter__()
            await anyio.sleep_forever()
            return self

    pool = PrewarmPool(source, target, resources=[Component("first", notes), Hanging("hanging", notes)])
    presser = interrupt_when(lambda: "enter hanging" in notes)
    with pytest.raises(KeyboardInterrupt):
        pool.__enter__()
    presser.join()
    assert loop_threads() == []
    assert notes == ["enter first", "enter hanging", "close first"]


def test_ctrl_c_before_its_thread_has_begun_calls_it_off(
    target: ScriptedTarget, source: UnreadSource
) -> None:
    notes: list[str] = []
    thread = LoopThread(
        [Component("transport", notes)],
        lambda: prewarmkit.PrewarmPool(source, target),
        hasten=lambda pool: pool.stop(drain=False),
        name="cats",
    )
    thread._call_off()
    with pytest.raises(PoolClosed, match="CancelledError"):
        thread.start()
    assert thread.has_ended
    assert notes == []


# ── the loop's thread ────────────────────────────────────────────────────────


def test_call_runs_a_function_on_the_loop(source: UnreadSource, target: ScriptedTarget) -> None:
    """What it returns and raises comes back: that of a plain function too, and SystemExit, which ends nothing."""

    async def where(what: str) -> tuple[str, str]:
        await anyio.lowlevel.checkpoint()
        return what, threading.current_thread().name

    async def cancelled() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    with PrewarmPool(source, target) as pool:
        assert pool.call(where, "here") == ("here", "prewarmkit prewarm")
        assert pool.call(threading.current_thread).name == "prewarmkit prewarm"
        with pytest.raises(ZeroDivisionError):
            pool.call(divmod, 1, 0)
        with pytest.raises(SystemExit):
            pool.call(sys.exit, 3)
        with pytest.raises(CancelledError):
            pool.call(cancelled)
        assert pool.warm("a.png", timeout=5).value == "H:a.png:1"


def test_an_error_that_was_dealt_with_is_gone(source: UnreadSource, target: ScriptedTarget) -> None:
    """At once, and with all that its traceback holds: neither thread keeps it in a circle."""

    class Refused(Exception):
        pass

    async def refuse() -> None:
        raise Refused

    def caught(pool: PrewarmPool) -> weakref.ref[Refused]:
        try:
            pool.call(refuse)
        except Refused as error:
            return weakref.ref(error)
        pytest.fail("it was not refused")

    gc.disable()
    try:
        with PrewarmPool(source, target) as pool:
            error = caught(pool)
            until(lambda: error() is None)
    finally:
        gc.enable()


@pytest.mark.parametrize("name", sorted(CALLS))
def test_in_the_loops_own_thread_what_would_wait_is_refused(
    source: UnreadSource, target: ScriptedTarget, name: str
) -> None:
    """It would wait for itself; what does not wait works there, so `on_event` may pause the pool."""
    told: list[object] = []

    def listen(event: object) -> None:
        if isinstance(event, MediaReady):
            try:
                CALLS[name](pool)
            except BaseException as error:  # noqa: BLE001 - looked at below
                told.append(error)

    with PrewarmPool(source, target, on_event=listen) as pool:
        pool.warm("a.png", timeout=5)
        if name in WAITING:
            until(lambda: told)
        with pytest.raises(RuntimeError, match="own thread"):
            pool.call(pool.__exit__, None, None, None)
    assert [type(each) for each in told] == ([RuntimeError] if name in WAITING else [])
    assert all("own thread" in str(each) for each in told)


def test_a_target_may_call_the_pool_from_a_worker_thread(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    async def push(media: Media) -> prewarmkit.media.Warmed:
        if media.key == "cover.png":
            return prewarmkit.media.Warmed("cover")
        cover = await anyio.to_thread.run_sync(pool.warm, "cover.png")
        return prewarmkit.media.Warmed(f"film with {cover.value}")

    target.act = push
    with PrewarmPool(source, target) as pool:
        assert pool.warm("film.mp4", timeout=5).value == "film with cover"


def test_a_call_sees_its_callers_variables_and_the_pools_tasks_see_nobodys(
    source: UnreadSource, target: ScriptedTarget
) -> None:
    """Traces hang together by them."""
    events: list[str | None] = []
    token = tenant.set("cats")
    try:
        with PrewarmPool(
            source,
            target,
            on_event=lambda event: (
                events.append(tenant.get(None)) if isinstance(event, PoolStarted | MediaReady) else None
            ),
        ) as pool:
            assert pool.call(tenant.get) == "cats"
            pool.call(tenant.set, "dogs")
            assert tenant.get() == "cats"
            pool.warm("a.png", timeout=5)
    finally:
        tenant.reset(token)
    assert events == [None, None]


@pytest.mark.anyio
async def test_it_may_be_used_inside_a_running_loop_which_it_blocks(
    source: UnreadSource, target: ScriptedTarget, store: MediaStore
) -> None:
    """Of asyncio's or of trio's, from its thread or from a worker thread."""
    await anyio.lowlevel.checkpoint()
    with PrewarmPool(source, target, store) as pool:
        assert pool.warm("a.png", timeout=5).value == "H:a.png:1"
        pool.join(5)
        handle = await anyio.to_thread.run_sync(lambda: pool.warm("b.png", timeout=5))
        assert handle.value == "H:b.png:1"


def test_the_loop_may_be_uvloops(source: UnreadSource, target: ScriptedTarget, store: MediaStore) -> None:
    pytest.importorskip("uvloop")
    with PrewarmPool(source, target, store, backend_options={"use_uvloop": True}) as pool:
        assert type(pool.call(asyncio.get_running_loop)).__module__.startswith("uvloop")
        assert pool.warm("a.png", timeout=5).value == "H:a.png:1"
