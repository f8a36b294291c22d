"""What an append does inside its transaction: the window's row locked, what is new read, the next events chained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select, update

from dbwatch.errors import ConnectionLost, DbwatchError, Fenced
from dbwatch.journal import tables as t
from dbwatch.journal.chain import Event, make
from dbwatch.journal.compile import compiled
from dbwatch.journal.events import Fact, WindowClosed
from dbwatch.journal.fold import WindowState
from dbwatch.journal.mirror import Pending
from dbwatch.journal.rows import columns_of, event_of, events_after
from dbwatch.postgres.session import Connection

CHANNEL = "dbwatch"
"""Of NOTIFY: each append tells `<window>/<seq>` on it."""


@dataclass(frozen=True, slots=True)
class Locked:
    """The window's row, locked until the transaction ends."""

    epoch: int
    last_seq: int
    head_hash: str
    now: datetime
    """The server's clock, once the lock was had."""
    closed: bool


async def locked(connection: Connection, window: UUID) -> Locked:
    """Locks the window's row. Raises DbwatchError where the database does not have it any more."""
    w = t.window.c
    statement = select(w.epoch, w.last_seq, w.head_hash, func.clock_timestamp(), w.closed_at.is_not(None))
    cursor = connection.cursor(binary=True)  # instants as numbers: a step's session has its role's own DateStyle
    await cursor.execute(*compiled(statement.where(w.id == window).with_for_update()))
    row = await cursor.fetchone()
    if row is None:
        raise lost()
    return Locked(*row)


def lost() -> DbwatchError:
    """The window is gone from the database."""
    return DbwatchError(
        "the window is no longer in the journal",
        why="the database was restored to a time before it was opened, or somebody deleted it",
        next="its events are in the local copy; nothing can be written to it any more",
    )


def fenced(found: int, epoch: int, unsent: int) -> Fenced:
    """The window is in epoch *found*, no longer in our *epoch*; *unsent* of our events the table does not have."""
    told = f", and the local copy alone has {unsent} of our events" if unsent else ""
    return Fenced(
        "this dbwatch is no longer the driver",
        why=f"somebody took the window over{told}"
        if found > epoch
        else f"the database lost commits and is back in epoch {found}, before we took the wheel",
        next="start dbwatch run again to rejoin it",
    )


async def raise_epoch(connection: Connection, window: UUID, driver: str, lease: timedelta) -> int:
    """Gives the window, and its backfills with it, to *driver* under a new epoch; that epoch. Raises as `locked`."""
    epoch = (await locked(connection, window)).epoch + 1
    values = {"epoch": epoch, "driver": driver, "lease_until": func.clock_timestamp() + lease}
    await connection.execute(*compiled(update(t.window).where(t.window.c.id == window).values(values)))
    b = t.backfill.c
    running = update(t.backfill).where(b.window_id == window, b.status.in_(("running", "restoring")))
    await connection.execute(*compiled(running.values(epoch=b.epoch + 1)))
    return epoch


async def entries(connection: Connection, window: UUID, row: Locked, known: WindowState) -> list[Event]:
    """The events after those that *known* is the fold of. Raises ConnectionLost where it is not their beginning."""
    cursor = connection.cursor(binary=True)
    await cursor.execute(*compiled(events_after(window, known.seq)))
    read = [event_of(found) for found in await cursor.fetchall()]
    if not follows(known, row.last_seq, row.head_hash, read):
        raise ConnectionLost("the journal went back", why="the database lost commits", next="reading it anew")
    return read


def follows(known: WindowState, last_seq: int, head_hash: str, read: Sequence[Event]) -> bool:
    """Whether the table, which ends at *last_seq* with *head_hash*, goes on from *known* with *read*. Pure.

    It does not where the database was restored to an older state, or lost commits in a failover.
    """
    if last_seq <= known.seq or not read:
        return (last_seq, head_hash) == (known.seq, known.head_hash)
    return read[0].prev_hash == known.head_hash


def chained(facts: Iterable[Fact], state: WindowState, made: list[Event], at: datetime, actor: str, epoch: int) -> None:
    """Adds *facts* to *made*, the events that follow *state*."""
    for fact in facts:
        _chain(Pending(at, actor, epoch, fact), state, made)


def chained_pending(pending: Iterable[Pending], state: WindowState, made: list[Event]) -> None:
    """Adds to *made* what happened while the table could not be written."""
    for fact in pending:
        _chain(fact, state, made)


def _chain(p: Pending, state: WindowState, made: list[Event]) -> None:
    seq, digest = (made[-1].seq, made[-1].hash) if made else (state.seq, state.head_hash)
    made.append(make(p.fact, seq=seq + 1, at=p.at, actor=p.actor, epoch=p.epoch, prev_hash=digest))


async def enter(connection: Connection, window: UUID, row: Locked, made: Sequence[Event]) -> None:
    """Writes *made*, closes the window's row where one of them closes it, and tells whoever listens."""
    await connection.execute(*compiled(insert(t.event).values([columns_of(window, event) for event in made])))
    values = {"last_seq": made[-1].seq, "head_hash": made[-1].hash, **_closing(row, made)}
    await connection.execute(*compiled(update(t.window).where(t.window.c.id == window).values(values)))
    await connection.execute("SELECT pg_notify(%s, %s)", [CHANNEL, f"{window}/{made[-1].seq}"])


def _closing(row: Locked, made: Sequence[Event]) -> dict[str, Any]:
    """What the window's row says once one of these events has closed it: another window may be opened then.

    What an earlier epoch's driver says late closes nothing.
    """
    ends = [e for e in made if isinstance(e.fact, WindowClosed) and e.epoch >= row.epoch]
    return {"closed_at": ends[0].at, "outcome": ends[0].fact.outcome} if ends else {}  # type: ignore[attr-defined]
