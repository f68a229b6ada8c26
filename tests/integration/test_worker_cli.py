"""``python -m prewarmkit worker`` as its users meet it: processes, signals, a table, exit codes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import anyio
import pytest
from attrs import define, field

from prewarmkit.cli.main import main
from prewarmkit.stores import SqliteStore
from prewarmkit.testing.contracts.store import job

GIVE_UP_SECONDS = 25
"""Below the default grace, and below what wakes the supervisor in any case: neither may hide that nobody woke."""

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

APP = '''
"""A host's pool: files into a log. Pushes wait while there is a gate, and say when they begin and end."""
import contextlib, hashlib, logging, os, time
from pathlib import Path
import anyio
from prewarmkit import PoolSettings, PrewarmPool
from prewarmkit.media import Warmed
from prewarmkit.sources import DirectorySource
from prewarmkit.stores import SqliteStore

HERE = Path(__file__).parent

def note(text):
    with (HERE / "log").open("a") as log:
        log.write(text + "\\n")

class Log:
    id = "bot"
    async def warm(self, media, source):
        note(f"begin {media.key} {os.getpid()}")
        while (HERE / "gate").exists():
            await anyio.sleep(0.02)
        if (HERE / "block").exists():
            time.sleep(60)
        async with source.open(media.key) as body:
            digest = hashlib.sha256(await body.read()).hexdigest()
        note(f"end {media.key} {os.getpid()} {digest}")
        return Warmed(f"H:{media.key}", unique_id=media.key)

settings = PoolSettings(concurrency=2, max_queue=1, lease_seconds=1, poll_interval_seconds=0.1, retry_base_seconds=0.1)

@contextlib.asynccontextmanager
async def pool():
    async with (
        SqliteStore(HERE / "p.db") as store,
        PrewarmPool(DirectorySource(HERE / "media"), Log(), store, settings=settings) as pool,
    ):
        yield pool
'''


@define
class Place:
    """A folder with an app, its media and its table."""

    path: Path
    started: list[Worker] = field(init=False, factory=list["Worker"])

    def write(self, code: str, name: str = "app.py") -> None:
        (self.path / name).write_text(code)

    def file_media(self, count: int) -> None:
        """Files, and a row for each."""
        (self.path / "media").mkdir()
        for n in range(count):
            (self.path / "media" / f"{n}.png").write_bytes(os.urandom(100))

        async def enqueue() -> None:
            async with SqliteStore(self.path / "p.db") as store:
                await store.enqueue([job(f"{n}.png") for n in range(count)])

        anyio.run(enqueue)
        assert self.states() == {"pending": count}

    def states(self) -> Mapping[str, int]:
        """How many rows are in each state, read as anybody may read the file."""
        with contextlib.closing(sqlite3.connect(f"file:{self.path / 'p.db'}?mode=ro", uri=True)) as table:
            return dict(table.execute("SELECT state, count(*) FROM media_cache GROUP BY state").fetchall())

    def log(self, verb: str) -> list[list[str]]:
        """The rest of each line in the target's log that begins with ``verb``."""
        log = self.path / "log"
        words = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        return [rest for first, *rest in words if first == verb]

    def shut(self) -> None:
        (self.path / "gate").touch()

    def open(self) -> None:
        (self.path / "gate").unlink()

    def start(
        self,
        *arguments: object,
        place: str = "app:pool",
        stdin: int = subprocess.DEVNULL,
        command: Sequence[str] = ("-m", "prewarmkit", "worker"),
    ) -> Worker:
        worker = Worker.start(self.path, *command, place, *map(str, arguments), stdin=stdin)
        self.started.append(worker)
        return worker

    def has_made_all_ready(self, count: int) -> bool:
        return self.states() == {"ready": count}


@define
class Worker:
    """A command that runs, in a session of its own."""

    process: subprocess.Popen[bytes]
    errors: Path

    @classmethod
    def start(cls, folder: Path, *arguments: str, stdin: int) -> Worker:
        errors = folder / f"stderr-{len(list(folder.glob('stderr-*')))}"
        with errors.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder,
                stdin=stdin,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return cls(process, errors)

    @property
    def said(self) -> str:
        return self.errors.read_text()

    @property
    def ready(self) -> list[int]:
        """The processes that have been ready, in their order."""
        return [int(pid) for pid in re.findall(r"worker \d+ \(pid (\d+)\) is ready: <", self.said)]

    def wait_for(self, what: Callable[[], object]) -> None:
        """Wait until it holds."""
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while True:
            code = self.process.poll()
            if what():
                return
            assert code in {None, -signal.SIGKILL}, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)

    def wait_until_ready(self, processes: int = 1) -> list[int]:
        self.wait_for(lambda: len(self.ready) >= processes)
        return self.ready

    def wait_for_words(self, words: str, times: int = 1) -> None:
        self.wait_for(lambda: self.said.count(words) >= times)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Its exit code."""
        return self.process.wait(GIVE_UP_SECONDS)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    place.write(APP)
    yield place
    for worker in place.started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait()


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    status = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return status.read_text().rpartition(")")[2].split()[0] != "Z"
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


# ── work ─────────────────────────────────────────────────────────────────────


def test_two_processes_share_a_table_and_make_all_of_it_ready(place: Place) -> None:
    place.file_media(12)
    place.shut()
    worker = place.start("--processes", 2)
    worker.wait_for(lambda: len({pid for _, pid in place.log("begin")}) == 2)
    place.open()
    worker.wait_for(lambda: place.has_made_all_ready(12))
    worker.send(signal.SIGTERM)
    assert worker.end() == 0, worker.said
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (place.path / "media").iterdir()
    }
    assert {key: digest for key, _, digest in place.log("end")} == files
    assert len(place.log("end")) == 12, "each once"
    assert worker.said.count("StopReport(finished=0") >= 2
    assert "Traceback" not in worker.said


def test_a_killed_process_is_replaced_and_what_it_had_in_hand_is_done(place: Place) -> None:
    place.file_media(12)
    place.shut()
    worker = place.start("--processes", 2)
    worker.wait_for(lambda: len({pid for _, pid in place.log("begin")}) == 2)
    victim = worker.ready[0]
    os.kill(victim, signal.SIGKILL)
    worker.wait_until_ready(3)
    assert f"worker 1 (pid {victim}) was killed by SIGKILL; the next one starts in" in worker.said
    place.open()
    worker.wait_for(lambda: place.has_made_all_ready(12))
    assert str(victim) not in {pid for _, pid, _ in place.log("end")}
    worker.send(signal.SIGTERM)
    assert worker.end() == 0


def test_a_factory_may_be_a_coroutine_function_or_return_a_pool_that_is_not_entered(place: Place) -> None:
    place.file_media(2)
    forms = """
class Forms:
    async def later():
        return pool()
    async def bare():
        store = await SqliteStore(HERE / "p.db").__aenter__()
        return PrewarmPool(DirectorySource(HERE / "media"), Log(), store, settings=settings)
"""
    place.write(APP + forms)
    for form in ("Forms.later", "Forms.bare"):
        worker = place.start(place=f"app:{form}")
        worker.wait_until_ready()
        worker.wait_for(lambda: place.has_made_all_ready(2))
        worker.send(signal.SIGINT)
        assert worker.end() == 0


def test_a_pool_that_a_bug_stopped_is_replaced(place: Place) -> None:
    """The supervisor starts another, and the log has what happened."""
    place.file_media(3)
    broken = """
class Broken(SqliteStore):
    async def turn(self, *args, **kwargs):
        if not (HERE / "mended").exists():
            (HERE / "mended").touch()
            raise ZeroDivisionError("a bug")
        return await super().turn(*args, **kwargs)
"""
    place.write(APP.replace("async with (\n        SqliteStore(", "async with (\n        Broken(") + broken)
    worker = place.start()
    worker.wait_for(lambda: place.has_made_all_ready(3))
    assert "ZeroDivisionError: a bug" in worker.said
    assert "PoolClosed: The pool was stopped by a bug." in worker.said
    assert "ended with 1; the next one starts" in worker.said
    worker.send(signal.SIGTERM)
    assert worker.end() == 0


def test_the_example_of_the_documentation_works_once_the_schema_is_there(
    place: Place, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then it is one line, which names the command that helps."""
    named = {
        "R2_ACCOUNT_ID": "0123abc",
        "R2_BUCKET": "media",
        "R2_ACCESS_KEY_ID": "id",
        "R2_SECRET_ACCESS_KEY": "key",
    }
    for name, value in {
        **named,
        "BOT_TOKEN": "1:t",
        "WARMUP_CHAT": "-1001",
        "DATABASE_URL": postgres_dsn,
    }.items():
        monkeypatch.setenv(name, value)
    place.write((EXAMPLES / "worker_app.py").read_text(), "worker_app.py")
    worker = place.start(place="worker_app:pool")
    assert worker.end() == 78
    assert "has no prewarmkit tables: run `python -m prewarmkit migrate DSN`" in worker.said
    assert main(["migrate", postgres_dsn]) == 0
    worker = place.start("--processes", 2, place="worker_app:pool")
    worker.wait_until_ready(2)
    worker.send(signal.SIGTERM)
    assert worker.end() == 0, worker.said


# ── stop ─────────────────────────────────────────────────────────────────────


def begin_and_hold(place: Place, *arguments: object) -> Worker:
    """Ten media queued, and as many begun as two processes take at once."""
    place.file_media(10)
    place.shut()
    worker = place.start("--processes", 2, *arguments)
    worker.wait_for(lambda: len(place.log("begin")) == 4)
    return worker


def begun(place: Place) -> set[str]:
    return {key for key, *_ in place.log("begin")}


def ended(place: Place) -> set[str]:
    return {key for key, *_ in place.log("end")}


@pytest.mark.parametrize("to_all", [False, True], ids=["supervisor", "group"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_in_flight_finishes_and_what_is_pending_stays(
    place: Place, number: signal.Signals, *, to_all: bool
) -> None:
    """A signal to the whole group, as a terminal's Ctrl-C and systemd's KillMode=control-group send it, counts once."""
    worker = begin_and_hold(place)
    if to_all:
        os.killpg(worker.process.pid, number)
    else:
        worker.send(number)
    worker.wait_for_words("drains, for 30 s at most", 2)
    place.open()
    assert worker.end() == 0, worker.said
    assert len(begun(place)) == 4
    assert ended(place) == begun(place)
    assert place.states() == {"ready": 4, "pending": 6}
    assert not any(is_alive(pid) for pid in worker.ready)


def test_a_second_signal_cuts_off_and_gives_back(place: Place) -> None:
    worker = begin_and_hold(place)
    worker.send(signal.SIGTERM)
    worker.wait_for_words("draining 2")
    worker.send(signal.SIGTERM)
    assert worker.end() == 1
    assert "SIGTERM again: cutting off 2" in worker.said
    assert ended(place) == set()
    assert place.states() == {"pending": 10}, "given back at once, nothing waits for a lease to run out"


def test_a_grace_that_is_over_cuts_off_too(place: Place) -> None:
    worker = begin_and_hold(place, "--grace", 0.2)
    worker.send(signal.SIGTERM)
    assert worker.end() == 1
    assert "cancelled=2" in worker.said
    assert place.states() == {"pending": 10}


def test_a_process_that_does_not_stop_is_killed(place: Place) -> None:
    """Its target blocks the event loop, so it hears nothing."""
    (place.path / "block").touch()
    place.file_media(3)
    worker = place.start("--grace", 0.1, "--kill-after", 0.3)
    worker.wait_for(lambda: place.log("begin"))
    worker.send(signal.SIGTERM)
    assert worker.end() == 1
    assert "has had its time and is killed" in worker.said
    assert "was killed by SIGKILL" in worker.said


@pytest.mark.parametrize("is_told", [True, False], ids=["told", "by-itself"])
def test_a_host_whose_own_cleaning_up_hangs_is_killed(place: Place, *, is_told: bool) -> None:
    place.write(APP.replace("yield pool", "yield pool\n        await anyio.sleep(600)"))
    worker = place.start("--grace", 0.1, "--kill-after", 0.2)
    [only] = worker.wait_until_ready()
    if is_told:
        worker.send(signal.SIGTERM)
        assert worker.end() == 1
    else:
        os.kill(only, signal.SIGTERM)
        worker.wait_until_ready(2)
    assert "has had its time and is killed" in worker.said


def test_a_thread_that_holds_the_exit_up_is_no_reason_to_wait_for_the_grace(place: Place) -> None:
    """The pool is left, nothing is lost any more; the end of the line says so."""
    place.write(f"{APP}\nimport threading\nthreading.Thread(target=time.sleep, args=(600,)).start()")
    worker = place.start("--grace", 600, "--kill-after", 0.2)
    worker.wait_until_ready()
    worker.send(signal.SIGTERM)
    assert worker.end() == 1
    assert "has had its time and is killed" in worker.said


def test_a_signal_that_comes_late_leaves_an_end_in_good_order_as_it_is(place: Place) -> None:
    """The pool is left, the interpreter not yet."""
    at_exit = "lambda: (note(f'exit {os.getpid()}'), time.sleep(0.5), note('exited'))"
    place.write(f"{APP}\nimport atexit\natexit.register({at_exit})")
    worker = place.start()
    worker.wait_until_ready()
    worker.send(signal.SIGTERM)
    worker.wait_for(lambda: place.log("exit"))
    os.kill(int(place.log("exit")[0][0]), signal.SIGTERM)
    assert worker.end() == 0, worker.said
    assert place.log("exited")


def test_a_third_signal_kills(place: Place) -> None:
    (place.path / "block").touch()
    place.file_media(3)
    worker = place.start()
    worker.wait_for(lambda: place.log("begin"))
    for words in ("draining 1", "cutting off 1", "killing 1"):
        worker.send(signal.SIGINT)
        worker.wait_for_words(words)
    assert worker.end() == 1


@pytest.mark.parametrize(
    "slow",
    [
        "time.sleep(60)",
        "@contextlib.asynccontextmanager\nasync def pool():\n    await anyio.sleep(60)\n    yield",
    ],
    ids=["imported", "entered"],
)
def test_a_stop_does_not_wait_for_a_pool_that_is_not_there_yet(place: Place, slow: str) -> None:
    place.write(f"{APP}\nnote('slow')\n{slow}")
    worker = place.start()
    worker.wait_for(lambda: place.log("slow"))
    worker.send(signal.SIGTERM)
    assert worker.end() == 0, worker.said
    assert "Traceback" not in worker.said


def test_one_process_that_is_told_to_stop_by_somebody_else_drains_and_is_replaced(place: Place) -> None:
    worker = begin_and_hold(place)
    first = worker.ready[0]
    os.kill(first, signal.SIGTERM)
    worker.wait_for_words("leaves without having been told to")
    place.open()
    worker.wait_for(lambda: place.has_made_all_ready(10))
    worker.wait_until_ready(3)
    assert f"(pid {first}) ended with 0; the next one starts" in worker.said
    assert len(place.log("begin")) == 10, "none was begun twice"


def test_no_process_outlives_a_killed_supervisor_for_long(place: Place) -> None:
    """They drain by themselves: nobody is there who could tell them."""
    worker = begin_and_hold(place)
    worker.send(signal.SIGKILL)
    worker.wait_for_words("the supervisor is gone", 2)
    place.open()
    worker.wait_for(lambda: not any(is_alive(pid) for pid in worker.ready))
    assert ended(place) == begun(place)
    assert place.states() == {"ready": 4, "pending": 6}


def test_an_orphan_that_cannot_drain_ends_as_well(place: Place) -> None:
    (place.path / "block").touch()
    place.file_media(3)
    worker = place.start("--grace", 0.1, "--kill-after", 0.2)
    worker.wait_for(lambda: place.log("begin"))
    worker.send(signal.SIGKILL)
    worker.wait_for(lambda: not is_alive(worker.ready[0]))


def test_a_closed_terminal_is_a_stop(place: Place) -> None:
    """SIGHUP comes for that as well; nobody would be left to end it."""
    controller, terminal = pty.openpty()
    worker = place.start(stdin=terminal)
    os.close(terminal)
    worker.wait_until_ready()
    os.close(controller)
    worker.send(signal.SIGHUP)  # what a shell does; the kernel, where it is the session's own terminal
    assert worker.end() == 0
    assert "the terminal was closed: draining 1" in worker.said


# ── rolling restart ──────────────────────────────────────────────────────────


def least_at_work(said: str, processes: int) -> int:
    """The fewest that worked at one time since all did, as the workers tell it."""
    at_work, least, has_begun = 0, processes, False
    for line in said.splitlines():
        at_work += ("is ready: <" in line) - ("drains, for" in line)
        has_begun = has_begun or at_work == processes
        least = min(least, at_work) if has_begun else least
    return least


def test_a_rolling_restart_takes_up_new_code_and_never_works_with_fewer(place: Place) -> None:
    place.file_media(6)
    worker = place.start("--processes", 2)
    old = worker.wait_until_ready(2)
    worker.wait_for(lambda: place.has_made_all_ready(6))
    place.write(APP + "\nnote('new')\n")
    worker.send(signal.SIGHUP)
    worker.wait_for_words("rolling restart done")
    new = worker.ready[2:]
    assert len(new) == len(place.log("new")) == 2
    assert [is_alive(pid) for pid in (*old, *new)] == [False, False, True, True]
    assert least_at_work(worker.said, 2) == 2
    worker.send(signal.SIGTERM)
    assert worker.end() == 0


def test_new_code_that_does_not_work_leaves_the_old_at_work(place: Place) -> None:
    place.file_media(4)
    place.shut()
    worker = place.start("--processes", 2)
    old = worker.wait_until_ready(2)
    place.write("import not_installed")
    worker.send(signal.SIGHUP)
    worker.wait_for_words("the rolling restart ends at worker 1; the others go on as they are")
    place.open()
    worker.wait_for(lambda: place.has_made_all_ready(4))
    assert worker.ready == old
    worker.send(signal.SIGTERM)
    assert worker.end() == 0


def test_a_signal_in_the_middle_of_a_rolling_restart_makes_another_follow(place: Place) -> None:
    """The code may have changed once more since the first successor read it."""
    worker = begin_and_hold(place)
    worker.send(signal.SIGHUP)
    worker.wait_for_words("drains, for")
    worker.send(signal.SIGHUP)
    worker.wait_for_words("another rolling restart follows")
    place.open()
    worker.wait_for_words("rolling restart done", 2)
    assert len(worker.ready) == 6


@pytest.mark.parametrize("works", [True, False])
def test_a_process_may_die_while_its_successor_is_getting_ready(place: Place, *, works: bool) -> None:
    """The successor fills its place; where that cannot start, the place is filled, or given up, as any other."""
    worker = place.start()
    [old] = worker.wait_until_ready()
    slow = "\nnote('new')\nwhile (HERE / 'gate').exists():\n    time.sleep(0.02)\n"
    place.write(APP + slow + ("" if works else "raise ValueError"))
    place.shut()
    worker.send(signal.SIGHUP)
    worker.wait_for(lambda: place.log("new"))
    os.kill(old, signal.SIGKILL)
    worker.wait_for_words("was killed by SIGKILL; its successor is getting ready")
    place.open()
    if works:
        worker.wait_for_words("rolling restart done")
        worker.send(signal.SIGTERM)
    assert worker.end() == (0 if works else 78)
    assert len(place.log("new")) == 1


NO_ROOM = """
import sys
from pathlib import Path
from prewarmkit.cli.worker.arguments import Options
from prewarmkit.cli.worker.logs import log_to_stderr
from prewarmkit.cli.worker.process import command_of
from prewarmkit.cli.worker.supervisor import Supervisor

options = Options(module="app", factory="pool")
command = command_of(options)
log_to_stderr("supervisor", "info")
sys.exit(Supervisor(options, lambda post: ["/nowhere"] if Path("full").exists() else command(post)).run())
"""


def test_a_machine_without_room_for_a_successor_leaves_the_old_at_work(place: Place) -> None:
    place.file_media(1)
    place.write(NO_ROOM, "supervise.py")
    worker = place.start(command=("supervise.py",))
    worker.wait_until_ready()
    (place.path / "full").touch()
    worker.send(signal.SIGHUP)
    worker.wait_for_words("the rolling restart ends at worker 1")
    worker.wait_for(lambda: place.has_made_all_ready(1))
    worker.send(signal.SIGTERM)
    assert worker.end() == 0


def test_a_stop_in_the_middle_of_a_rolling_restart_stops_everybody(place: Place) -> None:
    worker = begin_and_hold(place)
    worker.send(signal.SIGHUP)
    worker.wait_until_ready(3)
    worker.send(signal.SIGHUP)
    worker.send(signal.SIGTERM)
    worker.wait_for_words("draining 3")
    place.open()
    assert worker.end() == 0, worker.said
    assert not any(is_alive(pid) for pid in worker.ready)
    assert ended(place) == begun(place)


# ── what cannot work ─────────────────────────────────────────────────────────

SETUPS = {
    "nowhere:pool": "There is no module 'nowhere': looked in ",
    "app.deeper:pool": "app.deeper",
    "app:pol": "app.py has no 'pol'; did you mean 'pool'?",
    "app:settings": "app:settings is of type PoolSettings and cannot be called: decorate",
    "app:Log.id": "app:Log.id is of type str and cannot be called",
    "app:note": "app:note is called without arguments, and cannot be (missing a required argument: 'text')",
    "app:nothing": "app:nothing returns None, which is no async context manager",
    "app:something": "app:something yields an object of type str, which is no PrewarmPool: yield the pool",
    "app:undecorated": "app:undecorated is an async generator function as it stands: decorate",
    "app:ready_made": "app:ready_made is a pool and no function that makes one",
    "app:not_entered": "app:not_entered yields a pool that is not entered",
    "app:unset": "MEDIA_PREWARM_SPEED is no setting",
    "imports:pool": "imports cannot be imported: No module named 'not_installed': install it, or correct the import (",
    "imports_name:pool": "cannot import name 'Pool' from 'prewarmkit'",
    "mistyped:pool": "mistyped cannot be imported: invalid syntax (",
    "raises:pool": "raises cannot be imported: KeyError: 'BOT_TOKEN' (",
}
OTHERS = {
    "imports.py": "import app\nimport not_installed\n",
    "imports_name.py": "from prewarmkit import Pool\n",
    "mistyped.py": "def pool(:\n",
    "raises.py": "import os\ntoken = os.environ['BOT_TOKEN']\n",
}
MORE = """
def nothing(): pass

@contextlib.asynccontextmanager
async def something():
    yield "a secret"

async def undecorated():
    yield

ready_made = PrewarmPool(DirectorySource(HERE), Log())

@contextlib.asynccontextmanager
async def not_entered():
    yield PrewarmPool(DirectorySource(HERE), Log())

def unset():
    return PoolSettings.from_env({"MEDIA_PREWARM_SPEED": "1"})
"""


@pytest.mark.parametrize("named", SETUPS)
def test_a_setup_that_cannot_work_is_one_line_and_exit_code_78(place: Place, named: str) -> None:
    """Said once, however many processes were asked for: the first one is started alone."""
    place.write(APP + MORE)
    for name, code in OTHERS.items():
        place.write(code, name)
    worker = place.start("--processes", 3, place=named)
    assert worker.end() == 78, worker.said
    [line] = worker.said.splitlines()
    assert line.startswith("worker: ")
    assert SETUPS[named] in line
    assert line[-2:] not in {"..", "?."}
    assert "secret" not in line
    if named in {"imports:pool", "raises:pool"}:
        assert f"{named.partition(':')[0]}.py, line 2)" in line


FAILING = """
import os, sys
from pathlib import Path
from attrs import evolve
from prewarmkit.cli.worker.arguments import Options
from prewarmkit.cli.worker.patience import Patience
from prewarmkit.cli.worker.process import command_of
from prewarmkit.cli.worker.supervisor import Supervisor

options = Options(module="app", factory="pool", processes=2)
sys.exit(Supervisor(options, command_of(options), lambda: Patience(first_seconds=0.01, most_failed_starts=3)).run())
"""


def test_a_factory_that_fails_at_every_start_ends_the_supervisor(place: Place) -> None:
    """Short form, with less patience. What it raised is in the log, where it was raised."""
    place.write("def pool():\n    raise RuntimeError('no luck')\n")
    place.write(FAILING, "supervise.py")
    worker = place.start(command=("supervise.py",))
    assert worker.end() == 1
    assert worker.said.count("RuntimeError: no luck") == 3
    assert "worker 1 ended with 1, as at every start so far" in worker.said
    assert "worker 2" not in worker.said


@pytest.mark.slow
def test_a_factory_that_fails_at_every_start_is_tried_five_times(place: Place) -> None:
    place.write("import sys\ndef pool():\n    sys.exit(9)\n")
    worker = place.start()
    assert worker.end() == 9
    assert worker.said.count("sys.exit(9)") == 5
    assert worker.said.count("the next one starts in") == 4


def test_a_failure_at_start_that_may_pass_is_waited_for(place: Place) -> None:
    """As a pool that runs waits for its database; the line says why."""
    place.file_media(2)
    away = """
from prewarmkit import StoreError
at_hand = pool
def pool():
    note("try")
    if len((HERE / "log").read_text().splitlines()) < 3:
        raise StoreError("The database is away.")
    return at_hand()
"""
    place.write(APP + away)
    worker = place.start()
    worker.wait_for(lambda: place.has_made_all_ready(2))
    assert worker.said.count("worker: The database is away.") == 2
    assert worker.said.count("ended with 75 (a failure that may pass)") == 2
    assert "Traceback" not in worker.said


def test_a_process_that_can_start_no_more_harms_no_other(place: Place) -> None:
    """Its slot is tried again and again; only when nobody works does the supervisor give up."""
    worker = place.start("--processes", 2)
    first, second = worker.wait_until_ready(2)
    place.write("raise ValueError")
    os.kill(first, signal.SIGKILL)
    worker.wait_for_words("ended with 78 (its setup cannot work); the next one starts in")
    assert is_alive(second)
    os.kill(second, signal.SIGKILL)
    assert worker.end() == 78


def test_logging_that_the_module_sets_up_stands(place: Place) -> None:
    place.write(f"{APP}\nlogging.basicConfig(format='mine: %(message)s', level=logging.INFO)")
    worker = place.start("--log-level", "error")
    worker.wait_for_words("mine: pool prewarm: started")
    worker.send(signal.SIGTERM)
    assert worker.end() == 0
    assert "supervisor" not in worker.said


# ── slips of the operator ────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: MODULE:FACTORY"),
        (["app"], "'app' is not MODULE:FACTORY: as in app:pool"),
        (["sub/app.py:pool"], "name the module, as in sub.app:pool"),
        (["app.py:pool"], "name the module, as in app:pool"),
        (["app:pool", "--processes", "0"], "must be 1 to 512"),
        (["app:pool", "--grace", "-1"], "must be 0 to 86400 seconds"),
        (["app:pool", "--grace", "nan"], "must be 0 to 86400 seconds"),
        (["app:pool", "--log-level", "loud"], "invalid choice: 'loud'"),
    ],
)
def test_a_slip_in_the_arguments_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["worker", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_where_there_are_no_posix_signals_a_line_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert main(["worker", "app:pool"]) == 1
    assert "needs the signals of POSIX" in capsys.readouterr().err
