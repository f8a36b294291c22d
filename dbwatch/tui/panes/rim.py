"""The last line of a pane: what is chosen on the left, the age of the data on the right."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from dbwatch.tui.columns import Tone, clip
from dbwatch.tui.panes.age import Credit


class Rim(Widget):
    """The line; not Textual's border_subtitle, since setting that repaints the whole pane, twice a second."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"rim--warn", "rim--bad"}
    DEFAULT_CSS = """
    Rim { height: 1; width: 1fr; color: $border; }
    Rim > .rim--warn { color: $warning; }
    Rim > .rim--bad { color: $error; text-style: bold; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._note = ""
        self._credit = Credit("")

    @property
    def text(self) -> str:
        """What it says, without the line."""
        return f"{self._note} {self._credit.text}".strip()

    def show(self, note: str, told: Credit | None = None) -> None:
        """Says so from now on; *told* None: of the data, the same as before."""
        told = self._credit if told is None else told
        if (note, told) != (self._note, self._credit):
            self._note, self._credit = note, told
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """The line."""
        width, base = self.size.width, self.rich_style
        tone: Tone = self._credit.tone
        style = base + self.get_component_rich_style(f"rim--{tone}", partial=True) if tone else base
        corners = not self.screen.has_class("narrow")
        runs = rim(self._note, self._credit, width, corners=corners)
        return Strip([Segment(text, style if told else base) for text, told in runs])


def rim(note: str, told: Credit, width: int, *, corners: bool = True) -> list[tuple[str, bool]]:
    """The rim's line in *width* cells as runs of text, each with whether it is about the data's credit.

    Where there is not room for both, the credit is kept and the note gives way.
    """
    first, last = ("└", "┘") if corners else ("─", "─")
    right = clip(told.text, min(cell_len(told.text), max(0, width - 6))).rstrip()
    room = width - cell_len(right) - 8
    left = clip(note, min(cell_len(note), room)).rstrip() if room >= 8 else ""
    start = f"{first}─ {left} " if left else first
    end = f" ─{last}" if right else last
    line = "─" * max(0, width - cell_len(start) - cell_len(right) - len(end) - (1 if right else 0))
    runs = [(start + line + (" " if right else ""), False), (right, True), (end, False)]
    return [run for run in runs if run[0]]
