"""Change per second, and change since a reading: from two readings of counters that may have been reset. Pure.

No figure is ever negative. Where the counters between two readings cannot be compared (a restart, a reset, another
server) a rate is None, which a screen shows as nothing, and not as zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from dbwatch.monitor.baseline import Figures, StatementKey
from dbwatch.monitor.samples import IndexUse, Snapshot, Statement, View

SLOWER = 1.2
"""From this factor of its former mean on, a statement counts as slower: less is noise."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Change per second between two polls; None where it cannot be told."""

    tps: float | None = None
    """Transactions of this database, committed or rolled back, without those of polling itself."""
    rollbacks_s: float | None = None
    wal_bytes_s: float | None = None
    temp_bytes_s: float | None = None
    deadlocks: int | None = None
    """How many there were between the two, not per second."""


def rates(before: Snapshot, after: Snapshot) -> Rates:
    """The rates between two snapshots of one server."""
    if not (before.facts and after.facts and before.facts.same_server(after.facts)):
        return Rates()
    if before.facts.started_at != after.facts.started_at:
        return Rates()
    if not before.vitals.rows or not after.vitals.rows:
        return Rates()
    seconds = after.vitals.taken - before.vitals.taken
    if seconds <= 0:
        return Rates()
    [old], [new] = before.vitals.rows, after.vitals.rows

    def change(was: int | None, now: int | None) -> float | None:
        return now - was if was is not None and now is not None and now >= was else None

    def per_second(amount: float | None) -> float | None:
        return None if amount is None else amount / seconds

    all_xacts = change(old.xact_commit + old.xact_rollback, new.xact_commit + new.xact_rollback)
    polling = max(0, new.own_xacts - old.own_xacts)
    deadlocks = change(old.deadlocks, new.deadlocks)
    return Rates(
        tps=None if all_xacts is None else per_second(max(0.0, all_xacts - polling)),
        rollbacks_s=per_second(change(old.xact_rollback, new.xact_rollback)),
        wal_bytes_s=per_second(change(old.wal_bytes, new.wal_bytes)),
        temp_bytes_s=per_second(change(old.temp_bytes, new.temp_bytes)),
        deadlocks=None if deadlocks is None else int(deadlocks),
    )


@dataclass(frozen=True, slots=True)
class StatementChange:
    """What one statement did since an earlier reading; times in milliseconds."""

    statement: Statement
    calls: int
    total_ms: float
    rows: int
    temp_blks_written: int
    wal_bytes: int
    mean_before_ms: float | None
    """Its mean up to the earlier reading; None where it had not run by then, or that is not known."""
    exact: bool
    """False where the earlier figures are missing: the change is then at most what stands here (it was not among the
    top) or at least that (the server began to count it anew)."""

    @property
    def mean_ms(self) -> float | None:
        """Its mean since; None if it was not called."""
        return self.total_ms / self.calls if self.calls else None

    @property
    def slower(self) -> float | None:
        """Mean since / mean before: 2.0 is twice as slow. None where one of them is not known."""
        if self.mean_ms is None or not self.mean_before_ms:
            return None
        return self.mean_ms / self.mean_before_ms

    @property
    def lost_ms(self) -> float:
        """The time that its slowing down has cost since: (mean since - mean before) x calls; 0 if it is not slower."""
        if self.slower is None or self.slower < SLOWER or self.mean_before_ms is None:
            return 0.0
        return self.total_ms - self.mean_before_ms * self.calls


def statement_changes(
    before: Mapping[StatementKey, Figures],
    after: Iterable[Statement],
    *,
    complete: bool = True,
    since: datetime | None = None,
) -> tuple[StatementChange, ...]:
    """What statements did since *before*: what became slower first.

    The order: by the time that slowing down has cost (`lost_ms`), then by total time. Statements that were not called
    are left out. *complete* says that *before* had them all, so that one missing there had not run; *since* is when
    *before* was read, so that on 17 and later the server's own `stats_since` can tell the same.
    """
    changes = [_changed(before.get(one.key), one, complete, since) for one in after]
    called = (change for change in changes if change.calls)
    return tuple(sorted(called, key=lambda change: (-change.lost_ms, -change.total_ms, change.statement.key)))


def _changed(was: Figures | None, now: Statement, complete: bool, since: datetime | None) -> StatementChange:
    if was is None:
        born_since = since is not None and now.stats_since is not None and now.stats_since >= since
        return _anew(now, None, exact=complete or born_since)
    mean_before = was.total_exec_time / was.calls if was.calls else None
    if _restarted(was, now):
        return _anew(now, mean_before, exact=False)
    return StatementChange(
        statement=now,
        calls=now.calls - was.calls,
        total_ms=now.total_exec_time - was.total_exec_time,
        rows=now.rows - was.rows,
        temp_blks_written=now.temp_blks_written - was.temp_blks_written,
        wal_bytes=now.wal_bytes - was.wal_bytes,
        mean_before_ms=mean_before,
        exact=True,
    )


def _restarted(was: Figures, now: Statement) -> bool:
    """Whether the entry was reset, or evicted and made anew, in between."""
    if was.stats_since is not None and now.stats_since is not None:
        return was.stats_since != now.stats_since
    return (
        now.calls < was.calls
        or now.total_exec_time < was.total_exec_time
        or now.rows < was.rows
        or now.temp_blks_written < was.temp_blks_written
        or now.wal_bytes < was.wal_bytes
    )


def _anew(now: Statement, mean_before: float | None, *, exact: bool) -> StatementChange:
    return StatementChange(
        statement=now,
        calls=now.calls,
        total_ms=now.total_exec_time,
        rows=now.rows,
        temp_blks_written=now.temp_blks_written,
        wal_bytes=now.wal_bytes,
        mean_before_ms=mean_before,
        exact=exact,
    )


@dataclass(frozen=True, slots=True)
class IndexChange:
    """How often an index was scanned since an earlier reading."""

    index: IndexUse
    scans: int | None
    """None where the earlier reading does not have it, and may only have missed it."""
    exact: bool
    """False where the counter was reset since, or may have been: at least so many."""
    new: bool
    """It was not there at the earlier reading."""


def index_changes(
    before: Mapping[int, int], after: Iterable[IndexUse], *, complete: bool = True, since: datetime | None = None
) -> tuple[IndexChange, ...]:
    """Scans of each index since *before* (idx_scan by indexrelid): least used first, then the largest.

    *complete* says that *before* had them all, so that one missing there is new; *since* is when *before* was read.
    """
    changes = [_scanned(before.get(index.indexrelid), index, complete, since) for index in after]
    return tuple(sorted(changes, key=lambda c: (c.scans is None, c.scans or 0, -c.index.bytes, c.index.indexrelid)))


def _scanned(was: int | None, index: IndexUse, complete: bool, since: datetime | None) -> IndexChange:
    if was is None:
        return IndexChange(index, index.idx_scan if complete else None, exact=complete, new=complete)
    fewer = index.idx_scan < was
    reset = fewer or (since is not None and index.stats_reset is not None and index.stats_reset > since)
    return IndexChange(index, index.idx_scan if fewer else index.idx_scan - was, exact=not reset, new=False)


def last_poll(snapshot: Snapshot) -> tuple[StatementChange, ...]:
    """What statements did between the last two readings of them; empty before the second."""
    if not snapshot.statements_before.rows:
        return ()
    before: View[Statement] = snapshot.statements_before
    figures = {one.key: Figures.of(one) for one in before.rows}
    return statement_changes(figures, snapshot.statements.rows, complete=not before.reason, since=before.at)
