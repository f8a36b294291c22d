"""What the keys of the window do: each shows first what it is about, and hands one intent in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbwatch.journal.fold import ActionState
from dbwatch.monitor.samples import Activity
from dbwatch.runbook.model import Manual
from dbwatch.tui import keys
from dbwatch.tui.dialogs.abort import AbortDialog
from dbwatch.tui.dialogs.ask import closing
from dbwatch.tui.dialogs.note import journal_note, sign_off
from dbwatch.tui.dialogs.signal import SignalDialog
from dbwatch.window.feed import Desk
from dbwatch.window.intents import (
    Abort,
    ChangeSpeed,
    CloseWindow,
    Note,
    RunStep,
    Signal,
    SignOff,
    StopOurs,
    ToggleBackfill,
)

if TYPE_CHECKING:
    from dbwatch.tui.app import DbwatchApp


class WindowCommands:
    """One method per command, called only where the registry refuses nothing; a desk is there then."""

    def __init__(self, app: DbwatchApp, desk: Desk | None) -> None:
        self._app, self._desk = app, desk

    def do_next(self) -> None:
        """The next step; a person's action of the abort; or the window's end."""
        view = self._app.latest.window
        if view is None:
            return
        if (action := keys.persons_action(view)) is not None:
            self.sign_off_action(action)
        elif keys.may_close(view):
            question = closing(view.runbook.title, view.state.abort is not None)
            self._app.push_screen(question, lambda answer: self._close() if answer == "y" else None)
        elif (step := keys.next_step(view)) is not None:
            self._run_step(step)

    def do_step(self) -> None:
        """The step under the cursor."""
        if (step := self._app.situation().step) is not None:
            self._run_step(step)

    def _close(self) -> None:
        self._app.submit(CloseWindow(), "close the window")

    def _run_step(self, step: str) -> None:
        view = self._app.latest.window
        if view is None:
            return
        spec = view.runbook.step(step)
        if isinstance(spec, Manual):
            self._sign_off(step, spec.text)
        elif keys.is_signed_off(view, step):
            said = view.state.step(step).text
            self._sign_off(step, f"Nobody knows whether {step} took effect: {said}. Sign it off only if it did.")
        else:
            self._app.submit(RunStep(step), step)

    def _sign_off(self, step: str, text: str) -> None:
        def done(note: str | None) -> None:
            if note is not None:
                self._app.submit(SignOff(step, note), step)

        self._app.push_screen(sign_off(step, text), done)

    def do_backfill_toggle(self) -> None:
        """Starts, pauses or resumes."""
        self._app.submit(ToggleBackfill(), "backfill")

    def do_gentler(self) -> None:
        """A level down."""
        self._app.submit(ChangeSpeed(faster=False), "gentler")

    def do_faster(self) -> None:
        """A level up."""
        self._app.submit(ChangeSpeed(faster=True), "faster")

    def do_stop(self) -> None:
        """At once: what it does is little, and late is worse than wrong."""
        self._app.submit(StopOurs(), "stop our work")

    def do_abort(self) -> None:
        """Shows the way back."""
        if self._desk is not None:
            self._app.push_screen(AbortDialog(self._app.latest, self._desk.plan_abort))

    def begin_abort(self, digest: str, confirmation: str) -> None:
        """The database's name was typed under the plan with this digest."""
        self._app.submit(Abort(digest, confirmation), "abort")

    def look_at(self, pid: int) -> None:
        """A look at the session *pid*, to cancel it."""
        rows = self._app.latest.snapshot.activity.rows
        self._confirm_signal(next((row for row in rows if row.pid == pid), None), terminate=False)

    def sign_off_action(self, action: ActionState) -> None:
        """A person's action of the abort is done."""
        self._sign_off(str(action.body.get("step")), str(action.body.get("title")))

    def do_note(self) -> None:
        """A line for the journal."""

        def done(text: str | None) -> None:
            if text is not None:
                self._app.submit(Note(text), "note")

        self._app.push_screen(journal_note(), done)

    def do_cancel(self) -> None:
        """A look at the session first."""
        self._confirm_signal(self._app.board.front.session, terminate=False)

    def do_terminate(self) -> None:
        """A look at the session first."""
        self._confirm_signal(self._app.board.front.session, terminate=True)

    def _confirm_signal(self, session: Activity | None, *, terminate: bool) -> None:
        def confirmed(signal: Signal | None) -> None:
            if signal is not None:
                self._app.submit(signal, "terminate" if signal.terminate else "cancel")

        if session is not None:
            self._app.push_screen(SignalDialog(session, self._app.latest, terminate=terminate), confirmed)
