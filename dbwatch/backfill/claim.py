"""Who works on a backfill: one at a time, and whoever takes over does so under a higher epoch."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID
from zlib import crc32

import psycopg
from psycopg import sql

from dbwatch.backfill import begun
from dbwatch.backfill.control import Control, StopRequested
from dbwatch.backfill.images import Images
from dbwatch.backfill.keys import Key
from dbwatch.backfill.plan import Plan
from dbwatch.backfill.row import MADE_OF, OIDS, RESTORED, RESTORING, Position, Row, rows_of
from dbwatch.backfill.statements import PINNED
from dbwatch.clock import Clock
from dbwatch.errors import DbwatchError, Fenced, Refused
from dbwatch.journal.fence import Fence
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connection, Session, describe
from dbwatch.text import one_line

SILENT_S = 30.0
"""An owner whose backend is there but who has not written for so long is frozen, and may be taken over: its next
batch fails at the epoch."""

POOLED = " pooled"
"""Ends the name of an owner that came through a pooler: its backends do not bear its name for longer than a
transaction, so that only its writing tells that it lives."""
PULSE_S = 12.0
"""How long such an owner may be silent and count as alive; it writes every 5 s at least (`worker.BEAT_EVERY_S`)."""
OWNER_GONE_WITHIN_S = 3.0
"""How long a claim waits for the backend of a killed owner to go away before it calls the owner alive."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The backfill is ours to run."""

    position: Position
    resumed: Row | None
    """As it was before we took it; None: it is a new one."""
    images: Images | None = None
    """Where it keeps its before-images; None: it keeps none."""


@dataclass(frozen=True, slots=True)
class Finished:
    """There is nothing to do."""

    row: Row


@dataclass(frozen=True, slots=True)
class Occupied:
    """Somebody else works on it."""

    row: Row
    pid: int | None
    """Its backend; None behind a pooler."""


_OWNERS = "SELECT a.pid FROM pg_catalog.pg_stat_get_activity(NULL) AS a WHERE a.application_name = %s ORDER BY a.pid"


async def claim(
    session: Session,
    plan: Plan,
    *,
    owner: str,
    fence: Fence | None = None,
    step_id: str | None = None,
    again: bool = False,
    within: float = 10.0,
) -> Claimed | Finished | Occupied:
    """Makes the backfill of *plan* ours, under *owner*, the application_name of our worker.

    An unfinished one whose owner is gone is taken over under a higher epoch; a finished one is left alone unless
    *again*. A window has its own, in mode pending each step of it, once the others are done. In mode once an unfinished
    one of anybody's is gone on with, since rows that it did must not be done again, unless the column that it filled
    was made anew. One whose data went back does not count any more. Raises Fenced where the window was taken over,
    Refused where its data is just going back or an unfinished one has no before-images that are asked for or its cursor
    means something else now, and as `Session.call` does.
    """

    async def work(connection: Connection) -> Claimed | Finished | Occupied:
        async with connection.transaction():
            await _prepare(connection, plan.spec_json, fence)
            rows = await rows_of(connection, spec_hash=plan.spec_hash)
            for row in rows:
                if row.status == "running" and row.owner != owner:
                    other = await occupied(connection, row)
                    if other is not None:
                        return other
            begun.require_whole(plan, rows)
            rows = [row for row in rows if row.status != RESTORED]
            window = fence.window if fence else None
            mine = next((row for row in rows if row.window_id == window), None)
            if plan.spec.mode == "once":
                mine = begun.resumed(plan, rows[0], again=again) if rows and not rows[0].finished else mine
                if mine is None and not again:
                    await begun.require_not_begun_otherwise(connection, plan, window)
            elif mine is not None and mine.finished and step_id is not None and mine.step_id != step_id:
                mine = None
            if mine is None or (mine.finished and again):
                return await _new(connection, plan, owner, window, step_id)
            if mine.finished:
                return Finished(mine)
            begun.require_images(plan, mine, window)
            begun.require_route(plan, mine)
            images = mine.kept_in
            if plan.kept and images is None:
                images = await _keep(connection, Images.of(mine.id, plan.statements, plan.kept))
            taken = await _take(connection, mine, owner, window=window, step=step_id)
            return Claimed(taken.position, mine, images)

    return await session.call(work, within=within)


async def claim_back(
    session: Session, id: int, *, owner: str, fence: Fence | None = None, within: float = 10.0
) -> Claimed | Finished | Occupied:
    """Makes the way back of the backfill of that *id* ours: nobody fills any more, under a higher epoch.

    Finished: its data went back already. Raises Fenced where the window was taken over, DbwatchError where the journal
    does not know it, and as `Session.call` does.
    """

    async def work(connection: Connection) -> Claimed | Finished | Occupied:
        async with connection.transaction():
            spec, spec_hash = await (await _execute(connection, "backfill-hash", id=id)).fetchone() or ("", "")
            await _prepare(connection, spec, fence)
            alike = await rows_of(connection, spec_hash=spec_hash)
            row = next((each for each in alike if each.id == id), None)
            if row is None or row.kept_in is None:
                raise DbwatchError(f"the journal knows no before-images of backfill {id}")
            if row.status == RESTORED:
                return Finished(row)
            for each in alike:  # another run that does the same would fill what is brought back
                if each.status in ("running", RESTORING) and each.owner != owner:
                    other = await occupied(connection, each)
                    if other is not None:
                        return other
            taken = await _take(connection, row, owner, status=RESTORING)
            return Claimed(taken.way_back, row, row.kept_in)

    return await session.call(work, within=within)


def lives(owner: str, silent_s: float, *, backend: bool) -> bool:
    """Whether *owner*, silent for so long, is alive; *backend*: one of that name is there. Pure."""
    return silent_s < PULSE_S if owner.endswith(POOLED) else backend and silent_s < SILENT_S


async def occupied(connection: Connection, row: Row) -> Occupied | None:
    """Who works on *row*; None where its owner is gone."""
    holder = await (await connection.execute(_OWNERS, [row.owner])).fetchone()
    if not lives(row.owner, row.silent_s, backend=holder is not None):
        return None
    return Occupied(row, holder[0] if holder is not None and not row.owner.endswith(POOLED) else None)


async def _prepare(connection: Connection, spec: str, fence: Fence | None) -> None:
    """One claim at a time of what does the same, by whatever key, under settings by which keys are written exactly, and
    only by the window's driver."""
    settings = {**PINNED, "lock_timeout": "2s", "statement_timeout": "5s"}
    for name, value in settings.items():
        await connection.execute(sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(name), sql.Literal(value)))
    await connection.execute(
        "SELECT pg_catalog.pg_advisory_xact_lock(%s, %s)", [_LOCK, crc32(_of_table(spec).encode()) - 2**31]
    )
    if fence is None:
        return
    held = sql.SQL(query("migration-epoch-locked", connection.info.server_version).decode())
    cursor = await connection.execute(held.format(window=sql.Literal(str(fence.window))))
    if await cursor.fetchone() != (fence.epoch,):
        raise Fenced("the window was taken over by somebody else", next="look at the journal")


_LOCK = 0x6462_6266
"""The class of our advisory locks: `dbbf` in ASCII."""


def _of_table(spec: str) -> str:
    """Of *spec*, as `Plan.spec_json`, what all backfills of its table in its mode have in common."""
    body = json.loads(spec or "{}")
    return json.dumps([body.get("table"), body.get("mode")])


async def _take(
    connection: Connection,
    row: Row,
    owner: str,
    status: str = "running",
    *,
    window: UUID | None = None,
    step: str | None = None,
) -> Row:
    values = {"id": row.id, "owner": owner, "status": status, "window": window, "step": step}
    await _execute(connection, "backfill-take", **values)
    [taken] = await rows_of(connection, id=row.id)
    return taken


async def _new(connection: Connection, plan: Plan, owner: str, window: UUID | None, step_id: str | None) -> Claimed:
    ceiling: str | None = None
    nothing = False
    if plan.spec.mode == "once":
        tops = await _tops(connection, plan)
        nothing = not tops
        if tops:
            oids = {leg.name: leg.oid for leg in plan.legs if leg.partition and leg.name in tops}
            ceiling = json.dumps({**tops, OIDS: oids, MADE_OF: plan.made_of}, ensure_ascii=False)
    ours = {"owner": owner, "window": window, "step": step_id, "ceiling": ceiling, "walked": nothing}
    what = {"spec": plan.spec_json, "spec_hash": plan.spec_hash}
    [(id,)] = await (await _execute(connection, "backfill-new", **ours, **what)).fetchall()
    images = await _keep(connection, Images.of(id, plan.statements, plan.kept)) if plan.kept else None
    return Claimed(Position(id, 1, None, ceiling, 0, 0, 0, nothing), None, images)


async def _tops(connection: Connection, plan: Plan) -> dict[str, Key]:
    """The highest key of each leg that has any row, by its name."""
    tops = {}
    for leg in plan.legs:
        last = await connection.execute(leg.statements.last(after=False, upto=False).encode(), {})
        key = await last.fetchone()
        if key is not None:
            tops[leg.name] = key
    return tops


async def _keep(connection: Connection, images: Images) -> Images:
    """Makes the table of images, for whoever may write the journal, and says in the row where it is."""
    for statement in images.create():
        await connection.execute(statement.encode(), {})
    cursor = await connection.execute(query("backfill-writers", connection.info.server_version))
    for (writer,) in await cursor.fetchall():
        await connection.execute(_GRANT.format(images.own, sql.Identifier(writer)))
    id = int(images.relation.removeprefix("before_"))
    await _execute(connection, "backfill-imaged", id=id, images=images.to_json())
    return images


async def _execute(connection: Connection, name: str, **parameters: object) -> psycopg.AsyncCursor[tuple[Any, ...]]:
    return await connection.execute(query(name, connection.info.server_version), parameters)


_GRANT = sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO {}")


Got = Claimed | Finished | Occupied


async def patiently(
    attempt: Callable[[], Awaitable[Got]], work: str, clock: Clock, control: Control
) -> Claimed | Finished:
    """What *attempt* gives, once a killed owner's backend is gone, or one that came through a pooler has been silent.

    Raises Refused where the owner lives, DbwatchError where *work* (`the backfill of public.users`) cannot be claimed,
    and StopRequested where a person says stop meanwhile.
    """
    deadline = clock.monotonic() + OWNER_GONE_WITHIN_S
    silent_s = 0.0
    while True:
        got = await _attempted(attempt, work)
        if isinstance(got, Claimed | Finished):
            return got
        if got is None or got.pid is not None:
            alive = clock.monotonic() >= deadline
        else:
            alive = got.row.silent_s < silent_s
            silent_s = got.row.silent_s
        if alive:
            raise at_work(got, work)
        await control.rest(clock, 0.1)
        if control.stopping:
            raise StopRequested


async def _attempted(attempt: Callable[[], Awaitable[Got]], work: str) -> Got | None:
    """One attempt; None where somebody else is claiming, or the table is locked."""
    try:
        return await attempt()
    except psycopg.errors.LockNotAvailable:
        return None
    except psycopg.Error as error:
        raise DbwatchError(f"{work} cannot be claimed", why=describe(error), next="mend that, try again") from error


def at_work(got: Occupied | None, work: str) -> Refused:
    """What is said where *work* cannot be taken: who has it; None: the table, or the row, is locked. Pure."""
    if got is None:
        return Refused(
            f"{work} cannot be claimed",
            why="the table, or the journal's row, is locked by another session",
            next="try again when it is free",
        )
    where = f"pid {got.pid}" if got.pid is not None else "through a pooler"
    return Refused(
        f"{work} is at work already",
        why=f"{one_line(got.row.owner)} ({where}) is alive",
        next="wait for it, or stop it first",
    )
