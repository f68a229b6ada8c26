"""``python -m prewarmkit demo`` as its users meet it: a process, its output and its exit code.

rclone serves the short forms, since it starts in a fifth of a second; the long form at the end is
the demo as `make demo` runs it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import psycopg
import pytest
from attrs import evolve, frozen

from prewarmkit import Handle, MediaKind
from prewarmkit.cli.demo.figures import ORIGINAL, Spans, WorkerFigures
from prewarmkit.cli.demo.place import Stored
from prewarmkit.cli.demo.proof import wrong
from prewarmkit.cli.demo.wire import Order, Report
from prewarmkit.cli.main import main
from prewarmkit.testing.botapi import Upload
from prewarmkit.testing.postgres import PostgresServer

QUICK = ("--s3", "rclone")
GIVE_UP_SECONDS = 60
HEX_SECRET = re.compile(r"(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])")
"""How the S3 server's secret looks, the right one and the wrong one alike."""


@frozen
class Ran:
    """A demo that has ended."""

    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return self.out + self.err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(tmp_path: Path) -> dict[str, str]:
    """Temporary folders of this test's own, so that what is left over shows."""
    scratch = tmp_path / "tmp"
    scratch.mkdir(exist_ok=True)
    return {**os.environ, "TMPDIR": str(scratch), "COLUMNS": "100"}


def demo(tmp_path: Path, *arguments: object, timeout: float = GIVE_UP_SECONDS) -> Ran:
    """Run the demo to its end; whatever happened, it shows neither a traceback nor a secret."""
    done = subprocess.run(
        [sys.executable, "-m", "prewarmkit", "demo", *map(str, arguments)],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    ran = Ran(done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in ran.all
    assert "AAHdqTcv" not in ran.all, "the bot's token"
    assert not HEX_SECRET.search(ran.all)
    return ran


def left_over(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "tmp").iterdir())


def states(database: Path) -> Mapping[str, int]:
    """How many rows are in each state, read as anybody may read the file."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return dict(connection.execute("SELECT state, count(*) FROM media_cache GROUP BY state").fetchall())


# ── the main job ─────────────────────────────────────────────────────────────


def test_the_demo_makes_every_medium_ready_and_prints_figures_for_scripts(tmp_path: Path) -> None:
    ran = demo(tmp_path, *QUICK, "--count", 40, "--json")
    assert ran.code == 0, ran.err
    told = ran.json
    assert told["ok"] is True
    assert told["problems"] == []
    assert told["media"] == 40
    assert told["budget"] == {"chats": 25, "media_per_minute": 1500}
    warming = told["warming"]
    assert (warming["warmed"], warming["succeeded"], warming["failed"]) == (40, 40, 0)
    assert warming["success_rate"] == 1.0
    assert warming["uploaded_bytes"] == told["media_bytes"] > 40 * 20_000
    assert warming["repeated_uploads"] == 0
    assert warming["count"] == told["queue_wait"]["count"] == told["moving"]["count"] == 40
    assert 0 < warming["p50_seconds"] <= warming["p95_seconds"] <= warming["p99_seconds"]
    # 25 media may go at once, then 25 a second: 40 media cannot take less than a second.
    assert warming["seconds"] > 1
    assert warming["media_per_minute"] == pytest.approx(40 / warming["seconds"] * 60)
    assert (told["lookup"]["hits"], told["lookup"]["hit_rate"]) == (40, 1.0)
    assert told["lookup"]["p95_seconds"] < warming["p95_seconds"]
    assert told["signing_cache"]["hits"] == 39
    assert told["signing_cache"]["misses"] == 1
    assert told["worker"]["started"] == 1
    assert 10e6 < told["worker"]["peak_memory_bytes"] < 200e6
    assert told["delivery"]["uploaded_bytes"] == 0
    assert told["delivery"]["message_id"] > 0
    assert [phase["media_per_minute"] for phase in told["original"]] == [30, 150, 300, 1500]
    assert left_over(tmp_path) == []


def test_the_demo_shows_people_what_it_does_and_what_the_original_did(tmp_path: Path) -> None:
    ran = demo(tmp_path, *QUICK, "--count", 16, "--no-budget", "--concurrency", 4)
    assert ran.code == 0, ran.all
    assert ran.err == ""
    for said in (
        "budget: none",
        "kill -9",
        "media a minute                30       150       300     1,500",
        "warming P95, ms            2,500       800       400       150",
        "look-up of a ready medium",
        "second pass: 16 look-ups in a process that warmed nothing, 16 cache hits",
        "no bytes",
        "16 of 16 media are ready, each arrived with the source's SHA-256",
        "worker's peak memory",
        "is timed apart",
    ):
        assert said in ran.out, said
    assert "\x1b" not in ran.out, "escape codes belong to terminals"


def test_a_second_start_on_finished_data_warms_nothing_and_is_quick(tmp_path: Path) -> None:
    data = tmp_path / "kept here"
    assert demo(tmp_path, *QUICK, "--count", 12, "--data", data).code == 0
    journal = (data / "bot-api.journal").read_bytes()
    began = time.monotonic()
    again = demo(tmp_path, "--data", data, "--json")
    assert again.code == 0
    assert again.json["warming"]["warmed"] == 0
    assert again.json["lookup"]["hits"] == 12
    assert again.json["worker"]["started"] == 0
    assert (data / "bot-api.journal").read_bytes() == journal
    assert time.monotonic() - began < 5
    assert data.stat().st_mode & 0o077 == 0, "nobody else's business"


def test_bytes_that_are_not_the_sources_are_found(tmp_path: Path) -> None:
    """The check can fail: a journal that tells of other bytes ends the demo with 1."""
    data = tmp_path / "data"
    assert demo(tmp_path, *QUICK, "--count", 12, "--data", data).code == 0
    journal = data / "bot-api.journal"
    first, *others = journal.read_text().splitlines(keepends=True)
    line = json.loads(first)
    journal.write_text(json.dumps({**line, "sha256": "0" * 64}) + "\n" + "".join(others))
    ran = demo(tmp_path, "--data", data, "--json")
    assert ran.code == 1
    assert ran.json["ok"] is False
    [problem] = ran.json["problems"]
    assert "arrived with other bytes" in problem
    assert "1 of 12 media are not as they must be" in ran.err


# ── one's own files ──────────────────────────────────────────────────────────


def test_own_files_are_warmed_and_the_unfit_ones_named(tmp_path: Path) -> None:
    files = tmp_path / "my [own] files"
    (files / "sub" / "deeper").mkdir(parents=True)
    (files / ".hidden").mkdir()
    (files / ".hidden" / "x.png").write_bytes(b"hidden")
    (files / "a.png").write_bytes(os.urandom(30_000))
    shutil.copy(files / "a.png", files / "sub" / "the same.png")
    (files / "sub" / "deeper" / "ü ñ.pdf").write_bytes(os.urandom(3_000))
    (files / "empty.txt").touch()
    with (files / "huge.mkv").open("wb") as huge:
        huge.truncate(52_500_000)
    ran = demo(tmp_path, *QUICK, "--media", files, "--json")
    assert ran.code == 1
    told = ran.json
    assert told["media"] == 5
    assert told["warming"]["warmed"] == 3
    assert sorted(problem.split(" failed")[0] for problem in told["problems"]) == [
        "'empty.txt'",
        "'huge.mkv'",
    ]
    assert any("52428800 at most" in problem for problem in told["problems"])
    assert left_over(tmp_path) == []


# ── faults ───────────────────────────────────────────────────────────────────

FAULTS = {
    "wrong-secret": "check the secret access key",
    "missing-bucket": "create the bucket 'media-that-is-not-there', or correct bucket=",
    "full-disk": "free space on its disk",
    "unknown-kind": "Unknown kind 'hologram': use one of photo, video",
    "revoked-token": "The bot token was refused: check it with @BotFather",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_clear_message_and_loses_nothing(tmp_path: Path, fault: str) -> None:
    data = tmp_path / "data"
    ran = demo(tmp_path, *QUICK, "--fault", fault, "--data", data, "--json")
    assert ran.code == 1
    told = ran.json
    assert FAULTS[fault] in told["error"]
    assert ran.err.count("✗") == 1
    assert told["error"] in ran.err
    rows = states(data / "prewarm.db")
    assert sum(rows.values()) == 24
    assert told["queued"] == rows.get("pending", 0) + rows.get("warming", 0) > 0
    assert told["ready"] == rows.get("ready", 0)
    assert f"{told['queued']} media stay queued" in ran.err
    assert str(data) in ran.err


def test_what_a_fault_left_queued_is_warmed_by_the_next_start(tmp_path: Path) -> None:
    """Without --data too: the folder stays as long as something waits in it, and the screen says how to go on."""
    ran = demo(tmp_path, *QUICK, "--fault", "wrong-secret")
    assert ran.code == 1
    again = re.search(r"go on with: +python -m prewarmkit demo --data (\S+)", ran.out)
    assert again is not None
    finished = demo(tmp_path, "--data", again[1], "--json")
    assert finished.code == 0, finished.err
    assert finished.json["lookup"]["hits"] == 24


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of so many KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root on Linux")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={request.param}k", "tmpfs", disk],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    ("small_disk", "spare_kib", "can_look"), [(8192, 56, True), (8192, 4, False)], indirect=["small_disk"]
)
def test_a_disk_that_is_really_full_loses_nothing_either(
    tmp_path: Path, small_disk: Path, *, spare_kib: int, can_look: bool
) -> None:
    """Full for more rows; or for the file beside the database too, without which it cannot even be read."""
    data = tmp_path / "data"
    assert demo(tmp_path, *QUICK, "--fault", "wrong-secret", "--data", data).code == 1
    database = data / "prewarm.db"
    shutil.move(database, small_disk / "prewarm.db")
    database.symlink_to(small_disk / "prewarm.db")
    size_kib = (small_disk / "prewarm.db").stat().st_size // 1024 + spare_kib
    subprocess.run(["mount", "-o", f"remount,size={size_kib}k", small_disk], check=True)
    full = demo(tmp_path, "--data", data, "--json")
    assert full.code == 1
    assert "free space on its disk" in full.json["error"]
    assert not can_look or full.json["queued"] + full.json["ready"] == 24
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    assert demo(tmp_path, "--data", data).code == 0


# ── PostgreSQL ────────────────────────────────────────────────────────────────


def schemas(dsn: str) -> list[str]:
    """What demos have made in a database."""
    with psycopg.connect(dsn) as connection:
        query = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'prewarmkit%'"
        return [row[0] for row in connection.execute(query)]


def test_the_table_may_be_in_somebodys_postgresql_and_nothing_stays_there(
    tmp_path: Path, postgres_dsn: str
) -> None:
    where = ("--store", "postgres", "--dsn", postgres_dsn)
    ran = demo(tmp_path, *QUICK, *where, "--count", 12, "--no-budget", "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["warming"]["warmed"], ran.json["lookup"]["hits"]) == (12, 12)
    assert "12 are queued in schema prewarmkit_demo_" in ran.err
    assert schemas(postgres_dsn) == []
    assert left_over(tmp_path) == []


def test_what_a_fault_left_queued_in_postgresql_is_warmed_by_the_next_start(
    tmp_path: Path, postgres_dsn: str
) -> None:
    data = tmp_path / "data"
    where = ("--store", "postgres", "--dsn", postgres_dsn, "--data", data)
    ran = demo(tmp_path, *QUICK, *where, "--count", 12, "--fault", "revoked-token")
    assert ran.code == 1
    assert "12 media stay queued" in ran.out
    assert re.search(r"go on with: .* --store postgres --dsn DSN\n", ran.out)
    assert "name it with --store postgres --dsn DSN" in demo(tmp_path, "--data", data).out
    again = demo(tmp_path, *where, "--json")
    assert again.code == 0, again.err
    assert again.json["lookup"]["hits"] == 12
    assert len(schemas(postgres_dsn)) == 1, "it is kept with the folder"


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        ("postgresql://me:s3cr3t-word@127.0.0.1:1/media", "127.0.0.1:1/media failed: Connection refused"),
        ("no dsn, but a s3cr3t-word", "must be a connection string"),
    ],
)
def test_a_database_that_cannot_be_reached_is_one_clear_message(tmp_path: Path, dsn: str, said: str) -> None:
    ran = demo(tmp_path, *QUICK, "--store", "postgres", "--dsn", dsn, "--count", 12)
    assert ran.code == 1
    assert said in ran.out
    assert ran.out.count("✗") == 1
    assert "s3cr3t" not in ran.all
    assert left_over(tmp_path) == []


# ── slips of the operator ────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--media", "/nowhere/at/all"], "/nowhere/at/all is no directory"),
        (["--count", "0"], "must be 1 to 100000"),
        (["--chats", "none"], "invalid number value: 'none'"),
        (["--store", "files"], "invalid choice: 'files'"),
        (["--dsn", "postgresql://x"], "--dsn goes with --store postgres"),
        (["--store", "postgres", "--data", "x"], "name one of your own with --dsn"),
        (["--store", "postgres", "--fault", "full-disk"], "goes with --store sqlite"),
        (["--fault", "flood"], "invalid choice: 'flood'"),
        (["--media", ".", "--count", "3"], "leave --count and --seed out"),
        (["--media", ".", "--data", "./inside"], "--data must not lie inside --media"),
    ],
)
def test_a_slip_in_the_arguments_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["demo", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_no_command_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "run the main job on real servers" in capsys.readouterr().err


def test_a_missing_extra_is_one_line_with_the_command_that_helps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec

    def find_no_rich(name: str) -> ModuleSpec | None:
        return None if name == "rich" else found(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_no_rich)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == "The demo needs rich: pip install 'prewarmkit[demo]'\n"


def test_a_directory_without_files_is_named_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / ".hidden").touch()
    data = tmp_path / "data"
    ran = demo(tmp_path, *QUICK, "--media", tmp_path / "none", "--data", data)
    assert ran.code == 1
    assert ran.out.startswith(f"✗ {tmp_path / 'none'} has no files")
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "a.png").write_bytes(os.urandom(3000))
    assert demo(tmp_path, *QUICK, "--media", tmp_path / "some", "--data", data).code == 0


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("mine")
    ran = demo(tmp_path, *QUICK, "--data", foreign)
    assert ran.code == 1
    assert "is not empty and holds no demo" in ran.out
    assert [each.name for each in foreign.iterdir()] == ["thesis.tex"]


def test_a_folder_keeps_to_what_it_was_made_with(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert demo(tmp_path, *QUICK, "--count", 12, "--seed", 7, "--data", data).code == 0
    ran = demo(tmp_path, "--data", data, "--seed", 8)
    assert ran.code == 1
    assert "holds a demo with --seed 7" in ran.out
    (data / "demo.json").write_text("{")
    assert "demo.json is damaged" in demo(tmp_path, "--data", data).out


def test_ctrl_c_ends_it_in_order_and_removes_what_is_temporary(tmp_path: Path) -> None:
    started = subprocess.Popen(
        [sys.executable, "-m", "prewarmkit", "demo", *QUICK, "--count", "40", "--chats", "2"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert started.stdout is not None
        worker = 0
        for line in started.stdout:
            if found := re.match(r"worker (\d+) warms", line):
                worker = int(found[1])
                break
        time.sleep(0.5)
        started.send_signal(signal.SIGINT)
        rest, _ = started.communicate(timeout=20)
    finally:
        started.kill()
        started.wait()
    assert started.returncode == 130
    assert "interrupted by SIGINT" in rest
    assert "Traceback" not in rest
    assert left_over(tmp_path) == []
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_two_demos_never_share_a_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = subprocess.Popen(
        [sys.executable, "-m", "prewarmkit", "demo", *QUICK, "--data", data],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert first.stdout is not None
        first.stdout.readline()  # by now the folder is its own
        second = demo(tmp_path, "--data", data)
        assert second.code == 1
        assert f"Another demo uses {data} now" in second.out
    finally:
        first.terminate()
        first.communicate(timeout=20)
    assert first.returncode == 143


# ── what the figures are made of ─────────────────────────────────────────────


def test_quantiles_are_spans_that_were_measured() -> None:
    spans = Spans.of([float(n) for n in range(100, 0, -1)])
    assert (spans.count, spans.p50, spans.p95, spans.p99) == (100, 50.0, 95.0, 99.0)
    assert Spans.of([7.0]) == Spans(count=1, p50=7.0, p95=7.0, p99=7.0)
    assert Spans.of([]).p50 is None


def test_figures_of_dead_workers_count_too() -> None:
    figures = WorkerFigures()
    figures.begin()
    figures.take(Report(succeeded=3, signing_hits=2, waits=[1.0], began_at=10.0, ready_at=12.0))
    figures.take(Report(succeeded=5, signing_hits=4, waits=[2.0], began_at=10.0, ready_at=13.0))
    figures.begin()
    figures.take(Report(succeeded=2, signing_hits=1, waits=[3.0], began_at=18.0, ready_at=20.0))
    figures.begin()  # killed before it said a word
    assert figures.total("succeeded") == 7
    assert figures.total("signing_hits") == 5
    assert figures.waits == [1.0, 2.0, 3.0]
    assert figures.seconds == 10.0


def test_the_originals_rows_are_what_its_notes_say() -> None:
    """Source: the original system's published notes, "before, after, planned"."""
    rows = [
        (phase.media_per_minute, phase.p50_ms, phase.p95_ms, phase.hit_rate, phase.survival)
        for phase in ORIGINAL
    ]
    assert rows == [
        (30, 1500, 2500, 0.60, 0.0),
        (150, 300, 800, 0.60, 0.0),
        (300, 200, 400, 0.75, 1.0),
        (1500, 50, 150, 0.90, 1.0),
    ]


def test_a_medium_is_right_only_with_a_known_handle_and_the_sources_bytes() -> None:
    def stored(key: str) -> Stored:
        return Stored(key=key, size=1, sha256=key * 64, stamp="")

    upload = Upload(
        method="sendPhoto",
        bot_id=1,
        chat_id=1,
        kind=MediaKind.PHOTO,
        filename="a",
        content_type=None,
        size=1,
        sha256="a" * 64,
        file_id="A",
        file_unique_id="U",
        message_id=1,
    )
    handles = {
        key: Handle(value, MediaKind.PHOTO, "1", key) for key, value in (("a", "A"), ("b", "B"), ("c", "C"))
    }
    uploads = [upload, evolve(upload, file_id="B", sha256="9" * 64)]
    found = wrong([stored(key) for key in "abcd"], handles, uploads)
    assert list(found) == ["b", "c", "d"]
    assert "other bytes" in found["b"]
    assert "knows nothing" in found["c"]
    assert "not ready" in found["d"]


def test_an_order_hides_its_secrets() -> None:
    order = Order(
        endpoint="http://127.0.0.1:1",
        access_key_id="AKID",
        secret_access_key="SECRET",
        api_base="http://127.0.0.1:2",
        token="1:TOKEN",
        chats=1,
        has_budget=True,
        concurrency=1,
        lease_seconds=1,
        database="x.db",
    )
    assert "SECRET" not in repr(order)
    assert "TOKEN" not in repr(order)
    assert Order.from_line(order.to_line()) == order


# ── the long form ────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_the_demo_as_make_demo_runs_it_takes_under_a_minute(tmp_path: Path) -> None:
    """The short form is above: the same with fewer media and the S3 server that starts faster."""
    began = time.monotonic()
    ran = demo(tmp_path, "--json", timeout=120)
    assert ran.code == 0, ran.err
    assert time.monotonic() - began < 60
    told = ran.json
    assert told["lookup"]["hits"] == told["warming"]["warmed"] == 300
    assert told["warming"]["uploaded_bytes"] > 200e6
    assert told["worker"]["peak_memory_bytes"] < 100e6, "less than a third of what went through it"
    assert 0.8 * 1500 < told["warming"]["media_per_minute"] < 1700


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["wrong-secret", "missing-bucket"])
def test_faults_of_the_bucket_show_the_same_with_seaweedfs(tmp_path: Path, fault: str) -> None:
    ran = demo(tmp_path, "--s3", "seaweedfs", "--fault", fault, "--data", tmp_path / "data", "--json")
    assert ran.code == 1
    assert FAULTS[fault] in ran.json["error"]
    assert ran.json["queued"] == 24


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A temporary folder that everybody may pass through, as PostgreSQL needs it where root runs the tests."""
    with tempfile.TemporaryDirectory(prefix="prewarmkit-test-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        (path / "tmp").mkdir()
        yield path


@pytest.mark.slow
def test_the_table_may_be_in_a_postgresql_that_is_started_for_it(open_tmp: Path) -> None:
    """The short forms are above: the same in a database that is there already."""
    ran = demo(open_tmp, *QUICK, "--store", "postgres", "--count", 40, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["lookup"]["hits"] == ran.json["warming"]["warmed"] == 40
    assert left_over(open_tmp) == []


@pytest.mark.slow
def test_a_database_that_goes_away_for_good_ends_the_demo_with_a_message(
    open_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool would wait for it; a demo has an operator, who is told after some seconds."""
    monkeypatch.delenv("PREWARMKIT_TEST_DSN", raising=False)
    data = open_tmp / "data"
    with PostgresServer() as server:
        where = ("--store", "postgres", "--dsn", server.create_database(), "--data", str(data))
        started = subprocess.Popen(
            [sys.executable, "-m", "prewarmkit", "demo", *QUICK, *where, "--count", "100", "--chats", "5"],
            env=environment(open_tmp),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert started.stdout is not None
            while not re.match(r"worker \d+ warms", started.stdout.readline()):
                assert started.poll() is None
            time.sleep(1)
            server.stop()
            said, _ = started.communicate(timeout=60)
        finally:
            started.kill()
            started.wait()
        assert started.returncode == 1
        assert said.count("✗") == 1
        assert "The database at 127.0.0.1" in said
        assert "Traceback" not in said
        server.start()
        ran = demo(open_tmp, *where, "--no-budget", "--json")
        assert ran.code == 0, ran.err
        assert ran.json["lookup"]["hits"] == 100
