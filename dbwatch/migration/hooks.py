"""Hooks on SQLAlchemy in the child: every connection that env.py makes is checked, set up, watched and fenced.

They work on any env.py, unmodified, sync or async: all of them sit on the Engine class. What goes past SQLAlchemy
(a cursor of the driver's own) is neither streamed nor fenced before the next commit through SQLAlchemy.

The fence. The epoch is read in SQLAlchemy's `commit` event, which comes before the COMMIT, and a wrong one rolls back.
In READ COMMITTED it is read in the migration's own transaction, FOR SHARE: whoever takes over waits for our commit, or
we see the new epoch. Stricter levels would see an old one, or fail on the journal's writes: there another connection
reads it, just before the COMMIT. An autocommit block first commits what is pending, which is such a commit; its
statements then commit themselves, so each is checked before it is sent, and from then on nothing can fence it but the
end of its session.

The receipts. Where the parent keeps what we tell, nothing is committed that it has not kept: before the check of the
epoch we wait for its word. A statement that commits by itself has no locks while it waits; a transaction has, so its
wait has an end.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
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
from dbwatch.migration.lookups import drop_invalid, in_effect, invalid, made, resolved, run
from dbwatch.migration.request import Ask
from dbwatch.migration.unusable import Unusable
from dbwatch.postgres.queries import query
from dbwatch.text import one_line

_SQL_SHOWN = 20_000
"""Characters of a statement that are reported."""

_COMMITS = re.compile(r"\s*(COMMIT|END)\b", re.IGNORECASE)
"""A COMMIT as text, which SQLAlchemy's `commit` event does not see."""

_ASKS = re.compile(r"\s*(SELECT|SHOW|WITH|SAVEPOINT|RELEASE|ROLLBACK)\b", re.IGNORECASE)
"""What may be sent while we only listen; the transaction is read only besides."""

_NOTHING = "SELECT NULL WHERE false"
"""What is sent in place of a statement that is in effect already."""


class Elsewhere(DbwatchError):
    """env.py connected to something else than the database it was given."""


class Stopped(DbwatchError):
    """We were asked to stop, and did so before the next statement or commit."""


class Unkept(DbwatchError):
    """The journal did not take in time what was about to be committed."""


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
    skipped: bool = False
    """The statement was not sent: its effect is there already."""
    lasting: bool = False
    """As of `StatementStarted`."""


class Hooks:
    """Installed once, in a process that does nothing else."""

    def __init__(self, ask: Ask, answers: Answers, leash: Leash) -> None:
        self._ask = ask
        self._answers = answers
        self._leash = leash
        self._links: list[_Link] = []
        self._n = 0
        self._receipt = 0
        """Of the last event that the parent has to keep; 0: none."""
        self._blind = False
        self._heard: list[str] | None = None
        """What would have been sent, where we only listen."""
        self.revision: str | None = None
        """The revision that runs now; set by whoever hands the steps to Alembic."""

    def install(self) -> None:
        """Hooks every engine there is and will be."""
        event.listen(Engine, "connect", self._connect)
        event.listen(Engine, "before_cursor_execute", self._before, retval=True)
        event.listen(Engine, "after_cursor_execute", self._after)
        event.listen(Engine, "commit", self._commit)

    @contextlib.contextmanager
    def hearing(self) -> Iterator[list[str]]:
        """Within, only questions are sent; every other statement is collected instead, in the list that this gives."""
        heard: list[str] = []
        self._heard = heard
        try:
            yield heard
        finally:
            self._heard = None

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
        if self._ask.what == "preview":
            limits["default_transaction_read_only"] = "on"
        if version >= 140_000:
            limits["client_connection_check_interval"] = "500"
        run(dbapi, _set(limits))
        link.fence = self._fence(dbapi)
        dbapi.commit()
        _keep_alive(link.driver)
        self._links.append(link)
        self._answers.send(Connected(link.pid, link.backend_start))

    def _verified(self, dbapi: Any) -> tuple[_Link, int]:
        try:
            [(pid, started, version, *where, name)] = run(dbapi, query("migration-identity", 130_000).decode())
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
        rows = run(dbapi, query("migration-fence", 130_000).decode())
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
        return (plainly, locked if lockable else plainly) if run(dbapi, plainly) else None

    def _next_receipt(self) -> int:
        if self._ask.kept_within_s:
            self._receipt += 1
        return self._receipt

    def _kept(self, within: float | None = None) -> None:
        """Waits until all that we told is kept. Raises Unkept where that takes too long; a stop ends it too."""
        if self._receipt and not self._leash.wait_kept(self._receipt, within) and not self._leash.pulled:
            raise Unkept(
                f"rolled back: the journal did not take what this transaction did within {self._ask.kept_within_s:g} s",
                why="nothing is committed that an abort would not know of",
            )

    def _check(self, dbapi: Any, link: _Link) -> None:
        """Raises Stopped or Fenced where nothing of ours may be done or committed any more."""
        if self._leash.pulled:
            raise Stopped("stopped before the next statement or commit")
        if link.fence is not None and self._epoch(dbapi, link.fence) != [(self._ask.epoch,)]:
            raise Fenced("somebody else drives this window now", why="its epoch has moved on", next="attach to it")

    def _epoch(self, dbapi: Any, fence: tuple[str, str]) -> list[tuple[Any, ...]]:
        plainly, locked = fence
        if run(dbapi, "SELECT current_setting('transaction_isolation')") == [("read committed",)]:
            return run(dbapi, locked)
        with psycopg.connect(self._ask.dsn, autocommit=True, connect_timeout=5) as another:
            return another.execute(plainly.encode()).fetchall()

    def _before(self, connection: Connection, cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        """What is sent in the end: the statement as it is, or nothing of effect where it is in effect already."""
        link, dbapi = _link(connection)
        if self._heard is not None and not _ASKS.match(statement):
            self._heard.append(plain(statement))
            return _NOTHING, type(parameters)()
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
        objects = tuple(resolved(dbapi, named) for named in reading.named)
        link.skipped = self._ask.resume and self._done_before(dbapi, objects, autocommit and reading.concurrently)
        if link.skipped:
            self._answers.send(LogLine(f"dbwatch: done already, not sent again: {one_line(plain(statement), 500)}"))
            return _NOTHING, parameters
        self._n += 1
        link.n = self._n
        link.creates = [named for named in objects if named.action is Action.CREATE]
        link.lasting = reading.lasting if autocommit else bool(_COMMITS.match(statement))
        unkept = reading.known and not objects and not link.lasting
        started = StatementStarted(
            n=self._n,
            sql=plain(statement)[:_SQL_SHOWN],
            revision=self.revision,
            autocommit=autocommit,
            concurrently=reading.concurrently,
            objects=objects,
            known=reading.known,
            receipt=0 if unkept else self._next_receipt(),
            lasting=link.lasting,
        )
        self._answers.send(started, droppable=unkept)
        if autocommit or _COMMITS.match(statement):
            self._kept(None if autocommit else self._ask.kept_within_s)
            self._check(dbapi, link)
        link.began = time.monotonic()
        return statement, parameters

    def _done_before(self, dbapi: Any, objects: tuple[Named, ...], alone: bool) -> bool:
        """Whether an earlier attempt did this already; what it left INVALID is dropped, where that can be done."""
        if in_effect(dbapi, objects):
            return True
        if alone and (names := drop_invalid(dbapi, [named for named in objects if named.action is Action.CREATE])):
            self._answers.send(LogLine(f"dbwatch: dropped {', '.join(names)}, which a broken-off build had left"))
        return False

    def _after(self, connection: Connection, *_: Any) -> None:
        """Tells what was made. Raises Unusable where an index of that name is INVALID instead."""
        link, dbapi = _link(connection)
        if link.skipped:
            return
        seconds = time.monotonic() - link.began
        _restore(dbapi, link)
        new = made(dbapi, link.creates)
        done = StatementDone(link.n, seconds, new, self._next_receipt() if new else 0)
        self._answers.send(done, droppable=not new and not link.lasting)
        link.creates = []
        if broken := invalid(dbapi, new):
            raise Unusable([f"{named.schema}.{named.name}" for named in broken])

    def _commit(self, connection: Connection) -> None:
        link, dbapi = _link(connection)
        if self._ask.read_only:
            dbapi.rollback()
            return
        try:
            self._kept(self._ask.kept_within_s)
            self._check(dbapi, link)
        except DbwatchError:
            dbapi.rollback()
            raise


def _link(connection: Connection) -> tuple[_Link, Any]:
    """Our knowledge of a connection and its DBAPI face. Raises Elsewhere for one that no hook saw being made."""
    link = connection.info.get("dbwatch")
    if not isinstance(link, _Link):
        raise Elsewhere("env.py uses a connection that was not made through an SQLAlchemy engine")
    return link, connection.connection.dbapi_connection


def _set(values: dict[str, str]) -> str:
    calls = [sql.SQL("set_config({}, {}, false)").format(name, value) for name, value in values.items()]
    return sql.SQL("SELECT {}").format(sql.SQL(", ").join(calls)).as_string()


def _lift(dbapi: Any, link: _Link) -> None:
    """Turns lock_timeout and statement_timeout off: CREATE INDEX CONCURRENTLY obeys them while it waits for old
    transactions, and leaves an INVALID index. Whoever is waited for is shown, and a person may cancel."""
    if link.lifted is None:
        [(lock, statement)] = run(dbapi, "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')")
        run(dbapi, _set({"lock_timeout": "0", "statement_timeout": "0"}))
        link.lifted = (lock, statement)


def _restore(dbapi: Any, link: _Link) -> None:
    """Turns them on again: after the statement, or before the next one where it failed."""
    if link.lifted is not None:
        lock, statement = link.lifted
        run(dbapi, _set({"lock_timeout": lock, "statement_timeout": statement}))
        link.lifted = None


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
