"""Locks: a forest. The root of a tree is the one to end; below it the waiting DDL, and everyone behind that."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

from rich.cells import cell_len

from dbwatch import text
from dbwatch.monitor.lockmodes import short
from dbwatch.monitor.locktree import LockNode, forest_of, walk
from dbwatch.monitor.samples import Activity, View
from dbwatch.tui.columns import Cell, Column, Line, Tone
from dbwatch.tui.panes import activity, sessions
from dbwatch.tui.panes.base import EVERYTHING, Choice, Record, Sheet, TablePane, counted
from dbwatch.window.feed import Frame

DEEPEST = 6
"""Deeper branches are not indented any further."""


def key_of(node: LockNode) -> Hashable:
    """What identifies a line: the session's identity, or the name of a prepared transaction."""
    return (node.pid, node.backend_start) if node.pid else ("prepared", node.what)


def branches(trees: Sequence[LockNode]) -> Iterator[tuple[LockNode, str]]:
    """Every node with what is drawn before its pid: `▼ ` at a root, `├ ` and `└ ` below."""
    todo = [(root, "▼ ", "  ") for root in reversed(trees)]
    while todo:
        node, mark, base = todo.pop()
        yield node, mark
        for number, child in reversed(list(enumerate(node.children, 1))):
            last = number == len(node.children)
            deeper = base if node.depth >= DEEPEST else base + ("  " if last else "│ ")
            todo.append((child, base + ("└ " if last else "├ "), deeper))


def mode(node: LockNode) -> str:
    """`AccessShare` held, `wants AccessExclusive` waited for."""
    return short(node.mode) if node.granted else f"wants {short(node.mode)}"


def who(node: LockNode) -> str:
    """The session's application or role; ours with a mark."""
    return sessions.ours(node.who) if node.ours else node.who


def _remarks(node: LockNode) -> tuple[str, ...]:
    if node.deadlock:
        return ("← DEADLOCK", "⟲")
    if not node.victims:
        return ()
    end = "for its end" if node.granted else "behind it"
    return (f"← {counted(node.victims, 'waits', 'wait')} {end}", f"▲ {node.victims:,}")


def _tone(node: LockNode) -> Tone:
    if node.granted or node.deadlock:
        return "holder"
    return "own" if node.ours else "victim"


def _line(node: LockNode, branch: str) -> Line:
    age = node.xact_age_s if node.granted else node.waits_s
    pid = str(node.pid) if node.pid else "prepared"
    return Line(
        key_of(node),
        (
            Cell(branch + pid, _tone(node)),
            text.age(age),
            mode(node),
            node.target,
            Cell(who(node), "own" if node.ours else ""),
            Cell(sessions.flat(node.what), "", _remarks(node)),
        ),
    )


def _columns(lines: Iterable[Line]) -> tuple[Column, ...]:
    """As wide as their contents, within bounds: the query gets what is left."""
    rows = [line.cells for line in lines]

    def width(index: int, least: int, most: int) -> int:
        texts = (cell.text if isinstance(cell, Cell) else cell for cell in (row[index] for row in rows))
        return min(most, max([least, *(cell_len(text[:most]) for text in texts)]))

    return (
        Column("  pid", width(0, 9, 22), priority=9),
        Column("age", 6, "right", priority=8),
        Column("mode", width(2, 11, 26), priority=7),
        Column("on", width(3, 6, 24), priority=4),
        Column("who", width(4, 8, 14), priority=6),
        Column("what", None, priority=10, least=12),
    )


def kept(frame: Frame, choice: Choice) -> tuple[LockNode, ...]:
    """The trees in which some session matches: a tree is shown whole or not at all."""
    return tuple(
        tree
        for tree in forest_of(frame.snapshot)
        if any(choice.matches(n.pid, n.who, n.target, n.mode, n.what) for n in walk([tree]))
    )


def sheet(frame: Frame, choice: Choice = EVERYTHING) -> Sheet:
    """Who blocks whom: trees with the most victims first."""
    trees = kept(frame, choice)
    lines = tuple(_line(node, branch) for node, branch in branches(trees))
    waiting = sum(not node.granted for node in walk(trees))
    return Sheet(
        columns=_columns(lines),
        lines=lines,
        empty="nobody waits for a lock",
        note=f"{counted(len(trees), 'blocks', 'block')} · {counted(waiting, 'waits', 'wait')}" if trees else "",
    )


def records(frame: Frame, choice: Choice = EVERYTHING) -> list[Record]:
    """The same forest as plain values, each node before those behind it."""
    return [
        {
            "depth": node.depth,
            "pid": node.pid,
            "granted": node.granted,
            "mode": node.mode,
            "target": node.target,
            "waits_s": node.waits_s,
            "xact_age_s": node.xact_age_s,
            "victims": node.victims,
            "deadlock": node.deadlock,
            "ours": node.ours,
            "who": node.who,
            "state": node.state,
            "what": node.what,
        }
        for node in walk(kept(frame, choice))
    ]


def detail(frame: Frame, key: Hashable) -> list[str]:
    """All about the session of one line; about a prepared transaction, how it is ended."""
    node = next((node for node in walk(forest_of(frame.snapshot)) if key_of(node) == key), None)
    if node is None:
        return activity.detail(frame, key)
    if node.pid:
        return activity.detail(frame, key) or [f"session {node.pid} is not in pg_stat_activity"]
    held = [f"{'holds' if lock.granted else 'WANTS'} {lock.mode} on {lock.target}" for lock in frame.snapshot.locks.rows
            if not lock.pid and lock.gid == node.what]  # fmt: skip
    return [
        f"prepared transaction {node.what}",
        "no session holds it: it ends with COMMIT PREPARED or ROLLBACK PREPARED",
        f"{counted(node.victims, 'waits', 'wait')} for its end",
        "",
        *held,
    ]


class LocksPane(TablePane):
    """The lock forest."""

    number = 3
    command = "locks"
    title = "Locks"
    can: ClassVar[frozenset[str]] = frozenset({"filter", "export", "detail"})

    def sources(self, frame: Frame) -> Sequence[View[Any]]:
        return (frame.snapshot.locks, frame.snapshot.activity)

    def sheet(self, frame: Frame, choice: Choice) -> Sheet:
        return sheet(frame, choice)

    def records(self, frame: Frame, choice: Choice) -> list[Record]:
        return records(frame, choice)

    def lines_about(self, frame: Frame, key: Hashable) -> list[str]:
        return detail(frame, key)

    def session_of(self, frame: Frame, key: Hashable) -> Activity | None:
        return activity.session_of(frame, key)
