"""A step of which nobody knows how it ended: all that was seen of it, and a person's decision."""

from __future__ import annotations

from textual.content import Content

from dbwatch.journal import events as ev
from dbwatch.journal.chain import Event
from dbwatch.journal.words import sentence
from dbwatch.text import one_line
from dbwatch.tui.dialogs.ask import Ask, Choice
from dbwatch.tui.dialogs.note import NoteDialog
from dbwatch.tui.panes.plan import about
from dbwatch.tui.say import BAD, FAINT, WARN
from dbwatch.window.feed import WindowView

NEWEST = 12
"""So many lines of the journal are shown; the Journal has them all."""

TOOK, DID_NOT = "t", "d"
"""The keys of the answers. Neither is `n` or Enter, which have opened the dialog and may be pressed twice."""


def journal_of(view: WindowView, step: str) -> list[Event]:
    """What the journal says of the last attempt at *step*, oldest first; its DDL stands apart."""
    mine = [event for event in view.events if getattr(event.fact, "step", None) == step]
    begun = max((n for n, event in enumerate(mine) if isinstance(event.fact, ev.StepStarted)), default=0)
    return [event for event in mine[begun:] if not isinstance(event.fact, ev.DdlSeen)]


def ddl_lines(view: WindowView, step: str) -> list[str]:
    """The statements of *step*'s last attempt: how far each is known to have come, and what it made, by OID."""
    attempt = view.state.step(step).attempt
    lines = []
    for ddl in (d for d in view.state.ddl if d.step == step and d.attempt == attempt):
        word = "✓ done" if ddl.done else "? sent, its end was not seen"
        lines.append(f"{word}{', commits by itself' * ddl.autocommit}: {one_line(ddl.sql)}")
        for one in ddl.objects:
            name = ".".join(str(part) for part in (one.get("schema"), one.get("parent"), one.get("name")) if part)
            oid = f", OID {one['oid']}" if one.get("oid") else ""
            lines.append(f"    {one.get('action')} {one.get('kind')} {name}{oid}")
    return lines


def evidence(view: WindowView, step: str) -> Content:
    """All that is known of how *step* ended."""
    known = view.state.step(step)
    pieces: list[Content | str | tuple[str, str]] = [
        (f"{step}: {about(view.runbook.step(step))}\n", "bold"),
        (f"? {known.text}\n", f"bold {BAD}"),
        (f"by {known.actor}, attempt {known.attempt}\n", FAINT),
        ("\nIts DDL\n", "bold underline"),
    ]
    pieces += [f"{line}\n" for line in ddl_lines(view, step)] or [("none was seen\n", FAINT)]
    pieces.append(("\nThe journal\n", "bold underline"))
    lines = [f"{event.at:%H:%M:%S} {one_line(sentence(event.fact))}\n" for event in journal_of(view, step)]
    if len(lines) > NEWEST:
        pieces.append((f"… {len(lines) - NEWEST} lines before\n", FAINT))
    pieces += lines[-NEWEST:]
    pieces.append(("\n▲ Look at the database (psql, the panes here) before you say how it ended.", f"bold {WARN}"))
    return Content.assemble(*pieces)


def undecided(view: WindowView, step: str) -> Ask:
    """The evidence, and the two answers."""
    choices = (
        Choice(TOOK, "it took effect"),
        Choice(DID_NOT, "it did not, and can be run again"),
    )
    return Ask(f"Nobody knows how {step} ended", evidence(view, step), choices, "decide later")


def grounds(step: str, took_effect: bool) -> NoteDialog:
    """What the decision rests on."""
    said = f"{step} {'took effect' if took_effect else 'did NOT take effect'}"
    after = "It counts as done." if took_effect else "It counts as failed; n runs it again."
    body = Content.assemble((said, "bold"), f"\n\n{after} The journal keeps that you decided so, and why.")
    return NoteDialog(f"Decide: {said}", body, "How do you know:", "decides it")
