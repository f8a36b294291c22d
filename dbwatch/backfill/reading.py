"""What one look at the server found: values, as the queries brought them, judged by nobody yet. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Waiter:
    """A session that waits for a lock of our worker."""

    pid: int
    application: str
    seconds: float
    backend_start: datetime | None = None
    """None where privileges hide it: then the pid alone has to tell sessions apart."""
    since: datetime | float | None = None
    """What tells one wait of a session from its next one: the server's instant, before 14 our clock's."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A standby that follows."""

    application: str
    lag_s: float | None
    """Replay lag; None where nothing is to be replayed, or where privileges hide it."""
    lag_bytes: int | None


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot."""

    name: str
    wal_status: str
    """`reserved`, `extended`, `unreserved` or `lost`."""
    safe_wal_size: int | None
    """Bytes of WAL that may be written before it is lost; None: nothing limits what it keeps."""
    keep_size: int | None
    """max_slot_wal_keep_size in bytes; None: no limit."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who keeps dead rows of this database from being removed."""

    who: str
    """`session 4711 (reports)`, `slot s1`, `prepared transaction x`."""
    seconds: float | None
    """How long; None where the server does not tell (slots, standbys), and it is counted from when it was first
    seen."""
    xmin: str
    """The same one as long as it holds the same."""


@dataclass(frozen=True, slots=True)
class Server:
    """How busy the server is, and which one it is."""

    active: int | None
    """Sessions of others that work right now; None where privileges hide that."""
    lately: int | None
    """The same within the last second: most statements are over before anybody looks."""
    connections: int
    usable: int
    """Connections that max_connections leaves to those who are no superusers."""
    wal: int | None
    """Position in the WAL, in bytes; None on a standby."""
    max_wal_size: int
    """Bytes."""
    checkpoint_timeout_s: float
    identity: tuple[str, str, str]
    """System identifier, timeline (empty on a standby), and when it was started."""
    brisk: int = 0
    """Sessions of others that began or ended a statement within the last second."""
    busy: int = 0
    """Of those, the ones that work right now: not those that a long statement keeps."""
    glances: tuple[tuple[int, int], ...] = ()
    """The same two at other moments since the last reading."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Counters of the whole server's and this database's mishaps since the statistics were reset."""

    checkpoints: int
    """Requested ones: mostly because max_wal_size was reached before checkpoint_timeout."""
    deadlocks: int
    conflicts: int
    """Queries cancelled by replay; a primary counts none."""


@dataclass(frozen=True, slots=True)
class Table:
    """The table that is filled, with its partitions, as the statistics know it."""

    name: str
    live: int
    dead: int
    updated: int
    hot: int
    freeze_age: int
    """The highest age(relfrozenxid) among it and its partitions, in transactions."""
    vacuum: str
    """What a VACUUM at work on it does: `scanning heap, 34 %`; empty: none is seen."""
    cleaned: bool
    """Autovacuum is on, and nobody turned it off for this table."""


@dataclass(frozen=True, slots=True)
class Latency:
    """What the application's statements took of late, against what the same ones took when we began."""

    calls: int
    ms: float
    """A call, in the mean."""
    usual_ms: float
    """The same calls at what each of their statements took in the first seconds."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the server, in the monotonic seconds of our clock."""

    at: float
    waiters: tuple[Waiter, ...] = ()
    replicas: tuple[Replica, ...] = ()
    worker_waits_s: float | None = None
    """How long our worker has been waiting for a lock; None where it does not."""
    worker_waits_for: str = ""
    """Who holds that lock, in plain words."""
    server: Server | None = None
    slots: tuple[Slot, ...] = ()
    holders: tuple[Holder, ...] = ()
    counts: Counts | None = None
    table: Table | None = None
    """None where the relation is gone, and on the way back."""
    latency: Latency | None = None
    """None where there is no pg_stat_statements, and while too few calls were seen to tell."""
    slow: Mapping[str, float] = field(default_factory=dict)
    """When each part that is read less often was seen last, by its name in SLOW; one that cannot exist here is not in
    it."""


SLOW: Mapping[str, tuple[str, ...]] = {
    "counts": ("checkpoints", "deadlocks", "conflicts"),
    "table": ("dead", "freeze"),
    "calls": ("latency",),
}
"""The parts that are read less often, and the signals that pause by them."""
SLOW_EVERY = 5
"""They are read in every fifth look: up to 14 the server writes its statistics to a file for each reader, and the
figures of 500 statements are some 40 kB. What they tell changes over minutes."""
