"""The line in which a person types: a filter, a note, the database's name."""

from __future__ import annotations

from textual import events
from textual.widgets import Input

from dbwatch.text import one_line

LONGEST = 2_000


class Field(Input):
    """An Input that takes pasted text for what it is: foreign. A clipboard may hold control characters too."""

    def on_paste(self, event: events.Paste) -> None:
        """Puts the pasted text in the place of what is selected, in one line and with every character visible."""
        event.stop()
        event.prevent_default()
        self.replace(one_line(event.text, LONGEST), *self.selection)
