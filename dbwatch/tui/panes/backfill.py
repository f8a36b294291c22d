"""The backfill: how far, how fast, and in plain words why it is slow, paused or not yet started."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.content import Content
from textual.widget import Widget

from dbwatch import text
from dbwatch.backfill.progress import BackfillProgress, State
from dbwatch.backfill.walk import Walk
from dbwatch.journal.fold import StepStatus
from dbwatch.runbook.model import Backfill
from dbwatch.tui.allowed import next_step
from dbwatch.tui.header import bar, meter
from dbwatch.tui.panes.base import Pane, Record
from dbwatch.tui.panes.plan import percent
from dbwatch.tui.say import BAD, FAINT, GOOD, WARN, Say
from dbwatch.window.feed import Frame, WindowView

LABEL = 10
"""Cells of the column of names."""
BLOCKS = "▁▂▃▄▅▆▇█"

WORDS: dict[State, tuple[str, str]] = {
    State.RUNNING: ("▶ running", GOOD),
    State.PAUSED: ("‖ PAUSED", WARN),
    State.THROTTLED: ("◌ HELD BACK", WARN),
    State.DONE: ("✓ done", GOOD),
    State.INCOMPLETE: ("✗ INCOMPLETE", BAD),
    State.STOPPED: ("■ stopped", WARN),
    State.FAILED: ("✗ FAILED", BAD),
}


def spark(values: Sequence[float], cells: int, top: float) -> str:
    """The last values, one per cell, as blocks from 0 to *top*; what is above *top* is cut off there."""
    last = values[-cells:] if cells > 0 else ()
    step = len(BLOCKS) / max(top, 1e-9)
    return "".join(BLOCKS[max(0, min(len(BLOCKS) - 1, int(value * step)))] for value in last)


def why(progress: BackfillProgress) -> tuple[str, str]:
    """Why it is not at full speed right now, and a style; that it is, where it is."""
    match progress.state:
        case State.PAUSED:
            return f"{progress.reason or 'paused by hand'}; b goes on", WARN
        case State.THROTTLED:
            return f"{progress.reason or 'held back'}; goes on by itself", WARN
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


def progress_lines(progress: BackfillProgress, width: int, *, driving: bool = True) -> list[Content]:
    """A backfill that has begun, in lines of *width* cells; only who drives has keys for its speed."""
    word, style = WORDS[progress.state]
    reason, tone = why(progress)
    rows = f"{progress.rows_done:,} rows"
    if progress.rows_total_estimate is not None:
        rows += f" of about {progress.rows_total_estimate:,}"
    wide = max(8, min(60, width - LABEL - 28))
    slow = progress.target_ms > 0 and progress.batch_ms > 1.5 * progress.target_ms
    time_bar = bar(progress.batch_ms / (2 * progress.target_ms) if progress.target_ms else 0.0, 12)
    history = spark(progress.history, max(0, min(len(progress.history), width - LABEL - 40)), 2 * progress.target_ms)
    eta = "unknown" if progress.eta_s is None else text.clock(progress.eta_s)
    level = (
        "as planned" if not progress.level else f"{progress.level:+d} {'faster' if progress.level > 0 else 'gentler'}"
    )
    lines = [
        _line("table", Content.assemble(f"{progress.table}   ", (word, f"bold {style}"))),
        _line("done", Content.assemble(f"{meter(progress.fraction, wide)} ", (percent(progress.fraction), "bold"))),
        _line("rows", Content(f"{rows}, in {progress.batches:,} batches")),
        _line("rate", Content(f"{progress.rows_per_s:,.0f} rows/s over the last 10 s")),
        _line("left", Content(eta)),
        _line("why", Content.styled(reason, tone)),
        Content(""),
        _line(
            "batch",
            Content.assemble(
                (f"▕{time_bar}▏ {progress.batch_ms:.0f} ms of {progress.target_ms:.0f} ms{'!' if slow else ''} ",
                 WARN if slow else ""),
                (history, FAINT),
            ),
        ),
        _line("size", Content(f"{progress.batch_rows:,} keys in the next batch")),
        *([_line("walk", walk(progress))] if progress.walk is not None else []),
        _line("working", Content(f"{progress.duty * 100:.0f} % of the time, the rest is slept")),
        _line("speed", Content.assemble(level, ("    [ gentler   ] faster" if driving else "", FAINT))),
    ]  # fmt: skip
    if progress.blocked:
        lines.append(_line("blocks", Content.styled(f"▲ {progress.blocked} sessions wait for our batch", BAD)))
    if progress.delayed:
        lines.append(_line("delayed", Content(delayed(progress))))
    if progress.quarantined:
        aside = f"▲ {progress.quarantined:,} rows set aside: dbwatch backfill status --quarantine lists them"
        lines.append(_line("poison", Content.styled(aside, WARN)))
    lines += [_line("heed", Content.styled(f"▲ {said}", WARN)) for _, said in progress.warnings]
    if progress.remaining is not None:
        lines.append(_line("pending", Content(f"{progress.remaining:,} rows, by the last scan")))
    if progress.worker is not None:
        lines.append(_line("backend", Content(f"{progress.worker.pid}")))
    return lines


def walk(progress: BackfillProgress) -> Content:
    """How it walks, and what share of its updates finds room on the row's own page."""
    how = "in stripes" if progress.walk is Walk.STRIPES else "plain keyset"
    if progress.hot is None:
        return Content(how)
    return Content.assemble(f"{how}  ▕{bar(progress.hot, 12)}▏ {percent(progress.hot)} HOT")


def delayed(progress: BackfillProgress) -> str:
    """Whom our batches delayed so far."""
    who = f"{progress.delayed:,} session{'s' * (progress.delayed != 1)}"
    return f"{who}, {text.age(progress.delayed_s)} in all, {text.age(progress.delayed_worst_s)} at worst"


def _line(label: str, said: Content) -> Content:
    return Content.assemble((f" {label:<{LABEL}} ", FAINT), said)


def before_lines(view: WindowView) -> list[Content]:
    """What each backfill of the runbook would do or did, and what starts it."""
    lines: list[Content] = []
    for spec in view.runbook.steps():
        if not isinstance(spec, Backfill):
            continue
        state = view.state.step(spec.id)
        lines += [
            _line(spec.id, Content.assemble((f"backfill of {spec.table}", "bold"), f", {state.status}")),
            _line("does", Content(f"{spec.table}: SET {text.one_line(spec.set)}")),
            _line("where", Content(text.one_line(spec.where))),
            _line("how", Content(f"by key in batches of about {spec.batch_time * 1000:.0f} ms, each committed")),
            *([_line("said", Content(state.text))] if state.text else []),
            _line("next", Content.styled(_starts(spec, state.status, view), "bold")),
            Content(""),
        ]  # fmt: skip
    return lines or [Content(" This runbook has no backfill.")]


def _starts(spec: Backfill, status: StepStatus, view: WindowView) -> str:
    if status is StepStatus.DONE:
        return "nothing: it is done"
    if not view.driving:
        return f"{view.state.driver} drives this window and starts it there"
    first = next_step(view)
    if first != spec.id:
        return f"{first} comes first" if first else "nothing"
    return "b goes on from where it stopped" if view.state.step(spec.id).attempt else "b starts it"


class BackfillPane(Pane):
    """The backfill of the window, or what it would be."""

    number = 7
    command = "backfill"
    title = "Backfill"
    can: ClassVar[frozenset[str]] = frozenset({"export"})
    DEFAULT_CSS = """
    BackfillPane > .body { height: 1fr; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._text = Say(focusable=True)

    def body(self) -> Widget:
        return self._text

    def on_resize(self) -> None:
        """The bars grow with the pane."""
        self.redraw()

    def draw(self, frame: Frame) -> str:
        view = frame.window
        width = max(40, self.size.width - 2)
        if view is None:
            lines = [Content(" No window is open here.")]
        elif view.backfill is not None:
            lines = progress_lines(view.backfill, width, driving=view.driving)
        else:
            lines = before_lines(view)
        self._text.show(Content("\n").join(lines))
        return view.backfill_step if view is not None else ""

    def export(self) -> list[Record]:
        view = self._frame.window
        progress = view.backfill if view is not None else None
        if progress is None:
            return []
        return [{"batch": number, "ms": ms} for number, ms in enumerate(progress.history, 1)]
