"""Statements of a way back that may find a lock in their way: tried again, and told for whom they wait.

A try gives up after lock_timeout, so that nobody queues behind it for long. The pause before the next one ends as soon
as those who were in the way are gone: cancelling them lets the way back go on at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime

import psycopg
from psycopg import errors

from dbwatch.clock import Clock
from dbwatch.errors import DbwatchError
from dbwatch.journal.events import Fact
from dbwatch.postgres.kept import Kept
from dbwatch.postgres.queries import query
from dbwatch.postgres.session import Connection, Role
from dbwatch.steps.progress import MigrationProgress, started
from dbwatch.steps.statement import Write, run_alone, run_together, unhurried
from dbwatch.text import age, one_line
from dbwatch.window.ground import Ground

ATTEMPTS = 20
"""How often a downgrade, or a drop, is tried where a lock is in the way."""
FIRST_PAUSE_S = 0.5
LAST_PAUSE_S = 5.0
"""The shortest and the longest pause between two tries of a drop."""
LOOK_S = 0.3
"""How often it is looked who is in the way, and whether they still are."""

_IN_THE_WAY = (errors.LockNotAvailable, errors.DeadlockDetected)


@dataclass(frozen=True, slots=True)
class Holder:
    """A session that kept ours waiting."""

    pid: int
    xact_start: datetime | None
    words: str
    """`47110 (reports, idle in transaction 31 s): SELECT ...`."""


class Lookout:
    """Sees who keeps a backend of ours waiting, and when they are gone."""

    def __init__(self, control: Kept, clock: Clock) -> None:
        self._control, self._clock = control, clock
        self.pid: int | None = None
        """The backend that is watched; None: none of ours runs."""
        self.seen: tuple[Holder, ...] = ()
        """Who was in the way when it last was so."""

    @property
    def words(self) -> str:
        """Whom it waited for last; empty: nobody."""
        return ", ".join(holder.words for holder in self.seen)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Looks again and again within."""
        looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.wait({looking})

    async def _look(self) -> None:
        while True:
            if self.pid is not None:
                with contextlib.suppress(DbwatchError, psycopg.Error):  # the statement itself tells what went wrong
                    self.seen = await self._holders(self.pid) or self.seen
            await self._clock.sleep(LOOK_S)

    async def _holders(self, pid: int) -> tuple[Holder, ...]:
        session = await self._control.session()
        rows = await session.values(query("abort-in-the-way", session.server_version), {"pid": pid}, within=2.0)
        return tuple(
            Holder(holder, since, f"{holder} ({one_line(who)}, {state} {age(seconds)}): {one_line(text, 80)}")
            for holder, _, since, who, state, seconds, text in rows
        )

    async def gone(self) -> bool:
        """Whether those who were in the way have all ended the transaction in which they were; False: nobody was."""
        if not self.seen:
            return False
        session = await self._control.session()
        wish = {"pids": [h.pid for h in self.seen], "starts": [h.xact_start for h in self.seen]}
        [(left,)] = await session.values(query("abort-still-there", session.server_version), wish, within=2.0)
        return bool(left == 0)

    async def pause(self, seconds: float, stop: asyncio.Event) -> None:
        """Waits so long, or until nobody is in the way any more, or until *stop*."""
        until = self._clock.monotonic() + seconds
        while self._clock.monotonic() < until and not stop.is_set():
            await self._clock.sleep(min(LOOK_S, max(0.0, until - self._clock.monotonic())))
            with contextlib.suppress(DbwatchError, psycopg.Error):
                if await self.gone():
                    return


class Knocking:
    """Runs the statements of one abort, each in a session of its own that is proven to be the driver's."""

    def __init__(
        self,
        ground: Ground,
        lookout: Lookout,
        stop: asyncio.Event,
        show: Callable[[MigrationProgress], None],
        note: Callable[[str], Awaitable[None]],
    ) -> None:
        self._ground, self._lookout, self._stop = ground, lookout, stop
        self._show, self._note = show, note

    async def alone(self, statement: str, step: str, *, unlimited: bool) -> None:
        """One statement by itself. *unlimited*: without timeouts, as what is CONCURRENTLY needs it.

        Raises Fenced where it is not our turn any more, DbwatchError, or psycopg.Error in the end.
        """
        store = self._ground.store
        fence = store.fence

        async def prove(connection: Connection) -> None:
            await store.append_in(connection, lambda _: (), fence)

        await self._tried(statement, step, prove, None, unlimited)

    async def together(self, statement: str, step: str, done: Callable[[], Fact]) -> None:
        """One statement, with what *done* says of it in the same transaction. Raises as `alone` does."""
        await self._tried(statement, step, None, done, False)
        await self._ground.store.refresh()

    async def _tried(
        self, statement: str, step: str, prove: Write | None, done: Callable[[], Fact] | None, unlimited: bool
    ) -> None:
        progress = replace(started(step, ATTEMPTS), statement=one_line(statement, 500), number=1)
        for attempt in range(1, ATTEMPTS + 1):
            progress = replace(progress, attempt=attempt, retry_in_s=None)
            try:
                await self._once(statement, progress, prove, done, unlimited)
                return
            except _IN_THE_WAY as error:
                if attempt == ATTEMPTS or self._stop.is_set():
                    raise
                wait_s = min(LAST_PAUSE_S, FIRST_PAUSE_S * 1.5 ** (attempt - 1))
                whom = f"; it waited for {self._lookout.words}" if self._lookout.words else ""
                why = f"{one_line(str(error.diag.message_primary or error))}{whom}"
                progress = replace(
                    progress, pid=None, retry_in_s=wait_s, note=f"{why}; try {attempt + 1} of {ATTEMPTS} follows"
                )
                self._show(progress)
                await self._note(progress.note)
                await self._lookout.pause(wait_s, self._stop)

    async def _once(
        self,
        statement: str,
        progress: MigrationProgress,
        prove: Write | None,
        done: Callable[[], Fact] | None,
        unlimited: bool,
    ) -> None:
        ground, store = self._ground, self._ground.store
        fence = store.fence
        limits = unhurried(statement, ground.limits) if unlimited else ground.limits
        session = await ground.connector.tagged(fence.tag).open(Role.WORKER, limits=limits)
        try:
            self._lookout.pid, self._lookout.seen = session.pid, ()
            self._show(replace(progress, pid=session.pid))
            if prove is not None:
                await run_alone(session, statement, prove, control=ground.control, stop=self._stop)
            elif done is not None:

                async def write(connection: Connection, _: str) -> None:
                    await store.append_in(connection, lambda _: (done(),), fence)

                await run_together(session, statement, write, control=ground.control, stop=self._stop, limits=limits)
        finally:
            self._lookout.pid = None
            await session.close()
