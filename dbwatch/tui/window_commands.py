"""What the keys of the window do: each shows first what it is about, and hands one intent in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dbwatch.backfill.progress import BackfillProgress
from dbwatch.errors import Refused
from dbwatch.journal.fold import ActionState, Proposal
from dbwatch.monitor.samples import Activity
from dbwatch.runbook.model import Manual
from dbwatch.text import one_line
from dbwatch.tui import allowed
from dbwatch.tui.dialogs.abort import AbortDialog
from dbwatch.tui.dialogs.ask import closing, retrying
from dbwatch.tui.dialogs.batch_time import BatchTimeDialog
from dbwatch.tui.dialogs.dialog import Dialog
from dbwatch.tui.dialogs.edited import EditedDialog
from dbwatch.tui.dialogs.naming import CloseAsItIs, ConfirmDialog, NoReturn, Word
from dbwatch.tui.dialogs.note import decline, journal_note, mark, sign_off
from dbwatch.tui.dialogs.override import OverrideDialog
from dbwatch.tui.dialogs.signal import SignalDialog
from dbwatch.tui.dialogs.unknown import TOOK, grounds, undecided
from dbwatch.tui.dialogs.wheel import TakeOverDialog
from dbwatch.window.feed import Desk, WindowView
from dbwatch.window.intents import (
    Abort,
    Amend,
    ChangeSpeed,
    CloseWindow,
    Confirm,
    Decide,
    Decline,
    Intent,
    Mark,
    Note,
    OverrideSignal,
    RetryRows,
    RunStep,
    SetBatchTime,
    Signal,
    SignOff,
    StopOurs,
    TakeOver,
)

if TYPE_CHECKING:
    from dbwatch.tui.app import DbwatchApp


class WindowCommands:
    """One method per command, called only where the registry refuses nothing; a desk is there then."""

    def __init__(self, app: DbwatchApp, desk: Desk | None) -> None:
        self._app, self._desk = app, desk

    # Steps

    def do_next(self) -> None:
        """The next step; a proposed one's confirmation; a person's action of the abort; or the window's end."""
        view = self._app.latest.window
        if view is None:
            return
        proposal = allowed.proposed(view)
        if not view.driving:
            if proposal is not None:
                self._confirm(proposal, view)
        elif (action := allowed.persons_action(view)) is not None:
            self.sign_off_action(action)
        elif allowed.may_close(view):
            question = closing(view.runbook.title, view.state.abort is not None)
            self._app.push_screen(question, lambda answer: self._close() if answer == "y" else None)
        elif (step := allowed.next_step(view)) is not None:
            self._begin(step, view)

    def do_step(self) -> None:
        """The step under the cursor."""
        view, step = self._app.latest.window, self._app.situation().step
        if view is None or step is None:
            return
        proposal = allowed.proposed(view)
        if not view.driving:
            if proposal is not None and proposal.step == step:
                self._confirm(proposal, view)
        else:
            self._begin(step, view)

    def _close(self) -> None:
        self._app.submit(CloseWindow(), "close the window")

    def _begin(self, step: str, view: WindowView) -> None:
        spec = view.runbook.step(step)
        if allowed.is_unknown(view, step):
            self._decide(step, view)
        elif isinstance(spec, Manual):
            self._sign_off(step, spec.text, second=spec.confirm is not None)
        else:
            self._app.submit(RunStep(step), step)

    def _sign_off(self, step: str, text: str, *, second: bool = False) -> None:
        def done(note: str | None) -> None:
            if note is not None:
                self._app.submit(SignOff(step, note), step)

        self._app.push_screen(sign_off(step, text, second=second), done)

    def _decide(self, step: str, view: WindowView) -> None:
        def looked(answer: str | None) -> None:
            if answer is not None:
                took_effect = answer == TOOK
                self._app.push_screen(grounds(step, took_effect), lambda note: decided(took_effect, note))

        def decided(took_effect: bool, note: str | None) -> None:
            if note is not None:
                self._app.submit(Decide(step, took_effect, note), f"decide {step}")

        self._app.push_screen(undecided(view, step), looked)

    def name_needed(self, intent: Intent, why: str) -> None:
        """*intent* was not taken for want of the database's name: asks for it, and hands the intent in again.

        Where another dialog is open, nobody's typing is caught: the answer is only told.
        """
        view = self._app.latest.window
        if view is None or isinstance(self._app.screen, Dialog):
            return
        if isinstance(intent, CloseWindow):

            def closed(word: Word | None) -> None:
                if word is not None:
                    self._app.submit(CloseWindow(word.name), "close the window")

            self._app.push_screen(CloseAsItIs(why, view), closed)
            return
        if not isinstance(intent, RunStep | SignOff):
            return
        step = intent.step or allowed.next_step(view)
        if step is None:
            return

        def named(word: Word | None) -> None:
            if word is not None:
                self._app.submit(replace(intent, step=step, confirmation=word.name), step)

        self._app.push_screen(NoReturn(view.runbook.step(step), why, view), named)

    # Two people

    def _confirm(self, proposal: Proposal, view: WindowView) -> None:
        def answered(word: Word | None) -> None:
            if word is None:
                return
            if word.name:
                self._app.submit(Confirm(proposal.seq, word.name), f"confirm {proposal.step}")
            else:
                self._app.push_screen(decline(proposal.step), declined)

        def declined(why: str | None) -> None:
            if why is not None:
                self._app.submit(Decline(proposal.seq, why), f"decline {proposal.step}")

        self._app.push_screen(ConfirmDialog(proposal, view), answered)

    def do_take(self) -> None:
        """Shows whose wheel it is, and asks why."""

        def taken(reason: str | None) -> None:
            if reason is not None:
                self._app.submit(TakeOver(reason), "take the wheel")

        if (view := self._app.latest.window) is not None:
            self._app.push_screen(TakeOverDialog(view), taken)

    def do_note(self) -> None:
        """A line for the journal."""

        def done(text: str | None) -> None:
            if text is not None:
                self._app.submit(Note(text), "note")

        self._app.push_screen(journal_note(), done)

    def do_mark(self) -> None:
        """A line for the journal that stands in the charts too."""

        def done(text: str | None) -> None:
            if text is not None:
                self._app.submit(Mark(text), "mark")

        self._app.push_screen(mark(), done)

    def do_amend(self) -> None:
        """What was edited in the runbook's file, to be taken."""

        def read(sha: str | None) -> None:
            if sha is not None:
                self._app.submit(Amend(sha), "the edited runbook")

        if (view := self._app.latest.window) is not None:
            self._app.push_screen(EditedDialog(view), read)

    # Our work while it runs, and the way back

    def do_backfill_toggle(self) -> None:
        """Starts, pauses or resumes, as the footer says."""
        view = self._app.situation().window
        wish = "" if view is None else allowed.backfill_wish(view)
        if not isinstance(wish, str):
            self._app.submit(wish, "backfill")

    def do_gentler(self) -> None:
        """A level down."""
        self._app.submit(ChangeSpeed(faster=False), "gentler")

    def do_faster(self) -> None:
        """A level up."""
        self._app.submit(ChangeSpeed(faster=True), "faster")

    def do_batch_time(self) -> None:
        """What it takes now, and what it should."""

        def chosen(seconds: float | None) -> None:
            if seconds is not None:
                self._app.submit(SetBatchTime(seconds), "batch time")

        if (progress := self._backfill) is not None:
            self._app.push_screen(BatchTimeDialog(progress), chosen)

    def do_override(self) -> None:
        """Which signal, and for how long."""

        def chosen(intent: OverrideSignal | None) -> None:
            if intent is not None:
                self._app.submit(intent, "override")

        if (progress := self._backfill) is not None:
            self._app.push_screen(OverrideDialog(progress), chosen)

    @property
    def _backfill(self) -> BackfillProgress | None:
        view = self._app.latest.window
        return view.backfill if view is not None else None

    def do_aside(self) -> None:
        """The rows that were set aside, or the backfill again."""
        self._app.board.backfill.turn()

    def do_retry(self) -> None:
        """A look at the row first."""
        pane = self._app.board.backfill
        row, found = pane.row, pane.aside
        if row is None or found is None:
            return

        def answered(answer: str | None) -> None:
            if answer is not None:
                self._app.submit(RetryRows(found.step, row.key if answer == "y" else None), "try again")

        self._app.push_screen(retrying(row, found), answered)

    async def bring_plan(self, step: str) -> None:
        """Has the backfill's plan made, for the pane that wants it."""
        pane = self._app.board.backfill
        try:
            pane.take_plan(step, await self._asked().plan_backfill(step))
        except Exception as error:  # noqa: BLE001 (the edge of a look: the pane says so, and asks again)
            pane.take_plan(step, None, _said(error))

    async def bring_rows(self, step: str) -> None:
        """Has the rows read that were set aside, for the pane that wants them."""
        pane = self._app.board.backfill
        try:
            pane.take_rows(step, await self._asked().rows_aside(step))
        except Exception as error:  # noqa: BLE001 (the edge of a look: the pane says so, and asks again)
            pane.take_rows(step, None, _said(error))

    def _asked(self) -> Desk:
        if self._desk is None:
            raise Refused("nobody is at this window who could tell")
        return self._desk

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

    def sign_off_action(self, action: ActionState) -> None:
        """A person's action of the abort is done."""
        self._sign_off(str(action.body.get("step")), str(action.body.get("title")))

    # Sessions

    def look_at(self, pid: int) -> None:
        """A look at the session *pid*, to cancel it."""
        rows = self._app.latest.snapshot.activity.rows
        session = next((row for row in rows if row.pid == pid), None)
        if session is None:
            self._app.say(f"session {pid} is gone")
        self._confirm_signal(session, terminate=False)

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


def _said(error: Exception) -> str:
    return one_line(str(error)) or type(error).__name__
