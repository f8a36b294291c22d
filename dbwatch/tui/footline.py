"""The lines at the bottom: what was said to the person here, what happened last, and the keys. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from textual.content import Content

from dbwatch.tui.alerts import alert
from dbwatch.tui.allowed import short
from dbwatch.tui.command import Situation
from dbwatch.tui.keys import footer
from dbwatch.tui.panes.journal import says, tone
from dbwatch.tui.say import BAD, FAINT, GOOD, WARN
from dbwatch.window.feed import Frame

LINGERS_S = 15.0
"""So long a good answer stands; what went wrong stands until the next key."""
GLIMPSE_S = 4.0
"""So long where something waits behind it: what presses, or what has happened since."""
STYLES = {"": "", "strong": "bold", "dim": FAINT, "good": GOOD, "warn": WARN, "bad": f"bold {BAD}", "own": "bold"}


@dataclass(frozen=True, slots=True)
class Said:
    """Something told to the person at this screen."""

    text: str
    at: float
    """The monotonic clock."""
    wrong: bool = False
    seq: int = 0
    """Of the window's last event then."""


def last_seq(frame: Frame | None) -> int:
    """The number of the window's last event; 0 without one."""
    return frame.window.events[-1].seq if frame is not None and frame.window is not None and frame.window.events else 0


def last_line(said: Said | None, frame: Frame | None, now: float, width: int) -> Content:
    """What was said to the person here, as long as it stands; else what presses; else the last event."""
    pressing = alert(frame.window) if frame is not None else None
    waits = pressing is not None or (said is not None and last_seq(frame) > said.seq)
    stands = GLIMPSE_S if waits else LINGERS_S
    if said is not None and (said.wrong or now - said.at < stands):
        line = Content.assemble((f" {'✗' if said.wrong else '›'} ", f"bold {BAD}" if said.wrong else "bold"), said.text)
    elif frame is None:
        line = Content("")
    elif pressing is not None:
        if pressing.bad:
            line = Content.styled(f" ✗ {pressing.text}", f"bold {BAD}")
        else:
            line = Content.styled(f" ▲ {pressing.text} ", f"bold reverse {WARN}")
    elif frame.snapshot.notice:
        line = Content.styled(f" ▲ {frame.snapshot.notice}", WARN)
    elif frame.window is not None and frame.window.events:
        event = frame.window.events[-1]
        style = STYLES.get(tone(event.fact), "")
        who = "" if event.actor == frame.window.actor else f"{short(event.actor)}: "
        line = Content.assemble((f" {event.at:%H:%M:%S} ", FAINT), who, (says(event, frame.window), style))
    else:
        line = Content("")
    return line.truncate(width, ellipsis=True)


def keys_text(situation: Situation, width: int) -> Content:
    """The keys that do something now, as many as fit."""
    pieces: list[str | tuple[str, str]] = []
    for command in footer(situation, width):
        pieces += [" " if not pieces else "  ", (command.key, "bold $accent"), f" {command.said(situation)}"]
    return Content.assemble(*pieces)
