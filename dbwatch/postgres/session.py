"""Sessions by role. Every call has a deadline that closes the socket, so that nothing waits on a silent server.

Cancelling a psycopg task on a stopped server takes ten seconds (it asks the server first); shutting the socket
down takes none. So a deadline that passes, or a caller that is cancelled, severs the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, LiteralString, TypeVar
from weakref import WeakSet

import psycopg
from psycopg import sql
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import class_row, tuple_row

from dbwatch.errors import CannotConnect, ConnectionLost, ServerSilent
from dbwatch.postgres.conninfo import hide_password, normalize_dsn, refused, require_readable, shown
from dbwatch.text import one_line

T = TypeVar("T")
Query = LiteralString | bytes | sql.SQL | sql.Composed
Connection = psycopg.AsyncConnection[tuple[Any, ...]]
Params = Sequence[Any] | Mapping[str, Any] | None
Results = list[list[tuple[Any, ...]]]
"""Of several statements, each with its rows."""


class Role(StrEnum):
    """What a connection is for; part of its application_name."""

    MONITOR = "monitor"
    """Polling, read only."""
    CONTROL = "control"
    """Cancel and terminate; never waits behind polling or the journal."""
    PROBE = "probe"
    """Definitions and real sizes, one relation at a time, under a short lock_timeout."""
    JOURNAL = "journal"
    """Appends and reads events."""
    WORKER = "worker"
    """Runs sql and check steps, and backfill batches."""
    MIGRATE = "migrate"
    """Alembic's own, opened in its child process."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Server-side limits of a session, in milliseconds; 0 is none."""

    lock_timeout_ms: int
    statement_timeout_ms: int
    idle_in_transaction_ms: int = 5_000

    def without_timeouts(self) -> Limits:
        """For CONCURRENTLY and its like: they obey lock_timeout while they wait for old transactions, and fail
        half-way; the screen shows whom they wait for, and a person ends them."""
        return replace(self, lock_timeout_ms=0, statement_timeout_ms=0)


LIMITS: Mapping[Role, Limits] = {
    Role.MONITOR: Limits(lock_timeout_ms=500, statement_timeout_ms=2_000),
    Role.CONTROL: Limits(lock_timeout_ms=500, statement_timeout_ms=2_000),
    Role.PROBE: Limits(lock_timeout_ms=100, statement_timeout_ms=10_000),
    Role.JOURNAL: Limits(lock_timeout_ms=2_000, statement_timeout_ms=5_000),
    Role.WORKER: Limits(lock_timeout_ms=2_000, statement_timeout_ms=60_000),
    Role.MIGRATE: Limits(lock_timeout_ms=2_000, statement_timeout_ms=60_000),
}

_SPEAKS_THE_USERS = (Role.WORKER, Role.MIGRATE)
"""Roles that run the users' SQL, under the settings of the users' role; on the others the driver has to read dates."""

_OURS: LiteralString = "SET default_transaction_isolation = 'read committed'"
"""What a role or a database may have set otherwise, and no session of ours can work with: under a stricter level the
journal's row, whose lease is renewed all the while, could not be written at the end of a step of some length."""
_READABLE: LiteralString = (
    "SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET standard_conforming_strings = on"
)
"""And what the driver cannot read, or our own SQL is not written for."""

_KEEPALIVE: Mapping[str, Any] = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


def describe(error: BaseException) -> str:
    """What *error* says, on one line, harmless: the server's primary message with its SQLSTATE, or its text."""
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        state = f" ({error.sqlstate})" if error.sqlstate else ""
        return one_line(error.diag.message_primary, 500) + state
    return one_line(str(error), 500) or type(error).__name__


class _Patient(psycopg.AsyncConnection[tuple[Any, ...]]):
    """Sleeps until there is an answer. The driver looks up from every wait ten times a second, for an interrupt that in
    our event loop comes by itself; and a call that takes too long has its socket shut, which ends the wait at once."""

    async def wait(self, gen: PQGen[T], interval: float = 60.0, *rest: Any, **more: Any) -> T:
        return await super().wait(gen, interval, *rest, **more)


class Session:
    """One connection in a role. Not for two callers at once: the second waits for the first, within its deadline."""

    def __init__(self, connection: Connection, role: Role, tag: str = "") -> None:
        self.role = role
        self.tag = tag
        self.pid = connection.info.backend_pid
        """The backend as the startup packet named it; behind a pooler it is not the one that pg_backend_pid tells."""
        self.pooled = False
        """A pooler lies between: a backend is ours for a transaction only, and no session setting was made."""
        self._connection = connection
        self._busy = asyncio.Lock()

    @property
    def alive(self) -> bool:
        """False once the connection was severed, closed or lost."""
        return not self._connection.closed

    @property
    def server_version(self) -> int:
        """As server_version_num: 150018 is 15.18."""
        return self._connection.info.server_version

    async def call(self, work: Callable[[Connection], Awaitable[T]], *, within: float) -> T:
        """The result of *work* on this connection, within so many seconds.

        Raises ServerSilent where the deadline passes (the connection is closed then), ConnectionLost where the
        connection ended, and psycopg.Error where the server refused a statement.
        """

        async def alone() -> T:
            async with self._busy:
                return await work(self._connection)

        if not self.alive:
            raise ConnectionLost(f"the {self.role} connection is closed", next="reconnect")
        task = asyncio.ensure_future(alone())
        task.add_done_callback(_read)
        try:
            done, _ = await asyncio.wait({task}, timeout=within)
        except asyncio.CancelledError:
            await self._abandon(task)
            raise
        if not done:
            await self._abandon(task)
            raise ServerSilent(
                f"no answer on the {self.role} connection within {within:g} s",
                why="the server or the network is stuck",
                next="the connection was closed and will be opened again",
            )
        try:
            return task.result()
        except psycopg.OperationalError as error:
            if self._connection.closed:
                raise ConnectionLost(
                    f"the {self.role} connection was lost", why=describe(error), next="reconnect"
                ) from error
            raise

    async def _abandon(self, task: asyncio.Future[Any]) -> None:
        self.sever()
        await asyncio.wait({task}, timeout=0.5)
        if not task.done():
            task.cancel()

    async def values(self, query: Query, params: Params = None, *, within: float = 5.0) -> list[tuple[Any, ...]]:
        """All rows of *query* as tuples. Raises as `call` does."""

        async def work(connection: Connection) -> list[tuple[Any, ...]]:
            async with connection.cursor(row_factory=tuple_row) as cursor:
                await cursor.execute(query, params)
                return await cursor.fetchall() if cursor.description else []

        return await self.call(work, within=within)

    async def results(self, queries: Sequence[tuple[Any, Params]], *, within: float = 5.0) -> Results:
        """The rows of each of several *queries* with its parameters, sent as one message; they are bound on our side.
        Statements that give none are left out. One answer instead of many is what costs our side least.

        Raises as `call` does; then those before the one that was refused are done only as far as they were committed.
        """

        async def work(connection: Connection) -> Results:
            async with psycopg.AsyncClientCursor(connection) as cursor:
                await cursor.execute(";\n".join(cursor.mogrify(query, params) for query, params in queries))
                found: Results = []
                more: bool | None = True
                while more:
                    if cursor.pgresult is not None and cursor.pgresult.nfields:
                        found.append(await cursor.fetchall())
                    more = cursor.nextset()
                return found

        return await self.call(work, within=within)

    async def fetch(self, kind: type[T], query: Query, params: Params = None, *, within: float = 5.0) -> list[T]:
        """All rows of *query* as values of *kind*, built by column name. Raises as `call` does."""

        async def work(connection: Connection) -> list[T]:
            async with connection.cursor(row_factory=class_row(kind)) as cursor:
                await cursor.execute(query, params)
                return await cursor.fetchall()

        return await self.call(work, within=within)

    async def execute(self, query: Query, params: Params = None, *, within: float = 5.0) -> int:
        """Runs *query*; the number of rows it touched, -1 where that has no meaning. Raises as `call` does."""

        async def work(connection: Connection) -> int:
            return (await connection.execute(query, params)).rowcount

        return await self.call(work, within=within)

    async def settle(self, limits: Limits) -> None:
        """Finds out whether a pooler lies between, and sets what the role asks for. Belongs to opening it."""
        async with self._busy:
            connection = self._connection
            found = await (await connection.execute("SELECT pg_catalog.pg_backend_pid()")).fetchone()
            self.pooled = found != (self.pid,)
            if self.pooled:  # a setting would stay with whoever is given this backend next
                return
            await connection.execute(_settings(limits, self.server_version))
            await connection.execute(_OURS if self.role in _SPEAKS_THE_USERS else f"{_OURS}; {_READABLE}")
            if self.role is Role.MONITOR:
                await connection.execute("SET default_transaction_read_only = on; SET jit = off")

    async def limit(self, limits: Limits, *, within: float = 5.0) -> None:
        """Sets the session's server-side limits. Raises as `call` does."""
        await self.execute(_settings(limits, self.server_version), within=within)

    async def cancel(self, *, within: float = 2.0) -> None:
        """Has the server cancel what runs here now, as its caller will learn; asked on a connection of its own, which
        needs no privilege and goes through a pooler. Raises psycopg.Error where the server did not hear of it."""
        await self._connection.cancel_safe(timeout=within)

    def sever(self) -> None:
        """Shuts the socket down at once: whoever waits on it is woken with an error. Never blocks."""
        shut_down(self._connection)
        if not self._busy.locked():
            self._connection.pgconn.finish()

    async def close(self) -> None:
        """Ends the session politely where that is instant; severs it where a call is under way."""
        if self._busy.locked():
            self.sever()
        else:
            await self._connection.close()


def shut_down(connection: psycopg.AsyncConnection[Any] | psycopg.Connection[Any]) -> None:
    """Shuts down the socket of *connection*: whoever waits on it, in any thread, is woken with an error."""
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as s:
        s.shutdown(socket.SHUT_RDWR)


def _settings(limits: Limits, version: int) -> sql.Composed:
    settings = {
        "lock_timeout": limits.lock_timeout_ms,
        "statement_timeout": limits.statement_timeout_ms,
        "idle_in_transaction_session_timeout": limits.idle_in_transaction_ms,
    }
    if version >= 140_000:
        settings["client_connection_check_interval"] = 500
        settings["idle_session_timeout"] = 0
    if version >= 170_000:
        settings["transaction_timeout"] = 0  # it would cut CREATE INDEX CONCURRENTLY short
    return sql.SQL("; ").join(
        sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(str(value))) for name, value in settings.items()
    )


def _give_up(task: asyncio.Future[Session], begun: list[Session]) -> None:
    """Ends an attempt to connect at once: a psycopg task that is cancelled asks the server first."""
    for session in begun:
        session.sever()
    if not begun:
        task.cancel()


def _read(task: asyncio.Future[Any]) -> None:
    """Takes notice of the error of a call that its caller gave up, so that asyncio does not complain of it."""
    if not task.cancelled():
        task.exception()


class Connector:
    """Opens sessions to one target. *tag* follows the role in application_name: `dbwatch worker 3f9c/4`.

    Raises UsageError where a connection string cannot be read.
    """

    def __init__(self, dsn: str, *, roles: Mapping[Role, str] | None = None, tag: str = "") -> None:
        self._dsn = normalize_dsn(dsn)
        self._roles = {role: normalize_dsn(text) for role, text in (roles or {}).items()}
        self._sessions: WeakSet[Session] = WeakSet()
        self.tag = tag
        for text in (self._dsn, *self._roles.values()):
            require_readable(text)
        named = (conninfo_to_dict(text).get("user") for text in (self._dsn, *self._roles.values()))
        self._users = {str(user) for user in named if user}

    def __repr__(self) -> str:
        return f"Connector({hide_password(self._dsn)!r})"

    def tagged(self, tag: str) -> Connector:
        """The same target under another tag; `sever` of either ends the sessions of both."""
        other = Connector(self._dsn, roles=self._roles, tag=tag)
        other._sessions, other._users = self._sessions, self._users
        return other

    def sever(self) -> None:
        """Shuts down every session that was opened here, whoever waits on it: the last thing before we leave."""
        for session in list(self._sessions):
            session.sever()

    def dsn(self, role: Role = Role.WORKER) -> str:
        """The connection string of *role*, with whatever password it carries: never for the screen or a log."""
        return self._roles.get(role, self._dsn)

    @property
    def apart(self) -> tuple[Role, ...]:
        """The roles that have a connection string of their own."""
        return tuple(self._roles)

    @property
    def users(self) -> frozenset[str]:
        """The server's roles that we log in as: those that the connection strings name, and those that sessions were
        opened as, which libpq may have taken from PG* variables or a service."""
        return frozenset(self._users)

    async def open(
        self, role: Role, *, within: float = 10.0, limits: Limits | None = None, login: Role | None = None
    ) -> Session:
        """A new session in *role*, autocommit, with the role's limits set; *login*: by another's connection string.

        Raises CannotConnect, with a sentence that names the cause, and never later than *within* seconds.
        """
        begun: list[Session] = []
        task = asyncio.ensure_future(self._connect(role, login or role, within, limits or LIMITS[role], begun))
        task.add_done_callback(_read)
        try:
            done, _ = await asyncio.wait({task}, timeout=within)
        except asyncio.CancelledError:
            _give_up(task, begun)
            raise
        if not done:
            _give_up(task, begun)
            raise CannotConnect(
                f"cannot connect to {shown(self.dsn(login or role))}",
                why=f"no answer within {within:g} s",
                next="check the address, the network and the server",
            )
        try:
            return task.result()
        except psycopg.Error as error:
            raise refused(self.dsn(login or role), describe(error)) from error

    async def _connect(self, role: Role, login: Role, within: float, limits: Limits, begun: list[Session]) -> Session:
        name = f"dbwatch {role}" + (f" {self.tag}" if self.tag else "")
        connection = await _Patient.connect(
            self.dsn(login),
            client_encoding="utf8",
            autocommit=True,
            prepare_threshold=None,
            application_name=name,
            connect_timeout=max(2, round(within)),
            **_KEEPALIVE,
        )
        session = Session(connection, role, self.tag)
        begun.append(session)
        self._sessions.add(session)
        self._users.add(connection.info.user)
        try:
            await session.settle(limits)
        except BaseException:
            session.sever()
            raise
        return session


def with_limits(role: Role, *, lock_timeout_ms: int | None = None, statement_timeout_ms: int | None = None) -> Limits:
    """The limits of *role*, with those given in place of the role's own."""
    own = LIMITS[role]
    return replace(
        own,
        lock_timeout_ms=own.lock_timeout_ms if lock_timeout_ms is None else lock_timeout_ms,
        statement_timeout_ms=own.statement_timeout_ms if statement_timeout_ms is None else statement_timeout_ms,
    )
