"""A line that a person writes: the note of a sign-off, or a note for the journal."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Input

from dbwatch.text import one_line
from dbwatch.tui.dialogs.dialog import Dialog
from dbwatch.tui.say import WARN


class NoteDialog(Dialog[str]):
    """Asks for one line. The result is never empty: two careless Enters sign nothing off."""

    placeholder = ""

    def __init__(self, heading: str, body: Content, prompt: str, does: str) -> None:
        self.heading, self.prompt = heading, prompt
        super().__init__()
        self._asks = Content(prompt)
        self.body.show(body)
        self.offer([("Enter", does), ("Esc", "back")])

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Hands the note back, if there is one."""
        event.stop()
        note = one_line(event.value).strip()
        if note:
            self.dismiss(note)
        else:
            self.prompt_line.show(Content.assemble(self._asks, (" (a few words are needed)", WARN)))


def sign_off(step: str, text: str, *, second: bool = False) -> NoteDialog:
    """For a step that a person does; *second* where another person has to confirm it."""
    then = " A second person is asked to confirm it." if second else ""
    body = Content.assemble((text, "bold"), f"\n\nSign it off once it is done; the note goes into the journal.{then}")
    return NoteDialog(f"Sign off {step}", body, "What was done, seen, or decided:", "signs it off")


def journal_note() -> NoteDialog:
    """For a line in the journal."""
    return NoteDialog("A note for the journal", Content("Everybody at this window reads it."), "Note:", "writes it")


def mark() -> NoteDialog:
    """For a mark in the charts."""
    body = Content("It stands in the charts beside the steps' beginnings, and in the journal.")
    return NoteDialog("Mark this moment", body, "What happened:", "marks it")


def decline(step: str) -> NoteDialog:
    """For a step that a second person does not confirm."""
    body = Content("The driver and the journal read it. Nothing begins.")
    return NoteDialog(f"Decline {step}", body, "Why not:", "declines it")
