"""A backfill step: planned, then run by the engine in batches; it can be stopped and gone on with at any time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict

import psycopg

from dbwatch.backfill import certificate, harm, sight
from dbwatch.backfill.explain import explained
from dbwatch.backfill.plan import Maker, Plan, plan
from dbwatch.backfill.progress import BackfillProgress, State
from dbwatch.backfill.run import Backfill, Result
from dbwatch.backfill.spec import Spec
from dbwatch.clock import Clock
from dbwatch.errors import DbwatchError
from dbwatch.journal.events import BackfillCertified, StepNoted
from dbwatch.postgres.session import Connector, Role, Session
from dbwatch.postgres.signals import signal
from dbwatch.runbook import model
from dbwatch.steps.heard import Heard
from dbwatch.steps.step import Done, Failed, Kit, Outcome, Record


def asked(spec: model.Backfill) -> Spec:
    """What the engine is asked to do."""
    return Spec(
        table=spec.table,
        set=spec.set,
        where=spec.where,
        key=spec.key,
        mode=spec.mode,
        batch_time_ms=round(spec.batch_time * 1000),
        rows_per_second=spec.rows_per_second,
        workers=spec.workers,
        undo=spec.undo,
        quarantine=spec.quarantine,
        without=spec.without,
        same=spec.same,
    )


async def planned(spec: model.Backfill, connector: Connector, made_by: Maker) -> Plan:
    """How it will be run. Raises DbwatchError where it cannot be."""
    async with _probe(connector) as session:
        return await _plan(session, spec, connector, made_by)


async def foreseen(spec: model.Backfill, connector: Connector, made_by: Maker) -> tuple[Plan, tuple[str, ...]]:
    """The same for a person to read, with how the server would carry out a batch of it: EXPLAIN's lines."""
    async with _probe(connector) as session:
        found = await _plan(session, spec, connector, made_by)
        return found, await explained(session, found)


@asynccontextmanager
async def _probe(connector: Connector) -> AsyncIterator[Session]:
    session = await connector.open(Role.PROBE)
    try:
        yield session
    finally:
        await session.close()


async def _plan(session: Session, spec: model.Backfill, connector: Connector, made_by: Maker) -> Plan:
    return await plan(session, asked(spec), made_by=made_by, seen=await sight.of(connector, session))


async def run(spec: model.Backfill, kit: Kit) -> Outcome:
    """Runs it to its end, from where an earlier attempt stopped; why it slows down or pauses is journalled.

    Raises Refused where privileges hide health signals that the runbook does not leave out.
    """
    found = await planned(spec, kit.connector, kit.made_by)
    sight.require_seen(found.work, found.unseen)
    scribe = _Scribe(spec.id, kit.record, kit.clock, found.undo_notes)

    def progress(told: BackfillProgress) -> None:
        kit.show_backfill(told)
        scribe.hear(told)

    backfill = Backfill(
        kit.connector,
        found,
        clock=kit.clock,
        control=kit.hand,
        progress=progress,
        fence=kit.fence,
        step_id=spec.id,
    )
    stopping = asyncio.create_task(_stop(kit, scribe))
    writing = asyncio.create_task(scribe.write())
    try:
        result = await backfill.run()
    finally:
        stopping.cancel()
        scribe.end()
        await asyncio.wait({writing}, timeout=5.0)
    certified = certificate.of(result, found, scribe.last)
    if certified is not None:
        await kit.record(BackfillCertified(spec.id, **asdict(certified), says=str(certified)))
    return ended(result, scribe.last)


def ended(result: Result, last: BackfillProgress | None = None) -> Outcome:
    """What the engine's result means for the step; *last* is what it told last. Pure."""
    rows = f"{result.rows:,} rows in {result.batches:,} batches"
    if last is not None and last.delayed:
        rows += f" ({harm.told(last.delayed, last.delayed_s, last.delayed_worst_s)})"
    match result.outcome:
        case State.DONE if result.quarantined:
            return Done(f"{result.note}; {rows}")
        case State.DONE:
            return Done(f"{rows}, none pending" + (f"; {result.note}" if result.note else ""))
        case State.STOPPED:
            return Failed(f"stopped after {rows}; it goes on from there", again=True, stopped=True)
        case _ if result.differing and not result.pending:
            return Failed(f"{rows}; {result.note}", again=True)
        case _:
            return Failed(f"{rows}; {result.pending:,} still pending: {result.note}", again=True)


async def recover(spec: model.Backfill, kit: Kit) -> Outcome:
    """The cursor is in the table: another run goes on from there."""
    del spec, kit
    return Failed("it was cut off while it ran; it goes on from its cursor", again=True, stopped=True)


async def _stop(kit: Kit, scribe: _Scribe) -> None:
    """On a stop the batch is finished; where the hand says at once, its backend is cancelled."""
    await kit.stop.wait()
    kit.hand.stop()
    last = scribe.last
    workers = [worker for worker in (last.worker, *last.crew) if worker is not None] if last is not None else []
    for worker in workers if kit.hand.aborting else ():
        try:
            await signal(await kit.control.session(), worker.pid, worker.backend_start, terminate=False)
        except (DbwatchError, psycopg.Error):
            return  # the batch ends by itself, or by its statement_timeout


class _Scribe:
    """Journals what of the progress is worth a note.

    *first* is told once the backfill is under way: what it overwrites is kept from then on, and an event that comes
    when its table is there lets the way back on paper know of it.
    """

    def __init__(self, step: str, record: Record, clock: Clock, first: Sequence[str]) -> None:
        self.last: BackfillProgress | None = None
        self._step, self._record, self._clock = step, record, clock
        self._notes: asyncio.Queue[str | None] = asyncio.Queue()
        self._first = tuple(first)
        self._heard = Heard()

    def hear(self, progress: BackfillProgress) -> None:
        """Called by the engine; returns at once."""
        self.last = progress
        self._heard, notes = self._heard.after(progress, self._clock.monotonic())
        for note in (*self._first, *notes):
            self._notes.put_nowait(note)
        self._first = ()

    async def write(self) -> None:
        """Journals what was heard, until `end`."""
        while (note := await self._notes.get()) is not None:
            await self._record(StepNoted(self._step, note))

    def end(self) -> None:
        """Nothing more will be heard."""
        self._notes.put_nowait(None)
