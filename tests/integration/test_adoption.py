"""The original system's tables, ugly as they are after years: taken over, counted, done again, undone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
import pytest

from prewarmkit import PoolSettings, PrewarmPool
from prewarmkit.cli.main import main
from prewarmkit.media import Warmed
from prewarmkit.stores import PostgresStore, Row, State, Succeeded
from prewarmkit.stores.postgres.adoption import adoption_sql, undo_sql
from prewarmkit.testing.contracts.store import job
from prewarmkit.testing.stand_ins import ScriptedTarget, UnreadSource

pytestmark = pytest.mark.anyio

BOTS = {"cats": "111", "dogs": "222", "cats-old": "111"}
SCHEMA = "pre warm"

TABLES = """
CREATE TYPE media_kind AS ENUM ('photo', 'video', 'document', 'movie', 'Photo');
CREATE TABLE media_store (
    id bigserial PRIMARY KEY, bot_slug varchar(64), sha256 varchar(80), r2_key text, mime text,
    created_at timestamptz DEFAULT now()
);
CREATE TABLE media_cache (
    id bigserial PRIMARY KEY, bot_slug varchar(64), sha256 varchar(80), kind media_kind, status varchar(16) DEFAULT 'pending',
    file_id text, file_unique_id text, warmup_chat_id bigint, warmup_message_id integer, last_error text,
    created_at timestamptz DEFAULT now()
);
CREATE INDEX ix_media_cache_lookup ON media_cache (bot_slug, sha256, kind) WHERE status = 'ready';
CREATE INDEX ix_media_cache_warming ON media_cache (created_at) WHERE status = 'warming'"""


def sha(name: str) -> str:
    return (name.encode().hex() * 64)[:64]


STORED = [
    ("cats", sha("ready"), "cats/ready.jpg"),
    ("cats", sha("ready"), "cats/ready.jpg"),  # twice
    ("cats", sha("failed"), "cats/failed.mp4"),
    ("cats", sha("hung"), "cats/hung.jpg"),
    ("cats", sha("renewed"), "cats/renewed.jpg"),
    ("cats", sha("upper").upper(), "cats/upper.jpg"),
    ("cats", sha("twice"), "cats/twice.jpg"),
    ("cats", sha("copied"), "cats/copy-1.jpg"),
    ("cats", sha("copied"), "cats/copy-2.jpg"),  # two keys of one content
    ("cats", sha("before"), "cats/overwritten.jpg"),
    ("cats", sha("after"), "cats/overwritten.jpg"),  # two contents of one key
    ("cats", sha("movie"), "cats/movie.mp4"),
    ("cats", sha("long"), "x" * 3000),
    ("cats", None, "cats/no-sha.jpg"),
    ("cats", sha("empty"), ""),
    ("cats-old", sha("ready"), "cats/ready.jpg"),
    ("dogs", sha("ready"), 'dogs/it\'s "one" {100%}\\.jpg'),
    ("nobody", sha("ready"), "nobody/ready.jpg"),
]
# bot_slug, content, kind, status, file_id, file_unique_id, warmup_chat_id, warmup_message_id, last_error
CACHED: list[tuple[Any, ...]] = [
    ("cats", sha("ready"), "photo", "ready", "F-ready", "U-ready", -1001, 7, None),
    ("cats-old", sha("ready"), "photo", "ready", "F-of-the-old-slug", "U", None, None, None),
    ("dogs", sha("ready"), "photo", "ready", "F-dog", None, None, None, None),
    ("cats", sha("failed"), "video", "error", None, None, None, None, "too big"),
    ("cats", sha("failed"), "document", "error", None, None, None, None, None),
    ("cats", sha("hung"), "photo", "warming", None, None, None, None, None),
    ("cats", sha("hung"), "document", "ready", "", "", None, None, None),
    ("cats", sha("renewed"), "photo", "warming", "F-before", "U", None, None, None),
    ("cats", sha("upper"), "Photo", "READY", "F-upper", "U", None, None, None),
    ("cats", sha("twice"), "photo", "error", None, None, None, None, "the first try"),
    ("cats", sha("twice"), "photo", "ready", "F-twice", "U", None, None, None),
    ("cats", sha("twice"), "photo", None, None, None, None, None, None),
    ("cats", sha("copied"), "photo", "ready", "F-copied", "U", None, None, None),
    ("cats", sha("before"), "photo", "ready", "F-of-what-was", "U", None, None, None),
    ("cats", sha("after"), "photo", "ready", "F-of-what-is", "U", None, None, None),
    ("cats", sha("movie"), "movie", "ready", "F-movie", "U", None, None, None),
    ("cats", sha("movie"), None, "ready", "F-no-kind", "U", None, None, None),
    ("cats", sha("long"), "photo", "ready", "F-long", "U", None, None, None),
    ("cats", None, "photo", "ready", "F-no-sha", "U", None, None, None),
    ("cats", sha("empty"), "photo", "ready", "F-no-key", "U", None, None, None),
    ("cats", sha("gone"), "photo", "ready", "F-not-stored", "U", None, None, None),
    ("nobody", sha("ready"), "photo", "ready", "F-nobody", "U", None, None, None),
    (None, sha("ready"), "photo", "ready", "F-no-bot", "U", None, None, None),
]
ENDS = {
    "taken over": 10,
    "another row of the same medium is better": 3,
    "its bot_slug is not in the map": 2,
    "its key has had several contents": 2,
    "its kind is unknown": 2,
    "media_store has no key for it": 2,
    "it has no sha256": 1,
    "its key is too long": 1,
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def run(dsn: str, script: str) -> Mapping[str, int]:
    """Run a script as psql would; what it counts at its end."""
    counted: dict[str, int] = {}
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(script.encode())
        while True:
            if cursor.description:
                counted = dict(cursor.fetchall())
            if not cursor.nextset():
                return counted


def rows_of(dsn: str, table: str) -> list[Any]:
    with psycopg.connect(dsn) as connection:
        return [
            row[0] for row in connection.execute(f"SELECT to_jsonb(t) FROM {table} AS t ORDER BY 1".encode())
        ]


def fill(
    dsn: str, stored: Sequence[tuple[Any, ...]] = STORED, cached: Sequence[tuple[Any, ...]] = CACHED
) -> None:
    """Put rows into the original's tables."""
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO media_store (bot_slug, sha256, r2_key) VALUES (%s, %s, %s)", stored)
        cursor.executemany(
            "INSERT INTO media_cache (bot_slug, sha256, kind, status, file_id, file_unique_id, warmup_chat_id, "
            "warmup_message_id, last_error) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            cached,
        )


@pytest.fixture
async def dsn(postgres_dsn: str) -> str:
    """A database with the original's tables, and ours beside them."""
    run(postgres_dsn, TABLES)
    fill(postgres_dsn)
    async with PostgresStore(postgres_dsn, schema=SCHEMA) as store:
        await store.migrate()
    return postgres_dsn


OURS = f'"{SCHEMA}".media_cache'
LEFT = f'"{SCHEMA}".adoption_leftovers'
ADOPT = adoption_sql(SCHEMA, bots=BOTS)
UNDO = undo_sql(SCHEMA)


async def listed(dsn: str) -> dict[tuple[str, str, str], Row]:
    async with PostgresStore(dsn, schema=SCHEMA) as store:
        return {(row.id.target, row.id.key, row.id.kind.value): row for row in await store.list()}


async def test_every_row_is_taken_over_or_counted_with_a_reason(dsn: str) -> None:
    """Nothing vanishes: what is not taken over stands among the leftovers, with all its columns."""
    before = rows_of(dsn, "media_store"), rows_of(dsn, "media_cache")
    assert run(dsn, ADOPT) == ENDS
    assert sum(ENDS.values()) == len(CACHED)
    assert (rows_of(dsn, "media_store"), rows_of(dsn, "media_cache")) == before
    left = rows_of(dsn, LEFT)
    reasons = {each["original"]["file_id"]: each["reason"] for each in left}
    assert len(left) == len(CACHED) - ENDS["taken over"]
    assert all(each["original"] in before[1] for each in left)
    assert reasons["F-of-the-old-slug"] == "another row of the same medium is better"
    assert reasons["F-nobody"] == reasons["F-no-bot"] == "its bot_slug is not in the map"
    assert reasons["F-of-what-was"] == reasons["F-of-what-is"] == "its key has had several contents"


async def test_rows_come_over_as_what_they_were(dsn: str) -> None:
    """Handles stay good, errors stay errors with their reason, what waited or hung is due."""
    run(dsn, ADOPT)
    rows = await listed(dsn)
    assert {place: row.state.value for place, row in rows.items()} == {
        ("111", "cats/ready.jpg", "photo"): "ready",
        ("111", "cats/failed.mp4", "video"): "failed",
        ("111", "cats/failed.mp4", "document"): "failed",
        ("111", "cats/hung.jpg", "photo"): "pending",
        ("111", "cats/hung.jpg", "document"): "pending",
        ("111", "cats/renewed.jpg", "photo"): "pending",
        ("111", "cats/upper.jpg", "photo"): "ready",
        ("111", "cats/twice.jpg", "photo"): "ready",
        ("111", "cats/copy-1.jpg", "photo"): "ready",
        ("111", "cats/copy-2.jpg", "photo"): "ready",
        ("222", 'dogs/it\'s "one" {100%}\\.jpg', "photo"): "ready",
    }
    handles = {place[1]: row.handle for place, row in rows.items() if row.handle is not None}
    ready = handles["cats/ready.jpg"]
    assert (ready.value, ready.unique_id, ready.weak, ready.stale) == ("F-ready", "U-ready", (), False)
    assert ready.details == {"chat_id": -1001, "message_id": 7}
    assert handles['dogs/it\'s "one" {100%}\\.jpg'].weak == ("no_unique_id",)
    assert (handles["cats/renewed.jpg"].value, handles["cats/renewed.jpg"].stale) == ("F-before", True)
    assert handles["cats/copy-1.jpg"].value == handles["cats/copy-2.jpg"].value == "F-copied"
    assert handles["cats/twice.jpg"].value == "F-twice"
    assert rows["111", "cats/failed.mp4", "video"].reason == "too big"
    assert rows["111", "cats/upper.jpg", "photo"].media.sha256 == sha("upper")


async def test_a_pool_goes_on_where_the_original_stopped(dsn: str) -> None:
    """It delivers what was warm, warms what was not, and asks for what failed when it is told to."""
    run(dsn, ADOPT)
    target = ScriptedTarget(id="111")
    async with (
        PostgresStore(dsn, schema=SCHEMA) as store,
        PrewarmPool(UnreadSource(), target, store, settings=PoolSettings(poll_interval_seconds=0.2)) as pool,
    ):
        found = await pool.lookup("cats/ready.jpg")
        assert found is not None
        assert found.value == "F-ready"
        await pool.join(timeout=20)
        assert sorted(target.calls) == ["cats/hung.jpg", "cats/hung.jpg", "cats/renewed.jpg"]
        assert await pool.requeue_failed() == 2
        await pool.join(timeout=20)
    assert {row.state for row in (await listed(dsn)).values()} == {State.READY}


async def test_running_it_again_changes_nothing(dsn: str) -> None:
    """Idempotent: the same rows, the same leftovers, the same count."""
    run(dsn, ADOPT)
    before = rows_of(dsn, OURS), rows_of(dsn, LEFT)
    assert run(dsn, ADOPT) == ENDS
    assert (rows_of(dsn, OURS), rows_of(dsn, LEFT)) == before


async def test_running_it_again_takes_over_what_is_new_or_mended_and_no_refused_handle(dsn: str) -> None:
    """The old worker may run on meanwhile; a handle that was refused here does not come back."""
    run(dsn, ADOPT)
    async with PostgresStore(dsn, schema=SCHEMA) as store:
        assert await store.invalidate(job("cats/ready.jpg", target="111").id, "F-ready")
        assert await store.invalidate(job("cats/upper.jpg", target="111").id, rewarm=False)
    fill(
        dsn,
        [("cats", sha("gone"), "cats/found.jpg"), ("cats", sha("new"), "cats/new.jpg")],
        [("cats", sha("new"), "photo", "ready", "F-new", "U", None, None, None)],
    )
    run(
        dsn,
        f"UPDATE media_cache SET status = 'ready', file_id = 'F-hung' WHERE sha256 = '{sha('hung')}' AND kind = 'photo'",
    )
    counted = run(dsn, adoption_sql(SCHEMA, bots={**BOTS, "nobody": "333"}))
    assert counted["taken over"] == ENDS["taken over"] + 3
    rows = await listed(dsn)
    values = {place: row.handle and row.handle.value for place, row in rows.items()}
    assert values["111", "cats/found.jpg", "photo"] == "F-not-stored"
    assert values["111", "cats/new.jpg", "photo"] == "F-new"
    assert values["333", "nobody/ready.jpg", "photo"] == "F-nobody"
    assert values["111", "cats/hung.jpg", "photo"] == "F-hung"
    assert rows["111", "cats/ready.jpg", "photo"].handle is None
    assert ("111", "cats/upper.jpg", "photo") not in rows


async def test_rows_of_our_own_keep_their_place(dsn: str) -> None:
    """One that has a handle stays; one that only waits for one gets the original's."""
    async with PostgresStore(dsn, schema=SCHEMA) as store:
        await store.enqueue([job("cats/ready.jpg", target="111")])
        [lease] = (await store.turn(lease=1)).leased
        await store.turn([Succeeded(lease, Warmed("OURS"))])
        await store.enqueue(
            [job("cats/upper.jpg", target="111"), job("cats/twice.jpg", target="111", sha256="0" * 64)]
        )
    counted = run(dsn, ADOPT)
    assert counted["prewarmkit has a row of its own"] == 2
    assert sum(counted.values()) == len(CACHED)
    rows = await listed(dsn)
    ours, waited = rows["111", "cats/ready.jpg", "photo"], rows["111", "cats/upper.jpg", "photo"]
    assert ours.handle is not None
    assert ours.handle.value == "OURS"
    assert waited.handle is not None
    assert (waited.handle.value, waited.state) == ("F-upper", State.READY)
    assert rows["111", "cats/twice.jpg", "photo"].state is State.PENDING  # of another content


@pytest.mark.parametrize(
    "script",
    [
        ADOPT.replace("COMMIT;", "SELECT 1 / 0; COMMIT;"),
        ADOPT.replace("('cats', '111')", "('cats', '111'), ('cats', '112')"),
        ADOPT.replace("('cats', '111')", "('cats', '')"),
    ],
    ids=["breaks off at the end", "a bot twice in the map", "a bot without an id"],
)
async def test_an_adoption_that_fails_has_done_nothing(dsn: str, script: str) -> None:
    """It is one transaction."""
    with pytest.raises(psycopg.Error):
        run(dsn, script)
    assert rows_of(dsn, OURS) == []
    with pytest.raises(psycopg.errors.UndefinedTable):
        rows_of(dsn, LEFT)
    assert run(dsn, ADOPT) == ENDS


async def test_the_way_back_removes_what_was_adopted_and_nothing_else(dsn: str) -> None:
    """Rows that prewarmkit has worked on since, or had before, stay; afterwards it can be done again."""
    originals = rows_of(dsn, "media_store"), rows_of(dsn, "media_cache")
    async with PostgresStore(dsn, schema=SCHEMA) as store:
        await store.enqueue([job("cats/upper.jpg", target="111"), job("own.jpg", target="111")])
        run(dsn, ADOPT)
        leases = (await store.turn(lease=9, targets=["111"])).leased
        assert not (await store.turn([Succeeded(lease, Warmed("OURS")) for lease in leases])).lost
        assert run(dsn, UNDO) == {"removed": 7, "stays: not as it was adopted": 4}
        left = [row.id.key for row in await store.list()]
        assert sorted(left) == [
            "cats/hung.jpg",
            "cats/hung.jpg",
            "cats/renewed.jpg",
            "cats/upper.jpg",
            "own.jpg",
        ]
        assert await store.verify() == []
    assert (rows_of(dsn, "media_store"), rows_of(dsn, "media_cache")) == originals
    assert sum(run(dsn, ADOPT).values()) == len(CACHED)


async def test_a_large_table_is_taken_over_in_seconds(postgres_dsn: str) -> None:
    """Twenty thousand rows; nothing in it takes the square of that."""
    run(postgres_dsn, TABLES)
    run(
        postgres_dsn,
        """INSERT INTO media_store (bot_slug, sha256, r2_key)
           SELECT 'cats', md5(n::text) || md5(n::text), n || '.jpg' FROM generate_series(1, 20000) AS n;
           INSERT INTO media_cache (bot_slug, sha256, kind, status, file_id)
           SELECT 'cats', md5(n::text) || md5(n::text), 'photo', 'ready', 'F' || n FROM generate_series(1, 20000) AS n""",
    )
    async with PostgresStore(postgres_dsn, schema=SCHEMA) as store:
        await store.migrate()
    began = time.monotonic()
    assert run(postgres_dsn, ADOPT) == {"taken over": 20_000}
    assert time.monotonic() - began < 20


# ── the command line ─────────────────────────────────────────────────────────


def test_the_command_prints_the_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    """With the map filled in, quoted as it must be; or with a line to fill in."""
    assert (
        main(["sql", "--adopt", "--schema", "s", "--bot", "it's=1", "--bot", "b=2", "--original", "Old"]) == 0
    )
    printed = capsys.readouterr().out
    assert printed == adoption_sql("s", bots={"it's": "1", "b": "2"}, original="Old")
    assert "('it''s', '1'),\n    ('b', '2');" in printed
    assert '"Old".media_cache' in printed
    assert main(["sql", "--adopt", "--schema", "s"]) == 0
    assert "('my-bot', '123456')" in capsys.readouterr().out
    assert main(["sql", "--adopt", "--undo", "--schema", "s"]) == 0
    assert capsys.readouterr().out == undo_sql("s")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--adopt", "--bot", "cats"], "SLUG=ID"),
        (["--adopt", "--bot", "cats="], "SLUG=ID"),
        (["--adopt", "--schema", "s", "--bot", "a=1", "--bot", "a=2"], "'a' stands twice"),
        (["--bot", "a=1"], "--adopt"),
        (["--undo"], "--adopt"),
        (["--adopt"], "another schema than the original's"),
    ],
)
def test_a_slip_in_the_map_is_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sql", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
