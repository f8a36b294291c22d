"""Runs a planned backfill: claims it, walks the table batch by batch, and lets the final scan prove it complete."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from functools import partial

from dbwatch.backfill import claim, quarantine, row
from dbwatch.backfill.batch import BatchSession
from dbwatch.backfill.claim import Claimed, Finished
from dbwatch.backfill.compared import Compared, anew, whole
from dbwatch.backfill.comparing import comparing
from dbwatch.backfill.control import Control, StopRequested
from dbwatch.backfill.final import FinalScan
from dbwatch.backfill.health import Thresholds
from dbwatch.backfill.hold import Hold
from dbwatch.backfill.hunt import Hunter
from dbwatch.backfill.orders import Orders
from dbwatch.backfill.pace import Pace
from dbwatch.backfill.part import Timeouts
from dbwatch.backfill.plan import Plan
from dbwatch.backfill.progress import Progress, State, nobody
from dbwatch.backfill.report import Reporter
from dbwatch.backfill.walker import Walker
from dbwatch.backfill.worker import BatchWorker, at_work
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
    """Rows left as the final scan counted them, those in quarantine included; None where it was not reached. In mode
    once those in quarantine. DONE: there are no others."""
    quarantined: int = 0
    """Rows that could not take their value, and were set aside; earlier runs included."""
    note: str = ""
    """Why it is incomplete, or what else a person should know."""
    already: bool = False
    """It was finished before; this run did nothing."""
    images: str = ""
    """The table that holds what was overwritten; empty: none was kept."""
    id: int = 0
    """Its number in the journal."""
    unfillable: int = 0
    """Pending rows that SET leaves so, as the final scan counted them."""
    compared: int = 0
    """Rows of which it was looked, once all was filled, whether `Spec.same` holds; 0 where it was not asked."""
    differing: int = 0
    """Those for which it does not."""


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
        session = await BatchSession.open(self._connector)
        try:
            claimed = await self._claim(session.session)
        except StopRequested:
            await session.session.close()
            return Result(State.STOPPED, 0, 0, self._clock.monotonic() - began, None, note="stopped before it began")
        except BaseException:
            session.session.sever()
            raise
        if isinstance(claimed, Finished):
            try:
                return await self._finished(claimed, session)
            finally:
                await session.session.close()
        if self._plan.legs[0].partition and (claimed.images is not None or claimed.position.as_one):
            self._plan = self._plan.as_one
        hold = Hold(
            session,
            claimed,
            connector=self._connector,
            plan=self._plan,
            clock=self._clock,
            reclaim=self._reclaim,
        )
        working = at_work(
            hold,
            control=self._control,
            reporter=self._reporter,
            thresholds=self._thresholds,
            orders=Orders(self._control, self._clock),
        )
        async with working as worker:
            result = await self._to_the_end(worker, began)
        images = claimed.images.named if claimed.images else ""
        return replace(result, images=images, quarantined=self._reporter.quarantined)

    async def _to_the_end(self, worker: BatchWorker, began: float) -> Result:
        pending: int | None
        try:
            closed = False
            while not closed:  # once, unless the server forgot meanwhile what it had answered
                self._reporter.checking = False
                await self._count_quarantine(worker)
                hunter = Hunter(worker, self._plan, self._reporter)
                left, unfillable, note, still = 0, 0, "", None
                async with comparing(self._connector, self._plan, self._clock, self._reporter):
                    await Walker(worker, hunter, self._plan, self._reporter, self._clock).run()
                    forgotten = worker.hold.forgotten
                    if self._plan.spec.mode == "pending":
                        scan = FinalScan(worker, hunter, self._plan, self._reporter, self._clock)
                        (left, note), unfillable, still = await scan.run(), scan.unfillable, scan.held
                held = await self._count_quarantine(worker)
                pending = left + (held.rows if still is None else still)
                note = "; ".join(filter(None, [quarantine.explained(worker.hold.position.id, held), note]))
                compared = await whole(worker, self._plan, self._reporter)
                note = "; ".join(filter(None, [note, compared.note]))
                outcome = State.INCOMPLETE if left or compared.note else State.DONE
                close = partial(_close, worker, forgotten, outcome, pending, note)
                closed = await worker.carry_out(close, last_words=True)
        except StopRequested:
            outcome, pending, note = State.STOPPED, None, "stopped; the next run goes on from here"
            unfillable, compared = 0, Compared()
            await worker.hold.part(outcome.value, note)
        except DbwatchError as error:
            if not isinstance(error, Fenced):
                await worker.hold.part(State.FAILED.value, str(error))
            worker.tell(State.FAILED, str(error))
            raise
        at = worker.hold.position
        worker.tell(outcome, note)
        seconds = self._clock.monotonic() - began
        return Result(
            outcome,
            at.rows_done,
            at.batches,
            seconds,
            pending,
            note=note,
            id=at.id,
            unfillable=unfillable,
            compared=compared.rows,
            differing=compared.differing,
        )

    async def _count_quarantine(self, worker: BatchWorker) -> quarantine.Tally:
        async def counted(session: BatchSession, _: Timeouts) -> quarantine.Tally:
            return await quarantine.tally(session.session, worker.hold.position.id)

        held = await worker.carry_out(counted)
        self._reporter.quarantined = held.rows
        return held

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

    async def _finished(self, finished: Finished, session: BatchSession) -> Result:
        """How it ended; what has to be the same is looked at anew. Raises as `run`."""
        done, pace = finished.row, Pace.starting(self._plan.spec.batch_time_ms / 1000)
        held = await quarantine.tally(session.session, done.id)
        compared = await anew(session, self._plan, self._clock, self._control, self._reporter)
        outcome = State.INCOMPLETE if compared.note else State.DONE
        when = f" at {done.ended_at:%Y-%m-%d %H:%M:%S} UTC" if done.ended_at else ""
        left = quarantine.explained(done.id, held)
        said = f"finished{when} by {one_line(done.owner)}; nothing was done now"
        note = "; ".join(filter(None, [said, left, compared.note]))
        self._reporter.quarantined = held.rows
        self._reporter.tell(outcome, note, done.position, pace)
        images = done.kept_in.named if done.kept_in else ""
        return Result(
            State.STOPPED if self._control.stopping else outcome,
            done.rows_done,
            done.batches,
            0.0,
            done.pending,
            quarantined=held.rows,
            note=note,
            already=True,
            images=images,
            id=done.id,
            compared=compared.rows,
            differing=compared.differing,
        )


async def _close(
    worker: BatchWorker, forgotten: int, outcome: State, pending: int, note: str, session: BatchSession, _: Timeouts
) -> bool:
    """False where the server has *forgotten* something since the walk ended: there is work left."""
    if worker.hold.forgotten != forgotten:
        return False
    await row.close(session.session, worker.hold.position, outcome.value, pending=pending, note=note)
    return True
