"""One statement that can be stopped: with the journal in one transaction, or alone where it commits by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import postgast
import psycopg
from psycopg.pq import TransactionStatus

from dbwatch.errors import ConnectionLost, DbwatchError, ServerSilent
from dbwatch.migration import grammar
from dbwatch.postgres.kept import Kept
from dbwatch.postgres.session import Connection, Limits, Session, describe
from dbwatch.postgres.signals import signal

T = TypeVar("T")
Write = Callable[[Connection], Awaitable[None]]
"""Writes into the journal in the transaction of a connection. Raises Fenced where our epoch is over."""

CANCEL_WAIT_S = 2.0
"""How long a cancelled statement may take to end before its connection is closed."""
DAY_S = 86_400.0
"""The deadline of what may take as long as it takes: a person, or an abort, ends it."""

_ALONE = frozenset(
    {"vacuum_stmt", "createdb_stmt", "dropdb_stmt", "alter_system_stmt", "create_table_space_stmt"}
    | {"drop_table_space_stmt", "create_subscription_stmt", "drop_subscription_stmt"}
)
"""Statements that PostgreSQL refuses inside a transaction, besides the CONCURRENTLY ones."""


class Stopped(DbwatchError):
    """A person stopped it, and it did not take effect, or not wholly."""


class NotBegun(DbwatchError):
    """It was never sent."""


class TransactionEnded(DbwatchError):
    """It ended the transaction that it ran in: what it did may stand, and the journal cannot be written with it."""


def alone(sql: str) -> bool:
    """Whether *sql* cannot run inside a transaction, and so commits by itself. Pure."""
    try:
        nodes = [raw.stmt for raw in postgast.parse(sql).stmts]
    except (postgast.PgQueryError, UnicodeEncodeError):
        return False
    kinds = {node.WhichOneof("node") for node in nodes}
    analyze = all(not n.vacuum_stmt.is_vacuumcmd for n in nodes if n.WhichOneof("node") == "vacuum_stmt")
    return bool(kinds & (_ALONE - {"vacuum_stmt"} if analyze else _ALONE)) or grammar.read(sql).concurrently


def unhurried(sql: str, limits: Limits) -> Limits:
    """*limits* for *sql*, which commits by itself and takes as long as it takes.

    Only what is CONCURRENTLY may wait for as long, too: VACUUM FULL would have everybody queue behind it meanwhile.
    """
    return limits.without_timeouts() if grammar.read(sql).concurrently else replace(limits, statement_timeout_ms=0)


def deadline_s(limits: Limits) -> float:
    """How long the answer to a statement under *limits* is waited for: the server ends it sooner."""
    return limits.statement_timeout_ms / 1000 * 1.5 + 5 if limits.statement_timeout_ms else DAY_S


async def run_together(
    session: Session, sql: str, write: Callable[[Connection, str], Awaitable[None]], *, control: Kept,
    stop: asyncio.Event, limits: Limits,
) -> str:  # fmt: skip
    """Runs *sql* in one transaction with what *write* says of its result, so that both take effect or neither.

    Raises TransactionEnded where there is no transaction left to write in, and as `stoppable` does; where that is
    ConnectionLost or ServerSilent, the journal knows.
    """

    async def work(connection: Connection) -> str:
        async with connection.transaction():
            result = (await connection.execute(sql.encode())).statusmessage or "done"
            if connection.info.transaction_status is not TransactionStatus.INTRANS:
                raise TransactionEnded("it ended its own transaction", next="look whether it took effect")
            if stop.is_set():  # it did not heed its cancel: nothing of it shall stay
                raise Stopped("stopped by hand")
            await write(connection, result)
        return result

    return await stoppable(session, work, control=control, stop=stop, within=deadline_s(limits))


async def run_alone(session: Session, sql: str, prove: Write, *, control: Kept, stop: asyncio.Event) -> str:
    """Runs *sql*, which commits by itself, once *prove* has shown that it is still our turn.

    Whoever takes over later finds our session, by its name, and ends it: it was there before the proof.
    Raises NotBegun where the proof was not to be had, and as `stoppable` does.
    """

    async def proof(connection: Connection) -> None:
        async with connection.transaction():
            await prove(connection)

    async def work(connection: Connection) -> str:
        return (await connection.execute(sql.encode())).statusmessage or "done"

    try:
        await session.call(proof, within=5.0)
    except (ConnectionLost, ServerSilent, psycopg.Error) as error:
        raise NotBegun("it was not begun", why=describe(error), next="try again") from error
    return await stoppable(session, work, control=control, stop=stop, within=DAY_S)


async def stoppable(
    session: Session,
    work: Callable[[Connection], Awaitable[T]],
    *,
    control: Kept,
    stop: asyncio.Event,
    within: float,
) -> T:
    """The result of *work* on *session*; ends early where *stop* is set.

    Raises Stopped where it was cancelled then, NotBegun where nothing was sent, and otherwise as `Session.call` does:
    ConnectionLost too where it did not end though it was cancelled, so that nobody knows what became of it.
    """
    try:
        [(pid, backend_start)] = await (await control.session()).values(
            "SELECT a.pid, a.backend_start FROM pg_catalog.pg_stat_get_activity(%s) AS a", [session.pid]
        )
    except (DbwatchError, psycopg.Error, ValueError) as error:
        raise NotBegun("it was not begun", why=describe(error), next="try again") from error
    running = asyncio.ensure_future(session.call(work, within=within))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            try:
                await signal(await control.session(), pid, backend_start, terminate=False)
            except (DbwatchError, psycopg.Error):
                session.sever()
            await asyncio.wait({running}, timeout=CANCEL_WAIT_S)
        if not running.done():
            session.sever()
            await asyncio.wait({running}, timeout=1.0)
        if not running.done():
            raise ConnectionLost("the statement did not end when it was stopped", why="its connection was closed")
        try:
            return running.result()
        except psycopg.errors.QueryCanceled as error:
            if stop.is_set():
                raise Stopped("stopped by hand") from error
            raise
    finally:
        stopping.cancel()
        if not running.done():
            running.cancel()
