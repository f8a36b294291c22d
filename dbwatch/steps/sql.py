"""A statement of the runbook, in one transaction with its own `step.done`: done exactly if the journal says so."""

from __future__ import annotations

from collections.abc import Container
from contextlib import nullcontext
from dataclasses import asdict, replace

import psycopg
from psycopg import errors

from dbwatch.errors import DbwatchError, Fenced
from dbwatch.journal.events import DdlSeen, StepDone
from dbwatch.migration import grammar
from dbwatch.migration.unusable import Unusable
from dbwatch.postgres.session import Connection, Limits, Role, Session, describe
from dbwatch.runbook.model import Sql
from dbwatch.steps import progress as shown
from dbwatch.steps.indexes import invalid, leaves_indexes, usable
from dbwatch.steps.patience import Patience, needs
from dbwatch.steps.statement import NotBegun, Stopped, TransactionEnded, alone, run_alone, run_together, unhurried
from dbwatch.steps.step import Done, Failed, Kit, Outcome, Unknown
from dbwatch.steps.waiting import Waiting, knocking
from dbwatch.text import one_line


def made_by(step_id: str) -> str:
    """What stands in the place of a revision where a sql step made something."""
    return f"step {step_id}"


_SOMEBODY_ELSES = (errors.DuplicateTable, errors.DuplicateObject, errors.DuplicateDatabase, errors.DuplicateColumn)
"""What a statement was to make is there: it is not ours. DuplicateTable is also said of an index."""


_IN_THE_WAY = (errors.LockNotAvailable, errors.DeadlockDetected)
"""Somebody was there first: a patient step knocks again."""


async def run(spec: Sql, kit: Kit) -> Outcome:
    """Runs the statement; what cannot run inside a transaction runs by itself, and says so if it is cut short."""
    if spec.patient is not None:
        return await _patiently(spec, kit, spec.patient)
    return await _once(spec, kit, kit.limits)


async def _once(spec: Sql, kit: Kit, limits: Limits, waiting: Waiting | None = None) -> Outcome:
    by_itself = alone(spec.sql)
    if by_itself:
        limits = unhurried(spec.sql, limits)
    session = await kit.connector.open(Role.WORKER, limits=limits)
    try:
        async with waiting.watching(lambda: session.pid) if waiting is not None else nullcontext():
            return await (
                _alone(spec, kit, session, waiting) if by_itself else _together(spec, kit, session, limits, waiting)
            )
    finally:
        await session.close()


async def _patiently(spec: Sql, kit: Kit, patient_s: float) -> Outcome:
    """Waits until the way is clear, and knocks; again where somebody was there first."""
    progress = replace(shown.started(spec.id, 1), revision="sql", statement=one_line(spec.sql))

    def show(patience: Patience, whom: str, pid: int | None) -> None:
        kit.show_migration(shown.patient(progress, patience, whom, pid, kit.clock.monotonic()))

    waiting = Waiting(kit, spec.id, patient_s, needs([spec.sql]), show)
    while True:
        if (instead := await waiting.until_clear()) is not None:
            return instead
        try:
            return await _once(spec, kit, knocking(kit.limits), waiting)
        except _IN_THE_WAY:
            waiting.found_closed()


async def _together(spec: Sql, kit: Kit, session: Session, limits: Limits, waiting: Waiting | None) -> Outcome:
    began = kit.clock.monotonic()

    async def write(connection: Connection, result: str) -> None:
        await usable(connection, spec.sql)
        said = f"{result}; {waiting.state.words}" if waiting is not None else result
        done = StepDone(spec.id, kit.attempt, said, kit.clock.monotonic() - began)
        await kit.write_in(connection, [*_ddl(spec, kit, done=True), done])

    try:
        result = await run_together(session, spec.sql, write, control=kit.control, stop=kit.stop, limits=limits)
    except TransactionEnded as error:
        return Unknown(str(error))
    except Unusable as error:
        return Failed(str(error), again=True)
    return Done(result, recorded=True)


async def _alone(spec: Sql, kit: Kit, session: Session, waiting: Waiting | None) -> Outcome:
    before = await _invalid_before(spec, kit)
    for seen in _ddl(spec, kit, done=False):
        if not await kit.record(seen):
            why = "neither the journal nor its local copy can be written"
            raise NotBegun("it was not begun", why=why, next="make room for one of them, and run the step again")
    try:
        result = await run_alone(
            session, spec.sql, lambda connection: kit.write_in(connection, []), control=kit.control, stop=kit.stop
        )
        await session.call(lambda connection: usable(connection, spec.sql), within=5.0)
    except (NotBegun, Unusable, *_SOMEBODY_ELSES) as error:
        for seen in _ddl(spec, kit, done=False, ours=False):
            await kit.record(seen)
        return Failed(describe(error), again=True, stopped=kit.stop.is_set())
    except (Stopped, psycopg.Error) as error:
        if waiting is not None and isinstance(error, _IN_THE_WAY) and not grammar.read(spec.sql).concurrently:
            raise
        return await _cut_short(spec, kit, error, before)
    for seen in _ddl(spec, kit, done=True):
        await kit.record(seen)
    return Done(result)


async def _invalid_before(spec: Sql, kit: Kit) -> frozenset[int]:
    try:
        return frozenset(await invalid(kit.control)) if leaves_indexes(spec.sql) else frozenset()
    except (DbwatchError, psycopg.Error) as error:
        raise NotBegun("it was not begun", why=describe(error), next="try again") from error


async def _cut_short(spec: Sql, kit: Kit, error: Exception, before: Container[int]) -> Outcome:
    """It ended without its effect, but perhaps not without a trace: indexes that are INVALID, and were not *before*."""
    stopped = isinstance(error, Stopped)
    try:
        now = await invalid(kit.control) if leaves_indexes(spec.sql) else {}
        broken = [name for oid, name in now.items() if oid not in before]
        left = tuple(dict.fromkeys([*await kit.left_behind(), *broken]))
    except Fenced:
        raise
    except (DbwatchError, psycopg.Error):
        return Failed(f"{describe(error)}; what it left behind could not be read", again=False, stopped=stopped)
    behind = f"; left behind: {', '.join(left)}" if left else ""
    return Failed(describe(error) + behind, again=not left, stopped=stopped)


def _ddl(spec: Sql, kit: Kit, *, done: bool, ours: bool = True) -> list[DdlSeen]:
    """What is journalled of the objects that the statement names; nothing where it names none."""
    reading = grammar.read(spec.sql)
    if reading.known and not reading.named:
        return []
    objects = [{**asdict(o), "action": str(o.action)} for o in reading.named] if ours else []
    return [DdlSeen(spec.id, kit.attempt, 1, made_by(spec.id), spec.sql, alone(spec.sql), done, reading.known, objects)]


async def recover(spec: Sql, kit: Kit) -> Outcome:
    """In a transaction the journal tells: no `step.done`, no effect. Alone, nobody can tell."""
    del kit
    if alone(spec.sql):
        return Unknown("it was cut off while it ran outside a transaction; look whether it took effect")
    return Failed("it was cut off while it ran; its transaction was rolled back", again=True)
