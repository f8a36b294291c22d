"""What all panes share: the rim that tells the age of the data, filter, sort, freeze, detail and export.

The app hands every frame to the pane in front (`view`), and ticks it between frames (`tick`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widget import Widget

from dbwatch.monitor.samples import Activity, Snapshot, Status, View
from dbwatch.text import age, one_line
from dbwatch.tui.columns import Column, Line
from dbwatch.tui.livetable import LiveTable
from dbwatch.tui.panes.age import Credit, credit
from dbwatch.tui.panes.rim import Rim
from dbwatch.window.feed import Frame

Value = str | int | float | bool | None
Record = Mapping[str, Value]
"""A row as it is exported: plain values under the names of the manual."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What the person at the screen wants to see of a table."""

    filter: str = ""
    """Only rows that contain this text, whatever its case."""
    sort: str = ""
    """One of the pane's sorts; empty: the first."""

    def matches(self, *texts: object) -> bool:
        """Whether one of *texts* contains the filter."""
        wanted = self.filter.casefold()
        return not wanted or any(wanted in str(text).casefold() for text in texts)


EVERYTHING = Choice()


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table to show: what a pane's pure function makes of a frame."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    empty: str = ""
    """Shown where there are no lines."""
    note: str = ""
    """For the left of the rim: `13 sessions, 2 wait`."""


def counted(number: int, one: str, many: str) -> str:
    """`1 session`, `1,312 sessions`."""
    return f"{number:,} {one if number == 1 else many}"


def why_empty(snapshot: Snapshot, views: Sequence[View[Any]], choice: Choice = EVERYTHING) -> str:
    """Why a table without lines says nothing about the server; empty where it does."""
    if choice.filter:
        return f"nothing here contains {choice.filter}"
    unsure = next((view for view in views if not view.rows and view.status is not Status.OK), None)
    if unsure is None:
        return ""
    if not snapshot.connected:
        return snapshot.trouble or "connecting"
    return f"{unsure.status}: {unsure.reason}" if unsure.reason else "not yet asked"


class Pane(Vertical):
    """A pane. A subclass says which views it shows, makes its body and draws a frame into it."""

    number: ClassVar[int]
    """The key that brings it to the front."""
    command: ClassVar[str]
    """Its name in the registry of keys."""
    title: ClassVar[str]
    can: ClassVar[frozenset[str]] = frozenset()
    """Of filter, sort, export, detail."""

    SCOPED_CSS = False  # whether the screen is narrow is said above the pane
    DEFAULT_CSS = """
    Pane { height: 1fr; width: 1fr; }
    Pane > .body { border-left: solid $border; border-right: solid $border; }
    .narrow Pane > .body { border: none; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.interval_s = 1.0
        """How often the server is polled; tells when the data is stale."""
        self._frame = Frame()
        self._latest = Frame()
        self._frozen_at: float | None = None
        self._note = ""
        self._rim = Rim()

    # For a subclass

    def body(self) -> Widget:
        """The widget between title and rim."""
        raise NotImplementedError

    def draw(self, frame: Frame) -> str:
        """Draws *frame* into the body; the answer is the note on the rim."""
        raise NotImplementedError

    def sources(self, frame: Frame) -> Sequence[View[Any]]:
        """The views that the pane shows: their age and status stand on the rim."""
        return ()

    def fade(self, stale: bool) -> None:
        """Dims what is shown, or no longer."""

    # For the app

    def compose(self) -> ComposeResult:
        yield self.body().add_class("body")
        yield self._rim

    def collect(self, frame: Frame) -> None:
        """Takes from every new frame what the pane will want to look back on, also while it is not in front."""

    def view(self, frame: Frame, now: float) -> None:
        """Shows *frame* at *now* (monotonic), unless the pane is frozen."""
        self._latest = frame
        if self._frozen_at is None:
            self._frame = frame
            self._note = self.draw(frame)
        self.tick(now)

    def tick(self, now: float) -> None:
        """Brings the age of the data up to date; call it once or twice a second, also without a new frame."""
        told = self.credit(now)
        self.fade(told.stale)
        if self._frozen_at is not None:
            told = replace(told, text=f"frozen {age(now - self._frozen_at)} · {told.text}", tone=told.tone or "warn")
        self._rim.show(self._note, told)

    def redraw(self) -> None:
        """Draws the same frame again: something else was chosen to be seen of it."""
        self._note = self.draw(self._frame)
        self._rim.show(self._note)

    def credit(self, now: float) -> Credit:
        """How far what is shown can be believed."""
        views = self.sources(self._frame)
        latest = self._latest.snapshot
        return credit(latest, views, now, self.interval_s) if views else Credit("")

    @property
    def frame(self) -> Frame:
        """The frame that is shown."""
        return self._frame

    @property
    def frozen(self) -> bool:
        """Whether the display stands still; collection goes on."""
        return self._frozen_at is not None

    def freeze(self, frozen: bool, now: float) -> None:
        """Lets the display stand still, or shows the newest frame again."""
        self._frozen_at = now if frozen else None
        self.view(self._latest, now)

    @property
    def filter(self) -> str:
        """The filter that is set; empty: none."""
        return ""

    def set_filter(self, text: str) -> None:
        """Shows only rows that contain *text*, whatever its case."""

    def next_sort(self) -> str:
        """Sorts by the next column that the pane can sort by; the answer names it."""
        return ""

    def export(self) -> list[Record]:
        """The rows as they are filtered and sorted now."""
        return []

    @property
    def cursor_key(self) -> Hashable | None:
        """What the line under the cursor is about."""
        return None

    @property
    def session(self) -> Activity | None:
        """The session under the cursor, for cancel and terminate; None where the line is about none."""
        return None

    def detail(self, key: Hashable | None = None) -> list[str]:
        """All about the line *key*, or about the one under the cursor: lines of plain text of any length."""
        return []


class TablePane(Pane):
    """A pane that is one LiveTable. A subclass gives the pure functions: `sheet`, `records`, `lines_about`."""

    sorts: ClassVar[tuple[str, ...]] = ()
    """What it can be sorted by, the usual first."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.choice = Choice()
        self.table = LiveTable()

    # For a subclass

    def sheet(self, frame: Frame, choice: Choice) -> Sheet:
        """The table."""
        raise NotImplementedError

    def records(self, frame: Frame, choice: Choice) -> list[Record]:
        """The same rows as plain values."""
        return []

    def lines_about(self, frame: Frame, key: Hashable) -> list[str]:
        """The detail of one row."""
        return []

    def session_of(self, frame: Frame, key: Hashable) -> Activity | None:
        """The session that the row *key* is about."""
        return None

    # As every pane

    def body(self) -> Widget:
        return self.table

    def draw(self, frame: Frame) -> str:
        sheet = self.sheet(frame, self.choice)
        empty = why_empty(frame.snapshot, self.sources(frame), self.choice) or sheet.empty
        self.table.show(sheet.lines, columns=sheet.columns, empty=empty)
        parts = [sheet.note]
        if self.choice.sort:
            parts.append(f"by {self.choice.sort}")
        if self.choice.filter:
            parts.append(f"/{self.choice.filter}")
        return " · ".join(part for part in parts if part)

    def fade(self, stale: bool) -> None:
        self.table.faded = stale

    @property
    def filter(self) -> str:
        return self.choice.filter

    def set_filter(self, text: str) -> None:
        self.choice = replace(self.choice, filter=one_line(text))
        self.redraw()

    def next_sort(self) -> str:
        if not self.sorts:
            return ""
        current = self.choice.sort or self.sorts[0]
        following = self.sorts[(self.sorts.index(current) + 1) % len(self.sorts)]
        self.choice = replace(self.choice, sort=following)
        self.redraw()
        return following

    def export(self) -> list[Record]:
        return self.records(self._frame, self.choice)

    @property
    def cursor_key(self) -> Hashable | None:
        return self.table.cursor_key

    @property
    def session(self) -> Activity | None:
        key = self.cursor_key
        return None if key is None else self.session_of(self._frame, key)

    def detail(self, key: Hashable | None = None) -> list[str]:
        key = self.cursor_key if key is None else key
        return [] if key is None else self.lines_about(self._frame, key)
