"""Going on in spite of a health signal for a while: which one, and how long. The ones that matter now stand first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content

from dbwatch import text
from dbwatch.backfill.progress import BackfillProgress
from dbwatch.backfill.signals import PAUSING
from dbwatch.tui.dialogs.dialog import Dialog, labelled
from dbwatch.tui.panes.filling import why
from dbwatch.tui.say import FAINT, WARN
from dbwatch.window.feed import Frame
from dbwatch.window.intents import OverrideSignal

MEANS: Mapping[str, str] = {
    "blocked": "sessions that wait for our batch",
    "active": "sessions of others that work at once",
    "latency": "what the application's statements take",
    "lag": "how far a replica is behind",
    "slots": "WAL that a replication slot keeps",
    "wal": "how fast WAL is written",
    "checkpoints": "checkpoints that come before their time",
    "dead": "dead rows that wait for a vacuum",
    "xmin": "old snapshots that keep dead rows",
    "freeze": "the way to transaction wraparound",
    "deadlocks": "deadlocks in this database",
    "conflicts": "queries that replay cancelled on a standby",
    "connections": "connections that are taken",
    "identity": "whether it is still the same server",
}
"""What each signal looks at, for those who do not know its short name by heart."""
TIMES: Mapping[str, tuple[str, float]] = {
    "1": ("5 min", 300.0), "2": ("15 min", 900.0), "3": ("1 h", 3600.0), "4": ("4 h", 14_400.0),
}  # fmt: skip


def ranked(progress: BackfillProgress) -> tuple[str, ...]:
    """The signals, first what holds it back or slows it now, then those that are overridden already. Pure."""
    overridden = dict(progress.overridden)
    return tuple(sorted(PAUSING, key=lambda name: (name != progress.signal, name not in overridden)))


class OverrideDialog(Dialog[OverrideSignal]):
    """Chooses a signal and a time; a digit hands it in. What the signal protects is not protected meanwhile."""

    heading = "Go on in spite of a health signal"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "Up", show=False),
        Binding("down", "move(1)", "Down", show=False),
    ]

    def __init__(self, progress: BackfillProgress) -> None:
        super().__init__()
        self._progress: BackfillProgress | None = progress
        self._names = ranked(progress)
        self._chosen = self._names[0]

    def on_mount(self) -> None:
        super().on_mount()
        self._draw()

    def view(self, frame: Frame, now: float) -> None:
        """The order stays as it was when it was opened: nobody's finger hits another line."""
        self._progress = frame.window.backfill if frame.window is not None else None
        self._draw()

    @property
    def _over(self) -> bool:
        return self._progress is None or self._progress.state.ended

    def _draw(self) -> None:
        progress = self._progress
        if progress is None or progress.state.ended:
            self.body.show(Content("No backfill is running any more."))
            self.offer([("Esc", "back")])
            return
        overridden = dict(progress.overridden)
        lines: list[Content] = []
        for name in self._names:
            here = name == self._chosen
            pieces: list[str | tuple[str, str]] = [
                ("▶ " if here else "  ", "bold"), (f"{name:<12}", "bold" if here else ""), (MEANS[name], FAINT),
            ]  # fmt: skip
            if name == progress.signal:
                pieces.append(("   ◀ this one, now", f"bold {WARN}"))
            if name in overridden:
                pieces.append((f"   ▲ off for {text.age(overridden[name])} yet", WARN))
            lines.append(Content.assemble(*pieces))
        facts = labelled([("now", why(progress, driving=False)[0])], self.room)
        warning = "Whom it protects, nobody protects meanwhile. It ends with the time, or with the backfill."
        self.body.show(Content.assemble(facts, (f"{warning}\n\n", FAINT), Content("\n").join(lines)))
        back = [("0", "heed it again")] if self._chosen in overridden else []
        self.offer([*((key, word) for key, (word, _) in TIMES.items()), *back, ("↑ ↓", "choose"), ("Esc", "back")])

    def action_move(self, lines: int) -> None:
        """To the next signal, or the one before."""
        at = self._names.index(self._chosen) + lines
        self._chosen = self._names[max(0, min(len(self._names) - 1, at))]
        self._draw()
        self.scroller.scroll_to(y=max(0, at - 2), animate=False)

    def on_key(self, event: events.Key) -> None:
        """A digit says how long, and hands it in."""
        if self._over:
            return
        if event.key in TIMES:
            event.stop()
            self.dismiss(OverrideSignal(self._chosen, TIMES[event.key][1]))
        elif event.key == "0" and self._progress is not None and self._chosen in dict(self._progress.overridden):
            event.stop()
            self.dismiss(OverrideSignal(self._chosen, 0.0))
