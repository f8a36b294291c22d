"""The journal: what happened in this window, newest last, one plain sentence per fact."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from dbwatch.journal import chain
from dbwatch.journal import events as ev
from dbwatch.journal.chain import Event
from dbwatch.journal.words import sentence
from dbwatch.text import one_line
from dbwatch.tui.allowed import short
from dbwatch.tui.columns import Cell, Column, Line, Tone
from dbwatch.tui.panes.base import Choice, Record, Sheet, TablePane
from dbwatch.window.feed import Frame, WindowView

COLUMNS = (
    Column("at", 8, priority=3),
    Column("who", 10, priority=2),
    Column("kind", 20, priority=0),
    Column("what", None, priority=9, least=58),
)


def tone(fact: ev.Fact) -> Tone:
    """How a line of the journal stands out."""
    match fact:
        case ev.StepFailed() | ev.StepUnknown() | ev.AbortActionFailed() | ev.JournalRewound() | ev.JournalBroken():
            return "bad"
        case ev.AbortFinished():
            return "good" if fact.equal else "bad"
        case ev.StepDone() | ev.AbortActionDone() | ev.ConfirmationGiven():
            return "good"
        case ev.AbortConfirmed() | ev.WorkStopped() | ev.SessionSignalled() | ev.DriverTook() | ev.ConfirmationAsked():
            return "warn"
        case ev.DdlSeen() | ev.AbortActionStarted():
            return "dim"
        case ev.WindowOpened() | ev.WindowClosed() | ev.Marked() | ev.Noted():
            return "strong"
        case _:
            return ""


def says(event: Event, view: WindowView) -> str:
    """What *event* says, in one line; an action of the abort is named, not only numbered."""
    actions = view.state.abort.actions if view.state.abort is not None else ()
    match event.fact:
        case ev.AbortActionStarted(number=number) if 0 < number <= len(actions):
            return one_line(f"abort {number} started: {actions[number - 1].body.get('title', '')}")
        case fact:
            return one_line(sentence(fact))


def event_line(event: Event, view: WindowView) -> Line:
    """An event as a line of the table."""
    who = short(event.actor)
    said = Cell(says(event, view), tone(event.fact))
    return Line(event.seq, (f"{event.at:%H:%M:%S}", who, chain.kind_of(event.fact), said))


def chosen(frame: Frame, choice: Choice) -> list[Event]:
    """The events that pass the filter: by text, kind or person."""
    if frame.window is None:
        return []
    return [
        event
        for event in frame.window.events
        if choice.matches(event.actor, chain.kind_of(event.fact), says(event, frame.window))
    ]


class JournalPane(TablePane):
    """The events. It follows the newest unless a person went up."""

    number = 9
    command = "journal"
    title = "Journal"
    can: ClassVar[frozenset[str]] = frozenset({"filter", "export", "detail"})

    def sheet(self, frame: Frame, choice: Choice) -> Sheet:
        view = frame.window
        if view is None:
            return Sheet(COLUMNS, (), "no window is open here")
        lines = tuple(event_line(event, view) for event in chosen(frame, choice))
        note = f"{len(lines)} events"
        if view.journal_trouble:
            note = f"✗ kept in the mirror only: {view.journal_trouble}"
        return Sheet(COLUMNS, lines, "nothing happened yet", note)

    def draw(self, frame: Frame) -> str:
        shown = self.table.lines
        following = not shown or self.table.cursor_key == shown[-1].key
        note = super().draw(frame)
        if following and self.table.lines:
            self.table.move_to(self.table.lines[-1].key)
        return note

    def records(self, frame: Frame, choice: Choice) -> list[Record]:
        return [
            {
                "seq": event.seq,
                "at": event.at.isoformat(),
                "actor": event.actor,
                "epoch": event.epoch,
                "kind": chain.kind_of(event.fact),
                "says": sentence(event.fact),
                "body": event.body,
                "hash": event.hash,
            }
            for event in chosen(frame, choice)
        ]

    def lines_about(self, frame: Frame, key: Hashable) -> list[str]:
        events = frame.window.events if frame.window is not None else ()
        event = next((e for e in events if e.seq == key), None)
        if event is None:
            return []
        return [
            f"event      {event.seq} {chain.kind_of(event.fact)}",
            f"at         {event.at:%Y-%m-%d %H:%M:%S.%f} server time",
            f"by         {event.actor}, epoch {event.epoch}",
            f"says       {sentence(event.fact)}",
            f"body       {event.body}",
            f"hash       {event.hash}",
        ]
