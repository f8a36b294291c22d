"""The way back: the plan, the database's name, then each action as it goes, and at the end the verdict."""

from __future__ import annotations

import asyncio
import re
import textwrap
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Input

from dbwatch import text
from dbwatch.journal.fold import AbortState, ActionState, ActionStatus
from dbwatch.text import one_line
from dbwatch.tui.dialogs.dialog import Dialog
from dbwatch.tui.keys import hands_off, persons_action
from dbwatch.tui.say import BAD, FAINT, GOOD, WARN
from dbwatch.window.abort import AbortPlan, ActionKind
from dbwatch.window.feed import Frame, WindowView

REFRESH_S = 2.0
"""How often the plan is asked for again while nothing is typed."""

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


def _row(head: str, time: str, width: int, style: str = "", indent: int = 2) -> Content:
    """*head* with its *time* at the right edge of the first line; what is longer goes on below, indented."""
    first, *rest = textwrap.wrap(head, width - len(time) - 2, subsequent_indent=" " * indent) or [""]
    below = "".join(f"{line}\n" for line in rest)
    return Content.assemble((f"{first:<{width - len(time)}}{time}\n{below}", style))


def took(seconds: float) -> str:
    """`0.4 s`, and from ten seconds on `0:38`."""
    return text.age(seconds) if seconds < 10 else text.clock(seconds)


def plan_text(plan: AbortPlan, width: int) -> Content:
    """The plan as it will be carried out, in *width* cells."""
    budget = "" if plan.budget_s is None else f" of {text.clock(plan.budget_s)}"
    over = plan.budget_s is not None and plan.estimate_s > plan.budget_s
    estimate = f"estimated {text.clock(plan.estimate_s)}{budget}{' OVER' if over else ''}"
    pieces: list[Piece] = [_row(plan.target, estimate, width, f"bold {BAD}" if over else "bold"), "\n"]
    for number, action in enumerate(plan.actions, 1):
        time = "?" if action.estimate_s is None else text.clock(action.estimate_s)
        person = " (a person)" if action.estimate_s is None and action.kind is ActionKind.PERSON else ""
        pieces.append(_row(f"{number} {action.title}{person}", time, width))
        pieces += [(f"    {statement}\n", FAINT) for statement in action.sql]
        pieces += [(f"    ▲ {note}\n", WARN) for note in action.notes]
    pieces += [(f"\nlost: {lost}", f"bold {WARN}") for lost in plan.lost]
    pieces += [(f"\n✗ {obstacle}", f"bold {BAD}") for obstacle in plan.obstacles]
    pieces += [(f"\n{sentence}", "") for sentence in (plan.prediction.sentences if plan.prediction else ())]
    return Content.assemble(*pieces)


def since(view: WindowView, then: datetime | None) -> float | None:
    """Seconds from *then*, by the server's clock, to what the window knows as now."""
    opened = view.state.opened_at
    return None if then is None or opened is None else max(0.0, view.elapsed_s - (then - opened).total_seconds())


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
    return Content.assemble(row, (f"      {action.text}\n", style)) if action.text else row


def verdict(abort: AbortState, view: WindowView) -> Content:
    """How the abort ended: proof, or what differs."""
    budget = view.runbook.rollback_budget
    against = took(abort.seconds or 0.0) + ("" if budget is None else f" of {text.clock(budget)}")
    if abort.equal:
        opened = view.state.opened_at
        when = f"{opened:%H:%M:%S}" if opened else "the opening"
        return Content.assemble((f"✓ back: the schema equals the one of {when}, {against}", f"bold {GOOD}"))
    lines = "".join(f"\n  {line}" for line in abort.differences) or "\n  (nobody could compare it)"
    return Content.assemble((f"✗ NOT back after {against}:", f"bold {BAD}"), lines)


def abort_text(view: WindowView, width: int) -> Content:
    """An abort under way, or over."""
    abort = view.state.abort
    if abort is None:
        return Content("")
    confirmed = f"confirmed by {abort.actor} at {abort.confirmed_at:%H:%M:%S}"
    spent = abort.seconds if abort.finished else since(view, abort.confirmed_at)
    budget = view.runbook.rollback_budget
    limit = "" if budget is None else f" of {text.clock(budget)}"
    times = f"{took(spent or 0.0)}{limit}, estimated {text.clock(abort.estimate_s)}"
    pieces: list[Piece] = [_row(confirmed, times, width, FAINT), "\n"]
    over = mode_of(view) is Mode.STUCK
    if over and (done := sum(action.status is ActionStatus.DONE for action in abort.actions)):
        pieces.append((f"✓ {done} of {len(abort.actions)} actions done\n", GOOD))
    for action in abort.actions:
        if over and action.status is not ActionStatus.FAILED:
            continue
        pieces.append(action_row(action, view, width))
        if action.status is ActionStatus.RUNNING and view.migration is not None:
            pieces += [(f"      {line}\n", WARN) for line in (view.migration.note,) if line]
            if view.migration.waits_for:
                pieces.append((f"      ▲ waits for {view.migration.waits_for}\n", f"bold {WARN}"))
    if abort.finished:
        pieces += ["\n", verdict(abort, view)]
    elif (waiting := persons_action(view)) is not None:
        pieces += [(f"\n▲ Waits for a person: {waiting.body.get('title')}", f"bold {WARN}")]
    return Content.assemble(*pieces)


class AbortDialog(Dialog[None]):
    """Plan, confirmation, progress and verdict in one place. It asks the app by its messages, and dismisses to None."""

    heading = "Abort: back to where this window opened"
    prompt = "Type the database's name to begin:"
    placeholder = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "blocker", "The session in the way", show=False, priority=True),
        Binding("f3", "sign_off", "Sign the person's action off", show=False, priority=True),
    ]

    @dataclass
    class Confirmed(Message):
        """The name was typed under this plan."""

        digest: str
        confirmation: str

    @dataclass
    class BlockerWanted(Message):
        """A look at the first session that the plan would wait for."""

        pid: int

    @dataclass
    class SignOffWanted(Message):
        """A person's action is done."""

        action: ActionState

    def __init__(self, frame: Frame, plan: Callable[[], Awaitable[AbortPlan]]) -> None:
        super().__init__()
        self._ask = plan
        self._frame = frame
        self._plan: AbortPlan | None = None
        self._trouble = ""
        self._changed = False
        self._wrong = ""
        self._asked = 0.0
        self._now = 0.0
        self._asking: asyncio.Task[None] | None = None

    # What goes on behind it

    def on_mount(self) -> None:
        super().on_mount()
        self._fetch()
        self._draw()

    async def on_unmount(self) -> None:
        """Nobody waits for the plan any more."""
        if self._asking is not None:
            self._asking.cancel()

    def _fetch(self) -> None:
        if self._asking is None or self._asking.done():
            self._asked = self._now
            self._asking = asyncio.create_task(self._fetched(), name="abort plan")

    async def _fetched(self) -> None:
        try:
            plan = await self._ask()
        except Exception as error:  # noqa: BLE001 (the task's edge: a person sees it, and it is asked again)
            self._trouble = one_line(str(error) or type(error).__name__)
        else:
            self._changed = self._plan is not None and self._plan.digest != plan.digest
            self._plan, self._trouble = plan, ""
        self._draw()

    def view(self, frame: Frame, now: float) -> None:
        self._frame, self._now = frame, now
        showing_plan = self._mode in (Mode.PLAN, Mode.STUCK)
        if showing_plan and not self._typed and now - self._asked >= REFRESH_S:
            self._fetch()
        self._draw()

    @property
    def _typed(self) -> str:
        return self.field.value if self.field is not None else ""

    @property
    def _mode(self) -> Mode:
        return mode_of(self._frame.window)

    # What is shown

    def _draw(self) -> None:
        view, mode, width = self._frame.window, self._mode, self.room
        pieces: list[Piece] = []
        if view is not None and mode is not Mode.PLAN:
            pieces.append(abort_text(view, width))
        if mode in (Mode.PLAN, Mode.STUCK):
            pieces.append(self._plan_part(width, again=mode is Mode.STUCK))
        self.body.show(Content.assemble(*pieces))
        may_begin = self._may_begin
        if self.field is not None:
            self.field.display = self.prompt_line.display = may_begin
            self.field.disabled = not may_begin
            if may_begin and not self.field.has_focus and self.app.screen is self:
                self.field.focus()
        self.offer(self._keys(mode, may_begin))

    @property
    def _may_begin(self) -> bool:
        """Whether there is a plan to confirm, and this screen is the one to do it."""
        view = self._frame.window
        shown = self._mode in (Mode.PLAN, Mode.STUCK) and self._plan is not None
        return shown and view is not None and not hands_off(view)

    def _blocker(self) -> int | None:
        """The session that the way back would wait for first, or waits for now."""
        view = self._frame.window
        if self._mode in (Mode.PLAN, Mode.STUCK):
            return self._plan.blockers[0] if self._plan is not None and self._plan.blockers else None
        waits_for = view.migration.waits_for if view is not None and view.migration is not None else ""
        pid = re.match(r"\d+", waits_for)
        return int(pid[0]) if pid and self._mode is Mode.GOING else None

    def _plan_part(self, width: int, *, again: bool) -> Content:
        pieces: list[Piece] = [("\n\nThe way back from here:\n", "bold")] if again else []
        if self._plan is not None:
            pieces.append(plan_text(self._plan, width))
        elif not self._trouble:
            waited = f" {text.age(self._now - self._asked)}" if self._asked and self._now - self._asked > 1 else ""
            pieces.append((f"working out the way back …{waited}", FAINT))
        if self._trouble:
            pieces.append((f"\n✗ {self._trouble}", f"bold {BAD}"))
        if self._changed:
            pieces.append(("\n▲ The plan has changed just now: read it again.", f"bold {WARN}"))
        if self._wrong:
            pieces.append((f"\n✗ {self._wrong}", f"bold {BAD}"))
        return Content.assemble(*pieces)

    def _keys(self, mode: Mode, may_begin: bool) -> list[tuple[str, str]]:
        keys: list[tuple[str, str]] = [("Enter", "begins")] if may_begin else []
        if (pid := self._blocker()) is not None:
            keys.append(("F2", f"look at {pid}, which is in the way"))
        if self._frame.window is not None and mode is Mode.GOING and persons_action(self._frame.window) is not None:
            keys.append(("F3", "it is done: sign it off"))
        leave = "back; the abort goes on" if mode is Mode.GOING else "back"
        return [*keys, ("Esc", leave)]

    # What a person does

    def on_input_changed(self, event: Input.Changed) -> None:
        """What was wrong is being mended. (Emptying the field after a wrong name mends nothing.)"""
        if event.value:
            self._wrong = ""

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Begins, if the name is the database's."""
        event.stop()
        typed = event.value.strip()
        if self._plan is None or not typed or not self._may_begin:
            return
        if typed != self._plan.database:
            self._wrong = f"that is not the name of this database ({self._plan.database}); nothing was begun"
        else:
            self._changed = False
            self.post_message(self.Confirmed(self._plan.digest, typed))
        event.input.clear()
        self._draw()

    def refused(self, why: str) -> None:
        """The desk did not take it: says why, and looks at the plan again."""
        self._wrong = why
        self._fetch()
        self._draw()

    def action_blocker(self) -> None:
        """Asks for the dialog about the first session in the way."""
        if (pid := self._blocker()) is not None:
            self.post_message(self.BlockerWanted(pid))

    def action_sign_off(self) -> None:
        """Asks for the sign-off of the person's action that the abort waits for."""
        if self._frame.window is not None and (action := persons_action(self._frame.window)) is not None:
            self.post_message(self.SignOffWanted(action))
