"""The main screen: two status lines, the panes, the last line, the keys. Side by side, or one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.reactive import Reactive
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input

from dbwatch.monitor.rates import Rates, rates
from dbwatch.monitor.samples import Snapshot
from dbwatch.tui.command import Situation
from dbwatch.tui.field import Field
from dbwatch.tui.footline import Said, keys_text, last_line
from dbwatch.tui.header import WIDE, server_line, window_line
from dbwatch.tui.keys import BY_NAME
from dbwatch.tui.panes.activity import ActivityPane
from dbwatch.tui.panes.backfill import BackfillPane
from dbwatch.tui.panes.base import Pane
from dbwatch.tui.panes.charts import ChartsPane
from dbwatch.tui.panes.indexes import IndexesPane
from dbwatch.tui.panes.journal import JournalPane
from dbwatch.tui.panes.locks import LocksPane
from dbwatch.tui.panes.plan import PlanPane
from dbwatch.tui.panes.statements import StatementsPane
from dbwatch.tui.say import Say
from dbwatch.tui.tabs import marks, narrow_tabs, plan_top, wide_tabs
from dbwatch.window.feed import Frame

PANES: tuple[type[Pane], ...] = (
    PlanPane, ActivityPane, LocksPane, StatementsPane, IndexesPane, BackfillPane, ChartsPane, JournalPane,
)  # fmt: skip
"""In the order of their keys."""
PLAN_WIDTH = 36
"""Columns that the Plan takes beside another pane."""
ROOMY = 30
"""Lines from which the last journal line and the answer to a person each have their own."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the board draws: the newest frame, the one on display, and when that was."""

    latest: Frame
    frame: Frame
    """The same as *latest*, unless the display is frozen."""
    now: float
    interval: float
    frozen_for: float | None = None
    said: Said | None = None
    """The last thing told to the person at this screen."""


class FilterLine(Field):
    """The field in which a filter is typed; the pane follows as one types."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "clear", "No filter", show=False)]

    def action_clear(self) -> None:
        """No filter."""
        self.value = ""
        self.post_message(Input.Submitted(self, ""))


class Board(Screen[None]):
    """The panes and what stands around them. It draws what it is told, and knows which pane is in front."""

    focused: Reactive[Widget | None] = Reactive(None, repaint=False)
    """As Screen's, which would paint the whole screen again whenever the keys go to another pane."""

    def __init__(self, shown: Shown) -> None:
        super().__init__()
        self._lines = [Say(id="window-line"), Say(id="server-line")]
        self._left, self._right_side = Vertical(id="left"), Vertical(id="right")
        self._narrow_tabs = Say(id="narrow-tabs")
        self._plan_top, self._wide_tabs = Say(id="plan-top"), Say(id="wide-tabs")
        self._journal_line, self._message_line, self._keys = (
            Say(id="journal-line"),
            Say(id="message-line"),
            Say(id="keys"),
        )
        self.filter_line = FilterLine(id="filter", placeholder="only rows with this text; Enter keeps it, Esc drops it")
        self.panes: dict[str, Pane] = {cls.command: cls(id=f"pane-{cls.command}") for cls in PANES}
        backfill = self.panes["backfill"]
        assert isinstance(backfill, BackfillPane)
        self.backfill = backfill
        self._right = "activity"
        self._in_front = ""
        self._shown = shown
        self._figures = Rates()
        self._polled: Snapshot | None = None

    def compose(self) -> ComposeResult:
        yield from self._lines
        yield self._narrow_tabs
        with Horizontal(id="middle"):
            with self._left:
                yield self._plan_top
                yield self.panes["plan"]
            with self._right_side:
                yield self._wide_tabs
                yield from (pane for name, pane in self.panes.items() if name != "plan")
        yield self.filter_line
        yield self._journal_line
        yield self._message_line
        yield self._keys

    def on_mount(self) -> None:
        """Everything is in its place before the first paint."""
        self.filter_line.display = False
        self.filter_line.cursor_blink = False
        self._take(self._shown)
        self.bring("plan" if self.narrow and self._shown.latest.window is not None else self._right)

    # Which pane

    @property
    def narrow(self) -> bool:
        """Whether there is room for one pane only."""
        return self.app.size.width < WIDE

    @property
    def front(self) -> Pane:
        """The pane that keys act on."""
        return self.panes[self._in_front or self._right]

    def bring(self, name: str) -> None:
        """Brings the pane *name* to the front and gives it the keys."""
        if name != "plan":
            self._right = name
        self._in_front = name
        self._arrange()
        target = self._focus_of(self.panes[name])
        if target is not None:
            target.focus()
        self.draw()

    @staticmethod
    def _focus_of(pane: Pane) -> Widget | None:
        return next((w for w in pane.walk_children(Widget) if w.can_focus), None)

    def open_filter(self) -> None:
        """Opens the field under the panes, with the filter of the pane in front."""
        self.filter_line.value = self.front.filter
        self.filter_line.display = True
        self.filter_line.focus()

    def close_filter(self) -> None:
        """Gives the keys back to the pane."""
        self.filter_line.display = False
        self.bring(self.front.command)

    def _arrange(self) -> None:
        """Shows the panes that the size has room for."""
        window = self._shown.latest.window is not None
        plan = window and (not self.narrow or self._in_front == "plan")
        self.set_class(self.narrow, "narrow")
        self._left.display = plan
        self._right_side.display = not (self.narrow and plan)
        for name, pane in self.panes.items():
            pane.display = plan if name == "plan" else name == self._right
        self._message_line.display = self.app.size.height >= ROOMY

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """Keys act on the pane in which the focus is."""
        pane = next((a for a in event.widget.ancestors_with_self if isinstance(a, Pane)), None)
        if pane is not None and pane.command != self._in_front:
            self._in_front = pane.command
            self.draw()

    def on_resize(self, _: events.Resize) -> None:
        """Fits what is shown to the new size."""
        self._arrange()
        self.draw()

    def situation(self, accepts: frozenset[type]) -> Situation:
        """What decides which commands can be given now."""
        pane, plan = self.front, self.panes["plan"]
        assert isinstance(plan, PlanPane)
        return Situation(
            window=self._shown.latest.window,
            accepts=accepts,
            pane=pane.command,
            can=pane.can,
            session=pane.session is not None,
            step=plan.step if pane is plan else None,
            aside=pane is self.backfill and self.backfill.row is not None,
        )

    # What is drawn

    def show(self, shown: Shown) -> None:
        """Draws this from now on."""
        before, self._shown = self._shown, shown
        if (before.latest.window is None) != (shown.latest.window is None):
            self._arrange()
        if before.latest is not shown.latest:
            self._take(shown)
        else:
            for pane in self._visible():
                pane.tick(shown.now)
        self._draw_lines()

    def _take(self, shown: Shown) -> None:
        """A new frame: every pane may remember it, the visible ones show it."""
        snapshot = shown.latest.snapshot
        if shown.frozen_for is None and (self._polled is None or self._polled.vitals.taken != snapshot.vitals.taken):
            self._figures = Rates() if self._polled is None else rates(self._polled, snapshot)
            self._polled = snapshot
        for pane in self.panes.values():
            pane.interval_s = shown.interval
            pane.collect(shown.latest)
        for pane in self._visible():
            pane.view(shown.latest, shown.now)

    def draw(self) -> None:
        """Draws the same again: another pane, another size."""
        for pane in self._visible():
            pane.view(self._shown.latest, self._shown.now)
        self._draw_lines()

    def freeze(self, frozen: bool, now: float) -> None:
        """Holds every pane still, or lets it go on."""
        for pane in self.panes.values():
            if frozen:
                pane.view(self._shown.latest, now)
            pane.freeze(frozen, now)

    def _visible(self) -> Sequence[Pane]:
        return [pane for pane in self.panes.values() if pane.display]

    def _draw_lines(self) -> None:
        shown = self._shown
        width, narrow = self.app.size.width, self.narrow
        self._lines[0].show(window_line(shown.latest, width))
        self._lines[1].show(
            server_line(
                shown.frame, self._figures, now=shown.now, interval=shown.interval, frozen_for=shown.frozen_for,
                width=width,
            )
        )  # fmt: skip
        here = self.situation(getattr(self.app, "accepts", frozenset()))
        tabs = [BY_NAME[name] for name in self.panes if BY_NAME[name].offered(here)]
        marked = marks(shown.frame)
        self._narrow_tabs.display = narrow
        if narrow:
            self._narrow_tabs.show(narrow_tabs(tabs, self.front.command, marked, width))
        else:
            self._plan_top.show(plan_top(self.front.command == "plan", PLAN_WIDTH))
            right = [tab for tab in tabs if tab.name != "plan"]
            self._wide_tabs.show(
                wide_tabs(right, self._right, self.front.command, marked, width - PLAN_WIDTH * self._left.display)
            )
        two = self._message_line.display
        self._journal_line.show(last_line(None if two else shown.said, shown.latest, shown.now, width))
        self._message_line.show(last_line(shown.said, None, shown.now, width))
        self._keys.show(keys_text(here, width))
