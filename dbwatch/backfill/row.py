"""The backfill's row in the journal: who may work on it, how far it is. Its cursor moves in the batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID
from zlib import crc32

from psycopg import sql
from psycopg.rows import class_row
from sqlalchemy import Double, Select, Update, cast, extract, func, insert, select, update

from dbwatch.backfill.images import Images
from dbwatch.backfill.keys import Key, from_cursor, to_cursor
from dbwatch.backfill.plan import Plan
from dbwatch.backfill.statements import PINNED
from dbwatch.errors import DbwatchError, Fenced, Refused
from dbwatch.journal import tables
from dbwatch.journal.compile import compiled
from dbwatch.journal.fence import Fence
from dbwatch.postgres.session import Connection, Session
from dbwatch.text import one_line

SILENT_S = 30.0
"""An owner whose backend is there but who has not written for so long is frozen, and may be taken over: its next
batch fails at the epoch."""

RESTORING, RESTORED = "restoring", "restored"
"""The row's status while its data goes back, and after that."""

POOLED = " pooled"
"""Ends the name of an owner that came through a pooler: its backends do not bear its name for longer than a
transaction, so that only its writing tells that it lives."""
PULSE_S = 12.0
"""How long such an owner may be silent and count as alive; it writes every 5 s at least (`worker.BEAT_EVERY_S`)."""

_t = tables.backfill.c


@dataclass(frozen=True, slots=True)
class Position:
    """How far a backfill is, and by what right we go on: the row as we last wrote or read it."""

    id: int
    epoch: int
    cursor: str | None
    ceiling: str | None
    rows_done: int
    batches: int
    scanned: int
    walked: bool

    @property
    def lo(self) -> Key | None:
        """The last key done."""
        return None if self.cursor is None else from_cursor(self.cursor)

    @property
    def top(self) -> Key | None:
        """The last key to do; None: whatever the table holds."""
        return None if self.ceiling is None else from_cursor(self.ceiling)

    def after(self, *, rows: int, keys: int, cursor: str | None) -> Position:
        """The row as a committed batch left it."""
        return replace(
            self,
            cursor=cursor,
            rows_done=self.rows_done + rows,
            scanned=self.scanned + keys,
            batches=self.batches + 1,
        )


@dataclass(frozen=True, slots=True)
class Row:
    """The row whole."""

    id: int
    window_id: UUID | None
    status: str
    owner: str
    epoch: int
    cursor: str | None
    ceiling: str | None
    rows_done: int
    batches: int
    scanned: int
    walked: bool
    pending: int | None
    note: str | None
    started_at: datetime
    ended_at: datetime | None
    images: str | None
    back: str | None
    restored: int
    changed: int
    missing: int
    silent_s: float
    """Since its owner last wrote."""

    @property
    def position(self) -> Position:
        return Position(
            self.id, self.epoch, self.cursor, self.ceiling, self.rows_done, self.batches, self.scanned, self.walked
        )

    @property
    def way_back(self) -> Position:
        """How far its data was brought back."""
        seen = self.restored + self.changed + self.missing
        return Position(self.id, self.epoch, self.back, None, self.restored, self.batches, seen, False)

    @property
    def finished(self) -> bool:
        return self.status == "done"

    @property
    def kept_in(self) -> Images | None:
        """Where its before-images are; None: it keeps none."""
        return Images.from_json(self.images) if self.images else None


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


_COLUMNS = (
    *(_t[name] for name in ("id", "window_id", "status", "owner", "epoch", "cursor", "ceiling", "rows_done")),
    *(_t[name] for name in ("batches", "scanned", "walked", "pending", "note", "started_at", "ended_at")),
    *(_t[name] for name in ("images", "back", "restored", "changed", "missing")),
    cast(extract("epoch", func.clock_timestamp() - _t.beat_at), Double).label("silent_s"),
)
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
    *again*. A window has its own; in mode once an unfinished one of anybody's is gone on with, since rows that it did
    must not be done again. One whose data went back does not count any more. Raises Fenced where the window was taken
    over, Refused where its data is just going back or an unfinished one has no before-images that are asked for, and
    as `Session.call` does.
    """

    async def work(connection: Connection) -> Claimed | Finished | Occupied:
        async with connection.transaction():
            await _prepare(connection, plan.spec_hash, fence)
            rows = await _rows(
                connection, select(*_COLUMNS).where(_t.spec_hash == plan.spec_hash).order_by(_t.id.desc())
            )
            for row in rows:
                if row.status == "running" and row.owner != owner:
                    occupied = await _occupied(connection, row)
                    if occupied is not None:
                        return occupied
            _require_whole(plan, rows)
            rows = [row for row in rows if row.status != RESTORED]
            window = fence.window if fence else None
            mine = next((row for row in rows if row.window_id == window), None)
            if plan.spec.mode == "once":
                mine = next((row for row in rows if not row.finished), mine)
            if mine is None or (mine.finished and again):
                return await _new(connection, plan, owner, window, step_id)
            if mine.finished:
                return Finished(mine)
            _require_images(plan, mine, window)
            images = mine.kept_in
            if plan.kept and images is None:
                images = await _keep(connection, Images.of(mine.id, plan.statements, plan.kept))
            return Claimed((await _take(connection, mine, owner)).position, mine, images)

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
            known = await (await connection.execute(*compiled(select(_t.spec_hash).where(_t.id == id)))).fetchone()
            await _prepare(connection, known[0] if known else "", fence)
            rows = await _rows(connection, select(*_COLUMNS).where(_t.id == id))
            if not rows or rows[0].kept_in is None:
                raise DbwatchError(f"the journal knows no before-images of backfill {id}")
            [row] = rows
            if row.status == RESTORED:
                return Finished(row)
            if row.status in ("running", RESTORING) and row.owner != owner:
                occupied = await _occupied(connection, row)
                if occupied is not None:
                    return occupied
            taken = await _take(connection, row, owner, status=RESTORING)
            return Claimed(taken.way_back, row, row.kept_in)

    return await session.call(work, within=within)


async def read(session: Session, id: int, *, within: float = 5.0) -> Row | None:
    """The row as it stands; None where it is gone. Raises as `Session.call` does."""

    async def work(connection: Connection) -> list[Row]:
        return await _rows(connection, select(*_COLUMNS).where(_t.id == id))

    rows = await session.call(work, within=within)
    return rows[0] if rows else None


async def beat(session: Session, at: Position, *, within: float = 5.0) -> None:
    """Says that we are still there. Raises Fenced where we are no longer meant to be, and as `Session.call` does."""
    await _write(session, at, update(tables.backfill).values(beat_at=func.clock_timestamp()), within)


async def note_walked(session: Session, at: Position, *, within: float = 5.0) -> None:
    """The end of the table was reached. Raises as `beat` does."""
    await _write(session, at, update(tables.backfill).values(walked=True, beat_at=func.clock_timestamp()), within)


async def close(
    session: Session, at: Position, status: str, *, pending: int | None, note: str, within: float = 5.0
) -> None:
    """Ends our work on it: done, incomplete, stopped or failed. Raises as `beat` does."""
    values = {"status": status, "pending": pending, "note": note or None, "ended_at": func.clock_timestamp()}
    await _write(session, at, update(tables.backfill).values(**values), within)


async def _write(session: Session, at: Position, statement: Update, within: float) -> None:
    if await session.execute(*compiled(statement.where(_t.id == at.id, _t.epoch == at.epoch)), within=within) != 1:
        raise Fenced("the backfill was taken over by somebody else", next="look at the journal, or at `dbwatch status`")


async def _occupied(connection: Connection, row: Row) -> Occupied | None:
    """Whether the owner of *row* lives."""
    if row.owner.endswith(POOLED):
        return Occupied(row, None) if row.silent_s < PULSE_S else None
    if row.silent_s >= SILENT_S:
        return None
    holder = await (await connection.execute(_OWNERS, [row.owner])).fetchone()
    return None if holder is None else Occupied(row, holder[0])


async def _prepare(connection: Connection, spec_hash: str, fence: Fence | None) -> None:
    """One claim at a time, under settings by which keys are written exactly, and only by the window's driver."""
    settings = {**PINNED, "lock_timeout": "2s", "statement_timeout": "5s"}
    for name, value in settings.items():
        await connection.execute(sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(name), sql.Literal(value)))
    await connection.execute(
        "SELECT pg_catalog.pg_advisory_xact_lock(%s, %s)", [_LOCK, crc32(spec_hash.encode()) - 2**31]
    )
    if fence is None:
        return
    window = tables.window.c
    statement = select(window.epoch).where(window.id == fence.window).with_for_update(read=True)
    cursor = await connection.execute(*compiled(statement))
    if await cursor.fetchone() != (fence.epoch,):
        raise Fenced("the window was taken over by somebody else", next="look at the journal")


_LOCK = 0x6462_6266
"""The class of our advisory locks: `dbbf` in ASCII."""


async def _rows(connection: Connection, statement: Select[Any]) -> list[Row]:
    async with connection.cursor(row_factory=class_row(Row)) as cursor:
        await cursor.execute(*compiled(statement))
        return await cursor.fetchall()


def _require_whole(plan: Plan, rows: Sequence[Row]) -> None:
    """Raises Refused where the data of one of *rows* has gone back half-way: what is done and what not is mixed."""
    for row in rows:
        if row.status == RESTORING:
            raise Refused(
                f"the data of a backfill of {plan.table} is being brought back",
                why=f"{row.restored} rows so far, by {one_line(row.owner)}",
                next="let that end first: go on with the abort",
            )


def _require_images(plan: Plan, row: Row, window: UUID | None) -> None:
    """Raises Refused where *plan* asks for before-images, and rows were changed that have none for this window."""
    if not plan.kept:
        return
    if row.images is None and row.batches:
        raise Refused(
            f"the backfill of {plan.table} was begun without undo",
            why=f"{row.rows_done} rows were changed already, and what they held before is not known",
            next="finish it without undo",
        )
    if row.window_id != window:
        raise Refused(
            f"the backfill of {plan.table} was begun outside this window",
            why="an abort of this window would take back what was there when it opened",
            next="finish it where it was begun, or without undo",
        )


async def _take(connection: Connection, row: Row, owner: str, status: str = "running") -> Row:
    now = func.clock_timestamp()
    values = {
        "epoch": _t.epoch + 1,
        "owner": owner,
        "status": status,
        "beat_at": now,
        "note": None,
        "ended_at": None,
    }
    statement = update(tables.backfill).where(_t.id == row.id).values(**values).returning(*_COLUMNS)
    async with connection.cursor(row_factory=class_row(Row)) as cursor:
        await cursor.execute(*compiled(statement))
        [taken] = await cursor.fetchall()
    return taken


async def _new(connection: Connection, plan: Plan, owner: str, window: UUID | None, step_id: str | None) -> Claimed:
    ceiling: str | None = None
    nothing = False
    if plan.spec.mode == "once":
        last = await (await connection.execute(plan.statements.last(after=False, upto=False).encode(), {})).fetchone()
        nothing = last is None
        ceiling = None if last is None else to_cursor(last)
    statement = (
        insert(tables.backfill)
        .values(window_id=window, step_id=step_id, spec=plan.spec_json, spec_hash=plan.spec_hash, status="running")
        .values(owner=owner, epoch=1, ceiling=ceiling, walked=nothing)
        .returning(_t.id)
    )
    cursor = await connection.execute(*compiled(statement))
    [(id,)] = await cursor.fetchall()
    images = await _keep(connection, Images.of(id, plan.statements, plan.kept)) if plan.kept else None
    return Claimed(Position(id, 1, None, ceiling, 0, 0, 0, nothing), None, images)


async def _keep(connection: Connection, images: Images) -> Images:
    """Makes the table of images, for whoever may write the journal, and says in the row where it is."""
    for statement in images.create():
        await connection.execute(statement.encode(), {})
    cursor = await connection.execute(_WRITERS)
    for (writer,) in await cursor.fetchall():
        await connection.execute(_GRANT.format(images.own, sql.Identifier(writer)))
    id = int(images.relation.removeprefix("before_"))
    await connection.execute(*compiled(update(tables.backfill).where(_t.id == id).values(images=images.to_json())))
    return images


_WRITERS = """
SELECT r.rolname FROM pg_catalog.pg_class AS c
CROSS JOIN pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner))) AS a
INNER JOIN pg_catalog.pg_roles AS r ON r.oid = a.grantee
WHERE c.oid = 'dbwatch.backfill'::regclass AND a.privilege_type = 'UPDATE' AND r.rolname <> current_user
"""
"""Who else may take the backfill over."""
_GRANT = sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO {}")
