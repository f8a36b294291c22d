"""What all dialogs share: a heading, a body that scrolls, perhaps a field, and the keys that work here."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import ClassVar, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen

from dbwatch.tui.field import Field
from dbwatch.tui.say import FAINT, Say
from dbwatch.window.feed import Frame

Result = TypeVar("Result")
WIDTH = 92
"""Columns of the box, where there is room."""
LABEL = 9
"""Cells for the name of a fact."""


class Dialog(ModalScreen[Result]):
    """A modal box. Esc leaves it without a result; the app hands it every frame."""

    heading: str = ""
    placeholder: str | None = None
    """What the field asks for; None: there is no field."""
    prompt: str = ""
    """What stands above the field."""

    DEFAULT_CSS = """
    Dialog { align: center middle; }
    Dialog > Vertical {
        width: 92; max-width: 100%; height: auto; max-height: 100%;
        border: round $primary; background: $surface; padding: 0 1;
    }
    Dialog VerticalScroll { height: auto; scrollbar-size: 0 1; scrollbar-gutter: stable; }
    Dialog .heading { text-style: bold; height: auto; }
    Dialog Input, Dialog Input:focus { border: none; height: 1; padding: 0; background: $boost; }
    Dialog .keys { height: auto; margin-top: 1; }
    Dialog .prompt { height: auto; margin-top: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Back", show=False),
        Binding("up", "scroll(-1)", "Up", show=False),
        Binding("down", "scroll(1)", "Down", show=False),
        Binding("pageup", "scroll(-10)", "Page up", show=False),
        Binding("pagedown", "scroll(10)", "Page down", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.title_line = Say(Content(self.heading), grows=True)
        self.body = Say(grows=True)
        self.scroller = VerticalScroll(can_focus=False)
        self.prompt_line = Say(Content(self.prompt), grows=True)
        self.keys = Say(grows=True)
        self.field = None if self.placeholder is None else Field(placeholder=self.placeholder)

    def compose(self) -> ComposeResult:
        with Vertical():
            yield self.title_line.add_class("heading")
            with self.scroller:
                yield self.body
            if self.field is not None:
                if self.prompt:
                    yield self.prompt_line.add_class("prompt")
                yield self.field
            yield self.keys.add_class("keys")

    @property
    def room(self) -> int:
        """How many cells a line of the body has: the box without its edges, padding and scroll bar."""
        return max(40, min(WIDTH, self.app.size.width) - 5)

    def offer(self, keys: Iterable[tuple[str, str]]) -> None:
        """Shows which keys do what here from now on."""
        self.keys.show(keys_line(keys))
        if self.is_mounted:
            self._make_room()

    def on_resize(self) -> None:
        """Another size gives the body another room."""
        self._make_room()

    def _make_room(self) -> None:
        """The body gives way before the keys do: it scrolls, they are always seen."""
        keys = self._height_of(self.keys.said)
        asks = self.field is not None and self.field.display
        asked = (1 + self._height_of(self.prompt_line.said) if self.prompt else 0) + 1 if asks else 0
        around = 2 + 1 + asked + 1 + keys
        self.scroller.styles.max_height = max(3, self.app.size.height - around)

    def _height_of(self, said: str) -> int:
        return sum(len(textwrap.wrap(line, self.room)) or 1 for line in said.split("\n"))

    def on_mount(self) -> None:
        """A slow line does not blink for its own sake."""
        if self.field is not None:
            self.field.cursor_blink = False
            self.field.focus()

    def view(self, frame: Frame, now: float) -> None:
        """Shows what the newest frame says, and how old it is at *now*; called about twice a second."""

    def action_leave(self) -> None:
        """Leaves without a result."""
        self.dismiss(None)

    def action_scroll(self, lines: int) -> None:
        """Scrolls the body."""
        self.scroller.scroll_relative(y=lines, animate=False)


def labelled(rows: Iterable[tuple[str, str]], width: int, strong: str = "") -> Content:
    """Facts with their names before them, in *width* cells: what is long goes on below itself, not below its name."""
    pieces: list[str | tuple[str, str]] = []
    for label, value in rows:
        lines = textwrap.wrap(value, max(20, width - LABEL)) or ["–"]
        pieces.append((f"{label:<{LABEL}}", FAINT))
        pieces.append((f"\n{'':<{LABEL}}".join(lines) + "\n", "bold" if label == strong else ""))
    return Content.assemble(*pieces)


def keys_line(keys: Iterable[tuple[str, str]]) -> Content:
    """`y cancel it   Esc back`: the keys bold, what they do plain."""
    pieces: list[str | tuple[str, str]] = []
    for key, word in keys:
        pieces += [("   " if pieces else ""), (key, "bold $accent"), " ", (word, FAINT)]
    return Content.assemble(*pieces)
