"""The backfill of a window: its plan before it runs, how it goes while it does, and the rows that it set aside."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from dbwatch.tui.allowed import begun
from dbwatch.tui.livetable import LiveTable
from dbwatch.tui.panes.aside import aside_sheet, heading, records, row_lines
from dbwatch.tui.panes.base import Pane, Record
from dbwatch.tui.panes.filling import progress_lines
from dbwatch.tui.panes.foretold import Ahead, before_lines, detail_lines, upcoming
from dbwatch.tui.say import FAINT, Say
from dbwatch.window.feed import Aside, AsideRow, Foretold, Frame, WindowView

DRAWN_EVERY_S = 0.25
"""While nothing but batches goes on: of a hundred a second a person sees no more, and a slow line would carry them."""
LIST_AGAIN_S = 5.0
"""How old the list of rows grows before it is read anew while one looks at it."""


def _is_past(view: WindowView) -> bool:
    """Whether the backfill that was at work is over, and another one is next."""
    following = upcoming(view)
    over = view.backfill is not None and view.backfill.state.ended
    return over and following is not None and following != view.backfill_step


def _only_batches(before: Frame, now: Frame) -> bool:
    """Whether nothing but further batches lies between the two."""
    if before.snapshot is not now.snapshot or before.window is None or now.window is None:
        return False
    then, progress = before.window.backfill, now.window.backfill
    if then is None or progress is None or before.window.state is not now.window.state:
        return False
    return (then.state, then.reason, then.checking) == (progress.state, progress.reason, progress.checking)


class Body(Vertical):
    """What the pane shows: lines, or a list of rows under a heading."""

    DEFAULT_CSS = """
    Body { height: 1fr; }
    Body > .lines { height: 1fr; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines = Say(focusable=True).add_class("lines")
        self.heading = Say()
        self.table = LiveTable()
        self.turn(listing=False)

    def compose(self) -> ComposeResult:
        yield self.lines
        yield self.heading
        yield self.table

    def turn(self, *, listing: bool) -> None:
        """Shows the one or the other, and lets only that have the keys."""
        self.lines.display = self.lines.can_focus = not listing
        self.heading.display = self.table.display = self.table.can_focus = listing


class BackfillPane(Pane):
    """The backfill of the window, or what it would be. What it does not know it asks for, and draws when it comes."""

    number = 7
    command = "backfill"
    title = "Backfill"
    can: ClassVar[frozenset[str]] = frozenset({"export", "detail"})

    @dataclass
    class PlanWanted(Message):
        """Somebody looks at the backfill *step*, and its plan is not known, or old."""

        step: str

    @dataclass
    class RowsWanted(Message):
        """Somebody looks at what the backfill *step* set aside, and that is not known, or old."""

        step: str

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._body = Body()
        self._now, self._drawn_at = 0.0, float("-inf")
        self._ahead: Ahead | None = None
        self._listing = False
        self._aside: Aside | None = None
        self._aside_trouble = ""
        self._aside_at: float | None = None
        self._asking_rows = False

    def body(self) -> Widget:
        return self._body

    def on_resize(self) -> None:
        """The bars grow with the pane."""
        self.redraw()

    def view(self, frame: Frame, now: float) -> None:
        self._now = now
        hurried = now - self._drawn_at < DRAWN_EVERY_S and not self._listing
        if not (hurried and _only_batches(self._frame, frame)):
            self._drawn_at = now
            super().view(frame, now)

    def draw(self, frame: Frame) -> str:
        view = frame.window
        if view is None:
            self._say([Content(" No window is open here.")])
            return ""
        if self._listing:
            return self._draw_rows(view)
        if view.backfill is not None and not _is_past(view):
            lines = progress_lines(view.backfill, self._room, self._height, driving=view.driving)
        else:
            self._want_plan(upcoming(view))
            lines = before_lines(view, self._room, self._ahead, self._now)
        self._say(lines)
        return view.backfill_step

    def _say(self, lines: list[Content]) -> None:
        room = self._height
        if room and len(lines) > room:
            lines = [*lines[: room - 1], Content.styled(" … d shows all of it", FAINT)]
        self._body.lines.show(Content("\n").join(lines))

    @property
    def _room(self) -> int:
        return max(40, self.size.width - 2)

    @property
    def _height(self) -> int:
        return max(0, self.size.height - 1)

    # The plan

    def _want_plan(self, step: str | None) -> None:
        known = self._ahead
        if step is None or not self.is_mounted or self.frozen:
            return
        if known is not None and known.step == step and (known.asking or not known.stale(self._now)):
            return
        same = known if known is not None and known.step == step else None
        self._ahead = replace(same, asking=True) if same is not None else Ahead(step, self._now)
        self.app.post_message(self.PlanWanted(step))  # no bubbling: it ends below whoever happened to draw

    def take_plan(self, step: str, found: Foretold | None, trouble: str = "") -> None:
        """The plan that was asked for, or why there is none; an older one stays, with its age and the trouble."""
        known = self._ahead
        if known is None or known.step != step:
            return
        if found is None:
            at = self._now if known.foretold is None else known.at
            self._ahead = replace(known, at=at, trouble=trouble, asking=False)
        else:
            self._ahead = Ahead(step, self._now, found, asking=False)
        self.redraw()

    # The rows that were set aside

    @property
    def listing(self) -> bool:
        """Whether the rows that were set aside are shown."""
        return self._listing

    @property
    def aside(self) -> Aside | None:
        """What is set aside, as it was read last."""
        return self._aside

    @property
    def row(self) -> AsideRow | None:
        """The row under the cursor; None where there is none, or the list is not shown."""
        if not self._listing or self._aside is None:
            return None
        key = self._body.table.cursor_key
        return next((row for row in self._aside.rows if row.key == key), None)

    def turn(self) -> None:
        """Shows the rows that were set aside, or the backfill again."""
        self._listing = not self._listing
        self._body.turn(listing=self._listing)
        self.look_again()
        (self._body.table if self._listing else self._body.lines).focus()
        self.redraw()

    def look_again(self) -> None:
        """The rows may be others now: they are read anew."""
        self._aside_at = None

    def _draw_rows(self, view: WindowView) -> str:
        step = begun(view)
        if self._aside is not None and self._aside.step != step:
            self._aside = None
        old = self._aside_at is None or self._now - self._aside_at > LIST_AGAIN_S
        if step is not None and old and not self._asking_rows and self.is_mounted and not self.frozen:
            self._asking_rows = True
            self.app.post_message(self.RowsWanted(step))
        sheet = aside_sheet(self._aside, self._aside_trouble)
        told = f" {step or 'no backfill'}: {heading(self._aside) if self._aside is not None else 'asking …'}"
        trouble = f"   ✗ {self._aside_trouble}" if self._aside_trouble else ""
        self._body.heading.show(Content.assemble(told, (trouble, "bold")))
        self._body.table.show(sheet.lines, columns=sheet.columns, empty=sheet.empty)
        return sheet.note

    def take_rows(self, step: str, found: Aside | None, trouble: str = "") -> None:
        """The rows that were asked for, or why they are not to be had; those that were read last stay then."""
        self._asking_rows = False
        self._aside_at, self._aside_trouble = self._now, trouble
        self._aside = found if found is not None else self._aside
        if self._listing:
            self.redraw()

    # As every pane

    def fade(self, stale: bool) -> None:
        self._body.table.faded = stale or bool(self._aside_trouble)

    @property
    def cursor_key(self) -> Hashable | None:
        row = self.row
        return None if row is None else row.key

    def detail(self, key: Hashable | None = None) -> list[str]:
        if self._listing:
            wanted = self.cursor_key if key is None else key
            found = self._aside
            row = next((row for row in found.rows if row.key == wanted), None) if found is not None else None
            return row_lines(row, found) if row is not None and found is not None else []
        view = self._frame.window
        step = None if view is None else upcoming(view) or begun(view)
        if step is None:
            return []
        self._want_plan(step)
        return detail_lines(self._ahead, self._now)

    def export(self) -> list[Record]:
        if self._listing:
            return records(self._aside)
        view = self._frame.window
        progress = view.backfill if view is not None else None
        if progress is None:
            return []
        return [{"batch": number, "ms": ms} for number, ms in enumerate(progress.history, 1)]
