"""What our batches did to others: the sessions that waited for us, and how long. Pure.

Only what a look saw counts: a wait that began and ended between two of them is not known, and one that was seen is
as long as the last look found it. So the figures are lower bounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dbwatch.backfill.reading import Waiter
from dbwatch.text import age

SessionKey = tuple[int, datetime | None]
"""pid and backend_start: a pid alone is used again."""


@dataclass(frozen=True, slots=True)
class Harm:
    """Sessions that our batches delayed since the run began."""

    delayed: frozenset[SessionKey] = frozenset()
    over_s: float = 0.0
    """Of the waits that have ended, all together."""
    worst_s: float = 0.0
    """The longest one."""
    waiting: Mapping[tuple[SessionKey, datetime | float | None], float] = field(default_factory=dict)
    """The waits of the last look, and how long each had lasted."""

    @property
    def sessions(self) -> int:
        """How many."""
        return len(self.delayed)

    @property
    def total_s(self) -> float:
        """All their waiting together, in seconds."""
        return self.over_s + sum(self.waiting.values())

    def after(self, waiters: Sequence[Waiter]) -> Harm:
        """With what one more look saw: those of *waiters* that waited before have waited on, the others began."""
        now = {((w.pid, w.backend_start), w.since): max(0.0, w.seconds) for w in waiters}
        if not now and not self.waiting:
            return self
        ended = sum(seconds for wait, seconds in self.waiting.items() if wait not in now)
        lasted = {wait: max(seconds, self.waiting.get(wait, 0.0)) for wait, seconds in now.items()}
        return Harm(
            delayed=self.delayed | {session for session, _ in now},
            over_s=self.over_s + ended,
            worst_s=max([self.worst_s, *lasted.values()]),
            waiting=lasted,
        )


def told(sessions: int, total_s: float, worst_s: float) -> str:
    """The harm for a person: `delayed 3 sessions, 0.4 s in all, 0.2 s at worst`; that nobody was seen to wait."""
    if not sessions:
        return "delayed nobody that was seen"
    noun = "session" if sessions == 1 else "sessions"
    return f"delayed {sessions} {noun}, {age(total_s)} in all, {age(worst_s)} at worst"
