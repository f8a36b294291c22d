"""What the application feels, from the counters of pg_stat_statements. Pure.

A mean over all calls says little: it rises when somebody runs a report. So each statement is held against itself:
what the calls of the last seconds took, against what as many calls of the same statements took when we began.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dbwatch.backfill.reading import Latency

Calls = Mapping[int, tuple[int, float]]
"""By queryid: how often it was called, and the milliseconds that took, since the server began to count."""

LEAST_CALLS = 20
"""Fewer calls of known statements say nothing."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The counters before, and what each statement usually takes."""

    before: Calls | None = None
    usual: Calls = field(default_factory=dict)
    """Calls and milliseconds by queryid, while it was learnt what is usual."""

    def after(self, calls: Calls, *, learning: bool) -> tuple[Ledger, Latency | None]:
        """The ledger after a further look at the application's own *calls*, and what it says; None where that is
        nothing yet. It learns what is usual while *learning*, and until it knows of LEAST_CALLS calls."""
        if self.before is None:
            return Ledger(calls, self.usual), None
        new = {queryid: _since(self.before.get(queryid), now) for queryid, now in calls.items()}
        ran = {queryid: spent for queryid, spent in new.items() if spent[0] > 0}
        if learning or _total(self.usual)[0] < LEAST_CALLS:
            usual = {queryid: _total({0: self.usual.get(queryid, _NONE), 1: spent}) for queryid, spent in ran.items()}
            return Ledger(calls, {**self.usual, **usual}), None
        times, took = _total({queryid: spent for queryid, spent in ran.items() if queryid in self.usual})
        if times < LEAST_CALLS:
            return Ledger(calls, self.usual), None
        known = ((spent[0], self.usual[queryid]) for queryid, spent in ran.items() if queryid in self.usual)
        usually = sum(n * of[1] / of[0] for n, of in known)
        return Ledger(calls, self.usual), Latency(times, took / times, usually / times)

    @property
    def usual_ms(self) -> float | None:
        """What a call took when we began, in the mean; None while too few were seen."""
        times, took = _total(self.usual)
        return took / times if times >= LEAST_CALLS else None


_NONE = (0, 0.0)


def _total(calls: Calls) -> tuple[int, float]:
    return sum(times for times, _ in calls.values()), sum(ms for _, ms in calls.values())


def _since(before: tuple[int, float] | None, now: tuple[int, float]) -> tuple[int, float]:
    """What was added; nothing where the counters were reset, or the statement is new among those looked at."""
    if before is None or now[0] < before[0]:
        return _NONE
    return now[0] - before[0], now[1] - before[1]
