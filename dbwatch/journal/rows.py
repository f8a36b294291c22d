"""The journal's rows as values: windows as they stand in their table, and events read and written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Double, Select, cast, func, select

from dbwatch.journal import tables as t
from dbwatch.journal.chain import Event, decode, kind_of
from dbwatch.journal.compile import compiled
from dbwatch.postgres.session import Session


@dataclass(frozen=True, slots=True)
class WindowRow:
    """The window's own row: what does not change by events."""

    id: UUID
    title: str
    runbook_text: str
    runbook_sha: str
    opened_at: datetime
    start_heads: str
    fingerprint: str
    baseline: str
    epoch: int
    driver: str
    lease_left_s: float
    closed: bool


_ROW = select(
    t.window.c.id,
    t.window.c.title,
    t.window.c.runbook_text,
    t.window.c.runbook_sha,
    t.window.c.opened_at,
    t.window.c.start_heads,
    t.window.c.fingerprint,
    t.window.c.baseline,
    t.window.c.epoch,
    t.window.c.driver,
    func.extract("epoch", t.window.c.lease_until - func.clock_timestamp()).label("lease_left_s"),
    t.window.c.closed_at.is_not(None).label("closed"),
)


async def find_open(session: Session) -> WindowRow | None:
    """The open window of this database, where there is one. Raises as `Session.call` does."""
    return await _one(session, _ROW.where(t.window.c.closed_at.is_(None)))


async def find_last(session: Session) -> WindowRow | None:
    """The window opened last, open or closed. Raises as `Session.call` does."""
    return await _one(session, _ROW.order_by(t.window.c.opened_at.desc()).limit(1))


async def _one(session: Session, statement: Any) -> WindowRow | None:
    rows = await session.fetch(WindowRow, *compiled(statement))
    return rows[0] if rows else None


@dataclass(frozen=True, slots=True)
class Head:
    """How far a window's journal goes, and whose turn it is."""

    last_seq: int
    head_hash: str
    epoch: int
    lease_left_s: float


async def read_head(session: Session, window: UUID, *, within: float = 5.0) -> Head | None:
    """The head of *window*; None where the database does not have it. Raises as `Session.call` does."""
    w = t.window.c
    left = cast(func.extract("epoch", w.lease_until - func.clock_timestamp()), Double).label("lease_left_s")
    asked = select(w.last_seq, w.head_hash, w.epoch, left).where(w.id == window)
    found = await session.fetch(Head, *compiled(asked), within=within)
    return found[0] if found else None


async def read_events(session: Session, window: UUID, after: int = 0, *, within: float = 5.0) -> list[Event]:
    """The events of *window* with a seq above *after*, in order. Raises as `Session.call` does."""
    return [event_of(row) for row in await session.values(*compiled(events_after(window, after)), within=within)]


def events_after(window: UUID, after: int) -> Select[Any]:
    """Asks for the events of *window* with a seq above *after*; `event_of` reads a row of it."""
    e = t.event.c
    return (
        select(e.seq, e.at, e.actor, e.epoch, e.kind, e.body, e.prev_hash, e.hash)
        .where(e.window_id == window, e.seq > after)
        .order_by(e.seq)
    )


def event_of(row: tuple[Any, ...]) -> Event:
    """The event in a row of `events_after`."""
    seq, at, actor, epoch, kind, body, prev_hash, digest = row
    return Event(seq, at, actor, epoch, decode(kind, body), body, prev_hash, digest)


def columns_of(window: UUID, event: Event) -> dict[str, Any]:
    """An event as the columns of its table."""
    return {
        "window_id": window,
        "seq": event.seq,
        "at": event.at,
        "actor": event.actor,
        "epoch": event.epoch,
        "kind": kind_of(event.fact),
        "body": event.body,
        "prev_hash": event.prev_hash,
        "hash": event.hash,
    }
