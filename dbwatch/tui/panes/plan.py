"""The Plan: every step with its state, who does it, what it was to take and took, and where the way back ends."""

from __future__ import annotations

import textwrap
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from rich.cells import cell_len
from textual import events

from dbwatch import text
from dbwatch.backfill.progress import BackfillProgress, State
from dbwatch.journal.fold import Proposal, StepState, StepStatus
from dbwatch.runbook.model import Backfill, Check, Manual, Migrate, Sql
from dbwatch.tui.allowed import driver_of, next_step, own_proposal, short
from dbwatch.tui.clocks import past_no_return, since
from dbwatch.tui.columns import Column, Line, Tone, cell, clip
from dbwatch.tui.header import meter
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
SECOND = "◎"
"""A step to do that needs a second person's word; the word stands with it."""
SECOND_WORD = "2nd person"
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
        return short(state.actor)
    return "person" if isinstance(spec, Manual) else "auto"


def taken(spec: Spec, state: StepState, view: WindowView) -> str:
    """`1:02`, or with a plan `1:02/2:00`; before it has begun only the plan, `~2:00`."""
    planned = "" if spec.planned is None else text.clock(spec.planned)
    spent = since(view, state.started_at) if state.status is StepStatus.RUNNING else state.seconds
    if spent is None or state.status in (StepStatus.PENDING, StepStatus.WAIVED):
        return f"~{planned}" if planned else ""
    if not planned:
        return text.clock(spent)
    over = "!" if spec.planned is not None and spent > 1.2 * spec.planned else ""
    return f"{text.clock(spent)}/{planned}{over}"


def migration_lines(progress: MigrationProgress, patient: bool, spent: float | None) -> list[Said]:
    """Whom a running step waits for and how, what it does, when it tries again.

    A *patient* one waits outside, where nobody queues behind it, and then knocks; *spent* is how long it has run.
    """
    lines: list[Said] = []
    waits = progress.waits_for
    if patient and waits and progress.pid is None:
        how_long = f" {text.clock(spent)}" if spent is not None else ""
        lines.append((f"waits outside{how_long} for {waits}", "victim"))
    elif patient and progress.pid is not None and not progress.number:
        lines.append((f"knocks{f' at the lock of {waits}' if waits else ''}", "victim"))
    elif waits:
        lines.append((f"waits for {waits}", "victim"))
    if progress.number or not patient:
        lines.append((f"{progress.revision or 'starting'} · statement {progress.number}", ""))
    if progress.statement:
        lines.append((progress.statement, ""))
    if progress.note:
        lines.append((progress.note, "" if patient else "victim"))
    elif progress.attempt > 1:
        lines.append((f"try {progress.attempt} of {progress.attempts}", ""))
    if progress.applied:
        lines.append((f"applied, not yet committed: {', '.join(progress.applied)}", ""))
    if progress.committed:
        lines.append((f"committed: {', '.join(progress.committed)}", ""))
    return lines


def is_patient(spec: Spec) -> bool:
    """Whether the step may wait until its way is clear."""
    return isinstance(spec, Migrate | Sql) and spec.patient is not None


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
                lines = migration_lines(view.migration, is_patient(spec), since(view, state.started_at))
            elif view.backfill is not None and view.backfill_step == spec.id:
                lines = backfill_lines(view.backfill)
            elif state.text:
                lines = [(state.text, "")]
            if not view.driving and view.silent_s is not None:
                lines = [(f"nothing is heard of {driver_of(view)}: nobody knows whether it still runs", "bad"), *lines]
        case StepStatus.FAILED:
            lines = [(state.text, "bad"), (_after_failure(state, view), "strong")]
        case StepStatus.UNKNOWN:
            asks = "n shows what is known and asks you" if view.driving else f"{driver_of(view)} has to decide"
            lines = [(f"outcome unknown: {state.text}", "bad"), (asks, "strong")]
        case StepStatus.PENDING if (proposal := view.state.proposal) is not None and proposal.step == spec.id:
            lines = [(waits_for_second(proposal, view), "victim")]
        case StepStatus.PENDING if isinstance(spec, Manual) and next_step(view) == spec.id:
            lines = [(spec.text, "")]
    return lines


def _after_failure(state: StepState, view: WindowView) -> str:
    if view.state.abort is not None:
        return "this window is taken back"
    if not view.driving:
        return f"{driver_of(view)} may run it again" if state.again else "not safe to run again"
    return "n runs it again" if state.again else "not safe to run again: A"


def waits_for_second(proposal: Proposal, view: WindowView) -> str:
    """What a proposed step waits for, and what this person can do about it."""
    if proposal.confirmed_by:
        return f"{short(proposal.confirmed_by)} has confirmed it: it is about to begin"
    waited = text.clock(since(view, proposal.at) or 0.0)
    if view.driving:
        return f"waits for a second person, {waited}; X takes it back"
    if own_proposal(proposal, view):
        return f"waits for a second person, {waited}: somebody else than you"
    return f"{short(proposal.actor)} waits {waited} for you: n confirms or declines"


def step_line(spec: Spec, state: StepState, view: WindowView, width: int, ids: int) -> Line:
    """One step on one line of *width* cells; *ids* is the width of the longest id."""
    glyph, tone = UNDONE if state.undone else GLYPHS[state.status]
    time, who = taken(spec, state, view), who_does(spec, state)
    proposal = view.state.proposal
    if state.undone:
        time = "undone"
    elif state.status is StepStatus.PENDING:
        is_next = view.state.running is None and view.state.abort is None and next_step(view) == spec.id
        is_proposed = proposal is not None and proposal.step == spec.id
        key = " ◀ n" if is_next and (view.driving or is_proposed) else " ◀" if is_next else ""
        tone = "victim" if is_proposed else "strong" if is_next else tone
        if spec.confirm is not None:
            glyph, who = SECOND, SECOND_WORD
            word = "proposed" if is_proposed else SECOND_WORD
            room = width if width >= ROOMY else width - ids - 12
            time = f"{word} {time}" if width < ROOMY and len(f"{word} {time}{key}") <= room else word
        time = f"{time}{key}".strip()
    head = f"{glyph} {clip(spec.id, ids)}"
    if width >= ROOMY:
        said = state.text if state.status in (StepStatus.DONE, StepStatus.WAIVED) else about(spec)
        middle = f"{clip(spec.kind, 8)}  {clip(who, 10)}  {clip(time, 14)} "
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
    """The whole Plan in lines of *width* cells: phases, steps, what is to say of them.

    A bracket at the right edge holds what lies past the point of no return.
    """
    ids = _id_width(view, width)
    lines: list[Line] = []
    past: int | None = None
    for phase in view.runbook.phase:
        room = width if past is None else width - 2
        lines.append(Line(("phase", phase.name), (phase.name.upper(),), "strong"))
        for spec in phase.step:
            if view.rollback.no_return == spec.id and view.state.open and view.state.abort is None:
                lines.append(no_return_line(view, width))
                past, room = len(lines), width - 2
            lines += _step_lines(spec, view, room, min(ids, max(6, room - 20)))
    return lines if past is None else [*lines[:past], *_bracketed(lines[past:], width)]


def _step_lines(spec: Spec, view: WindowView, width: int, ids: int) -> list[Line]:
    state = view.state.step(spec.id)
    lines = [step_line(spec, state, view, width, ids)]
    for said, tone in below(spec, state, view):
        for piece in wrapped(said, width - 2, 2 if width < ROOMY and tone != "victim" else 3):
            lines.append(Line(StepKey(spec.id, len(lines)), (f"  {piece}",), tone))
    return lines


def _bracketed(lines: Sequence[Line], width: int) -> list[Line]:
    """*lines*, each of one cell, with the right edge of the bracket that `no_return_line` begins."""
    last = len(lines) - 1
    return [
        replace(line, cells=(f"{clip(cell(line.cells[0]).text, width - 2)} {'┘' if n == last else '│'}",))
        for n, line in enumerate(lines)
    ]


def _id_width(view: WindowView, width: int) -> int:
    return min(max(len(spec.id) for spec in view.runbook.steps()), max(6, width - 20))


def plan_title(view: WindowView, width: int) -> str:
    """What the parts of a step's line are."""
    ids = _id_width(view, width)
    if width >= ROOMY:
        return f"  {clip('step', ids)}  {clip('kind', 8)}  {clip('who', 10)}  {clip('took/planned', 14)} what"
    head = f"  {clip('step', ids)} {clip('kind', 8)} "
    return head + clip("took/planned", width - len(head), "right")


def no_return_line(view: WindowView, width: int) -> Line:
    """The line that is drawn across the Plan where the way back ends."""
    passed = past_no_return(view)
    word = "▲ passed: no way back " if passed else "▲ no way back from here "
    return Line(("no return",), (f"{word:{'═' if passed else '╌'}<{width - 1}}┐",), "bad" if passed else "warn")


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
        self.table.pointer = "›"  # the usual one is the sign of a step that runs
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
    if isinstance(spec, Migrate | Sql) and spec.patient is not None:
        lines.append(
            f"patient    waits up to {text.clock(spec.patient)} until nobody is in its way, and knocks for 200 ms"
        )
    if (progress := view.migration) is not None and progress.step == step and progress.knocks:
        lines.append(f"knocks     {progress.knocks}, others queued at most {progress.queued_worst_s * 1000:.0f} ms")
    if spec.confirm is not None:
        lines.append("confirm    a second person types the database's name before it begins")
    if (proposal := view.state.proposal) is not None and proposal.step == step:
        lines.append(f"proposed   by {proposal.actor} at {proposal.at:%H:%M:%S}: {proposal.why}")
    if spec.rollback:
        lines.append(f"way back   {spec.rollback} (a person does it)")
    if isinstance(spec, Sql) and spec.undo:
        lines.append(f"way back   {spec.undo}")
    if view.rollback.no_return == step:
        lines.append(f"no return  {view.rollback.reason or 'past this step there is no way back'}")
    lines += [f"ddl        {ddl.sql}" for ddl in view.state.ddl if ddl.step == step]
    return lines
