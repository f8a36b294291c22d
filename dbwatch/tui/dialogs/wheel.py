"""Taking the wheel: who drives, since when nothing was heard of them, what of theirs runs, and why it is taken."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Input

from dbwatch import text
from dbwatch.text import one_line
from dbwatch.tui.allowed import driver_of
from dbwatch.tui.dialogs.dialog import Dialog, labelled
from dbwatch.tui.say import BAD, WARN
from dbwatch.window.feed import Frame, WindowView


def heard_of(view: WindowView) -> str:
    """Whether the driver is alive, in words."""
    if view.silent_s is None:
        return "alive: its lease runs"
    return f"NOT heard of for {text.age(view.silent_s)}: its lease has run out"


def at_work(view: WindowView) -> str:
    """What of the driver's runs now, and what becomes of it."""
    if view.state.aborting:
        return "the abort: you go on with it where it stands"
    if (running := view.state.running) is not None:
        return f"{running.id}: its sessions are terminated, then it is found out how it ended"
    return "nothing"


class TakeOverDialog(Dialog[str]):
    """Asks why the wheel is taken. The result is the reason; empty where the driver was gone and nobody gave one."""

    heading = "Take the wheel"
    placeholder = ""
    prompt = "Why:"

    def __init__(self, view: WindowView) -> None:
        super().__init__()
        self._view = view
        self._wanting = False

    def on_mount(self) -> None:
        super().on_mount()
        self._draw()

    def view(self, frame: Frame, now: float) -> None:
        if frame.window is not None:
            self._view = frame.window
            self._draw()

    @property
    def _moot(self) -> str:
        if self._view.driving:
            return "You drive."
        return "" if self._view.state.open else "The window is closed."

    def _draw(self) -> None:
        view = self._view
        alive = view.silent_s is None
        rows = [
            ("driver", f"{view.state.driver or 'nobody'}, epoch {view.state.epoch}"),
            ("is", heard_of(view)),
            ("runs", at_work(view)),
            ("then", f"epoch {view.state.epoch + 1} is yours: nothing of {driver_of(view)}'s can commit any more"),
        ]
        said = labelled(rows, self.room, strong="is")
        if self._moot:
            said = Content.assemble(said, (f"\n✓ {self._moot}", "bold"))
        elif alive:
            warning = f"\n▲ {driver_of(view)} is at work there. Talk to them first, if you can."
            said = Content.assemble(said, (warning, f"bold {WARN}"))
        self.body.show(said)
        needed = f"Why (the journal keeps it; {'needed: the driver is alive' if alive else 'may be left empty'}):"
        wanting = ("\n✗ a few words are needed", f"bold {BAD}") if self._wanting and alive else ""
        self.prompt_line.show(Content.assemble(needed, wanting))
        if self.field is not None:
            self.field.display = self.prompt_line.display = not self._moot
            self.field.disabled = bool(self._moot)
        self.offer([*([] if self._moot else [("Enter", "takes the wheel")]), ("Esc", "back")])

    def on_input_changed(self, event: Input.Changed) -> None:
        """Words are coming."""
        if event.value and self._wanting:
            self._wanting = False
            self._draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Takes it, with a reason where one is needed."""
        event.stop()
        if self._moot:
            return
        reason = one_line(event.value).strip()
        if reason or self._view.silent_s is not None:
            self.dismiss(reason)
        else:
            self._wanting = True
            self._draw()
