"""Dialogs that ask for the database's name: past a point of no return, and for a second person's word."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Input

from dbwatch import text
from dbwatch.journal.fold import Proposal
from dbwatch.tui.allowed import own_proposal, proposed, short
from dbwatch.tui.clocks import since
from dbwatch.tui.dialogs.dialog import Dialog, labelled
from dbwatch.tui.panes.plan import Spec, about
from dbwatch.tui.say import BAD, WARN
from dbwatch.window.feed import Frame, WindowView


@dataclass(frozen=True, slots=True)
class Word:
    """What a person said to a question that the database's name answers."""

    name: str
    """The database's name as they typed it; empty: they decline."""


class NameDialog(Dialog[Word]):
    """Asks for the name of the database at stake: a moment's thought, and proof that it is the right one."""

    placeholder = ""
    prompt = "Type the database's name to go on:"

    def __init__(self, database: str) -> None:
        super().__init__()
        self.database = database
        self.wrong = ""

    def on_input_changed(self, event: Input.Changed) -> None:
        """What was wrong is being mended. (Emptying the field after a wrong name mends nothing.)"""
        if event.value and self.wrong:
            self.wrong = ""
            self._ask()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Goes on, if it is the name."""
        event.stop()
        typed = event.value.strip()
        if not typed or event.input.disabled:
            return
        if typed == self.database:
            self.dismiss(Word(typed))
            return
        self.wrong = f"{typed} is not the name of this database ({self.database}); nothing was done"
        event.input.clear()
        self._ask()

    def _ask(self) -> None:
        wrong = (f"\n✗ {self.wrong}", f"bold {BAD}") if self.wrong else ""
        self.prompt_line.show(Content.assemble(self.prompt, wrong))


class NoReturn(NameDialog):
    """The question before a step that no abort can take back whole."""

    def __init__(self, spec: Spec, why: str, view: WindowView) -> None:
        self.heading = f"▲ Past {spec.id} there is no whole way back"
        super().__init__(view.state.database)
        estimate = view.rollback.estimate_s
        takes = "" if estimate is None else f", in about {text.clock(estimate)}"
        self._rows = [
            ("step", f"{spec.id}: {about(spec)}"),
            ("why", reason_in(why)),
            ("till now", f"A takes everything back{takes}" if view.rollback.reversible else "A tells what it can do"),
            ("after it", "A takes back only what can still be taken back; for the rest there is the backup"),
            *([("then", "a second person is asked to confirm it, before it begins")] if spec.confirm else []),
        ]
        self.offer([("Enter", "begins it"), ("Esc", "leave it, nothing happens")])

    def on_mount(self) -> None:
        super().on_mount()
        self.body.show(labelled(self._rows, self.room, strong="why"))


class CloseAsItIs(NameDialog):
    """The question before a window is closed whose way back stopped before its end."""

    heading = "▲ The way back did not reach its end"
    prompt = "Type the database's name to close the window as it is:"

    def __init__(self, why: str, view: WindowView) -> None:
        super().__init__(view.state.database)
        self._rows = [
            ("why", reason_in(why)),
            ("better", "Esc, then A: it goes on from here"),
            ("closed", "nothing more is taken back; rollback.sql and rollback.md stay, for a person"),
        ]
        self.offer([("Enter", "closes it"), ("Esc", "leave it open, nothing happens")])

    def on_mount(self) -> None:
        super().on_mount()
        self.body.show(labelled(self._rows, self.room, strong="why"))


def reason_in(answer: str) -> str:
    """The reason in the parentheses of the driver's answer; the heading says the rest. Else the whole answer."""
    found = re.search(r"\((.*)\)", answer)
    return found[1] if found else answer


class ConfirmDialog(NameDialog):
    """A second person's word for the step that the driver proposes; F4 says no."""

    prompt = "Type the database's name to confirm it:"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("f4", "decline", "Say no", show=False, priority=True)]

    def __init__(self, proposal: Proposal, view: WindowView) -> None:
        self.heading = f"Confirm {proposal.step}: you are the second person"
        super().__init__(view.state.database)
        self._proposal, self._view = proposal, view

    def on_mount(self) -> None:
        super().on_mount()
        self._draw()

    def view(self, frame: Frame, now: float) -> None:
        if frame.window is not None:
            self._view = frame.window
            self._draw()

    @property
    def open(self) -> bool:
        """Whether the proposal still waits for this person."""
        waiting = proposed(self._view)
        return waiting is not None and waiting.seq == self._proposal.seq and not self._view.driving

    def _draw(self) -> None:
        proposal, view = self._proposal, self._view
        spec = view.runbook.step(proposal.step)
        rows = [
            ("step", f"{proposal.step} ({spec.kind})"),
            ("does", about(spec)),
            ("why", proposal.why),
            ("asked by", f"{proposal.actor}, {text.age(since(view, proposal.at))} ago"),
            *([("note", proposal.note)] if proposal.note else []),
            ("database", self.database),
            *([("way back", f"{spec.rollback} (a person does it)")] if spec.rollback else []),
        ]
        said = labelled(rows, self.room, strong="does")
        own = own_proposal(proposal, view)
        keys = [("Enter", "confirms it"), ("F4", "declines, with a reason")]
        if not self.open:
            said = Content.assemble(said, (f"\n✓ {became(proposal, view)}", "bold"))
            keys = []
        elif own:
            who = short(view.actor)
            said = Content.assemble(said, (f"\n▲ {who} proposed it: somebody else has to confirm it.", f"bold {WARN}"))
            keys = keys[1:]
        may_type = self.open and not own
        if self.field is not None:
            self.field.display = self.prompt_line.display = may_type
            self.field.disabled = not may_type
        self.body.show(said)
        self.offer([*keys, ("Esc", "answer later" if self.open else "back")])

    def action_decline(self) -> None:
        """Says no; the reason is asked for next."""
        if self.open:
            self.dismiss(Word(""))


def became(proposal: Proposal, view: WindowView) -> str:
    """What became of a proposal that waits no longer."""
    now = view.state.proposal
    if now is not None and now.seq == proposal.seq and now.confirmed_by:
        return f"{short(now.confirmed_by)} has confirmed it."
    return "It is not proposed any more; the journal tells what became of it."
