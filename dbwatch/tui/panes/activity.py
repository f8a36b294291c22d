"""Activity: who is connected and what they do, the longest first; who blocks, who waits behind whom, what is ours."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar

from dbwatch import text
from dbwatch.monitor.locktree import LockNode, forest_of, walk
from dbwatch.monitor.samples import Activity, Snapshot, View
from dbwatch.tui.columns import Cell, Column, Line, Tone
from dbwatch.tui.panes import sessions
from dbwatch.tui.panes.base import EVERYTHING, Choice, Record, Sheet, TablePane, counted
from dbwatch.window.feed import Frame

COLUMNS = (
    Column("pid", 7, "right", priority=9),
    Column("age", 6, "right", priority=8),
    Column("wait", 12, priority=6),
    Column("who", 16, priority=7),
    Column("query", 6, "right", priority=4),
    Column("xmin", 5, "right", priority=1),
    Column("role", 10, priority=2),
    Column("db", 10, priority=3),
    Column("client", 15, priority=1),
    Column("what", None, priority=10, least=33),
)

Jam = Mapping[int, tuple[LockNode, int | None]]
"""Each session that blocks or waits: its place in the lock forest, and the pid that it stands behind."""


def jam(snapshot: Snapshot) -> Jam:
    """Who blocks and who waits in *snapshot*."""
    found: dict[int, tuple[LockNode, int | None]] = {}
    for node in walk(forest_of(snapshot)):
        found.setdefault(node.pid, (node, None))
        for child in node.children:
            found[child.pid] = (child, node.pid)
    return found


def remarks(node: LockNode, behind: int | None) -> tuple[str, ...]:
    """What a session is in the jam, fully and briefly: `← holds what 48213 wants`, `← waits behind 48213`."""
    if node.deadlock:
        return (f"← DEADLOCK with {behind or 'others'}", "← DEADLOCK")
    if node.granted:
        first = node.blocks[0] if node.blocks else "others"
        said = f"← holds what {first} wants"
        brief = (said, f"← blocks {node.victims:,}")
        return (f"{said}; {node.victims:,} wait", *brief) if node.victims > 1 else brief
    holder = behind or "somebody"
    if node.victims:
        return (f"← waits behind {holder}, {node.victims} behind it", f"← {holder} ▲{node.victims}")
    return (f"← waits behind {holder}", f"← {holder}")


_SORTS: Mapping[str, Callable[[Activity], tuple[Any, ...]]] = {
    "age": lambda s: (sessions.idle(s), _instant(s)),
    "wait": lambda s: (s.wait_event_type != "Lock", sessions.idle(s), s.wait_event_type, _instant(s)),
    "xmin": lambda s: (-(s.xmin_age or -1), _instant(s)),
    "who": lambda s: (s.application_name or s.usename, _instant(s)),
}


def _instant(session: Activity) -> float:
    begun = sessions.begun(session)
    return begun.timestamp() if begun else float("inf")


def kept(frame: Frame, choice: Choice) -> list[Activity]:
    """The sessions, filtered and sorted."""
    own = frame.snapshot.own_pids
    rows = [
        s
        for s in frame.snapshot.activity.rows
        if choice.matches(s.pid, sessions.who(s, own), s.usename, s.datname, s.client, s.state, s.wait_event, s.query)
    ]
    order = _SORTS[choice.sort or "age"]
    return sorted(rows, key=lambda s: (*order(s), s.pid))


def _tone(session: Activity, place: tuple[LockNode, int | None] | None, ours: bool) -> Tone:
    if place is not None and place[0].victims:
        return "holder"
    if place is not None:
        return "victim"
    if ours:
        return "own"
    return "dim" if sessions.idle(session) or session.hidden else ""


def _line(session: Activity, view: View[Activity], own: frozenset[int], jammed: Jam) -> Line:
    place = jammed.get(session.pid)
    ours = session.pid in own
    at = view.at
    hurried = session.state.startswith("idle in transaction")
    tails = remarks(*place) if place else ()
    return Line(
        session.key,
        (
            str(session.pid),
            text.age(sessions.seconds_since(sessions.begun(session), at)),
            sessions.waits(session),
            Cell(sessions.who(session, own), "own" if ours else ""),
            "" if sessions.idle(session) else text.age(sessions.seconds_since(session.query_start, at)),
            text.count(session.xmin_age),
            session.usename,
            session.datname,
            session.client,
            Cell(sessions.doing(session), "warn" if hurried and place is None else "", tails),
        ),
        _tone(session, place, ours),
    )


def sheet(frame: Frame, choice: Choice = EVERYTHING) -> Sheet:
    """The sessions of the server, working ones first, the longest at the top."""
    snapshot = frame.snapshot
    rows, jammed = kept(frame, choice), jam(snapshot)
    waiting = sum(not node.granted for node, _ in jammed.values())
    idle = sum(map(sessions.idle, rows))
    note = [counted(len(rows), "session", "sessions")]
    note += [f"{idle:,} idle"] if idle else []
    note += [f"{counted(waiting, 'waits', 'wait')} for a lock"] if waiting else []
    return Sheet(
        columns=COLUMNS,
        lines=tuple(_line(session, snapshot.activity, snapshot.own_pids, jammed) for session in rows),
        empty="nobody else is connected",
        note=" · ".join(note),
    )


def records(frame: Frame, choice: Choice = EVERYTHING) -> list[Record]:
    """The same sessions as plain values."""
    snapshot, jammed = frame.snapshot, jam(frame.snapshot)

    def more(pid: int) -> dict[str, int | None]:
        node, behind = jammed.get(pid, (None, None))
        return {"waits_behind": behind, "victims": node.victims if node else 0}

    return [sessions.record(s, snapshot.activity.at, snapshot.own_pids, more(s.pid)) for s in kept(frame, choice)]


def detail(frame: Frame, key: Hashable) -> list[str]:
    """All about one session: its place in the jam, its locks, its whole query."""
    snapshot = frame.snapshot
    session = session_of(frame, key)
    if session is None:
        return []
    by_pid = {s.pid: s for s in snapshot.activity.rows}
    node, behind = jam(snapshot).get(session.pid, (None, None))
    lines = sessions.described(session, snapshot.activity.at, snapshot.own_pids)
    told: list[str] = []
    if node is not None and behind is not None:
        told.append(f"waits behind {sessions.named(behind, by_pid, snapshot.activity.at)}")
    if node is not None:
        told += [f"in the way of {sessions.named(pid, by_pid, snapshot.activity.at)}" for pid in node.blocks]
    if node is not None and node.victims > len(node.blocks):
        told.append(f"{node.victims:,} wait behind it, directly or not")
    locks = sessions.locks_of(session.pid, snapshot.locks.rows)
    return [*lines, *([""] if told else []), *told, *([""] if locks else []), *locks]


def session_of(frame: Frame, key: Hashable) -> Activity | None:
    """The session that is identified by *key*, (pid, backend_start); None where it is gone."""
    return next((session for session in frame.snapshot.activity.rows if session.key == key), None)


class ActivityPane(TablePane):
    """The sessions of the server."""

    number = 2
    command = "activity"
    title = "Activity"
    can: ClassVar[frozenset[str]] = frozenset({"filter", "sort", "export", "detail"})
    sorts = tuple(_SORTS)

    def sources(self, frame: Frame) -> Sequence[View[Any]]:
        return (frame.snapshot.activity,)

    def sheet(self, frame: Frame, choice: Choice) -> Sheet:
        return sheet(frame, choice)

    def records(self, frame: Frame, choice: Choice) -> list[Record]:
        return records(frame, choice)

    def lines_about(self, frame: Frame, key: Hashable) -> list[str]:
        return detail(frame, key)

    def session_of(self, frame: Frame, key: Hashable) -> Activity | None:
        return session_of(frame, key)
