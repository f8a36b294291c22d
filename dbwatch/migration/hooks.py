"""Hooks on SQLAlchemy in the child: every connection that env.py makes is checked, set up, watched and fenced.

They work on any env.py, unmodified, sync or async: all of them sit on the Engine class. What goes past SQLAlchemy
(a cursor of the driver's own) is neither streamed nor fenced before the next commit through SQLAlchemy.

The fence. The epoch is read in SQLAlchemy's `commit` event, which comes before the COMMIT, and a wrong one rolls back.
In READ COMMITTED it is read in the migration's own transaction, FOR SHARE: whoever takes over waits for our commit, or
we see the new epoch. Stricter levels would see an old one, or fail on the journal's writes: there another connection
reads it, just before the COMMIT. An autocommit block first commits what is pending, which is such a commit; its
statements then commit themselves, so each is checked before it is sent, and from then on nothing can fence it but the
end of its session.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from dbwatch.errors import DbwatchError, Fenced
from dbwatch.migration.answers import Answers
from dbwatch.migration.ddl import Action, Named
from dbwatch.migration.events import Connected, LogLine, StatementDone, StatementStarted
from dbwatch.migration.grammar import plain, read
from dbwatch.migration.leash import Leash
from dbwatch.migration.request import Ask
from dbwatch.postgres.queries import query

_SQL_SHOWN = 20_000
"""Characters of a statement that are reported."""


class Elsewhere(DbwatchError):
    """env.py connected to something else than the database it was given."""


class Stopped(DbwatchError):
    """We were asked to stop, and did so before the next statement or commit."""


@dataclass(slots=True)
class _Link:
    """What we know of one connection of env.py's."""

    pid: int
    backend_start: datetime
    driver: Any
    """The driver's own connection object; lives as long as the connection does."""
    fence: tuple[str, str] | None = None
    """The queries that read the epoch, plainly and FOR SHARE; None where there is nothing to check."""
    lifted: tuple[str, str] | None = None
    """lock_timeout and statement_timeout as they were, while both are off."""
    n: int = 0
    began: float = 0.0
    creates: list[Named] = field(default_factory=list)


class Hooks:
    """Installed once, in a process that does nothing else."""

    def __init__(self, ask: Ask, answers: Answers, leash: Leash) -> None:
        self._ask = ask
        self._answers = answers
        self._leash = leash
        self._links: list[_Link] = []
        self._n = 0
        self._blind = False
        self.revision: str | None = None
        """The revision that runs now; set by whoever hands the steps to Alembic."""

    def install(self) -> None:
        """Hooks every engine there is and will be."""
        event.listen(Engine, "connect", self._connect)
        event.listen(Engine, "before_cursor_execute", self._before)
        event.listen(Engine, "after_cursor_execute", self._after)
        event.listen(Engine, "commit", self._commit)

    def cancel(self, terminate: bool) -> None:
        """Cancels (or terminates) the backends of our own connections, from any thread. Raises nothing."""
        for link in list(self._links):
            if isinstance(link.driver, psycopg.Connection | psycopg.AsyncConnection) and not terminate:
                with contextlib.suppress(psycopg.Error):
                    link.driver.cancel()
                continue
            with (
                contextlib.suppress(psycopg.Error),
                psycopg.connect(self._ask.dsn, autocommit=True, connect_timeout=2) as connection,
            ):
                wish = {
                    "pid": link.pid,
                    "backend_start": link.backend_start,
                    "query_start": None,
                    "terminate": terminate,
                }
                connection.execute(query("signal", connection.info.server_version), wish)

    def _connect(self, dbapi: Any, record: Any) -> None:
        """Checks where a new connection leads, sets it up, and commits that."""
        link, version = self._verified(dbapi)
        record.info["dbwatch"] = link
        limits = {
            "application_name": self._ask.application_name,
            "lock_timeout": str(self._ask.lock_timeout_ms),
            "statement_timeout": str(self._ask.statement_timeout_ms),
        }
        if version >= 140_000:
            limits["client_connection_check_interval"] = "500"
        _run(dbapi, _set(limits))
        link.fence = self._fence(dbapi)
        dbapi.commit()
        _keep_alive(link.driver)
        self._links.append(link)
        self._answers.send(Connected(link.pid, link.backend_start))

    def _verified(self, dbapi: Any) -> tuple[_Link, int]:
        try:
            [(pid, started, version, *where, name)] = _run(dbapi, query("migration-identity", 130_000).decode())
        except Exception as error:  # any driver's error class: it is not PostgreSQL that answers
            said = next(iter(str(error).splitlines()), "")
            raise Elsewhere("env.py connected to something that is not PostgreSQL", why=said) from error
        if where != [self._ask.system_identifier, self._ask.database_oid, self._ask.started_at]:
            raise Elsewhere(
                f"env.py connected to another database ({name}) than the one this step is for",
                why="it takes its URL from elsewhere than sqlalchemy.url",
                next="let env.py use config.get_main_option('sqlalchemy.url'), or set what it reads for this target",
            )
        start = datetime.fromisoformat(started).replace(tzinfo=UTC)
        return _Link(pid, start, getattr(dbapi, "driver_connection", dbapi)), version

    def _fence(self, dbapi: Any) -> tuple[str, str] | None:
        """The queries that read our window's epoch on this connection, or None where the journal is elsewhere."""
        rows = _run(dbapi, query("migration-fence", 130_000).decode())
        if not self._ask.window or not rows:
            return None
        [(readable, lockable)] = rows
        if not readable:
            if not self._blind:
                self._blind = True
                said = "dbwatch: this role may not read dbwatch.window, so the epoch is not checked before commits"
                self._answers.send(LogLine(said))
            return None
        plainly, locked = (
            sql.SQL(query(name, 130_000).decode()).format(window=self._ask.window).as_string()
            for name in ("migration-epoch", "migration-epoch-locked")
        )
        return (plainly, locked if lockable else plainly) if _run(dbapi, plainly) else None

    def _check(self, dbapi: Any, link: _Link) -> None:
        """Raises Stopped or Fenced where nothing of ours may be done or committed any more."""
        if self._leash.pulled:
            raise Stopped("stopped before the next statement or commit")
        if link.fence is not None and self._epoch(dbapi, link.fence) != [(self._ask.epoch,)]:
            raise Fenced("somebody else drives this window now", why="its epoch has moved on", next="attach to it")

    def _epoch(self, dbapi: Any, fence: tuple[str, str]) -> list[tuple[Any, ...]]:
        plainly, locked = fence
        if _run(dbapi, "SELECT current_setting('transaction_isolation')") == [("read committed",)]:
            return _run(dbapi, locked)
        with psycopg.connect(self._ask.dsn, autocommit=True, connect_timeout=5) as another:
            return another.execute(plainly.encode()).fetchall()

    def _before(self, connection: Connection, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        link, dbapi = _link(connection)
        reading = read(plain(statement))
        autocommit = bool(getattr(dbapi, "autocommit", False))
        if autocommit:
            self._check(dbapi, link)
        elif self._leash.pulled:
            raise Stopped("stopped before the next statement")
        if autocommit and reading.concurrently:
            _lift(dbapi, link)
        else:
            _restore(dbapi, link)
        objects = tuple(_resolved(dbapi, named) for named in reading.named)
        self._n += 1
        link.n, link.began = self._n, time.monotonic()
        link.creates = [named for named in objects if named.action is Action.CREATE]
        started = StatementStarted(
            n=self._n,
            sql=plain(statement)[:_SQL_SHOWN],
            revision=self.revision,
            autocommit=autocommit,
            concurrently=reading.concurrently,
            objects=objects,
            known=reading.known,
        )
        self._answers.send(started, droppable=reading.known and not objects)

    def _after(self, connection: Connection, *_: Any) -> None:
        link, dbapi = _link(connection)
        seconds = time.monotonic() - link.began
        _restore(dbapi, link)
        made = _made(dbapi, link.creates)
        self._answers.send(StatementDone(link.n, seconds, made), droppable=not made)
        link.creates = []

    def _commit(self, connection: Connection) -> None:
        link, dbapi = _link(connection)
        if self._ask.read_only:
            dbapi.rollback()
            return
        try:
            self._check(dbapi, link)
        except DbwatchError:
            dbapi.rollback()
            raise


def schema_of(connection: Connection | None, table: str) -> str | None:
    """The schema in which *table* is found by the connection's search_path, or would be made."""
    if connection is None:
        return None
    text = sql.SQL(query("migration-schema", 130_000).decode()).format(relation=table).as_string()
    [(current, found)] = _run(connection.connection.dbapi_connection, text)
    schema = found or current
    return schema if isinstance(schema, str) else None


def _link(connection: Connection) -> tuple[_Link, Any]:
    """Our knowledge of a connection and its DBAPI face. Raises Elsewhere for one that no hook saw being made."""
    link = connection.info.get("dbwatch")
    if not isinstance(link, _Link):
        raise Elsewhere("env.py uses a connection that was not made through an SQLAlchemy engine")
    return link, connection.connection.dbapi_connection


def _run(dbapi: Any, text: str) -> list[tuple[Any, ...]]:
    """Runs *text*, past SQLAlchemy's events and without parameters, whose style every driver has its own of."""
    cursor = dbapi.cursor()
    try:
        cursor.execute(text)
        return [tuple(row) for row in cursor.fetchall()]
    finally:
        cursor.close()


def _set(values: dict[str, str]) -> str:
    calls = [sql.SQL("set_config({}, {}, false)").format(name, value) for name, value in values.items()]
    return sql.SQL("SELECT {}").format(sql.SQL(", ").join(calls)).as_string()


def _lift(dbapi: Any, link: _Link) -> None:
    """Turns lock_timeout and statement_timeout off: CREATE INDEX CONCURRENTLY obeys them while it waits for old
    transactions, and leaves an INVALID index. Whoever is waited for is shown, and a person may cancel."""
    if link.lifted is None:
        [(lock, statement)] = _run(
            dbapi, "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
        )
        _run(dbapi, _set({"lock_timeout": "0", "statement_timeout": "0"}))
        link.lifted = (lock, statement)


def _restore(dbapi: Any, link: _Link) -> None:
    """Turns them on again: after the statement, or before the next one where it failed."""
    if link.lifted is not None:
        lock, statement = link.lifted
        _run(dbapi, _set({"lock_timeout": lock, "statement_timeout": statement}))
        link.lifted = None


_MADE_IN_CURRENT_SCHEMA = frozenset(
    {"table", "view", "materialized view", "foreign table", "sequence", "type", "domain", "function", "procedure"}
    | {"aggregate", "statistics"}
)


def _resolved(dbapi: Any, named: Named) -> Named:
    """*named* with the schema that the search_path gives it now."""
    if named.schema is not None:
        return named
    relation = named.parent or named.name
    text = sql.SQL(query("migration-schema", 130_000).decode()).format(relation=relation).as_string()
    [(current, found)] = _run(dbapi, text)
    if named.action is Action.CREATE and named.parent is None and named.kind in _MADE_IN_CURRENT_SCHEMA:
        return replace(named, schema=current)
    return replace(named, schema=found or (current if named.parent else None))


def _made(dbapi: Any, creates: Sequence[Named]) -> tuple[Named, ...]:
    """*creates* with their OIDs, and with the names that the server chose where the statement gave none."""
    made: list[Named] = []
    unnamed: dict[tuple[str, str | None, str | None], int] = {}
    for named in creates:
        if named.name:
            made.extend(_found(dbapi, named, 1))
        else:
            spot = (named.kind, named.schema, named.parent)
            unnamed[spot] = unnamed.get(spot, 0) + 1
    for (kind, schema, parent), count in unnamed.items():
        made.extend(_found(dbapi, Named(Action.CREATE, kind, schema, "", parent), count))
    return tuple(made)


def _found(dbapi: Any, named: Named, count: int) -> list[Named]:
    text = sql.SQL(query("migration-made", 130_000).decode())
    rows = _run(
        dbapi,
        text.format(
            kind=named.kind, schema=named.schema or "", name=named.name, parent=named.parent or "", count=count
        ).as_string(),
    )
    return [replace(named, name=name, oid=oid) for oid, name in rows]


def _keep_alive(driver: Any) -> None:
    """A dead network is noticed in seconds, as on dbwatch's own connections."""
    options = (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 5),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 2),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 10_000),
    )
    with contextlib.suppress(OSError, AttributeError), socket.socket(fileno=os.dup(driver.fileno())) as link:
        for level, name, value in options:
            with contextlib.suppress(OSError, AttributeError):  # a Unix socket, or a system without it
                link.setsockopt(level, getattr(socket, name), value)
