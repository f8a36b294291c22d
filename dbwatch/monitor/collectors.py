"""One collector per view: asks, turns rows into samples, sanitizes their text (here, and nowhere after).

A collector raises what the server said; what that means for its view is decided in `verdict`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import psycopg

from dbwatch.monitor.samples import (
    Activity,
    Blocked,
    DatabaseSize,
    IndexUse,
    Lock,
    Progress,
    Replication,
    Snapshot,
    Statement,
    Status,
    TableUse,
    Vitals,
)
from dbwatch.monitor.source import Source, clean
from dbwatch.monitor.verdict import cut, hidden
from dbwatch.postgres.queries import OURS
from dbwatch.postgres.roles import grant, quoted

BLOCKERS_ASKED = 10
"""Sessions that pg_blocking_pids is asked for in one poll: its cost grows with the square of the waiters
(153 ms for 900 of them, where pg_locks took 2 ms)."""

_SIZE_EVERY_S, _SIZE_AGAIN_S = 60.0, 600.0
"""Between two looks at the size of the database; and after one that was too slow or not allowed."""

_LAST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a collector brought: rows, and what is to be said about them."""

    rows: Sequence[object]
    status: Status = Status.OK
    reason: str = ""
    at: datetime | None = None
    """The server's clock, where the collector asked for it."""


Collect = Callable[[Source, Snapshot], Awaitable[Reading]]


@dataclass(frozen=True, slots=True)
class Collector:
    """How one view of a Snapshot is filled."""

    name: str
    """The field of Snapshot that it fills."""
    collect: Collect
    """Gets the snapshot as far as this poll has filled it. Raises as `Session.call` does."""
    every: int = 1
    """Asked in every so many polls."""
    rest_s: float = 0.0
    """At least so many seconds lie between two readings."""
    failed_s: float = 0.0
    """The same after one that failed."""


def _believed(rows: Sequence[object], hidden_rows: int, total: int, noun: str, source: Source) -> Reading:
    if hidden_rows:
        return Reading(rows, Status.HIDDEN, hidden(hidden_rows, noun, source.facts))
    return Reading(rows, Status.OK, cut(len(rows), total, noun))


async def size(source: Source, so_far: Snapshot) -> Reading:
    """One row: how large the database is. It may take long: asked before all that is to be of one instant."""
    [(octets,)] = await source.rows("database-size", {"database": source.facts.database_oid})
    return Reading((DatabaseSize(octets),))


async def vitals(source: Source, so_far: Snapshot) -> Reading:
    """One row: how busy the server is. Nothing else is asked after it: its time is that of the counters."""
    [row] = await source.rows("vitals", {"database": source.facts.database_oid})
    source.asked_before, reported = source.asked, source.asked_before
    (at, connections, active, waiting, commits, rollbacks, wal, deadlocks, temp, xmin_s, xact_s, unseen) = row
    known = so_far.size.rows if so_far.size.status is Status.OK else ()
    sample = Vitals(
        connections=connections,
        connections_usable=source.facts.max_connections - source.facts.reserved_connections,
        active=active,
        waiting=waiting,
        xact_commit=commits,
        xact_rollback=rollbacks,
        wal_bytes=wal,
        deadlocks=deadlocks,
        temp_bytes=temp,
        oldest_xmin_s=xmin_s,
        oldest_xact_s=xact_s,
        database_bytes=known[0].database_bytes if known else None,
        own_xacts=reported,
    )
    return replace(_believed((sample,), unseen, 1, "sessions", source), at=at)


async def activity(source: Source, so_far: Snapshot) -> Reading:
    """The sessions, at most 1,000: working ones first, by the age of their transaction."""
    rows = await source.rows("activity")
    await source.names({row[4] for row in rows if row[4]}, {row[3] for row in rows if row[3]})
    return _believed(
        [_session(row, source) for row in rows],
        sum(row[17] for row in rows),
        rows[0][18] if rows else 0,
        "sessions",
        source,
    )


def _session(row: tuple[Any, ...], source: Source) -> Activity:
    pid, start, leader, database, role, application, address, port, kind, state, wait_type, wait = row[:12]
    xact_start, query_start, state_change, xmin_age, text, unseen, _ = row[12:]
    return Activity(
        pid=pid,
        backend_start=start,
        leader_pid=leader,
        datname=source.database(database),
        usename=source.role(role),
        application_name=clean(application),
        client=address or ("local" if port == -1 else ""),
        backend_type=clean(kind),
        state=clean(state),
        wait_event_type=clean(wait_type),
        wait_event=clean(wait),
        xact_start=xact_start,
        query_start=query_start,
        state_change=state_change,
        xmin_age=xmin_age,
        query="" if unseen else clean(text),
        hidden=unseen,
        client_port=port if port and port > 0 else None,
    )


async def locks(source: Source, so_far: Snapshot) -> Reading:
    """The locks, at most 5,000: those waited for first, and all that stand on the same object."""
    rows = await source.rows("locks", {"database": source.facts.database_oid})
    samples = [
        Lock(pid, kind, clean(target), key, mode, granted, waitstart, clean(gid))
        for pid, kind, target, key, mode, granted, waitstart, gid, _ in rows
    ]
    return _believed(samples, 0, rows[0][8] if rows else 0, "locks", source)


async def blockers(source: Source, so_far: Snapshot) -> Reading:
    """Whom those sessions wait for that have waited longest; nothing is asked where nobody waits."""
    started = {session.pid: session.query_start for session in so_far.activity.rows}
    waits = {
        lock.pid: lock.waitstart or started.get(lock.pid) or _LAST
        for lock in so_far.locks.rows
        if lock.pid and not lock.granted
    }
    first = sorted(waits, key=lambda pid: (waits[pid], pid))[:BLOCKERS_ASKED]
    if not first:
        return Reading(())
    rows = await source.rows("blockers", {"pids": first})
    return Reading([Blocked(pid, tuple(by)) for pid, by in rows])


async def progress(source: Source, so_far: Snapshot) -> Reading:
    """Commands of this database that report progress."""
    rows = await source.rows("progress")
    samples = [
        Progress(pid, clean(command), clean(relation), clean(phase), done, total, clean(index), waits_for)
        for pid, command, relation, phase, done, total, index, waits_for in rows
    ]
    unseen = 0 if source.facts.sees_all else sum(not sample.phase for sample in samples)
    return _believed(samples, unseen, len(samples), "commands", source)


async def replication(source: Source, so_far: Snapshot) -> Reading:
    """Standbys and receivers that follow this server."""
    rows = await source.rows("replication")
    samples = [
        Replication(pid, clean(name), clean(client) or "local", clean(state), clean(sync), lag_s, lag_bytes)
        for pid, name, client, state, sync, lag_s, lag_bytes in rows
    ]
    unseen = sum(not sample.state for sample in samples)
    return _believed(samples, unseen, len(samples), "standbys", source)


async def statements(source: Source, so_far: Snapshot) -> Reading:
    """The 500 statements of this database that took most time, all users' together."""
    schema = source.facts.statements_schema
    if schema is None:
        why = "pg_stat_statements is not installed in this database: CREATE EXTENSION pg_stat_statements"
        return Reading((), Status.UNSUPPORTED, why)
    try:
        rows = await source.statements(schema)
        texts = await source.texts(schema, {row[2] for row in rows if row[2] is not None})
    except psycopg.errors.InsufficientPrivilege:
        why = f"the statements are hidden: {grant(f'USAGE ON SCHEMA {quoted(clean(schema))}', source.facts.user)}"
        return Reading((), Status.HIDDEN, why)
    samples = [
        Statement(
            userid, dbid, queryid, toplevel, clean(texts.get(queryid)), calls, ms, count, temp, wal, since,
            ours=OURS in texts.get(queryid, ""),
        )
        for userid, dbid, queryid, toplevel, calls, ms, count, temp, wal, since, _, _ in rows
        if queryid is not None
    ]  # fmt: skip
    unseen, total = rows[0][10:12] if rows else (0, 0)
    return _believed(samples, unseen, total, "statements", source)


async def indexes(source: Source, so_far: Snapshot) -> Reading:
    """Indexes of this database, at most 1,000: invalid ones first, then the largest."""
    rows = await source.rows("indexes", {"database": source.facts.database_oid})
    samples = [
        IndexUse(
            oid, clean(schema), clean(table), clean(index), scans, last, octets, valid, ready, unique, primary, reset
        )
        for oid, schema, table, index, scans, last, octets, valid, ready, unique, primary, reset, _ in rows
    ]
    return _believed(samples, 0, rows[0][12] if rows else 0, "indexes", source)


async def tables(source: Source, so_far: Snapshot) -> Reading:
    """Tables and materialized views of this database, at most 1,000: the largest."""
    rows = await source.rows("tables")
    samples = [
        TableUse(oid, clean(schema), clean(name), octets, live, dead, updated, hot, vacuumed, analyzed, freeze_age)
        for oid, schema, name, octets, live, dead, updated, hot, vacuumed, analyzed, freeze_age, _ in rows
    ]
    return _believed(samples, 0, rows[0][11] if rows else 0, "tables", source)


COLLECTORS: tuple[Collector, ...] = (
    Collector("size", size, rest_s=_SIZE_EVERY_S, failed_s=_SIZE_AGAIN_S),
    Collector("vitals", vitals),
    Collector("activity", activity),
    Collector("locks", locks),
    Collector("blockers", blockers),
    Collector("progress", progress),
    Collector("replication", replication, every=2),
    Collector("statements", statements, every=5),
    Collector("indexes", indexes, every=10),
    Collector("tables", tables, every=10),
)
"""In the order in which they are asked: once a minute what may take long, then the server's clock, then what matters
most in a jam."""
