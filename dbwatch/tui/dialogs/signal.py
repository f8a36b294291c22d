"""The look at a session before it is cancelled or terminated: live, so that nobody shoots at what has moved on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from textual import events
from textual.content import Content

from dbwatch import text
from dbwatch.monitor.lockqueue import queues_of
from dbwatch.monitor.samples import Activity, Snapshot, Status
from dbwatch.tui.dialogs.dialog import Dialog, labelled
from dbwatch.tui.panes.age import credit
from dbwatch.tui.panes.base import counted
from dbwatch.tui.panes.sessions import broken
from dbwatch.tui.say import BAD, WARN
from dbwatch.window.feed import Frame
from dbwatch.window.intents import Signal

OLD_S = 2.0
"""From this age on, counted back from the newest poll, the locks are told to be old: they were not read with it."""


class Target(StrEnum):
    """What has become of the session since it was shown."""

    SAME = "same"
    MOVED = "moved"
    """It runs another query now."""
    GONE = "gone"
    UNSEEN = "unseen"
    """The data is not the present: nobody knows."""


def find(snapshot: Snapshot, shown: Activity) -> Activity | None:
    """The same session in *snapshot*: pid and start, since a pid alone is used again."""
    return next((row for row in snapshot.activity.rows if row.key == shown.key), None)


def target_now(snapshot: Snapshot, shown: Activity) -> Target:
    """What has become of *shown*."""
    if not snapshot.connected or snapshot.activity.status is Status.ERROR:
        return Target.UNSEEN
    row = find(snapshot, shown)
    if row is None:
        return Target.GONE
    return Target.SAME if (row.query_start, row.query) == (shown.query_start, shown.query) else Target.MOVED


def _since(at: datetime | None, then: datetime | None) -> str:
    return "" if at is None or then is None else text.age((at - then).total_seconds())


@dataclass(frozen=True, slots=True)
class Held:
    """A session's locks, in words."""

    holds: str
    wants: str
    waiting: int
    """Sessions that wait for it, directly or behind others."""


def locks_of(snapshot: Snapshot, pid: int, most: int = 4) -> Held:
    """What *pid* holds and waits for; virtual transaction ids are left out, every session holds its own."""
    mine = [row for row in snapshot.locks.rows if row.pid == pid and row.locktype != "virtualxid"]
    holds = [f"{row.mode.removesuffix('Lock')} on {row.target}" for row in mine if row.granted]
    wants = [f"{row.mode.removesuffix('Lock')} on {row.target}" for row in mine if not row.granted]
    leader = next((row.leader_pid or pid for row in snapshot.activity.rows if row.pid == pid), pid)
    behind = queues_of(snapshot).victims().get(leader, 0).bit_count()
    more = f" and {len(holds) - most} more" if len(holds) > most else ""
    return Held(", ".join(holds[:most]) + more, ", ".join(wants), behind)


def doubt(snapshot: Snapshot) -> str:
    """Why the locks are not to be believed as they stand; empty where they were read with the newest poll."""
    told = credit(snapshot, (snapshot.locks,), snapshot.taken)
    old = snapshot.taken - snapshot.locks.taken
    return told.text if told.tone else f"{text.age(old)} old" if old > OLD_S else ""


def session_text(session: Activity, snapshot: Snapshot, width: int) -> Content:
    """The session as it is now, in lines of *width* cells, with its whole query."""
    at, held = snapshot.activity.at, locks_of(snapshot, session.pid)
    wait = f"{session.wait_event_type} {session.wait_event}".strip()
    rows = [
        ("session", f"{session.pid}, connected since {_stamp(session.backend_start)}"),
        ("who", f"{session.usename} on {session.datname}, {session.application_name or 'no application_name'}"),
        ("from", session.client),
        ("state", f"{session.state or session.backend_type}{', waits on ' + wait if wait else ''}"),
        ("age", f"query {_since(at, session.query_start) or '–'}, transaction {_since(at, session.xact_start) or '–'}"),
        ("holds", held.holds or "no lock that we can see"),
        *([("wants", held.wants)] if held.wants else []),
        *([("blocks", f"{counted(held.waiting, 'session', 'sessions')}, directly or not")] if held.waiting else []),
        *([("locks", f"▲ {why}")] if (why := doubt(snapshot)) else []),
    ]
    query = "hidden from our role" if session.hidden else "\n".join(broken(session.query)) or "no query yet"
    return Content.assemble(labelled(rows, width), "\n", (query, "bold"))


def _stamp(at: datetime | None) -> str:
    return "?" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"


class SignalDialog(Dialog[Signal]):
    """Shows the session again; the result is the signal to send, which `y` alone sends."""

    def __init__(self, session: Activity, frame: Frame, *, terminate: bool) -> None:
        super().__init__()
        self._terminate = terminate
        self._shown = session
        self._own = session.pid in frame.snapshot.own_pids
        self._frame = frame
        self.state = Target.SAME

    def on_mount(self) -> None:
        """The first look."""
        super().on_mount()
        self._draw()

    def view(self, frame: Frame, now: float) -> None:
        self._frame = frame
        self._draw()

    def _draw(self) -> None:
        snapshot = self._frame.snapshot
        self.state = target_now(snapshot, self._shown)
        row = find(snapshot, self._shown)
        said = session_text(row or self._shown, snapshot, self.room)
        if self._own:
            said = Content.assemble(said, ("\n\n◆ This is one of dbwatch's own sessions.", WARN))
        idle = (row or self._shown).state.startswith("idle") and not self._terminate
        if idle and self.state is not Target.GONE:
            said = Content.assemble(said, ("\n\n▲ It runs no query: a cancel does nothing to it.", f"bold {WARN}"))
        verb = "terminate it, which rolls its transaction back"
        verb = verb if self._terminate else "cancel its query: the session stays"
        self.title_line.show(Content("Terminate this session?" if self._terminate else "Cancel this session's query?"))
        back = ("Esc", "leave it alone")
        match self.state:
            case Target.SAME:
                keys = [("y", verb), back]
            case Target.MOVED:
                said = Content.assemble(said, ("\n\n▲ Its query changed while you looked at it.", f"bold {WARN}"))
                keys = [("r", "I have seen the new one"), back]
            case Target.GONE:
                said = Content.assemble(said, ("\n\n✓ The session is gone; there is nothing left to do.", "bold"))
                keys = [("Esc", "back")]
            case Target.UNSEEN:
                why = snapshot.activity.reason if snapshot.connected else snapshot.trouble or "connecting"
                said = Content.assemble(said, (f"\n\n◌ Not the present: {why}", f"bold {BAD}"))
                keys = [("y", f"{verb} (checked again there)"), back]
        if not self._terminate and self.state is not Target.GONE:
            keys.insert(-1, ("K", "terminate it instead"))
        self.body.show(said)
        self.offer(keys)

    def key_y(self) -> None:
        """Sends the signal, unless what it was meant for has changed or gone."""
        if self.state in (Target.SAME, Target.UNSEEN):
            shown = self._shown
            who = shown.application_name or shown.usename
            signal = Signal(shown.pid, shown.backend_start, shown.query_start, who, shown.query, self._terminate)
            self.dismiss(signal)

    def on_key(self, event: events.Key) -> None:
        """`K` asks the harder question instead; it is not yet the answer to it."""
        if event.key == "K" and not self._terminate:
            event.stop()
            self._terminate = True
            self._draw()

    def key_r(self) -> None:
        """Takes the query that runs now for the one that is meant."""
        row = find(self._frame.snapshot, self._shown)
        if self.state is Target.MOVED and row is not None:
            self._shown = row
            self._draw()
