"""Charts: tps, the backfill's rate and waiting sessions over time, marked where steps began or a person said so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, ClassVar

from rich.segment import Segment
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from dbwatch.backfill.progress import State
from dbwatch.journal.chain import Event
from dbwatch.journal.events import Marked, StepStarted
from dbwatch.monitor.history import History, Point
from dbwatch.monitor.samples import View
from dbwatch.tui.chart import SMALLEST, Mark, Series, chart
from dbwatch.tui.columns import clip
from dbwatch.tui.panes.base import Pane, Record
from dbwatch.window.feed import Frame

SPAN_S = 300.0
"""Seconds across a chart."""
BROKEN_S = 10.0
"""Points further apart than that are not joined: nothing was measured between them."""

CHARTS = (("tps", "transactions/s"), ("backfill", "backfill rows/s"), ("waiting", "sessions that wait for a lock"))
"""The series in the order in which they are drawn, with their names; one that has no points is left out."""


def series(name: str, points: Iterable[Point], now: datetime, broken_s: float = BROKEN_S) -> Series:
    """The points that are not after *now*, with a gap wherever two are more than *broken_s* apart."""
    seen: list[tuple[float, float | None]] = []
    for at, value in points:
        x = (at - now).total_seconds()
        if x > 0:
            continue
        if seen and x - seen[-1][0] > broken_s:
            seen.append(((x + seen[-1][0]) / 2, None))
        seen.append((x, value))
    if seen and -seen[-1][0] > broken_s:
        seen.append((0.0, None))
    return Series(name, tuple(point for point in seen if point[0] >= -SPAN_S))


MARKED = "★"
"""Where a person marked a moment; a step's beginning has ▼."""
LONGEST = 24
"""Characters of a person's mark that stand in a chart; the Journal has them all."""


def marks_of(events: Iterable[Event], now: datetime) -> list[Mark]:
    """A mark for every step that began within the span, and for every moment that a person marked."""
    marks: list[Mark] = []
    for event in events:
        at_s = (event.at - now).total_seconds()
        if not -SPAN_S <= at_s <= 0:
            continue
        if isinstance(event.fact, StepStarted):
            marks.append(Mark(at_s, event.fact.step))
        elif isinstance(event.fact, Marked):
            marks.append(Mark(at_s, clip(event.fact.text, LONGEST).rstrip(), MARKED))
    return marks


def heights(charts: int, height: int) -> list[int]:
    """How many lines each of *charts* gets; those for which there is no room get none."""
    shown = max(1, min(charts, height // (SMALLEST[1] + 1)))
    each, more = divmod(height, shown)
    return [each + (number < more) for number in range(shown)]


class Picture(Widget):
    """Lines of text; only those that changed are painted."""

    DEFAULT_CSS = "Picture { height: 1fr; width: 1fr; }"

    class Resized(Message):
        """There is another amount of room; what is shown was made for the former one."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: tuple[str, ...] = ()

    def show(self, lines: Sequence[str]) -> None:
        """Shows these lines from now on."""
        before, self._lines = self._lines, tuple(lines)
        padded = [*before, *[""] * len(lines)]
        changed = [y for y in range(max(len(before), len(lines))) if [*lines, *[""] * len(before)][y] != padded[y]]
        if changed:
            self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    def on_resize(self) -> None:
        """Says so."""
        self.post_message(self.Resized())

    def render_line(self, y: int) -> Strip:
        """One line, cut or padded to the width."""
        width = self.size.width
        return Strip([Segment(clip(self._lines[y] if y < len(self._lines) else "", width), self.rich_style)], width)


class ChartsPane(Pane):
    """The charts. It remembers what it draws from every frame, also while another pane is in front."""

    number = 8
    command = "charts"
    title = "Charts"
    can: ClassVar[frozenset[str]] = frozenset({"export"})

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._history = History()
        self._picture = Picture()
        self._drawn: tuple[object, ...] = ()

    def collect(self, frame: Frame) -> None:
        self._history.add(frame.snapshot)
        backfill = frame.window.backfill if frame.window else None
        at = frame.snapshot.vitals.at
        if backfill is not None and at is not None and backfill.state in (State.RUNNING, State.THROTTLED, State.PAUSED):
            self._history.put("backfill", at, backfill.rows_per_s)

    def body(self) -> Widget:
        return self._picture

    def on_picture_resized(self) -> None:
        """Draws the charts for the new size."""
        self.redraw()

    def sources(self, frame: Frame) -> Sequence[View[Any]]:
        return (frame.snapshot.vitals,)

    def draw(self, frame: Frame) -> str:
        width, height = self._picture.size
        now = frame.snapshot.vitals.at
        if now is None or not width:
            self._picture.show(["  nothing measured yet"])
            return ""
        now = _last_dot(now, SPAN_S / (2 * width))
        charts = [(name, title) for name, title in CHARTS if self._history.series(name)] or [CHARTS[0]]
        events = frame.window.events if frame.window else ()
        state = (now, width, height, tuple(charts), len(events))
        if state != self._drawn:
            self._drawn = state
            marks, lines = marks_of(events, now), list[str]()
            for (name, title), lines_each in zip(charts, heights(len(charts), height), strict=False):
                drawn = chart(series(title, self._history.series(name), now), width, lines_each, marks, span_s=SPAN_S)
                lines += drawn.plain.split("\n")
            self._picture.show(lines)
        return f"▼ a step began   {MARKED} marked with M" if events else ""

    def export(self) -> list[Record]:
        return [
            {"series": name, "at": at.isoformat(), "value": value}
            for name, _ in CHARTS
            for at, value in self._history.series(name)
        ]


def _last_dot(now: datetime, dot_s: float) -> datetime:
    """*now* on the grid of the chart's dots: between two of them the picture stands still and nothing is painted."""
    return datetime.fromtimestamp(now.timestamp() // dot_s * dot_s, tz=now.tzinfo)
