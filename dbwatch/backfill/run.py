"""Runs a planned backfill: claims it, walks the table batch by batch, and lets the final scan prove it complete."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from functools import partial

from dbwatch.backfill import claim, row
from dbwatch.backfill.batch import BatchSession, Timeouts
from dbwatch.backfill.claim import Claimed, Finished
from dbwatch.backfill.control import Control
from dbwatch.backfill.final import FinalScan
from dbwatch.backfill.health import Thresholds
from dbwatch.backfill.keys import to_cursor
from dbwatch.backfill.pace import Batch, Pace
from dbwatch.backfill.plan import Plan
from dbwatch.backfill.progress import Progress, State, nobody
from dbwatch.backfill.report import Reporter
from dbwatch.backfill.worker import BatchWorker, StopRequested, at_work
from dbwatch.clock import Clock
from dbwatch.errors import DbwatchError, Fenced
from dbwatch.journal.fence import Fence
from dbwatch.postgres.session import Connector, Role, Session
from dbwatch.text import one_line


@dataclass(frozen=True, slots=True)
class Result:
    """How a backfill ended."""

    outcome: State
    """DONE, INCOMPLETE or STOPPED; a failure raises."""
    rows: int
    """Rows changed, earlier runs of the same backfill included."""
    batches: int
    seconds: float
    """Of this run."""
    pending: int | None
    """Rows left as the final scan counted them; None where it was not reached; 0 in mode once."""
    quarantined: int = 0
    note: str = ""
    """Why it is incomplete, or what else a person should know."""
    already: bool = False
    """It was finished before; this run did nothing."""
    images: str = ""
    """The table that holds what was overwritten; empty: none was kept."""


class Backfill:
    """One run of a plan. The journal's schema must be there (`journal.schema.ensure`)."""

    def __init__(
        self,
        connector: Connector,
        plan: Plan,
        *,
        clock: Clock,
        control: Control | None = None,
        progress: Progress = nobody,
        fence: Fence | None = None,
        step_id: str | None = None,
        again: bool = False,
        thresholds: Thresholds | None = None,
    ) -> None:
        tag = f"{connector.tag} {secrets.token_hex(3)}".strip()
        self._connector = connector.tagged(tag)
        self.owner = f"dbwatch {Role.WORKER} {tag}"[:63]
        """The application_name of our worker, and of nobody else's."""
        self._plan = plan
        self._clock = clock
        self._control = control or Control()
        self._fence = fence
        self._step_id = step_id
        self._again = again
        self._thresholds = thresholds or Thresholds()
        self._reporter = Reporter(plan, clock, progress)

    async def run(self) -> Result:
        """Runs it to its end, or until the control stops it.

        Raises Refused where a live owner works on it, Fenced where somebody takes over, CannotConnect where the
        first connection fails, and DbwatchError where it cannot go on; the row then tells why.
        """
        began = self._clock.monotonic()
        session = await BatchSession.open(self._connector, self._plan.statements)
        try:
            claimed = await self._claim(session.session)
        except BaseException:
            session.session.sever()
            raise
        if isinstance(claimed, Finished):
            await session.session.close()
            return self._finished(claimed)
        working = at_work(
            session,
            claimed,
            connector=self._connector,
            plan=self._plan,
            clock=self._clock,
            control=self._control,
            reporter=self._reporter,
            thresholds=self._thresholds,
            reclaim=self._reclaim,
        )
        async with working as worker:
            result = await self._to_the_end(worker, began)
        return replace(result, images=claimed.images.named if claimed.images else "")

    async def _to_the_end(self, worker: BatchWorker, began: float) -> Result:
        try:
            if not worker.position.walked:
                await self._walk(worker)
            scan = FinalScan(worker, self._plan, self._reporter, self._clock)
            pending, note = await scan.run() if self._plan.spec.mode == "pending" else (0, "")
            outcome = State.INCOMPLETE if pending else State.DONE
            await worker.carry_out(partial(_close, worker, outcome, pending, note), last_words=True)
        except StopRequested:
            outcome, pending, note = State.STOPPED, None, "stopped; the next run goes on from here"
            await worker.part(outcome.value, note)
        except DbwatchError as error:
            if not isinstance(error, Fenced):
                await worker.part(State.FAILED.value, str(error))
            worker.tell(State.FAILED, str(error))
            raise
        at = worker.position
        worker.tell(outcome, note)
        return Result(outcome, at.rows_done, at.batches, self._clock.monotonic() - began, pending, note=note)

    async def _walk(self, worker: BatchWorker) -> None:
        while True:
            began = self._clock.monotonic()
            batch = await worker.carry_out(partial(self._batch, worker))
            if batch is None:
                return
            await worker.learn(batch, began=began)

    async def _batch(self, worker: BatchWorker, session: BatchSession, timeouts: Timeouts) -> Batch | None:
        """One batch from where the cursor stands; None where nothing is above it."""
        at, n = worker.position, worker.pace.size
        if at.walked:
            return None
        hi, looked_s = await session.edge(at.lo, at.top, n, timeouts)
        if hi is None:
            await row.note_walked(session.session, at)
            return None
        keys = max(0, min(n, self._plan.rows_estimate - at.scanned))
        filled = await session.fill(at, at.lo, hi, timeouts, keys=keys)
        worker.position = at.after(rows=filled.rows, keys=keys, cursor=to_cursor(hi))
        return Batch(filled.rows, filled.seconds + looked_s, filled.wal_bytes)

    async def _claim(self, session: Session) -> Claimed | Finished:
        """Waits for a killed owner's backend to go away, or for the silence of one that came through a pooler."""
        owner = self.owner + (claim.POOLED if session.pooled else "")
        attempt = partial(
            claim.claim,
            session,
            self._plan,
            owner=owner,
            fence=self._fence,
            step_id=self._step_id,
            again=self._again,
        )
        return await claim.patiently(attempt, self._plan.work, self._clock, self._control)

    async def _reclaim(self, session: Session) -> Claimed:
        """The claim again, on a server that does not know of it."""
        claimed = await self._claim(session)
        if isinstance(claimed, Finished):
            raise DbwatchError(f"{self._plan.work} was finished by somebody else")
        return claimed

    def _finished(self, finished: Finished) -> Result:
        done = finished.row
        when = f" at {done.ended_at:%Y-%m-%d %H:%M:%S} UTC" if done.ended_at else ""
        note = f"finished{when} by {one_line(done.owner)}; nothing was done now"
        self._reporter.tell(State.DONE, note, done.position, Pace(self._plan.spec.batch_time_ms / 1000))
        images = done.kept_in.named if done.kept_in else ""
        return Result(
            State.DONE, done.rows_done, done.batches, 0.0, done.pending, note=note, already=True, images=images
        )


async def _close(
    worker: BatchWorker, outcome: State, pending: int, note: str, session: BatchSession, _: Timeouts
) -> None:
    await row.close(session.session, worker.position, outcome.value, pending=pending, note=note)
