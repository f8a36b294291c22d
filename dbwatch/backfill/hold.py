"""What one run holds on to through all troubles: its connections, and its row in the journal."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from operator import attrgetter

import psycopg

from dbwatch.backfill import row
from dbwatch.backfill.batch import BatchSession
from dbwatch.backfill.claim import Claimed
from dbwatch.backfill.crew import Crew
from dbwatch.backfill.plan import Plan
from dbwatch.backfill.progress import Worker
from dbwatch.backfill.row import Position, Row
from dbwatch.backfill.trouble import EXPECTED
from dbwatch.clock import Clock
from dbwatch.errors import Fenced
from dbwatch.postgres.session import Connector, Session
from dbwatch.text import one_line


class Hold:
    """The worker's own connection, those who fill beside it, and the position.

    *reclaim* claims again on a server that forgot the claim; *stands* tells from the row how far we are.
    """

    def __init__(
        self,
        session: BatchSession,
        claimed: Claimed,
        *,
        connector: Connector,
        plan: Plan,
        clock: Clock,
        reclaim: Callable[[Session], Awaitable[Claimed]],
        stands: Callable[[Row], Position] = attrgetter("position"),
    ) -> None:
        self.connector = connector
        self.plan = plan
        self.clock = clock
        self.position = claimed.position
        self.forgotten = 0
        """How often the server did not know any more what it had answered: after a failover, or a crash where a COMMIT
        is answered before it lasts. Rows and row went back together."""
        self.crew = Crew(connector, clock, plan.hands) if plan.hands > 1 else None
        """Those who fill beside us; None: we are alone."""
        self.changed: Callable[[], None] = lambda: None
        """Called where a connection came or went."""
        self._reclaim = reclaim
        self._stands = stands
        self._images = claimed.images
        self._session: BatchSession | None = None
        if self.crew is not None:
            self.crew.changed = lambda: self.changed()
        self._use(session)

    @property
    def session(self) -> BatchSession | None:
        """The connection, where there is one that is alive."""
        session = self._session
        return session if session is not None and session.session.alive else None

    @property
    def workers(self) -> tuple[Worker | None, tuple[Worker, ...]]:
        """Our own backend, and those beside it; none behind a pooler."""
        own = self._session.worker if self._session is not None else None
        return own, (self.crew.workers if self.crew is not None else ())

    async def connected(self) -> BatchSession:
        """The connection; a new one where it went, once the row has said what became of the last batch.

        Raises CannotConnect, Fenced where somebody took over, and as `Session.call` does.
        """
        if self.session is not None:
            return self.session
        self._session = None
        session = await BatchSession.open(self.connector)
        self._use(session)
        await self._adopt(session)
        return session

    async def again(self, session: BatchSession) -> None:
        """Takes the position from the row, after a message of which nobody knows how much was committed."""
        await session.rollback()
        await self.moved(session)

    async def moved(self, session: BatchSession) -> None:
        """Takes the position from the row; where that cannot be read now, it is once we are connected again."""
        try:
            await self._adopt(session)
        except EXPECTED:
            session.session.sever()

    async def part(self, status: str, note: str) -> None:
        """Writes into the row how it ended, if that can be done at once; else the row shows an owner that is gone."""
        if self.session is not None:
            with contextlib.suppress(*EXPECTED, Fenced):
                await row.close(self.session.session, self.position, status, pending=None, note=note, within=1.0)

    async def cancel(self) -> None:
        """Has the server cancel what we do, as far as it hears of it; else that ends by its statement_timeout."""
        if self.session is not None:
            with contextlib.suppress(psycopg.Error):
                await self.session.session.cancel()
        if self.crew is not None:
            await self.crew.cancel()

    async def disconnect(self) -> None:
        """Ends the connections."""
        if self.crew is not None:
            await self.crew.disband()
        if self._session is not None:
            await self._session.session.close()
            self._session = None

    def _use(self, session: BatchSession) -> None:
        session.images = self._images
        self._session = session
        self.changed()

    async def _adopt(self, session: BatchSession) -> None:
        """Takes over what the row says: the only answer to what became of a batch whose COMMIT was not answered.

        A lower epoch, or none, is a server that lost our claim in a failover, and our batches with it; another spec is
        one that has given our number to another backfill since.
        """
        found = await row.read(session.session, self.position.id)
        ours = self.plan.spec_json  # empty on a way back, which is not claimed before its backfill has lasted
        other = found is not None and bool(ours) and found.spec != ours
        if found is None or other or found.epoch < self.position.epoch:
            claimed = await self._reclaim(session.session)
            self.forgotten += 1
            self.position, self._images = claimed.position, claimed.images
            session.images = self._images
        elif found.epoch > self.position.epoch:
            raise Fenced(
                f"{self.plan.work} was taken over",
                why=f"by {one_line(found.owner)}",
                next="look at the journal",
            )
        else:
            stands, knew = self._stands(found), self.position
            if (stands.batches, stands.walked) < (knew.batches, knew.walked):
                self.forgotten += 1
            self.position = stands
