"""The lines at the bottom: what was said to the person here, what happened last, and the keys. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from textual.content import Content

from dbwatch.tui.keys import Situation, footer
from dbwatch.tui.panes.journal import says, tone
from dbwatch.tui.say import BAD, FAINT, GOOD, WARN
from dbwatch.window.feed import Frame

LINGERS_S = 15.0
"""So long a good answer stands; what went wrong stands until the next key."""
STYLES = {"": "", "strong": "bold", "dim": FAINT, "good": GOOD, "warn": WARN, "bad": f"bold {BAD}", "own": "bold"}


@dataclass(frozen=True, slots=True)
class Said:
    """Something told to the person at this screen."""

    text: str
    at: float
    """The monotonic clock."""
    wrong: bool = False


def last_line(said: Said | None, frame: Frame | None, now: float, width: int) -> Content:
    """What was said to the person here, as long as it stands; else trouble with the journal; else the last event."""
    if said is not None and (said.wrong or now - said.at < LINGERS_S):
        line = Content.assemble((f" {'✗' if said.wrong else '›'} ", f"bold {BAD}" if said.wrong else "bold"), said.text)
    elif frame is None:
        line = Content("")
    elif frame.window is not None and frame.window.trouble:
        line = Content.styled(f" ✗ {frame.window.trouble}", f"bold {BAD}")
    elif frame.window is not None and frame.window.journal_trouble:
        line = Content.styled(
            f" ✗ the journal is kept in the mirror only: {frame.window.journal_trouble}", f"bold {BAD}"
        )
    elif frame.snapshot.notice:
        line = Content.styled(f" ▲ {frame.snapshot.notice}", WARN)
    elif frame.window is not None and frame.window.events:
        event = frame.window.events[-1]
        style = STYLES.get(tone(event.fact), "")
        line = Content.assemble((f" {event.at:%H:%M:%S} ", FAINT), (says(event, frame.window), style))
    else:
        line = Content("")
    return line.truncate(width, ellipsis=True)


def keys_text(situation: Situation, width: int) -> Content:
    """The keys that do something now, as many as fit."""
    pieces: list[str | tuple[str, str]] = []
    for command in footer(situation, width):
        pieces += [" " if not pieces else "  ", (command.key, "bold $accent"), f" {command.said(situation)}"]
    return Content.assemble(*pieces)
