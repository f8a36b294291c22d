"""What is measured, what was found, and what is asked of it: values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, LiteralString


class Kind(StrEnum):
    """What a contender is."""

    TOOL = "tool"
    """`dbwatch backfill`."""
    RIVAL = "rival"
    """A loop of rivals.py."""
    NOBODY = "nobody"
    """The application alone."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Somebody who fills the table."""

    name: str
    kind: Kind
    arguments: tuple[str, ...] = ()
    """Of the command, beside table, SET and WHERE."""
    family: str = ""
    """What contenders have in common that differ only in the size of a batch."""


@dataclass(frozen=True, slots=True)
class Table:
    """How `users` is made; every run gets a copy of it, file by file."""

    name: str
    key: str = "sequential"
    """One of stage.KEYS."""
    fillfactor: int = 100
    also: tuple[LiteralString, ...] = ()
    """Statements once it is filled."""
    share: float = 1.0
    """Of the rows asked for."""


class Measure(StrEnum):
    """What a goal speaks of; each is a ratio of medians over the rounds where it compares, see evaluation.py."""

    SPEED = "speed"
    """Times as fast as the other."""
    SPEED_AT_EQUAL_P99 = "speed at equal application p99"
    """Times as fast as the fastest of a family that is as gentle; without one, infinite."""
    WAL = "WAL"
    """Bytes of it, against the other's."""
    HEAP = "heap"
    """After against before."""
    BATCH_P99_MS = "batch p99, ms"
    BATCH_MAX_MS = "batch max, ms"
    """The longest of all rounds."""
    APP_SERVED = "application requests served"
    """Share of those that fell due while the backfill ran and were answered while it ran."""
    APP_P99 = "application p99"
    """Against the other's."""
    APP_MAX_MS = "application max, ms"
    """The longest of all rounds."""
    CPU = "client CPU"
    """Share of one core while it runs, from its first line on."""
    CPU_FLAT = "client CPU, last tenth against first"
    TENTHS = "time per row, last tenth against first"
    PENDING = "rows left pending"
    """The most of all rounds."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What is asked of a contender."""

    measure: Measure
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    against: str = ""
    """The contender, or the family, it is compared with."""
    of: str = "dbwatch"

    def holds(self, value: float) -> bool:
        """Whether *value* reaches it."""
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.above is None or value > self.above)
        )

    @property
    def limit(self) -> str:
        """In signs."""
        signs = ((">=", self.at_least), ("<=", self.at_most), (">", self.above))
        return " and ".join(f"{sign} {value:g}" for sign, value in signs if value is not None)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of what is promised, or of what is only measured."""

    name: str
    title: str
    table: Table
    contenders: tuple[Contender, ...]
    goals: tuple[Goal, ...] = ()
    """None: as measured."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The server's; such as need no restart."""
    load: float | None = None
    """The application asks for this share of what it could get alone."""
    old_xmin: bool = False
    """A snapshot from before each run is held until its end."""
    checkpoint: bool = False
    """One CHECKPOINT in the middle of each run."""
    scale: int = 1
    """Times the rows asked for."""
    rivals_s: float = 600.0
    """A rival is cut off then; its time is then what it would at least have taken. The tool is never: it fails then,
    where it takes longer than LONGEST_S times *scale*."""


@dataclass(frozen=True, slots=True)
class Batches:
    """How long the transactions that changed rows took, by the server's log, their COMMIT included."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class App:
    """What an application with an open loop felt; latencies are counted from when a request fell due."""

    asked_tps: float
    due: int
    """Requests that fell due while the backfill ran."""
    served: int
    """Those answered while it ran."""
    p50_ms: float
    p99_ms: float
    max_ms: float

    @property
    def unserved(self) -> int:
        """Requests not served."""
        return self.due - self.served


@dataclass(frozen=True, slots=True)
class Point:
    """A look at a running child: seconds since it was started, rows done, CPU seconds used."""

    seconds: float
    rows: int
    cpu_s: float | None


@dataclass(frozen=True, slots=True)
class Run:
    """What one contender did in one round."""

    contender: str
    round: int
    rows: int
    """In the table, all of them pending at first."""
    seconds: float
    """Of the whole process, from its start to its end."""
    pending: int = 0
    """Left, as counted afterwards."""
    wal_bytes: int = 0
    """Written by the whole server meanwhile."""
    heap_before: int = 0
    heap_after: int = 0
    hot: float | None = None
    batches: Batches | None = None
    cpu_s: float = 0.0
    trace: tuple[Point, ...] = ()
    """The tool's own lines, and its end."""
    app: App | None = None
    cut: bool = False
    said: Mapping[str, Any] = field(default_factory=dict)
    """The child's last line."""


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of what is in *ordered*, which is not empty."""
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 10_000) * len(ordered) // 10_000) - 1))]


def batches_of(durations_ms: Sequence[float]) -> Batches | None:
    """A summary; None where nothing was measured."""
    ordered = sorted(durations_ms)
    if not ordered:
        return None
    return Batches(len(ordered), percentile(ordered, 0.5), percentile(ordered, 0.99), ordered[-1])
