"""Statements: what they cost since the window opened and since the last poll; what became slower stands first."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from dbwatch import text
from dbwatch.monitor.baseline import Baseline, StatementKey
from dbwatch.monitor.rates import SLOWER, StatementChange, last_poll, statement_changes
from dbwatch.monitor.samples import Snapshot, Status, View
from dbwatch.tui.columns import Cell, Column, Line, Tone
from dbwatch.tui.panes import sessions
from dbwatch.tui.panes.base import EVERYTHING, Choice, Record, Sheet, TablePane, counted
from dbwatch.window.feed import Frame

MUCH_SLOWER = 2.0
NOTICEABLE_MS = 100.0
"""A statement that slowing down has cost less than that in all is not called out: a few calls prove nothing."""

COLUMNS = (
    Column("slower", 7, "right", priority=9),
    Column("mean ms", 8, "right", priority=8),
    Column("was ms", 8, "right", priority=7),
    Column("calls", 6, "right", priority=6),
    Column("total", 6, "right", priority=5),
    Column("now/s", 6, "right", priority=4),
    Column("now ms", 8, "right", priority=3),
    Column("rows", 6, "right", priority=2),
    Column("temp", 7, "right", priority=1),
    Column("WAL", 7, "right", priority=2),
    Column("statement", None, priority=10, least=36),
)

BLOCK = 8192
"""Bytes of a temporary block: temp_blks_written counts blocks of the server's BLCKSZ, 8 kB unless built otherwise."""


@dataclass(frozen=True, slots=True)
class Row:
    """A statement: what it did since the baseline, and what since the last poll."""

    since: StatementChange
    poll: StatementChange | None
    """None where it did not run since the last poll, or where it is not known what of its figures is from then."""

    @property
    def key(self) -> StatementKey:
        return self.since.statement.key


def milliseconds(ms: float | None) -> str:
    """`0.04`, `12.3`, `1,204`; empty for None."""
    if ms is None:
        return ""
    return f"{ms:.2f}" if ms < 10 else f"{ms:.1f}" if ms < 100 else f"{ms:,.0f}"


def noticeable(change: StatementChange) -> bool:
    """Whether somebody else's statement became slower, and that has cost enough to be called out."""
    return change.lost_ms >= NOTICEABLE_MS and not change.statement.ours


def slower(change: StatementChange) -> tuple[str, Tone]:
    """How its mean compares with before: `▲ 2.3×` slower, `▼ 0.4×` faster; `new` where it had not run before."""
    factor = change.slower
    if factor is None:
        return ("new" if change.exact else "", "")
    shown = f"{factor:.1f}×" if factor < 99.5 else f"{factor:,.0f}×"
    if factor >= SLOWER:
        loud: Tone = "bad" if factor >= MUCH_SLOWER else "warn"
        return f"▲ {shown}", loud if noticeable(change) else ""
    return (f"▼ {shown}", "good") if factor <= 1 / SLOWER else ("", "")


_SORTS: Mapping[str, Callable[[Row], tuple[float, ...]]] = {
    "slower": lambda row: (-row.since.lost_ms if noticeable(row.since) else 0.0, -row.since.total_ms),
    "total": lambda row: (-row.since.total_ms,),
    "calls": lambda row: (-row.since.calls,),
    "now": lambda row: (-(row.poll.total_ms if row.poll else 0.0), -row.since.total_ms),
    "WAL": lambda row: (-row.since.wal_bytes,),
    "temp": lambda row: (-row.since.temp_blks_written,),
}


def kept(snapshot: Snapshot, baseline: Baseline | None, choice: Choice) -> list[Row]:
    """The statements that were called since *baseline* (None: since the last poll), filtered and sorted, ours last."""
    polled = last_poll(snapshot)
    if baseline is None:
        changes = polled
    else:
        changes = statement_changes(
            baseline.statements, snapshot.statements.rows, complete=baseline.statements_complete, since=baseline.at
        )
    by_key = {change.statement.key: change for change in polled if change.exact}
    rows = (Row(change, by_key.get(change.statement.key)) for change in changes)
    order = _SORTS[choice.sort or "slower"]
    matching = (row for row in rows if choice.matches(row.since.statement.query))
    return sorted(matching, key=lambda row: (row.since.statement.ours, *order(row)))


def _poll_s(snapshot: Snapshot) -> float:
    """Seconds between the last two readings."""
    return snapshot.statements.taken - snapshot.statements_before.taken


def _line(row: Row, poll_s: float) -> Line:
    change, poll, statement = row.since, row.poll, row.since.statement
    word, tone = slower(change)
    about = "" if change.exact else "~"
    per_s = "" if poll is None or poll_s <= 0 else text.count(poll.calls / poll_s)
    mark = f"{sessions.OWN} " if statement.ours else ""
    return Line(
        row.key,
        (
            Cell(word, tone),
            Cell(milliseconds(change.mean_ms), "strong"),
            milliseconds(change.mean_before_ms),
            about + text.count(change.calls),
            text.age(change.total_ms / 1000),
            per_s,
            milliseconds(poll.mean_ms if poll else None),
            text.count(change.rows),
            text.size(change.temp_blks_written * BLOCK) if change.temp_blks_written else "",
            text.size(change.wal_bytes) if change.wal_bytes else "",
            Cell(mark + (sessions.flat(statement.query) or f"query {statement.queryid}"), "own" if mark else ""),
        ),
    )


def sheet(snapshot: Snapshot, baseline: Baseline | None, choice: Choice = EVERYTHING) -> Sheet:
    """What statements cost since *baseline* (None: since the last poll): what became slower first."""
    rows = kept(snapshot, baseline, choice)
    since = f"since {baseline.at:%H:%M:%S}" if baseline else "since the last poll"
    worse = sum(noticeable(row.since) for row in rows)
    note = [f"{counted(len(rows), 'statement', 'statements')} {since}"] if rows else []
    note += [f"▲ {worse:,} slower"] if worse else []
    return Sheet(
        columns=COLUMNS,
        lines=tuple(_line(row, _poll_s(snapshot)) for row in rows),
        empty=f"no statement ended {since}",
        note=" · ".join(note),
    )


def records(snapshot: Snapshot, baseline: Baseline | None, choice: Choice = EVERYTHING) -> list[Record]:
    """The same statements as plain values."""
    return [
        {
            "queryid": row.since.statement.queryid,
            "userid": row.since.statement.userid,
            "dbid": row.since.statement.dbid,
            "slower": row.since.slower,
            "calls": row.since.calls,
            "mean_exec_time_ms": row.since.mean_ms,
            "mean_before_ms": row.since.mean_before_ms,
            "total_exec_time_ms": row.since.total_ms,
            "rows": row.since.rows,
            "temp_blks_written": row.since.temp_blks_written,
            "wal_bytes": row.since.wal_bytes,
            "exact": row.since.exact,
            "last_poll_calls": row.poll.calls if row.poll else None,
            "last_poll_mean_ms": row.poll.mean_ms if row.poll else None,
            "ours": row.since.statement.ours,
            "query": row.since.statement.query,
        }
        for row in kept(snapshot, baseline, choice)
    ]


def detail(snapshot: Snapshot, baseline: Baseline | None, key: Hashable) -> list[str]:
    """All about one statement: its figures since the baseline, since the last poll and ever; its whole text."""
    statement = next((row for row in snapshot.statements.rows if row.key == key), None)
    if statement is None:
        return []
    row = next((row for row in kept(snapshot, baseline, EVERYTHING) if row.key == key), None)
    mean = statement.total_exec_time / statement.calls if statement.calls else None
    lines = [
        f"{'statement':<15} {statement.queryid}, role {statement.userid}, database {statement.dbid}",
        f"{'ever':<15} {statement.calls:,} calls, mean {milliseconds(mean)} ms, {statement.rows:,} rows",
    ]
    if row is not None:
        if baseline is not None:
            lines.append(f"{f'since {baseline.at:%H:%M:%S}':<15} {_figures(row.since)}")
        if row.poll is not None:
            lines.append(f"{f'last {text.age(_poll_s(snapshot))}':<15} {_figures(row.poll)}")
    return [*lines, "", *sessions.broken(statement.query)]


def _figures(change: StatementChange) -> str:
    was = "" if change.mean_before_ms is None else f" (was {milliseconds(change.mean_before_ms)} ms)"
    about = "" if change.exact else "about "
    return (
        f"{about}{change.calls:,} calls, mean {milliseconds(change.mean_ms)} ms{was}, {change.rows:,} rows, "
        f"WAL {text.size(change.wal_bytes)}, temporary {text.size(change.temp_blks_written * BLOCK)}"
    )


class StatementsPane(TablePane):
    """The statements. Where no window gives a baseline, the first reading that the pane saw is one."""

    number = 4
    command = "statements"
    title = "Statements"
    can: ClassVar[frozenset[str]] = frozenset({"filter", "sort", "export", "detail"})
    sorts = tuple(_SORTS)

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._first: Baseline | None = None

    def collect(self, frame: Frame) -> None:
        snapshot = frame.snapshot
        if snapshot.facts is None or snapshot.at is None or snapshot.statements.status is Status.WAITING:
            return
        if self._first is None or not self._first.fits(snapshot.facts):
            self._first = Baseline.of(snapshot)

    def baseline(self, frame: Frame) -> Baseline | None:
        """That of the window, else the first reading."""
        facts = frame.snapshot.facts
        candidates = (frame.window.baseline if frame.window else None, self._first)
        return next((b for b in candidates if b is not None and facts is not None and b.fits(facts)), None)

    def sources(self, frame: Frame) -> Sequence[View[Any]]:
        return (frame.snapshot.statements,)

    def sheet(self, frame: Frame, choice: Choice) -> Sheet:
        return sheet(frame.snapshot, self.baseline(frame), choice)

    def records(self, frame: Frame, choice: Choice) -> list[Record]:
        return records(frame.snapshot, self.baseline(frame), choice)

    def lines_about(self, frame: Frame, key: Hashable) -> list[str]:
        return detail(frame.snapshot, self.baseline(frame), key)
