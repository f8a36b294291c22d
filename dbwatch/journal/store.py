"""One window's journal in its tables: append by deciding on the newest state under the window's row lock."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import ColumnElement, func, insert, update

from dbwatch.clock import Clock
from dbwatch.errors import ConnectionLost, DbwatchError, Fenced, Refused, ServerSilent
from dbwatch.journal import company, ledger
from dbwatch.journal import tables as t
from dbwatch.journal.chain import Event, broken_link
from dbwatch.journal.company import Ask, T
from dbwatch.journal.compile import compiled
from dbwatch.journal.events import DriverTook, Fact, JournalBroken, JournalRewound, WindowOpened
from dbwatch.journal.fence import Fence
from dbwatch.journal.fold import WindowState, fold
from dbwatch.journal.line import Line
from dbwatch.journal.mirror import Mirror, Pending, key_of
from dbwatch.journal.rows import read_events, read_head
from dbwatch.postgres.session import Connection, Connector, Session, describe

Decide = Callable[[WindowState], Sequence[Fact]]
"""Looks at the newest state and says what is to be written; writes nothing by returning nothing."""

LEASE = timedelta(seconds=15)


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
        self._unwritable = ""
        self._line = Line(connector, window)
        self._clock = clock
        self._events: list[Event] = []
        self._confirmed = WindowState()
        self._gap: tuple[int, int] | None = None
        self.broken = 0
        """The first event found that does not follow from the one before it: the journal was edited; 0: none was."""
        self._unanswered: Event | None = None
        """Our own `take` of which no answer came: the journal may have it."""
        self._mirrored = True
        self.lease_left_s = 0.0
        """How long the driver's lease ran on when the table was last read; below 0 it ran out."""

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

    @property
    def trouble(self) -> str:
        """Why the table, or the local copy, could not be written the last time; empty where both could."""
        return "; ".join(filter(None, (self._unwritable, self.mirror.trouble)))

    def _provisional(self) -> list[Event]:
        made: list[Event] = []
        ledger.chained_pending(self.mirror.pending, self._confirmed, made)
        return made

    async def append(self, decide: Decide, *, fenced: bool = True, within: float = 5.0) -> list[Event]:
        """Writes what *decide* says of the newest state, in one transaction; the events written.

        The window's row is locked meanwhile, so the decision stands on the last word. Raises Fenced where *fenced*
        and our epoch is over, Refused where the window is closed, and DbwatchError or psycopg.Error where the table
        cannot be written: then nothing of it was. But where the connection went (ConnectionLost, ServerSilent) while
        the transaction ended, and no new one was had, only a later `refresh` tells whether it was.
        """
        async with self._line.in_turn(within):
            return await self._append(decide, self.epoch if fenced else None, within, [])

    async def record(
        self, *facts: Fact, when: Callable[[WindowState], bool] = lambda _: True, within: float = 2.0
    ) -> bool:
        """Writes what has happened already: into the table, or into the mirror where the table cannot take it.

        Nothing where *when* does not hold of the newest state. Whether it would survive our death: not where neither
        can be written (`trouble` says why). Raises Fenced where our epoch is over, and Refused where the window is
        closed.
        """
        written: list[Event] = []
        try:
            async with self._line.in_turn(within):
                await self._append(lambda state: facts if when(state) else (), self.epoch, within, written)
        except (Fenced, Refused):
            raise
        except (DbwatchError, psycopg.Error) as error:
            self._unwritable = describe(error)
            if not when(self.state):
                return True
            # Under the instant that it was written with: the table may have it, if only the answer was lost.
            at = written[-1].at if written else self._clock.now()
            await self.mirror.keep(*(Pending(at, self.actor, self.epoch, fact) for fact in facts))
            return not self.mirror.trouble
        return True

    async def append_in(self, connection: Connection, decide: Decide, fence: Fence) -> None:
        """Writes in the transaction of *connection*, so that both commit or neither; then call `refresh`.

        Raises Fenced where *fence*, under which the work began, is over, even if it was we who went on to the next.
        """
        await self._write(connection, decide, fence.epoch)

    async def refresh(self, *, within: float = 5.0) -> None:
        """Reads what others have written since; while we are the driver, writes what waits in the mirror.

        Whoever is fenced out only reads on. Raises as `Session.call` does.
        """
        async with self._line.in_turn(within):
            session = await self._line.session(within)
            head = await read_head(session, self.window, within=within)
            if head is None:
                raise ledger.lost()
            await self._adopted(within)
            self.lease_left_s = head.lease_left_s
            read = await read_events(session, self.window, self._confirmed.seq)
            if ledger.follows(self._confirmed, head.last_seq, head.head_hash, read):
                await self._took(read)
            else:
                await self._begin_anew(session)
            if head.epoch == self.epoch:
                await self._tell_rewound(within)
                if self.mirror.pending and self._confirmed.open:
                    await self._append(lambda _: (), self.epoch, within, [])
            else:
                self._unwritable = ""  # it is not ours to write, and it was read
            await self.mirror.catch_up()

    async def settle(self, *, within: float = 3.0) -> None:
        """Waits until whatever is on its way into the journal is there or failed: then `state` tells. Raises
        ServerSilent where that takes longer."""
        async with self._line.in_turn(within):
            pass

    async def renew(self, *, within: float = 3.0) -> None:
        """Renews the lease. Raises Fenced where our epoch is over, and as `Session.call` does."""
        async with self._line.in_turn(within):
            until = func.clock_timestamp() + LEASE
            renewed = await self._lease_until(until, within)
            if renewed != 1 and await self._adopted(within):
                renewed = await self._lease_until(until, within)
            if renewed != 1:
                head = await read_head(await self._line.session(within), self.window)
                raise self._fenced(head.epoch) if head else ledger.lost()
            self._unwritable = ""

    async def release(self, *, within: float = 1.0) -> None:
        """Ends the lease now, so that the next driver need not wait. Raises as `Session.call` does."""
        async with self._line.in_turn(within):
            await self._lease_until(func.clock_timestamp(), within)

    async def _lease_until(self, instant: ColumnElement[datetime], within: float) -> int:
        mine = (t.window.c.id == self.window, t.window.c.epoch == self.epoch)
        statement = update(t.window).where(*mine).values(lease_until=instant)
        return await (await self._line.session(within)).execute(*compiled(statement), within=within)

    async def ask(self, question: Ask[T], *, within: float = 3.0) -> T:
        """The answer to *question*, asked on the journal's own session. Raises as `Session.call` does."""
        async with self._line.in_turn(within):
            return await question(await self._line.session(within))

    async def save_progress(self, step: str, attempt: int, progress: str, *, within: float = 2.0) -> None:
        """Overwrites the running step's progress, JSON text. Raises as `Session.call` does."""
        await self.ask(company.save_progress(self.window, self.epoch, step, attempt, progress), within=within)

    async def take(self, reason: str, *, seen: int | None = None, within: float = 5.0) -> Fence:
        """Makes us the driver: epoch + 1 for the window and its backfills in one transaction; our new right.

        Raises as `append` does, and Refused where the epoch is not *seen* any more: of two who find the wheel free
        one gets it. Without *seen*, taking it once more is safe. Where the answer is lost, the new epoch is ours as
        soon as it is found in the journal, whoever looks there: `refresh`, `renew`, or an append under the old one.
        """
        written: list[Event] = []

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                epoch = await ledger.raise_epoch(connection, self.window, self.actor, LEASE)
                if seen is not None and epoch != seen + 1:
                    raise Refused("somebody else has just taken the wheel", next="see who with dbwatch status")
                written[:] = await self._write(connection, lambda _: [DriverTook(self.actor, reason)], epoch)

        async with self._line.in_turn(within):
            try:
                await self._line.committed(work, written, within)
            except (ConnectionLost, ServerSilent):
                self._unanswered = written[-1] if written else self._unanswered
                raise
            self.epoch, self._unanswered = written[-1].epoch, None
            await self._took(written)
            if not self._mirrored:
                self._mirrored = True
                await self.mirror.took(self._events)
            await self._line.go_by(self.fence.tag, within)
            return self.fence

    async def close(self) -> None:
        """Ends the journal's connection."""
        await self._line.close()

    async def load(self, *, mirrored: bool = True, within: float = 10.0) -> None:
        """Reads the whole journal for the first time, and notices a table that is behind the mirror.

        With *mirrored* what the mirror lacks is written to it; without, that waits until we take the wheel: the
        driver may sit at the same machine, and a mirror has one writer. Raises as `Session.call` does.
        """
        self._mirrored = mirrored
        async with self._line.in_turn(within):
            events = await read_events(await self._line.session(within), self.window)
            seq, digest = self.mirror.head
            known = {key_of(e) for e in events} if self.mirror.pending else set()
            self.mirror.pending = [p for p in self.mirror.pending if p.key not in known]
            self._accept(events)
            if seq > 0 and (len(events) < seq or events[seq - 1].hash != digest):
                self._gap = (seq, len(events))
            elif mirrored:
                await self.mirror.took(events)

    async def tell_gap(self) -> None:
        """Writes `journal.rewound` where `load` found the table behind the mirror, `journal.broken` where it found it
        edited. Raises as `append` does."""
        async with self._line.in_turn(5.0):
            await self._tell_rewound(5.0)

    # --- inside

    async def _adopted(self, within: float) -> bool:
        """Whether a `take` of ours whose answer was lost is found in the journal: its epoch is ours from now on."""
        took = self._unanswered
        if took is None:
            return False
        read = await read_events(await self._line.session(within), self.window, took.seq - 1, within=within)
        if read:
            self._unanswered = None
        if not read or read[0].hash != took.hash:
            return False
        self.epoch = took.epoch
        await self._line.go_by(self.fence.tag, within)
        return True

    async def _append(self, decide: Decide, epoch: int | None, within: float, written: list[Event]) -> list[Event]:
        """As `append`. *written* takes what was made, also where it is not known whether it was committed."""

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                written[:] = await self._write(connection, decide, epoch)

        try:
            await self._line.committed(work, written, within)
        except Fenced:  # what fenced us out may be our own `take`; it is over, for the row was locked
            if epoch is None or not await self._adopted(within):
                raise
            return await self._append(decide, self.epoch, within, written)
        self._unwritable = ""
        await self._took(written)
        return written

    async def _write(self, connection: Connection, decide: Decide, epoch: int | None) -> list[Event]:
        """Writes what waits in the mirror and what *decide* says; all events that `_confirmed` lacks.

        With *epoch* only if it is the window's, else Fenced is raised.
        """
        row = await ledger.locked(connection, self.window)
        if epoch is not None and row.epoch != epoch:
            raise self._fenced(row.epoch)
        known = self._confirmed
        read = await ledger.entries(connection, self.window, row, known)
        state = fold(read, known)
        made: list[Event] = []
        if epoch is not None and self.mirror.pending and not row.closed:
            there = {key_of(e) for e in (*self._events, *read)}
            ledger.chained_pending((p for p in self.mirror.pending if p.key not in there), state, made)
        ledger.chained(decide(fold(made, state)), state, made, row.now, self.actor, row.epoch)
        if made:
            if row.closed:
                raise Refused("the window is closed", why="its journal ends there", next="open a new window")
            await ledger.enter(connection, self.window, row, made)
        self._clock.server_said(row.now)
        return [*read, *made]

    async def _begin_anew(self, session: Session) -> None:
        """The table does not go on from what we know: takes it as it is. Nothing changes where it cannot be read."""
        events = await read_events(session, self.window)
        known = {event.hash for event in self._events}
        if not any(isinstance(e.fact, JournalRewound) for e in events if e.hash not in known):
            self._gap = (self._confirmed.seq, len(events))
        self._events, self._confirmed, self.broken = [], WindowState(), 0
        self._accept(events)

    async def _tell_rewound(self, within: float) -> None:
        """Says in the journal that it was edited or went back, where that was found out and not said yet."""
        broken = self.broken
        if broken not in (0, self._confirmed.broken) and self.epoch and self._confirmed.open:
            await self._append(lambda _: [JournalBroken(broken)], self.epoch, within, [])
        if self._gap is None or not self.epoch:
            return
        gap = self._gap
        if self._confirmed.open:
            await self._append(lambda _: [JournalRewound(*gap)], self.epoch, within, [])
        self._gap = None
        await self.mirror.took(self._events)

    async def _took(self, events: list[Event]) -> None:
        fresh = [e for e in events if e.seq > self._confirmed.seq]
        if fresh:
            self._accept(fresh)
            if self._mirrored and self._gap is None:  # else the mirror keeps what the table lost, until that was said
                await self.mirror.took(fresh)

    def _accept(self, events: list[Event]) -> None:
        self.broken = self.broken or broken_link(events, self._confirmed.seq, self._confirmed.head_hash) or 0
        self._events.extend(events)
        self._confirmed = fold(events, self._confirmed)

    def _fenced(self, found: int) -> Fenced:
        return ledger.fenced(found, self.epoch, len(self.mirror.pending))


async def open_window(
    connector: Connector, clock: Clock, actor: str, opening: Opening, folder: Path, *, within: float = 10.0
) -> Store:
    """A new window with its first event; we drive it in epoch 1.

    Raises Refused where another window is open in this database, UsageError where *folder* cannot be written, and as
    `Store.append` does.
    """
    window = uuid4()
    store = Store(connector, clock, actor, window, Mirror(folder, window))
    store.mirror.prepare()

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
            written[:] = await store._write(connection, lambda _: [opening.fact], 1)

    written: list[Event] = []
    try:
        await store._line.committed(work, written, within)
        store.epoch = 1
        await store._took(written)
        await store._line.go_by(store.fence.tag, within)
    except BaseException as error:
        await store.close()
        if not isinstance(error, psycopg.errors.UniqueViolation):
            raise
        raise Refused(
            "another window is open in this database",
            why="a database has one at a time",
            next="see `dbwatch status`, and finish or abort that one",
        ) from error
    return store
