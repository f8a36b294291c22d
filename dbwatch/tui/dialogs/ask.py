"""A question with a few answers, each under its own key."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.content import Content

from dbwatch.tui.dialogs.dialog import Dialog
from dbwatch.tui.say import FAINT
from dbwatch.window.feed import Aside, AsideRow


@dataclass(frozen=True, slots=True)
class Choice:
    """An answer."""

    key: str
    """Textual's name of the key, and what is shown of it."""
    word: str


class Ask(Dialog[str]):
    """Asks; the result is the key of the answer, None after Esc. Only the named keys answer, Enter never does."""

    def __init__(self, heading: str, body: Content, choices: tuple[Choice, ...], back: str = "back") -> None:
        self.heading = heading
        super().__init__()
        self._choices = choices
        self.body.show(body)
        self.offer([*((c.key, c.word) for c in choices), ("Esc", back)])

    def on_key(self, event: events.Key) -> None:
        """Answers with the key, if it is one of the answers."""
        if any(choice.key == event.key for choice in self._choices):
            event.stop()
            self.dismiss(event.key)


def leaving(busy: str) -> Ask:
    """The question before leaving while something of ours runs."""
    body = Content.assemble(
        (busy, "bold"),
        " is running.\n\nLeaving finishes or cancels what runs within a second and leaves the rest for later: "
        "a backfill ends with its batch and goes on from there; a migration's open statement is cancelled. "
        "The journal keeps where we stand, and starting again on the same runbook goes on from there.",
    )
    return Ask("Leave while something of ours runs?", body, (Choice("y", "leave"),), "stay")


def retrying(row: AsideRow, found: Aside) -> Ask:
    """The question before rows that were set aside are tried again."""
    body = Content.assemble(
        ("key       ", FAINT), (row.shown, "bold"), ("\nwhy       ", FAINT), f"{row.message} ({row.sqlstate})",
        "\n\nA row that is tried again is filled by the backfill's own SET and WHERE in a transaction of its own,"
        " counted, and taken out of the list; one that fails again stays, with its new reason.",
    )  # fmt: skip
    every = Choice("a", f"try all {found.total:,}")
    return Ask("Try it again?", body, (Choice("y", "try this row"), *([every] if found.total > 1 else [])))


def closing(title: str, undone: bool) -> Ask:
    """The question before a window is closed."""
    why = "It was taken back." if undone else "Every step is done."
    body = Content.assemble(why, " Closing ends the window ", (title, "bold"), ": after it nothing can be taken back.")
    return Ask("Close the window?", body, (Choice("y", "close it"),))
