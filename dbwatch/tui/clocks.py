"""The window's clocks: its time against its budget, and what an abort would mean now. Pure."""

from __future__ import annotations

from datetime import datetime

from textual.content import Content

from dbwatch import text
from dbwatch.tui.say import BAD, GOOD, WARN
from dbwatch.window import gates
from dbwatch.window.feed import WindowView


def since(view: WindowView, then: datetime | None) -> float | None:
    """Seconds from *then*, by the server's clock, to what the window knows as now."""
    opened = view.state.opened_at
    return None if then is None or opened is None else max(0.0, view.elapsed_s - (then - opened).total_seconds())


def cut(string: str, cells: int) -> str:
    """The beginning of *string* in at most *cells* characters."""
    return string if len(string) <= cells else string[: cells - 1] + "…"


def time_spent(view: WindowView, narrow: bool) -> Content:
    """Elapsed time of the window against its budget; over it, says so in a word too."""
    spent, budget = text.clock(view.elapsed_s), view.runbook.budget
    if budget is None:
        return Content(spent)
    over = view.elapsed_s > budget
    line = f"{spent}{'/' if narrow else ' / '}{text.clock(budget)}{' OVER' if over else ''}"
    return Content.styled(line, BAD if over else "")


def past_no_return(view: WindowView) -> bool:
    """Whether the step after which there is no way back may have done anything."""
    step = view.rollback.no_return
    return step is not None and gates.may_have_done(view.state, view.runbook, step)


def way_back(view: WindowView, narrow: bool) -> Content:
    """The rollback clock: `rollback ≈ 0:38 of 5:00 reversible`, `going back 0:12 of 5:00`, `no way back since drop`."""
    rollback, budget, abort = view.rollback, view.runbook.rollback_budget, view.state.abort
    limit = "" if budget is None else f"{'/' if narrow else ' of '}{text.clock(budget)}"
    if abort is not None and not abort.finished:
        spent = since(view, abort.confirmed_at) or 0.0
        over = budget is not None and spent > budget
        told = f"◀ going back {text.clock(spent)}{limit}{' OVER' if over else ''}"
        return Content.styled(told, f"bold {BAD if over else WARN}")
    if abort is not None:
        told = f"{'back in' if abort.equal else 'abort over after'} {text.clock(abort.seconds or 0.0)}{limit}"
        return Content.styled(told, GOOD if abort.equal else f"bold {BAD}")
    if rollback.unknown:
        because = "" if narrow else f": {cut(rollback.unknown, 48)}"
        return Content.assemble((f"? way back not known{because}", f"bold {WARN}"))
    if past_no_return(view):
        return Content.assemble((f"✗ no way back since {rollback.no_return}", f"bold {BAD}"))
    if not rollback.reversible:
        because = f": {cut(rollback.reason, 24 if narrow else 48)}" if rollback.reason else ""
        return Content.assemble((f"✗ no way back{because}", f"bold {BAD}"))
    if rollback.estimate_s is None:
        return Content.styled("back: not computed yet" if narrow else "rollback: not computed yet", WARN)
    takes = text.clock(rollback.estimate_s)
    over = budget is not None and rollback.estimate_s > budget
    if narrow:
        return Content.assemble(f"back {takes}{limit} ", ("OVER", f"bold {BAD}") if over else ("ok", GOOD))
    verdict = ("OVER its budget", f"bold {BAD}") if over else ("reversible", GOOD)
    return Content.assemble(f"rollback ≈ {takes}{limit} ", verdict)
