"""How old a pane's data is, and how far it can be believed: the text on the pane's rim. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dbwatch.monitor.samples import Snapshot, Status, View
from dbwatch.text import age
from dbwatch.tui.columns import Tone

MISSED_POLLS = 3
"""After so many intervals without a poll, good or bad, the data is stale whatever the connection says."""


@dataclass(frozen=True, slots=True)
class Credit:
    """What the rim says of the data: *stale* where the rows are not the present and are shown dimmed."""

    text: str
    tone: Tone = ""
    stale: bool = False


def credit(snapshot: Snapshot, views: Sequence[View[Any]], now: float, interval_s: float = 1.0) -> Credit:
    """How far *views* of *snapshot* can be believed at *now* (monotonic), polled every *interval_s* seconds.

    The oldest of the views tells the age; the worst tells the status.
    """
    asked = [view for view in views if view.at is not None]
    old = age(now - min(view.taken for view in asked)) if asked else ""
    if not snapshot.connected:
        why = snapshot.trouble or "connecting"
        return Credit(f"stale {old} ({why})" if old else why, "bad", stale=bool(old))
    failed = next((view for view in views if view.status is Status.ERROR), None)
    if failed is not None:
        return Credit(f"stale {old} ({failed.reason})" if old else failed.reason, "bad", stale=bool(old))
    if asked and now - snapshot.taken > MISSED_POLLS * interval_s + 1.0:
        return Credit(f"stale {old} (no poll for {age(now - snapshot.taken)})", "bad", stale=True)
    for status, word in _SAID:
        said = next((view for view in views if view.status is status), None)
        if said is not None:
            text = f"{word}{said.reason}" if said.reason else status.value
            return Credit(f"{text} · {old}" if old else text, "warn")
    cut = next((view.reason for view in views if view.reason), "")
    return Credit(f"{cut} · {old}", "warn") if cut else Credit(old)


_SAID = (
    (Status.HIDDEN, ""),
    (Status.LOCKED, "locked: "),
    (Status.UNSUPPORTED, "unsupported: "),
    (Status.WAITING, "not yet asked"),
)
"""The statuses that are told beside the age, in this order, each with the word before its reason."""
