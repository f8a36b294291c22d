"""What a backfill tells of itself while it runs: values for a screen, a journal line or a JSON line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dbwatch.backfill.heap import Heap
from dbwatch.backfill.walk import Walk
from dbwatch.text import clock

HISTORY = 300
"""How many batch times a progress carries."""


class State(StrEnum):
    """What a backfill is doing."""

    RUNNING = "running"
    PAUSED = "paused"
    """A person said so."""
    THROTTLED = "throttled"
    """A health signal, a lock or a lost connection said so; it goes on by itself."""
    DONE = "done"
    INCOMPLETE = "incomplete"
    """Walked to the end, and rows are still pending; the reason says why."""
    STOPPED = "stopped"
    """A person stopped it; the next run goes on from the cursor."""
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        return self in (State.DONE, State.INCOMPLETE, State.STOPPED, State.FAILED)


@dataclass(frozen=True, slots=True)
class Worker:
    """The backend that runs the batches: what a cancel has to name."""

    pid: int
    backend_start: datetime


@dataclass(frozen=True, slots=True)
class BackfillProgress:
    """One look at a running backfill. Rates are over the last 10 s, sleeps included."""

    table: str
    state: State
    reason: str = ""
    """Why it is slow, paused or over, in plain words; empty at full speed."""
    rows_done: int = 0
    """Rows changed since the backfill was first started, earlier runs included."""
    rows_total_estimate: int | None = None
    """Rows that will have been changed at the end; an estimate until the end."""
    fraction: float = 0.0
    """How much of the table the cursor has passed, 0 to 1; 1 only when it is over."""
    rows_per_s: float = 0.0
    eta_s: float | None = None
    """Seconds to the end at the present rate; None while that is unknown."""
    eta_low_s: float | None = None
    """Seconds to the earliest end that is likely, by the spread of the rates so far (`eta.spread`); None: unknown."""
    eta_high_s: float | None = None
    """The same to the latest; None with *eta_low_s* known: it stands still so often that nobody can tell."""
    batch_rows: int = 0
    """Keys that the next batch may take; in stripes one of a first pass, the light ones take more."""
    batch_ms: float = 0.0
    """What the last batch took on the server, COMMIT included."""
    target_ms: float = 0.0
    """What one should take, manual speed and company included."""
    base_target_ms: float = 0.0
    """The same without them: as planned, or as a person set it since."""
    duty: float = 1.0
    """The share of time spent working, 0 to 1; the rest is slept."""
    alone_ms: float = 0.0
    """What one should take while nobody else works on the server: more than *target_ms* while others do."""
    batches: int = 0
    level: int = 0
    """Manual speed: 0 as planned, below gentler, above faster."""
    checking: bool = False
    """The walk is over; the final scan looks for rows that are still pending."""
    history: tuple[float, ...] = ()
    """The last batch times in ms, oldest first, at most HISTORY."""
    worker: Worker | None = None
    """None while not connected, and behind a pooler."""
    crew: tuple[Worker, ...] = ()
    """Those who fill beside it; none where it works alone."""
    remaining: int | None = None
    """Rows still pending as the final scan counts them; None before it."""
    blocked: int = 0
    """Sessions that wait for our worker, at the last look."""
    quarantined: int = 0
    """Rows in quarantine, since they could not take their value; earlier runs included."""
    epoch: int = 0
    images_bytes: int | None = None
    """How large the before-images will be, as the plan estimated it; None: none are kept."""
    walk: Walk | None = None
    """How it walks; None before the first batch, and on the way back."""
    walk_why: str = ""
    """Why so, in plain words."""
    hot: float | None = None
    """Share of HOT updates in the last window; None where that is not known."""
    striped: float | None = None
    """Share of this run's rows that were filled in stripes; None before the first batch."""
    wal_bytes: int = 0
    """WAL that the server wrote during the batches of this run: an upper bound of ours."""
    wal_rows: int = 0
    """Rows that these batches changed."""
    wal_per_row_foretold: float | None = None
    """Bytes that the plan expected of each; None where it was not asked."""
    heap: Heap | None = None
    """The table on disk, as it was when this run began and now; None: not measured yet, or it cannot be."""
    bloat_foretold: int | None = None
    """Bytes by which the plan expected the heap to grow."""
    was: str = ""
    """The reason as it is told once it is over, where that reads otherwise: `replica r1 was 4.8 s behind`."""
    delayed: int = 0
    """Sessions that were seen to wait for our batches in this run."""
    delayed_s: float = 0.0
    """Their waiting all together."""
    delayed_worst_s: float = 0.0
    """The longest of it."""
    usual: str = ""
    """What was usual on the server when the run began, against which its load is held; empty while it is learnt."""
    warnings: tuple[tuple[str, str], ...] = ()
    """Health signals that only warn: their short names, and what they say."""
    overridden: tuple[tuple[str, float], ...] = ()
    """Health signals that a person overrode, and for how many seconds yet."""
    signal: str = ""
    """The short name of the health signal that holds it back, or slows it most; empty where none does."""
    ordered: str = ""
    """The newest order from another terminal that it obeyed, in plain words; empty: none."""
    compared: int = 0
    """Filled rows of which it was looked whether `Spec.same` holds, a row as often as it was looked at."""
    differing: int = 0
    """Rows that were seen for which it did not."""
    differs: str = ""
    """A warning about those; empty: all that was seen is as it should be, or nothing was asked."""


_UNITS = ((100, ("s", 1, 0)), (6000, ("min", 60, 0)), (48 * 3600, ("h", 3600, 1)), (float("inf"), ("d", 86400, 1)))
"""Up to so many seconds, which unit with how many digits; as `text.age` has them."""


def left(progress: BackfillProgress) -> str:
    """How long still, for a person: `12:40 (10 to 18 min)`, `0:55`, `unknown`. Pure."""
    middle = "unknown" if progress.eta_s is None else clock(progress.eta_s)
    low, high = progress.eta_low_s, progress.eta_high_s
    if low is None or progress.state.ended or progress.eta_s == 0:
        return middle
    return f"{middle} ({between(low, high)})"


def between(low_s: float, high_s: float | None) -> str:
    """A range of durations in one unit: `40 to 70 s`, `10 to 18 min`, `2.1 to 3.5 h`, `12 min or more`. Pure."""
    longest = low_s if high_s is None else high_s
    unit, seconds, digits = next((unit for upto, unit in _UNITS if longest < upto))
    first = f"{low_s / seconds:.{digits}f}"
    if high_s is None:
        return f"{first} {unit} or more"
    last = f"{high_s / seconds:.{digits}f}"
    if float(first) == 0:
        return f"up to {last} {unit}"
    return f"{first} {unit}" if first == last else f"{first} to {last} {unit}"


Progress = Callable[[BackfillProgress], None]
"""Called on the event loop after each batch and each change of state; must return at once."""


def nobody(progress: BackfillProgress) -> None:
    """The Progress of a backfill that nobody watches."""
