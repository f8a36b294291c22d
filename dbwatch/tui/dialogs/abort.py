"""The way back: the plan, the database's name, then each action as it goes, and at the end the verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Input

from dbwatch import text
from dbwatch.journal.fold import ActionState
from dbwatch.text import one_line
from dbwatch.tui.allowed import driver_of, persons_action
from dbwatch.tui.dialogs.abort_text import (
    InTheWay,
    Mode,
    Piece,
    abort_text,
    in_the_way_now,
    mode_of,
    plan_text,
    planned_in_the_way,
    told_by,
)
from dbwatch.tui.dialogs.dialog import Dialog
from dbwatch.tui.say import BAD, FAINT, WARN
from dbwatch.window.abort import AbortPlan
from dbwatch.window.feed import Frame

REFRESH_S = 2.0
"""How often the plan is asked for again while nothing is typed."""


class AbortDialog(Dialog[None]):
    """Plan, confirmation, progress and verdict in one place. It asks the app by its messages, and dismisses to None."""

    heading = "Abort: back to where this window opened"
    prompt = "Type the database's name to begin:"
    placeholder = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "blocker", "The session in the way", show=False, priority=True),
        Binding("tab", "next_blocker", "The next session in the way", show=False, priority=True),
        Binding("f3", "sign_off", "Sign the person's action off", show=False, priority=True),
    ]

    @dataclass
    class Confirmed(Message):
        """The name was typed under this plan."""

        digest: str
        confirmation: str

    @dataclass
    class BlockerWanted(Message):
        """A look at the chosen one of those in the way."""

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
        """The plan is not the one any more that was shown before, and nobody has confirmed it yet."""
        self._wrong = ""
        self._asked = 0.0
        self._now = 0.0
        self._asking: asyncio.Task[None] | None = None
        self._chosen: int | None = None
        """The pid under the cursor, among those in the way."""

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
            if self._plan is not None and self._plan.digest != plan.digest:
                self._changed = True
                if self.field is not None:  # what stands there was typed under another plan
                    self.field.clear()
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
            pieces.append(abort_text(view, width, self._in_the_way if mode is Mode.GOING else (), self._blocker))
        if mode in (Mode.PLAN, Mode.STUCK):
            pieces.append(self._plan_part(width, again=mode is Mode.STUCK))
        self.body.show(Content.assemble(*pieces))
        may_begin = self._may_begin
        if self.field is not None:
            self.field.display = self.prompt_line.display = may_begin
            self.field.disabled = not may_begin
            if may_begin and not self.field.has_focus and self.app.screen is self:
                self.field.focus()
        self.prompt_line.show(Content.assemble(self._question, *self._warnings))
        self.offer(self._keys(mode, may_begin))

    @property
    def _question(self) -> str:
        view = self._frame.window
        if view is None or view.driving:
            return self.prompt
        return f"Type the database's name to ask {driver_of(view)} to begin:"

    @property
    def _warnings(self) -> list[Piece]:
        """What keeps the name from being enough just now: beside the field, where it does not scroll away."""
        pieces: list[Piece] = []
        if self._changed:
            pieces.append(("\n▲ The plan has changed: read it again before you type.", f"bold {WARN}"))
        if self._wrong:
            pieces.append((f"\n✗ {self._wrong}", f"bold {BAD}"))
        return pieces

    @property
    def _may_begin(self) -> bool:
        """Whether there is a plan to confirm here: the driver begins it, anybody else asks the driver to."""
        view = self._frame.window
        shown = self._mode in (Mode.PLAN, Mode.STUCK) and self._plan is not None
        return shown and view is not None and view.state.open

    @property
    def _in_the_way(self) -> tuple[InTheWay, ...]:
        """Those whom the way back would wait for, or waits for now."""
        view, snapshot = self._frame.window, self._frame.snapshot
        if self._mode in (Mode.PLAN, Mode.STUCK):
            return planned_in_the_way(self._plan, snapshot) if self._plan is not None else ()
        return in_the_way_now(view, snapshot) if view is not None and self._mode is Mode.GOING else ()

    @property
    def _blocker(self) -> int | None:
        """The one under the cursor; the first where that one has gone."""
        pids = [one.pid for one in self._in_the_way]
        return self._chosen if self._chosen in pids else next(iter(pids), None)

    def _plan_part(self, width: int, *, again: bool) -> Content:
        pieces: list[Piece] = [("\n\nThe way back from here:\n", "bold")] if again else []
        if self._plan is not None:
            pieces.append(plan_text(self._plan, self._frame.snapshot, width, self._blocker))
        elif not self._trouble:
            waited = f" {text.age(self._now - self._asked)}" if self._asked and self._now - self._asked > 1 else ""
            pieces.append((f"working out the way back …{waited}", FAINT))
        if self._plan is not None and (view := self._frame.window) is not None and not view.driving:
            pieces.append((told_by(self._plan, view), FAINT))
        if self._trouble:
            pieces.append((f"\n✗ {self._trouble}", f"bold {BAD}"))
        return Content.assemble(*pieces)

    def _keys(self, mode: Mode, may_begin: bool) -> list[tuple[str, str]]:
        begins = "begins" if self._frame.window is None or self._frame.window.driving else "asks"
        keys: list[tuple[str, str]] = [("Enter", begins)] if may_begin else []
        if (pid := self._blocker) is not None:
            keys.append(("F2", f"look at {pid}, to cancel it"))
        if len(self._in_the_way) > 1:
            keys.append(("Tab", f"next of {len(self._in_the_way)}"))
        view = self._frame.window
        if view is not None and view.driving and mode is Mode.GOING and persons_action(view) is not None:
            keys.append(("F3", "it is done: sign it off"))
        leave = "back; the abort goes on" if mode is Mode.GOING else "back"
        return [*keys, ("Esc", leave)]

    # What a person does

    def on_input_changed(self, event: Input.Changed) -> None:
        """What was wrong is being mended. (Emptying the field after a wrong name mends nothing.)"""
        if event.value:
            self._wrong = ""

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Begins, if the name is the database's, and was typed under the plan that is shown."""
        event.stop()
        typed = event.value.strip()
        overtaken = event.value != event.input.value
        if self._plan is None or not typed or overtaken or not self._may_begin:
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
        """Asks for the dialog about the session under the cursor."""
        if (pid := self._blocker) is not None:
            self.post_message(self.BlockerWanted(pid))

    def action_next_blocker(self) -> None:
        """Puts the cursor on the next session in the way."""
        pids = [one.pid for one in self._in_the_way]
        if self._blocker in pids:
            self._chosen = pids[(pids.index(self._blocker) + 1) % len(pids)]
            self._draw()

    def action_sign_off(self) -> None:
        """Asks for the sign-off of the person's action that the abort waits for."""
        view = self._frame.window
        if view is not None and view.driving and (action := persons_action(view)) is not None:
            self.post_message(self.SignOffWanted(action))
