"""Doors that look once: `snapshot` and `status`."""

from __future__ import annotations

import asyncio
import json

from dbwatch.cli.output import say
from dbwatch.clock import SystemClock
from dbwatch.errors import DbwatchError, Exit
from dbwatch.journal import rights, rows, schema
from dbwatch.journal.chain import broken_link
from dbwatch.journal.fold import StepStatus, WindowState, fold
from dbwatch.journal.rows import WindowRow
from dbwatch.monitor.export import to_json
from dbwatch.monitor.poller import poll_once
from dbwatch.monitor.samples import Snapshot, Status
from dbwatch.postgres.session import Connector, Role
from dbwatch.runbook import loader
from dbwatch.runbook.model import Runbook
from dbwatch.text import age, clock
from dbwatch.window.blockers import who
from dbwatch.window.wheel import BY_HAND, NOW_CLOSE


def snapshot(dsn: str, *, as_json: bool) -> int:
    """Prints one poll. Raises CannotConnect."""
    shot = asyncio.run(poll_once(Connector(dsn)))
    if as_json:
        say(json.dumps(to_json(shot), ensure_ascii=False))
    else:
        say("\n".join(summary(shot)))
    return Exit.OK


def summary(shot: Snapshot) -> list[str]:
    """A poll in a few lines for a person. Pure."""
    lines = []
    if shot.facts is not None:
        role = "standby" if shot.facts.in_recovery else "primary"
        lines.append(f"{shot.facts.name} PostgreSQL {shot.facts.version_text} {role}")
        if shot.facts.pooled:
            lines.append(
                "through a pooler: which sessions are its clients' cannot be told, and no window can be driven"
            )
    for v in shot.vitals.rows:
        lines.append(f"connections {v.connections} of {v.connections_usable}, active {v.active}, waiting {v.waiting}")
        lines.append(
            f"oldest transaction {age(v.oldest_xact_s) or 'none'}, oldest xmin {age(v.oldest_xmin_s) or 'none'}"
        )
    for name in ("activity", "locks", "statements", "indexes", "tables", "progress", "replication"):
        view = getattr(shot, name)
        reason = f": {view.reason}" if view.reason else ""
        lines.append(f"{name}: {view.status}, {len(view.rows)} rows{reason}")
    for session in shot.activity.rows[:10]:
        if session.state not in ("", "idle") and session.pid not in shot.own_pids:
            lines.append(f"  {who(session, shot.at)}: {session.query[:100]}")
    if shot.activity.status is Status.HIDDEN:
        lines.append(shot.activity.reason)
    return lines


def status(dsn: str, *, as_json: bool) -> int:
    """Prints where the window stands. Raises CannotConnect, and Refused where the role may not read that."""
    row, state, broken = asyncio.run(_window(Connector(dsn)))
    if row is None:
        say(json.dumps({"window": None}) if as_json else "no window was ever open here")
        return Exit.OK
    runbook = _runbook(row)
    if as_json:
        say(json.dumps(status_json(row, state, runbook, broken), ensure_ascii=False))
    else:
        say("\n".join(status_lines(row, state, runbook, broken)))
    return Exit.OK


async def _window(connector: Connector) -> tuple[WindowRow | None, WindowState, int | None]:
    """The window's row, the fold of its events, and the first event found that does not follow from the one before."""
    session = await connector.open(Role.JOURNAL)
    try:
        await rights.require_reading(session)
        if not await schema.present(session):
            return None, WindowState(), None
        row = await rows.find_open(session) or await rows.find_last(session)
        if row is None:
            return None, WindowState(), None
        head = await rows.read_head(session, row.id)
        events = await rows.read_events(session, row.id)
        broken = broken_link(events)
        if broken is None and head is not None and head.head_hash not in {event.hash for event in events}:
            broken = len(events) + 1
        return row, fold(events), broken
    finally:
        await session.close()


def _runbook(row: WindowRow) -> Runbook | None:
    try:
        return loader.parse(row.runbook_text, "the journal's runbook", None)
    except DbwatchError:
        return None


def _steps(state: WindowState, runbook: Runbook | None) -> list[tuple[str, str]]:
    if runbook is None:
        return [(step, "") for step in state.steps]
    return [(step.id, phase.name) for phase in runbook.phase for step in phase.step]


def status_json(row: WindowRow, state: WindowState, runbook: Runbook | None, broken: int | None) -> dict[str, object]:
    """Where the window stands, for a program. Pure."""
    steps = []
    for step_id, phase in _steps(state, runbook):
        known = state.step(step_id)
        steps.append(
            {
                "id": step_id,
                "phase": phase,
                "status": str(known.status),
                "attempt": known.attempt,
                "seconds": known.seconds,
                "undone": known.undone,
                "text": known.text,
            }
        )
    abort = None
    if state.abort is not None:
        abort = {
            "finished": state.abort.finished,
            "equal": state.abort.equal,
            "differences": list(state.abort.differences),
            "seconds": state.abort.seconds,
        }
    return {
        "window": str(row.id),
        "title": row.title,
        "database": state.database,
        "opened_at": row.opened_at.isoformat(),
        "open": not row.closed,
        "outcome": state.outcome or None,
        "driver": row.driver,
        "epoch": row.epoch,
        "lease_left_s": round(float(row.lease_left_s), 1),
        "broken": broken,
        "steps": steps,
        "abort": abort,
    }


_MARKS = {
    StepStatus.PENDING: "○",
    StepStatus.RUNNING: "▶",
    StepStatus.DONE: "✓",
    StepStatus.FAILED: "✗",
    StepStatus.UNKNOWN: "?",
    StepStatus.WAIVED: "–",
}


def status_lines(row: WindowRow, state: WindowState, runbook: Runbook | None, broken: int | None) -> list[str]:
    """Where the window stands, for a person. Pure."""
    opened = SystemClock().now() - row.opened_at
    how = f"closed: {state.outcome}" if row.closed else f"open for {clock(opened.total_seconds())}"
    lines = [f"{row.title}: {how}, driven by {row.driver} (epoch {row.epoch})"]
    if broken is not None:
        lines.append(f"the journal was edited: event {broken} does not follow from the one before it, or is gone")
    if row.driver == BY_HAND and not row.closed:
        lines.append(f"it was taken back by hand, or is about to be: {NOW_CLOSE}")
    for step_id, phase in _steps(state, runbook):
        known = state.step(step_id)
        took = f" {clock(known.seconds)}" if known.seconds is not None else ""
        undone = " (taken back)" if known.undone else ""
        text = f"  {known.text}" if known.text else ""
        lines.append(f"  {_MARKS[known.status]} {phase:10} {step_id:16} {known.status}{took}{undone}{text}")
    if state.abort is not None:
        verdict = "under way"
        if state.abort.finished:
            verdict = "the schema equals the one at the opening" if state.abort.equal else "the schema differs"
        lines.append(f"abort: {verdict}")
        lines.extend(f"  {difference}" for difference in state.abort.differences)
    return lines
