"""Indexes: builds in progress and whom they wait for, invalid ones, and what the others were used for."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from dbwatch import text
from dbwatch.monitor.baseline import Baseline
from dbwatch.monitor.rates import IndexChange, index_changes
from dbwatch.monitor.samples import Activity, IndexUse, Progress, Snapshot, View
from dbwatch.tui.columns import Cell, Column, Line, Tone
from dbwatch.tui.panes import sessions
from dbwatch.tui.panes.base import EVERYTHING, Choice, Record, Sheet, TablePane, counted
from dbwatch.window.feed import Frame

BAR = 8
"""Cells of a percent bar."""
_NO_SCANS = "○ no scans"

COLUMNS = (
    Column("state", 10, priority=7),
    Column("index", None, priority=9, least=18),
    Column("table", 18, priority=3),
    Column("scans", 6, "right", priority=6),
    Column("in all", 6, "right", priority=2),
    Column("last use", 8, "right", priority=4),
    Column("size", 8, "right", priority=5),
)


def percent_bar(done: int, total: int) -> str:
    """`▕█████   ▏ 61 %`; empty where the server does not know what there is to do."""
    if total <= 0:
        return ""
    share = min(1.0, max(0.0, done / total))
    full = int(share * BAR)
    return f"▕{'█' * full}{' ' * (BAR - full)}▏{int(share * 100):>3} %"


def baseline_of(frame: Frame) -> Baseline | None:
    """The baseline of the window, where it was taken in this database."""
    baseline = frame.window.baseline if frame.window else None
    facts = frame.snapshot.facts
    return baseline if baseline and facts and baseline.fits(facts) else None


def builds(snapshot: Snapshot) -> list[Progress]:
    """Index builds in progress."""
    return [row for row in snapshot.progress.rows if row.command.startswith(("CREATE INDEX", "REINDEX"))]


def _under_construction(index: IndexUse, running: Sequence[Progress]) -> bool:
    return not index.is_valid and any(index.indexrelname == build.index for build in running)


def state(change: IndexChange, measured: bool) -> tuple[str, Tone]:
    """What is to be known first of an index: that it is invalid, that nobody used it, or that it is a constraint.

    *measured* says that the change is one since the opening. `unused` is since then, `no scans` since the counters
    were reset last.
    """
    index = change.index
    if not index.is_valid:
        return "✗ INVALID", "bad"
    if index.is_primary:
        return "primary", ""
    if index.is_unique:
        return "unique", ""
    if index.idx_scan == 0:
        return _NO_SCANS, "warn"
    if measured and not change.scans and change.exact:
        return "○ unused", "warn"
    return ("new" if measured and change.new else ""), ""


_SORTS: Mapping[str, Callable[[IndexChange], tuple[Any, ...]]] = {
    "scans": lambda change: (change.scans is None, change.scans or 0, change.index.is_unique, -change.index.bytes),
    "size": lambda change: (-change.index.bytes,),
    "name": lambda change: (),
}


def kept(frame: Frame, choice: Choice) -> list[IndexChange]:
    """The indexes that are not being built, filtered and sorted: the invalid ones first, then the least used."""
    baseline, running = baseline_of(frame), builds(frame.snapshot)
    order = _SORTS[choice.sort or "scans"]

    def rank(change: IndexChange) -> tuple[Any, ...]:
        index = change.index
        return (index.is_valid, *order(change), index.schemaname, index.relname, index.indexrelname)

    changes = (
        change
        for change in _since(baseline, frame.snapshot.indexes.rows)
        if not _under_construction(change.index, running)
    )
    return sorted((change for change in changes if _matches(change, baseline is not None, choice)), key=rank)


def _since(baseline: Baseline | None, rows: Sequence[IndexUse]) -> tuple[IndexChange, ...]:
    if baseline is None:
        return index_changes({}, rows)
    return index_changes(baseline.indexes, rows, complete=baseline.indexes_complete, since=baseline.at)


def counted_since(reset: datetime | None) -> str:
    """Since when scans are counted: `2026-02-02 21:04`, or that nobody knows since when."""
    return f"{reset:%Y-%m-%d %H:%M}" if reset else "the last reset"


def _matches(change: IndexChange, measured: bool, choice: Choice) -> bool:
    index = change.index
    return choice.matches(index.indexrelname, index.relname, index.schemaname, state(change, measured)[0])


def qualified(schema: str, name: str) -> str:
    """`users`, but `sales.users` outside of public."""
    return name if schema == "public" else f"{schema}.{name}"


def _build_line(build: Progress, snapshot: Snapshot) -> Line:
    by_pid = {session.pid: session for session in snapshot.activity.rows}
    parts = [build.index or build.relation, percent_bar(build.done, build.total), build.phase]
    if build.waits_for:
        parts.append(f"waits for {sessions.named(build.waits_for, by_pid, snapshot.activity.at)}")
    mark = f" {sessions.OWN}" if build.pid in snapshot.own_pids else ""
    told = Cell("  ".join(part for part in parts if part), "warn" if build.waits_for else "")
    return Line(("build", build.pid), (Cell(f"▶ {build.pid}{mark}", "own" if mark else "strong"), told))


def _index_line(change: IndexChange, measured: bool, view: View[IndexUse]) -> Line:
    index = change.index
    word, tone = state(change, measured)
    since = "" if change.scans is None else text.count(change.scans) + ("" if change.exact else "+")
    scans = (since,) if measured else ()
    return Line(
        index.indexrelid,
        (
            Cell(word, tone),
            Cell(index.indexrelname, "bad" if tone == "bad" else ""),
            qualified(index.schemaname, index.relname),
            *scans,
            text.count(index.idx_scan),
            text.age(sessions.seconds_since(index.last_idx_scan, view.at)),
            text.size(index.bytes),
        ),
    )


def sheet(frame: Frame, choice: Choice = EVERYTHING) -> Sheet:
    """The indexes of the database, builds in progress first. Without a baseline there is no column of scans since."""
    snapshot, baseline = frame.snapshot, baseline_of(frame)
    measured = baseline is not None
    running = [b for b in builds(snapshot) if choice.matches(b.pid, b.index, b.relation, b.phase, b.command)]
    rows = kept(frame, choice)
    invalid = sum(not change.index.is_valid for change in rows)
    note = [counted(len(rows), "index", "indexes")]
    note += [f"{invalid} INVALID"] if invalid else []
    note += [f"{len(running)} in the making"] if running else []
    note += [f"scans since {baseline.at:%H:%M:%S}"] if baseline else []
    unused = [change.index for change in rows if state(change, measured)[0] == _NO_SCANS]
    note += [f"no scans since {counted_since(unused[0].stats_reset)}"] if unused else []
    return Sheet(
        columns=tuple(column for column in COLUMNS if measured or column.title != "scans"),
        lines=(
            *(_build_line(build, snapshot) for build in running),
            *(_index_line(change, measured, snapshot.indexes) for change in rows),
        ),
        empty="this database has no indexes",
        note=" · ".join(note),
    )


def records(frame: Frame, choice: Choice = EVERYTHING) -> list[Record]:
    """The same indexes as plain values."""
    measured = baseline_of(frame) is not None
    return [
        {
            "schemaname": change.index.schemaname,
            "relname": change.index.relname,
            "indexrelname": change.index.indexrelname,
            "idx_scan": change.index.idx_scan,
            "idx_scan_since_opening": change.scans if measured and change.exact else None,
            "stats_reset": change.index.stats_reset.isoformat() if change.index.stats_reset else None,
            "last_idx_scan": change.index.last_idx_scan.isoformat() if change.index.last_idx_scan else None,
            "bytes": change.index.bytes,
            "is_valid": change.index.is_valid,
            "is_ready": change.index.is_ready,
            "is_unique": change.index.is_unique,
            "is_primary": change.index.is_primary,
        }
        for change in kept(frame, choice)
    ]


def detail(frame: Frame, key: Hashable) -> list[str]:
    """All about an index, or about a build."""
    snapshot = frame.snapshot
    by_pid = {session.pid: session for session in snapshot.activity.rows}
    at = snapshot.activity.at
    for build in builds(snapshot):
        if key == ("build", build.pid):
            waits = f"waits for    {sessions.named(build.waits_for, by_pid, at)}" if build.waits_for else ""
            told = [
                f"command      {build.command}",
                f"index        {build.index or 'not yet known'}",
                f"table        {build.relation}",
                f"phase        {build.phase}",
                f"in phase     {build.done:,} of {build.total:,} {percent_bar(build.done, build.total)}",
                *([waits] if waits else []),
            ]
            builder = by_pid.get(build.pid)
            return told + (["", *sessions.described(builder, at, snapshot.own_pids)] if builder else [])
    index = next((row for row in snapshot.indexes.rows if row.indexrelid == key), None)
    if index is None:
        return []
    baseline = baseline_of(frame)
    [change] = _since(baseline, [index])
    since = f", {change.scans:,} since the window opened" if baseline and change.exact else ""
    last = text.age(sessions.seconds_since(index.last_idx_scan, snapshot.indexes.at))
    return [
        f"index        {qualified(index.schemaname, index.indexrelname)}",
        f"table        {qualified(index.schemaname, index.relname)}",
        f"valid        {'yes' if index.is_valid else 'NO: no query uses it, every write pays for it'}",
        f"ready        {'yes' if index.is_ready else 'NO: writes do not maintain it yet'}",
        f"constraint   {'primary key' if index.is_primary else 'unique' if index.is_unique else 'none'}",
        f"size         {text.size(index.bytes)} (estimate from relpages)",
        f"scans        {index.idx_scan:,} since {counted_since(index.stats_reset)}{since}",
        *([f"last use     {last} ago"] if last else []),
    ]


class IndexesPane(TablePane):
    """The indexes of the database."""

    number = 5
    command = "indexes"
    title = "Indexes"
    can: ClassVar[frozenset[str]] = frozenset({"filter", "sort", "export", "detail"})
    sorts = tuple(_SORTS)

    def sources(self, frame: Frame) -> Sequence[View[Any]]:
        return (frame.snapshot.indexes, frame.snapshot.progress)

    def sheet(self, frame: Frame, choice: Choice) -> Sheet:
        return sheet(frame, choice)

    def records(self, frame: Frame, choice: Choice) -> list[Record]:
        return records(frame, choice)

    def lines_about(self, frame: Frame, key: Hashable) -> list[str]:
        return detail(frame, key)

    def session_of(self, frame: Frame, key: Hashable) -> Activity | None:
        pid = key[1] if isinstance(key, tuple) else None
        return next((session for session in frame.snapshot.activity.rows if session.pid == pid), None)
