"""Where the table lives: a file, a PostgreSQL that is started for it, or a schema in somebody's.

Owns what the demo makes in a PostgreSQL and takes away again. Knows no row.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import anyio.to_thread
import psycopg
from attrs import field, frozen
from psycopg import sql

from prewarmkit import ConfigurationError, StoreError
from prewarmkit.cli.demo.place import Place
from prewarmkit.cli.demo.wire import Order
from prewarmkit.stores import MediaStore, PostgresStore, SqliteStore

__all__ = ["Home", "open_home", "remove_home", "store_of"]

_SCHEMA = "prewarm"
_CONNECT_SECONDS = 5


@frozen
class Home:
    """Where the table is.

    Attributes:
        database: A file, or PostgreSQL's address; hidden in ``repr``.
        schema: In PostgreSQL; ``None``: it is a file.
        said: For people.
        outlives_us: Whether a later demo can go on from it.
    """

    database: str = field(repr=False)
    schema: str | None
    said: str
    outlives_us: bool = True


def store_of(order: Order) -> AbstractAsyncContextManager[MediaStore]:
    """The store of an order, to be entered."""
    if order.schema is None:
        return SqliteStore(order.database, max_bytes=order.max_bytes)
    return PostgresStore(order.database, schema=order.schema)


@asynccontextmanager
async def open_home(place: Place, dsn: str | None) -> AsyncGenerator[Home]:
    """Make the table's home ready; what is temporary in it goes with the folder.

    Raises:
        PrewarmKitError: The database cannot be reached, or refuses; the message says why.
    """
    if place.plan.store == "sqlite":
        yield Home(str(place.database), None, str(place.database))
        return
    if dsn is None:
        # Imported when it is needed: it is in an extra, which a demo on somebody's own server does not ask for.
        from prewarmkit.testing.postgres import PostgresServer

        async with PostgresServer() as server:
            database = await anyio.to_thread.run_sync(server.create_database)
            yield await _made(Home(database, _SCHEMA, "a PostgreSQL of its own", outlives_us=False))
        return
    assert place.plan.schema is not None  # the plan of a demo with an address has one
    said = f"schema {place.plan.schema} of your PostgreSQL"
    try:
        home = await _made(Home(dsn, place.plan.schema, said))
    except StoreError as error:
        raise ConfigurationError(f"{error} Start it, or correct --dsn, and run it again.") from None
    yield home


def remove_home(place: Place, dsn: str | None) -> None:
    """Remove what the demo has made in somebody's PostgreSQL, if it can be reached."""
    if place.plan.schema is None or dsn is None:
        return
    with (
        suppress(psycopg.Error),
        psycopg.connect(dsn, autocommit=True, connect_timeout=_CONNECT_SECONDS) as connection,
    ):
        schema = sql.Identifier(place.plan.schema)
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(schema))


async def _made(home: Home) -> Home:
    assert home.schema is not None  # it is in PostgreSQL
    async with PostgresStore(home.database, schema=home.schema, notify=False) as store:
        await store.migrate()
    return home
