"""Turns batches into what a screen shows: rates, the way still to go, the time it will take."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from dbwatch.backfill import eta
from dbwatch.backfill.harm import Harm
from dbwatch.backfill.health import Gate
from dbwatch.backfill.heap import Heap
from dbwatch.backfill.pace import BUSY_DUTY, DUTY_MOST, Batch, Pace
from dbwatch.backfill.plan import Plan
from dbwatch.backfill.progress import HISTORY, BackfillProgress, Progress, State, Worker
from dbwatch.backfill.row import Position
from dbwatch.backfill.walk import Walk
from dbwatch.clock import Clock
from dbwatch.text import age

RATE_OVER_S = 10.0
"""The stretch of time that a rate is taken over."""
MARK_EVERY_S = 1.0
"""How often it is remembered how far it was, for the spread of the rates."""


class Reporter:
    """Remembers what progress needs beyond the present values, and hands progress on."""

    def __init__(self, plan: Plan, clock: Clock, progress: Progress) -> None:
        self._plan = plan
        self._clock = clock
        self._progress = progress
        self._history: deque[float] = deque(maxlen=HISTORY)
        self._passed: deque[tuple[float, int, int]] = deque()
        self._marks: deque[eta.Seen] = deque(maxlen=round(eta.MEMORY_S / MARK_EVERY_S) + 1)
        self._paused_s = 0.0
        self._last: tuple[float, State] | None = None
        self._wal_bytes = self._wal_rows = self._striped_rows = 0
        self._rows_before = 0
        self.worker: Worker | None = None
        self.crew: tuple[Worker, ...] = ()
        self.blocked = 0
        self.remaining: int | None = None
        self.walk: Walk | None = None
        self.hot: float | None = None
        self.checking = False
        self.harm = Harm()
        self.usual = ""
        self.warnings: Mapping[str, str] = {}
        self.overridden: Mapping[str, float] = {}
        self.quarantined = 0
        self.signal = ""
        self.heap: Heap | None = None
        self.ordered = ""
        self.compared = self.differing = 0
        self.differs = ""

    def began(self, at: Position) -> None:
        """The backfill stands there when this run begins."""
        self._rows_before = at.rows_done
        self._passed.append((self._clock.monotonic(), at.rows_done, at.scanned))

    def batch(self, batch: Batch) -> None:
        """A batch was committed."""
        self._history.append(batch.seconds * 1000)
        self._wal_bytes += batch.wal_bytes
        self._wal_rows += batch.rows
        self._striped_rows += batch.rows if self.walk is Walk.STRIPES else 0

    def tell(self, state: State, reason: str, at: Position, pace: Pace, was: str = "") -> BackfillProgress:
        """Hands on how it stands now; *was* is how the reason is told once it is over."""
        now = self._clock.monotonic()
        self._passed.append((now, at.rows_done, at.scanned))
        while len(self._passed) > 2 and now - self._passed[1][0] > RATE_OVER_S:
            self._passed.popleft()
        then, rows, keys = self._passed[0]
        seconds = max(now - then, 1e-9)
        key_rate = (at.scanned - keys) / seconds
        total = self._plan.rows_estimate
        left = max(0, total - at.scanned)
        over = state in (State.DONE, State.INCOMPLETE)
        eta_s = left / key_rate if key_rate > 0 else None
        low_s, high_s = self._spread(now, state, at.scanned, left, eta_s)
        if over:
            eta_s = low_s = high_s = 0.0
        elif not left or self.checking:  # there is more than was estimated, or the scan: how much, nobody knows
            eta_s = low_s = high_s = None
        forecast, pending = self._plan.forecast, self._plan.pending_estimate
        told = BackfillProgress(
            table=self._plan.table,
            state=state,
            reason=reason,
            rows_done=at.rows_done,
            rows_total_estimate=at.rows_done if over else self._total(at),
            fraction=1.0 if over else min(0.999, at.scanned / total if total else 0.0),
            rows_per_s=max(0.0, (at.rows_done - rows) / seconds),
            eta_s=eta_s,
            eta_low_s=low_s,
            eta_high_s=high_s,
            batch_rows=pace.size,
            batch_ms=self._history[-1] if self._history else 0.0,
            target_ms=pace.target_s * 1000,
            base_target_ms=pace.base_target_s * 1000,
            duty=pace.duty,
            alone_ms=pace.alone_s * 1000,
            batches=at.batches,
            level=pace.level,
            checking=self.checking,
            history=tuple(self._history),
            worker=self.worker,
            crew=self.crew,
            remaining=self.remaining,
            blocked=self.blocked,
            quarantined=self.quarantined,
            epoch=at.epoch,
            images_bytes=self._plan.images_bytes,
            walk=self.walk,
            walk_why=why_so(self._plan, self.walk),
            hot=self.hot,
            striped=self._striped_rows / self._wal_rows if self._wal_rows else None,
            wal_bytes=self._wal_bytes,
            wal_rows=self._wal_rows,
            wal_per_row_foretold=forecast.wal_bytes / pending if forecast is not None and pending else None,
            heap=self.heap,
            bloat_foretold=forecast.bloat_bytes if forecast is not None else None,
            was=was,
            delayed=self.harm.sessions,
            delayed_s=self.harm.total_s,
            delayed_worst_s=self.harm.worst_s,
            usual=self.usual,
            warnings=tuple(self.warnings.items()),
            overridden=tuple(self.overridden.items()),
            signal=self.signal,
            ordered=self.ordered,
            compared=self.compared,
            differing=self.differing,
            differs=self.differs,
        )
        self._progress(told)
        return told

    def _spread(
        self, now: float, state: State, scanned: int, left: int, eta_s: float | None
    ) -> tuple[float | None, float | None]:
        """Between when and when it will be over. The time in which a person had it paused says nothing of that."""
        if self._last is not None and self._last[1] is State.PAUSED:
            self._paused_s += now - self._last[0]
        self._last = (now, state)
        worked = now - self._paused_s
        if self._marks and scanned < self._marks[-1][1]:  # a failover took batches back
            self._marks.clear()
        if not self._marks or worked - self._marks[-1][0] >= MARK_EVERY_S:
            self._marks.append((worked, scanned))
        low_s, high_s = eta.spread((*self._marks, (worked, scanned)), left)
        if eta_s is None or low_s is None:
            return low_s, high_s
        return min(low_s, eta_s), max(high_s, eta_s) if high_s is not None else None

    def _total(self, at: Position) -> int:
        before = self._rows_before if self._plan.spec.mode == "pending" else 0
        return max(at.rows_done, before + self._plan.pending_estimate)


def why_so(plan: Plan, walk: Walk | None) -> str:
    """Why a backfill walks as it does, in plain words; empty before it walks. Pure."""
    if walk is None:
        return ""
    if plan.spec.walk is not Walk.AUTO:
        return "as it was asked for"
    if plan.why_plain:
        return plan.why_plain
    other = "a plain walk is" if walk is Walk.STRIPES else "stripes are"
    return f"{other} timed against it now and then"


def why_slow(pace: Pace, gate: Gate, overridden: Mapping[str, float]) -> str:
    """Why a running backfill is not at full speed, and what it does not look at, in plain words; empty where neither
    is so."""
    reasons = [f"{signal} is overridden for {age(seconds)} yet" for signal, seconds in overridden.items()]
    if pace.level:
        reasons.append(f"{'faster' if pace.level > 0 else 'gentler'} by hand ({pace.level:+d})")
    if pace.most_per_s:
        reasons.append(f"{pace.most_per_s:,} rows a second at most, as it was asked for")
    if pace.busy and pace.auto_duty > BUSY_DUTY:
        reasons.append(f"works {pace.duty:.0%} of the time: the sessions of others are hardly ever idle")
    elif pace.auto_duty < DUTY_MOST:
        reasons.append(f"works {pace.duty:.0%} of the time" + (f": {gate.worst}" if gate.worst else " after a pause"))
    if pace.hold:
        reasons.append("small batches for a while after one that took too long")
    return "; ".join(reasons)
