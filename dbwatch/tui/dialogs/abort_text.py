"""What there is to read of a way back: the plan, who is in its way, each action as it goes, and the verdict. Pure."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from functools import cache

from textual.content import Content

from dbwatch import text
from dbwatch.journal import events as ev
from dbwatch.journal.fold import AbortState, ActionState, ActionStatus
from dbwatch.monitor.lockqueue import Party, in_front_of
from dbwatch.monitor.samples import Activity, Snapshot, Status
from dbwatch.steps.patience import Need, needs
from dbwatch.tui.allowed import driver_of, persons_action
from dbwatch.tui.clocks import since
from dbwatch.tui.panes.sessions import begun, flat, seconds_since
from dbwatch.tui.say import BAD, FAINT, GOOD, WARN
from dbwatch.window.abort import AbortPlan, Action, ActionKind
from dbwatch.window.blockers import in_the_way
from dbwatch.window.feed import WindowView
from dbwatch.window.hindsight import foreseen_of

NEVER = datetime.max.replace(tzinfo=UTC)
OLD_S = 1.0
"""Younger transactions come and go by themselves."""

Piece = Content | str | tuple[str, str]


class Mode(Enum):
    """What the dialog shows."""

    PLAN = auto()
    GOING = auto()
    STUCK = auto()
    """It ended without bringing the window back: what happened so far, and the plan from here."""
    OVER = auto()


def mode_of(view: WindowView | None) -> Mode:
    """What there is to show for the window as it stands."""
    abort = view.state.abort if view is not None else None
    if view is None or abort is None:
        return Mode.PLAN
    if not abort.finished:
        return Mode.GOING
    return Mode.OVER if abort.equal or not view.state.open else Mode.STUCK


# Lines of a given width


def _row(head: str, time: str, width: int, style: str = "", indent: int = 2) -> Content:
    """*head* with its *time* at the right edge of the first line; what is longer goes on below, indented."""
    first, *rest = textwrap.wrap(head, width - len(time) - 2, subsequent_indent=" " * indent) or [""]
    below = "".join(f"{line}\n" for line in rest)
    return Content.assemble((f"{first:<{width - len(time)}}{time}\n{below}", style))


def _below(said: str, width: int, style: str, first: str = "    ") -> tuple[str, str]:
    """*said* under an action's line, all its lines as far in as the first."""
    lines = textwrap.wrap(said, width, initial_indent=first, subsequent_indent=" " * len(first)) or [first]
    return "".join(f"{line}\n" for line in lines), style


def took(seconds: float) -> str:
    """`0.4 s`, and from ten seconds on `0:38`."""
    return text.age(seconds) if seconds < 10 else text.clock(seconds)


# Who is in the way


@dataclass(frozen=True, slots=True)
class InTheWay:
    """A session that the way back waits for, or would wait for, as it is now."""

    pid: int
    words: str
    """`47110 reports, idle in transaction 31 s, holds users: SELECT ...`."""


def _told(session: Activity, snapshot: Snapshot, has: str) -> str:
    age = text.age(seconds_since(begun(session), snapshot.activity.at))
    who = session.application_name or session.usename or session.backend_type
    holds = f", {has}" if has else ""
    query = f": {flat(session.query)[:100]}" if session.query else ""
    return f"{session.pid} {who}, {session.state or session.backend_type} {age}{holds}{query}"


@cache
def _relations(statements: tuple[str, ...]) -> tuple[Need, ...]:
    """What *statements* lock, each once, with the locks of others that they would wait for."""
    return needs(statements).relations


def would_wait_for(action: Action, snapshot: Snapshot) -> tuple[InTheWay, ...]:
    """Whom *action* would wait for if it began now, by the newest poll: a plan may have been made a while ago.

    Transactions that come and go are left out. Whoever is in the way by their age alone is taken from the plan, as
    long as their transaction is open.
    """
    sessions = {(row.pid, row.backend_start): row for row in snapshot.activity.rows if row.xact_start is not None}
    by_plan = list(action.waits_for)
    if snapshot.locks.status is Status.OK:
        holding = [b for b in in_the_way(snapshot, _relations(action.sql)) if (b.age_s or 0.0) >= OLD_S]
        by_plan = [*holding, *(b for b in by_plan if not b.relation)]
    found = {(b.pid, b.backend_start): b.relation for b in reversed(by_plan) if (b.pid, b.backend_start) in sessions}
    ordered = sorted(found, key=lambda key: sessions[key].xact_start or NEVER)
    return tuple(
        InTheWay(key[0], _told(sessions[key], snapshot, f"holds {found[key]}" if found[key] else "")) for key in ordered
    )


def planned_in_the_way(plan: AbortPlan, snapshot: Snapshot) -> tuple[InTheWay, ...]:
    """Whom the actions of *plan* would wait for now, each once, in their order."""
    every = (one for action in plan.actions for one in would_wait_for(action, snapshot))
    return tuple({one.pid: one for one in every}.values())


def in_the_way_now(view: WindowView, snapshot: Snapshot) -> tuple[InTheWay, ...]:
    """Whom the running abort waits for: who is in front of our backends, and those it named at its last try.

    Between two tries nothing of ours waits; whoever it named then is still in the way as long as their transaction is
    open.
    """
    ours = snapshot.own_pids | ({view.migration.pid} if view.migration is not None and view.migration.pid else set())
    has: dict[Party, str] = {}
    for front in filter(None, (in_front_of(snapshot, pid) for pid in sorted(ours))):
        has |= {one: f"waits ahead for {front.wanted.target}" for one in front.ahead if one not in has}
        has |= {one: f"holds {front.wanted.target}" for one in front.holders}
    said = " ".join((view.migration.waits_for, view.migration.note)) if view.migration is not None else ""
    named = {int(pid) for pid in re.findall(r"(\d+) \(", said)}
    rows = [
        row
        for row in snapshot.activity.rows
        if row.pid not in ours and (row.pid in has or (row.pid in named and row.xact_start is not None))
    ]
    rows.sort(key=lambda row: -(seconds_since(row.xact_start, snapshot.activity.at) or 0.0))
    return tuple(InTheWay(row.pid, _told(row, snapshot, has.get(row.pid, ""))) for row in rows)


def way_line(one: InTheWay, width: int, chosen: int | None, verb: str) -> tuple[str, str]:
    """A session in the way; the chosen one with the cursor."""
    mark = "▶" if one.pid == chosen else " "
    return _below(f"▲ {verb} {one.words}", width, f"bold {WARN}", f"  {mark} ")


# The plan


def plan_text(plan: AbortPlan, snapshot: Snapshot, width: int, chosen: int | None = None) -> Content:
    """The plan as it will be carried out, in *width* cells; *chosen* is the session under the cursor."""
    budget = "" if plan.budget_s is None else f" of {text.clock(plan.budget_s)}"
    over = plan.budget_s is not None and plan.estimate_s > plan.budget_s
    estimate = f"estimated {text.clock(plan.estimate_s)}{budget}{' OVER' if over else ''}"
    pieces: list[Piece] = [_row(plan.target, estimate, width, f"bold {BAD}" if over else "bold"), "\n"]
    for number, action in enumerate(plan.actions, 1):
        pieces += _planned(number, action, snapshot, width, chosen)
    pieces += [_below(f"lost: {lost}", width, f"bold {WARN}", "") for lost in plan.lost]
    pieces += [_below(f"✗ {obstacle}", width, f"bold {BAD}", "") for obstacle in plan.obstacles]
    if (foreseen := plan.prediction) is not None:
        style = f"bold {BAD}" if foreseen.stops else f"bold {GOOD}" if foreseen.equal else f"bold {WARN}"
        first, *rest = foreseen.sentences
        pieces.append(_below(first, width, style, ""))
        unsure = len(rest) - len(foreseen.unsure)
        pieces += [
            _below(sentence, width, WARN if foreseen.stops or n >= unsure else "", "")
            for n, sentence in enumerate(rest)
        ]
    return Content.assemble(*pieces)


def _planned(number: int, action: Action, snapshot: Snapshot, width: int, chosen: int | None) -> list[Piece]:
    time = "?" if action.estimate_s is None else text.clock(action.estimate_s)
    person = " (a person)" if action.estimate_s is None and action.kind is ActionKind.PERSON else ""
    forecast = ["as things stand; the step still runs and may commit more"] if action.forecast else []
    notes = [note for note in action.notes if not note.startswith("would wait now for ")]  # told below, as it is now
    return [
        _row(f"{number} {action.title}{person}", time, width),
        *(_below(statement, width, FAINT) for statement in action.sql),
        *(_below(lock, width, "") for lock in action.locks),
        *(_below(f"▲ {note}", width, WARN) for note in (*notes, *forecast)),
        *(way_line(one, width, chosen, "would wait for") for one in would_wait_for(action, snapshot)),
    ]


def told_by(plan: AbortPlan, view: WindowView) -> str:
    """How old a plan is that another's dbwatch computed: it does so when the journal goes on."""
    made = next((e.at for e in view.events if e.seq == plan.seq), None)
    ago = f" {text.age(since(view, made))} ago" if made is not None else ""
    return f"as {driver_of(view)}'s dbwatch foresaw it{ago}; who is in the way is seen from here, now\n"


# An abort under way, or over


def action_row(action: ActionState, view: WindowView, width: int) -> Content:
    """One action of an abort under way or over."""
    glyphs = {
        ActionStatus.WAITING: ("○", FAINT), ActionStatus.RUNNING: ("▶", "bold"),
        ActionStatus.DONE: ("✓", GOOD), ActionStatus.FAILED: ("✗", f"bold {BAD}"),
    }  # fmt: skip
    glyph, style = glyphs[action.status]
    title = str(action.body.get("title") or action.body.get("kind") or "?")
    planned = action.body.get("estimate_s")
    time = f"~{text.clock(float(planned))}" if isinstance(planned, int | float) else ""
    if action.seconds is not None:
        time = took(action.seconds)
    elif action.status is ActionStatus.RUNNING:
        time = f"{text.clock(since(view, action.started_at) or 0.0)} …"
    row = _row(f"{glyph} {action.number} {title}", time, width, style, indent=4)
    return Content.assemble(row, _below(action.text, width, style, "      ")) if action.text else row


def verdict(abort: AbortState, view: WindowView, width: int) -> Content:
    """How the abort ended: proof, or what differs; and whether the plan had told the truth."""
    budget = view.runbook.rollback_budget
    against = took(abort.seconds or 0.0) + ("" if budget is None else f" of {text.clock(budget)}")
    pieces: list[Piece] = []
    if abort.equal:
        opened = view.state.opened_at
        when = f"{opened:%H:%M:%S}" if opened else "the opening"
        pieces.append((f"✓ back: the schema equals the one of {when}, {against}\n", f"bold {GOOD}"))
    else:
        pieces.append((f"✗ NOT back after {against}:\n", f"bold {BAD}"))
        pieces += [_below(line, width, "", "  ") for line in abort.differences or ("(nobody could compare it)",)]
    ended = next((e.fact for e in reversed(view.events) if isinstance(e.fact, ev.AbortFinished)), None)
    if ended is not None and ended.missed:
        pieces += [_below(f"✗ the plan was wrong: {missed}", width, f"bold {BAD}", "") for missed in ended.missed]
    elif ended is not None and ended.found is not None and foreseen_of(view.events) is not None:
        pieces.append(("✓ as the plan foretold\n", GOOD))
    return Content.assemble(*pieces)


def abort_text(view: WindowView, width: int, in_the_way: Sequence[InTheWay] = (), chosen: int | None = None) -> Content:
    """An abort under way, or over; *in_the_way* are those whom it waits for now."""
    abort = view.state.abort
    if abort is None:
        return Content("")
    confirmed = f"confirmed by {abort.actor} at {abort.confirmed_at:%H:%M:%S}"
    spent = abort.seconds if abort.finished else since(view, abort.confirmed_at)
    budget = view.runbook.rollback_budget
    limit = "" if budget is None else f" of {text.clock(budget)}"
    times = f"{took(spent or 0.0)}{limit}, estimated {text.clock(abort.estimate_s)}"
    late = not abort.finished and budget is not None and (spent or 0.0) > budget
    pieces: list[Piece] = [
        _row(confirmed, f"{times}{' OVER' if late else ''}", width, f"bold {BAD}" if late else FAINT),
        "\n",
    ]
    if not view.driving and not abort.finished:
        pieces.append((f"{driver_of(view)} carries it out\n", FAINT))
    over = mode_of(view) is Mode.STUCK
    if over and (done := sum(action.status is ActionStatus.DONE for action in abort.actions)):
        pieces.append((f"✓ {done} of {len(abort.actions)} actions done\n", GOOD))
    for action in abort.actions:
        if over and action.status is not ActionStatus.FAILED:
            continue
        pieces.append(action_row(action, view, width))
        if action.status is ActionStatus.RUNNING:
            pieces += _at_work(view, width, action.text)
            pieces += [way_line(one, width, chosen, "waits for") for one in in_the_way]
    if abort.finished:
        pieces += ["\n", verdict(abort, view, width)]
    elif (waiting := persons_action(view)) is not None:
        pieces.append(_below(f"▲ Waits for a person: {waiting.body.get('title')}", width, f"bold {WARN}", ""))
    elif (foreseen := foreseen_of(view.events)) is not None:
        pieces += [_below(sentence, width, FAINT, "") for sentence in foreseen.sentences[:1]]
    return Content.assemble(*pieces)


def _at_work(view: WindowView, width: int, said: str) -> list[Piece]:
    """What the running action does now, besides what it *said* already."""
    if (backfill := view.backfill) is not None and not backfill.state.ended:
        done = f"{backfill.rows_done:,} rows brought back, {backfill.fraction * 100:.0f} %"
        return [_below(done, width, "", "      ")]
    if (progress := view.migration) is None:
        return []
    lines: list[Piece] = [_below(progress.statement, width, FAINT, "      ")] if progress.statement else []
    if progress.note and progress.note != said:
        lines.append(_below(progress.note, width, WARN, "      "))
    elif progress.attempt > 1:
        lines.append(_below(f"try {progress.attempt} of {progress.attempts}", width, "", "      "))
    return lines
