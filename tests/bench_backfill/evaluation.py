"""From runs to ratios of medians, and whether they reach what is asked. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from bench_backfill.values import Figure, Goal, Kind, Measure, Point, Run

AS_GENTLE = 1.05
"""An application p99 up to so many times the tool's counts as equal."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal, what was found, and whether that reaches it."""

    goal: Goal
    value: float | None
    """None: it could not be measured."""

    @property
    def word(self) -> str:
        """Reached, missed, or not measured."""
        if self.value is None:
            return "not measured"
        return "reached" if self.goal.holds(self.value) else "missed"


def verdicts(figure: Figure, runs: Sequence[Run]) -> tuple[Verdict, ...]:
    """What became of the goals of *figure*, and of one that nobody escapes: no row is left pending."""
    tools = [each.name for each in figure.contenders if each.kind is Kind.TOOL]
    complete = [Goal(Measure.PENDING, at_most=0, of=name) for name in tools]
    return tuple(Verdict(goal, found(goal, figure, runs)) for goal in (*figure.goals, *complete))


def found(goal: Goal, figure: Figure, runs: Sequence[Run]) -> float | None:
    """What *runs* say to *goal*; None where they say nothing."""
    ours = [run for run in runs if run.contender == goal.of]
    theirs = [run for run in runs if run.contender == goal.against]
    match goal.measure:
        case Measure.SPEED:
            return _ratio(theirs, ours, would_take_s)
        case Measure.SPEED_AT_EQUAL_P99:
            return _at_equal_p99(goal, figure, runs)
        case Measure.WAL:
            return _ratio(ours, theirs, lambda run: run.wal_bytes)
        case Measure.HEAP:
            return middle(ours, heap)
        case Measure.BATCH_P99_MS:
            return middle(ours, lambda run: run.batches.p99_ms if run.batches else None)
        case Measure.BATCH_MAX_MS:
            return worst(ours, lambda run: run.batches.max_ms if run.batches else None)
        case Measure.APP_SERVED:
            return middle(ours, served)
        case Measure.APP_P99:
            return _ratio(ours, theirs, app_p99)
        case Measure.APP_MAX_MS:
            return worst(ours, lambda run: run.app.max_ms if run.app else None)
        case Measure.CPU:
            return middle(ours, cpu_share)
        case Measure.CPU_FLAT:
            return middle(ours, lambda run: _tenths(run, lambda point: point.cpu_s))
        case Measure.TENTHS:
            return middle(ours, lambda run: _tenths(run, lambda point: point.seconds))
        case Measure.PENDING:
            return worst(ours, lambda run: run.pending)


Value = Callable[[Run], float | None]


def middle(runs: Sequence[Run], value: Value) -> float | None:
    """The median over the rounds; None where a round is without the value, or there is none."""
    values = [value(run) for run in runs]
    known = [each for each in values if each is not None]
    return median(known) if known and len(known) == len(values) else None


def worst(runs: Sequence[Run], value: Value) -> float | None:
    """The largest over the rounds; None as in `middle`."""
    values = [value(run) for run in runs]
    known = [each for each in values if each is not None]
    return max(known) if known and len(known) == len(values) else None


def would_take_s(run: Run) -> float | None:
    """Seconds to the end; of a run that was cut off, what it would have taken had it gone on as fast."""
    done = run.rows - run.pending
    if not run.cut or done <= 0:
        return run.seconds
    return run.seconds * run.rows / done


def heap(run: Run) -> float | None:
    """How large the heap is afterwards against before."""
    return run.heap_after / run.heap_before if run.heap_before else None


def served(run: Run) -> float | None:
    """Share of the application's requests that were served."""
    return run.app.served / run.app.due if run.app and run.app.due else None


def app_p99(run: Run) -> float | None:
    """The application's p99 in ms."""
    return run.app.p99_ms if run.app else None


def cpu_share(run: Run) -> float | None:
    """Share of one core that the client used from its first line to its end; the start of the process is not in it."""
    if len(run.trace) < 2:
        return None
    first, last = run.trace[0], run.trace[-1]
    if first.cpu_s is None or last.cpu_s is None or last.seconds <= first.seconds:
        return None
    return (last.cpu_s - first.cpu_s) / (last.seconds - first.seconds)


def _ratio(above: Sequence[Run], below: Sequence[Run], value: Value) -> float | None:
    upper, lower = middle(above, value), middle(below, value)
    return upper / lower if upper is not None and lower else None


def _at_equal_p99(goal: Goal, figure: Figure, runs: Sequence[Run]) -> float | None:
    ours = [run for run in runs if run.contender == goal.of]
    bound = middle(ours, app_p99)
    if bound is None:
        return None
    ratios = []
    for name in [each.name for each in figure.contenders if each.family == goal.against]:
        theirs = [run for run in runs if run.contender == name]
        p99 = middle(theirs, app_p99)
        if p99 is None:
            return None
        if p99 <= AS_GENTLE * bound:
            ratios.append(found(replace(goal, measure=Measure.SPEED, against=name), figure, runs))
    known = [ratio for ratio in ratios if ratio is not None]
    return min(known, default=math.inf)


def _tenths(run: Run, value: Callable[[Point], float | None]) -> float | None:
    """What grew by *value* over the last tenth of the rows, against the first tenth."""
    walked = [point for point in run.trace if value(point) is not None]
    walking = [
        point
        for n, point in enumerate(walked)
        if n == 0 or point.rows > walked[n - 1].rows  # at the end the final scan goes on without a row
    ]
    if len(walking) < 3:
        return None
    low, high = walking[0].rows, walking[-1].rows
    tenth = (high - low) / 10
    at = [_at(walking, rows, value) for rows in (low, low + tenth, high - tenth, high)]
    return (at[3] - at[2]) / (at[1] - at[0]) if at[1] > at[0] else None


def _at(points: Sequence[Point], rows: float, value: Callable[[Point], float | None]) -> float:
    """*value* when so many *rows* were done, between the looks as if it grew evenly."""
    for before, after in pairwise(points):
        if rows <= after.rows:
            low, high = value(before) or 0.0, value(after) or 0.0
            return low + (high - low) * (rows - before.rows) / (after.rows - before.rows)
    return value(points[-1]) or 0.0
