"""Door: a backfill without a window and without a screen."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import sys
from dataclasses import asdict, replace
from typing import IO, Any

from dbwatch.backfill import certificate, harm, kept, sight, trial
from dbwatch.backfill.control import Control
from dbwatch.backfill.health import Thresholds
from dbwatch.backfill.kept import Kept
from dbwatch.backfill.outline import outline
from dbwatch.backfill.plan import Plan, plan
from dbwatch.backfill.progress import BackfillProgress, State, left
from dbwatch.backfill.restore import Restore, Returned
from dbwatch.backfill.run import Backfill, Result
from dbwatch.backfill.spec import Spec
from dbwatch.backfill.statements import shown
from dbwatch.cli.output import say, tell
from dbwatch.clock import Clock, SystemClock
from dbwatch.errors import Exit, Refused
from dbwatch.journal import schema
from dbwatch.postgres.session import Connector, Role
from dbwatch.text import age, count, one_line, sanitize

TOLD = ("state", "reason", "rows_done", "rows_total_estimate", "fraction", "rows_per_s", "eta_s")
TOLD_OF_BATCHES = (
    *("eta_low_s", "eta_high_s"),
    *("batches", "batch_rows", "batch_ms", "target_ms", "duty", "walk", "walk_why", "hot", "checking", "remaining"),
    *("striped", "blocked", "wal_bytes", "wal_rows", "wal_per_row_foretold", "heap", "bloat_foretold", "signal"),
    *("quarantined", "delayed", "delayed_s", "delayed_worst_s", "usual", "warnings", "overridden"),
    *("ordered", "compared", "differing", "differs"),
)
"""What of the progress a JSON line tells."""
LINE_EVERY_S = 1.0


def main(dsn: str, spec: Spec, *, as_json: bool, dry_run: bool, try_one: bool, again: bool, restore: bool) -> int:
    """Plans *spec*, and unless it is a *dry_run* runs it to its end, or with *restore* takes it back; its exit code.

    With a dry run a batch may be tried: carried out and rolled back.

    The last line on standard output is one of JSON. Raises DbwatchError where it cannot be planned, claimed or ended.
    """
    if restore:
        return asyncio.run(_back(dsn, spec, as_json, dry_run))
    return asyncio.run(_dry(dsn, spec, as_json, try_one) if dry_run else _run(dsn, spec, as_json, again))


async def _dry(dsn: str, spec: Spec, as_json: bool, try_one: bool) -> int:
    connector = Connector(dsn)
    found = await _planned(connector, spec)
    if not as_json:
        say("\n".join(plan_lines(found)))  # before a trial that the server may refuse
    tried = await trial.attempt(connector, found) if try_one else None
    if as_json:
        told = {**plan_json(found), **({"trial": asdict(tried) if tried else None} if try_one else {})}
        say(json.dumps(told, ensure_ascii=False))
    elif try_one:
        lines = trial.told(tried, found.pending_estimate) if tried else ["the table is empty"]
        say("\n".join(["", *(f"trial    {line}" for line in lines)]))
    return Exit.OK


async def _run(dsn: str, spec: Spec, as_json: bool, again: bool) -> int:
    connector = Connector(dsn)
    found = await _planned(connector, spec)
    sight.require_seen(found.work, found.unseen)
    await schema.ensure(connector)
    on_tty = sys.stderr.isatty() and not as_json
    system_clock = SystemClock()
    teller: Teller = Bar(sys.stderr) if on_tty else Lines(sys.stdout, system_clock)
    if on_tty:
        teller.say("\n".join([*plan_lines(found), ""]))
    control = Control()
    backfill = Backfill(connector, found, clock=system_clock, control=control, progress=teller.see, again=again)
    return await _ended(asyncio.ensure_future(backfill.run()), control, teller, found)


async def _back(dsn: str, spec: Spec, as_json: bool, dry_run: bool) -> int:
    connector = Connector(dsn)
    of = await _kept(connector, (await _planned(connector, replace(spec, undo=False))).spec_hash)
    if dry_run:
        say(json.dumps(kept_json(of), ensure_ascii=False) if as_json else "\n".join(kept_lines(of)))
        return Exit.OK
    await schema.ensure(connector)
    on_tty = sys.stderr.isatty() and not as_json
    system_clock = SystemClock()
    teller: Teller = Bar(sys.stderr) if on_tty else Lines(sys.stdout, system_clock)
    if on_tty:
        teller.say("\n".join([*kept_lines(of), ""]))
    control = Control()
    restore = Restore(
        connector,
        of,
        clock=system_clock,
        control=control,
        progress=teller.see,
        batch_time_ms=spec.batch_time_ms,
        thresholds=Thresholds().without(spec.without),
    )
    return await _ended(asyncio.ensure_future(restore.run()), control, teller)


async def _kept(connector: Connector, spec_hash: str) -> Kept:
    session = await connector.open(Role.PROBE)
    try:
        found = await kept.of_spec(session, spec_hash) if await schema.present(session) else None
    finally:
        await session.close()
    if found is None:
        raise Refused(
            "there is nothing to bring back",
            why="no before-images of such a backfill are kept outside a window: it ran without --undo, or it is back",
            next="give table, SET, WHERE, key and mode as when it ran; a window is taken back by dbwatch abort",
        )
    return found


async def _ended(
    running: asyncio.Future[Result] | asyncio.Future[Returned], control: Control, teller: Teller, of: Plan | None = None
) -> int:
    """The exit code of what runs, a backfill *of* a plan or a way back, once its last line is written."""
    _stop_on_signals(control, running)
    try:
        result = await running
    except asyncio.CancelledError:
        return Exit.INTERRUPTED
    finally:
        teller.end()
    last = result_json(result) if isinstance(result, Result) else returned_json(result)
    if isinstance(result, Result) and of is not None:
        certified = certificate.of(result, of, teller.last)
        last["certificate"] = asdict(certified) if certified is not None else None
    if teller.last is not None:
        last |= harm_json(teller.last)
    with contextlib.suppress(OSError):
        print(json.dumps(last, ensure_ascii=False), flush=True)
    if isinstance(result, Result) and (result.quarantined or result.differing):
        tell(result.note)
    if result.outcome is State.STOPPED:
        return Exit.INTERRUPTED
    return Exit.OK if result.outcome is State.DONE else Exit.FAILED


async def _planned(connector: Connector, spec: Spec) -> Plan:
    session = await connector.open(Role.PROBE)
    try:
        return await plan(session, spec, seen=await sight.of(connector, session))
    finally:
        await session.close()


def _stop_on_signals(control: Control, running: asyncio.Future[Any]) -> None:
    """The first signal finishes the batch, a second one drops it: the server rolls it back."""

    def stop() -> None:
        if control.stopping:
            running.cancel()
        control.stop()

    loop = asyncio.get_running_loop()
    for which in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(which) is not signal.SIG_IGN:  # nohup ignores SIGHUP, and so do we then
            loop.add_signal_handler(which, stop)


class Lines:
    """Progress as JSON lines: every change of state, and one a second."""

    def __init__(self, stream: IO[str], clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._next = 0.0
        self.last: BackfillProgress | None = None
        """The newest one."""
        self._last: tuple[State, bool] | None = None

    def see(self, progress: BackfillProgress) -> None:
        """The engine's Progress."""
        self.last = progress
        now = self._clock.monotonic()
        if now < self._next and (progress.state, progress.checking) == self._last:
            return
        self._next, self._last = now + LINE_EVERY_S, (progress.state, progress.checking)
        self.say(json.dumps(progress_json(progress), ensure_ascii=False) + "\n")

    def say(self, text: str) -> None:
        """Writes *text*; whether somebody still reads it changes nothing for the backfill."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
            self._stream.flush()

    def end(self) -> None:
        """Nothing more will be told."""


class Bar:
    """Progress as one line of a terminal that is written over."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.last: BackfillProgress | None = None
        """The newest one."""

    def see(self, progress: BackfillProgress) -> None:
        """The engine's Progress."""
        self.last = progress
        self.say("\r" + bar(progress, shutil.get_terminal_size().columns - 1) + "\x1b[K")

    def say(self, text: str) -> None:
        """Writes *text*; a terminal that is gone changes nothing for the backfill."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
            self._stream.flush()

    def end(self) -> None:
        """Leaves the line as it stands, and says what was done to others."""
        last = self.last
        self.say("\n" + (f"{harm.told(last.delayed, last.delayed_s, last.delayed_worst_s)}\n" if last else ""))


Teller = Bar | Lines


def bar(progress: BackfillProgress, width: int) -> str:
    """One line of *width* characters at most: how far, how fast, how long still, and why not faster. Pure."""
    filled = round(20 * progress.fraction)
    parts = [
        f"[{'#' * filled}{'.' * (20 - filled)}] {progress.fraction:4.0%}",
        f"{progress.rows_done:,} rows",
        f"{count(progress.rows_per_s)}/s",
        f"{left(progress)} left" if progress.eta_s is not None else "",
        f"batch {progress.batch_ms:.0f} of {progress.target_ms:.0f} ms",
        f"{progress.blocked} wait for us" if progress.blocked else "",
        f"delayed {progress.delayed}, worst {progress.delayed_worst_s:.1f} s" if progress.delayed else "",
        f"{progress.quarantined:,} in quarantine" if progress.quarantined else "",
        f"{progress.differing:,} differ" if progress.differing else "",
        "final scan" if progress.checking and not progress.state.ended else "",
        str(progress.state) if progress.state is not State.RUNNING else "",
        progress.reason,
    ]
    return "  ".join(part for part in parts if part)[:width]


def plan_lines(found: Plan) -> list[str]:
    """The plan for a person. Pure."""
    return [*(f"{name:<8} {said}" for name, said in outline(found)), "", *found.batch_sql.splitlines()]


def plan_json(found: Plan) -> dict[str, Any]:
    """The plan for a program. Pure."""
    return {
        "table": found.table,
        "index": found.index,
        "key": [asdict(column) for column in found.key],
        "mode": found.spec.mode,
        "walk": str(found.spec.walk),
        "why_plain": found.why_plain,
        "quarantine": found.spec.quarantine,
        "forecast": asdict(found.forecast) if found.forecast else None,
        "batch_time_ms": found.spec.batch_time_ms,
        "rows_per_second": found.spec.rows_per_second,
        "workers": found.spec.workers,
        "rows_estimate": found.rows_estimate,
        "pending_estimate": found.pending_estimate,
        "estimated_by": found.estimated_by,
        "notes": list(found.notes),
        "images_bytes": found.images_bytes,
        "batch": found.batch_sql,
        "by_pages": found.by_pages,
        "legs": [leg.relation for leg in found.legs],
        "edge": ""
        if found.by_pages
        else shown(found.legs[0].statements.edge(after=True, upto=found.spec.mode == "once")),
        "spec_hash": found.spec_hash,
    }


def progress_json(progress: BackfillProgress) -> dict[str, Any]:
    """A progress for a program. Pure."""
    told = {name: getattr(progress, name) for name in (*TOLD, *TOLD_OF_BATCHES)}
    told["heap"] = asdict(progress.heap) if progress.heap is not None else None
    pairs = {"warnings": dict(progress.warnings), "overridden": {name: round(s) for name, s in progress.overridden}}
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in told.items()} | pairs


def harm_json(last: BackfillProgress) -> dict[str, Any]:
    """What a run that told this *last* did to others, for the last line. Pure."""
    return {
        "delayed": last.delayed,
        "delayed_s": round(last.delayed_s, 3),
        "delayed_worst_s": round(last.delayed_worst_s, 3),
        "harm": harm.told(last.delayed, last.delayed_s, last.delayed_worst_s),
    }


def result_json(result: Result) -> dict[str, Any]:
    """The last line. Pure."""
    return {
        "rows": result.rows,
        "batches": result.batches,
        "seconds": round(result.seconds, 3),
        "pending": result.pending,
        "quarantined": result.quarantined,
        "unfillable": result.unfillable,
        "compared": result.compared,
        "differing": result.differing,
        "outcome": str(result.outcome),
        "already": result.already,
        "images": result.images,
        "note": result.note,
    }


def returned_json(returned: Returned) -> dict[str, Any]:
    """The last line of a way back. Pure."""
    return {**asdict(returned), "outcome": str(returned.outcome), "seconds": round(returned.seconds, 3)}


def kept_lines(of: Kept) -> list[str]:
    """The way back for a person. Pure."""
    return [
        f"restore  {of.kept_in.display}, {of.left:,} rows at most, from {of.kept_in.named}",
        f"time     about {age(of.estimate_s)}",
        *(f"note     each row fires: {one_line(trigger)}" for trigger in of.fires),
        "note     a row that somebody else changed since stays as it is, and keeps its before-image",
        "",
        *map(sanitize, of.kept_in.by_hand().splitlines()),
    ]


def kept_json(of: Kept) -> dict[str, Any]:
    """The way back for a program. Pure."""
    return {
        "images": of.kept_in.named,
        "columns": list(of.kept_in.columns),
        "rows_at_most": of.left,
        "estimate_s": round(of.estimate_s, 3),
        "by_hand": of.kept_in.by_hand(),
    }
