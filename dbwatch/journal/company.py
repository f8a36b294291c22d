"""What two people at one window see of each other, besides its events: who is there, how far the work is, the way back.

None of it is history: each row is overwritten as things go on, and losing one costs a second.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.dialects.postgresql import insert as upsert

from dbwatch.journal import tables as t
from dbwatch.journal.compile import compiled
from dbwatch.postgres.session import Session

T = TypeVar("T")
Ask = Callable[[Session], Awaitable[T]]
"""A question to the journal's session."""

THERE = timedelta(seconds=15)
"""Whoever was not heard of for so long has left: three signs of life were missed."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A person at the window."""

    actor: str
    """`name@host`."""
    driving: int
    """The epoch that they hold; 0: a navigator."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the running step is, as its driver last said."""

    step: str
    attempt: int
    epoch: int
    age_s: float
    progress: str
    """JSON."""


@dataclass(frozen=True, slots=True)
class WayBack:
    """The way back as the driver last computed it."""

    epoch: int
    seq: int
    age_s: float
    plan: str
    verdict: str
    """Both JSON."""


def sit(window: UUID, actor: str, driving: int) -> Ask[None]:
    """Says that *actor* is there; *driving* is the epoch that they hold, 0 for a navigator."""

    async def ask(session: Session) -> None:
        values = {"driving": driving, "at": func.clock_timestamp()}
        statement = upsert(t.seat).values(window_id=window, actor=actor, **values)
        statement = statement.on_conflict_do_update(index_elements=[t.seat.c.window_id, t.seat.c.actor], set_=values)
        await session.execute(*compiled(statement), within=2.0)

    return ask


def seats(window: UUID) -> Ask[list[Seat]]:
    """Who is there now, drivers first."""

    async def ask(session: Session) -> list[Seat]:
        s = t.seat.c
        there = select(s.actor, s.driving).where(s.window_id == window, s.at > func.clock_timestamp() - THERE)
        return await session.fetch(Seat, *compiled(there.order_by(s.driving.desc(), s.actor)), within=2.0)

    return ask


def save_progress(window: UUID, epoch: int, step: str, attempt: int, progress: str) -> Ask[None]:
    """Overwrites how far the running step is, *progress* in JSON, unless a later driver did already."""

    async def ask(session: Session) -> None:
        values = {"step": step, "attempt": attempt, "epoch": epoch, "progress": progress, "at": func.clock_timestamp()}
        statement = upsert(t.running).values(window_id=window, **values)
        statement = statement.on_conflict_do_update(
            index_elements=[t.running.c.window_id], set_=values, where=t.running.c.epoch <= epoch
        )
        await session.execute(*compiled(statement), within=2.0)

    return ask


def progress(window: UUID) -> Ask[Progress | None]:
    """How far the running step is; None where none ever ran."""

    async def ask(session: Session) -> Progress | None:
        r = t.running.c
        asked = select(r.step, r.attempt, r.epoch, _age(r.at), r.progress).where(r.window_id == window)
        found = await session.fetch(Progress, *compiled(asked), within=2.0)
        return found[0] if found else None

    return ask


def lay_way_back(window: UUID, epoch: int, seq: int, plan: str, verdict: str) -> Ask[None]:
    """Leaves the way back for the others, unless a later driver did already."""

    async def ask(session: Session) -> None:
        values = {"epoch": epoch, "seq": seq, "at": func.clock_timestamp(), "plan": plan, "verdict": verdict}
        statement = upsert(t.way_back).values(window_id=window, **values)
        statement = statement.on_conflict_do_update(
            index_elements=[t.way_back.c.window_id], set_=values, where=t.way_back.c.epoch <= epoch
        )
        await session.execute(*compiled(statement), within=2.0)

    return ask


def way_back(window: UUID) -> Ask[WayBack | None]:
    """The way back as the driver last computed it; None where none ever did."""

    async def ask(session: Session) -> WayBack | None:
        w = t.way_back.c
        asked = select(w.epoch, w.seq, _age(w.at), w.plan, w.verdict).where(w.window_id == window)
        found = await session.fetch(WayBack, *compiled(asked), within=2.0)
        return found[0] if found else None

    return ask


def _age(at: ColumnElement[datetime]) -> ColumnElement[Any]:
    return func.extract("epoch", func.clock_timestamp() - at).label("age_s")
