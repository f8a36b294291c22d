"""A runbook that was edited while its window is open: the difference, and taking it."""

from __future__ import annotations

from collections.abc import Iterable

from textual.content import Content

from dbwatch.tui.dialogs.dialog import Dialog
from dbwatch.tui.say import BAD, FAINT, GOOD, WARN
from dbwatch.window.feed import Frame, WindowView

STYLES = (("+++", FAINT), ("---", FAINT), ("@@", FAINT), ("+", GOOD), ("-", BAD))
"""How a line of a unified diff is shown, by its beginning; its first character says the same."""


def diff_lines(difference: str) -> Iterable[tuple[str, str]]:
    """The difference line by line with its style."""
    for line in difference.splitlines():
        style = next((style for beginning, style in STYLES if line.startswith(beginning)), "")
        yield f"{line}\n", style


class EditedDialog(Dialog[str]):
    """Shows the difference; `y` takes it. The result is the sha of the text whose difference was read."""

    heading = "The runbook's file was edited"

    def __init__(self, view: WindowView) -> None:
        super().__init__()
        self._view = self._read = view

    def on_mount(self) -> None:
        super().on_mount()
        self._draw()

    def view(self, frame: Frame, now: float) -> None:
        if frame.window is not None:
            self._view = frame.window
            self._draw()

    @property
    def _changed(self) -> bool:
        return (self._view.edited, self._view.edited_sha) != (self._read.edited, self._read.edited_sha)

    def _draw(self) -> None:
        read = self._read
        pieces: list[Content | str | tuple[str, str]] = []
        keys: list[tuple[str, str]] = []
        if not read.edited_sha:
            pieces += [("✗ It cannot be taken as it is; this window goes by the runbook as it was.\n\n", f"bold {BAD}")]
        pieces += [*diff_lines(read.edited)]
        if self._changed:
            after = "It was edited again just now." if self._view.edited else "It is as this window goes by again."
            pieces.append((f"\n▲ {after}", f"bold {WARN}"))
            keys = [("r", "read the new difference")] if self._view.edited else []
        elif read.edited_sha and self._view.busy:
            pieces.append((f"\n▲ {self._view.busy} is running: it can be taken when that is over.", f"bold {WARN}"))
        elif read.edited_sha:
            keys = [("y", "take it: the window goes by it from now on")]
        self.body.show(Content.assemble(*pieces))
        self.offer([*keys, ("↑ ↓", "scroll"), ("Esc", "leave it: the window goes by the old one")])

    def key_y(self) -> None:
        """Takes what was read."""
        if self._read.edited_sha and not self._changed and not self._view.busy:
            self.dismiss(self._read.edited_sha)

    def key_r(self) -> None:
        """Reads what it is now."""
        if self._changed and self._view.edited:
            self._read = self._view
            self._draw()
