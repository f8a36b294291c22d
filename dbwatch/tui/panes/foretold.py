"""The backfills of a runbook before they run: what each would do, how, at what cost, and what starts it. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from textual.content import Content

from dbwatch import text
from dbwatch.journal.fold import StepStatus
from dbwatch.runbook.model import Backfill
from dbwatch.tui.allowed import next_step
from dbwatch.tui.panes.filling import LABEL, line
from dbwatch.tui.say import BAD, FAINT
from dbwatch.window import gates
from dbwatch.window.feed import Foretold, WindowView

AGAIN_S, AFTER_TROUBLE_S = 60.0, 10.0
"""How old a plan grows before it is made anew while one looks at it; and the same where it could not be made."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is known of the next backfill's plan."""

    step: str
    at: float
    """When it was asked for, and once it is there, when it came: the screen's monotonic clock."""
    foretold: Foretold | None = None
    trouble: str = ""
    """Why there is none."""
    asking: bool = True

    def stale(self, now: float) -> bool:
        """Whether it is time to ask again."""
        return not self.asking and now - self.at > (AFTER_TROUBLE_S if self.trouble else AGAIN_S)


def upcoming(view: WindowView) -> str | None:
    """The backfill that would begin now, if somebody pressed `b`; None where another step comes first."""
    if view.state.closed_at is not None or view.state.running is not None:
        return None
    found = gates.next_backfill(view.state, view.runbook)
    return None if isinstance(found, str) else found.id


def before_lines(view: WindowView, width: int, ahead: Ahead | None = None, now: float = 0.0) -> list[Content]:
    """What each backfill of the runbook would do or did, and what starts it; the next one with its plan."""
    lines: list[Content] = []
    for spec in view.runbook.steps():
        if not isinstance(spec, Backfill):
            continue
        state = view.state.step(spec.id)
        planned = ahead if ahead is not None and ahead.step == spec.id else None
        lines += [
            line(spec.id, Content.assemble((f"backfill of {spec.table}", "bold"), f", {state.status}")),
            *_wrapped("said", state.text, width),
            line("next", Content.styled(_starts(spec, state.status, view), "bold")),
            *_wrapped("does", f"{spec.table}: SET {text.one_line(spec.set)}", width),
            *_wrapped("where", text.one_line(spec.where), width),
            *(_plan(planned, width, now) if planned is not None else _roughly(spec)),
            Content(""),
        ]
    return lines or [Content(" This runbook has no backfill.")]


def detail_lines(ahead: Ahead | None, now: float) -> list[str]:
    """The plan whole, with its SQL and the server's own plan of a batch."""
    if ahead is None or (ahead.foretold is None and not ahead.trouble):
        return ["the plan is being made …"]
    if ahead.foretold is None:
        return [f"it cannot be planned now: {ahead.trouble}"]
    found = ahead.foretold
    return [
        f"planned    {text.age(now - ahead.at)} ago",
        *(f"{name:<{LABEL}} {said}" for name, said in found.said),
        "",
        "A batch, from key lo to key hi:",
        *(f"  {one}" for one in found.batch),
        "",
        "How the server would carry it out (EXPLAIN, nothing is run):",
        *(f"  {one}" for one in found.explained),
    ]


def _plan(ahead: Ahead, width: int, now: float) -> Iterator[Content]:
    if ahead.foretold is None:
        if ahead.trouble:
            yield from _wrapped("plan", f"✗ it cannot be planned now: {ahead.trouble}", width, BAD)
        else:
            yield line("plan", Content.styled("is being made …", FAINT))
        return
    told = f"made {text.age(max(0.0, now - ahead.at))} ago; d shows its SQL and what EXPLAIN says of it"
    yield line("plan", Content.styled(told, FAINT))
    for name, said in ahead.foretold.said:
        yield from _wrapped(name, said, width)
    if ahead.trouble:
        yield from _wrapped("now", f"▲ it could not be planned again: {ahead.trouble}", width, BAD)


def _roughly(spec: Backfill) -> Iterator[Content]:
    yield line("how", Content(f"in batches of about {spec.batch_time * 1000:.0f} ms, each committed"))


def _starts(spec: Backfill, status: StepStatus, view: WindowView) -> str:
    if status is StepStatus.DONE:
        return "nothing: it is done"
    if not view.driving:
        return f"{view.state.driver} drives this window and starts it there"
    first = next_step(view)
    if first != spec.id:
        return f"{first} comes first" if first else "nothing"
    return "b goes on from where it stopped" if view.state.step(spec.id).attempt else "b starts it"


def _wrapped(label: str, said: str, width: int, style: str = "") -> Iterator[Content]:
    """A fact in as many lines as it takes, the further ones below the first's words; none where nothing is said."""
    for number, part in enumerate(textwrap.wrap(said, max(20, width - LABEL - 3))):
        yield line("" if number else label, Content.styled(part, style) if style else Content(part))
