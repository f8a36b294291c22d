"""The server, and the table as each run finds it: a copy, file by file, of a database that nobody else writes."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from servers import eventually, server_binaries

from bench_backfill.values import Table
from dbwatch.journal import schema
from dbwatch.postgres.embedded import EmbeddedServer
from dbwatch.postgres.session import Connector

SETTINGS: Mapping[str, str] = {
    "shared_preload_libraries": "pg_stat_statements",
    "fsync": "on",
    "full_page_writes": "on",
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",
    "min_wal_size": "2GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "autovacuum_naptime": "1min",
}
"""As in production where it matters for the figures; and no checkpoint that a figure does not ask for."""

SEGMENTS_KEPT = 2048 // 16
"""min_wal_size, in segments."""
_WARM: tuple[LiteralString, ...] = (
    "CREATE UNLOGGED TABLE warm (filling text)",
    "ALTER TABLE warm ALTER COLUMN filling SET STORAGE PLAIN",
    "INSERT INTO warm SELECT repeat('x', 7000) FROM generate_series(1, 2048 * 128)",
    "DROP TABLE warm",
)
"""As many pages as shared_buffers has."""

RUN = "bench_run"
KEYS: Mapping[str, tuple[LiteralString, LiteralString]] = {
    "sequential": ("bigint", "g"),
    "random": ("bigint", "hashint8extended(g, 0)"),
    "uuid": ("uuid", "gen_random_uuid()"),
}
"""A key's type, and its value in row g."""

_FILL: tuple[LiteralString, ...] = (
    "CREATE EXTENSION pg_stat_statements",
    """
    CREATE TABLE users (
        id {type} NOT NULL, email text NOT NULL, legacy_phone text NOT NULL, phone text,
        touched integer NOT NULL DEFAULT 0, created_at timestamptz NOT NULL DEFAULT now(), pad text NOT NULL
    ) WITH (fillfactor = {fillfactor})
    """,
    """
    INSERT INTO users (id, email, legacy_phone, pad)
    SELECT {key}, 'user' || g || '@example.org', '+44 20 ' || lpad(CAST(g AS text), 9, '0'), repeat('x', 88)
    FROM generate_series(1, {rows}) AS g
    """,
    "ALTER TABLE users ADD PRIMARY KEY (id)",
    "CREATE INDEX users_email ON users (email)",
)

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


class Stage:
    """One server and the databases on it."""

    def __init__(self, server: EmbeddedServer, settings: Mapping[str, str]) -> None:
        self.server = server
        self._settings = settings
        self._bases: set[str] = set()

    @property
    def dsn(self) -> str:
        """Of the database that the runs find their table in."""
        return self.server.dsn_of(RUN)

    async def run_in(self) -> None:
        """Leaves it as one that has run for a while: with as many WAL segments to use again as min_wal_size keeps, and
        with shared buffers that were all in use. On a server that has just been born a run waits for each new segment
        to be written with zeros, 60 ms a time, and the first one for the kernel to find 2 GB: a fifth of its time."""
        async with self.connected("postgres") as connection:
            for statement in _WARM:
                await connection.execute(statement)
            for _ in range(SEGMENTS_KEPT):
                await connection.execute("SELECT pg_logical_emit_message(false, 'bench', repeat('x', 15000000))")
                await connection.execute("SELECT pg_switch_wal()")
            await connection.execute("CHECKPOINT")

    async def set(self, settings: Mapping[str, str]) -> None:
        """Has the server run with these on top of its own, once it says so."""
        before = await self._loaded_at()
        self.server.settings = {**self.server.settings, **self._settings, **settings}
        await self.server.reload()

        async def loaded() -> bool:
            return bool(await self._loaded_at() != before)

        await eventually(loaded)

    async def forget_bases(self) -> None:
        """Drops the databases that runs were copied from, for others need their room."""
        for name in (RUN, *self._bases):
            await self._drop(name)
        self._bases.clear()

    async def fresh(self, table: Table, rows: int) -> None:
        """The run's database with the table as it was made, vacuumed, analysed, checkpointed and on disk: what the
        system still writes from before would have the first runs wait."""
        base = await self._base(table, rows)
        await self._drop(RUN)
        async with self.connected("postgres") as connection:
            await connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                    sql.Identifier(RUN), sql.Identifier(base)
                )
            )
        async with self.connected() as connection:
            await connection.execute("VACUUM (ANALYZE) users")
            await connection.execute("CHECKPOINT")
        await asyncio.to_thread(os.sync)

    async def end_sessions(self) -> None:
        """Ends every session in the run's database, and returns once none is left."""

        async def none() -> bool:
            async with self.connected("postgres") as connection:
                rows = await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [RUN]
                )
                return not await rows.fetchall()

        await eventually(none, within=60)

    @asynccontextmanager
    async def connected(self, database: str = RUN) -> AsyncIterator[Connection]:
        """A superuser's connection to one of the databases."""
        async with await psycopg.AsyncConnection.connect(
            self.server.dsn_of(database), autocommit=True, application_name="bench", connect_timeout=10
        ) as connection:
            yield connection

    async def _loaded_at(self) -> Any:
        async with self.connected("postgres") as connection:
            rows = await connection.execute("SELECT pg_conf_load_time()")
            [(at,)] = await rows.fetchall()
            return at

    async def _base(self, table: Table, rows: int) -> str:
        name = f"base_{table.name}_{rows}"
        if name not in self._bases:
            async with self.connected("postgres") as connection:
                await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            self._bases.add(name)
            await self._fill(table, rows, name)
        return name

    async def _fill(self, table: Table, rows: int, name: str) -> None:
        kind, key = KEYS[table.key]
        known = {"type": sql.SQL(kind), "key": sql.SQL(key)}
        numbers = {"fillfactor": sql.Literal(table.fillfactor), "rows": sql.Literal(rows)}
        async with self.connected(name) as connection:
            for statement in _FILL:
                await connection.execute(sql.SQL(statement).format(**known, **numbers))
            for statement in table.also:
                await connection.execute(statement)
            await connection.execute("VACUUM (ANALYZE) users")
        await schema.ensure(Connector(self.server.dsn_of(name)))

    async def _drop(self, name: str) -> None:
        async with self.connected("postgres") as connection:
            await connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@asynccontextmanager
async def stage(major: int, settings: Mapping[str, str]) -> AsyncIterator[Stage]:
    """A server of *major* with SETTINGS and *settings*, gone in the end."""
    wanted = {**SETTINGS, **settings}
    async with EmbeddedServer(server_binaries(major), settings=wanted, listen="tcp") as server:
        at = Stage(server, wanted)
        await at.run_in()
        yield at


@asynccontextmanager
async def old_snapshot(at: Stage) -> AsyncIterator[None]:
    """A transaction whose snapshot is as old as this context."""
    async with at.connected() as connection, connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await connection.execute("SELECT count(*) FROM pg_class")
        yield


@asynccontextmanager
async def one_checkpoint(at: Stage, after_bytes: int) -> AsyncIterator[None]:
    """A CHECKPOINT once so much WAL has been written."""
    task = asyncio.create_task(_checkpoint(at, after_bytes))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _checkpoint(at: Stage, after_bytes: int) -> None:
    async with at.connected("postgres") as connection:
        began = await lsn(connection)
        while await lsn(connection) - began < after_bytes:  # noqa: ASYNC110  # a server announces no such thing
            await asyncio.sleep(0.1)
        await connection.execute("CHECKPOINT")


async def lsn(connection: Connection) -> int:
    """Where the WAL ends, in bytes."""
    rows = await connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")
    [(at,)] = await rows.fetchall()
    return int(at)
