"""One window's journal in its tables: append by deciding on the newest state under the window's row lock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg import sql
from sqlalchemy import func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from dbwatch.clock import Clock
from dbwatch.errors import CannotConnect, ConnectionLost, DbwatchError, Fenced, Refused, ServerSilent
from dbwatch.journal import tables as t
from dbwatch.journal.compile import compiled
from dbwatch.journal.events import (
    DriverTook,
    Event,
    Fact,
    JournalRewound,
    WindowClosed,
    WindowOpened,
    make,
)
from dbwatch.journal.fence import Fence
from dbwatch.journal.fold import WindowState, fold
from dbwatch.journal.mirror import Mirror, Pending
from dbwatch.journal.rows import columns_of, event_of, events_after, read_events
from dbwatch.postgres.session import Connection, Connector, Role, Session, describe

Decide = Callable[[WindowState], Sequence[Fact]]
"""Looks at the newest state and says what is to be written; writes nothing by returning nothing."""

LEASE = timedelta(seconds=15)
_UNWRITABLE = (ConnectionLost, ServerSilent, CannotConnect, psycopg.OperationalError, psycopg.InternalError)


@dataclass(frozen=True, slots=True)
class Opening:
    """What a new window starts with."""

    fact: WindowOpened
    runbook_text: str
    fingerprint: str
    baseline: str


class Store:
    """Appends to and reads one window's journal; keeps the events, their fold, and the local mirror."""

    def __init__(self, connector: Connector, clock: Clock, actor: str, window: UUID, mirror: Mirror) -> None:
        self.window = window
        self.mirror = mirror
        self.actor = actor
        self.epoch = 0
        """The epoch that we hold; 0 while we only look."""
        self.trouble = ""
        """Why the table could not be written the last time; empty where it could."""
        self.changed = asyncio.Event()
        """Set at every change of the state; whoever waits clears it."""
        self._connector = connector
        self._clock = clock
        self._session: Session | None = None
        self._events: list[Event] = []
        self._confirmed = WindowState()
        self._turn = asyncio.Lock()
        self._gap: tuple[int, int] | None = None

    @property
    def events(self) -> tuple[Event, ...]:
        """All events that the table holds, and after them those that it could not take yet."""
        return (*self._events, *self._provisional())

    @property
    def state(self) -> WindowState:
        """The fold of `events`."""
        return fold(self._provisional(), self._confirmed) if self.mirror.pending else self._confirmed

    @property
    def fence(self) -> Fence:
        """Our right to act."""
        return Fence(self.window, self.epoch)

    def _provisional(self) -> list[Event]:
        made: list[Event] = []
        seq, digest = self._confirmed.seq, self._confirmed.head_hash
        for p in self.mirror.pending:
            made.append(make(p.fact, seq=seq + 1, at=p.at, actor=p.actor, epoch=p.epoch, prev_hash=digest))
            seq, digest = made[-1].seq, made[-1].hash
        return made

    async def append(self, decide: Decide, *, fenced: bool = True, within: float = 5.0) -> list[Event]:
        """Writes what *decide* says of the newest state, in one transaction; the events written.

        The window's row is locked meanwhile, so the decision stands on the last word. Raises Fenced where *fenced*
        and our epoch is over, and ConnectionLost, ServerSilent or psycopg.Error where the table cannot be written:
        then nothing of it was.
        """
        async with self._in_turn(within):
            return await self._append(decide, fenced, within)

    async def record(self, *facts: Fact, within: float = 2.0) -> None:
        """Writes what has happened already: into the table, or into the mirror where the table cannot take it.

        Raises Fenced where our epoch is over.
        """
        try:
            async with self._in_turn(within):
                await self._append(lambda _: facts, True, within)
        except _UNWRITABLE as error:
            self.trouble = describe(error)
            for fact in facts:
                await self.mirror.keep(Pending(self._clock.now(), self.actor, self.epoch, fact))
            self.changed.set()

    async def append_in(self, connection: Connection, decide: Decide) -> None:
        """Writes in the transaction of *connection*, so that both commit or neither; then call `refresh`."""
        await connection.execute("SET LOCAL DateStyle = 'ISO, YMD'")  # the driver has to read the server's clock
        await self._write(connection, decide, True)

    async def refresh(self, *, within: float = 5.0) -> None:
        """Reads what others have written since. Raises as `Session.call` does."""
        async with self._in_turn(within):
            session = await self._journal(within)
            rows = await session.values(
                *compiled(select(t.window.c.last_seq).where(t.window.c.id == self.window)), within=within
            )
            last = rows[0][0] if rows else 0
            if last < self._confirmed.seq:
                await self._rewound(last, within)
                return
            await self._took(await read_events(session, self.window, self._confirmed.seq))
            if self.mirror.pending and self.epoch:
                await self._append(lambda _: (), True, within)

    async def renew(self, *, within: float = 3.0) -> None:
        """Renews the lease. Raises Fenced where our epoch is over, and as `Session.call` does."""
        statement = (
            update(t.window)
            .where(t.window.c.id == self.window, t.window.c.epoch == self.epoch)
            .values(lease_until=func.clock_timestamp() + LEASE)
        )
        async with self._in_turn(within):
            session = await self._journal(within)
            if await session.execute(*compiled(statement), within=within) != 1:
                raise self._fenced()
            self.trouble = ""

    async def release(self, *, within: float = 1.0) -> None:
        """Ends the lease now, so that the next driver need not wait. Raises as `Session.call` does."""
        statement = (
            update(t.window)
            .where(t.window.c.id == self.window, t.window.c.epoch == self.epoch)
            .values(lease_until=func.clock_timestamp())
        )
        async with self._in_turn(within):
            session = await self._journal(within)
            await session.execute(*compiled(statement), within=within)

    async def save_progress(self, step: str, attempt: int, progress: str, *, within: float = 2.0) -> None:
        """Overwrites the running step's progress, JSON text. Raises as `Session.call` does."""
        values = {"step": step, "attempt": attempt, "epoch": self.epoch, "progress": progress}
        statement = upsert(t.running).values(window_id=self.window, at=func.clock_timestamp(), **values)
        statement = statement.on_conflict_do_update(
            index_elements=[t.running.c.window_id],
            set_={**values, "at": func.clock_timestamp()},
            where=t.running.c.epoch <= self.epoch,
        )
        async with self._in_turn(within):
            session = await self._journal(within)
            await session.execute(*compiled(statement), within=within)

    async def take(self, reason: str, *, bump: bool = True, within: float = 5.0) -> Fence:
        """Makes us the driver: epoch + 1 for the window and its backfills in one transaction; our new right."""

        async def work(connection: Connection) -> int:
            async with connection.transaction():
                row = await self._locked(connection)
                epoch = int(row[0]) + (1 if bump else 0)
                await connection.execute(
                    *compiled(
                        update(t.window)
                        .where(t.window.c.id == self.window)
                        .values(epoch=epoch, driver=self.actor, lease_until=func.clock_timestamp() + LEASE)
                    )
                )
                await connection.execute(
                    *compiled(
                        update(t.backfill)
                        .where(t.backfill.c.window_id == self.window, t.backfill.c.status == "running")
                        .values(epoch=t.backfill.c.epoch + 1)
                    )
                )
                self.epoch = epoch
                await self._write(connection, lambda _: [DriverTook(self.actor, reason)], True)
                return epoch

        async with self._in_turn(within):
            before = self.epoch
            session = await self._journal(within)
            try:
                await session.call(work, within=within)
            except BaseException:
                self.epoch = before
                raise
            await self._took(await read_events(session, self.window, self._confirmed.seq))
            await self._name(session)
            return self.fence

    async def close(self) -> None:
        """Ends the journal's connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def load(self, *, mirrored: bool = True, within: float = 10.0) -> None:
        """Reads the whole journal for the first time, and notices a table that is behind the mirror.

        With *mirrored* what the mirror lacks is written to it. Raises as `Session.call` does.
        """
        async with self._in_turn(within):
            session = await self._journal(within)
            events = await read_events(session, self.window)
            seq, digest = self.mirror.head
            behind = seq > 0 and (len(events) < seq or events[seq - 1].hash != digest)
            self.mirror.pending = [p for p in self.mirror.pending if not any(p.is_event(e) for e in events)]
            self._accept(events)
            if behind:
                self._gap = (seq, len(events))
            elif mirrored:
                await self.mirror.took(events)

    async def tell_gap(self) -> None:
        """Writes `journal.rewound` where `load` found the table behind the mirror."""
        if self._gap is not None:
            gap, self._gap = self._gap, None
            await self.append(lambda _: [JournalRewound(*gap)])

    # --- inside

    @asynccontextmanager
    async def _in_turn(self, within: float) -> AsyncIterator[None]:
        """One writer and reader at a time. Raises ServerSilent where the turn does not come within the deadline."""
        try:
            async with asyncio.timeout(within):
                await self._turn.acquire()
        except TimeoutError as error:
            raise ServerSilent(
                f"the journal was busy for {within:g} s", why="the server does not answer", next="it is tried again"
            ) from error
        try:
            yield
        finally:
            self._turn.release()

    async def _append(self, decide: Decide, fenced: bool, within: float) -> list[Event]:
        written: list[Event] = []

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                read, made = await self._write(connection, decide, fenced)
                written[:] = [*read, *made]

        session = await self._journal(within)
        try:
            await session.call(work, within=within)
        except (ConnectionLost, ServerSilent):
            if not written or not await self._committed(written[-1], within):
                raise
        self.trouble = ""
        await self._took(written)
        return written

    async def _committed(self, event: Event, within: float) -> bool:
        """The connection went while the transaction ended: is *event* in the table?"""
        try:
            session = await self._journal(within)
            events = await read_events(session, self.window, event.seq - 1)
        except (DbwatchError, psycopg.Error):
            return False
        return any(e.hash == event.hash for e in events)

    async def _write(self, connection: Connection, decide: Decide, fenced: bool) -> tuple[list[Event], list[Event]]:
        epoch, last, _digest, now, closed = await self._locked(connection)
        if fenced and epoch != self.epoch:
            raise self._fenced()
        if last < self._confirmed.seq:
            raise ConnectionLost("the journal went back", why="the database lost commits", next="reading it anew")
        cursor = await connection.execute(*compiled(events_after(self.window, self._confirmed.seq)))
        read = [event_of(row) for row in await cursor.fetchall()]
        state = fold(read, self._confirmed)
        made: list[Event] = []
        for p in self.mirror.pending if fenced else ():
            if not any(p.is_event(e) for e in (*self._events, *read)):
                made.append(_next(p.fact, state, made, p.at, p.actor, p.epoch))
        for fact in decide(fold(made, state)):
            made.append(_next(fact, state, made, now, self.actor, epoch))
        if made:
            if closed:
                raise Refused("the window is closed", why="its journal ends there", next="open a new window")
            await connection.execute(*compiled(insert(t.event).values([columns_of(self.window, e) for e in made])))
            row = {"last_seq": made[-1].seq, "head_hash": made[-1].hash, **_closing(made)}
            await connection.execute(*compiled(update(t.window).where(t.window.c.id == self.window).values(row)))
            await connection.execute("SELECT pg_notify('dbwatch', %s)", [f"{self.window}/{made[-1].seq}"])
        self._clock.server_said(now)
        return read, made

    async def _locked(self, connection: Connection) -> tuple[Any, ...]:
        w = t.window.c
        statement = (
            select(w.epoch, w.last_seq, w.head_hash, func.clock_timestamp(), w.closed_at.is_not(None))
            .where(w.id == self.window)
            .with_for_update()
        )
        row = await (await connection.execute(*compiled(statement))).fetchone()
        if row is None:
            raise ConnectionLost("the window is no longer in the journal", why="the database lost it")
        return row

    async def _rewound(self, last: int, within: float) -> None:
        ahead = self._confirmed.seq
        session = await self._journal(within)
        self._events, self._confirmed = [], WindowState()
        self._accept(await read_events(session, self.window))
        if self.epoch:
            await self._append(lambda _: [JournalRewound(ahead, last)], True, within)

    async def _took(self, events: list[Event]) -> None:
        fresh = [e for e in events if e.seq > self._confirmed.seq]
        if fresh:
            self._accept(fresh)
            await self.mirror.took(fresh)
            self.changed.set()

    def _accept(self, events: list[Event]) -> None:
        self._events.extend(events)
        self._confirmed = fold(events, self._confirmed)

    async def _journal(self, within: float) -> Session:
        if self._session is None or not self._session.alive:
            self._session = await self._connector.open(Role.JOURNAL, within=within)
            await self._name(self._session)
        return self._session

    async def _name(self, session: Session) -> None:
        if self.epoch:
            name = f"dbwatch {Role.JOURNAL} {self.fence.tag}"
            await session.execute(sql.SQL("SET application_name = {}").format(sql.Literal(name)))

    def _fenced(self) -> Fenced:
        return Fenced(
            "this dbwatch is no longer the driver",
            why="somebody took the window over",
            next="start dbwatch run again to rejoin it",
        )


def _closing(made: list[Event]) -> dict[str, Any]:
    """What the window's row says once one of these events has closed it: another window may be opened then."""
    ends = [(event.at, event.fact.outcome) for event in made if isinstance(event.fact, WindowClosed)]
    return {"closed_at": ends[0][0], "outcome": ends[0][1]} if ends else {}


def _next(fact: Fact, state: WindowState, made: list[Event], at: datetime, actor: str, epoch: int) -> Event:
    seq, digest = (made[-1].seq, made[-1].hash) if made else (state.seq, state.head_hash)
    return make(fact, seq=seq + 1, at=at, actor=actor, epoch=epoch, prev_hash=digest)


async def open_window(
    connector: Connector, clock: Clock, actor: str, opening: Opening, folder: Path, *, within: float = 10.0
) -> Store:
    """A new window with its first event; we drive it in epoch 1.

    Raises Refused where another window is open in this database.
    """
    window = uuid4()
    store = Store(connector, clock, actor, window, Mirror(folder, window))

    async def work(connection: Connection) -> None:
        async with connection.transaction():
            await connection.execute(
                *compiled(
                    insert(t.window).values(
                        id=window,
                        title=opening.fact.title,
                        runbook_text=opening.runbook_text,
                        runbook_sha=opening.fact.runbook_sha,
                        start_heads=json.dumps(opening.fact.heads),
                        fingerprint=opening.fingerprint,
                        baseline=opening.baseline,
                        epoch=1,
                        driver=actor,
                        lease_until=func.clock_timestamp() + LEASE,
                    )
                )
            )
            store.epoch = 1
            written[:] = (await store._write(connection, lambda _: [opening.fact], True))[1]

    written: list[Event] = []
    session = await store._journal(within)
    try:
        await session.call(work, within=within)
    except psycopg.errors.UniqueViolation as error:
        raise Refused(
            "another window is open in this database",
            why="a database has one at a time",
            next="see `dbwatch status`, and finish or abort that one",
        ) from error
    await store._took(written)
    await store._name(session)
    return store
