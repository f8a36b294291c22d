"""Brings before-images back in batches, under the control law, the fence and the commit protocol of a backfill."""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

import psycopg
from psycopg import sql

from dbwatch.backfill import claim, kept, row
from dbwatch.backfill.batch import BatchSession
from dbwatch.backfill.claim import Claimed, Finished
from dbwatch.backfill.control import Control, StopRequested
from dbwatch.backfill.health import Thresholds
from dbwatch.backfill.hold import Hold
from dbwatch.backfill.kept import Kept
from dbwatch.backfill.keys import to_text
from dbwatch.backfill.legs import legs
from dbwatch.backfill.pace import Batch
from dbwatch.backfill.pages import Pages
from dbwatch.backfill.part import Timeouts
from dbwatch.backfill.plan import Plan
from dbwatch.backfill.progress import Progress, State, nobody
from dbwatch.backfill.report import Reporter
from dbwatch.backfill.row import RESTORED, RESTORING
from dbwatch.backfill.spec import Spec
from dbwatch.backfill.worker import BatchWorker, at_work
from dbwatch.clock import Clock
from dbwatch.errors import DbwatchError, Fenced
from dbwatch.journal.fence import Fence
from dbwatch.postgres.session import Connection, Connector, Role, Session

ANALYZE_S = 10.0
"""How long the planner's statistics of the images may take to be taken."""


@dataclass(frozen=True, slots=True)
class Returned:
    """How bringing the images of one backfill back ended."""

    outcome: State
    """DONE or STOPPED; a failure raises."""
    rows: int
    """Brought back, earlier runs included."""
    changed: int
    """Left as they are: others changed them since."""
    missing: int
    """Not there any more under their key."""
    seconds: float
    """Of this run."""
    note: str = ""
    """What became of the table of images."""

    def __str__(self) -> str:
        parts = [f"{self.rows:,} rows brought back"]
        if self.changed:
            parts.append(f"{self.changed:,} rows changed by others since, left as they are")
        if self.missing:
            parts.append(f"{self.missing:,} rows gone since")
        return "; ".join([*parts, *filter(None, [self.note])])


def planned(of: Kept, batch_time_ms: int = 100) -> Plan:
    """What will be done, as the engine knows plans: a walk along the keys of the images. Pure."""
    images = of.kept_in
    walk = images.walk
    return Plan(
        spec=Spec(f"{images.schema}.{images.table}", "", "", mode="once", batch_time_ms=batch_time_ms),
        spec_json="",
        spec_hash="",
        table=images.display,
        index="",
        key=walk.key,
        nullable=False,
        statements=walk,
        legs=legs(walk, (), Pages(1.0), by_pages=False),
        rows_estimate=of.rows_done,
        pending_estimate=of.rows_done,
        estimated_by="count",
        forecast=None,
        why_plain="",
        notes=(),
        doing="way back",
    )


class Restore:
    """One run of the way back of one backfill. It can be cut short anywhere, and gone on with by whoever takes over."""

    def __init__(
        self,
        connector: Connector,
        of: Kept,
        *,
        clock: Clock,
        control: Control | None = None,
        progress: Progress = nobody,
        fence: Fence | None = None,
        thresholds: Thresholds | None = None,
        batch_time_ms: int = 100,
    ) -> None:
        tag = f"{connector.tag} {secrets.token_hex(3)}".strip()
        self._connector = connector.tagged(tag)
        self._owner = f"dbwatch {Role.WORKER} {tag}"[:63]
        self._of = of
        self._plan = planned(of, batch_time_ms)
        self._clock = clock
        self._control = control or Control()
        self._fence = fence
        self._thresholds = thresholds or Thresholds()
        self._reporter = Reporter(self._plan, clock, progress)

    async def run(self) -> Returned:
        """Brings back what is left, or stops where the control says so.

        Raises Refused where a live owner works on it, Fenced where somebody takes over, CannotConnect where the first
        connection fails, and DbwatchError where it cannot go on: it then goes on from there when called again.
        """
        began = self._clock.monotonic()
        session = await BatchSession.open(self._connector)
        try:
            claimed = await self._claim(session.session)
            if isinstance(claimed, Finished):
                note = await kept.drop(session.session, self._of.kept_in, even_full=False)
                await session.session.close()
                done = claimed.row
                return Returned(State.DONE, done.restored, done.changed, done.missing, 0.0, note)
            await self._analyze(session.session)
        except StopRequested:
            await session.session.close()
            return Returned(State.STOPPED, 0, 0, 0, self._clock.monotonic() - began, "stopped before it began")
        except BaseException:
            session.session.sever()
            raise
        hold = Hold(
            session,
            claimed,
            connector=self._connector,
            plan=self._plan,
            clock=self._clock,
            reclaim=self._reclaim,
            stands=attrgetter("way_back"),
        )
        working = at_work(
            hold,
            control=self._control,
            reporter=self._reporter,
            thresholds=self._thresholds,
        )
        async with working as worker:
            return await self._to_the_end(worker, began)

    async def _to_the_end(self, worker: BatchWorker, began: float) -> Returned:
        try:
            returned = None
            while returned is None:  # once, unless the server forgot meanwhile what it had answered
                await self._walk(worker)
                close = partial(self._close, worker, worker.hold.forgotten, began)
                returned = await worker.carry_out(close, last_words=True)
        except StopRequested:
            note = "stopped; it goes on from here"
            await worker.hold.part(RESTORING, note)
            worker.tell(State.STOPPED, note)
            at = worker.hold.position
            return Returned(State.STOPPED, at.rows_done, 0, 0, self._clock.monotonic() - began, note)
        except DbwatchError as error:
            if not isinstance(error, Fenced):
                await worker.hold.part(RESTORING, str(error))
            worker.tell(State.FAILED, str(error))
            raise
        worker.tell(State.DONE, str(returned))
        return returned

    async def _walk(self, worker: BatchWorker) -> None:
        while True:
            since = self._clock.monotonic()
            batch = await worker.carry_out(partial(self._batch, worker))
            if batch is None:
                return
            await worker.learn(batch, began=since)

    async def _batch(self, worker: BatchWorker, session: BatchSession, timeouts: Timeouts) -> Batch | None:
        """One batch from where the cursor stands; None where no image is above it."""
        at = worker.hold.position
        lo = at.place.lo
        hi, looked_s = await session.edge(self._plan.statements, lo, None, worker.pace.size, timeouts)
        if hi is None:
            return None
        done = await session.bring_back(at, lo, hi, timeouts)
        worker.hold.position = at.after(rows=done.rows, keys=done.seen, cursor=to_text(hi))
        return Batch(done.rows, done.seconds + looked_s, done.wal_bytes)

    async def _close(
        self, worker: BatchWorker, forgotten: int, began: float, session: BatchSession, _: Timeouts
    ) -> Returned | None:
        """None where the server has *forgotten* something since the walk ended: there is work left."""
        if worker.hold.forgotten != forgotten:
            return None
        await row.close(session.session, worker.hold.position, RESTORED, pending=None, note="")
        found = await row.read(session.session, self._of.id)
        assert found is not None
        note = await kept.drop(session.session, self._of.kept_in, even_full=False)
        seconds = self._clock.monotonic() - began
        return Returned(State.DONE, found.restored, found.changed, found.missing, seconds, note)

    async def _claim(self, session: Session) -> Claimed | Finished:
        owner = self._owner + (claim.POOLED if session.pooled else "")
        attempt = partial(claim.claim_back, session, self._of.id, owner=owner, fence=self._fence)
        return await claim.patiently(attempt, self._plan.work, self._clock, self._control)

    async def _reclaim(self, session: Session) -> Claimed:
        """The claim again, on a server that does not know of it."""
        claimed = await self._claim(session)
        if isinstance(claimed, Finished):
            raise DbwatchError(f"{self._plan.work} was gone by somebody else")
        return claimed

    async def _analyze(self, session: Session) -> None:
        """Lets the planner know the images, so that it joins them by their key. Where it may not, it goes without."""
        analyze = sql.SQL("ANALYZE {}").format(self._of.kept_in.own)

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                await connection.execute("SET LOCAL lock_timeout = '500ms'; SET LOCAL statement_timeout = '5s'")
                await connection.execute(analyze)

        with contextlib.suppress(psycopg.Error):
            await session.call(work, within=ANALYZE_S)
