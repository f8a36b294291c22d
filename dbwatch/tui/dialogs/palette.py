"""The command palette: the commands that can be given now, found by a few letters of what they do.

Not Textual's own: that one takes itself off the screen twice when keys come faster than it is drawn, which ends the
app; on a slow line they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Input

from dbwatch.tui.command import Command, Situation
from dbwatch.tui.dialogs.dialog import Dialog
from dbwatch.tui.keys import available
from dbwatch.tui.say import FAINT


def entries(situation: Situation) -> list[Command]:
    """What the palette offers."""
    return [command for command in available(situation) if command.name != "palette"]


def found(commands: Sequence[Command], query: str) -> list[Command]:
    """The commands in whose word or description every word of *query* stands; all of them for none."""
    words = query.casefold().split()
    return [c for c in commands if all(word in f"{c.word} {c.about}".casefold() for word in words)]


class Palette(Dialog[str]):
    """Asks for a command; the result is its name."""

    heading = "Commands"
    placeholder = "a few letters of what you want to do"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "Up", show=False),
        Binding("down", "move(1)", "Down", show=False),
    ]

    def __init__(self, situation: Situation) -> None:
        super().__init__()
        self._all = entries(situation)
        self._found, self._chosen = self._all, 0
        self.offer([("↑ ↓", "choose"), ("Enter", "does it"), ("Esc", "back")])
        self._draw()

    @property
    def chosen(self) -> Command | None:
        """The command that Enter would give."""
        return self._found[self._chosen] if self._found else None

    def _draw(self) -> None:
        lines = []
        for command in self._found:
            here = command is self.chosen
            line = Content.assemble(
                "▶ " if here else "  ",
                (f"{command.key:<6}", "bold $accent"),
                (f"{command.word:<11} ", "bold" if here else ""),
                (command.about, "" if here else FAINT),
            )
            lines.append(line)
        self.body.show(Content("\n").join(lines or [Content("  nothing that can be done now sounds like that")]))

    def on_input_changed(self, event: Input.Changed) -> None:
        """Shows what fits to the letters typed so far."""
        event.stop()
        self._found, self._chosen = found(self._all, event.value), 0
        self._draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Gives the command."""
        event.stop()
        if self.chosen is not None:
            self.dismiss(self.chosen.name)

    def action_move(self, lines: int) -> None:
        """Chooses another one, and keeps it in sight."""
        self._chosen = max(0, min(self._chosen + lines, len(self._found) - 1))
        self._draw()
        scroll = self.scroller
        if not scroll.scroll_y <= self._chosen < scroll.scroll_y + scroll.size.height:
            scroll.scroll_to(y=max(0, self._chosen - scroll.size.height // 2), animate=False)
