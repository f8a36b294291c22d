"""The Plan: every step with its state, who does it, what it was to take and took, and where the way back ends."""

from __future__ import annotations

import textwrap
from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from textual import events

from dbwatch import text
from dbwatch.backfill.progress import BackfillProgress, State
from dbwatch.journal.fold import StepState, StepStatus
from dbwatch.runbook.model import Backfill, Check, Manual, Migrate, Sql
from dbwatch.tui.columns import Column, Line, Tone, clip
from dbwatch.tui.header import meter, past_no_return
from dbwatch.tui.keys import next_step
from dbwatch.tui.panes.base import Choice, Record, Sheet, TablePane
from dbwatch.window.feed import Frame, MigrationProgress, WindowView

Spec = Manual | Check | Migrate | Backfill | Sql

GLYPHS: dict[StepStatus, tuple[str, Tone]] = {
    StepStatus.PENDING: ("○", ""),
    StepStatus.RUNNING: ("▶", "own"),
    StepStatus.DONE: ("✓", "good"),
    StepStatus.FAILED: ("✗", "bad"),
    StepStatus.UNKNOWN: ("?", "bad"),
    StepStatus.WAIVED: ("–", "dim"),
}
UNDONE: tuple[str, Tone] = ("↶", "dim")
ROOMY = 64
"""Columns from which a step's line has room for who did it and for what came of it."""


Said = tuple[str, Tone]


@dataclass(frozen=True, slots=True)
class StepKey:
    """What a line of the Plan is about: a step, or something said below it."""

    step: str
    below: int = 0


def who_does(spec: Spec, state: StepState) -> str:
    """Who did the step, or who is to."""
    if state.actor:
        return state.actor.split("@")[0]
    return "person" if isinstance(spec, Manual) else "auto"


def running_for(view: WindowView, state: StepState) -> float | None:
    """Seconds since a running step began, by the server's clock as the window knows it."""
    if state.started_at is None or view.state.opened_at is None:
        return None
    return max(0.0, view.elapsed_s - (state.started_at - view.state.opened_at).total_seconds())


def taken(spec: Spec, state: StepState, view: WindowView) -> str:
    """`1:02`, or with a plan `1:02/2:00`; before it has begun only the plan, `~2:00`."""
    planned = "" if spec.planned is None else text.clock(spec.planned)
    spent = running_for(view, state) if state.status is StepStatus.RUNNING else state.seconds
    if spent is None or state.status in (StepStatus.PENDING, StepStatus.WAIVED):
        return f"~{planned}" if planned else ""
    if not planned:
        return text.clock(spent)
    over = "!" if spec.planned is not None and spent > 1.2 * spec.planned else ""
    return f"{text.clock(spent)}/{planned}{over}"


def migration_lines(progress: MigrationProgress) -> list[Said]:
    """Whom a running migration waits for, what it does, when it tries again."""
    lines: list[Said] = []
    if progress.waits_for:
        lines.append((f"waits for {progress.waits_for}", "victim"))
    lines.append((f"{progress.revision or 'starting'} · statement {progress.number}", ""))
    if progress.statement:
        lines.append((progress.statement, ""))
    if progress.note:
        lines.append((progress.note, "victim"))
    elif progress.attempt > 1:
        lines.append((f"try {progress.attempt} of {progress.attempts}", ""))
    if progress.applied:
        lines.append((f"applied, not yet committed: {', '.join(progress.applied)}", ""))
    if progress.committed:
        lines.append((f"committed: {', '.join(progress.committed)}", ""))
    return lines


def backfill_lines(progress: BackfillProgress) -> list[Said]:
    """Percent, time left, and why it is not at full speed."""
    left = "" if progress.eta_s is None else f" {text.clock(progress.eta_s)} left"
    lines: list[Said] = [(f"{meter(progress.fraction, 8)} {percent(progress.fraction)}{left}", "")]
    word = {State.PAUSED: "paused", State.THROTTLED: "held back"}.get(progress.state, "")
    said = ": ".join(part for part in (word, progress.reason) if part)
    return [*lines, (said, "victim" if word else "")] if said else lines


def percent(fraction: float) -> str:
    """`47.3 %`; 100 % only when all of it is done."""
    shown = min(fraction * 100, 99.9) if fraction < 1 else 100.0
    return f"{shown:.0f} %" if shown in (0.0, 100.0) else f"{shown:.1f} %"


def below(spec: Spec, state: StepState, view: WindowView) -> list[Said]:
    """What stands under a step's line: what it does now, why it failed, what a person can do about it."""
    lines: list[Said] = []
    if state.undone:
        return lines
    match state.status:
        case StepStatus.RUNNING:
            if view.migration is not None and view.migration.step == spec.id:
                lines = migration_lines(view.migration)
            elif view.backfill is not None and view.backfill_step == spec.id:
                lines = backfill_lines(view.backfill)
            elif state.text:
                lines = [(state.text, "")]
        case StepStatus.FAILED:
            lines = [(state.text, "bad"), ("n runs it again" if state.again else "not safe to run again: A", "strong")]
        case StepStatus.UNKNOWN:
            lines = [(f"outcome unknown: {state.text}", "bad"), ("n signs it off if it took effect, else A", "strong")]
        case StepStatus.PENDING if isinstance(spec, Manual) and next_step(view) == spec.id:
            lines = [(spec.text, "")]
    return lines


def step_line(spec: Spec, state: StepState, view: WindowView, width: int, ids: int) -> Line:
    """One step on one line of *width* cells; *ids* is the width of the longest id."""
    glyph, tone = UNDONE if state.undone else GLYPHS[state.status]
    is_next = view.state.running is None and view.state.abort is None and next_step(view) == spec.id
    time = taken(spec, state, view)
    if state.undone:
        time = "undone"
    elif is_next and state.status is StepStatus.PENDING:
        tone = "strong"
        time = f"{time} ◀ n".strip() if view.driving else f"{time} ◀".strip()
    head = f"{glyph} {clip(spec.id, ids)}"
    if width >= ROOMY:
        said = state.text if state.status in (StepStatus.DONE, StepStatus.WAIVED) else about(spec)
        middle = f"{clip(spec.kind, 8)}  {clip(who_does(spec, state), 10)}  {clip(time, 13)}  "
        line = f"{head}  {middle}{clip(said, width - cell_len(head) - cell_len(middle) - 2)}"
    else:
        line = f"{head} {clip(spec.kind, 8)} "
        line += clip(time, width - cell_len(line), "right")
    return Line(StepKey(spec.id), (line,), tone)


def about(spec: Spec) -> str:
    """What a step does, in a few words."""
    match spec:
        case Manual():
            return spec.text
        case Check():
            return f"{text.one_line(spec.sql)} = {spec.expect}"
        case Migrate():
            return f"alembic upgrade {spec.to}"
        case Backfill():
            return f"{spec.table}: SET {text.one_line(spec.set)} WHERE {text.one_line(spec.where)}"
        case Sql():
            return text.one_line(spec.sql)


def plan_lines(view: WindowView, width: int) -> list[Line]:
    """The whole Plan in lines of *width* cells: phases, steps, what is to say of them."""
    ids = _id_width(view, width)
    lines: list[Line] = []
    for phase in view.runbook.phase:
        lines.append(Line(("phase", phase.name), (phase.name.upper(),), "strong"))
        for spec in phase.step:
            state = view.state.step(spec.id)
            if view.rollback.no_return == spec.id and view.state.open and view.state.abort is None:
                lines.append(no_return_line(view, width))
            lines.append(step_line(spec, state, view, width, ids))
            number = 0
            for said, tone in below(spec, state, view):
                for piece in wrapped(said, width - 2, 2 if width < ROOMY else 3):
                    number += 1
                    lines.append(Line(StepKey(spec.id, number), (f"  {piece}",), tone))
    return lines


def _id_width(view: WindowView, width: int) -> int:
    return min(max(len(spec.id) for spec in view.runbook.steps()), max(6, width - 20))


def plan_title(view: WindowView, width: int) -> str:
    """What the parts of a step's line are."""
    ids = _id_width(view, width)
    if width >= ROOMY:
        return f"  {clip('step', ids)}  {clip('kind', 8)}  {clip('who', 10)}  {clip('took/planned', 13)}  what"
    head = f"  {clip('step', ids)} {clip('kind', 8)} "
    return head + clip("took/planned", width - len(head), "right")


def no_return_line(view: WindowView, width: int) -> Line:
    """The line that is drawn across the Plan where the way back ends."""
    passed = past_no_return(view)
    word = " passed: no way back " if passed else " no way back from here "
    return Line(("no return",), (word.center(width, "═" if passed else "╌"),), "bad" if passed else "warn")


def wrapped(said: str, width: int, most: int) -> list[str]:
    """*said* in at most *most* lines of *width* cells."""
    return textwrap.wrap(said, max(8, width), max_lines=most, placeholder=" …")


def plan_sheet(frame: Frame, width: int) -> Sheet:
    """The Plan as a table of one column, for *width* cells."""
    view, room = frame.window, max(20, width - 2)
    if view is None:
        return Sheet((Column("step", None),), (), "no window is open here")
    steps = [view.state.step(spec.id) for spec in view.runbook.steps()]
    done = sum(state.status in (StepStatus.DONE, StepStatus.WAIVED) and not state.undone for state in steps)
    columns = (Column(plan_title(view, room), None),)
    return Sheet(columns, tuple(plan_lines(view, room)), "", f"{done} of {len(steps)} done")


class PlanPane(TablePane):
    """The steps. The cursor is on a step; Enter runs it or signs it off."""

    number = 1
    command = "plan"
    title = "Plan"
    can: ClassVar[frozenset[str]] = frozenset({"detail", "export"})

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._due: StepKey | None = None
        self._due_at_first = True

    def sheet(self, frame: Frame, choice: Choice) -> Sheet:
        return plan_sheet(frame, self.table.size.width or 31)

    def on_resize(self, _: events.Resize) -> None:
        """Lines are composed for a width."""
        self.redraw()

    def draw(self, frame: Frame) -> str:
        """As every table; the cursor goes along with the step that is due, until a person moves it elsewhere."""
        follows = self.cursor_key in (None, self._due)
        note = super().draw(frame)
        if (view := frame.window) is not None:
            running = view.state.running
            step = running.id if running is not None else next_step(view)
            self._due = None if step is None else StepKey(step)
            if self._due is not None and (follows or self._due_at_first):
                self._due_at_first = False
                self.table.move_to(self._due)
        return note

    @property
    def step(self) -> str | None:
        """The step under the cursor."""
        key = self.cursor_key
        return key.step if isinstance(key, StepKey) else None

    def go_to(self, step: str) -> None:
        """Puts the cursor on *step*."""
        self.table.move_to(StepKey(step))

    def records(self, frame: Frame, choice: Choice) -> list[Record]:
        if (view := frame.window) is None:
            return []
        return [
            {
                "phase": phase.name,
                "step": spec.id,
                "kind": spec.kind,
                "status": str(view.state.step(spec.id).status),
                "undone": view.state.step(spec.id).undone,
                "attempt": view.state.step(spec.id).attempt,
                "actor": view.state.step(spec.id).actor,
                "planned_s": spec.planned,
                "seconds": view.state.step(spec.id).seconds,
                "text": view.state.step(spec.id).text,
            }
            for phase in view.runbook.phase
            for spec in phase.step
        ]

    def lines_about(self, frame: Frame, key: Hashable) -> list[str]:
        if frame.window is None or not isinstance(key, StepKey):
            return []
        return step_detail(frame.window, key.step)


def step_detail(view: WindowView, step: str) -> list[str]:
    """All there is to know of a step."""
    spec, state = view.runbook.step(step), view.state.step(step)
    lines = [
        f"step       {spec.id} ({spec.kind})",
        f"does       {about(spec)}",
        f"state      {state.status}{', taken back by the abort' if state.undone else ''}",
    ]
    if state.attempt:
        lines.append(f"attempt    {state.attempt}")
    if state.actor:
        lines.append(f"by         {state.actor}")
    if state.started_at:
        lines.append(f"started    {state.started_at:%Y-%m-%d %H:%M:%S} server time")
    if spec.planned or state.seconds is not None:
        lines.append(f"time       {taken(spec, state, view)}")
    if state.heads_before or state.heads_after:
        lines.append(f"heads      {', '.join(state.heads_before)} → {', '.join(state.heads_after)}")
    if state.text:
        lines.append(f"said       {state.text}")
    if spec.rollback:
        lines.append(f"way back   {spec.rollback} (a person does it)")
    if isinstance(spec, Sql) and spec.undo:
        lines.append(f"way back   {spec.undo}")
    if view.rollback.no_return == step:
        lines.append(f"no return  {view.rollback.reason or 'past this step there is no way back'}")
    lines += [f"ddl        {ddl.sql}" for ddl in view.state.ddl if ddl.step == step]
    return lines
