"""A backfill that has begun, in lines: how far, how fast, whom it harms, and why it is not faster. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from textual.content import Content

from dbwatch import text
from dbwatch.backfill.progress import BackfillProgress, State, left
from dbwatch.backfill.walk import Walk
from dbwatch.tui.bars import bars, spark
from dbwatch.tui.header import bar, meter
from dbwatch.tui.panes.plan import percent
from dbwatch.tui.say import BAD, FAINT, GOOD, WARN

LABEL = 10
"""Cells of the column of names."""
CHART_LINES = (4, 12)
"""A chart of fewer lines says no more than the line of blocks does; of more, nothing new."""

WORDS: dict[State, tuple[str, str]] = {
    State.RUNNING: ("▶ running", GOOD),
    State.PAUSED: ("‖ PAUSED", WARN),
    State.THROTTLED: ("◌ HELD BACK", WARN),
    State.DONE: ("✓ done", GOOD),
    State.INCOMPLETE: ("✗ INCOMPLETE", BAD),
    State.STOPPED: ("■ stopped", WARN),
    State.FAILED: ("✗ FAILED", BAD),
}


def why(progress: BackfillProgress, *, driving: bool = True) -> tuple[str, str]:
    """Why it is not at full speed right now, and a style; that it is, where it is. Only who drives overrides."""
    match progress.state:
        case State.PAUSED:
            return f"{progress.reason or 'paused by hand'}; b goes on", WARN
        case State.THROTTLED:
            way_out = "; o goes on all the same" if driving and progress.signal else ""
            return f"{progress.reason or 'held back'}; goes on by itself{way_out}", WARN
        case State.STOPPED:
            return f"{progress.reason or 'stopped'}; b goes on from the cursor", WARN
        case State.FAILED | State.INCOMPLETE:
            return progress.reason or "no reason was given", BAD
        case State.DONE:
            return progress.reason, ""
        case State.RUNNING:
            if progress.checking:
                return "all keys are walked; a last scan looks for rows that are still pending", ""
            return (progress.reason, WARN) if progress.reason else ("at full speed", FAINT)


def progress_lines(
    progress: BackfillProgress, width: int, height: int | None = None, *, driving: bool = True
) -> list[Content]:
    """A backfill that has begun, in lines of *width* cells; only who drives has keys for its speed.

    What presses stands above what is of interest only. Where *height* leaves room, its batches are drawn as a chart.
    """
    reason, tone = why(progress, driving=driving)
    lines = [
        *_how_far(progress, width),
        *([line("why", Content.styled(reason, tone))] if reason else []),
        *_alarms(progress),
        Content(""),
    ]
    rest = [*_how(progress, driving=driving), *_what_for(progress)]
    room = 0 if height is None else min(CHART_LINES[1], height - len(lines) - len(rest) - 1)
    if room < CHART_LINES[0] or not progress.history or progress.target_ms <= 0:
        cells = max(0, min(len(progress.history), width - LABEL - 40))
        return [*lines, _batch(progress, spark(progress.history, cells, 2 * progress.target_ms)), *rest]
    return [*lines, _batch(progress, ""), *chart_lines(progress, width - LABEL - 3, room), *rest]


def chart_lines(progress: BackfillProgress, width: int, height: int) -> list[Content]:
    """The last batches against their target, in so many lines."""
    drawn = bars(progress.history, progress.target_ms, width, height)
    return [
        Content.assemble((f" {'' if named is None else f'{named:.0f} ms':>{LABEL}} ", FAINT), cells)
        for named, cells in drawn
    ]


def _how_far(progress: BackfillProgress, width: int) -> Iterator[Content]:
    word, style = WORDS[progress.state]
    rows = f"{progress.rows_done:,} rows"
    if progress.rows_total_estimate is not None:
        rows += f" of about {progress.rows_total_estimate:,}"
    wide = max(8, min(60, width - LABEL - 28))
    still = left(progress)
    paused = ", once it goes on" if progress.state is State.PAUSED and progress.eta_low_s is not None else ""
    yield line("table", Content.assemble(f"{progress.table}   ", (word, f"bold {style}")))
    yield line("done", Content.assemble(f"{meter(progress.fraction, wide)} ", (percent(progress.fraction), "bold")))
    yield line("rows", Content(f"{rows}, in {progress.batches:,} batches"))
    if not progress.state.ended:
        yield line("rate", Content(f"{progress.rows_per_s:,.0f} rows/s over the last 10 s"))
        yield line("left", Content(f"{still}{paused}"))


def _alarms(progress: BackfillProgress) -> Iterator[Content]:
    """What others feel, and what went wrong."""
    if progress.blocked:
        yield line("blocks", Content.styled(f"▲ {progress.blocked} sessions wait for our batch", BAD))
    if progress.delayed:
        yield line("delayed", Content(delayed(progress)))
    if progress.quarantined:
        rows = "1 row" if progress.quarantined == 1 else f"{progress.quarantined:,} rows"
        aside = f"▲ {rows} set aside that could not take a value: v lists them"
        yield line("poison", Content.styled(aside, WARN))
    if progress.differs:
        yield line("differs", Content.styled(f"▲ {progress.differs}", WARN))
    for name, seconds in progress.overridden:
        yield line("override", Content.styled(f"▲ {name} is not heeded for {text.age(seconds)} yet", WARN))
    for _, said in progress.warnings:
        yield line("heed", Content.styled(f"▲ {said}", WARN))
    if progress.remaining is not None:
        besides = " besides those set aside" if progress.quarantined else ""
        yield line("pending", Content(f"{progress.remaining:,} rows{besides}, by the last scan"))


def _batch(progress: BackfillProgress, history: str) -> Content:
    slow = progress.target_ms > 0 and progress.batch_ms > 1.5 * progress.target_ms
    share = bar(progress.batch_ms / (2 * progress.target_ms) if progress.target_ms else 0.0, 12)
    shorter = progress.target_ms < progress.alone_ms and not history
    alone = f" ({progress.alone_ms:.0f} while nobody else works)" if shorter else ""
    took = f"▕{share}▏ {progress.batch_ms:.0f} ms of {progress.target_ms:.0f} ms{'!' if slow else ''}{alone} "
    return line("batch", Content.assemble((took, WARN if slow else ""), (history, FAINT)))


def _how(progress: BackfillProgress, *, driving: bool) -> Iterator[Content]:
    """How it works, and what a person can do about that."""
    level = progress.level
    speed = "as planned" if not level else f"{level:+d} {'faster' if level > 0 else 'gentler'}"
    if not progress.state.ended:
        keys = "    [ gentler   ] faster   t batch time" if driving else ""
        batch = "a batch of a first pass" if progress.walk is Walk.STRIPES else "the next batch"
        size = f"{progress.batch_rows:,} keys in {batch}; works {progress.duty * 100:.0f} % of the time"
        yield line("size", Content(size))
        yield line("speed", Content.assemble(speed, (keys, FAINT)))
    if progress.walk is not None:
        yield line("walk", Content(walk(progress)))


def _what_for(progress: BackfillProgress) -> Iterator[Content]:
    """What it costs the server, against what was foretold."""
    if progress.wal_rows:
        yield line("WAL", Content(wal(progress)))
    if progress.heap is not None:
        yield line("bloat", Content(bloat(progress)))
    if progress.worker is not None:
        beside = f", {len(progress.crew)} fill beside it" if progress.crew else ""
        yield line("backend", Content(f"{progress.worker.pid}{beside}"))


HOW = {Walk.STRIPES: "in stripes", Walk.PAGES: "plainly, by pages"}


def walk(progress: BackfillProgress) -> str:
    """How it walks, what share of its updates finds room on the row's own page, and why it walks so; in the end how it
    walked."""
    if progress.state.ended and progress.striped:
        rest = f", {percent(1 - progress.striped)} plainly" if progress.striped < 1 else ""
        return f"{percent(progress.striped)} of the rows in stripes{rest}"
    how = HOW.get(progress.walk or Walk.KEYSET, "plainly, by keys")
    if progress.hot:
        how += f"  ▕{bar(progress.hot, 8)}▏ {percent(progress.hot)} HOT"
    return f"{how}: {progress.walk_why}" if progress.walk_why else how


def wal(progress: BackfillProgress) -> str:
    """What the server wrote during our batches."""
    each = progress.wal_bytes / max(1, progress.wal_rows)
    foretold = progress.wal_per_row_foretold
    against = f" ({text.size(round(foretold))} foretold)" if foretold is not None else ""
    return f"{text.size(progress.wal_bytes)}, {text.size(round(each))} a row{against}"


def bloat(progress: BackfillProgress) -> str:
    """What the table has grown by."""
    heap = progress.heap
    if heap is None:
        return "not measured yet"
    grown = f"{text.size(heap.grown)} more than" if heap.grown > 0 else "no more than"
    foretold = progress.bloat_foretold
    against = f" ({text.size(foretold)} foretold)" if foretold is not None else ""
    return f"{text.size(heap.now)} on disk, {grown} when it began{against}"


def delayed(progress: BackfillProgress) -> str:
    """Whom our batches delayed so far."""
    who = f"{progress.delayed:,} session{'s' * (progress.delayed != 1)}"
    return f"{who}, {text.age(progress.delayed_s)} in all, {text.age(progress.delayed_worst_s)} at worst"


def line(label: str, said: Content) -> Content:
    """A fact with its name before it."""
    return Content.assemble((f" {label:<{LABEL}} ", FAINT), said)
