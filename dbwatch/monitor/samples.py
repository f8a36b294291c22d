"""What one poll saw: frozen rows, each view with its own time and status. Pure values.

Columns are called what the manual's views call them. Text from the server is sanitized before it gets here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Generic, TypeVar

from dbwatch.postgres.facts import ServerFacts

Row = TypeVar("Row", covariant=True)


class Status(StrEnum):
    """How far the rows of a view can be believed."""

    OK = "ok"
    HIDDEN = "hidden"
    """Privileges hide some or all rows; the reason names the GRANT."""
    LOCKED = "locked"
    """A lock was in the way of some or all of it."""
    UNSUPPORTED = "unsupported"
    """This server or database has no such view (an extension missing, a major too old)."""
    ERROR = "error"
    """The last attempt failed; the rows are those of the last good one."""
    WAITING = "waiting"
    """Not yet asked."""


@dataclass(frozen=True, slots=True)
class View(Generic[Row]):
    """The rows of one view with their instant. After a failure the last good rows stay, with status ERROR."""

    status: Status = Status.WAITING
    reason: str = ""
    at: datetime | None = None
    """The server's clock when the rows were read; None before the first time."""
    taken: float = 0.0
    """The monotonic clock when the rows were read: the age of the data is `clock.monotonic() - taken`."""
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True)
class Activity:
    """A session: a row of pg_stat_activity."""

    pid: int
    backend_start: datetime | None
    leader_pid: int | None
    datname: str
    usename: str
    application_name: str
    client: str
    backend_type: str
    state: str
    wait_event_type: str
    wait_event: str
    xact_start: datetime | None
    query_start: datetime | None
    state_change: datetime | None
    xmin_age: int | None
    """age(backend_xmin), in transactions."""
    query: str
    hidden: bool = False
    """Our role may not see this session's query and state."""
    client_port: int | None = None
    """Tells the application's connections on `client` apart; None for a Unix socket."""

    @property
    def key(self) -> tuple[int, datetime | None]:
        """What identifies the session: a pid alone is used again."""
        return (self.pid, self.backend_start)


@dataclass(frozen=True, slots=True)
class Lock:
    """A row of pg_locks: a lock held, or waited for."""

    pid: int
    """0 for a prepared transaction: it holds its locks without a session."""
    locktype: str
    target: str
    """What is locked: a relation's name, `tuple (0,5) of users`, `transaction 1234`, `advisory 1 2`."""
    object_key: str
    """Equal for two rows exactly if they are about the same lockable object."""
    mode: str
    """`AccessExclusiveLock`, as in pg_locks."""
    granted: bool
    waitstart: datetime | None
    """From 14 on."""
    gid: str = ""
    """The name of the prepared transaction; it ends with COMMIT PREPARED or ROLLBACK PREPARED."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """Whom one session waits for, as pg_blocking_pids says: holders and those ahead of it in the queue."""

    pid: int
    by: tuple[int, ...]
    """0 stands for a prepared transaction."""


@dataclass(frozen=True, slots=True)
class Statement:
    """Cumulative figures of one statement: a row of pg_stat_statements, times in milliseconds."""

    userid: int
    dbid: int
    queryid: int
    toplevel: bool
    query: str
    calls: int
    total_exec_time: float
    rows: int
    temp_blks_written: int
    wal_bytes: int
    stats_since: datetime | None = None
    """When the server began to count it; from 17 on."""
    ours: bool = False
    """One of dbwatch's own: its text has the comment that all of polling's carry."""

    @property
    def key(self) -> tuple[int, int, int, bool]:
        return (self.userid, self.dbid, self.queryid, self.toplevel)


@dataclass(frozen=True, slots=True)
class IndexUse:
    """An index of this database: pg_stat_user_indexes with its catalogue state."""

    indexrelid: int
    schemaname: str
    relname: str
    indexrelname: str
    idx_scan: int
    last_idx_scan: datetime | None
    """From 16 on."""
    bytes: int
    """relpages x block size: an estimate that no lock can block."""
    is_valid: bool
    is_ready: bool
    is_unique: bool
    is_primary: bool
    stats_reset: datetime | None = None
    """Since no later than then idx_scan counts: after a crash the server's start; None where it cannot be known."""


@dataclass(frozen=True, slots=True)
class TableUse:
    """A table of this database: pg_stat_user_tables with its catalogue state."""

    relid: int
    schemaname: str
    relname: str
    bytes: int
    """relpages x block size, TOAST included."""
    n_live_tup: int
    n_dead_tup: int
    n_tup_upd: int
    n_tup_hot_upd: int
    last_vacuum: datetime | None
    last_analyze: datetime | None
    freeze_age: int
    """age(relfrozenxid), in transactions."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A running command that reports progress: one row of a pg_stat_progress_* view."""

    pid: int
    command: str
    """`CREATE INDEX CONCURRENTLY`, `VACUUM`, `ANALYZE`, `COPY FROM`, ..."""
    relation: str
    phase: str
    done: int
    total: int
    """What done counts up to: blocks, tuples or lockers by phase; 0 where the server does not know."""
    index: str = ""
    """CREATE INDEX only: the index that is built."""
    waits_for: int | None = None
    """CREATE INDEX only: current_locker_pid."""


@dataclass(frozen=True, slots=True)
class Replication:
    """A standby: a row of pg_stat_replication."""

    pid: int
    application_name: str
    client: str
    state: str
    sync_state: str
    replay_lag_s: float | None
    lag_bytes: int | None


@dataclass(frozen=True, slots=True)
class DatabaseSize:
    """How large this database is."""

    database_bytes: int
    """pg_database_size."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """How busy a server is at one instant, and its counters: rates come from two of them.

    Sessions and WAL are the whole server's; transactions, deadlocks and temporary files this database's.
    """

    connections: int
    connections_usable: int
    """max_connections less what is reserved for superusers."""
    active: int
    waiting: int
    """Sessions of clients that wait for a lock."""
    xact_commit: int
    xact_rollback: int
    wal_bytes: int | None
    """Position in the WAL, in bytes (on a standby: replayed); None where it cannot be told."""
    deadlocks: int
    temp_bytes: int
    oldest_xmin_s: float | None
    """Age of the oldest transaction that holds xmin back, in seconds."""
    oldest_xact_s: float | None
    database_bytes: int | None
    """pg_database_size, looked at once a minute; None where it took too long, or is not allowed."""
    own_xacts: int = 0
    """How many of the transactions are polling's own: rates leave them out."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One immutable poll of a server."""

    number: int = 0
    taken: float = 0.0
    """The monotonic clock at the end of the poll, or of the last failed attempt."""
    at: datetime | None = None
    """The server's clock of the last good poll."""
    connected: bool = False
    trouble: str = ""
    """Why there is no connection now, and which attempt is under way: `reconnecting, try 3: ...`."""
    facts: ServerFacts | None = None
    own_pids: frozenset[int] = frozenset()
    """Backends of dbwatch's own sessions and of its migration child."""
    notice: str = ""
    """For a minute after a reconnect: that the server restarted, was promoted, or is another one."""
    took_s: float = 0.0
    """How long the poll took, in seconds."""
    size: View[DatabaseSize] = View()
    vitals: View[Vitals] = View()
    activity: View[Activity] = View()
    locks: View[Lock] = View()
    blockers: View[Blocked] = View()
    """Asked for a few sessions only, and only while somebody waits: those that have waited longest."""
    statements: View[Statement] = View()
    statements_before: View[Statement] = View()
    """The good reading before the one in `statements`: the change between them is that of the last poll."""
    indexes: View[IndexUse] = View()
    tables: View[TableUse] = View()
    progress: View[Progress] = View()
    replication: View[Replication] = View()
