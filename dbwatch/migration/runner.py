"""A migration from its beginning to its end: attempts, retries, and the truth about what is there afterwards.

`inspect` and `preview` ask (asking.py); `run` does. Nothing here appends an event or knows a window: the caller's
`on_event` gets every value as it happens, and its `journal` keeps them (keeping.py).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from dbwatch.clock import Clock
from dbwatch.errors import DbwatchError
from dbwatch.migration.asking import MigrationError, inspect, preview, request
from dbwatch.migration.attempt import Attempt, Surroundings, Watched, tell_committed
from dbwatch.migration.events import Cause, Direction, Failed, Outcome, Retrying
from dbwatch.migration.fingerprint import Fingerprint, take
from dbwatch.migration.forked import Spawn, spawn
from dbwatch.migration.heads import committed_count, committed_heads
from dbwatch.migration.keeping import Journal, Keeper, OnEvent
from dbwatch.migration.request import Job
from dbwatch.migration.residue import residue
from dbwatch.migration.retry import Seen, may_retry, pause_s, sent_alone
from dbwatch.migration.stopping import Ladder
from dbwatch.postgres.facts import ServerFacts, look, require_direct
from dbwatch.postgres.session import Connector, Role

__all__ = ["Journal", "MigrationError", "OnEvent", "Patience", "inspect", "preview", "run", "verdict"]

_GONE_FOR_A_RESTART = "57P01"
"""admin_shutdown: what whoever was connected then was told."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long `run` waits for what, in seconds; a running migration itself has no deadline but its timeouts."""

    ready_s: float = 60.0
    """For the child to load env.py, connect and know its way; then it is stopped."""
    schema_s: float = 10.0
    """For locks to go, so that the schema and the version table can be read."""
    kept_s: float = 10.0
    """For what a transaction did to be kept, while it holds its locks; then it is rolled back. A write of the journal
    takes its table 2 s at most, then its local copy, and it may have begun with another one."""
    ladder: Ladder = Ladder()
    """For each rung of a stop."""


async def run(
    job: Job,
    connector: Connector,
    *,
    clock: Clock,
    on_event: OnEvent,
    stop: asyncio.Event,
    journal: Journal | None = None,
    patience: Patience = Patience(),
    spawn: Spawn = spawn,
    jitter: Callable[[], float] = random.random,
) -> Outcome:
    """Runs *job* to its end, with retries where a lock was in the way and nothing was left behind.

    With a *journal* nothing is committed that it has not kept: no transaction ends before, and no statement is sent
    that commits by itself. What it raises stops the migration, and is raised here in the end.

    Setting *stop* takes it down the ladder of stopping.py; cancelling the task closes the child's control pipe, and
    kills it 1.5 s later. What the child, env.py or the server do is the outcome's `failure`, never an exception.

    Raises DbwatchError where it cannot even begin: no connection, a pooler in between, or (SchemaUnreadable) a
    relation that stays locked, so that nobody could tell afterwards what was left behind.
    """
    control = await connector.open(Role.CONTROL)
    halt = asyncio.Event()
    keeper = Keeper(on_event, journal, halt)
    stopping = asyncio.create_task(_pass_on(stop, halt))
    around = Surroundings(connector, control, clock, keeper, halt, patience.ladder, spawn, patience.ready_s)
    try:
        return await _run(job, around, patience, jitter, kept_within_s=patience.kept_s if journal else 0.0)
    finally:
        stopping.cancel()
        try:
            await control.close()
        finally:
            await keeper.end()


async def _run(
    job: Job, around: Surroundings, patience: Patience, jitter: Callable[[], float], kept_within_s: float
) -> Outcome:
    connector, clock, schema_s = around.connector, around.clock, patience.schema_s
    began = clock.monotonic()
    facts = await look(around.control)
    require_direct(facts)
    before = await take(connector, clock, patience_s=schema_s)
    ask = request("run", job.project, connector, facts, job.direction, job.to, job=job, kept_within_s=kept_within_s)
    number = 1
    while True:
        watched = await Attempt(around).run(ask)
        heads = await _heads(watched, around, job.direction is Direction.UP, schema_s)
        failure = verdict(watched, heads)
        if failure is not None and failure.cause is Cause.ELSEWHERE and await _restarted(connector, facts):
            said = "the server was restarted while Alembic began, and nothing was sent"
            failure = Failed(Cause.DATABASE, said, _GONE_FOR_A_RESTART)
        committed = watched.planned.steps[: committed_count(watched.sequence, heads)] if watched.planned else ()
        alone: tuple[str, ...] = ()
        if failure is None:
            after = None
            break
        alone = sent_alone(watched.lasting, watched.done, failure, committed)
        after = await _schema(around, schema_s)
        if around.stop.is_set() or not _may_retry(failure, number, job, watched, heads, before, after, alone):
            break
        wait_s = pause_s(number, jitter())
        number += 1
        around.keeper.tell(Retrying(failure.sqlstate or "", failure.message, number, job.attempts, wait_s))
        if await _stopped(around.stop, clock, wait_s):
            failure = Failed(Cause.STOPPED, "stopped while waiting to try again")
            break
    ddl = tuple(watched.ddl.values())
    return Outcome(
        heads_before=watched.planned.heads if watched.planned else None,
        heads_after=heads,
        committed=committed,
        failure=failure,
        ddl=ddl,
        residue=residue(before, after, ddl) if after is not None else None,
        attempts=number,
        seconds=clock.monotonic() - began,
        alone=alone,
    )


def verdict(watched: Watched, heads: frozenset[str] | None) -> Failed | None:
    """Why the target was not reached, by what the child said and by *heads*, the version table afterwards; or None.

    A child that was stopped, killed or lost after its last commit has done its work; one that says it finished has
    not, unless the version table says so too.
    """
    planned, failure = watched.planned, watched.failure
    complete = planned is not None and len(watched.sequence) == len(planned.steps) + 1
    if complete and heads == watched.sequence[-1]:
        ended_by_us_or_nobody = (Cause.STOPPED, Cause.DIED, Cause.SILENT)
        return failure if failure is not None and failure.cause not in ended_by_us_or_nobody else None
    if failure is not None:
        return failure
    if heads is None:
        said = "Alembic finished, but the version table cannot be read: whether it is committed is unknown"
        return Failed(Cause.UNSEEN, said)
    expected = ", ".join(sorted(watched.sequence[-1])) if watched.sequence else ""
    there = ", ".join(sorted(heads))
    said = f"Alembic finished, but the version table has {there or 'nothing'} instead of {expected or 'nothing'}"
    return Failed(Cause.UNSEEN, f"{said}: env.py did not commit, or somebody else migrates")


async def _heads(watched: Watched, around: Surroundings, up: bool, patience_s: float) -> frozenset[str] | None:
    """The committed heads after an attempt; None where they cannot be read, or nobody knows in which table."""
    if watched.planned is None:
        return None
    until = around.clock.monotonic() + patience_s
    try:
        session = await around.connector.open(Role.PROBE)
    except DbwatchError:
        return None
    try:
        while (heads := await committed_heads(session, watched.planned)) is None and session.alive:
            if around.clock.monotonic() >= until:
                break
            await around.clock.sleep(0.25)
    finally:
        await session.close()
    tell_committed(watched, heads, up, around.keeper.tell)
    return heads


async def _restarted(connector: Connector, known: ServerFacts) -> bool:
    """Whether env.py found our own server, begun anew since we looked; and not another one, or a copy of ours."""
    try:
        session = await connector.open(Role.CONTROL)
        try:
            facts = await look(session)
        finally:
            await session.close()
    except (DbwatchError, psycopg.Error):
        return False
    return facts.same_server(known) and facts.started_at != known.started_at


async def _schema(around: Surroundings, patience_s: float) -> Fingerprint | None:
    """The schema after a failed attempt; None where it cannot be read."""
    try:
        return await take(around.connector, around.clock, patience_s=patience_s)
    except DbwatchError:
        return None


def _may_retry(
    failure: Failed,
    number: int,
    job: Job,
    watched: Watched,
    heads: frozenset[str] | None,
    before: Fingerprint,
    after: Fingerprint | None,
    alone: tuple[str, ...],
) -> bool:
    if watched.planned is None:
        return False
    version = (watched.planned.version_schema or "", watched.planned.version_table)
    was, now = Seen(watched.planned.heads, before), Seen(heads, after)
    return may_retry(failure, number, job.attempts, was, now, version, alone=bool(alone), resume=job.resume)


async def _pass_on(stop: asyncio.Event, halt: asyncio.Event) -> None:
    """A stop from outside halts as does a journal that fails inside."""
    await stop.wait()
    halt.set()


async def _stopped(stop: asyncio.Event, clock: Clock, seconds: float) -> bool:
    """Waits so long, or until *stop*; whether it was the stop."""
    waits = {asyncio.ensure_future(clock.sleep(seconds)), asyncio.ensure_future(stop.wait())}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
    return stop.is_set()
