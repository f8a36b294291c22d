"""Turns batches into what a screen shows: rates, the way still to go, the time it will take."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from dbwatch.backfill.harm import Harm
from dbwatch.backfill.health import Gate
from dbwatch.backfill.pace import DUTY_MOST, Pace
from dbwatch.backfill.plan import Plan
from dbwatch.backfill.progress import HISTORY, BackfillProgress, Progress, State, Worker
from dbwatch.backfill.row import Position
from dbwatch.backfill.walk import Walk
from dbwatch.clock import Clock
from dbwatch.text import age

RATE_OVER_S = 10.0
"""The stretch of time that a rate is taken over."""


class Reporter:
    """Remembers what progress needs beyond the present values, and hands progress on."""

    def __init__(self, plan: Plan, clock: Clock, progress: Progress) -> None:
        self._plan = plan
        self._clock = clock
        self._progress = progress
        self._history: deque[float] = deque(maxlen=HISTORY)
        self._passed: deque[tuple[float, int, int]] = deque()
        self._rows_before = 0
        self.worker: Worker | None = None
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

    def began(self, at: Position) -> None:
        """The backfill stands there when this run begins."""
        self._rows_before = at.rows_done
        self._passed.append((self._clock.monotonic(), at.rows_done, at.scanned))

    def batch(self, seconds: float) -> None:
        """A batch took so long."""
        self._history.append(seconds * 1000)

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
        told = BackfillProgress(
            table=self._plan.table,
            state=state,
            reason=reason,
            rows_done=at.rows_done,
            rows_total_estimate=at.rows_done if over else self._total(at),
            fraction=1.0 if over else min(0.999, at.scanned / total if total else 0.0),
            rows_per_s=max(0.0, (at.rows_done - rows) / seconds),
            eta_s=0.0 if over else left / key_rate if key_rate > 0 else None,
            batch_rows=pace.size,
            batch_ms=self._history[-1] if self._history else 0.0,
            target_ms=pace.target_s * 1000,
            duty=pace.duty,
            batches=at.batches,
            level=pace.level,
            checking=self.checking,
            history=tuple(self._history),
            worker=self.worker,
            remaining=self.remaining,
            blocked=self.blocked,
            quarantined=self.quarantined,
            epoch=at.epoch,
            images_bytes=self._plan.images_bytes,
            walk=self.walk,
            hot=self.hot,
            was=was,
            delayed=self.harm.sessions,
            delayed_s=self.harm.total_s,
            delayed_worst_s=self.harm.worst_s,
            usual=self.usual,
            warnings=tuple(self.warnings.items()),
            overridden=tuple(self.overridden.items()),
        )
        self._progress(told)
        return told

    def _total(self, at: Position) -> int:
        before = self._rows_before if self._plan.spec.mode == "pending" else 0
        return max(at.rows_done, before + self._plan.pending_estimate)


def why_slow(pace: Pace, gate: Gate, overridden: Mapping[str, float]) -> str:
    """Why a running backfill is not at full speed, and what it does not look at, in plain words; empty where neither
    is so."""
    reasons = [f"{signal} is overridden for {age(seconds)} yet" for signal, seconds in overridden.items()]
    if pace.level:
        reasons.append(f"{'faster' if pace.level > 0 else 'gentler'} by hand ({pace.level:+d})")
    if pace.auto_duty < DUTY_MOST:
        reasons.append(f"works {pace.duty:.0%} of the time" + (f": {gate.worst}" if gate.worst else " after a pause"))
    if pace.hold:
        reasons.append("small batches for a while after one that took too long")
    return "; ".join(reasons)
